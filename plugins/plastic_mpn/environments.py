"""Gymnasium environments: made by id and checked, many side by side, and resumed exactly.

Any environment that is determined by the seed of its episode and the actions since can be rebuilt from these two, so
that is what a checkpoint holds: no environment needs to know how to save itself.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

import plastic_mpn.tasks  # registers the tasks with Gymnasium
from plastic_cli.errors import PlasticError, RunFailed, UserError, did_you_mean
from plastic_mpn.environment_options import RESERVED

Environment = gymnasium.Env[Any, Any]


@dataclass(frozen=True)
class Transition:
    """What one step of all environments came to; the observations are those before a new episode begins.

    next_observations (count, d) float32, rewards (count,) float32, terminated and truncated (count,) bool.
    """

    next_observations: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


def make_environment(
    env_id: str,
    *,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
) -> Environment:
    """Make an environment by its Gymnasium id; options are the keyword arguments of its class.

    Raises UserError where the id is unknown, an option is wrong, or the spaces are not a vector of numbers to see and a
    number of actions to choose from.
    """
    if ":" in env_id:
        _check_module_name(env_id)
    limit = {} if max_steps is None else {"max_episode_steps": max_steps}
    # Not every class takes a mode of rendering.
    mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        with warnings.catch_warnings(), _imports_from_here(env_id):
            warnings.simplefilter("ignore")
            environment: Environment = gymnasium.make(
                env_id, disable_env_checker=True, **mode, **limit, **(options or {})
            )
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.NamespaceNotFound):
        guess = "" if ":" in env_id else did_you_mean(env_id, gymnasium.registry)
        raise UserError(
            f"--env {env_id}: Gymnasium knows no such environment.{guess} CartPole-v1 and plastic/GoNogo-v0 are two;"
            " `MODULE:ID` imports the module that registers one of yours."
        ) from None
    except ModuleNotFoundError as error:
        module = env_id.partition(":")[0]
        if ":" in env_id and (error.name is None or module.startswith(error.name)):
            raise UserError(
                f"--env {env_id}: there is no module {module} to import. Start plastic in the folder where"
                f" {module.partition('.')[0]} is, or name that folder in PYTHONPATH."
            ) from None
        raise UserError(f"--env {env_id}: it needs {error.name}, which is not installed.") from None
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"--env {env_id}: {str(error).rstrip('.')}.") from None
    except (TypeError, ValueError) as error:
        _check_option_names(env_id, options or {})
        # Gymnasium adds a sentence of its own to what the class says.
        reason = str(error).partition(" was raised from the environment creator")[0].partition("\n")[0].rstrip(".")
        raise UserError(f"--env {env_id}: it does not start with these options: {reason}.") from None
    except Exception as error:
        # Whatever somebody's environment raises while it is made is about that environment.
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"--env {env_id}: it does not start: {type(error).__name__}: {reason}.") from error
    _check_spaces(env_id, environment)
    return environment


def versioned_id(env_id: str) -> str:
    """Return the id under which Gymnasium makes `env_id`: with its newest version, where none is named.

    An id that Gymnasium does not know stays as it is.
    """
    module, colon, name = env_id.rpartition(":")
    try:
        if colon:
            with _imports_from_here(env_id):
                __import__(module)
        namespace, bare, version = registration.parse_env_id(name)
    except Exception:  # noqa: BLE001  whatever is wrong with it is said when it is made
        return env_id
    newest = registration.find_highest_version(namespace, bare) if version is None else None
    if newest is None or name in gymnasium.registry:
        return env_id
    return f"{env_id}-v{newest}"


@contextmanager
def _imports_from_here(env_id: str) -> Iterator[None]:
    """Let `MODULE:ID` be a module of the working directory, where an installed program does not look."""
    here = str(Path.cwd())
    if ":" not in env_id or here in sys.path:
        yield
        return
    # At the end: nothing in this folder may stand in for a library.
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _check_module_name(env_id: str) -> None:
    module, _, name = env_id.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or module.endswith(".py"):
        stem = Path(module).name.removesuffix(".py")
        raise UserError(
            f"--env {env_id}: {module} is no name of a module. In the folder of the file type"
            f" {stem if stem.isidentifier() else 'MODULE'}:{name}, without a path and without .py."
        )


def _check_option_names(env_id: str, options: Mapping[str, Any]) -> None:
    """Raise UserError, with the options that the environment takes, where one of `options` is none of them."""
    entry_point = gymnasium.spec(env_id).entry_point
    creator = registration.load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    assert creator is not None
    parameters = inspect.signature(creator).parameters.values()
    takes = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    unknown = [name for name in options if name not in takes]
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in parameters):
        offered = [name for name in takes if name not in RESERVED]
        raise UserError(
            f"--env {env_id}: it has no option {unknown[0]}.{did_you_mean(unknown[0], offered)}"
            f" --env-options: {', '.join(offered) or 'it takes none'}."
        )


def _check_spaces(env_id: str, environment: Environment) -> None:
    seen, done = environment.observation_space, environment.action_space
    if not isinstance(done, Discrete):
        raise UserError(
            f"--env {env_id}: its actions are {_space_name(done)}; only environments with a number of actions to choose"
            " from (Discrete) can be learned, such as CartPole-v1 or Acrobot-v1."
        )
    if not isinstance(seen, Box) or len(seen.shape) != 1 or not seen.shape[0]:
        what = f"images or tables of shape {seen.shape}" if isinstance(seen, Box) else _space_name(seen)
        raise UserError(
            f"--env {env_id}: its observations are {what}; only vectors of numbers (a Box with one axis) can be"
            " learned from, such as CartPole-v1's. Gymnasium's FlattenObservation makes one in a wrapper of yours."
        )


def _space_name(space: gymnasium.Space[Any]) -> str:
    return f"continuous (a Box of shape {space.shape})" if isinstance(space, Box) else f"a {type(space).__name__}"


def reward_number(reward: Any) -> float:
    """Return a reward as a number, also where an environment gives an array of one."""
    return float(np.asarray(reward).item())


def begin_episode(environment: Environment, seed: int) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Begin an episode and return what is seen and what the environment tells.

    Raises RunFailed where the environment raises an error or shows something that is not finite.
    """
    try:
        seen, info = environment.reset(seed=seed)
        observation = np.asarray(seen, np.float32)
    except Exception as error:
        raise _failed(environment, "reset()", error) from error
    _check_finite(environment, "reset()", observation)
    return observation, info


def take_action(
    environment: Environment, action: int
) -> tuple[NDArray[np.float32], float, bool, bool, Mapping[str, Any]]:
    """Take an action and return what is seen, the reward, terminated, truncated and what the environment tells.

    Raises RunFailed where the environment raises an error, or shows or pays something that is not finite.
    """
    try:
        seen, reward, terminated, truncated, info = environment.step(action)
        observation, paid = np.asarray(seen, np.float32), reward_number(reward)
    except Exception as error:
        raise _failed(environment, "step()", error) from error
    _check_finite(environment, "step()", observation)
    if not math.isfinite(paid):
        raise RunFailed(
            f"{_name(environment)}: the reward of step() is {paid}; only finite numbers can be learned from."
        )
    return observation, paid, bool(terminated), bool(truncated), info


def _failed(environment: Environment, where: str, error: Exception) -> RunFailed:
    reason = str(error).partition("\n")[0].rstrip(".")
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return RunFailed(f"{_name(environment)}: its {where} failed with {said}. --debug shows where.")


def _check_finite(environment: Environment, where: str, observation: NDArray[np.float32]) -> None:
    finite = np.isfinite(observation)
    if finite.all():
        return
    place = np.flatnonzero(~finite)[0]
    raise RunFailed(
        f"{_name(environment)}: the observation of {where} holds {observation.flat[place]} (number {place});"
        " only finite numbers can be learned from."
    )


def _name(environment: Environment) -> str:
    return environment.spec.id if environment.spec else type(environment.unwrapped).__name__


def episode_seed(seeds: np.random.SeedSequence, index: int, episode: int) -> int:
    """Return the seed of an environment's episode: independent of how many environments there are."""
    key = (*seeds.spawn_key, index, episode)
    return int(np.random.SeedSequence(seeds.entropy, spawn_key=key).generate_state(1, np.uint32)[0] >> 1)


class Environments:
    """`count` copies of an environment, stepped together; an episode that ends is followed by a new one at once."""

    def __init__(
        self,
        env_id: str,
        count: int,
        seeds: np.random.SeedSequence,
        *,
        max_steps: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.env_id = env_id
        self.count = count
        self._seeds = seeds
        self._made = [make_environment(env_id, max_steps=max_steps, options=options) for _ in range(count)]
        self._first_action = int(self._made[0].action_space.start)  # type: ignore[attr-defined]
        self.observation_dim = int(self._made[0].observation_space.shape[0])  # type: ignore[index]
        self.action_count = int(self._made[0].action_space.n)  # type: ignore[attr-defined]
        self.observations = np.zeros((count, self.observation_dim), np.float32)
        self.starts = np.ones(count, np.bool_)
        self.finished: list[tuple[float, int]] = []
        self.steps = 0
        self._episode = [0] * count
        self._return = [0.0] * count
        self._actions: list[list[int]] = [[] for _ in range(count)]
        for index in range(count):
            self._begin(index)

    @property
    def limited(self) -> bool:
        """Whether an episode ends after so many steps, whatever happens in it: the project's own tasks all do."""
        spec = self._made[0].spec
        return spec is None or spec.max_episode_steps is not None or spec.id in plastic_mpn.tasks.TASKS

    @property
    def episodes(self) -> int:
        """How many episodes have begun."""
        return sum(self._episode) + self.count

    def step(self, actions: NDArray[np.integer[Any]]) -> Transition:
        """Take one action, counted from 0, in every environment."""
        rewards = np.zeros(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        next_observations = np.empty_like(self.observations)
        self.finished = []
        self.starts[:] = False
        for index, action in enumerate(actions.tolist()):
            seen, reward, terminated[index], truncated[index], _ = take_action(
                self._made[index], self._first_action + action
            )
            next_observations[index] = seen
            rewards[index] = reward
            self._return[index] += reward
            self._actions[index].append(action)
        self.observations[:] = next_observations
        self.steps += self.count
        for index in np.flatnonzero(terminated | truncated).tolist():
            self.finished.append((self._return[index], len(self._actions[index])))
            self._episode[index] += 1
            self._begin(index)
        return Transition(next_observations, rewards, terminated, truncated)

    def _begin(self, index: int) -> None:
        seen, _ = begin_episode(self._made[index], episode_seed(self._seeds, index, self._episode[index]))
        self.observations[index] = seen
        self.starts[index] = True
        self._return[index] = 0.0
        self._actions[index] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the episode's number and the actions since its start, for every environment."""
        return {
            "episode": list(self._episode),
            "actions": [list(actions) for actions in self._actions],
            "steps": self.steps,
            "observations": [[float(value) for value in row] for row in self.observations],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rebuild every environment; raises PlasticError where one is not determined by seed and actions."""
        self.steps = int(state["steps"])
        for index, (episode, actions) in enumerate(zip(state["episode"], state["actions"], strict=True)):
            self._episode[index] = int(episode)
            self._begin(index)
            for action in actions:
                seen, reward, *_ = take_action(self._made[index], self._first_action + int(action))
                self.observations[index] = seen
                self._return[index] += reward
            self._actions[index] = [int(action) for action in actions]
            self.starts[index] = not actions
        if not np.array_equal(self.observations, np.asarray(state["observations"], np.float32), equal_nan=True):
            raise PlasticError(
                f"{self.env_id} went another way than before with the same seed and actions, so that this run cannot be"
                " resumed exactly. Train a new run."
            )
