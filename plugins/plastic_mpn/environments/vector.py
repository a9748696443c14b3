"""Gymnasium environments: made by id and checked, many side by side, and resumed exactly.

Any environment that is determined by the seed of its episode and the actions since can be rebuilt from these two, so
that is what a checkpoint holds: no environment needs to know how to save itself. A checksum of everything that an
episode has shown and paid tells where an environment is not determined by them.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from plastic_cli.errors import PlasticError, RunFailed, UserError, did_you_mean
from plastic_mpn.environments import tasks  # registers the tasks with Gymnasium
from plastic_mpn.environments.options import RESERVED

Environment = gymnasium.Env[Any, Any]

STEPS_AHEAD = 32
"""So many steps behind the present one are compared before an environment counts as repeatable."""


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
    try:
        seen, done = environment.observation_space, environment.action_space
    except AttributeError:
        raise UserError(
            f"--env {env_id}: it has no observation_space or no action_space; an environment needs both."
        ) from None
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


def begin_episode(environment: Environment, seed: int) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Begin an episode and return what is seen (d,) and what the environment tells.

    Raises RunFailed where the environment raises an error, or shows something else than its observation space says.
    """
    try:
        returned = environment.reset(seed=seed)
        seen, info = returned
    except Exception as error:
        raise _failed(environment, "reset()", error) from error
    return _observation(environment, "reset()", seen), _info(environment, "reset()", info)


def take_action(
    environment: Environment, action: int
) -> tuple[NDArray[np.float32], float, bool, bool, Mapping[str, Any]]:
    """Take an action and return what is seen (d,), the reward, terminated, truncated and what the environment tells.

    Raises RunFailed where the environment raises an error, shows something else than its observation space says, or
    pays something that is not a finite number.
    """
    try:
        seen, reward, terminated, truncated, info = environment.step(action)
    except Exception as error:
        raise _failed(environment, "step()", error) from error
    return (
        _observation(environment, "step()", seen),
        _reward(environment, reward),
        _flag(environment, "terminated", terminated),
        _flag(environment, "truncated", truncated),
        _info(environment, "step()", info),
    )


def draw_picture(environment: Environment) -> NDArray[np.uint8]:
    """Return the environment's picture of itself, (height, width, 3); raises RunFailed where it draws none."""
    try:
        picture = np.asarray(environment.render())
    except Exception as error:
        raise _failed(environment, "render()", error) from error
    if picture.ndim != 3 or picture.dtype.kind not in "biuf":
        raise RunFailed(
            f"{_name(environment)}: the picture of render() has the shape {picture.shape}; it must be"
            " (height, width, 3)."
        )
    return picture.astype(np.uint8)


def _failed(environment: Environment, where: str, error: Exception) -> RunFailed:
    reason = str(error).partition("\n")[0].rstrip(".")
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return RunFailed(f"{_name(environment)}: its {where} failed with {said}. --debug shows where.")


def _observation(environment: Environment, where: str, seen: Any) -> NDArray[np.float32]:
    given = _numbers(seen)
    if given is None:
        raise RunFailed(
            f"{_name(environment)}: the observation of {where} is {_shortened(seen)}; it must be an array of numbers."
        )
    shape = environment.observation_space.shape
    if given.shape != shape:
        raise RunFailed(
            f"{_name(environment)}: the observation of {where} has the shape {given.shape}, but the observation space"
            f" has {shape}. Make the two the same in the environment."
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
            " only finite numbers (of 32 bits) can be learned from."
        )
    return observation


def _reward(environment: Environment, reward: Any) -> float:
    """Return a reward as a number, also where an environment gives an array of one."""
    if isinstance(reward, float) and math.isfinite(reward):
        return float(reward)
    given = _numbers(reward)
    if given is None or given.size != 1:
        raise RunFailed(f"{_name(environment)}: the reward of step() is {_shortened(reward)}; it must be one number.")
    paid = float(given.item())
    if not math.isfinite(paid):
        raise RunFailed(
            f"{_name(environment)}: the reward of step() is {paid}; only finite numbers can be learned from."
        )
    return paid


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
    """Return a value as an array of real numbers, or None where it is none."""
    try:
        given = np.asarray(value)
    except Exception:  # noqa: BLE001  lists of different lengths, and whatever an object of the environment raises
        return None
    return given if given.dtype.kind in "biuf" else None


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _name(environment: Environment) -> str:
    return environment.spec.id if environment.spec else type(environment.unwrapped).__name__


def package_versions(environment: Environment) -> dict[str, str]:
    """Return the versions of Gymnasium and of the package that the environment's class comes from, by package.

    A module that belongs to no installed package has the first digits of its file's SHA-256 in place of a version.
    """
    found = {"gymnasium": version("gymnasium")}
    module = type(environment.unwrapped).__module__
    package = module.partition(".")[0]
    if package in ("gymnasium", tasks.__name__.partition(".")[0]):
        return found
    for name in (package, *packages_distributions().get(package, ())):
        try:
            return found | {name: version(name)}
        except PackageNotFoundError:
            continue
    source = getattr(sys.modules.get(module), "__file__", None)
    if source is None or not Path(source).is_file():
        return found | {module: "unknown"}
    return found | {module: f"sha256 {hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}"}


def is_repeatable(
    env_id: str,
    seed: int,
    actions: Sequence[int] = (),
    *,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> bool:
    """Say whether two new environments show and pay the same for the same seed and actions.

    Behind `actions` they take up to `STEPS_AHEAD` more, each of the actions in turn: what an episode hides in its first
    steps shows then. Environments that draw from a random state which the seed does not set differ here.
    """

    def checksum() -> int:
        environment = make_environment(env_id, max_steps=max_steps, options=options)
        first, count = int(environment.action_space.start), int(environment.action_space.n)  # type: ignore[attr-defined]
        seen, _ = begin_episode(environment, seed)
        found = zlib.crc32(seen.tobytes())
        try:
            for action in [*actions, *(step % count for step in range(STEPS_AHEAD))]:
                seen, reward, terminated, truncated, _ = take_action(environment, first + action)
                found = _noted(found, seen, reward, terminated or truncated)
                if terminated or truncated:
                    break
        except RunFailed:
            # What fails behind these actions is told where an agent takes them.
            pass
        finally:
            environment.close()
        return found

    return checksum() == checksum()


def _noted(checksum: int, observation: NDArray[np.float32], reward: float, over: bool) -> int:
    """Return the checksum of an episode with one more step."""
    return zlib.crc32(struct.pack("<d?", reward, over), zlib.crc32(observation.tobytes(), checksum))


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
        """Whether an episode ends after so many steps, whatever happens in it: the project's own tasks all do."""
        spec = self._made[0].spec
        return spec is None or spec.max_episode_steps is not None or spec.id in tasks.TASKS

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
        seen, _ = begin_episode(self._made[index], self._seed(index))
        self.observations[index] = seen
        self.starts[index] = True
        self._return[index] = 0.0
        self._actions[index] = []
        self._checksums[index] = zlib.crc32(seen.tobytes())

    def _take(self, index: int, action: int) -> tuple[NDArray[np.float32], float, bool, bool]:
        """Take an action, counted from 0, in one environment, and note what came of it."""
        seen, reward, terminated, truncated, _ = take_action(self._made[index], self._first_action + action)
        self._return[index] += reward
        self._actions[index].append(action)
        self._checksums[index] = _noted(self._checksums[index], seen, reward, terminated or truncated)
        return seen, reward, terminated, truncated

    def _seed(self, index: int) -> int:
        return episode_seed(self._seeds, index, self._episode[index])

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what the environments come from, by package."""
        return package_versions(self._made[0])

    def repeatable(self) -> bool:
        """Say whether the first environment's episode can be rebuilt from its seed and actions; see `is_repeatable`."""
        return is_repeatable(
            self.env_id, self._seed(0), self._actions[0], max_steps=self._max_steps, options=self._options
        )

    def state_dict(self) -> dict[str, Any]:
        """Return, for every environment, its episode's number, the actions since its start, and what they came to."""
        return {
            "episode": list(self._episode),
            "actions": [list(actions) for actions in self._actions],
            "steps": self.steps,
            "checksums": list(self._checksums),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rebuild every environment.

        Raises PlasticError where an environment shows or pays something else than before, or is not `repeatable`.
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
                    f"{self.env_id} went another way than before with the same seed and actions: its observations,"
                    " rewards or ends differ, so that this run cannot be resumed exactly. Train a new run."
                )
        if not self.repeatable():
            raise PlasticError(
                f"{self.env_id} goes another way every time with the same seed and actions, so that this run cannot be"
                " resumed exactly. Draw its random numbers from self.np_random alone, and train a new run."
            )
