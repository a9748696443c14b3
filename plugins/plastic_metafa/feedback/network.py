"""The network of metafa as a module: softplus units, no biases, pixels from 0 to 1 (`--activation softplus`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plastic_metafa.network import Pixels
from plastic_metafa.rule import softplus


class Softplus(nn.Module):
    """sigma(z) = log(1 + exp(beta z)) / beta with beta = 10."""

    def forward(self, z: Tensor) -> Tensor:
        """Return sigma(z), of any shape."""
        return softplus(z)


class SoftplusNetwork(nn.Module):
    """Layers of weights without biases, with softplus units between them.

    sizes: units of each layer, from input to output. Weights are Xavier uniform. pixels: turns images as the data set
    gives them into pixels from 0 to 1; None for images that are so already.
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator, pixels: Pixels | None = None) -> None:
        super().__init__()
        self.pixels = pixels
        self.layers = nn.ModuleList(nn.Linear(inputs, units, bias=False) for inputs, units in pairwise(sizes))
        self.activation = Softplus()
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.get_parameter("weight"), generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of x (batch, features), or of images (batch, channels, height, width)."""
        *hidden, readout = self.layers
        y = self.inputs(x)
        for layer in hidden:
            y = self.activation(layer(y))
        logits: Tensor = readout(y)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity (batch, units) of each hidden layer."""
        activity, y = [], self.inputs(x)
        for layer in self.layers[:-1]:
            y = self.activation(layer(y))
            activity.append(y)
        return activity

    def inputs(self, x: Tensor) -> Tensor:
        """Return what the first layer receives, (batch, features)."""
        x = x.flatten(1)
        pixels: Tensor = x if self.pixels is None else self.pixels(x)
        return pixels
