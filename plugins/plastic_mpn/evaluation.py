"""Greedy episodes, many side by side: how good an agent is when it does not explore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_mpn.environments import Environment, make_environment


class Observing(Protocol):
    """A network that says something about an observation: Q-values, logits, or y."""

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode."""

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what it says (batch, actions), its activity and its new state."""


class GreedyEpisodes:
    """Environments in which episodes are played greedily, kept for the next time."""

    def __init__(
        self,
        env_id: str,
        *,
        max_steps: int | None = None,
        options: Mapping[str, Any] | None = None,
        side_by_side: int = 100,
    ) -> None:
        self.env_id = env_id
        self.max_steps = max_steps
        self.options = dict(options or {})
        self.side_by_side = side_by_side
        self._made: list[Environment] = []

    def returns(self, network: Observing, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Return the return of one episode for each seed: always the action that the network rates highest."""
        returns = np.zeros(len(seeds))
        for first in range(0, len(seeds), self.side_by_side):
            part = slice(first, first + self.side_by_side)
            returns[part] = self._play(network, seeds[part])
        return returns

    @torch.no_grad()
    def _play(self, network: Observing, seeds: Sequence[int]) -> NDArray[np.float64]:
        while len(self._made) < len(seeds):
            self._made.append(make_environment(self.env_id, max_steps=self.max_steps, options=self.options))
        state = network.init_state(len(seeds))
        first_action = int(self._made[0].action_space.start)  # type: ignore[attr-defined]
        seen = np.stack([made.reset(seed=seed)[0] for made, seed in zip(self._made, seeds, strict=False)])
        playing = np.arange(len(seeds))
        returns = np.zeros(len(seeds))
        while playing.size:
            observed = torch.as_tensor(seen, dtype=state.dtype, device=state.device)
            rated, _, state = network.observe(observed, state)
            going_on = np.ones(playing.size, np.bool_)
            seen = np.empty_like(seen)
            for place, (index, action) in enumerate(zip(playing.tolist(), rated.argmax(dim=-1).tolist(), strict=True)):
                seen[place], reward, terminated, truncated, _ = self._made[index].step(first_action + action)
                returns[index] += float(reward)
                going_on[place] = not (terminated or truncated)
            if not going_on.all():
                playing, seen, state = playing[going_on], seen[going_on], state[torch.from_numpy(going_on)]
        return returns


def evaluation_seeds(seeds: np.random.SeedSequence, episodes: int) -> list[int]:
    """Return the seeds of `episodes` episodes."""
    return [int(seed) for seed in seeds.generate_state(episodes, np.uint32) >> 1]
