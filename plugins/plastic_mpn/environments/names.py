"""Names of the entries of an observation and of the actions of an environment, and the duration of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gymnasium.spaces import Discrete

from plastic_cli.errors import UserError
from plastic_mpn.environments.vector import Environment


@dataclass(frozen=True)
class Names:
    """Names of what an agent observes and does.

    observations: one name for each entry of an observation, empty if they have no names. actions: one name for each
    action. step_seconds: the duration of a step in seconds of the environment, None if it has none.
    """

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    step_seconds: float | None = None

    def observation(self, index: int) -> str:
        """Return the name of an entry of the observation."""
        return self.observations[index] if self.observations else f"observation {index}"


_DOCUMENTED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "CartPoleEnv": (
            ("cart position", "cart velocity", "pole angle", "pole angular velocity"),
            ("push left", "push right"),
        ),
        "MountainCarEnv": (("car position", "car velocity"), ("accelerate left", "coast", "accelerate right")),
        "AcrobotEnv": (
            ("cos θ1", "sin θ1", "cos θ2", "sin θ2", "angular velocity 1", "angular velocity 2"),
            ("torque -1", "torque 0", "torque 1"),
        ),
        "PendulumEnv": (("cos θ", "sin θ", "angular velocity"), ()),
        "LunarLander": (
            (
                "x",
                "y",
                "x velocity",
                "y velocity",
                "angle",
                "angular velocity",
                "left leg contact",
                "right leg contact",
            ),
            ("no engine", "left engine", "main engine", "right engine"),
        ),
        "FrozenLakeEnv": ((), ("left", "down", "right", "up")),
        "CliffWalkingEnv": ((), ("up", "right", "down", "left")),
        "TaxiEnv": ((), ("south", "north", "east", "west", "pick up", "drop off")),
        "BlackjackEnv": ((), ("stick", "hit")),
    }
)
"""Observations and actions of Gymnasium's environments, by class, after Gymnasium's documentation."""

_STEP_ATTRIBUTES: Mapping[str, str] = MappingProxyType({"CartPoleEnv": "tau", "AcrobotEnv": "dt", "PendulumEnv": "dt"})
"""The attribute that holds the duration of a step in seconds, by class of Gymnasium."""


def names_of(
    environment: Environment, labels: Sequence[str] | None = None, action_labels: Sequence[str] | None = None
) -> Names:
    """Return the names of an environment with vector observations and discrete actions.

    Taken from the first of these that has as many names as the environment needs: `labels` and `action_labels`; the
    attributes `entries`, `actions` and `step_seconds` of the environment's class; Gymnasium's documentation. Without
    any, the entries have no names, and the actions are "action 0" and so on.

    Raises UserError if `labels` or `action_labels` has another number of names than the environment needs.
    """
    width = int(environment.observation_space.shape[0])  # type: ignore[index]
    count = int(environment.action_space.n)  # type: ignore[attr-defined]
    _check_number("--labels", labels, width, "entries of an observation")
    _check_number("--action-labels", action_labels, count, "actions")
    own = environment.unwrapped
    known = [kind.__name__ for kind in type(own).__mro__ if kind.__module__.startswith("gymnasium.envs.")]
    documented = next((_DOCUMENTED[name] for name in known if name in _DOCUMENTED), ((), ()))
    return Names(
        observations=_first_that_fits(width, labels, _texts(own, "entries"), documented[0], _states(own, width)),
        actions=_first_that_fits(count, action_labels, _texts(own, "actions"), documented[1])
        or tuple(f"action {index}" for index in range(count)),
        step_seconds=_step_seconds(own, known),
    )


def _check_number(option: str, names: Sequence[str] | None, needed: int, what: str) -> None:
    if names and len(names) != needed:
        raise UserError(f"{option}: it has {len(names)} names, but the environment has {needed} {what}.")


def _first_that_fits(count: int, *choices: Sequence[str] | None) -> tuple[str, ...]:
    return next((tuple(names) for names in choices if names and len(names) == count), ())


def _texts(environment: Any, attribute: str) -> tuple[str, ...]:
    given = getattr(environment, attribute, ())
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(given) if is_list and all(isinstance(name, str) for name in given) else ()


def _states(environment: Any, width: int) -> tuple[str, ...]:
    """Return the names of discrete states that a wrapper has encoded as one-hot vectors."""
    space = getattr(environment, "observation_space", None)
    return tuple(f"state {space.start + index}" for index in range(width)) if isinstance(space, Discrete) else ()


def _step_seconds(environment: Any, known: Sequence[str]) -> float | None:
    attribute = next((_STEP_ATTRIBUTES[name] for name in known if name in _STEP_ATTRIBUTES), "step_seconds")
    given = getattr(environment, "step_seconds", getattr(environment, attribute, None))
    return float(given) if isinstance(given, int | float) and given > 0 else None
