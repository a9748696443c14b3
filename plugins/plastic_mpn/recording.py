"""Greedy episodes with everything seen: what the environment showed, what the network did, and its states."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.errors import UserError
from plastic_mpn.cores import Core
from plastic_mpn.environments import Environment, make_environment
from plastic_mpn.networks import MPNDQN, ActorCritic, Readout

Network = MPNDQN | ActorCritic | Readout

StateChange = Callable[[Tensor, int], Tensor]
"""(state (episodes, *state_shape), step) to the state that the step uses; row i belongs to episode i throughout."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, with n hidden units and M of d inputs.

    observations (T, o): what the network saw. actions (T,): those it took, counted from 0. rewards (T,): those that
    followed. outputs (T, actions): Q-values, logits or readouts. hidden (T, n): h_t. matrices (T, n, d): M_{t-1} of the
    lowest plastic layer, as the step used it, that is before the step's own input changed it; None without a plastic
    layer. infos: what the environment told together with each observation. frames (steps, height, width, 3) uint8: the
    environment's pictures of the steps in `frame_steps`; None where it draws none.
    """

    seed: int
    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    outputs: NDArray[np.float32]
    hidden: NDArray[np.float32]
    matrices: NDArray[np.float32] | None
    infos: tuple[Mapping[str, Any], ...]
    frames: NDArray[np.uint8] | None = None
    frame_steps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return float(self.rewards.sum())


@torch.no_grad()
def record_episodes(
    network: Network,
    env_id: str,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    render: bool | Collection[int] = False,
    ablation: StateChange | None = None,
    keep_states: bool = True,
) -> list[Episode]:
    """Play one episode per seed, always taking the action with the largest output, and return all that happened.

    The episodes run side by side: one forward for all that have not ended. render: keep the environment's pictures, of
    all steps or of those named; where it draws none there are none. ablation: changes the recurrent state before every
    step. keep_states: False leaves `hidden` and `matrices` empty, where only behaviour counts.
    Raises UserError where the environment does not fit the network.
    """
    wanted: Collection[int] | None = render if isinstance(render, Collection) else None
    draws = bool(render) and draws_pictures(env_id, max_steps=max_steps, options=options)
    mode = "rgb_array" if draws else None
    made = [make_environment(env_id, max_steps=max_steps, options=options, render_mode=mode) for _ in seeds]
    logs = [_Log() for _ in seeds]
    with _headless() if draws else nullcontext():
        try:
            _play(network, env_id, made, seeds, logs, draws, wanted, ablation, keep_states)
        finally:
            for environment in made:
                environment.close()
    return [log.episode(seed) for log, seed in zip(logs, seeds, strict=True)]


def draws_pictures(env_id: str, *, max_steps: int | None = None, options: Mapping[str, Any] | None = None) -> bool:
    """Say whether the environment can draw itself here, which takes pygame for many."""
    probe = make_environment(env_id, max_steps=max_steps, options=options)
    if "rgb_array" not in (probe.metadata.get("render_modes") or ()):
        return False
    drawing = make_environment(env_id, max_steps=max_steps, options=options, render_mode="rgb_array")
    with _headless():
        try:
            drawing.reset(seed=0)
            return isinstance(drawing.render(), np.ndarray)
        except gymnasium.error.DependencyNotInstalled:
            return False
        finally:
            drawing.close()


def lowest_input(core: Core, observations: Tensor) -> Tensor:
    """Return what the lowest layer of `core` sees of observations (..., o): behind the projection, if there is one."""
    buffers = dict(core.named_buffers(recurse=False))
    if "A" in buffers and "c" in buffers:
        return torch.nn.functional.linear(observations, buffers["A"], buffers["c"])
    return observations


class _Log:
    """The steps of one episode as they happen."""

    def __init__(self) -> None:
        self.observations: list[NDArray[np.float32]] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.outputs: list[NDArray[np.float32]] = []
        self.hidden: list[NDArray[np.float32]] = []
        self.matrices: list[NDArray[np.float32]] = []
        self.infos: list[Mapping[str, Any]] = []
        self.frames: list[NDArray[np.uint8]] = []
        self.frame_steps: list[int] = []

    def episode(self, seed: int) -> Episode:
        return Episode(
            seed=seed,
            observations=np.stack(self.observations),
            actions=np.asarray(self.actions, np.int64),
            rewards=np.asarray(self.rewards, np.float64),
            outputs=np.stack(self.outputs),
            hidden=np.stack(self.hidden) if self.hidden else np.empty((0, 0), np.float32),
            matrices=np.stack(self.matrices) if self.matrices else None,
            infos=tuple(self.infos),
            frames=np.stack(self.frames) if self.frames else None,
            frame_steps=tuple(self.frame_steps),
        )


def _play(
    network: Network,
    env_id: str,
    made: Sequence[Environment],
    seeds: Sequence[int],
    logs: Sequence[_Log],
    draws: bool,
    wanted: Collection[int] | None,
    ablation: StateChange | None,
    keep_states: bool,
) -> None:
    core = network.core
    first_action = _check_fit(network, env_id, made[0])
    state = network.init_state(len(made))
    seen: list[tuple[Any, dict[str, Any]]] = [
        environment.reset(seed=seed) for environment, seed in zip(made, seeds, strict=True)
    ]
    active = list(range(len(made)))
    for step in count():
        if ablation is not None:
            state = ablation(state, step)
        observations = np.stack([np.asarray(seen[index][0], np.float32) for index in active])
        rows = torch.tensor(active, device=state.device)
        used = state[rows]
        outputs, hidden, after = network.observe(torch.from_numpy(observations).to(state.device), used)
        state = state.index_copy(0, rows, after)
        actions = outputs.argmax(dim=-1).tolist()
        said = outputs.cpu().numpy()
        felt = hidden.cpu().numpy() if keep_states else None
        matrices = core.matrices(used) if keep_states else []
        remembered = matrices[0].cpu().numpy() if matrices else None
        going = []
        for row, index in enumerate(active):
            log, (_, info) = logs[index], seen[index]
            log.observations.append(observations[row])
            log.infos.append(dict(info))
            log.actions.append(actions[row])
            log.outputs.append(said[row])
            if felt is not None:
                log.hidden.append(felt[row])
            if remembered is not None:
                log.matrices.append(remembered[row])
            if draws and (wanted is None or step in wanted):
                log.frames.append(np.asarray(made[index].render(), np.uint8))
                log.frame_steps.append(step)
            following, reward, terminated, truncated, info = made[index].step(first_action + actions[row])
            log.rewards.append(float(reward))
            seen[index] = (following, info)
            if not (terminated or truncated):
                going.append(index)
        active = going
        if not active:
            return


def _check_fit(network: Network, env_id: str, environment: Environment) -> int:
    """Return the number of the first action."""
    numbers, actions = environment.observation_space.shape, environment.action_space
    outputs = network.actor.out_features if isinstance(network, ActorCritic) else network.head.out_features
    if numbers != (network.core.input_dim,):
        raise UserError(
            f"--env {env_id}: its observations have {(numbers or (0,))[0]} numbers, the network was trained on"
            f" {network.core.input_dim}."
        )
    if actions.n != outputs:  # type: ignore[attr-defined]
        raise UserError(
            f"--env {env_id}: it has {actions.n} actions, the network chooses among {outputs}."  # type: ignore[attr-defined]
        )
    return int(actions.start)  # type: ignore[attr-defined]


@contextmanager
def _headless() -> Iterator[None]:
    """Let SDL, with which many environments draw, neither look for a display nor complain that there is none."""
    if "SDL_VIDEODRIVER" in os.environ:
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        del os.environ["SDL_VIDEODRIVER"]
