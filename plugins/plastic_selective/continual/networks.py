"""The network that learns the tasks: ReLU layers and one readout, which a task may use in part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plastic_cli.classifier.baselines import hidden_activity


class ContinualNetwork(nn.Module):
    """A ReLU network with the outputs of all tasks. Weights are drawn as in torch's Linear, with `generator`."""

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


def mask_logits(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Set the logits (batch, outputs) of outputs that are not allowed to minus infinity.

    allowed: bool (outputs,), or (batch, outputs) for a batch of several tasks; None: all.
    """
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def logits_of(network: nn.Module, allowed: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a function from images (batch, features) to the masked logits of `network`. allowed: `mask_logits`."""
    return lambda x: mask_logits(network(x), allowed)
