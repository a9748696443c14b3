"""The torch functions that multiply activity by a matrix of weights, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["linear", "convolution", "transposed convolution", "matmul", "embedding"]

_CONVOLUTIONS: dict[Callable[..., Any], tuple[int, bool]] = {
    torch.conv1d: (1, False),
    torch.conv2d: (2, False),
    torch.conv3d: (3, False),
    functional.conv_transpose1d: (1, True),
    functional.conv_transpose2d: (2, True),
    functional.conv_transpose3d: (3, True),
}
WITH_SUMMAND = frozenset({"addmm", "baddbmm", "addbmm", "addmv"})
"""Names of functions that add their first argument to a product."""
BILINEAR = WITH_SUMMAND | {
    *("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "einsum", "bilinear", "tensordot", "inner", "dot"),
    *("multi_dot", "chain_matmul"),
}
"""Names of functions that are linear in activity and in weights, in addition to those of `product_of`."""
_ORDER = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_ORDER = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_MATMULS = (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__)


@dataclass(frozen=True)
class Product:
    """One call z = f(x, weight, bias) of a torch function that multiplies activity by weights.

    kind: decides the shapes. "linear": x (..., in), weight (out, in). "matmul": x (..., in), weight (in, out).
    "convolution": x (batch, in, positions), weight (out, in / groups, kernel). "transposed convolution": weight (in,
    out / groups, kernel). "embedding": x holds integers (...), weight (entries, out). z has the units in dimension
    `unit_dimension`. options: stride, padding and similar options of the function.
    """

    function: Callable[..., Any]
    kind: Kind
    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit_dimension(self) -> int:
        """The dimension of z that holds the units of the layer."""
        return 1 if "convolution" in self.kind else -1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return z for other activity, weights and biases."""
        z: Tensor
        if self.kind == "embedding":
            z = self.function(x, weight, **self.options)
        elif self.kind == "matmul":
            z = torch.matmul(x, weight)
            return z if bias is None else z + bias
        else:
            z = self.function(x, weight, bias, **self.options)
        return z

    def gradients(
        self, error: Tensor, weight: Tensor, needed: tuple[bool, bool, bool] = (True, True, True)
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the products of `error` with the derivatives of z with respect to x, weight and bias.

        error: in the shape of z. weight: the weights that carry the error to x, in the shape of the product's own; the
        derivatives with respect to weight and bias do not depend on it. needed: which of the three to compute.
        """
        of_bias = needed[2] and self.bias is not None
        if self.kind == "linear":
            rows = error.flatten(0, -2) if error.ndim > 1 else error[None]
            inputs = self.x.flatten(0, -2) if self.x.ndim > 1 else self.x[None]
            return (
                error @ weight if needed[0] else None,
                rows.T @ inputs if needed[1] else None,
                rows.sum(0) if of_bias else None,
            )
        if "convolution" in self.kind:
            found = self._gradients_of_convolution(error, weight, (needed[0], needed[1], of_bias))
            if found is not None:
                return found
        return self._gradients_by_autograd(error, weight, needed)

    def _gradients_of_convolution(
        self, error: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None] | None:
        """One call for all three; None where torch's function does not take the options as numbers."""
        spatial = weight.ndim - 2
        batched = self.x.ndim == weight.ndim
        padding = self._padding(spatial)
        if padding is None:
            return None
        x, error = (self.x, error) if batched else (self.x[None], error[None])
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            error,
            x,
            weight,
            [self.bias.numel()] if self.bias is not None else None,
            _numbers(self.options.get("stride", 1), spatial),
            padding,
            _numbers(self.options.get("dilation", 1), spatial),
            self.kind == "transposed convolution",
            _numbers(self.options.get("output_padding", 0), spatial),
            self.options.get("groups", 1),
            needed,
        )
        return of_x if batched or of_x is None else of_x[0], of_weight, of_bias

    def _padding(self, spatial: int) -> list[int] | None:
        given = self.options.get("padding", 0)
        if given == "valid":
            return [0] * spatial
        if given == "same":
            dilation = _numbers(self.options.get("dilation", 1), spatial)
            totals = [d * (size - 1) for d, size in zip(dilation, self.weight.shape[2:], strict=True)]
            # An odd total is padded more on one side, which is a function of its own.
            return None if any(total % 2 for total in totals) else [total // 2 for total in totals]
        return _numbers(given, spatial)

    def _gradients_by_autograd(
        self, error: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        of_x = None
        if needed[0] and self.x.is_floating_point():
            with torch.enable_grad():
                x = self.x.detach().requires_grad_()
                z = self.apply(x, weight.detach())
            (of_x,) = torch.autograd.grad(z, x, error)
        of_weight = of_bias = None
        if needed[1] or needed[2]:
            with torch.enable_grad():
                own = self.weight.detach().requires_grad_()
                bias = None if self.bias is None else self.bias.detach().requires_grad_()
                z = self.apply(self.x.detach(), own, bias)
            of_weight, *of_biases = torch.autograd.grad(z, [own] if bias is None else [own, bias], error)
            of_bias = of_biases[0] if of_biases else None
        return of_x, of_weight if needed[1] else None, of_bias if needed[2] else None


def product_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product | None:
    """Return the call of a torch function as a product of activity and weights; None if it is not one.

    A matrix product counts if its second factor is a matrix; whether this is a matrix of weights is left to the caller.
    """
    if function is functional.linear:
        given = _named(("input", "weight", "bias"), args, kwargs)
        return Product(function, "linear", given["input"], given["weight"], given.get("bias"))
    if function in _CONVOLUTIONS:
        transposed = _CONVOLUTIONS[function][1]
        given = _named(_TRANSPOSED_ORDER if transposed else _ORDER, args, kwargs)
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        return Product(function, "transposed convolution" if transposed else "convolution", x, weight, bias, given)
    if function is functional.embedding:
        order = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
        given = _named(order, args, kwargs)
        return Product(function, "embedding", given.pop("input"), given.pop("weight"), None, given)
    if function in _MATMULS and len(args) == 2 and not kwargs and args[1].ndim == 2:
        return Product(function, "matmul", args[0], args[1])
    if function is torch.addmm and len(args) == 3 and not kwargs and args[0].ndim == 1:
        return Product(function, "matmul", args[1], args[2], args[0])
    return None


def _named(order: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(order, args, strict=False)), **kwargs}


def _numbers(value: Any, count: int) -> list[int]:
    """Return one number for each spatial dimension, from one number or several."""
    if isinstance(value, int):
        return [value] * count
    found = [int(number) for number in value]
    return found * count if len(found) == 1 else found
