"""Greedy episodes that run in parallel: the return of an agent without exploration."""

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
    """A network with one output per action: Q-values, logits, or y."""

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state at the beginning of an episode."""

    def observe(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs (batch, actions), the activity and the new state."""


@dataclass(frozen=True)
class Step:
    """One step of the episodes that have not ended, before the environments take it.

    playing (rows,): the indices of these episodes. observations (rows, o) and infos (rows,): the inputs. used (rows,
    ...): the states that the network used. outputs (rows, actions), hidden (rows, n), actions (rows,): its results.
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
    """Observes episodes while they run."""

    def observe(self, step: Step) -> None:
        """Receive a step before the environments take it."""

    def reward(self, episode: int, reward: float) -> None:
        """Receive the reward of an episode's last action."""


StateChange = Callable[[Tensor, int], Tensor]
"""From (state (episodes, *state_shape), step number) to the state that the step uses. Row i belongs to episode i."""


@torch.no_grad()
def play(
    network: Observing,
    environments: Sequence[Environment],
    seeds: Sequence[int],
    *,
    change_state: StateChange | None = None,
    observer: Observer | None = None,
) -> NDArray[np.float64]:
    """Run one episode for each seed, always with the action of the largest output, and return the returns (seeds,).

    The episodes run in parallel: one forward pass serves all episodes that have not ended.
    """
    state = network.init_state(len(seeds))
    first_action = int(environments[0].action_space.start)  # type: ignore[attr-defined]
    latest = [begin_episode(environment, seed) for environment, seed in zip(environments, seeds, strict=False)]
    returns = np.zeros(len(seeds))
    playing = list(range(len(seeds)))
    for step in count():
        if change_state is not None:
            state = change_state(state, step)
        observations = np.stack([latest[index][0] for index in playing])
        rows = torch.tensor(playing, device=state.device)
        used = state[rows]
        outputs, hidden, after = network.observe(torch.from_numpy(observations).to(state.device), used)
        state = state.index_copy(0, rows, after)
        actions = outputs.argmax(dim=-1).tolist()
        if observer is not None:
            infos = [latest[index][1] for index in playing]
            observer.observe(Step(step, playing, observations, infos, used, outputs, hidden, actions))
        unfinished = []
        for index, action in zip(playing, actions, strict=True):
            observation, reward, terminated, truncated, info = take_action(environments[index], first_action + action)
            latest[index] = (observation, info)
            returns[index] += reward
            if observer is not None:
                observer.reward(index, reward)
            if not (terminated or truncated):
                unfinished.append(index)
        playing = unfinished
        if not playing:
            break
    return returns


class GreedyEpisodes:
    """Environments for greedy episodes, which are kept for the next call."""

    def __init__(
        self,
        env_id: str,
        *,
        max_steps: int | None = None,
        options: Mapping[str, Any] | None = None,
        parallel: int = 100,
    ) -> None:
        self.env_id = env_id
        self.max_steps = max_steps
        self.options = dict(options or {})
        self.parallel = parallel
        self._made: list[Environment] = []

    def returns(self, network: Observing, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Return the return of one episode for each seed: (seeds,)."""
        while len(self._made) < min(len(seeds), self.parallel):
            self._made.append(make_environment(self.env_id, max_steps=self.max_steps, options=self.options))
        parts = [seeds[first : first + self.parallel] for first in range(0, len(seeds), self.parallel)]
        return np.concatenate([play(network, self._made, part) for part in parts])


def evaluation_seeds(seeds: np.random.SeedSequence, episodes: int) -> list[int]:
    """Return the seeds of a number of episodes."""
    return [int(seed) for seed in seeds.generate_state(episodes, np.uint32) >> 1]
