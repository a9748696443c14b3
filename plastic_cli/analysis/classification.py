"""Accuracy, cross-entropy and confusion matrix of a classifier, as tensors on their device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Predict = Callable[[Tensor], Tensor]
"""Inputs (n, features) to logits (n, classes)."""


class Evaluation(NamedTuple):
    """Accuracy and mean cross-entropy in nats: float64 tensors without dimensions, on the device of the data."""

    accuracy: Tensor
    loss: Tensor


def evaluate(predict: Predict, x: Tensor, y: Tensor, batch_size: int = 1000) -> Evaluation:
    """Measure accuracy and cross-entropy of `predict` on `x` (n, features) with labels `y` (n,), in batches.

    The accuracy is the fraction of inputs whose largest logit is at the label.

    Sums stay on the device, so that no batch waits for the previous one. Both results are nan for n = 0.
    """
    correct = torch.zeros((), dtype=torch.int64, device=y.device)
    loss = torch.zeros((), dtype=torch.float64, device=y.device)
    with torch.no_grad():
        for inputs, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            logits = predict(inputs)
            correct += (logits.argmax(dim=1) == labels).sum()
            loss += functional.cross_entropy(logits, labels, reduction="none").sum(dtype=torch.float64)
    examples = torch.tensor(len(y), dtype=torch.float64, device=y.device)
    return Evaluation(correct / examples, loss / examples)


def confusion_matrix(predictions: Tensor, y: Tensor, classes: int) -> Tensor:
    """Count `predictions` (n,) by label `y` (n,): int64 (classes, classes), row = true class, column = predicted.

    Labels and predictions lie in 0 ... classes - 1. Matrices of several batches add up to that of the whole.
    """
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=y.device)
    ones = torch.ones_like(y, dtype=torch.int64)
    return counts.index_put_((y.long(), predictions.long()), ones, accumulate=True)


def accuracy_by_class(confusion: Tensor) -> Tensor:
    """Return each class's accuracy (classes,) in float64 from its `confusion` row; nan for a class without examples."""
    counts = confusion.double()
    return counts.diagonal() / counts.sum(dim=1)
