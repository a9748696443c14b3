"""Greedy episodes, many side by side: how good an agent is when it does not explore."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_mpn.environments.vector import (
    Environment,
    begin_episode,
    make_environment,
    take_action,
)


class Observing(Protocol):
    """A network that says something about an observation: Q-values, logits, or y."""

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode."""

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what it says (batch, actions), its activity and its new state."""


@dataclass(frozen=True)
class Step:
    """One step of the episodes that are still being played, before the environments take it.

    playing: their numbers, (rows,); observations (rows, o) and infos are what each saw, used (rows, ...) the states
    that the network had, outputs (rows, actions), hidden (rows, n) and actions (rows,) what it made of it.
    """

    step: int
    playing: list[int]
    observations: NDArray[np.float32]
    infos: Sequence[Mapping[str, Any]]
    used: Tensor
    outputs: Tensor
    hidden: Tensor
    actions: list[int]


class Observer(Protocol):
    """Who looks on while episodes are played."""

    def see(self, moment: Step) -> None:
        """Look at a moment, before the environments move on."""

    def reward(self, episode: int, reward: float) -> None:
        """Hear what an episode's last action brought."""


StateChange = Callable[[Tensor, int], Tensor]
"""(state (episodes, *state_shape), step) to the state that the step uses; row i belongs to episode i throughout."""


@torch.no_grad()
def play(
    network: Observing,
    environments: Sequence[Environment],
    seeds: Sequence[int],
    *,
    change_state: StateChange | None = None,
    witness: Observer | None = None,
) -> NDArray[np.float64]:
    """Play one episode for each seed, always taking the action with the largest output; return their returns (seeds,).

    The episodes run side by side: one forward for all that have not ended.
    """
    state = network.init_state(len(seeds))
    first_action = int(environments[0].action_space.start)  # type: ignore[attr-defined]
    seen = [begin_episode(environment, seed) for environment, seed in zip(environments, seeds, strict=False)]
    returns = np.zeros(len(seeds))
    playing = list(range(len(seeds)))
    for step in count():
        if change_state is not None:
            state = change_state(state, step)
        observations = np.stack([seen[index][0] for index in playing])
        rows = torch.tensor(playing, device=state.device)
        used = state[rows]
        outputs, hidden, after = network.observe(torch.from_numpy(observations).to(state.device), used)
        state = state.index_copy(0, rows, after)
        actions = outputs.argmax(dim=-1).tolist()
        if witness is not None:
            infos = [seen[index][1] for index in playing]
            witness.see(Step(step, playing, observations, infos, used, outputs, hidden, actions))
        going_on = []
        for index, action in zip(playing, actions, strict=True):
            observation, reward, terminated, truncated, info = take_action(environments[index], first_action + action)
            seen[index] = (observation, info)
            returns[index] += reward
            if witness is not None:
                witness.reward(index, reward)
            if not (terminated or truncated):
                going_on.append(index)
        playing = going_on
        if not playing:
            break
    return returns


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
        """Return the return of one episode for each seed."""
        while len(self._made) < min(len(seeds), self.side_by_side):
            self._made.append(make_environment(self.env_id, max_steps=self.max_steps, options=self.options))
        parts = [seeds[first : first + self.side_by_side] for first in range(0, len(seeds), self.side_by_side)]
        return np.concatenate([play(network, self._made, part) for part in parts])


def evaluation_seeds(seeds: np.random.SeedSequence, episodes: int) -> list[int]:
    """Return the seeds of `episodes` episodes."""
    return [int(seed) for seed in seeds.generate_state(episodes, np.uint32) >> 1]
