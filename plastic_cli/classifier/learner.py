"""The interface of a learner that classifies; the training loop and all analyses use only this interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run


@runtime_checkable
class Learner(Protocol):
    """A classifier that learns from batches: `x` (batch, features), normalized, and `y` (batch,), class numbers."""

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Learn from one batch. Return its loss, which is checked for finite values, or None."""

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes), without noise and without changing the learner."""

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units) each, as `predict` computes it."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that learning changes."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""


@runtime_checkable
class EpochLearner(Protocol):
    """A learner that trains on a whole epoch in one call, so that its inner loop can be compiled."""

    def train_epoch(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` and `y[order]`, in this order; call `progress` with the number of samples so far."""


@runtime_checkable
class ScheduledLearner(Protocol):
    """A learner whose settings change over the epochs."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the learning rate, the noise and similar settings for epoch `epoch` of `epochs`, counted from 0."""


@runtime_checkable
class EncodingLearner(Protocol):
    """A learner whose first layer receives the code of a frozen encoder, if `encoder` is not None."""

    encoder: nn.Module | None

    def encode(self, x: Tensor) -> Tensor:
        """Return the code (batch, units) of images x (batch, features)."""


class Build(Protocol):
    """Builds the learner of a run: trained, or with its initial weights."""

    def __call__(self, run: Run, data: Dataset, *, trained: bool = True) -> Learner:
        """Return the learner."""


Networks = Callable[[], Mapping[str, Learner]]
"""Builds further networks, by name, for analyses that compare them with the run's own network."""
