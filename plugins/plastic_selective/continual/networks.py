"""The network that learns the tasks: ReLU layers, or any module. A task may use a part of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plastic_cli.classifier.baselines import ReluNetwork
from plastic_cli.classifier.module import ImageShape, ModuleLearner, as_input


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


class ModuleNetwork(nn.Module):
    """Any module with the outputs of all tasks. image_shape: of the images that it takes, None for rows of pixels."""

    def __init__(self, network: nn.Module, image_shape: ImageShape | None) -> None:
        super().__init__()
        self.network, self.image_shape = network, image_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs) of x (batch, features), or of images (batch, channels, height, width)."""
        logits: Tensor = self.network(as_input(x.flatten(1), self.network, self.image_shape))
        return logits

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs), with the module in evaluation mode."""
        self.eval()
        return self.forward(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units)."""
        return ModuleLearner(self.network, image_shape=self.image_shape).features(x.flatten(1))


class _OfTasks(nn.Module):
    """A trained network whose answers to a task use the outputs of this task."""

    allowed: Tensor

    def forward(self, x: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Return logits (batch, outputs) of x (batch, features), or of images (batch, channels, height, width).

        task: the task of the images, from 1, one number or int64 (batch,). The logits of outputs that an answer to this
        task may not use are minus infinity. Without it, all outputs have their logits. Raises ValueError if there is
        no such task.
        """
        logits: Tensor = super().forward(x)
        if task is None:
            return logits
        numbers = torch.as_tensor(task, device=self.allowed.device)
        if ((numbers < 1) | (numbers > len(self.allowed))).any():
            raise ValueError(f"task is {task}: the tasks are 1 to {len(self.allowed)}")
        return mask_logits(logits, self.allowed[numbers - 1])


class TrainedNetwork(_OfTasks, ReluNetwork):
    """The network of a trained run. allowed: which outputs an answer to each task may use, bool (tasks, outputs)."""

    def __init__(self, layers: Iterable[nn.Module], allowed: Tensor) -> None:
        ReluNetwork.__init__(self, layers)
        self.register_buffer("allowed", allowed, persistent=False)


class TrainedModule(_OfTasks, ModuleNetwork):
    """The module of a trained run; its `network` is the module itself. allowed: as for TrainedNetwork."""

    def __init__(self, network: nn.Module, image_shape: ImageShape | None, allowed: Tensor) -> None:
        ModuleNetwork.__init__(self, network, image_shape)
        self.register_buffer("allowed", allowed, persistent=False)


def mask_logits(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Set the logits (batch, outputs) of outputs that are not allowed to minus infinity.

    allowed: bool (outputs,), or (batch, outputs) for a batch of several tasks; None: all.
    """
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def logits_of(network: nn.Module, allowed: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a function from images (batch, features) to the masked logits of `network`. allowed: `mask_logits`."""
    return lambda x: mask_logits(network(x), allowed)
