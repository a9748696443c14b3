"""Compiled kernels for the small operations of a batch, in float32 on the CPU.

`update_readout` is the delta rule of a supervised readout with Adam's step. `direct_tanh` is the postsynaptic factor of
tanh units with direct feedback. Both work on few numbers, for which the overhead of tensor operations would dominate.
`learner.py` and `rule.py` contain the same computations as tensor operations; tests compare the two.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.numerics.kernels import Kernels

kernel = Kernels(Path(__file__).parent, ("kernels.py",)).kernel

Array = NDArray[Any]
ONE = np.float32(1)
ZERO = np.float32(0)
ALL = np.ones(1, np.float32)
"""Strength of an event that is the same for all stimuli."""
NONE = np.empty(0, np.float32)
"""Bias of a layer without a bias."""


def compilable(activity: Tensor) -> bool:
    """Return whether the kernels apply to a layer with this activity: float32 on the CPU."""
    return activity.dtype == torch.float32 and activity.is_cpu


def adam_step(optimizer: torch.optim.Adam, h: Tensor, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the step of `optimizer`, whose parameters are those of a linear readout, for the loss of a batch.

    The loss is the mean cross-entropy. h (n, units), logits (n, classes), y (n,). Returns each stimulus' cross-entropy
    (n,) and softmax minus one-hot (n, classes).
    """
    (group,) = optimizer.param_groups
    parameters = group["params"]
    if not optimizer.state:
        for parameter in parameters:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    states = [optimizer.state[parameter] for parameter in parameters]
    losses, error = torch.empty(len(y)), torch.empty_like(logits)
    (W, b), (state_W, state_b) = parameters, states
    update_readout(  # type: ignore[call-arg]
        logits.numpy(),
        y.numpy(),
        h.numpy(),
        W.detach().numpy(),
        b.detach().numpy(),
        state_W["exp_avg"].numpy(),
        state_b["exp_avg"].numpy(),
        state_W["exp_avg_sq"].numpy(),
        state_b["exp_avg_sq"].numpy(),
        state_W["step"].numpy(),
        state_b["step"].numpy(),
        group["lr"],
        *group["betas"],
        group["eps"],
        losses.numpy(),
        error.numpy(),
    )
    return losses, error


@kernel
def update_readout(
    logits: Array,
    y: Array,
    h: Array,
    W: Array,
    b: Array,
    mean_W: Array,
    mean_b: Array,
    square_W: Array,
    square_b: Array,
    steps_W: Array,
    steps_b: Array,
    lr: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    losses: Array,
    error: Array,
) -> None:
    """Apply Adam's step (Kingma & Ba 2015) to a linear readout, for the mean cross-entropy of a batch.

    logits (n, classes) of hidden activity h (n, units), labels y (n,). Changes W (classes, units), b (classes,), Adam's
    running means of the gradient and of its square, and its step counts (). Writes each stimulus' cross-entropy to
    `losses` (n,) and softmax minus one-hot to `error` (n, classes).
    """
    n, classes = logits.shape
    units = h.shape[1]
    gradient_W = np.zeros_like(W)
    gradient_b = np.zeros_like(b)
    share = ONE / np.float32(n)
    for s in range(n):
        top = logits[s, 0]
        for c in range(1, classes):
            top = max(top, logits[s, c])
        total = ZERO
        for c in range(classes):
            error[s, c] = math.exp(logits[s, c] - top)
            total += error[s, c]
        losses[s] = math.log(total) + top - logits[s, y[s]]
        for c in range(classes):
            error[s, c] /= total
        error[s, y[s]] -= ONE
        for c in range(classes):
            of_class = share * error[s, c]
            gradient_b[c] += of_class
            for j in range(units):
                gradient_W[c, j] += of_class * h[s, j]
    steps_W[()] += ONE
    steps_b[()] += ONE
    step = steps_W[()]
    rate = np.float32(lr / (1 - beta1**step))
    root = np.float32(1 / math.sqrt(1 - beta2**step))
    keep2, tiny = np.float32(beta2), np.float32(epsilon)
    # Computed in float64: 1 - float32(.999) is .0010000467.
    take1, take2 = np.float32(1 - beta1), np.float32(1 - beta2)
    for c in range(classes):
        mean_b[c] += take1 * (gradient_b[c] - mean_b[c])
        square_b[c] = keep2 * square_b[c] + take2 * gradient_b[c] * gradient_b[c]
        b[c] -= rate * mean_b[c] / (math.sqrt(square_b[c]) * root + tiny)
        for j in range(units):
            g = gradient_W[c, j]
            mean_W[c, j] += take1 * (g - mean_W[c, j])
            square_W[c, j] = keep2 * square_W[c, j] + take2 * g * g
            W[c, j] -= rate * mean_W[c, j] / (math.sqrt(square_W[c, j]) * root + tiny)


@kernel
def direct_tanh(error: Array, B: Array, y: Array, event: Array, post: Array, bias: Array, scale: float) -> None:
    """Write e (-error B^T) (1 - y^2), the factor of `rule.direct` for tanh units, to `post`, and update the bias.

    error (n, classes), B (out, classes), y and post (n, out). event: the event's strength for each stimulus (n,),
    or (1,) for all of them. The bias (out,), empty for none, changes by scale times the sum of `post` over stimuli.
    """
    n, classes = error.shape
    out = y.shape[1]
    modulation, total = np.empty_like(y[0]), np.zeros_like(y[0])
    feedback = B.T.copy()
    for s in range(n):
        strength = event[s] if len(event) > 1 else event[0]
        modulation[:] = ZERO
        for c in range(classes):
            of_class = -strength * error[s, c]
            for k in range(out):
                modulation[k] += of_class * feedback[c, k]
        for k in range(out):
            p = modulation[k] * (ONE - y[s, k] * y[s, k])
            post[s, k] = p
            total[k] += p
    for k in range(len(bias)):
        bias[k] += np.float32(scale) * total[k]
