"""Recorded greedy episodes: the environment's outputs, the network's actions, and its states."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from plastic_cli.errors import UserError
from plastic_mpn.environments.greedy import StateChange, Step, play
from plastic_mpn.environments.vector import Environment, draw_picture, make_environment
from plastic_mpn.networks.agents import ActorCritic, Network
from plastic_mpn.networks.cores import Projected


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, with n hidden units and M of d inputs.

    observations (T, o): inputs of the network. actions (T,): its actions, counted from 0. rewards (T,): the rewards
    that followed. outputs (T, actions): Q-values, logits or readouts. hidden (T, n): h_t. matrices (T, n, d): M_{t-1}
    of the lowest plastic layer, which step t used before its input changed it; None without a plastic layer. infos: the
    info returned with each observation. frames (steps, height, width, 3) uint8: the environment's images of the steps
    in `frame_steps`; None if it draws none. projected: whether the inputs of M are projections of the observation.
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
    projected: bool = False

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
    """Run one episode per seed, always with the action of the largest output, and record it.

    The episodes run in parallel: one forward pass serves all episodes that have not ended. render: store the
    environment's images of all steps (True) or of the given steps, if it draws any. ablation: changes the recurrent
    state before every step. keep_states: False leaves `hidden` and `matrices` empty. Raises UserError if the
    environment does not fit the network.
    """
    draws = bool(render) and draws_pictures(env_id, max_steps=max_steps, options=options)
    mode = "rgb_array" if draws else None
    made = [make_environment(env_id, max_steps=max_steps, options=options, render_mode=mode) for _ in seeds]
    _check_fit(network, env_id, made[0])
    recorder = _Recorder(network, made, keep_states=keep_states, pictures=render if draws else False)
    with _headless() if draws else nullcontext():
        try:
            play(network, made, seeds, change_state=ablation, observer=recorder)
        finally:
            for environment in made:
                environment.close()
    projected = isinstance(network.core, Projected)
    return [log.episode(seed, projected=projected) for log, seed in zip(recorder.logs, seeds, strict=True)]


def draws_pictures(env_id: str, *, max_steps: int | None = None, options: Mapping[str, Any] | None = None) -> bool:
    """Return whether the environment can draw itself here. Many need pygame for that."""
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


def readable(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of an info that can be analyzed: numbers, strings, arrays of them, and None."""
    kept = {}
    for name, value in info.items():
        try:
            kind = np.asarray(value).dtype.kind
        except Exception:  # noqa: BLE001  lists of different lengths, or any error of an object of the environment
            continue
        if value is None or kind in "biufU":
            # A copy, because an environment may write into the array again.
            kept[str(name)] = np.array(value) if isinstance(value, np.ndarray) else value
    return kept


class _Log:
    """The recorded steps of an episode that is running."""

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

    def episode(self, seed: int, *, projected: bool) -> Episode:
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
            projected=projected,
        )


class _Recorder:
    """Records every step in the logs of the episodes."""

    def __init__(
        self,
        network: Network,
        environments: Sequence[Environment],
        *,
        keep_states: bool,
        pictures: Collection[int] | bool,
    ) -> None:
        self.logs = [_Log() for _ in environments]
        self._core = network.core
        self._environments = environments
        self._keep_states = keep_states
        self._pictures = pictures

    def observe(self, step: Step) -> None:
        outputs = step.outputs.cpu().numpy()
        hidden = step.hidden.cpu().numpy() if self._keep_states else None
        matrices = self._core.matrices(step.used) if self._keep_states else []
        remembered = matrices[0].cpu().numpy() if matrices else None
        draws = self._pictures if isinstance(self._pictures, bool) else step.step in self._pictures
        for row, index in enumerate(step.playing):
            log = self.logs[index]
            log.observations.append(step.observations[row])
            log.infos.append(readable(step.infos[row]))
            log.actions.append(step.actions[row])
            log.outputs.append(outputs[row])
            if hidden is not None:
                log.hidden.append(hidden[row])
            if remembered is not None:
                log.matrices.append(remembered[row])
            if draws:
                log.frames.append(draw_picture(self._environments[index]))
                log.frame_steps.append(step.step)

    def reward(self, episode: int, reward: float) -> None:
        self.logs[episode].rewards.append(reward)


def _check_fit(network: Network, env_id: str, environment: Environment) -> None:
    numbers, actions = environment.observation_space.shape, environment.action_space
    outputs = network.actor.out_features if isinstance(network, ActorCritic) else network.head.out_features
    if numbers != (network.core.input_dim,):
        raise UserError(
            f"--env {env_id}: its observations have {(numbers or (0,))[0]} numbers, but the network was trained on"
            f" {network.core.input_dim}. Choose an environment with the same sizes."
        )
    if actions.n != outputs:  # type: ignore[attr-defined]
        raise UserError(
            f"--env {env_id}: it has {actions.n} actions, but the network has {outputs} outputs. Choose another."  # type: ignore[attr-defined]
        )


@contextmanager
def _headless() -> Iterator[None]:
    """Set the driver of SDL, which many environments draw with, so that it needs no display."""
    before = os.environ.get("SDL_VIDEODRIVER")
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SDL_VIDEODRIVER"]
        else:
            os.environ["SDL_VIDEODRIVER"] = before
