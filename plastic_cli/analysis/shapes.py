"""The shapes of a network's layers, for one sample: what the cost of learning is counted from.

Those of a fully connected network follow from its sizes. Those of any module are found by calling it with tensors of
torch's meta device, which have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.flop_counter import FlopCounterMode

    from plastic_cli.credit.recording import Use

SAMPLES = 2
"""Samples with which a module is called; batch normalization needs two."""


@dataclass(frozen=True)
class Layer:
    """One use of a weight for one sample. A weight that is used several times has several.

    name: of the weight. weights, biases: numbers of its entries. inputs, units: numbers in the input and in the
    response. positions: how often each weight is used: positions of a convolution, tokens or time steps. features:
    numbers of the input without tokens and time steps. channels: units that have weights of their own: the channels of
    a convolution. reads_data: no parameter acts on the input, so that no error passes below. embeds: looks its
    weights up, and multiplies nothing.
    """

    name: str
    weights: int
    biases: int
    inputs: int
    units: int
    positions: int
    features: int
    channels: int
    reads_data: bool = False
    embeds: bool = False

    @property
    def flops(self) -> int:
        """Operations of the response; the change of the weights costs the same, and so does the error of the input."""
        return 0 if self.embeds else 2 * self.weights * self.positions


@dataclass(frozen=True)
class NetworkShape:
    """The layers of a network in the order of use, the last of which is the readout, and what they cost for a sample.

    forward_flops: operations of one prediction. gradient_flops: of the gradient of all parameters, without the
    prediction. parameters: number of all parameters. buffers: number of all other numbers of the network, such as
    statistics of normalization. number_bytes: bytes of one number.
    """

    layers: tuple[Layer, ...]
    forward_flops: int
    gradient_flops: int
    parameters: int
    buffers: int = 0
    number_bytes: int = 4

    @property
    def hidden(self) -> tuple[Layer, ...]:
        """All layers but the readout."""
        return self.layers[:-1]

    @property
    def hidden_names(self) -> frozenset[str]:
        """The names of the hidden layers; a layer that is used several times has one."""
        return frozenset(layer.name for layer in self.hidden)

    @property
    def readout(self) -> Layer:
        """The layer that is used last."""
        return self.layers[-1]

    @property
    def weights(self) -> int:
        """The number of weights; a shared weight counts once."""
        return weights_of(self.layers)

    @property
    def activity(self) -> int:
        """Numbers in the inputs and responses of all layers, for one sample."""
        return activity_of(self.layers)

    @property
    def error_flops(self) -> int:
        """Operations for one sample that carry the errors of all layers to their inputs, where these need them."""
        return sum(layer.flops for layer in self.layers if not layer.reads_data)

    @property
    def errors_from_above(self) -> int:
        """Messages to the hidden layers for one sample, if errors pass from layer to layer: units of the next layer."""
        return sum(layer.units for layer in self.layers[1:])


def weights_of(layers: Sequence[Layer]) -> int:
    """Return the number of weights of some layers; a shared weight counts once."""
    return sum({layer.name: layer.weights for layer in layers}.values())


def activity_of(layers: Sequence[Layer]) -> int:
    """Return the numbers in the inputs and responses of some layers, for one sample."""
    return sum(layer.inputs + layer.units for layer in layers)


def fully_connected(sizes: Sequence[int], *, biases: bool = True) -> NetworkShape:
    """Return the shape of a fully connected network with layers of the sizes d_0, ..., d_L."""
    layers = tuple(
        Layer(
            *(f"layers.{number}.weight", inputs * units, units if biases else 0, inputs, units, 1, inputs, units),
            reads_data=number == 0,
        )
        for number, (inputs, units) in enumerate(pairwise(sizes))
    )
    forward = sum(layer.flops for layer in layers)
    parameters = sum(layer.weights + layer.biases for layer in layers)
    return NetworkShape(layers, forward, 2 * forward - layers[0].flops, parameters)


def shape_of(module: nn.Module, inputs: Tensor) -> NetworkShape:
    """Return the shape of a module that is called with `inputs`, a batch of SAMPLES samples.

    Module and inputs may be on the meta device. Elsewhere statistics of normalization change.
    """
    import torch

    from plastic_cli.credit.parameters import named_parameters
    from plastic_cli.credit.protocol import call
    from plastic_cli.credit.recording import Recording

    module.requires_grad_(True)
    with torch.no_grad(), flop_counter() as prediction:
        module(inputs)
    with torch.enable_grad(), flop_counter() as step:
        module(inputs).sum().backward()
    module.zero_grad(set_to_none=True)
    recording = Recording(named_parameters(module))
    with torch.enable_grad(), recording:
        call(module, inputs)
    parameters = list(module.parameters())
    forward = prediction.get_total_flops()
    return NetworkShape(
        tuple(_layer(use) for use in recording.uses),
        forward // SAMPLES,
        (step.get_total_flops() - forward) // SAMPLES,
        sum(parameter.numel() for parameter in parameters),
        sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point()),
        parameters[0].element_size(),
    )


def flop_counter() -> FlopCounterMode:
    """Return torch's counter of operations, which is exact for convolutions in groups too."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    exact = {torch.ops.aten.convolution_backward: _flops_of_convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=exact)


def _flops_of_convolution_backward(
    error: Sequence[int], x: Sequence[int], weight: Sequence[int], *options: Any, **_: Any
) -> int:
    """Return the operations of the gradients of a convolution from shapes. torch counts those of groups several times.

    options: of torch.ops.aten.convolution_backward; whether it is transposed, and which gradients are needed.
    """
    transposed, (of_x, of_weight, _of_bias) = options[4], options[7]
    positions = x if transposed else error
    return 2 * prod(weight) * x[0] * prod(positions[2:]) * (int(of_x) + int(of_weight))


def _layer(use: Use) -> Layer:
    product, x, z = use.product, use.product.x, use.z
    weight = product.weight
    unit_dimension = product.unit_dimension
    units = z.shape[unit_dimension]
    positions = z.numel() // units // SAMPLES
    if product.kind == "transposed convolution":
        positions = x.numel() // x.shape[unit_dimension] // SAMPLES
    tokens = x.shape[-1] if product.kind in ("linear", "matmul") else x.numel() // SAMPLES
    # Views of one tensor, such as the projections of attention, are weights of their own.
    name = use.name if weight._base is None else f"{use.name}[{weight.storage_offset()}]"
    return Layer(
        name,
        weight.numel(),
        0 if product.bias is None else product.bias.numel(),
        x.numel() // SAMPLES,
        z.numel() // SAMPLES,
        max(1, positions),
        tokens,
        units,
        reads_data=not x.requires_grad,
        embeds=product.kind == "embedding",
    )
