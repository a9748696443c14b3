"""The network that learns the tasks: ReLU layers and one readout, which a task may use in part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plastic_cli.classifier.baselines import ReluNetwork


class ContinualNetwork(ReluNetwork):
    """A ReLU network with the outputs of all tasks. Weights are drawn as in torch's Linear, with `generator`."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator) -> None:
        layers = []
        for inputs, outputs in pairwise(sizes):
            layer = nn.Linear(inputs, outputs)
            for parameter in (layer.weight, layer.bias):
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
            layers.append(layer)
        super().__init__(layers)

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs)."""
        return self.forward(x)


class TrainedNetwork(ReluNetwork):
    """The network of a trained run. allowed: which outputs an answer to each task may use, bool (tasks, outputs)."""

    allowed: Tensor

    def __init__(self, layers: Iterable[nn.Module], allowed: Tensor) -> None:
        super().__init__(layers)
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Return logits (batch, outputs) of x (batch, features), or of images (batch, channels, height, width).

        task: the task of the images, from 1, one number or int64 (batch,). The logits of outputs that an answer to this
        task may not use are minus infinity. Without it, all outputs have their logits. Raises ValueError if there is
        no such task.
        """
        logits = super().forward(x)
        if task is None:
            return logits
        numbers = torch.as_tensor(task, device=self.allowed.device)
        if ((numbers < 1) | (numbers > len(self.allowed))).any():
            raise ValueError(f"task is {task}: the tasks are 1 to {len(self.allowed)}")
        return mask_logits(logits, self.allowed[numbers - 1])


def mask_logits(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Set the logits (batch, outputs) of outputs that are not allowed to minus infinity.

    allowed: bool (outputs,), or (batch, outputs) for a batch of several tasks; None: all.
    """
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def logits_of(network: nn.Module, allowed: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a function from images (batch, features) to the masked logits of `network`. allowed: `mask_logits`."""
    return lambda x: mask_logits(network(x), allowed)
