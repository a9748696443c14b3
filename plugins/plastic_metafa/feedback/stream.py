"""The training loop that measures a network along the stream of images, more often than once per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from plastic_cli import RunFailed, RunStore
from plastic_cli.analysis.classification import evaluate
from plastic_cli.classifier.fit import TRAINING_SAMPLE, raise_if_not_finite, stratified_sample
from plastic_cli.classifier.learner import EpochLearner, Learner, ScheduledLearner
from plastic_cli.numerics.clock import training_clock

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset

ABOVE_CHANCE = 0.1
"""A network has begun to learn when its test accuracy is higher than chance by at least this much."""
MEASUREMENTS_ABOVE = 3
"""Number of measurements in a row that must be that high."""


class Stretch(NamedTuple):
    """A part of an epoch: the images `first` to `last` (excluded) of its order."""

    epoch: int
    first: int
    last: int


def fit_stream(
    learner: Learner,
    data: Dataset,
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    every: int,
    after_epoch: Callable[[int], None],
) -> None:
    """Train like `plastic_cli.classifier.fit.fit`, and log accuracy and loss after every `every` images.

    A step of the run is a stretch of `every` images; the last stretch of an epoch may be shorter. The order of the
    images is that of `fit`. At the end, `test/begins` is the number of images after which the network begins to learn
    (see `begins`). after_epoch: called with the number of completed epochs, 0 before the first. Raises RunFailed if a
    loss is not finite.
    """
    run.track(learner=learner)
    run.describe_data(**data.description())
    unit = f"{every:,} images"
    if run.begins(unit):
        _log(learner, data, run, whole_epoch=True)
        after_epoch(0)
    stretches = stretches_of(len(data.train), epochs, every)
    steps_before = [0, *accumulate(math.ceil((part.last - part.first) / batch_size) for part in stretches)]
    orders = _orders(run.generator("order"), len(data.train))
    epoch, order = -1, torch.empty(0)
    for number in run.steps(len(stretches), unit):
        place = stretches[number]
        while epoch < place.epoch:
            epoch, order = epoch + 1, next(orders)
        if isinstance(learner, ScheduledLearner):
            learner.begin_epoch(epoch, epochs)
        began = training_clock()
        try:
            _learn(learner, data, run, order[place.first : place.last], batch_size, steps_before[number])
        except FloatingPointError as error:
            raise RunFailed(f"epoch {epoch + 1}: {error}. Try a smaller learning rate.") from None
        run.count_samples(place.last - place.first, training_clock() - began)
        _log(learner, data, run, whole_epoch=place.last == len(order))
        if place.last == len(order):
            after_epoch(epoch + 1)
    _log_beginning(run, data, stretches)


def stretches_of(images: int, epochs: int, every: int) -> list[Stretch]:
    """Return the stretches of all epochs, in order."""
    return [
        Stretch(epoch, first, min(first + every, images))
        for epoch in range(epochs)
        for first in range(0, images, every)
    ]


def begins(accuracies: Sequence[float], chance: float) -> int | None:
    """Return the first measurement from which MEASUREMENTS_ABOVE in a row are above chance by ABOVE_CHANCE, or None.

    accuracies: of the measurements along the stream, the untrained network first.
    """
    high = [accuracy >= chance + ABOVE_CHANCE for accuracy in accuracies]
    for place in range(len(high) - MEASUREMENTS_ABOVE + 1):
        if all(high[place : place + MEASUREMENTS_ABOVE]):
            return place
    return None


def log_best(run: Run) -> None:
    """Log the highest test accuracy of all measurements: that of an epoch which the test images choose."""
    run.log("test", None, best_accuracy=max(_accuracies(run, "test")))


def _accuracies(run: Run, split: str) -> list[float]:
    """Return the accuracy of each measurement of a split, the untrained network first; empty without such a split."""
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    measured = metrics[(metrics["split"] == split) & (metrics["metric"] == "accuracy")].sort_values("step")
    return [float(value) for value in measured["value"]]


def _orders(generator: torch.Generator, images: int) -> Iterator[Tensor]:
    """Yield the order of the images in each epoch. It starts again with every process, so it needs no checkpoint."""
    while True:
        yield torch.randperm(images, generator=generator)


def _learn(learner: Learner, data: Dataset, run: Run, part: Tensor, batch_size: int, steps_before: int) -> None:
    """Learn from the images with the numbers `part`, in this order. steps_before: steps of the run so far."""
    x, y = data.train.x, data.train.y
    if isinstance(learner, EpochLearner):
        learner.train_epoch(x, y, part, lambda seen: run.within_step(seen / len(part)))
        return
    batches = part.to(x.device).split(batch_size)
    losses = [learner.train_batch(x.index_select(0, batch), y.index_select(0, batch)) for batch in batches]
    raise_if_not_finite(torch.stack([loss for loss in losses if loss is not None]), steps_before)


def _log(learner: Learner, data: Dataset, run: Run, *, whole_epoch: bool) -> None:
    """Log accuracy and loss of each split; those of training images only after a whole epoch."""
    train = stratified_sample(data.train, TRAINING_SAMPLE) if whole_epoch else None
    splits = {"train": train, "validation": data.validation, "test": data.test}
    for name, split in splits.items():
        if split is not None:
            measured = evaluate(learner.predict, split.x, split.y)
            run.images[name] = len(split)
            run.log(name, accuracy=measured.accuracy, loss=measured.loss)


def _log_beginning(run: Run, data: Dataset, stretches: Sequence[Stretch]) -> None:
    """Log after how many images the network begins to learn; if it does not, one stretch more than there are.

    Also log the mean test accuracy of all measurements but that of the untrained network. Chance is the share of the
    most frequent class of the test split.
    """
    accuracies = _accuracies(run, "test")
    chance = float(data.test.y.bincount().max()) / len(data.test)
    place = begins(accuracies, chance)
    seen = [0]
    for stretch in stretches:
        seen.append(seen[-1] + stretch.last - stretch.first)
    if place is None:
        run.message(
            f"the network does not begin to learn: its accuracy does not stay {ABOVE_CHANCE:.0%} above chance,"
            f" {chance:.1%}; counted as {seen[-1] + seen[1]} images"
        )
    run.log("test", None, begins=seen[-1] + seen[1] if place is None else seen[place])
    for split in ("validation", "test"):
        measured = _accuracies(run, split)[1:]
        if measured:
            run.log(split, None, accuracy_along=sum(measured) / len(measured))
