"""Learner: what a rule that learns to classify must offer, and nothing more, so that everything shared works on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run


@runtime_checkable
class Learner(Protocol):
    """A classifier that learns from batches: `x` (batch, features), normalised, and `y` (batch,), class numbers."""

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Learn from one batch; what is returned, if anything, is the batch's loss, watched for not being finite."""

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes), without noise and without changing anything."""

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units) each, as `predict` computes it."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that learning changes."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take back what `state_dict` returned."""


@runtime_checkable
class StreamLearner(Protocol):
    """A learner that takes a whole epoch at once, so that its inner loop can be compiled."""

    def train_stream(self, x: Tensor, y: Tensor, order: Tensor, progress: Callable[[int], None]) -> None:
        """Learn from `x[order]` and `y[order]`, in that order; call `progress` with the samples seen now and then."""


@runtime_checkable
class ScheduledLearner(Protocol):
    """A learner whose settings change over the epochs."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set learning rate, noise and the like for epoch `epoch` of `epochs`, counted from 0."""


class Build(Protocol):
    """Makes a run's learner, as it was before training or with what it has learned."""

    def __call__(self, run: Run, data: Dataset, *, trained: bool = True) -> Learner:
        """Return the learner."""


Networks = Callable[[], Mapping[str, Learner]]
"""Makes further networks, by name, when an analysis wants to show them beside the run's own."""
