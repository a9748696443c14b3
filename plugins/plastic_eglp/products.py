"""The product of activities that changes the weights of a layer, with the bits of torch's default on any processor.

torch multiplies float32 matrices on the CPU with MKL, which does not use AVX-512 on processors of AMD. oneDNN, which is
part of torch too, does. Both add the terms of a sum one after the other, but MKL ends a sum after 192 terms and begins
another one. Where oneDNN ends its sums there too (`_terms`), the bits are the same.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

MOST_TERMS = 192
"""The largest number of terms in a sum of MKL."""
FEWEST_UNITS = 16
"""With fewer stimuli, inputs or outputs MKL adds in another order."""
FEWEST_TERMS = 2**23
"""Number of terms of all sums below which oneDNN is not faster."""


def add_products(target: Tensor, post: Tensor, x: Tensor, scale: float) -> None:
    """Add scale times the sum over stimuli of post x^T to target (out, in). post (n, out), x (n, in)."""
    if _is_faster(target, post, x):
        _add_products(target, post, x, scale)
    else:
        target.addmm_(post.T, x, alpha=scale)


def _add_products(target: Tensor, post: Tensor, x: Tensor, scale: float) -> None:
    """Compute `add_products` by oneDNN, in the order of MKL."""
    terms = _terms(len(x))
    for outputs, inputs in zip(post.split(terms), (x * scale).split(terms), strict=True):
        target.add_(torch.ops.mkldnn._linear_pointwise(outputs.T, inputs.T, None, "none", [], ""))


def _terms(number: int) -> int:
    """Return after how many of `number` terms MKL ends a sum."""
    if number <= MOST_TERMS:
        return number
    return number // 2 if number < 2 * MOST_TERMS else MOST_TERMS


def _is_faster(target: Tensor, *factors: Tensor) -> bool:
    sizes = (len(factors[0]), *target.shape)
    return (
        sizes[0] * sizes[1] * sizes[2] >= FEWEST_TERMS
        and min(sizes) >= FEWEST_UNITS
        and all(tensor.dtype == torch.float32 and tensor.is_cpu for tensor in (target, *factors))
        and _has_same_bits()
    )


@functools.cache
def _has_same_bits() -> bool:
    """Return whether this processor has AVX-512, and oneDNN gives the same bits as torch's default."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    target, post, x, scale = draw(48, 64), draw(200, 48), draw(200, 64), 0.3
    expected = target.addmm(post.T, x, alpha=scale)
    try:
        _add_products(target, post, x, scale)
    except (AttributeError, RuntimeError):  # an operation that this version of torch has not
        return False
    return torch.equal(target, expected)
