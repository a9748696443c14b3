"""The control for all rules: a ReLU network trained by backpropagation, all layers or only the readout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class ReluNetwork(nn.Module):
    """Hidden layers of ReLU units and a linear readout, the last of `layers`."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of x (batch, features), or of images (batch, channels, height, width)."""
        x = x.flatten(1)
        hidden = self.features(x)
        logits: Tensor = self.layers[-1](hidden[-1] if hidden else x)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity (batch, units) of each hidden layer."""
        return hidden_activity(self.layers, x.flatten(1))


class BackpropLearner:
    """A ReLU network trained by gradient descent on cross-entropy.

    trained: "all" layers, or only the "readout" on fixed random features. The latter shows which accuracy the network
    reaches without learning in its hidden layers.
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
        """Apply one gradient step for the mean cross-entropy of the batch, and return the loss before the step."""
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
        """Return the parameters and the optimizer's state."""
        return {"layers": self.layers.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the parameters and the optimizer's state."""
        self.layers.load_state_dict(state["layers"])
        self.optimizer.load_state_dict(state["optimizer"])
