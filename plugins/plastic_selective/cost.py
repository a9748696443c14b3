"""The cost of continual learning: the gradient of new and replayed images, and what optimizer and penalty store.

A record has the number of all training images. They are divided among the tasks as if each class had the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from math import prod

from plastic_cli import UserError
from plastic_cli.analysis.cost import Cost, TrainedRun, samples_of
from plastic_cli.analysis.shapes import NetworkShape, fully_connected
from plastic_cli.classifier.cost import moments_of
from plastic_cli.classifier.shapes import image_facts, network_shape
from plastic_selective.config import Train

PENALTY_STATE = {"none": 0, "ewc": 2, "si": 3}
"""Numbers that a penalty keeps for each parameter: importance and anchor; synaptic intelligence also its path."""
PENALTY_STEP = {"none": 0, "ewc": 0, "si": 2}
"""Numbers that a penalty holds for each parameter in a step: the gradient, and the parameter before the step."""

MOST_STEPS = 10_000_000
"""Of a run whose replayed images are counted; a damaged record can name any number."""


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run. Replayed images are part of the cost of learning."""
    config = Train.from_values(record.config, source="the run")
    image_shape, classes = image_facts(record.data)
    units = output_units(config, classes)
    if config.model == "mlp":
        shape = fully_connected([prod(image_shape), *config.hidden, units])
    else:
        shape = network_shape(config.model, record.data, config.hidden, outputs=units)
    samples = samples_of(record)
    tasks = tasks_of(config, samples, classes)
    passed = passes(tasks, config.batch_size, replay_of(config, classes))
    images = samples + passed.replayed
    stored = 0 if config.replay == "none" else config.buffer_size * prod(image_shape)
    kept = (1 + moments(config) + PENALTY_STATE[config.penalty]) * shape.parameters + shape.buffers + stored
    held = passed.largest * shape.activity + (1 + PENALTY_STEP[config.penalty]) * shape.parameters
    learning = passed.replayed * shape.forward_flops + images * shape.gradient_flops
    if config.penalty == "ewc":
        learning += sum(min(config.fisher_samples, task.images) for task in tasks) * fisher_flops(shape)
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=learning,
        messages=images * shape.errors_from_above,
        updates=passed.steps * shape.weights,
        state_bytes=shape.number_bytes * kept,
        step_bytes=shape.number_bytes * held,
    )


def moments(config: Train) -> int:
    """Return how many numbers the optimizer stores for each parameter: moments or, with base sgd, the eligibility."""
    if config.optimizer == "selective":
        return 1 if config.base == "sgd" else 2
    return moments_of(config.optimizer, config.momentum if config.optimizer == "momentum" else 0.0)


def fisher_flops(shape: NetworkShape) -> int:
    """Return the operations of the Fisher information of one image.

    They are a prediction, the derivatives by all responses for each output, and a product of squares for each weight.
    """
    of_weights = sum(layer.flops for layer in shape.layers)
    return shape.forward_flops + shape.readout.units * shape.error_flops + of_weights


def output_units(config: Train, classes: int) -> int:
    """Return the number of output units of the network."""
    if config.stream == "split":
        return -(-classes // config.tasks) if config.scenario == "domain" else classes
    return classes if config.scenario == "domain" else config.tasks * classes


# ------------------------------------------------------------------------------------------------- tasks and replay


@dataclass(frozen=True)
class TaskPlan:
    """One task: `rounds` passes over `images` images, of `groups` classes that no earlier task has."""

    rounds: int
    images: int
    groups: int


def tasks_of(config: Train, samples: int, classes: int) -> tuple[TaskPlan, ...]:
    """Return the tasks of a run that learned from `samples` new images; raises UserError if they do not fit."""
    if config.stream == "split":
        more, least = classes % config.tasks, classes // config.tasks
        groups = [least + (number < more) for number in range(config.tasks)]
    else:
        groups = [classes] * config.tasks
    if config.iterations:
        return tuple(TaskPlan(1, config.iterations * config.batch_size, number) for number in groups)
    shares = list(accumulate(groups)) if config.joint else groups
    images, rest = divmod(samples, config.epochs)
    if rest:
        raise UserError("the number of training samples is not a multiple of the epochs, so the cost is unknown.")
    ends = [0, *(images * share // sum(shares) for share in accumulate(shares))]
    return tuple(
        TaskPlan(config.epochs, last - first, number)
        for (first, last), number in zip(pairwise(ends), groups, strict=True)
    )


@dataclass(frozen=True)
class ReplayPlan:
    """How a buffer is filled. kind: of `--replay`. quota: places of each class, of a class-balanced buffer."""

    kind: str
    capacity: int
    share: float
    quota: int


def replay_of(config: Train, classes: int) -> ReplayPlan:
    """Return how the buffer of a run is filled."""
    groups = classes if config.stream == "split" else config.tasks * classes
    return ReplayPlan(config.replay, config.buffer_size, config.replay_share, config.buffer_size // groups)


@dataclass(frozen=True)
class Passes:
    """What was learned from. steps: number of steps. replayed: replayed images. largest: images of a batch, at most."""

    steps: int
    replayed: int
    largest: int


@cache
def passes(tasks: Sequence[TaskPlan], batch_size: int, replay: ReplayPlan) -> Passes:
    """Return the steps and the replayed images of all tasks.

    A batch is followed by round(n share / (1 - share)) replayed images for n new ones, or by as many as are stored.
    Raises UserError for more than MOST_STEPS.
    """
    if sum(task.rounds * (task.images // batch_size + 1) for task in tasks) > MOST_STEPS:
        raise UserError(f"the run has more than {MOST_STEPS:,} steps, so its cost is not counted.")
    steps = replayed = largest = stored = full = 0
    for task in tasks:
        # A class-balanced buffer has room for the classes of this task in addition to those of earlier ones.
        full = full + task.groups * replay.quota if replay.kind == "class-balanced" else replay.capacity
        for _ in range(task.rounds):
            for first in range(0, task.images, batch_size):
                new = min(batch_size, task.images - first)
                wanted = round(new * replay.share / (1 - replay.share))
                old = 0 if replay.kind == "none" else min(wanted, stored)
                # The published buffer also stores the replayed images again.
                stored = min(full, stored + new + (old if replay.kind == "fifo" else 0))
                steps, replayed, largest = steps + 1, replayed + old, max(largest, new + old)
    return Passes(steps, replayed, largest)
