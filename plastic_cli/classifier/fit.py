"""The supervised loop that classifier rules share: order, batches, evaluation, metrics, progress, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plastic_cli.analysis.classification import evaluate
from plastic_cli.classifier.learner import Learner, ScheduledLearner, StreamLearner
from plastic_cli.errors import RunFailed
from plastic_cli.numerics.clock import training_clock

if TYPE_CHECKING:
    from plastic_cli.data.datasets import Dataset, Split
    from plastic_cli.runs.run import Run

EVALUATION_BATCH = 4096
TRAINING_SAMPLE = 10_000
"""Training accuracy is measured on a stratified sample of the training split, of this many images at most."""


def fit(
    learner: Learner,
    data: Dataset,
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train `learner` for `epochs` passes over the training split, in an order drawn anew for each.

    After each epoch, and before the first, accuracy and mean cross-entropy on every split are logged; those of the
    training split on `stratified_sample` of it.
    after_epoch: called with the number of epochs done, 0 before the first.
    Raises RunFailed, with the epoch, where the loss is not finite.
    """
    order = run.generator("order")
    run.track(learner=learner, order=order)
    run.describe_data(**data.description())
    splits = {
        "train": stratified_sample(data.train, TRAINING_SAMPLE),
        "validation": data.validation,
        "test": data.test,
    }
    if run.begins("epoch"):
        _log_splits(learner, splits, run)
        if after_epoch:
            after_epoch(0)
    for epoch in run.steps(epochs, "epoch"):
        if isinstance(learner, ScheduledLearner):
            learner.begin_epoch(epoch, epochs)
        began = training_clock()
        permutation = torch.randperm(len(data.train), generator=order)
        try:
            _train_epoch(learner, data.train, permutation, batch_size, run, epoch)
        except FloatingPointError as error:
            raise RunFailed(f"epoch {epoch + 1}: {error}. Try a smaller learning rate.") from None
        run.count_samples(len(data.train), training_clock() - began)
        _log_splits(learner, splits, run)
        if after_epoch:
            after_epoch(epoch + 1)


def teach(learner: Learner, data: Dataset, run: Run, *, epochs: int, batch_size: int) -> None:
    """Train `learner` as `fit` would in `run`, same order, but leave no trace there: for the twins of a run's network.

    Raises RunFailed, with the epoch, where the loss is not finite.
    """
    order = run.generator("order")
    for epoch in range(epochs):
        if isinstance(learner, ScheduledLearner):
            learner.begin_epoch(epoch, epochs)
        permutation = torch.randperm(len(data.train), generator=order)
        try:
            _train_epoch(learner, data.train, permutation, batch_size, run, epoch)
        except FloatingPointError as error:
            raise RunFailed(f"epoch {epoch + 1}: {error}. Try a smaller learning rate.") from None


def stratified_sample(split: Split, images: int) -> Split:
    """Return `images` images of a split, each class in proportion to its size; the whole split where it has no more.

    Every (n / images)-th image of the split in the order of its classes: the same for every run, whatever the seed,
    and fair also where the images are stored class by class.
    """
    from plastic_cli.data.datasets import Split

    n = len(split)
    if n <= images:
        return split
    by_class = torch.argsort(split.y, stable=True)
    chosen = by_class[torch.arange(images, device=by_class.device) * n // images]
    return Split(split.x[chosen], split.y[chosen])


def predict(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a learner's `predict` to many images without holding all activities at once."""
    with torch.no_grad():
        return torch.cat([function(part) for part in x.split(EVALUATION_BATCH)])


def features(learner: Learner, x: Tensor) -> list[Tensor]:
    """Return the activity of each hidden layer for many images."""
    with torch.no_grad():
        parts = [learner.features(part) for part in x.split(EVALUATION_BATCH)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _train_epoch(learner: Learner, train: Split, permutation: Tensor, batch_size: int, run: Run, epoch: int) -> None:
    samples = len(permutation)
    if isinstance(learner, StreamLearner):
        learner.train_stream(train.x, train.y, permutation, lambda seen: run.within_step(seen / samples))
        return
    batches = permutation.to(train.x.device).split(batch_size)
    losses = []
    for number, batch in enumerate(batches):
        loss = learner.train_batch(train.x.index_select(0, batch), train.y.index_select(0, batch))
        if loss is not None:
            losses.append(loss)
        if number % 64 == 0:
            run.within_step(number * batch_size / samples)
    if losses:
        raise_if_not_finite(torch.stack(losses), epoch * len(batches))


def raise_if_not_finite(losses: Tensor, first_step: int) -> None:
    """Raise FloatingPointError, naming the step, where one of `losses` (steps,) is not finite. One synchronisation."""
    broken = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
    if broken:
        raise FloatingPointError(f"the loss is no longer finite at step {first_step + broken[0]}")


def _log_splits(learner: Learner, splits: Mapping[str, Split | None], run: Run) -> None:
    for name, split in splits.items():
        if split is not None:
            measured = evaluate(learner.predict, split.x, split.y)
            run.log(name, accuracy=measured.accuracy, loss=measured.loss)
