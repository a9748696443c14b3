"""The network that learns the tasks: layers of ReLU units and one readout, of which an answer may use a part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plastic_cli.classifier.baselines import hidden_activity


class ContinualNetwork(nn.Module):
    """A ReLU network with all outputs that any task needs; weights as torch's Linear draws them, by `generator`."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise(sizes):
            layer = nn.Linear(inputs, outputs)
            for parameter in (layer.weight, layer.bias):
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs)."""
        hidden = self.features(x)
        logits: Tensor = self.layers[-1](hidden[-1])
        return logits

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs)."""
        return self.forward(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer."""
        return hidden_activity(self.layers, x)


def answer(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Return logits (batch, outputs) with those that may not be used at minus infinity.

    allowed: bool (outputs,), or (batch, outputs) for a batch of several tasks; None: all.
    """
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
