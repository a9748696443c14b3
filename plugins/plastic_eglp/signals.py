"""The signals that a controller of events receives, one number for each stimulus."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plastic_cli import UserError

Signal = Literal["loss", "error", "margin", "novelty", "uncertainty"]
NOVELTY_DECAY = 0.99
"""Decay factor of the running moments of the last hidden activity, per batch."""


def label_error(error: Tensor, y: Tensor) -> Tensor:
    """Return one minus the probability of the label (n,), from the error, softmax minus one-hot (n, classes)."""
    return -error.gather(1, y[:, None])[:, 0]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest other logit minus the label's logit (n,), of logits (n, classes) and labels y (n,)."""
    of_label = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - of_label[:, 0]


def uncertainty(logits: Tensor) -> Tensor:
    """Return one minus the largest probability (n,), of logits (n, classes). It needs no label.

    Known as least confidence in active learning (Lewis & Gale 1994).
    """
    return 1 - torch.softmax(logits, 1).amax(1)


def labels_of(logits: Tensor, error: Tensor, needs: str, instead: str) -> Tensor:
    """Return the labels (batch,) from the error of a cross-entropy, which is negative for the label only.

    needs, instead: what needs the labels, and what does not, for the message.

    Raises UserError if the error is that of another loss.
    """
    negative = error < 0
    if logits.ndim != 2 or bool((negative.sum(1) > 1).any()):
        raise UserError(
            f"{needs} needs labels, and the gradient of the losses does not show them. Use the cross-entropy of"
            f" logits (batch, classes), or {instead}."
        )
    # Without a negative entry the probability of the label rounds to 1.
    return torch.where(negative.any(1), error.argmin(1), logits.argmax(1))


class Novelty:
    """Squared distance of the last hidden activity from its running mean, in units of its running variance.

    mean and variance: the running moments (units,), None before the first batch.
    """

    def __init__(self) -> None:
        self.mean: Tensor | None = None
        self.variance: Tensor | None = None

    def of(self, h: Tensor) -> Tensor:
        """Return the novelty (n,) of activity h (n, units), then include h in the running moments."""
        mean, variance = h.mean(0), h.var(0, correction=0)
        if self.mean is None or self.variance is None:
            self.mean, self.variance = mean, variance
        # A restored state is on the CPU.
        self.mean, self.variance = self.mean.to(h.device), self.variance.to(h.device)
        distance = ((h - self.mean).square() / (self.variance + 1e-6)).mean(1)
        self.mean = NOVELTY_DECAY * self.mean + (1 - NOVELTY_DECAY) * mean
        self.variance = NOVELTY_DECAY * self.variance + (1 - NOVELTY_DECAY) * variance
        return distance
