"""Gymnasium environments: made by id and checked, run in parallel, and resumed exactly.

A checkpoint stores the seed of each episode and the actions taken since its start. Replaying them rebuilds any
environment that they determine, so that no environment needs code to save its state. A checksum of all observations,
rewards and ends of an episode detects environments that they do not determine.

`gymnasium.vector` can step environments in parallel as well, but its environments cannot be rebuilt in the middle of an
episode: it exposes neither the seed nor the actions of each environment's episode. Exact resumption needs them, so
`Environments` is our own.
"""

from __future__ import annotations

import inspect
import math
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from plastic_cli.errors import PlasticError, RunFailed, UserError, did_you_mean
from plastic_cli.runs.own_modules import (
    check_module_name,
    imports_from_working_directory,
    module_version,
    no_such_module,
)
from plastic_mpn.environments import tasks  # registers the tasks with Gymnasium
from plastic_mpn.environments.options import RESERVED

Environment = gymnasium.Env[Any, Any]

FORMER_MODULES = {"plastic_mpn.tasks": tasks.__name__}
"""Modules that have moved, and their present names: stored runs name them in their environment."""

STEPS_AHEAD = 32
"""The number of further steps that are compared to decide whether an environment is repeatable."""


@dataclass(frozen=True)
class Transition:
    """The result of one step of all environments. The observations are those before a reset.

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

    Raises UserError if the id is unknown, if an option is wrong, and unless the observations are vectors of numbers and
    the actions are discrete.
    """
    if ":" in env_id:
        check_module_name(env_id, f"--env {env_id}")
        env_id = _with_present_module(env_id)
    limit = {} if max_steps is None else {"max_episode_steps": max_steps}
    # Some classes take no render_mode.
    mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        with warnings.catch_warnings(), imports_from_working_directory():
            warnings.simplefilter("ignore")
            environment: Environment = gymnasium.make(
                env_id, disable_env_checker=True, **mode, **limit, **(options or {})
            )
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.NamespaceNotFound):
        guess = "" if ":" in env_id else did_you_mean(env_id, gymnasium.registry)
        raise UserError(
            f"--env {env_id}: there is no such Gymnasium environment.{guess} Examples: CartPole-v1, plastic/GoNogo-v0."
            " For an environment of your own, write MODULE:ID; MODULE is imported and registers it."
        ) from None
    except ModuleNotFoundError as error:
        module = env_id.partition(":")[0]
        if ":" in env_id and (error.name is None or module.startswith(error.name)):
            raise no_such_module(module, f"--env {env_id}") from None
        raise UserError(f"--env {env_id}: the environment needs {error.name}, which is not installed.") from None
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"--env {env_id}: {str(error).rstrip('.')}.") from None
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        _check_option_names(env_id, options or {})
        # Gymnasium adds a sentence to the message of the class.
        reason = str(error).partition(" was raised from the environment creator")[0].partition("\n")[0].rstrip(".")
        raise UserError(f"--env {env_id}: the environment cannot be created with these options: {reason}.") from None
    except Exception as error:
        # Any error that an environment raises while it is created is an error of that environment.
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"--env {env_id}: the environment cannot be created: {type(error).__name__}: {reason}."
        ) from error
    _check_spaces(env_id, environment)
    return environment


def versioned_id(env_id: str) -> str:
    """Return `env_id` with its newest version if it names none.

    An id that Gymnasium does not know is returned unchanged.
    """
    env_id = _with_present_module(env_id)
    module, colon, name = env_id.rpartition(":")
    try:
        if colon:
            with imports_from_working_directory():
                __import__(module)
        namespace, bare, version = registration.parse_env_id(name)
    except Exception:  # noqa: BLE001  make_environment reports the error
        return env_id
    newest = registration.find_highest_version(namespace, bare) if version is None else None
    if newest is None or name in gymnasium.registry:
        return env_id
    return f"{env_id}-v{newest}"


def _with_present_module(env_id: str) -> str:
    module, colon, name = env_id.rpartition(":")
    return f"{FORMER_MODULES.get(module, module)}{colon}{name}"


def _check_option_names(env_id: str, options: Mapping[str, Any]) -> None:
    """Raise UserError, with the options that the environment takes, if it does not take one of `options`."""
    # Gymnasium knows the environment of `MODULE:ID` by its id.
    entry_point = gymnasium.spec(env_id.rpartition(":")[2]).entry_point
    creator = registration.load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    assert creator is not None
    parameters = inspect.signature(creator).parameters.values()
    takes = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    unknown = [name for name in options if name not in takes]
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in parameters):
        offered = [name for name in takes if name not in RESERVED]
        raise UserError(
            f"--env {env_id}: the environment has no option {unknown[0]}.{did_you_mean(unknown[0], offered)}"
            f" Its options: {', '.join(offered) or 'none'}."
        )


def _check_spaces(env_id: str, environment: Environment) -> None:
    try:
        observations, actions = environment.observation_space, environment.action_space
    except AttributeError:
        raise UserError(
            f"--env {env_id}: the environment has no observation_space or no action_space; it needs both."
        ) from None
    if not isinstance(actions, Discrete):
        raise UserError(
            f"--env {env_id}: its actions are {_space_name(actions)}. Choose an environment with discrete actions"
            " (Discrete), such as CartPole-v1 or Acrobot-v1."
        )
    if not isinstance(observations, Box) or len(observations.shape) != 1 or not observations.shape[0]:
        kind = f"arrays of shape {observations.shape}" if isinstance(observations, Box) else _space_name(observations)
        raise UserError(
            f"--env {env_id}: its observations are {kind}. Choose an environment whose observations are vectors (a Box"
            " with one axis), such as CartPole-v1, or wrap it in Gymnasium's FlattenObservation."
        )


def _space_name(space: gymnasium.Space[Any]) -> str:
    return f"continuous (a Box of shape {space.shape})" if isinstance(space, Box) else f"a {type(space).__name__}"


def begin_episode(environment: Environment, seed: int) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Begin an episode and return the observation (d,) and the info.

    Raises RunFailed if the environment raises an error, or if the observation is not in its observation space.
    """
    try:
        returned = environment.reset(seed=seed)
        observation, info = returned
    except Exception as error:
        raise _failed(environment, "reset()", error) from error
    return _observation(environment, "reset()", observation), _info(environment, "reset()", info)


def take_action(
    environment: Environment, action: int
) -> tuple[NDArray[np.float32], float, bool, bool, Mapping[str, Any]]:
    """Take an action and return the observation (d,), the reward, terminated, truncated and the info.

    Raises RunFailed if the environment raises an error, if the observation is not in its observation space, or if
    the reward is not a finite number.
    """
    try:
        observation, reward, terminated, truncated, info = environment.step(action)
    except Exception as error:
        raise _failed(environment, "step()", error) from error
    return (
        _observation(environment, "step()", observation),
        _reward(environment, reward),
        _flag(environment, "terminated", terminated),
        _flag(environment, "truncated", truncated),
        _info(environment, "step()", info),
    )


def draw_picture(environment: Environment) -> NDArray[np.uint8]:
    """Return the environment's image of itself (height, width, 3). Raises RunFailed if it draws none."""
    try:
        picture = np.asarray(environment.render())
    except Exception as error:
        raise _failed(environment, "render()", error) from error
    if picture.ndim != 3 or picture.dtype.kind not in "biuf":
        raise RunFailed(
            f"{_name(environment)}: the image of render() has the shape {picture.shape}; it must be (height, width, 3)."
        )
    return picture.astype(np.uint8)


def _failed(environment: Environment, where: str, error: Exception) -> RunFailed:
    reason = str(error).partition("\n")[0].rstrip(".")
    message = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return RunFailed(f"{_name(environment)}: its {where} failed with {message}. Add --debug to see where.")


def _observation(environment: Environment, where: str, returned: Any) -> NDArray[np.float32]:
    given = _numbers(returned)
    if given is None:
        raise RunFailed(
            f"{_name(environment)}: the observation of {where} is {_shortened(returned)}; it must be an array of"
            " numbers."
        )
    shape = environment.observation_space.shape
    if given.shape != shape:
        raise RunFailed(
            f"{_name(environment)}: the observation of {where} has the shape {given.shape}, but the observation space"
            f" has the shape {shape}. Correct the environment."
        )
    observation = given
    if given.dtype != np.float32:
        with np.errstate(over="ignore"):
            observation = given.astype(np.float32)
    finite = np.isfinite(observation)
    if not finite.all():
        place = np.flatnonzero(~finite)[0]
        raise RunFailed(
            f"{_name(environment)}: the observation of {where} holds {given.flat[place]} (number {place});"
            " observations must be finite 32-bit numbers."
        )
    return observation


def _reward(environment: Environment, reward: Any) -> float:
    """Return the reward as a number; an environment may return an array with one entry."""
    if isinstance(reward, float) and math.isfinite(reward):
        return float(reward)
    given = _numbers(reward)
    if given is None or given.size != 1:
        raise RunFailed(f"{_name(environment)}: the reward of step() is {_shortened(reward)}; it must be one number.")
    number = float(given.item())
    if not math.isfinite(number):
        raise RunFailed(f"{_name(environment)}: the reward of step() is {number}; rewards must be finite numbers.")
    return number


def _flag(environment: Environment, name: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    given = _numbers(value)
    if given is None or given.size != 1 or given.item() not in (0, 1):
        raise RunFailed(f"{_name(environment)}: {name} of step() is {_shortened(value)}; it must be True or False.")
    return bool(given.item())


def _info(environment: Environment, where: str, info: Any) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise RunFailed(f"{_name(environment)}: the info of {where} is {_shortened(info)}; it must be a dictionary.")
    return info


def _numbers(value: Any) -> NDArray[Any] | None:
    """Return a value as an array of real numbers, or None if it is not one."""
    try:
        given = np.asarray(value)
    except Exception:  # noqa: BLE001  lists of different lengths, or any error of an object of the environment
        return None
    return given if given.dtype.kind in "biuf" else None


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _name(environment: Environment) -> str:
    return environment.spec.id if environment.spec else type(environment.unwrapped).__name__


def package_versions(environment: Environment) -> dict[str, str]:
    """Return the versions of Gymnasium and of the package of the environment's class, by package.

    For a module that belongs to no installed package, the version is the first digits of the SHA-256 of its file.
    """
    found = {"gymnasium": version("gymnasium")}
    module = type(environment.unwrapped).__module__
    package = module.partition(".")[0]
    if package in ("gymnasium", tasks.__name__.partition(".")[0]):
        return found
    return found | module_version(module)


def is_repeatable(
    env_id: str,
    seed: int,
    actions: Sequence[int] = (),
    *,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether two new environments return the same for the same seed and actions.

    After `actions` they take up to `STEPS_AHEAD` further steps, with each action in turn, because a difference may
    appear late in an episode. Environments that use random numbers which the seed does not set differ here.
    """

    def checksum() -> int:
        environment = make_environment(env_id, max_steps=max_steps, options=options)
        first, count = int(environment.action_space.start), int(environment.action_space.n)  # type: ignore[attr-defined]
        observation, _ = begin_episode(environment, seed)
        found = zlib.crc32(observation.tobytes())
        try:
            for action in [*actions, *(step % count for step in range(STEPS_AHEAD))]:
                observation, reward, terminated, truncated, _ = take_action(environment, first + action)
                found = _extended(found, observation, reward, terminated or truncated)
                if terminated or truncated:
                    break
        except RunFailed:
            # An error after these actions is reported when an agent takes them.
            pass
        finally:
            environment.close()
        return found

    return checksum() == checksum()


def _extended(checksum: int, observation: NDArray[np.float32], reward: float, over: bool) -> int:
    """Return the checksum of an episode after one more step."""
    return zlib.crc32(struct.pack("<d?", reward, over), zlib.crc32(observation.tobytes(), checksum))


def episode_seed(seeds: np.random.SeedSequence, index: int, episode: int) -> int:
    """Return the seed of an episode of an environment; it does not depend on the number of environments."""
    key = (*seeds.spawn_key, index, episode)
    return int(np.random.SeedSequence(seeds.entropy, spawn_key=key).generate_state(1, np.uint32)[0] >> 1)


class Environments:
    """`count` copies of an environment that step together. A new episode begins as soon as one ends."""

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
        self._max_steps, self._options = max_steps, dict(options or {})
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
        self._checksums = [0] * count
        for index in range(count):
            self._begin(index)

    @property
    def limited(self) -> bool:
        """Whether the number of steps of an episode is limited, as in all tasks of this plugin."""
        spec = self._made[0].spec
        return spec is None or spec.max_episode_steps is not None or spec.id in tasks.TASKS

    def step(self, actions: NDArray[np.integer[Any]]) -> Transition:
        """Take one action, counted from 0, in every environment."""
        rewards = np.zeros(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        next_observations = np.empty_like(self.observations)
        self.finished = []
        self.starts[:] = False
        for index, action in enumerate(actions.tolist()):
            transition = self._take(index, action)
            next_observations[index], rewards[index], terminated[index], truncated[index] = transition
        self.observations[:] = next_observations
        self.steps += self.count
        for index in np.flatnonzero(terminated | truncated).tolist():
            self.finished.append((self._return[index], len(self._actions[index])))
            self._episode[index] += 1
            self._begin(index)
        return Transition(next_observations, rewards, terminated, truncated)

    def _begin(self, index: int) -> None:
        observation, _ = begin_episode(self._made[index], self._seed(index))
        self.observations[index] = observation
        self.starts[index] = True
        self._return[index] = 0.0
        self._actions[index] = []
        self._checksums[index] = zlib.crc32(observation.tobytes())

    def _take(self, index: int, action: int) -> tuple[NDArray[np.float32], float, bool, bool]:
        """Take an action, counted from 0, in one environment, and update its return, actions and checksum."""
        observation, reward, terminated, truncated, _ = take_action(self._made[index], self._first_action + action)
        self._return[index] += reward
        self._actions[index].append(action)
        self._checksums[index] = _extended(self._checksums[index], observation, reward, terminated or truncated)
        return observation, reward, terminated, truncated

    def _seed(self, index: int) -> int:
        return episode_seed(self._seeds, index, self._episode[index])

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Gymnasium and of the package of the environments, by package."""
        return package_versions(self._made[0])

    def repeatable(self) -> bool:
        """Return whether seed and actions rebuild the first environment's episode; see `is_repeatable`."""
        return is_repeatable(
            self.env_id, self._seed(0), self._actions[0], max_steps=self._max_steps, options=self._options
        )

    def state_dict(self) -> dict[str, Any]:
        """Return, by environment, the number of its episode, the actions since its start, and a checksum."""
        return {
            "episode": list(self._episode),
            "actions": [list(actions) for actions in self._actions],
            "steps": self.steps,
            "checksums": list(self._checksums),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rebuild every environment from the result of `state_dict`.

        Raises PlasticError if an environment returns something else than before, or is not `repeatable`.
        """
        self.steps = int(state["steps"])
        parts = zip(state["episode"], state["actions"], state["checksums"], strict=True)
        for index, (episode, actions, checksum) in enumerate(parts):
            self._episode[index] = int(episode)
            self._begin(index)
            for action in actions:
                self.observations[index], _, terminated, truncated = self._take(index, int(action))
                if terminated or truncated:
                    break
            self.starts[index] = not actions
            if self._checksums[index] != int(checksum):
                raise PlasticError(
                    f"{self.env_id} differs from before with the same seed and actions in its observations, rewards or"
                    " ends, so this run cannot be resumed exactly. Train a new run."
                )
        if not self.repeatable():
            raise PlasticError(
                f"{self.env_id} is not determined by its seed and actions, so this run cannot be resumed exactly."
                " Use only self.np_random for its random numbers, and train a new run."
            )
