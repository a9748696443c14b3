"""Compiled kernels of MPN sequences: forward, and backward through time.

The modulations have the layout (batch, d, n) here. The neurons n are the innermost axis, because the processor works on
several neighboring numbers at once and n is usually much larger than d. The loops compute the equations of `rule.py`
for one sample at a time, so that its numbers stay in the fastest cache. The tests compare both. Numbers in the loops
have the type of the arrays: a literal 1 would turn float32 into float64.

`gain` is eta times the factor of the association: 1, 1/sqrt(n) for "pre" and 1/sqrt(d) for "post".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import Kernels, part

HEBBIAN, PRE, POST = 0, 1, 2
"""The associations, in the order of `rule.Plasticity`."""
TANH, RELU, SIGMOID, LINEAR = 0, 1, 2, 3
"""The activations, in the order of `rule.Activation`."""

Array = NDArray[Any]

kernel = Kernels(Path(__file__).parent).kernel


@part
def modulated_sum(x: Array, M: Array, W: Array, b: Array, additive: bool, a: Array) -> None:
    """Write b + (W * (M + 1)) x, or b + (W + M) x, of one sample into a (n,); x (d,), M and W (d, n)."""
    a[:] = b
    for j in range(x.shape[0]):
        xj = x[j]
        if additive:
            for i in range(a.shape[0]):
                a[i] += (W[j, i] + M[j, i]) * xj
        else:
            for i in range(a.shape[0]):
                drive = W[j, i] * xj
                a[i] += drive + drive * M[j, i]


@part
def modulate(x: Array, h: Array, M: Array, gain: Any, lambda_: Any, association: int, bound: Any, new: Array) -> None:
    """Write lambda M + eta (association of h and x) of one sample, clipped to +-bound, into `new` (d, n) or M."""
    for j in range(x.shape[0]):
        if association == HEBBIAN:
            side = gain * x[j]
            for i in range(h.shape[0]):
                new[j, i] = lambda_ * M[j, i] + side * h[i]
        elif association == PRE:
            side = gain * x[j]
            for i in range(h.shape[0]):
                new[j, i] = lambda_ * M[j, i] + side
        else:
            for i in range(h.shape[0]):
                new[j, i] = lambda_ * M[j, i] + gain * h[i]
        if bound < np.inf:
            for i in range(h.shape[0]):
                new[j, i] = min(max(new[j, i], -bound), bound)


@part
def slopes(h: Array, activation: int, out: Array) -> None:
    """Multiply `out` (n,) by f'(a) as a function of h = f(a)."""
    for i in range(h.shape[0]):
        if activation == TANH:
            out[i] -= out[i] * h[i] * h[i]
        elif activation == RELU:
            if not h[i] > 0:
                out[i] -= out[i]
        elif activation == SIGMOID:
            out[i] *= h[i] - h[i] * h[i]


@kernel
def first_sums(x: Array, M: Array, starts: Array, W: Array, b: Array, additive: bool, a: Array) -> None:
    """Write the preactivations of a sequence's first step: x (B, d), M (B, d, n), starts (B,), a (B, n).

    M of a sample that starts an episode is set to 0.
    """
    for sample in range(x.shape[0]):
        if starts[sample]:
            M[sample] = 0
        modulated_sum(x[sample], M[sample], W, b, additive, a[sample])


@kernel
def next_sums(
    x: Array,
    h: Array,
    M: Array,
    new: Array,
    following: Array,
    starts: Array,
    W: Array,
    b: Array,
    gain: Any,
    lambda_: Any,
    association: int,
    bound: Any,
    additive: bool,
    a: Array,
) -> None:
    """Update the modulations by x and h, and write the preactivations of the next input.

    x (B, d), h (B, n) and M (B, d, n) belong to this step. following (B, d), starts (B,), `new` (B, d, n) and a (B, n)
    belong to the next step; `new` and a are written.
    """
    for sample in range(x.shape[0]):
        if starts[sample]:
            new[sample] = 0
        else:
            modulate(x[sample], h[sample], M[sample], gain, lambda_, association, bound, new[sample])
        modulated_sum(following[sample], new[sample], W, b, additive, a[sample])


@kernel
def last_modulations(
    x: Array, h: Array, M: Array, new: Array, gain: Any, lambda_: Any, association: int, bound: Any
) -> None:
    """Write the modulations after the last step into `new` (B, d, n)."""
    for sample in range(x.shape[0]):
        modulate(x[sample], h[sample], M[sample], gain, lambda_, association, bound, new[sample])


@kernel
def backward(
    x: Array,
    h: Array,
    M: Array,
    starts: Array,
    W: Array,
    gain: Any,
    lambda_: Any,
    association: int,
    bound: Any,
    activation: int,
    additive: bool,
    dh: Array,
    dM: Array,
    dx: Array,
    dW: Array,
    db: Array,
    dscalars: Array,
) -> None:
    """Backpropagate through time, one sample after the other.

    x (T, B, d), h (T, B, n), starts (T, B). M (T + 1, B, d, n): the modulations that each step used, and those after
    the last step. A modulation at its bound passes no gradient on. dh (T, B, n) is the gradient of the activities and
    is overwritten. dM (B, d, n) is the gradient of the last modulations and becomes that of the first ones. The
    gradients are added to dx (T, B, d), dW (d, n), db (n,) and dscalars, which holds those of gain and lambda.
    """
    steps, samples, inputs = x.shape
    units = h.shape[2]
    for sample in range(samples):
        D = dM[sample]
        for back in range(steps):
            t = steps - 1 - back
            used, activity, incoming, drive = M[t, sample], h[t, sample], x[t, sample], dh[t, sample]
            if bound < np.inf:
                reached = M[t + 1, sample]
                for j in range(inputs):
                    for i in range(units):
                        if abs(reached[j, i]) >= bound:
                            D[j, i] -= D[j, i]
            # M_t = lambda M_{t-1} + eta (association): to h, x, eta and lambda
            for j in range(inputs):
                of_gain = gain - gain
                of_lambda = gain - gain
                xj = incoming[j]
                if association == HEBBIAN:
                    side = gain * xj
                    for i in range(units):
                        of_gain += D[j, i] * activity[i]
                        of_lambda += D[j, i] * used[j, i]
                        drive[i] += side * D[j, i]
                    dx[t, sample, j] += gain * of_gain
                    dscalars[0] += xj * of_gain
                elif association == PRE:
                    for i in range(units):
                        of_gain += D[j, i]
                        of_lambda += D[j, i] * used[j, i]
                    dx[t, sample, j] += gain * of_gain
                    dscalars[0] += xj * of_gain
                else:
                    for i in range(units):
                        of_gain += D[j, i] * activity[i]
                        of_lambda += D[j, i] * used[j, i]
                        drive[i] += gain * D[j, i]
                    dscalars[0] += of_gain
                dscalars[1] += of_lambda
            # h_t = f(b + (W * (M_{t-1} + 1)) x_t): to W, b, x and M_{t-1}
            slopes(activity, activation, drive)
            for i in range(units):
                db[i] += drive[i]
            for j in range(inputs):
                xj = incoming[j]
                of_x = gain - gain
                if additive:
                    for i in range(units):
                        g = drive[i] * xj
                        of_x += drive[i] * (W[j, i] + used[j, i])
                        dW[j, i] += g
                        D[j, i] = lambda_ * D[j, i] + g
                else:
                    for i in range(units):
                        g = drive[i] * xj
                        e = drive[i] * W[j, i]
                        of_x += e + e * used[j, i]
                        dW[j, i] += g + g * used[j, i]
                        D[j, i] = lambda_ * D[j, i] + W[j, i] * g
                dx[t, sample, j] += of_x
            if starts[t, sample]:
                # Earlier steps belong to another episode.
                D[:] = 0
