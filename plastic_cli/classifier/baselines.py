"""The control of every comparison: such a network trained by backpropagation, wholly or only at its readout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn


def hidden_activity(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Return the activity (batch, units) of each hidden layer of ReLU units; the last of `layers` is the readout."""
    activity = []
    for layer in layers[:-1]:
        x = torch.relu(layer(x))
        activity.append(x)
    return activity


class BackpropLearner:
    """A ReLU network trained by gradient descent on cross-entropy.

    trained: "all" layers, or only the "readout" on fixed random features, which is what much of a rule's accuracy can
    owe to its network alone.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generator: torch.Generator,
        *,
        learning_rate: float,
        optimizer: Literal["adam", "sgd"] = "adam",
        momentum: float = 0.0,
        trained: Literal["all", "readout"] = "all",
        device: torch.device | str = "cpu",
    ) -> None:
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise(sizes):
            layer = nn.Linear(inputs, outputs)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
            self.layers.append(layer)
        self.layers.to(device)
        if trained == "readout":
            self.layers[:-1].requires_grad_(False)
        parameters = [parameter for parameter in self.layers.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(parameters, lr=learning_rate)
            if optimizer == "adam"
            else torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)
        )

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one step down the gradient of the batch's mean cross-entropy, and return that."""
        loss = nn.functional.cross_entropy(self.predict(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        hidden = self.features(x)
        readout: Tensor = self.layers[-1](hidden[-1] if hidden else x)
        return readout

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer."""
        return hidden_activity(self.layers, x)

    @property
    def first_weights(self) -> Tensor:
        """The weights (units, inputs) of the first layer."""
        weights: Tensor = self.layers[0].get_parameter("weight")
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and the optimizer's state."""
        return {"layers": self.layers.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back parameters and the optimizer's state."""
        self.layers.load_state_dict(state["layers"])
        self.optimizer.load_state_dict(state["optimizer"])
