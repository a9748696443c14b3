"""The networks of EGLP: hidden layers that learn locally, and a readout."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_eglp import rule
from plastic_eglp.change import Feedback, LocalRule
from plastic_eglp.config import KERNELS
from plastic_eglp.layers import Activation, Activity, InitialWeights, LocalConv2d, LocalLinear, activate

Model = Literal["mlp", "cnn"]
Readout = Literal["supervised", "local"]


class EGLPNetwork(nn.Module):
    """Hidden layers that learn locally, and a readout of the last hidden activity.

    image_shape: (channels, height, width) of the inputs, which are flattened. hidden: units of each hidden layer, or
    channels of each convolution if model is "cnn". A convolution is followed by max pooling, which halves the size, and
    by batch normalization, so that the scale of the weights does not matter. initial_weights: of the hidden layers, see
    LocalLinear. readout: "supervised" is a linear layer that the learner trains; "local" is one more local layer.

    Raises ValueError, with the name of the argument, for invalid values.
    """

    last_hidden: Tensor
    """Input of the readout for the last batch, (batch, units)."""

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int],
        classes: int,
        *,
        model: Model = "mlp",
        lr: float = 0.01,
        local_rule: LocalRule = "oja",
        activation: Activation = "tanh",
        inverse_temperature: float = 1.0,
        initial_weights: InitialWeights = "uniform",
        readout: Readout = "supervised",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if model not in get_args(Model):
            raise ValueError(f"model is {model!r}: it must be one of {', '.join(get_args(Model))}")
        if readout not in get_args(Readout):
            raise ValueError(f"readout is {readout!r}: it must be one of {', '.join(get_args(Readout))}")
        if not hidden:
            raise ValueError("hidden is empty: name at least one layer")
        channels, height, width = (int(size) for size in image_shape)
        if model == "cnn" and min(height, width) < 2 ** len(hidden):
            raise ValueError(f"hidden: images of {height} x {width} cannot be halved {len(hidden)} times")
        self.image_shape = (channels, height, width)
        self.model = model
        self.hidden = nn.ModuleList()
        self.norms = nn.ModuleList()
        features = channels * height * width
        for number, units in enumerate(hidden):
            if model == "mlp":
                layer: LocalLinear | LocalConv2d = LocalLinear(
                    features,
                    units,
                    lr,
                    local_rule=local_rule,
                    activation=activation,
                    inverse_temperature=inverse_temperature,
                    initial_weights=initial_weights,
                    generator=generator,
                )
                features = units
            else:
                kernel = KERNELS[min(number, 1)]
                layer = LocalConv2d(
                    channels,
                    units,
                    kernel,
                    lr,
                    bias=False,
                    padding=kernel // 2,
                    local_rule=local_rule,
                    activation=activation,
                    inverse_temperature=inverse_temperature,
                    initial_weights=initial_weights,
                    generator=generator,
                )
                self.norms.append(nn.BatchNorm2d(units, affine=False))
                channels, height, width = units, height // 2, width // 2
                features = channels * height * width
            self.hidden.append(layer)
        self.readout: nn.Linear | LocalLinear
        if readout == "local":
            own = {"local_rule": local_rule, "inverse_temperature": inverse_temperature, "generator": generator}
            self.readout = LocalLinear(features, classes, lr, **own)  # type: ignore[arg-type]
        else:
            self.readout = nn.Linear(features, classes)
            for parameter in self.readout.parameters():
                drawn = torch.rand(parameter.shape, generator=generator)
                parameter.data = (2 * drawn - 1) / features**0.5
        # Fixed random feedback from the error to each hidden layer's units, drawn once and never learned.
        for number, units in enumerate(hidden):
            self.register_buffer(f"feedback_{number}", torch.randn(units, classes, generator=generator))

        if model == "cnn":
            self.to(memory_format=torch.channels_last)

    def layers(self) -> list[LocalLinear | LocalConv2d]:
        """Return the hidden layers."""
        return list(self.hidden)  # type: ignore[arg-type]

    def local_layers(self) -> list[LocalLinear | LocalConv2d]:
        """Return all layers that learn locally: the hidden layers, and a local readout."""
        return [*self.layers(), self.readout] if isinstance(self.readout, LocalLinear) else self.layers()

    def activity(self, x: Tensor, *, graph: bool = False) -> list[Tensor]:
        """Return the activity of each hidden layer for x (batch, features). In training mode each layer stores its own.

        graph: compute gradients for backpropagation, and store nothing.
        """
        activities = []
        h = x
        if self.model == "cnn":
            # Channels last: the channels of a position, one stimulus of the rule, are contiguous.
            h = x.view(-1, *self.image_shape).contiguous(memory_format=torch.channels_last)
        for number, layer in enumerate(self.layers()):
            h = layer.activate(layer.response(h)) if graph else layer(h)
            if self.model == "cnn":
                h = self.norms[number](functional.max_pool2d(h, 2))
            activities.append(h)
        return activities

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, flattened to (batch, units)."""
        return [activity.flatten(1) for activity in self.activity(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        self.last_hidden = self.activity(x)[-1].flatten(1)
        logits: Tensor = self.readout(self.last_hidden)
        return logits

    def stored(self, stimuli: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return response and activity of these stimuli (n,) in the last call, for each local layer."""
        found = []
        for layer in self.local_layers():
            _, response, post = layer.stored
            found.append((response.index_select(0, stimuli), post.index_select(0, stimuli)))
        return found

    def present(self, x: Tensor, batches: Sequence[list[tuple[Tensor, Tensor]]]) -> Tensor:
        """Store what a call with x (n, features) stores, from activity of earlier calls, and return the logits of x.

        batches: what `stored` returned for the stimuli of x, in their order, and possibly for further ones. The hidden
        layers must not have changed since, and there must be no batch normalization.
        """
        n, h = len(x), x
        for layer, parts in zip(self.local_layers(), zip(*batches, strict=True), strict=True):
            response, post = (torch.cat(rows)[:n] for rows in zip(*parts, strict=True))
            layer.store(Activity(h, response, post))
            if layer is not self.readout:
                self.last_hidden = post
            h = post
        if isinstance(self.readout, LocalLinear):
            return h
        logits: Tensor = self.readout(h)
        return logits

    def local_update(
        self, error: Tensor, event: float | Tensor, *, feedback: Feedback, frozen: Collection[int] = ()
    ) -> None:
        """Update the hidden layers, except those in `frozen`, and a local readout from their stored activity.

        With feedback "direct" the error (batch, classes) modulates learning; with "none" each layer learns by its rule.
        """
        for number, layer in enumerate(self.layers()):
            if number in frozen:
                continue
            if feedback == "direct":
                layer.local_update(event, rule.direct_feedback(error, self.get_buffer(f"feedback_{number}")))
            else:
                layer.local_update(event)
        if isinstance(self.readout, LocalLinear):
            self.readout.local_update(event, -error if feedback == "direct" else None)


class NormalizedNetwork(nn.Module):
    """A fully connected network with batch normalization and dropout, for a credit rule or the gradient.

    Each hidden layer is a linear map, batch normalization, the activation function, and dropout. image_shape: of the
    inputs, which are flattened. hidden: units of each hidden layer. Weights and biases are uniform within
    1 / sqrt(inputs).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int],
        classes: int,
        *,
        activation: Activation = "leaky-relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [prod(image_shape), *hidden, classes]
        layers = [nn.Linear(inputs, units) for inputs, units in pairwise(sizes)]
        self.hidden = nn.ModuleList(layers[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(units) if batch_norm else nn.Identity() for units in hidden)
        self.dropout = nn.Dropout(dropout)
        self.readout = layers[-1]
        for layer in layers:
            for parameter in layer.parameters():
                drawn = torch.rand(parameter.shape, generator=generator)
                parameter.data = (2 * drawn - 1) / layer.in_features**0.5

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of x (batch, features), or of images (batch, channels, height, width)."""
        h = x.flatten(1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h = self.dropout(activate(norm(layer(h)), self.activation))
        logits: Tensor = self.readout(h)
        return logits


class TrainedNetwork(nn.Module):
    """An EGLPNetwork as an ordinary module: it has the same weights, gradients flow, and no layer learns locally."""

    def __init__(self, network: EGLPNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of x (batch, features), or of images (batch, channels, height, width)."""
        h, readout = self.features(x)[-1], self.network.readout
        if isinstance(readout, LocalLinear):
            return readout.activate(readout.response(h))
        logits: Tensor = readout(h)
        return logits

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, flattened to (batch, units)."""
        return [activity.flatten(1) for activity in self.network.activity(x.flatten(1), graph=True)]
