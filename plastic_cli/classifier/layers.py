"""The hidden layers of a learner: their numbers and, in a module, their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from plastic_cli.analysis.activity import in_batches
from plastic_cli.classifier.fit import features
from plastic_cli.classifier.learner import Learner


@runtime_checkable
class NamedLayers(Protocol):
    """A learner whose layers have names."""

    def activity(self, x: Tensor) -> dict[str, Tensor]:
        """Return the activity of each hidden layer by name, (batch, units, ...), as `predict` computes it."""

    def layer_numbers(self, x: Tensor) -> dict[str, int]:
        """Return the number of each layer of weights by name, from 1, the readout included."""


@dataclass(frozen=True)
class HiddenLayer:
    """One hidden layer: its number, from 1, among all layers of weights, and its name; None for a learner without."""

    number: int
    name: str | None = None

    @property
    def labels(self) -> dict[str, Any]:
        """What distinguishes the layer in tables and metrics."""
        return {"layer": self.number} if self.name is None else {"layer": self.number, "name": self.name}

    @property
    def text(self) -> str:
        """The layer in a figure."""
        return str(self.number) if self.name is None else self.name


def hidden_layers(learner: Learner, x: Tensor) -> list[HiddenLayer]:
    """Return the hidden layers of a learner, in the order of `features`. x: some inputs (batch, features)."""
    if not isinstance(learner, NamedLayers):
        return [HiddenLayer(number) for number, _ in enumerate(features(learner, x[:2]), start=1)]
    numbers = learner.layer_numbers(x[:2])
    return [HiddenLayer(numbers[name], name) for name in next(in_batches(learner.activity, x[:3]))]


def activity_in_batches(learner: Learner, x: Tensor) -> Iterator[list[Tensor]]:
    """Yield the activity of each hidden layer in batches of inputs; all inputs at once for a learner without names."""
    if isinstance(learner, NamedLayers):
        yield from (list(part.values()) for part in in_batches(learner.activity, x))
    else:
        yield features(learner, x)
