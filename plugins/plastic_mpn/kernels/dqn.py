"""Compiled kernels of one gradient step of Q-learning with stored states, for a single MPN layer and a linear head.

The kernels read the arrays of the replay buffer one sample at a time, so that nothing is gathered or copied. Layouts: W
and M (d, n), head A (actions, n). Between the kernels, torch computes the activation function.
"""

from __future__ import annotations

import math
from typing import Any

from plastic_cli.numerics.kernels import part
from plastic_mpn.kernels.sequence import (
    RELU,
    SIGMOID,
    TANH,
    Array,
    kernel,
    modulate,
    modulated_sum,
    slopes,
)


@part
def _value(A: Array, c: Any, h: Array) -> Any:
    """Return one action's Q-value: A and h (n,)."""
    q = c
    for i in range(h.shape[0]):
        q += A[i] * h[i]
    return q


@part
def _best(A: Array, c: Array, h: Array) -> int:
    """Return the first action with the largest Q-value: A (actions, n), c (actions,), h (n,)."""
    best = 0
    largest = _value(A[0], c[0], h)
    for action in range(1, A.shape[0]):
        q = _value(A[action], c[action], h)
        if q > largest:
            best, largest = action, q
    return best


@kernel
def act(
    x: Array,
    M: Array,
    starts: Array,
    W: Array,
    b: Array,
    A: Array,
    c: Array,
    gain: Any,
    lambda_: Any,
    association: int,
    bound: Any,
    activation: int,
    additive: bool,
    h: Array,
    new: Array,
    best: Array,
) -> None:
    """Write the best action of every environment (count,) and the states after the step, `new` (count, d, n).

    M (count, d, n) is set to 0 if an episode starts. The activity is written to h (count, n).
    """
    for sample in range(x.shape[0]):
        if starts[sample]:
            M[sample] = 0
        activity = h[sample]
        modulated_sum(x[sample], M[sample], W, b, additive, activity)
        for i in range(activity.shape[0]):
            if activation == TANH:
                activity[i] = math.tanh(activity[i])
            elif activation == RELU:
                activity[i] = max(activity[i], activity[i] - activity[i])
            elif activation == SIGMOID:
                activity[i] = 1 / (1 + math.exp(-activity[i]))
        modulate(x[sample], activity, M[sample], gain, lambda_, association, bound, new[sample])
        best[sample] = _best(A, c, activity)


@kernel
def present_sums(x: Array, M: Array, chosen: Array, W: Array, b: Array, additive: bool, a: Array) -> None:
    """Write the preactivations a (B, n) of the chosen transitions; x (N, d) and M (N, d, n) are the replay buffer."""
    for sample in range(chosen.shape[0]):
        modulated_sum(x[chosen[sample]], M[chosen[sample]], W, b, additive, a[sample])


@kernel
def next_sums(
    x: Array,
    next_x: Array,
    M: Array,
    chosen: Array,
    h: Array,
    W: Array,
    b: Array,
    target_W: Array,
    target_b: Array,
    gain: Any,
    lambda_: Any,
    association: int,
    bound: Any,
    additive: bool,
    new: Array,
    a: Array,
) -> None:
    """Write the preactivations of the next observations, with the state that follows from h (B, n).

    Those of the network and of the target network are written to a (2, B, n). new (d, n) is scratch memory.
    """
    for sample in range(chosen.shape[0]):
        row = chosen[sample]
        modulate(x[row], h[sample], M[row], gain, lambda_, association, bound, new)
        modulated_sum(next_x[row], new, W, b, additive, a[0, sample])
        modulated_sum(next_x[row], new, target_W, target_b, additive, a[1, sample])


@kernel
def gradient(
    x: Array,
    M: Array,
    chosen: Array,
    actions: Array,
    rewards: Array,
    terminated: Array,
    h: Array,
    next_h: Array,
    A: Array,
    c: Array,
    target_A: Array,
    target_c: Array,
    gamma: Any,
    double: bool,
    activation: int,
    additive: bool,
    drive: Array,
    dW: Array,
    db: Array,
    dA: Array,
    dc: Array,
) -> Any:
    """Return the mean Huber loss of the temporal-difference errors and write its gradient.

    The value of the next state is the target network's Q-value of one action: the best action of the network (double
    Q-learning) or of the target network. h (B, n), next_h (2, B, n). drive (n,) is scratch memory.
    """
    dW[:] = 0
    db[:] = 0
    dA[:] = 0
    dc[:] = 0
    batch = chosen.shape[0]
    share = 1 / batch
    loss = 0.0
    for sample in range(batch):
        row = chosen[sample]
        action = actions[row]
        target = rewards[row]
        if not terminated[row]:
            after = next_h[1, sample]
            preferred = _best(A, c, next_h[0, sample]) if double else _best(target_A, target_c, after)
            target += gamma * _value(target_A[preferred], target_c[preferred], after)
        error = _value(A[action], c[action], h[sample]) - target
        size = abs(error)
        loss += 0.5 * size * size if size <= 1 else size - 0.5
        g = A.dtype.type(min(max(error, -1.0), 1.0) * share)
        dc[action] += g
        for i in range(drive.shape[0]):
            dA[action, i] += g * h[sample, i]
            drive[i] = g * A[action, i]
        slopes(h[sample], activation, drive)
        for i in range(drive.shape[0]):
            db[i] += drive[i]
        for j in range(x.shape[1]):
            xj = x[row, j]
            if additive:
                for i in range(drive.shape[0]):
                    dW[j, i] += drive[i] * xj
            else:
                for i in range(drive.shape[0]):
                    part = drive[i] * xj
                    dW[j, i] += part + part * M[row, j, i]
    return loss * share


@kernel
def clipped_adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    updates: int,
    rate: float,
    clip: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Clip the gradient g to the norm `clip`, and take step number `updates` of Adam (Kingma & Ba 2015)."""
    squares = 0.0
    for i in range(g.shape[0]):
        squares += g[i] * g[i]
    norm = math.sqrt(squares)
    factor = p.dtype.type(min(1.0, clip / (norm + 1e-6)))
    first, second = p.dtype.type(beta1), p.dtype.type(beta2)
    to_first, to_second = p.dtype.type(1 - beta1), p.dtype.type(1 - beta2)
    size = p.dtype.type(rate / (1 - beta1**updates))
    correction = p.dtype.type(1 / math.sqrt(1 - beta2**updates))
    tiny = p.dtype.type(eps)
    for i in range(p.shape[0]):
        gi = g[i] * factor
        m[i] = first * m[i] + to_first * gi
        v[i] = second * v[i] + to_second * gi * gi
        p[i] -= size * m[i] / (math.sqrt(v[i]) * correction + tiny)
