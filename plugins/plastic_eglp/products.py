"""The product that changes the weights of a layer, with the bits of torch's default on any processor, faster on some.

torch multiplies float32 matrices on the CPU with MKL, which does not use AVX-512 on every processor that has it.
oneDNN, which is part of torch too, does. Both add the terms of a sum one after the other, but MKL ends a sum after 192
terms and begins another one. Where oneDNN ends its sums there too (`_terms`), the bits are the same. With four threads
or more, MKL computes a few columns of some matrices in another order. So oneDNN is used only where a trial gives the
same bits, on this machine, with these threads and for this size of the weights. In the forward pass it would save no
time, because its sums have more terms.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

MOST_TERMS = 192
"""The largest number of terms in a sum of MKL."""
FEWEST_UNITS = 16
"""With fewer stimuli, inputs or outputs MKL adds in another order."""
FEWEST_TERMS = 6_000_000
"""Number of terms of all sums below which oneDNN is not faster."""
STIMULI_OF_TRIAL = (128, 200, 448)
"""Numbers of stimuli in a trial: MKL adds them in one sum, in two halves, and in sums of 192 and a rest."""


def add_products(target: Tensor, post: Tensor, x: Tensor, scale: float) -> None:
    """Add scale times the sum over stimuli of post x^T to target (out, in). post (n, out), x (n, in)."""
    if _is_faster(target, post, x):
        _add_products(target, post, x, scale)
    else:
        target.addmm_(post.T, x, alpha=scale)


def _add_products(target: Tensor, post: Tensor, x: Tensor, scale: float) -> None:
    """Compute `add_products` by oneDNN, in the order of MKL."""
    # MKL rounds after this product too. The copy of post is worth its time.
    outputs, inputs = post.T.contiguous(), (x * scale).T
    stimuli = outputs.shape[1]
    terms = _terms(stimuli)
    if terms == stimuli:
        target.add_(_product(outputs, inputs))
        return
    for first in range(0, stimuli, terms):
        target.add_(_product(outputs[:, first : first + terms], inputs[:, first : first + terms]))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return left right^T by oneDNN."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


def _terms(number: int) -> int:
    """Return after how many of `number` terms MKL ends a sum."""
    if number <= MOST_TERMS:
        return number
    return number // 2 if number < 2 * MOST_TERMS else MOST_TERMS


def _is_faster(target: Tensor, post: Tensor, x: Tensor) -> bool:
    stimuli, (units, inputs) = x.shape[0], target.shape
    return (
        stimuli * units * inputs >= FEWEST_TERMS
        and min(stimuli, units, inputs) >= FEWEST_UNITS
        and all(tensor.dtype == torch.float32 and tensor.is_cpu for tensor in (target, post, x))
        and _has_same_bits(units, inputs, torch.get_num_threads())
    )


@functools.cache
def _has_same_bits(units: int, inputs: int, threads: int) -> bool:  # noqa: ARG001
    """Return whether this processor has AVX-512, and oneDNN gives the bits of torch's default for weights of this size.

    threads: those of torch, with which the trial is made.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    most = max(STIMULI_OF_TRIAL)
    target, post, x = (
        torch.randn(shape, generator=generator) for shape in ((units, inputs), (most, units), (most, inputs))
    )
    try:
        return all(_agree(target, post[:stimuli], x[:stimuli]) for stimuli in STIMULI_OF_TRIAL)
    except (AttributeError, RuntimeError):  # an operation that this version of torch has not
        return False


def _agree(target: Tensor, post: Tensor, x: Tensor) -> bool:
    found = target.clone()
    _add_products(found, post, x, 0.3)
    return torch.equal(found, target.addmm(post.T, x, alpha=0.3))
