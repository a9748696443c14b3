"""Selective plasticity as equations: a gate scales the update of every synapse.

A synapse is busy if its recent gradients were large. The gate is low for a busy synapse with a small gradient. It is 1
for the largest gradient of the tensor, which is the greatest surprise.

Source: the published program of selective plasticity (READMEs and code; there is no paper). Base "sgd" computes the
same update as its code. Base "adam" is our interpretation of its READMEs: a threshold decides which synapses are busy,
and the eligibility comes from the second moment that Adam stores. A synapse is one entry of a parameter tensor. All
functions take one tensor of any shape and change nothing in place.

    e_t = beta e_{t-1} + (1 - beta) |g_t|                                    eligibility: running mean of |g|
    gate = clip(1 - (k / 10) busy (1 - g_n), 0.1, 1)                         g_n = |g| / max|g|, the surprise
    gate_t = 1 - min(1, t / warmup) (1 - gate)                               linear warm-up

    base "sgd":   busy = e / max(e)                                          p <- p - lr gate_t g
    base "adam":  busy = 1 where sqrt(v^) is above its percentile, else 0    p <- p - lr gate_t m^ / (sqrt(v^) + eps)

m and v are Adam's moments, and m^ and v^ are these moments with bias correction (Kingma & Ba 2015). e and g have the
unit of the gradient; gates, busy and g_n are numbers from 0 to 1 without a unit. Every gate of a tensor depends on the
largest gradient of the tensor. A NaN gradient therefore makes all gates NaN. An infinite gradient makes only its own
gate NaN, and g_n of all other synapses 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST_GATE = 0.1
"""Lower bound of the gate."""
STRENGTH_UNIT = 10.0
"""At this plasticity k the busiest synapse reaches the lowest gate if its gradient is 0."""


def updated_eligibility(eligibility: Tensor, gradient: Tensor, trace_decay: float) -> Tensor:
    """Return e_t = beta e_{t-1} + (1 - beta) |g_t|."""
    return trace_decay * eligibility + (1 - trace_decay) * gradient.abs()


def share_of_largest(magnitude: Tensor, eps: float) -> Tensor:
    """Return magnitude / max(magnitude), from 0 to 1, for magnitudes of at least 0.

    If the maximum is below eps, the divisor is eps: all shares are near 0 if all magnitudes are tiny. Above eps the
    share does not depend on the unit.
    """
    return magnitude / magnitude.max().clamp_min(max(eps, torch.finfo(magnitude.dtype).tiny))


def percentile(magnitude: Tensor, percentage: float) -> Tensor:
    """Return the smallest entry x such that at least `percentage` percent of all entries are <= x: shape ()."""
    entries = magnitude.numel()
    rank = min(entries, max(1, -(-entries * percentage // 100)))
    return magnitude.flatten().kthvalue(int(rank)).values


def above_threshold(second_moment: Tensor, threshold: Tensor) -> Tensor:
    """Return 1 where v is above `threshold` (), else 0.

    The eligibility is sqrt(v^). v has the same order, so its percentile selects the same synapses. v starts at 0 and
    grows like 1 - decay^t: multiply a threshold of an earlier step by `bias_growth` first.
    """
    return (second_moment > threshold).to(second_moment.dtype)


def bias_growth(decay: float, then: float | Tensor, now: float | Tensor) -> float | Tensor:
    """Return (1 - decay^now) / (1 - decay^then), the growth of v from step `then` to `now` for a constant gradient."""
    return (1 - decay**now) / (1 - decay**then)


def gate(busy: Tensor, surprise: Tensor, plasticity_k: float) -> Tensor:
    """Return clip(1 - (k / 10) busy (1 - g_n), 0.1, 1): low for a busy synapse with a small gradient."""
    return (1 - plasticity_k / STRENGTH_UNIT * busy * (1 - surprise)).clamp(LOWEST_GATE, 1)


def warmed_up(gate: Tensor, step: Tensor | float, warmup_steps: int) -> Tensor:
    """Return the gate at step t = 1, 2, ...: close to 1 at first, with its full effect from `warmup_steps` on."""
    if warmup_steps == 0:
        return gate
    warmth = step / warmup_steps
    warmth = warmth.clamp_max(1.0) if isinstance(warmth, Tensor) else min(1.0, warmth)
    return 1 - warmth * (1 - gate)
