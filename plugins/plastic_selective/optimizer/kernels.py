"""Compiled kernels of the gated updates. Each makes two passes over memory: for the maxima, then for the update.

They compute the equations of `rule.py` on stretches of contiguous float32 numbers; the tests compare the two. Threads
can work on stretches of a tensor at the same time, since only the maxima are shared.

The maxima are taken over the bits of |x|, read as integers. For numbers without a sign the order is the same, NaN is
the largest instead of being lost, and the compiler can compare several numbers at once.

Kernels take the addresses of tensors, because making an array of a tensor takes longer than updating a small one. The
caller must guarantee that `stop` numbers lie there. max(x, LOWEST) and min(x, ONE), in this order, keep a NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import Kernels, part

BLOCK = 4096
"""Numbers per block: two blocks fit into the first-level cache."""
WITHOUT_SIGN = np.int32(0x7FFFFFFF)
LOWEST = np.float32(0.1)
ONE = np.float32(1)
ZERO = np.float32(0)
TINY = np.finfo(np.float32).tiny
BYTES = 4

Array = NDArray[Any]

kernel = Kernels(Path(__file__)).kernel


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
    """Return an address, an integer, as a pointer to float32 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(address), generate  # type: ignore[no-untyped-call]


@part
def stretch_of(address: int, start: int, stop: int) -> Array:
    """Return the numbers start, ..., stop - 1 of the tensor at `address` as an array (stop - start,) without a copy."""
    first: Any = pointer(address + BYTES * start)  # type: ignore[call-arg]
    return carray(first, stop - start)


@part
def largest_bits(x: Array) -> Any:
    """Return the largest of the bits of |x|."""
    bits = x.view(np.int32)
    largest = np.int32(0)
    for i in range(len(bits)):
        largest = max(largest, bits[i] & WITHOUT_SIGN)
    return largest


@part
def one_over(bits: int, eps: float) -> Any:
    """Return 1 / max(x, eps) for the number x with these bits; NaN for NaN."""
    return ONE / max(np.int32(bits).view(np.float32), max(np.float32(eps), TINY))


@kernel
def trace_and_maxima(g: int, e: int, decay: float, start: int, stop: int) -> Any:
    """Update the trace e from |g|. Return the bits of the largest e and of the largest |g| of the stretch."""
    # 1 - decay is computed before rounding, as in torch. After rounding, 1 - 0.999 would lose four of seven digits.
    kept, added = np.float32(decay), np.float32(1 - decay)
    largest_e, largest_g = np.int32(0), np.int32(0)
    for low in range(start, stop, BLOCK):
        g_, e_ = stretch_of(g, low, min(low + BLOCK, stop)), stretch_of(e, low, min(low + BLOCK, stop))
        for i in range(len(e_)):
            e_[i] = kept * e_[i] + added * abs(g_[i])
        largest_e = max(largest_e, largest_bits(e_))
        largest_g = max(largest_g, largest_bits(g_))
    return largest_e, largest_g


@kernel
def gated_sgd(
    p: int,
    g: int,
    e: int,
    lr: float,
    strength: float,
    warmth: float,
    eps: float,
    largest_e: int,
    largest_g: int,
    start: int,
    stop: int,
) -> None:
    """Update p in place: p <- p - lr gate g, the gate from the trace e and from |g|.

    strength: k / 10. warmth: strength of the gate in the warm-up, 0 to 1. largest_e, largest_g: bits of the maxima.
    """
    p_, g_, e_ = stretch_of(p, start, stop), stretch_of(g, start, stop), stretch_of(e, start, stop)
    rate, k, warm = np.float32(lr), np.float32(strength), np.float32(warmth)
    per_e, per_g = one_over(largest_e, eps), one_over(largest_g, eps)
    for i in range(len(p_)):
        gate = ONE - k * (e_[i] * per_e) * (ONE - abs(g_[i]) * per_g)
        gate = min(max(gate, LOWEST), ONE)
        p_[i] -= rate * (ONE - warm * (ONE - gate)) * g_[i]


@kernel
def second_moment_and_maximum(g: int, v: int, decay: float, start: int, stop: int) -> Any:
    """Update Adam's second moment v from g squared. Return the bits of the largest |g| of the stretch."""
    kept, added = np.float32(decay), np.float32(1 - decay)
    largest_g = np.int32(0)
    for low in range(start, stop, BLOCK):
        g_, v_ = stretch_of(g, low, min(low + BLOCK, stop)), stretch_of(v, low, min(low + BLOCK, stop))
        for i in range(len(v_)):
            v_[i] = kept * v_[i] + added * g_[i] * g_[i]
        largest_g = max(largest_g, largest_bits(g_))
    return largest_g


@kernel
def gated_adam(
    p: int,
    g: int,
    m: int,
    v: int,
    size: float,
    decay: float,
    per_bias: float,
    eps: float,
    strength: float,
    warmth: float,
    threshold: float,
    largest_g: int,
    start: int,
    stop: int,
) -> None:
    """Update m and p in place: p <- p - size gate m / (sqrt(v) per_bias + eps).

    size: learning rate / bias of m. decay: of the first moment. per_bias: 1 / sqrt(bias of v). strength: k / 10.
    warmth: strength of the gate in the warm-up, 0 to 1. threshold: of v. largest_g: bits of the maximum.
    """
    p_, g_ = stretch_of(p, start, stop), stretch_of(g, start, stop)
    m_, v_ = stretch_of(m, start, stop), stretch_of(v, start, stop)
    rate, follow, k, warm = np.float32(size), np.float32(1 - decay), np.float32(strength), np.float32(warmth)
    root, floor, busy_above = np.float32(per_bias), np.float32(eps), np.float32(threshold)
    per_g = one_over(largest_g, eps)
    idle = ONE + ZERO * per_g  # 1, or NaN if the equations contain 0 * NaN
    for i in range(len(p_)):
        m_[i] += follow * (g_[i] - m_[i])
        gate = min(max(ONE - k * (ONE - abs(g_[i]) * per_g), LOWEST), ONE)
        factor = ONE - warm * (ONE - gate) if v_[i] > busy_above else idle
        p_[i] -= rate * factor * m_[i] / (np.sqrt(v_[i]) * root + floor)
