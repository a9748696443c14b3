"""The terms of the plasticity rule on the layers of any module: equation (5) of `rule` for one use of a weight.

A position of a convolution, and a time step, counts as a sample of its own: the input of a unit is the patch that it
sees. The change is the sum over positions and time steps, and the mean over the samples of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli import UserError
from plastic_cli.credit.products import Product
from plastic_metafa import rule
from plastic_metafa.theta_file import PUBLISHED_TERMS, TermKey

DECAY = 3
"""The index of the term that is -W: it is added once for each call, whatever the number of uses of the weight."""
OWN_TERM_ELEMENTS = 2**22
"""Entries of the matrices that terms of the user's own make at a time: one matrix for each sample."""

Slope = Callable[[Tensor], Tensor]
"""The derivative of a nonlinearity as a function of its output."""


def uses_e_pre(theta: Mapping[TermKey, float]) -> bool:
    """Return whether a term with a strength uses the error of the layer below."""
    return any(strength and rule.TERMS[key].uses_e_pre for key, strength in theta.items())


def weight_change(
    product: Product,
    B: Tensor,
    y_post: Tensor,
    e_post: Tensor,
    of_x: Tensor | None,
    slope: Tensor | None,
    theta: Mapping[TermKey, float],
) -> Tensor:
    """Return the sum over samples and positions of sum_r theta_r F_r (5), without the decay, shaped as the weight.

    y_post and e_post in the shape of z. B: the feedback in the shape of the weight, which gives e_pre = (B^T e_post)
    slope for each position; of_x: the error at the input of the layer where it is known without B^T e_post, as for
    direct feedback. slope: f' at x, in the shape of x; None where no term uses e_pre.
    """
    published = {
        key: value for key, value in theta.items() if isinstance(key, int) and key < PUBLISHED_TERMS and key != DECAY
    }
    own = {key: value for key, value in theta.items() if key not in published and key != DECAY and value}
    W = weight_matrices(product, product.weight.detach())
    y, e = matrix_of_units(product, y_post), matrix_of_units(product, e_post)
    e_pre = None
    if slope is not None:
        back = e @ weight_matrices(product, B) if of_x is None else matrix_of_inputs(product, of_x)
        e_pre = back * matrix_of_inputs(product, slope)
    W_e_pre = e_pre @ W.mT if e_pre is not None and (published.get(6) or published.get(7)) else None
    W_y_pre = None
    if published.get(8):
        W_y_pre = matrix_of_inputs(product, product.x) @ W.mT
    of_y, of_e = rule.factors_above(y, e, published, W_y_pre, W_e_pre)
    matrices = rule.second_factor_of_oja(W, y, published)
    if of_e is not None and e_pre is not None:
        matrices = matrices + of_e.mT @ e_pre
    for key, strength in own.items():
        matrices = matrices + strength * _own_change(key, W, matrix_of_inputs(product, product.x), y, e_pre, e)
    change = shaped_as_weight(product, matrices)
    if product.kind == "transposed convolution":
        return change + shaped_as_weight(product, of_y.mT @ matrix_of_inputs(product, product.x))
    # The sum of the products with y_pre is a derivative with respect to the weight, which needs no patches.
    of_weight = product.gradients(shaped_as_units(product, of_y, y_post.shape), B, (False, True, False))[1]
    assert of_weight is not None
    return change + of_weight


def _own_change(key: TermKey, W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor | None, e_post: Tensor) -> Tensor:
    """Return the sum over samples of a term of the user's own, (groups, out, in); it makes one matrix for each."""
    expression = rule.TERMS[key].expression
    at_once = max(1, OWN_TERM_ELEMENTS // max(1, W[0].numel()))
    e_pre = torch.zeros_like(y_pre) if e_pre is None else e_pre
    groups = []
    for number, matrix in enumerate(W):
        total = torch.zeros_like(matrix)
        parts = (tensor[number].split(at_once) for tensor in (y_pre, y_post, e_pre, e_post))
        for samples in zip(*parts, strict=True):
            # A term that does not depend on the samples, such as a decay, returns one matrix.
            changes = expression(matrix.expand(len(samples[0]), *matrix.shape), *samples)
            total = total + changes.expand(len(samples[0]), *matrix.shape).sum(0)
        groups.append(total)
    return torch.stack(groups)


def matrix_of_inputs(product: Product, x: Tensor) -> Tensor:
    """Return a tensor in the shape of the layer's input as (groups, samples, in): for convolutions its patches."""
    if "convolution" not in product.kind:
        return x.reshape(1, -1, x.shape[-1])
    x = x if x.ndim == product.weight.ndim else x[None]
    return _by_groups(product, x if product.kind == "transposed convolution" else _patches(product, x))


def matrix_of_units(product: Product, z: Tensor) -> Tensor:
    """Return a tensor in the shape of the layer's response as (groups, samples, out).

    For a transposed convolution a sample is a position of the input, with the patch of units that it reaches.
    """
    if "convolution" not in product.kind:
        return z.reshape(1, -1, z.shape[-1])
    batched = product.x.ndim == product.weight.ndim
    z = z if batched else z[None]
    if product.kind == "convolution":
        return _by_groups(product, z)
    patches = _patches(product, z)
    # Padding of the output can make room for more positions than the input has.
    for dimension, size in enumerate(product.x.shape[2 if batched else 1 :], 2):
        patches = patches.narrow(dimension, 0, size)
    return _by_groups(product, patches)


def shaped_as_units(product: Product, matrix: Tensor, shape: torch.Size) -> Tensor:
    """Return (groups, samples, out) in the shape of the response; not for transposed convolutions."""
    if product.kind != "convolution":
        return matrix.reshape(shape)
    batch = shape[0] if product.x.ndim == product.weight.ndim else 1
    groups, samples, units = matrix.shape
    # (groups, batch, positions, out) to (batch, groups, out, positions)
    return matrix.view(groups, batch, samples // batch, units).permute(1, 0, 3, 2).reshape(shape)


def weight_matrices(product: Product, weight: Tensor) -> Tensor:
    """Return a tensor in the shape of the weight as (groups, out, in)."""
    if product.kind == "matmul":
        return weight.T[None]
    matrices: Tensor = weight.reshape(product.options.get("groups", 1), -1, weight[0].numel())
    return matrices.mT if product.kind == "transposed convolution" else matrices


def shaped_as_weight(product: Product, matrices: Tensor) -> Tensor:
    """Return (groups, out, in) in the shape of the weight."""
    if product.kind in ("matmul", "transposed convolution"):
        matrices = matrices.mT
    return matrices.reshape(product.weight.shape)


def _patches(product: Product, maps: Tensor) -> Tensor:
    """Return the patches of (batch, channels, *size) as (batch, channels x kernel, *positions)."""
    channels, kernel = maps.shape[1], product.weight.shape[2:]
    options = {name: value for name, value in product.options.items() if name != "output_padding"}
    if len(kernel) == 2 and not isinstance(options.get("padding"), str):
        pairs = {name: options.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))}
        found = functional.unfold(maps, tuple(kernel), **pairs)
        sizes = [
            (size + 2 * _at(pairs["padding"], n) - _at(pairs["dilation"], n) * (kernel[n] - 1) - 1)
            // _at(pairs["stride"], n)
            + 1
            for n, size in enumerate(maps.shape[2:])
        ]
        return found.view(len(maps), -1, *sizes)
    # Filters with one 1 each copy a pixel of the patch. They take all options of the layer, in 1 to 3 dimensions.
    size = math.prod(kernel)
    filters = torch.eye(size, dtype=maps.dtype, device=maps.device).view(size, 1, *kernel)
    filters = filters.repeat(channels, *(1,) * (1 + len(kernel)))
    convolution = (torch.conv1d, torch.conv2d, torch.conv3d)[len(kernel) - 1]
    return convolution(maps, filters, None, **{**options, "groups": channels})


def _at(value: Any, number: int) -> int:
    """Return the value of one dimension of an option that is one number or one for each dimension."""
    if isinstance(value, int):
        return value
    return int(value[number if len(value) > 1 else 0])


def _by_groups(product: Product, maps: Tensor) -> Tensor:
    """Return (batch, channels, *positions) as (groups, batch x positions, channels of the group)."""
    batch, channels = maps.shape[:2]
    groups = int(product.options.get("groups", 1))
    return maps.reshape(batch, groups, channels // groups, -1).permute(1, 0, 3, 2).flatten(1, 2)


# The nonlinearity from which an input comes.

_KEEPING = (
    *("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias", "Add", "Div", "Mul"),
    *("NativeDropout",),
)
_MOVING = (
    *("Permute", "Transpose", "T", "Expand", "Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Cat", "Stack"),
    *("Index", "MaxPool1D", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AvgPool2D", "AvgPool3D", "Mean"),
    *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AdaptiveMaxPool2D", "ConstantPadNd"),
)
_NORMALIZATIONS = ("NativeBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "CudnnBatchNorm", "FusedRmsNorm")


def slope_before(x: Tensor) -> Slope | None:
    """Return the derivative of the nonlinearity from which the input of a layer comes, as a function of that input.

    None if it comes directly from the input of the module. Views, pooling, dropout and additions may lie between; so
    may a normalization, after which the output that the nonlinearity had is used. 1 if another layer's response or a
    product of activities comes first.
    """
    if x.grad_fn is None:
        return None
    waiting, seen = [(x.grad_fn, False, False)], {x.grad_fn}
    while waiting:
        node, normalized, moved = waiting.pop(0)
        name = type(node).__name__.partition("Backward")[0]
        if name in _OF_OUTPUT or name in _OF_RESPONSE:
            return _slope_of(node, name, x.shape, normalized=normalized, moved=moved)
        children = [child for child, _ in node.next_functions if child is not None]
        following = [child for child in children if type(child).__name__ != "AccumulateGrad"]
        # A product of two activities, as in the gates of a recurrent layer, is not the output of a nonlinearity.
        passes = name in _KEEPING or name in _MOVING
        passes = passes and not (name in ("Mul", "Div") and len(following) > 1)
        if name in _NORMALIZATIONS or passes:
            for child in following[:1] if name in _NORMALIZATIONS else following:
                if child not in seen:
                    seen.add(child)
                    waiting.append((child, normalized or name in _NORMALIZATIONS, moved or name in _MOVING))
    return torch.ones_like


def slope_of_output(y: Tensor) -> Slope:
    """Return the derivative of the nonlinearity that made y, as a function of its output; 1 if there is no such one."""
    name = type(y.grad_fn).__name__.partition("Backward")[0]
    return _OF_OUTPUT[name](y.grad_fn) if name in _OF_OUTPUT else torch.ones_like


def _slope_of(node: Any, name: str, shape: torch.Size, *, normalized: bool, moved: bool) -> Slope:
    """Return the slope of a nonlinearity at an input of this shape.

    normalized, moved: whether a normalization, or an operation that moves or combines entries, lies between.
    """
    if name in _OF_OUTPUT and not normalized:
        return _OF_OUTPUT[name](node)
    output, response = getattr(node, "_saved_result", None), getattr(node, "_saved_self", None)
    saved = response if output is None else output
    if moved or saved is None or saved.numel() != shape.numel():
        raise UserError(
            f"a term uses the error of the layer below, and the slope of {name.lower()} is not known there, because"
            " its output is pooled, normalized or moved first. Use ReLU, softplus or tanh without normalization"
            " after them, or the terms 0, 3, 5 and 9."
        )
    if output is not None:
        slope = _OF_OUTPUT[name](node)(output.detach())
    else:
        with torch.enable_grad():
            z = saved.detach().requires_grad_()
            (slope,) = torch.autograd.grad(_FUNCTIONS[name](node, z).sum(), z)
    return lambda _: slope.reshape(shape)


def _softplus_slope(node: Any) -> Slope:
    beta = node._saved_beta
    return lambda y: -torch.expm1(-beta * y)


def _leaky_slope(node: Any) -> Slope:
    negative = node._saved_negative_slope
    return lambda y: torch.where(y > 0, torch.ones_like(y), negative)


def _elu_slope(node: Any) -> Slope:
    alpha, scale = node._saved_alpha, node._saved_scale
    return lambda y: torch.where(y > 0, torch.full_like(y, scale), y + alpha * scale)


def _celu_slope(node: Any) -> Slope:
    alpha = node._saved_alpha
    return lambda y: torch.where(y > 0, torch.ones_like(y), 1 + y / alpha)


def _hardtanh_slope(node: Any) -> Slope:
    low, high = node._saved_min_val, node._saved_max_val
    return lambda y: ((y > low) & (y < high)).to(y.dtype)


# By the names of torch's nodes of differentiation.
_OF_OUTPUT: Mapping[str, Callable[[Any], Slope]] = {
    "Relu": lambda _: lambda y: (y > 0).to(y.dtype),
    "Softplus": _softplus_slope,
    "Tanh": lambda _: lambda y: 1 - y * y,
    "Sigmoid": lambda _: lambda y: y * (1 - y),
    "LeakyRelu": _leaky_slope,
    "Elu": _elu_slope,
    "Celu": _celu_slope,
    "Hardtanh": _hardtanh_slope,
}
_OF_RESPONSE = frozenset({"Gelu", "Silu", "Mish", "Hardswish"})
_FUNCTIONS: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "Softplus": lambda node, z: functional.softplus(z, node._saved_beta, node._saved_threshold),
    "LeakyRelu": lambda node, z: functional.leaky_relu(z, node._saved_negative_slope),
    "Hardtanh": lambda node, z: functional.hardtanh(z, node._saved_min_val, node._saved_max_val),
    "Elu": lambda node, z: node._saved_scale * functional.elu(z, node._saved_alpha),
    "Celu": lambda node, z: functional.celu(z, node._saved_alpha),
    "Gelu": lambda node, z: functional.gelu(z, approximate=node._saved_approximate),
    "Silu": lambda _, z: functional.silu(z),
    "Mish": lambda _, z: functional.mish(z),
    "Hardswish": lambda _, z: functional.hardswish(z),
}
