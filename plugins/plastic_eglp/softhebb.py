"""The published networks of SoftHebb: hidden layers learn without labels, then a readout of their stored features.

Sources: Moraitis et al. 2022 for the fully connected network (preset 2SoftMlpMNIST), Journe et al. 2023 (arXiv
2209.11883) for the convolutions, and their program (github.com/NeuromorphicComputing/SoftHebb).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.data.datasets import Split
from plastic_eglp import rule
from plastic_eglp.adam import Adam
from plastic_eglp.config import KERNELS
from plastic_eglp.layers import SOFTHEBB_RADIUS, LocalConv2d, LocalLinear
from plastic_eglp.pooling import Pooling, map_sizes, pooling_of

if TYPE_CHECKING:
    from plastic_cli.data.datasets import Dataset

FEATURE_BATCH = 250
"""Images whose features are computed together. A fixed number, so that a resumed run has the same bits."""


class SoftHebbNetwork(nn.Module):
    """Convolutions that learn by SoftHebb, and a linear readout of the last maps.

    A layer is batch normalization without parameters, reflect padding, a convolution without bias (5 x 5 in the first
    layer, 3 x 3 in the others), the triangle function with a power, and pooling (`pooling_of`). Dropout is before the
    readout.

    image_shape: (channels, height, width) of the inputs, which are flattened. filters: channels of each convolution.
    rates, inverse_temperatures, powers: of each layer. radius: norm of a filter's initial weights. generator: random
    generator of the weights.

    Raises ValueError, with the name of the argument, for invalid values.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        filters: Sequence[int],
        classes: int,
        *,
        rates: Sequence[float],
        inverse_temperatures: Sequence[float],
        powers: Sequence[float],
        radius: float,
        dropout: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("rates", rates), ("inverse_temperatures", inverse_temperatures), ("powers", powers)):
            if len(values) != len(filters):
                raise ValueError(f"{name} has {len(values)} numbers: give one for each of {len(filters)} layers")
        *inputs, last = map_sizes(image_shape, filters)
        self.image_shape, self.radius, self.powers = inputs[0], radius, tuple(powers)
        self.pooling = pooling_of(len(filters))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels, _, _ in inputs)
        self.hidden = nn.ModuleList()
        for number, ((channels, _, _), units) in enumerate(zip(inputs, filters, strict=True)):
            layer = LocalConv2d(
                channels,
                units,
                KERNELS[min(number, 1)],
                rates[number],
                bias=False,
                local_rule="softhebb",
                inverse_temperature=inverse_temperatures[number],
                generator=generator,
            )
            layer.weight.mul_(radius / SOFTHEBB_RADIUS)
            self.hidden.append(layer)
        self.dropout = nn.Dropout(dropout)
        self.readout = make_readout(math.prod(last), classes, generator)
        # Channels last: the channels of a position, one stimulus of the rule, are contiguous.
        self.to(memory_format=torch.channels_last)

    def layers(self) -> list[LocalConv2d]:
        """Return the convolutions."""
        return list(self.hidden)  # type: ignore[arg-type]

    def maps(self, x: Tensor, *, graph: bool = False) -> Iterator[Tensor]:
        """Yield the pooled maps of each layer for x (n, pixels). In training mode each convolution stores its activity.

        graph: compute gradients for backpropagation, and store nothing.
        """
        h = x.view(-1, *self.image_shape).contiguous(memory_format=torch.channels_last)
        for number, layer in enumerate(self.layers()):
            h = self.padded(number, h)
            u = layer.response(h) if graph else layer(h)
            h = pooled_triangle(u, self.powers[number], self.pooling[number])
            yield h

    def padded(self, number: int, h: Tensor) -> Tensor:
        """Return h (n, channels, height, width) as the convolution `number` sees it: normalized and padded."""
        edge = self.layers()[number].weight.shape[-1] // 2
        padded: Tensor = functional.pad(self.norms[number](h), (edge, edge, edge, edge), mode="reflect")
        return padded

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of each layer, flattened to (n, units)."""
        return [maps.flatten(1) for maps in self.maps(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of x (n, pixels), or of images (n, channels, height, width), with gradients."""
        *_, last = self.maps(x.flatten(1), graph=True)
        logits: Tensor = self.readout(self.dropout(last.flatten(1)))
        return logits


def pooled_triangle(u: Tensor, power: float, pooling: Pooling) -> Tensor:
    """Return the triangle function of responses u (n, channels, height, width), pooled."""
    window = (pooling.size, pooling.stride, pooling.padding)
    if not pooling.largest:
        return functional.avg_pool2d(rule.triangle(u, power), *window)
    # A power is monotonic: the power of the maximum is the maximum of powers, for fewer numbers.
    return rule.to_power(functional.max_pool2d(rule.triangle(u), *window), power)


SHARPNESS = 5.0
"""Inverse temperature of the softmax that is the activity of the fully connected network."""


class PerceptronLayer(LocalLinear):
    """A linear layer that learns by the first version of SoftHebb: all units have the sign of the strongest."""

    softhebb_power = 0.2

    def _factors(
        self,
        z: Tensor,
        y: Tensor,  # noqa: ARG002
        event: rule.Event,
        modulation: Tensor | None,  # noqa: ARG002
    ) -> rule.Factors:
        return rule.softhebb(z, self.inverse_temperature, event, negated=False)


class Pixels(NamedTuple):
    """How inputs become pixels from 0 to 1: pixel = std * input + mean, by channel."""

    mean: Sequence[float]
    std: Sequence[float]


class SoftHebbPerceptron(nn.Module):
    """Fully connected layers without biases that learn by SoftHebb, and a linear readout.

    The first layer sees pixels from 0 to 1. The activity of a layer is the softmax of its responses over its units, and
    its initial weights are positive: uniform from 0 to radius sqrt(3 / inputs), so that their norm is about `radius`.
    The published preset is "2SoftMlpMNIST". hidden: units of each layer. The other arguments are those of
    SoftHebbNetwork.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int],
        classes: int,
        *,
        rates: Sequence[float],
        inverse_temperatures: Sequence[float],
        radius: float,
        dropout: float,
        pixels: Pixels,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = [math.prod(image_shape), *hidden]
        self.norms = nn.ModuleList()
        self.hidden = nn.ModuleList()
        for number, (inputs, units) in enumerate(pairwise(sizes)):
            layer = PerceptronLayer(
                inputs,
                units,
                rates[number],
                bias=False,
                local_rule="softhebb",
                inverse_temperature=inverse_temperatures[number],
                generator=generator,
            )
            drawn = torch.rand(units, inputs, generator=generator)
            layer.weight.copy_(drawn * (radius * math.sqrt(3 / inputs)))
            self.hidden.append(layer)
        channels = math.prod(image_shape[1:])
        self.register_buffer("mean", torch.tensor(pixels.mean).repeat_interleave(channels), persistent=False)
        self.register_buffer("std", torch.tensor(pixels.std).repeat_interleave(channels), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.readout = make_readout(sizes[-1], classes, generator)

    def layers(self) -> list[PerceptronLayer]:
        """Return the hidden layers."""
        return list(self.hidden)  # type: ignore[arg-type]

    def maps(self, x: Tensor, *, graph: bool = False) -> Iterator[Tensor]:
        """Yield the activity of each layer for x (n, pixels). In training mode each layer stores its own.

        graph: compute gradients for backpropagation, and store nothing.
        """
        h = x * self.get_buffer("std") + self.get_buffer("mean")
        for layer in self.layers():
            h = torch.softmax(SHARPNESS * (layer.response(h) if graph else layer(h)), 1)
            yield h

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each layer, (n, units)."""
        return [*self.maps(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of x (n, pixels), or of images (n, channels, height, width), with gradients."""
        *_, last = self.maps(x.flatten(1), graph=True)
        logits: Tensor = self.readout(self.dropout(last))
        return logits


def make_readout(features: int, classes: int, generator: torch.Generator | None) -> nn.Linear:
    """Return a linear readout, weights and biases uniform within 1 / sqrt(features)."""
    readout = nn.Linear(features, classes)
    for parameter in readout.parameters():
        drawn = torch.rand(parameter.shape, generator=generator)
        parameter.data = (2 * drawn - 1) / math.sqrt(features)
    return readout


@torch.no_grad()
def begin_with_patches(network: SoftHebbNetwork, x: Tensor, generator: torch.Generator) -> None:
    """Make random patches of the input of each layer its filters, without their mean, with the network's radius.

    x (n, pixels): images. generator: random generator of the images and positions of the patches.
    """
    network.train()
    h = x.view(-1, *network.image_shape)
    for number, layer in enumerate(network.layers()):
        padded = network.padded(number, h)
        for filter_ in layer.weight:
            _, height, width = filter_.shape
            starts = (len(x), padded.shape[2] - height + 1, padded.shape[3] - width + 1)
            image, row, column = (int(torch.randint(most, (), generator=generator)) for most in starts)
            patch = padded[image, :, row : row + height, column : column + width]
            patch = patch - patch.mean()
            norm = torch.linalg.vector_norm(patch)
            # A patch of one gray value has no direction: the random filter stays.
            if norm > 0:
                filter_.copy_(patch * (network.radius / norm))
        h = [*network.maps(x)][number]
    for layer, norm_of_inputs in zip(network.layers(), network.norms, strict=True):
        layer.forget()
        norm_of_inputs.reset_running_stats()  # type: ignore[operator]


class HiddenLearner:
    """Learns the hidden layers of a network from images without labels, all layers from the same batch.

    frozen: layers, counted from 0, that never learn. learns: False for the control, whose batch normalization sees the
    same images and whose filters do not change.

    events: number of batches that filters learned from. event_stimuli: number of images in them.
    """

    def __init__(
        self, network: SoftHebbNetwork | SoftHebbPerceptron, *, learns: bool = True, frozen: Collection[int] = ()
    ) -> None:
        self.network, self.learns, self.frozen = network, learns, frozenset(frozen)
        self.events = 0
        self.event_stimuli = 0

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Let batch normalization see a batch x (n, pixels), and the filters learn from it."""
        self.network.train()
        for _ in self.network.maps(x):
            pass
        for number, layer in enumerate(self.network.layers()):
            if self.learns and number not in self.frozen:
                layer.local_update(1.0)
            layer.forget()
        if self.learns:
            self.events += 1
            self.event_stimuli += len(x)

    @property
    def synaptic_updates(self) -> int:
        """Number of changes of single weights of filters."""
        layers = enumerate(self.network.layers())
        return self.events * sum(layer.weight.numel() for number, layer in layers if number not in self.frozen)

    @property
    def messages(self) -> int:
        """Number of numbers that reached the convolutions from outside: the event, for each image and layer."""
        return self.event_stimuli * (len(self.network.hidden) - len(self.frozen))

    def state_dict(self) -> dict[str, Any]:
        """Return the filters, the statistics of batch normalization, and the numbers of events."""
        return {
            "hidden": self.network.hidden.state_dict(),
            "norms": self.network.norms.state_dict(),
            "events": self.events,
            "event_stimuli": self.event_stimuli,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.network.hidden.load_state_dict(state["hidden"])
        self.network.norms.load_state_dict(state["norms"])
        self.events, self.event_stimuli = int(state["events"]), int(state["event_stimuli"])


class Descent:
    """Steps of Adam along the gradient of the cross-entropy.

    rate: learning rate. anneal: decrease it linearly over the epochs.
    """

    def __init__(self, parameters: Iterable[Tensor], *, rate: float, anneal: bool) -> None:
        self.adam, self.rate, self.anneal = Adam(parameters, lr=rate), rate, anneal

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the learning rate of epoch `epoch` of `epochs`, counted from 0."""
        self.adam.lr = self.rate * (1 - epoch / epochs if self.anneal else 1.0)

    def step(self, logits: Tensor, y: Tensor) -> Tensor:
        """Change the parameters by logits (n, classes) and labels y (n,); return the mean cross-entropy before it."""
        loss = functional.cross_entropy(logits, y)
        self.adam.step(torch.autograd.grad(loss, self.adam.parameters))
        return loss.detach()


class ReadoutLearner:
    """Learns a linear readout of features, which never change, with dropout.

    Dropout draws from torch's global random state.
    """

    def __init__(self, readout: nn.Linear, dropout: nn.Dropout, *, rate: float, anneal: bool) -> None:
        self.readout, self.dropout = readout, dropout
        self.descent = Descent(readout.parameters(), rate=rate, anneal=anneal)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the learning rate of epoch `epoch` of `epochs`, counted from 0."""
        self.descent.begin_epoch(epoch, epochs)

    def train_batch(self, h: Tensor, y: Tensor) -> Tensor:
        """Learn from features h (n, units) and labels y (n,); return the mean cross-entropy before the update."""
        self.dropout.train()
        return self.descent.step(self.readout(self.dropout(h)), y)

    def predict(self, h: Tensor) -> Tensor:
        """Return logits (n, classes) of features h (n, units)."""
        with torch.no_grad():
            logits: Tensor = self.readout(h)
        return logits

    def features(self, h: Tensor) -> list[Tensor]:
        """Return the features themselves."""
        return [h]

    def state_dict(self) -> dict[str, Any]:
        """Return the readout and its optimizer."""
        return {"readout": self.readout.state_dict(), "optimizer": self.descent.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.readout.load_state_dict(state["readout"])
        self.descent.adam.load_state_dict(state["optimizer"])


def descent_of_network(
    network: SoftHebbNetwork | SoftHebbPerceptron, *, rate: float, anneal: bool, frozen: Collection[int] = ()
) -> Descent:
    """Let all layers of a network learn from the gradient, except the hidden layers in `frozen`, counted from 0."""
    for number, layer in enumerate(network.layers()):
        layer.requires_grad_(number not in frozen)
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return Descent(learned, rate=rate, anneal=anneal)


class SoftHebbLearner:
    """A network with what teaches it: first its hidden layers, then its readout; or backpropagation all of it.

    backprop: what teaches all layers in `train_batch`; None: `hidden` and `readout` teach one after the other.
    """

    def __init__(
        self,
        network: SoftHebbNetwork | SoftHebbPerceptron,
        hidden: HiddenLearner,
        readout: ReadoutLearner,
        backprop: Descent | None = None,
    ) -> None:
        self.network, self.hidden, self.readout, self.backprop = network, hidden, readout, backprop

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the learning rate of epoch `epoch` of `epochs`, counted from 0."""
        (self.backprop or self.readout).begin_epoch(epoch, epochs)

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Make one step of backpropagation on images x (n, pixels); return the mean cross-entropy before it."""
        assert self.backprop is not None
        self.network.train()
        loss = self.backprop.step(self.network(x), y)
        self.hidden.events += 1
        self.hidden.event_stimuli += len(x)
        return loss

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of images x (n, pixels)."""
        return self.readout.predict(self.features(x)[-1])

    @torch.no_grad()
    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of each layer, flattened to (n, units)."""
        self.network.eval()
        parts = [self.network.features(part) for part in x.split(FEATURE_BATCH)]
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    def stored_features(self, data: Dataset) -> Dataset:
        """Return a data set with the readout's input in place of the images."""
        validation = None if data.validation is None else self._features_of(data.validation)
        return replace(self.training_features(data), validation=validation, test=self._features_of(data.test))

    def training_features(self, data: Dataset) -> Dataset:
        """Return a data set with the readout's input in place of the training images."""
        return replace(data, train=self._features_of(data.train))

    def _features_of(self, split: Split) -> Split:
        return Split(self.last_features(split.x), split.y)

    @torch.no_grad()
    def last_features(self, x: Tensor) -> Tensor:
        """Return the readout's input (n, units) for images x (n, pixels). Only these features take memory."""
        self.network.eval()
        stored = torch.empty(len(x), self.network.readout.in_features, dtype=x.dtype, device=x.device)
        for part, into in zip(x.split(FEATURE_BATCH), stored.split(FEATURE_BATCH), strict=True):
            *_, last = self.network.maps(part)
            into.copy_(last.flatten(1))
        return stored

    @property
    def first_weights(self) -> Tensor:
        """The weights (units, inputs) of the first layer or its filters (channels, patch), each with norm 1.

        Learning takes the norms from 25 to 1, so that weights of different norms could not be seen on one color scale.
        """
        return functional.normalize(self.network.layers()[0].weight.detach().flatten(1))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts."""
        state = {"hidden": self.hidden.state_dict(), "readout": self.readout.state_dict()}
        return state if self.backprop is None else {**state, "backprop": self.backprop.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.hidden.load_state_dict(state["hidden"])
        self.readout.load_state_dict(state["readout"])
        if self.backprop is not None:
            self.backprop.adam.load_state_dict(state["backprop"])
