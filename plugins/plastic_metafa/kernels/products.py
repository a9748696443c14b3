"""The vector and matrix products of the kernels, and the vectors a, b and c of one update."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import Kernels, part

Array = NDArray[Any]

FIXED, SYMMETRIC, DIRECT, SIGN = range(4)
"""The feedback: B, W itself, B from the output, |B| with the signs of W."""

kernel = Kernels(Path(__file__).parent).kernel

BETA = 10.0


@part
def unit_offsets(sizes: Array) -> Array:
    """Return the index of the first unit of each layer in an array of all units, (layers + 1,)."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    for l in range(len(sizes)):
        offsets[l + 1] = offsets[l] + sizes[l]
    return offsets


@part
def weight_offsets(sizes: Array) -> Array:
    """Return the index of the first weight of each layer in an array of all weights; entry 0 is layer 1."""
    offsets = np.zeros(len(sizes), np.int64)
    for l in range(1, len(sizes)):
        offsets[l] = offsets[l - 1] + sizes[l] * sizes[l - 1]
    return offsets


@part
def dot(x: Array, y: Array) -> Any:
    """Return x . y."""
    total = x[0] * y[0]
    for i in range(1, len(x)):
        total += x[i] * y[i]
    return total


@part
def respond(W: Array, x: Array, z: Array) -> None:
    """Add W x to z."""
    for i in range(W.shape[0]):
        row = W[i]
        total = z[i]
        for j in range(len(x)):
            total += row[j] * x[j]
        z[i] = total


@part
def send_back(W: Array, e: Array, u: Array) -> None:
    """Add W^T e to u."""
    for i in range(W.shape[0]):
        row, factor = W[i], e[i]
        for j in range(len(u)):
            u[j] += factor * row[j]


@part
def send_back_signed(B: Array, W: Array, e: Array, u: Array) -> None:
    """Add (|B| sign W)^T e to u."""
    for i in range(W.shape[0]):
        magnitudes, signs, factor = B[i], W[i], e[i]
        for j in range(len(u)):
            u[j] += factor * math.copysign(magnitudes[j], signs[j])


@part
def respond_signed(B: Array, W: Array, x: Array, z: Array) -> None:
    """Add (|B| sign W) x to z."""
    for i in range(W.shape[0]):
        magnitudes, signs = B[i], W[i]
        total = z[i]
        for j in range(len(x)):
            total += math.copysign(magnitudes[j], signs[j]) * x[j]
        z[i] = total


@part
def add_product(W: Array, e: Array, a: Array, sign: float) -> None:
    """Add sign e a^T to W."""
    for i in range(W.shape[0]):
        row, factor = W[i], sign * e[i]
        for j in range(len(a)):
            row[j] += factor * a[j]


@part
def factors(
    y1: Array, y0: Array, z1: Array, e1: Array, e0: Array, v: Array, theta: Array, a: Array, b: Array, c: Array
) -> tuple[Any, Any, Any, Any, Any]:
    """Write a, b and c of one layer; return s, kappa, zeta, and the factors of y' in -a and of e' in -b."""
    kappa = dot(v, e0)
    zeta = dot(z1, e1)
    s = y1[0]
    for k in range(1, len(y1)):
        s += y1[k]
    alpha = theta[0] + theta[5] * s + theta[7] * kappa
    gamma = theta[1] + theta[6] * kappa + theta[8] * zeta
    for j in range(len(a)):
        a[j] = -alpha * y0[j] - theta[2] * e0[j]
        b[j] = -gamma * e0[j] + theta[9] * (y0[j] - v[j])
        c[j] = -theta[4] * e0[j]
    return s, kappa, zeta, alpha, gamma
