"""The base of all trial tasks: periods, fixation, go cue, noise, rewards, and the info of each step.

A trial is a sequence of periods that ends with the decision period. The agent fixates (action 0) until then and
responds with another action. The trial ends with the first response in the decision period, or with that period. A task
defines the stimuli and the correct action (`new_trial`); everything else is defined here.

The entries of every observation, in this order, as named in `entries`:

    fixation    1 before the decision period, 0 in it
    stimuli     those of the task, with Gaussian noise at every step of the trial, including the delay
    cues        those of the task, without noise
    go          1 in the decision period, 0 before it

The published descriptions have no go entry: the end of the fixation signal is the only cue. We add it because a network
whose memory multiplies its input cannot recall anything while the input is zero.
"""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, SupportsIndex, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from plastic_mpn.environments.tasks import picture

T = TypeVar("T")
Observation = NDArray[np.float32]
Steps = int | Sequence[int]
"""A duration in time steps, or several durations, of which each trial draws one with equal probability."""

FIXATE = 0
NOISE_LIMIT = 6.0
"""Noise is clipped at this many standard deviations (one value in 500 million), so that observations are bounded."""


@dataclass(frozen=True)
class Trial:
    """The properties of one trial that a task draws.

    target: the correct action in the decision period; FIXATE if no response is correct.
    facts: plain values that hold for the whole trial. traces: plain values for each step, shape (time,) each.
    reward_withheld: the reward for correctly not responding.
    """

    target: int
    facts: Mapping[str, int | float | bool | str]
    traces: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    reward_withheld: float = 0.0


@dataclass(frozen=True)
class Timeline:
    """The periods of one trial: the period of each step, the steps of each period, the first step of the decision."""

    names: list[str]
    periods: dict[str, slice]
    decision: int
    frame: Observation


@dataclass(kw_only=True, eq=False, repr=False)
class TrialTask(gymnasium.Env[Observation, np.int64]):
    """A Gymnasium environment of `trials` trials. After the last, `terminated` is true and the observation is zero.

    A task is a dataclass: its fields are the keyword arguments of `gymnasium.make`. They include the duration of each
    period in `periods`, in time steps. A trial depends on the seed and on the number of trials before it, not on the
    actions: two agents with the same seed see the same trials.

    `info` describes the observation that is returned with it: "period" ("end" after the last trial), "target" (the
    correct action now), "trial" (from 0), "trial_step" (from 0), and entries of the task. Only "correct" describes the
    previous action: True or False if it ended a trial, otherwise None.

    Attributes:
        trials: trials in an episode.
        sigma: standard deviation of the noise on each stimulus entry at each step.
        reward_correct, reward_fail: for a correct and for a wrong response in the decision period.
        reward_miss: for no response by the end of the decision period of a trial that requires one.
        reward_abort: for each response before the decision period (breaking fixation).
        abort: whether breaking fixation also ends the trial, as incorrect.
        entries, actions: the meaning of each entry of an observation and of each action.
        step_seconds: the duration of a step, as the published durations of the periods assume.

    Raises:
        ValueError: for a bad argument, which is named.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  as Gymnasium declares it
    periods: ClassVar[tuple[str, ...]]
    actions: ClassVar[tuple[str, ...]]
    cues: ClassVar[tuple[str, ...]] = ()
    step_seconds: ClassVar[float] = 0.1
    stimuli: tuple[str, ...] = field(init=False)

    trials: int = 10
    sigma: float = 0.1
    reward_correct: float = 1.0
    reward_fail: float = 0.0
    reward_miss: float = 0.0
    reward_abort: float = -0.1
    abort: bool = False
    render_mode: str | None = None

    @abstractmethod
    def new_trial(self, shown: Observation, periods: Mapping[str, slice]) -> Trial:
        """Draw one trial from `np_random` and add its stimuli and cues to `shown`.

        shown (time, stimuli + cues): holds the noise. periods: the steps of each period, as indices into `shown`.
        """

    def __post_init__(self) -> None:
        self._durations = [check_durations(period, getattr(self, period)) for period in self.periods]
        if min(self._durations[-1]) < 1:
            raise ValueError(f"{self.periods[-1]} must be a whole number of at least 1, not 0")
        check_number("sigma", self.sigma, low=0)
        for name in ("reward_correct", "reward_fail", "reward_miss", "reward_abort"):
            check_number(name, getattr(self, name))
        check_count("trials", self.trials, low=1)
        if not isinstance(self.abort, bool | np.bool_):
            raise ValueError(f"abort must be True or False, not {self.abort!r}")
        if self.render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'rgb_array' or None, not {self.render_mode!r}")
        self.entries = ("fixation", *self.stimuli, *self.cues, "go")
        low, high = np.zeros(len(self.entries), np.float32), np.ones(len(self.entries), np.float32)
        noisy = slice(1, 1 + len(self.stimuli))
        low[noisy] -= NOISE_LIMIT * self.sigma
        high[noisy] += NOISE_LIMIT * self.sigma
        self.observation_space = gymnasium.spaces.Box(low, high)
        self.action_space = gymnasium.spaces.Discrete(len(self.actions))
        self._timelines: dict[tuple[int, ...], Timeline] = {}
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode. `options` has no effect."""
        super().reset(seed=seed, options=options)
        self._action = FIXATE
        self._correct: bool | None = None
        self._over = False
        self._begin_trial(0)
        return self._rows[0], self._infos[0]

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one action in response to the last observation.

        Raises:
            gymnasium.error.ResetNeeded: the episode has ended, or none has begun.
            gymnasium.error.InvalidAction: there is no such action.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("call reset() to begin an episode")
        self._action = action = operator.index(action)
        if not 0 <= action < len(self.actions):
            raise gymnasium.error.InvalidAction(f"actions are 0 to {len(self.actions) - 1}, not {action}")
        correct: bool | None = None
        reward = 0.0
        if self._time < self._timeline.decision:
            if action != FIXATE:
                reward = self.reward_abort
                correct = False if self.abort else None
        elif action != FIXATE:
            correct = action == self._trial.target
            reward = self.reward_correct if correct else self.reward_fail
        elif self._time + 1 == len(self._rows):
            correct = self._trial.target == FIXATE
            reward = self._trial.reward_withheld if correct else self.reward_miss
        self._correct = correct
        if correct is None:
            self._time += 1
        elif self._number + 1 < self.trials:
            self._begin_trial(self._number + 1)
            self._infos[0]["correct"] = correct
        else:
            self._end(correct)
        return self._rows[self._time], reward, self._over, False, self._infos[self._time]

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image of the observation, the time within the trial, and the last action: (320, 464, 3) uint8."""
        if self.render_mode is None:
            gymnasium.logger.warn("make the task with render_mode='rgb_array' to render it")
            return None
        return picture.draw(
            self.entries,
            self._rows[self._time],
            timeline=self._timeline.names,
            step=None if self._over else self._time,
            title=f"trial {self._number + 1} of {self.trials}: {self._infos[self._time]['period']}",
            action=self.actions[self._action],
            correct=self._correct,
        )

    def _begin_trial(self, number: int) -> None:
        steps = tuple(self.draw(durations) for durations in self._durations)
        timeline = self._timelines.get(steps) or self._lay_out(steps)
        observations = timeline.frame.copy()
        # Drawn even if sigma is 0, so that the same seed gives the same trials at every noise level.
        noise = self.np_random.standard_normal((len(observations), len(self.stimuli)), dtype=np.float32)
        np.clip(noise, -NOISE_LIMIT, NOISE_LIMIT, out=noise)
        np.multiply(noise, self.sigma, out=observations[:, 1 : 1 + len(self.stimuli)])
        trial = self.new_trial(observations[:, 1:-1], timeline.periods)
        common = {"period": "", "target": FIXATE, "trial": number, "trial_step": 0, "correct": None, **trial.facts}
        infos = [{**common, "period": name, "trial_step": step} for step, name in enumerate(timeline.names)]
        for info in infos[timeline.decision :]:
            info["target"] = trial.target
        for name, values in trial.traces.items():
            for info, value in zip(infos, values.tolist(), strict=True):
                info[name] = value
        self._number, self._time, self._trial, self._timeline = number, 0, trial, timeline
        self._rows, self._infos = list(observations), infos

    def _end(self, correct: bool) -> None:
        last = {**self._infos[-1], "period": "end", "target": FIXATE, "correct": correct}
        self._rows, self._infos, self._time, self._over = [np.zeros(len(self.entries), np.float32)], [last], 0, True

    def _lay_out(self, steps: tuple[int, ...]) -> Timeline:
        names = [name for name, count in zip(self.periods, steps, strict=True) for _ in range(count)]
        ends = np.cumsum(steps).tolist()
        periods = {name: slice(end - n, end) for name, n, end in zip(self.periods, steps, ends, strict=True)}
        decision = len(names) - steps[-1]
        frame = np.zeros((len(names), len(self.entries)), np.float32)
        frame[:decision, 0] = 1
        frame[decision:, -1] = 1
        self._timelines[steps] = Timeline(names, periods, decision, frame)
        return self._timelines[steps]

    def draw(self, choices: Sequence[T]) -> T:
        """Return one of `choices`, with equal probability."""
        return choices[0] if len(choices) == 1 else choices[int(self.np_random.random() * len(choices))]


def accumulated(evidence: NDArray[np.floating], period: slice, steps: int) -> NDArray[np.float64]:
    """Return the cumulative evidence (steps, ...) at each of `steps` steps, from that of each step of `period`."""
    everywhere = np.zeros((steps, *evidence.shape[1:]))
    everywhere[period] = evidence
    return everywhere.cumsum(axis=0)


def check_count(name: str, value: object, *, low: int) -> None:
    """Raise ValueError, naming the argument, unless `value` is a whole number of at least `low`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")


def check_number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise ValueError, naming the argument, unless `value` is a finite number from `low` to `high`."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and low <= number <= high):
        bounds = [f" of at least {low:g}"] * (low > -math.inf) + [f" of at most {high:g}"] * (high < math.inf)
        raise ValueError(f"{name} must be a number{' and'.join(bounds)}, not {value!r}")


def check_choices(name: str, value: object) -> tuple[Any, ...]:
    """Return the values that a trial can draw from: the entries of `value`, or `value` itself if it is no sequence.

    Raises:
        ValueError: an empty sequence.
    """
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        return (value,)
    if len(value) == 0:
        raise ValueError(f"{name} must hold at least one value")
    return tuple(value)


def check_durations(name: str, value: object) -> tuple[int, ...]:
    """Return a duration, or several to draw from, as a tuple of time steps. Raises ValueError, naming the argument."""
    durations = check_choices(name, value)
    for duration in durations:
        check_count(name, duration, low=0)
    return tuple(int(duration) for duration in durations)
