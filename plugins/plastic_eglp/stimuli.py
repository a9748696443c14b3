"""The uses of a weight in a forward pass of any module, as the stimuli of equation (1) of rule.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from plastic_cli.credit.products import Product
from plastic_cli.credit.recording import Recording, Use


class Stimuli:
    """All stimuli of one weight in one forward pass, from all uses of the weight, one after the other.

    Each position of a convolution, each token, and each time step of a recurrent map is a stimulus, and the mean of
    equation (1) is over all of them. So the change does not depend on how the module distributes them over calls.

    uses: of the weight. numbers: the place of each use among all uses of weights in the forward pass. W: the weights,
    units along dimension 0. name: of the parameter of the module that holds them; the uses may be of a part of it.
    biases: the name of the bias of each use, None if it has none that is a parameter.
    """

    def __init__(self, recording: Recording, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self.uses = uses = [recording.uses[number] for number in numbers]
        self.name = uses[0].name
        self.biases = [None if use.product.bias is None else recording.name_of(use.product.bias) for use in uses]
        self._weight = uses[0].product.weight.detach()
        self.W = _units_first(self._weight, uses[0].product)

    @property
    def z(self) -> Tensor:
        """The responses (n, out)."""
        return self._rows([use.z for use in self.uses])

    def activity_with_graph(self) -> list[Tensor]:
        """Return the activity of each use in the shape of its response, with the graph of the forward pass."""
        return [_with_graph(use) for use in self.uses]

    @property
    def y(self) -> Tensor:
        """The activities (n, out); the responses where no nonlinearity follows."""
        return self._rows([use.y for use in self.uses])

    def derivative(self) -> Tensor:
        """Return f' (n, out) of the layer's nonlinearity where it was applied, 1 if there is none."""
        return self._rows([use.slope for use in self.uses])

    def positions(self) -> list[tuple[int, ...]]:
        """Return, for each use, the shape of its responses without the units."""
        return [_without(use.z.shape, use.product.unit_dimension) for use in self.uses]

    def by_use(self, rows: Tensor) -> list[Tensor]:
        """Split rows (n, ...), one for each stimulus, into those of each use."""
        return list(rows.split([prod(positions) for positions in self.positions()]))

    def add_products(self, target: Tensor, post: Tensor, scale: float) -> None:
        """Add scale times the sum over stimuli of post x^T to `target`, in the shape of W. post (n, out)."""
        for use, rows in zip(self.uses, self.by_use(post), strict=True):
            product = use.product
            x = product.x.detach()
            x = x.to(post.dtype) if x.is_floating_point() else x
            error = _like(rows, use.z, product.unit_dimension)
            # The sum over all positions, without unfolding patches.
            _, sums, _ = replace(product, x=x, weight=self._weight, bias=None).gradients(
                error, self._weight, (False, True, False)
            )
            assert sums is not None
            target.add_(_units_first(sums.to_dense() if sums.is_sparse else sums, product), alpha=scale)

    def in_parameter(self, change: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return a change of W as a change of the whole parameter, 0 where the uses are of a part of it."""
        product = self.uses[0].product
        return in_whole(_units_back(change, product, self._weight.shape), self._weight, parameter)

    def _rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return tensors in the shape of responses as rows (n, out), in the type of the weights."""
        rows = [
            tensor.detach().movedim(use.product.unit_dimension, -1).flatten(0, -2).to(self.W.dtype)
            if tensor.ndim > 1
            else tensor.detach()[None].to(self.W.dtype)
            for use, tensor in zip(self.uses, tensors, strict=True)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def layers_of(recording: Recording, parameters: Mapping[str, nn.Parameter]) -> dict[str, Stimuli]:
    """Return the stimuli of each weight among `parameters`, by its name, in the order of the first use.

    Parts of a parameter that are used for themselves, such as the maps to queries, keys and values of attention, are
    layers of their own: their names have the position of the part.
    """
    grouped: dict[str, list[int]] = {}
    for number, use in enumerate(recording.uses):
        if use.name in parameters:
            grouped.setdefault(_layer_name(use, parameters[use.name]), []).append(number)
    return {name: Stimuli(recording, numbers) for name, numbers in grouped.items()}


def in_whole(change: Tensor, part: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a change of a part, a view of a parameter, as a change of the whole parameter, 0 elsewhere."""
    if part.shape == parameter.shape and part.stride() == parameter.stride():
        return change
    whole = torch.zeros_like(parameter, requires_grad=False)
    offset = part.storage_offset() - parameter.storage_offset()
    whole.as_strided(part.shape, part.stride(), offset).copy_(change)
    return whole


def _layer_name(use: Use, parameter: nn.Parameter) -> str:
    weight = use.product.weight
    if use.product.kind == "embedding":
        return f"{use.name} as embedding"
    if weight.numel() < parameter.numel():
        return f"{use.name} from {weight.storage_offset() - parameter.storage_offset()}"
    return use.name if weight.stride() == parameter.stride() else f"{use.name} transposed"


def _with_graph(use: Use) -> Tensor:
    if len(use.activations) == 1 and not use.activations[0].views:
        activation = use.activations[0]
        # What follows max pooling was recorded without a graph.
        return activation.result if activation.result.requires_grad else activation.function(activation.received)
    y = use.z.reshape(-1)
    for activation in use.activations:
        y = y.index_copy(0, activation.places_in(use.z), activation.result.reshape(-1))
    return y.view(use.z.shape)


def _without(shape: Sequence[int], dimension: int) -> tuple[int, ...]:
    sizes = list(shape)
    del sizes[dimension]
    return tuple(sizes)


def _like(rows: Tensor, z: Tensor, unit_dimension: int) -> Tensor:
    """Return rows (n, out) in the shape of the responses z."""
    sizes = _without(z.shape, unit_dimension)
    shaped: Tensor = rows.view(*sizes, rows.shape[-1])
    return shaped.movedim(-1, unit_dimension)


def _units_first(weight: Tensor, product: Product) -> Tensor:
    """Return weights with the units that they excite along dimension 0."""
    if product.kind in ("matmul", "embedding"):
        return weight.T
    if product.kind == "transposed convolution":
        groups = product.options.get("groups", 1)
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight


def _units_back(change: Tensor, product: Product, shape: Sequence[int]) -> Tensor:
    """Return a change of weights with the units along dimension 0 in the shape of the product's weights."""
    if product.kind in ("matmul", "embedding"):
        return change.T
    if product.kind == "transposed convolution":
        groups = product.options.get("groups", 1)
        change = change.unflatten(0, (groups, -1)).transpose(1, 2).reshape(tuple(shape))
    return change
