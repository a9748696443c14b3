"""The training loop of classifiers: sample order, batches, evaluation, metrics, progress and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plastic_cli.analysis.classification import evaluate
from plastic_cli.classifier.learner import EpochLearner, Learner, ScheduledLearner
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.numerics.clock import training_clock

if TYPE_CHECKING:
    from plastic_cli.data.datasets import Dataset, Split
    from plastic_cli.runs.run import Run

EVALUATION_BATCH = 4096
TRAINING_SAMPLE = 10_000
"""Number of training images, at most, on which training accuracy is measured."""


def fit(
    learner: Learner,
    data: Dataset,
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train `learner` for `epochs` passes over the training split, in a new random order for each.

    Accuracy and mean cross-entropy of every split are logged before the first epoch and after each epoch; those of the
    training split are measured on a `stratified_sample`.
    after_epoch: called with the number of completed epochs, 0 before the first.
    Raises RunFailed, with the epoch, if the loss is not finite.
    """
    order = run.generator("order")
    run.track(learner=learner, order=order)
    run.describe_data(**data.description())
    splits = {
        "train": stratified_sample(data.train, TRAINING_SAMPLE),
        "validation": data.validation,
        "test": data.test,
    }
    logits = _checked_predict(learner, data.classes)
    if run.begins("epoch"):
        _log_splits(logits, splits, run)
        if after_epoch:
            after_epoch(0)
    for epoch in run.steps(epochs, "epoch"):
        began = training_clock()
        _train_epoch(learner, data.train, run, order, epoch, epochs, batch_size)
        run.count_samples(len(data.train), training_clock() - began)
        _log_splits(logits, splits, run)
        if after_epoch:
            after_epoch(epoch + 1)


def fit_unlogged(learner: Learner, data: Dataset, run: Run, *, epochs: int, batch_size: int) -> None:
    """Train `learner` like `fit`, with the same order of samples, but write nothing to the run: for its baselines.

    Raises RunFailed, with the epoch, if the loss is not finite.
    """
    order = run.generator("order")
    for epoch in range(epochs):
        _train_epoch(learner, data.train, run, order, epoch, epochs, batch_size)


def stratified_sample(split: Split, images: int) -> Split:
    """Return `images` images of a split, each class in proportion to its size; the whole split if it has no more.

    The images are sorted by class and every (n / images)-th one is taken. The sample does not depend on the seed, and
    it is balanced also if the images are stored class by class.
    """
    from plastic_cli.data.datasets import Split

    n = len(split)
    if n <= images:
        return split
    by_class = torch.argsort(split.y, stable=True)
    chosen = by_class[torch.arange(images, device=by_class.device) * n // images]
    return Split(split.x[chosen], split.y[chosen])


def predict(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a learner's `predict` to `x` (n, features) in batches, to bound memory."""
    with torch.no_grad():
        return torch.cat([function(part) for part in x.split(EVALUATION_BATCH)])


def features(learner: Learner, x: Tensor) -> list[Tensor]:
    """Return the activity of each hidden layer, (n, units) each, computed in batches.

    Raises UserError for a learner of the user that has no `features`.
    """
    if not hasattr(learner, "features"):
        raise UserError(
            f"{type(learner).__name__} has no features(x), which returns the activity of each hidden layer: add it for"
            " this analysis."
        )
    with torch.no_grad():
        parts = [learner.features(part) for part in x.split(EVALUATION_BATCH)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _train_epoch(
    learner: Learner, train: Split, run: Run, order: torch.Generator, epoch: int, epochs: int, batch_size: int
) -> None:
    """Train for one epoch; raises RunFailed, with the epoch, if the loss is not finite."""
    if isinstance(learner, ScheduledLearner):
        learner.begin_epoch(epoch, epochs)
    permutation = torch.randperm(len(train), generator=order)
    try:
        if isinstance(learner, EpochLearner):
            learner.train_epoch(train.x, train.y, permutation, lambda seen: run.within_step(seen / len(train)))
        else:
            _train_batches(learner, train, run, permutation.to(train.x.device).split(batch_size), epoch)
    except FloatingPointError as error:
        raise RunFailed(f"epoch {epoch + 1}: {error}. Try a smaller learning rate.") from None


def _train_batches(learner: Learner, train: Split, run: Run, batches: Sequence[Tensor], epoch: int) -> None:
    losses = []
    for number, batch in enumerate(batches):
        loss = learner.train_batch(train.x.index_select(0, batch), train.y.index_select(0, batch))
        if loss is not None:
            losses.append(_as_number(loss, learner))
        if number % 64 == 0:
            run.within_step(number / len(batches))
    if losses:
        raise_if_not_finite(torch.stack(losses), epoch * len(batches))


def _as_number(loss: Any, learner: Learner) -> Tensor:
    """Return the loss of a batch as a tensor without dimensions and without a graph."""
    try:
        number = torch.as_tensor(loss).detach()
    except (RuntimeError, TypeError, ValueError):
        number = torch.empty(0)
    if number.numel() != 1:
        raise UserError(
            f"{type(learner).__name__}.train_batch returned {_described(loss)}: return the loss, one number, or None."
        )
    return number.reshape(())


def _checked_predict(learner: Learner, classes: int) -> Callable[[Tensor], Tensor]:
    """Return `learner.predict`, which raises UserError if it does not return logits for each input and class."""

    def predict(x: Tensor) -> Tensor:
        logits: Any = learner.predict(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < classes:
            raise UserError(
                f"the learner or module returned {_described(logits)} for {len(x)} inputs, not logits (batch, classes),"
                f" a tensor of shape ({len(x)}, {classes})."
            )
        return logits

    return predict


def _described(value: Any) -> str:
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(value.shape)}" if hasattr(value, "shape") else f"a {kind}"


def raise_if_not_finite(losses: Tensor, first_step: int) -> None:
    """Raise FloatingPointError, with the step, if one of `losses` (steps,) is not finite. Synchronizes once."""
    broken = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
    if broken:
        raise FloatingPointError(f"the loss is no longer finite at step {first_step + broken[0]}")


def _log_splits(predict: Callable[[Tensor], Tensor], splits: Mapping[str, Split | None], run: Run) -> None:
    for name, split in splits.items():
        if split is not None:
            measured = evaluate(predict, split.x, split.y)
            run.images[name] = len(split)
            run.log(name, accuracy=measured.accuracy, loss=measured.loss)
