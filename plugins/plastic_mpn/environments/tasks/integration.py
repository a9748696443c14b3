"""The integration tasks of Aitken & Mihalas (eLife 12:e83035, 2023): batches of trials, and Gymnasium environments.

Every step of a trial shows one input vector: evidence for one of N classes, or a null input. At the last step, "go",
the correct answer is the class with most evidence. The source does not specify some details. We choose:

- "Uniformly over all possible counts" means uniformly over all ways to divide the stimuli among the N classes and null.
  If two or more classes share the largest count, the counts are drawn again.
- Input vectors differ from each other, and none is all zeros, because zeros are the input during a delay.
- With a context, the go input has a different random vector in each half, and the cue is added over the full width.
- Noise is clipped at six standard deviations (one value in 500 million), so that observations are bounded.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, SupportsIndex

import gymnasium
import numpy as np
from numpy.typing import NDArray

from plastic_mpn.environments.tasks import picture
from plastic_mpn.environments.tasks.trial_task import NOISE_LIMIT, check_count, check_number

MOST_DRAWS = 100
"""After this number of draws, novel vectors are drawn from the unused ones alone."""

Context = Literal["retrospective", "prospective"]
SUBTASKS = 2


@dataclass(frozen=True, eq=False)
class IntegrationTask:
    """Simple integration: stimuli, an optional delay of zeros, and go. Created by `integration_task`.

    vectors: (classes + 3, dimension), the inputs for evidence 0, ..., N - 1, null, go and delay, in this order; the
    index of an input is its row. steps: number of steps including delay and go (T in the source). noise: expected L2
    norm of the Gaussian noise that is added to each input.
    """

    vectors: NDArray[np.float32]
    classes: int
    steps: int
    delay: int
    noise: float

    @property
    def dimension(self) -> int:
        """Width of an input."""
        return int(self.vectors.shape[1])

    @property
    def periods(self) -> tuple[str, ...]:
        """Name of the period of each step (steps,)."""
        return ("stimulus",) * (self.steps - 1 - self.delay) + ("delay",) * self.delay + ("go",)


@dataclass(frozen=True, eq=False)
class ContextTask:
    """Two integrations at the same time; a cue selects the one to report. Created by `context_task`.

    context: whether the cue comes after the stimuli (retrospective) or before them (prospective). vectors: (2, classes
    + 3, dimension / 2), as in `IntegrationTask`, for the half of the input that each of the two has. cues: (2,
    dimension), added to the input while the cue is shown. before, cue, after: steps of delay, cue and delay.
    """

    context: Context
    vectors: NDArray[np.float32]
    cues: NDArray[np.float32]
    classes: int
    stimuli: int
    before: int
    cue: int
    after: int
    noise: float

    @property
    def dimension(self) -> int:
        """Width of an input."""
        return int(self.cues.shape[1])

    @property
    def steps(self) -> int:
        """Number of steps of a trial."""
        return len(self.periods)

    @property
    def periods(self) -> tuple[str, ...]:
        """Name of the period of each step (steps,)."""
        stimuli = ("stimulus",) * self.stimuli
        cue = ("delay",) * self.before + ("cue",) * self.cue + ("delay",) * self.after
        return (*stimuli, *cue, "go") if self.context == "retrospective" else (*cue, *stimuli, "go")


@dataclass(frozen=True, eq=False)
class IntegrationBatch:
    """Trials of an `IntegrationTask`.

    inputs: (steps, batch, dimension). labels: (batch,), the class with most evidence. indices: (steps, batch), the row
    of the task's vectors that is shown. evidence: (steps, batch, classes), how often each class was shown up to and
    including this step.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    evidence: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ContextBatch(IntegrationBatch):
    """Trials of a `ContextTask`: indices (steps, batch, 2) and evidence (steps, batch, 2, classes).

    cued: (batch,), the integration that the label belongs to.
    """

    cued: NDArray[np.int64]


def integration_task(
    generator: np.random.Generator,
    *,
    classes: int = 2,
    steps: int = 20,
    delay: int = 0,
    dimension: int = 50,
    noise: float = 0.1,
) -> IntegrationTask:
    """Draw the input vectors of a simple integration task.

    The task with a delay in the source has 40 steps, 20 of them delay. Raises ValueError, naming the argument.
    """
    check_count("classes", classes, low=2)
    check_count("delay", delay, low=0)
    check_count("dimension", dimension, low=1)
    check_number("noise", noise, low=0)
    check_count("steps", steps, low=2)
    if steps < delay + 2:
        raise ValueError(
            f"steps must be at least {delay + 2} (one stimulus, {delay} steps of delay, and go), not {steps}"
        )
    shown = _input_vectors(generator, classes + 2, dimension, dimension)
    vectors = np.concatenate([shown, np.zeros((1, dimension), np.float32)])
    return IntegrationTask(vectors, classes, steps, delay, float(noise))


def context_task(
    generator: np.random.Generator,
    context: Context = "retrospective",
    *,
    classes: int = 2,
    stimuli: int = 19,
    cue_period: tuple[int, int, int] = (10, 5, 5),
    dimension: int = 50,
    noise: float = 0.1,
) -> ContextTask:
    """Draw the input vectors of a context-dependent integration task; the defaults are the source's (40 steps).

    cue_period: steps of delay before the cue, of the cue, and of delay after it. Raises ValueError that names the
    argument.
    """
    before, cue, after = cue_period
    if context not in ("retrospective", "prospective"):
        raise ValueError(f"context must be 'retrospective' or 'prospective', not {context!r}")
    check_count("classes", classes, low=2)
    for name, value, low in (("stimuli", stimuli, 1), ("before", before, 0), ("cue", cue, 1), ("after", after, 0)):
        check_count(name, value, low=low)
    check_count("dimension", dimension, low=2)
    check_number("noise", noise, low=0)
    if dimension % SUBTASKS:
        raise ValueError(
            f"dimension must be even, because each of the two integrations uses half of it, not {dimension}"
        )
    half = dimension // SUBTASKS
    delay = np.zeros((1, half), np.float32)
    vectors = [
        np.concatenate([_input_vectors(generator, classes + 2, half, dimension), delay]) for _ in range(SUBTASKS)
    ]
    cues = _input_vectors(generator, SUBTASKS, dimension, dimension)
    return ContextTask(context, np.stack(vectors), cues, classes, stimuli, before, cue, after, float(noise))


def with_novel_classes(task: IntegrationTask, generator: np.random.Generator) -> IntegrationTask | None:
    """Return the task with new vectors for the evidence of all classes, and the same vectors for null, go and delay.

    None if there are not enough other vectors.
    """
    # Those of the classes, of null and of go, and the new ones; the vector of the delay is all zeros.
    if 2 * task.classes + 2 > 2**task.dimension - 1:
        return None
    for _ in range(MOST_DRAWS):
        novel = _input_vectors(generator, task.classes, task.dimension, task.dimension)
        if not (novel[:, None] == task.vectors).all(-1).any():
            return replace(task, vectors=np.concatenate([novel, task.vectors[task.classes :]]))
    # Few vectors are unused, so that a draw of all seldom has these alone.
    binary = (np.arange(1, 2**task.dimension)[:, None] >> np.arange(task.dimension)) & 1
    every = np.asarray(binary * np.sqrt(2 / task.dimension), np.float32)
    unused = every[~(every[:, None] == task.vectors).all(-1).any(1)]
    novel = generator.choice(unused, task.classes, replace=False)
    return replace(task, vectors=np.concatenate([novel, task.vectors[task.classes :]]))


def batch(task: IntegrationTask | ContextTask, generator: np.random.Generator, size: int) -> IntegrationBatch:
    """Draw `size` trials: an `IntegrationBatch`, or a `ContextBatch` for a `ContextTask`."""
    trials = (
        _context_trials(task, generator, size)
        if isinstance(task, ContextTask)
        else _integration_trials(task, generator, size)
    )
    if task.noise:
        noise = generator.standard_normal(trials.inputs.shape, dtype=np.float32)
        np.clip(noise, -NOISE_LIMIT, NOISE_LIMIT, out=noise)
        noise *= np.float32(task.noise / np.sqrt(task.dimension))
        np.add(trials.inputs, noise, out=trials.inputs)
    return trials


def _integration_trials(task: IntegrationTask, generator: np.random.Generator, size: int) -> IntegrationBatch:
    stimuli = task.steps - 1 - task.delay
    shown, labels = _stimuli(generator, size, task.classes, stimuli)
    go, delay = task.classes + 1, task.classes + 2
    indices = np.full((task.steps, size), delay)
    indices[:stimuli] = shown
    indices[-1] = go
    return IntegrationBatch(task.vectors[indices], labels, indices, _accumulated(indices, task.classes))


def _context_trials(task: ContextTask, generator: np.random.Generator, size: int) -> ContextBatch:
    go, delay = task.classes + 1, task.classes + 2
    periods = np.array(task.periods)
    indices = np.full((task.steps, size, SUBTASKS), delay)
    labels = np.empty((size, SUBTASKS), np.int64)
    for subtask in range(SUBTASKS):
        shown, labels[:, subtask] = _stimuli(generator, size, task.classes, task.stimuli)
        indices[periods == "stimulus", :, subtask] = shown
    indices[-1] = go
    cued = generator.integers(SUBTASKS, size=size)
    inputs = np.concatenate([task.vectors[subtask, indices[..., subtask]] for subtask in range(SUBTASKS)], axis=-1)
    inputs[periods == "cue"] += task.cues[cued]
    return ContextBatch(inputs, labels[np.arange(size), cued], indices, _accumulated(indices, task.classes), cued)


def _stimuli(
    generator: np.random.Generator, size: int, classes: int, stimuli: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw counts without ties and a random order: indices (stimuli, size) and labels (size,)."""
    counts = _counts(generator, size, classes, stimuli)
    ends = counts.cumsum(1)
    in_order = (np.arange(stimuli) >= ends[:, :, None]).sum(1)
    return generator.permuted(in_order, axis=1).T, counts[:, :classes].argmax(1)


def _counts(generator: np.random.Generator, size: int, classes: int, stimuli: int) -> NDArray[np.int64]:
    """Draw how often each class and null occur (size, classes + 1), uniformly over all ways without a tie.

    A way to divide n stimuli among N + 1 kinds is a choice of N bars among n + N places, the stimuli being the places
    that are left: every choice of bars is equally likely, and none of the many ways needs to be listed.
    """
    counts = np.empty((size, classes + 1), np.int64)
    open_rows = np.arange(size)
    while len(open_rows):
        places = generator.random((len(open_rows), stimuli + classes))
        bars = np.sort(places.argpartition(classes - 1, axis=1)[:, :classes], axis=1)
        counts[open_rows] = np.diff(bars, axis=1, prepend=-1, append=stimuli + classes) - 1
        evidence = counts[open_rows, :classes]
        open_rows = open_rows[(evidence == evidence.max(1, keepdims=True)).sum(1) > 1]
    return counts


def _accumulated(indices: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return np.cumsum(indices[..., None] == np.arange(classes), axis=0, dtype=np.int64)


def _input_vectors(generator: np.random.Generator, count: int, width: int, dimension: int) -> NDArray[np.float32]:
    """Draw `count` different vectors (count, width) of {0, sqrt(2 / dimension)}, none of them all zeros."""
    if 2**width - 1 < count:
        raise ValueError(f"dimension must be larger than {dimension}, to have {count} different input vectors")
    while True:
        binary = generator.integers(2, size=(count, width))
        if binary.any(1).all() and len(np.unique(binary, axis=0)) == count:
            return np.asarray(binary * np.sqrt(2 / dimension), np.float32)


class _IntegrationEnvironment(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Trials of a task, one after the other. Only the action in response to the go input affects the reward.

    `info` describes the observation that is returned with it: `period` ("stimulus", "delay", "cue" or "go"; "end" after
    the last trial), `target` (the correct answer of the trial), `trial` and `trial_step` (from 0), `input` (the row of
    the task's vectors that is shown), `evidence` (for each class, so far) and `relative_evidence` (class 0 minus the
    mean of the others). Only `correct` describes the previous action: True or False if it answered go, otherwise None.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(self, task: IntegrationTask | ContextTask, trials: int, render_mode: str | None) -> None:
        check_count("trials", trials, low=1)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, not {render_mode!r}")
        self.task = task
        self.trials = trials
        self.actions = tuple(f"class {number}" for number in range(task.classes))
        self.render_mode = render_mode
        noise = NOISE_LIMIT * task.noise / np.sqrt(task.dimension)
        self.observation_space = gymnasium.spaces.Box(
            np.float32(-noise), np.float32(np.sqrt(2 / task.dimension) + noise), (task.dimension,)
        )
        self.action_space = gymnasium.spaces.Discrete(task.classes)
        self._periods = task.periods
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode. `options` has no effect."""
        super().reset(seed=seed, options=options)
        self._over = False
        self._action: int | None = None
        self._begin_trial(0)
        self._info = self._describe(None)
        return self._drawn.inputs[0, 0], self._info

    def step(self, action: SupportsIndex) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one action in response to the last observation.

        Raises gymnasium.error.ResetNeeded if no episode has begun or it has ended, and gymnasium.error.InvalidAction if
        there is no such action.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("call reset() to begin an episode")
        self._action = action = operator.index(action)
        if not 0 <= action < self.task.classes:
            raise gymnasium.error.InvalidAction(f"actions are 0 to {self.task.classes - 1}, not {action}")
        if self._time + 1 < len(self._periods):
            self._time += 1
            self._info = self._describe(None)
            return self._drawn.inputs[self._time, 0], 0.0, False, False, self._info
        correct = action == int(self._drawn.labels[0])
        if self._number + 1 < self.trials:
            self._begin_trial(self._number + 1)
            self._info = self._describe(correct)
            return self._drawn.inputs[0, 0], float(correct), False, False, self._info
        self._over = True
        self._info = {**self._describe(correct), "period": "end"}
        return np.zeros(self.task.dimension, np.float32), float(correct), True, False, self._info

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image of the evidence so far and the time within the trial: (320, 464, 3) uint8."""
        if self.render_mode is None:
            gymnasium.logger.warn("make the task with render_mode='rgb_array' to render it")
            return None
        title = f"trial {self._number + 1} of {self.trials}: {self._info['period']}"
        if self._info["period"] == "stimulus":
            title += f" of {' and '.join(self._input_name(row) for row in np.ravel(self._info['input']))}"
        elif "cued" in self._info:
            title += f" (report integration {self._info['cued']})"
        evidence = np.asarray(self._info["evidence"])
        which = [f"{part}, " for part in range(SUBTASKS)] if evidence.ndim > 1 else [""]
        return picture.draw(
            [f"evidence {part}{number}" for part in which for number in range(self.task.classes)],
            evidence.ravel(),
            limits=(0.0, float(self._periods.count("stimulus"))),
            timeline=self._periods,
            step=None if self._over else self._time,
            title=title,
            action="none" if self._action is None else self.actions[self._action],
            correct=self._info["correct"],
        )

    def _input_name(self, row: int) -> str:
        return "null" if row == self.task.classes else f"class {row}"

    def _begin_trial(self, number: int) -> None:
        self._number, self._time = number, 0
        self._drawn = batch(self.task, self.np_random, 1)

    def _describe(self, correct: bool | None) -> dict[str, Any]:
        drawn, time = self._drawn, self._time
        cued = int(drawn.cued[0]) if isinstance(drawn, ContextBatch) else None
        evidence = drawn.evidence[time, 0]
        counted = evidence if cued is None else evidence[cued]
        info = {
            "period": self._periods[time],
            "target": int(drawn.labels[0]),
            "trial": self._number,
            "trial_step": time,
            "correct": correct,
            "input": int(drawn.indices[time, 0]) if cued is None else drawn.indices[time, 0].copy(),
            "evidence": evidence.copy(),
            "relative_evidence": float(counted[0] - counted[1:].mean()),
        }
        return info if cued is None else {**info, "cued": cued}


class SimpleIntegration(_IntegrationEnvironment):
    """Which class had most evidence? Reward 1 for the correct answer at the go input, 0 otherwise.

    An episode has `trials` trials of `steps` steps. Input vectors depend only on `vectors_seed`, so every episode shows
    the same ones. For the other arguments see `integration_task`. Raises ValueError, naming the argument.
    """

    def __init__(
        self,
        classes: int = 2,
        steps: int = 20,
        delay: int = 0,
        dimension: int = 50,
        noise: float = 0.1,
        trials: int = 1,
        vectors_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        task = integration_task(
            _vectors_generator(vectors_seed),
            classes=classes,
            steps=steps,
            delay=delay,
            dimension=dimension,
            noise=noise,
        )
        super().__init__(task, trials, render_mode)


class ContextIntegration(_IntegrationEnvironment):
    """Which class had most evidence in the cued one of two integrations? Reward 1 for the correct answer at go.

    Like `SimpleIntegration`, with the arguments of `context_task`; before, cue and after are its `cue_period`. In
    `info`, `evidence` is (2, classes), `input` is (2,), `cued` is the integration to report, and `relative_evidence`
    belongs to that integration.
    """

    def __init__(
        self,
        context: Context = "retrospective",
        classes: int = 2,
        stimuli: int = 19,
        before: int = 10,
        cue: int = 5,
        after: int = 5,
        dimension: int = 50,
        noise: float = 0.1,
        trials: int = 1,
        vectors_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        task = context_task(
            _vectors_generator(vectors_seed),
            context,
            classes=classes,
            stimuli=stimuli,
            cue_period=(before, cue, after),
            dimension=dimension,
            noise=noise,
        )
        super().__init__(task, trials, render_mode)


def _vectors_generator(vectors_seed: int) -> np.random.Generator:
    check_count("vectors_seed", vectors_seed, low=0)
    return np.random.default_rng(vectors_seed)
