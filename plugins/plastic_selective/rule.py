"""Selective plasticity as equations: a gate on every synapse's update, closed where a busy synapse meets no surprise.

Source: the published program of selective plasticity (READMEs and code; there is no paper). Base "sgd" is what its code
computes. Base "adam" is what its READMEs promise, in our reading: a threshold decides who is busy, and the eligibility
is one that Adam holds anyway. A synapse is one entry of a parameter tensor. All functions take one tensor at a time, of
any shape, and change nothing in place.

    e_t = beta e_{t-1} + (1 - beta) |g_t|                                    eligibility, how busy a synapse has been
    gate = clip(1 - (k / 10) busy (1 - g_n), 0.1, 1)                         g_n = |g| / max|g|, the surprise
    gate_t = 1 - min(1, t / warmup) (1 - gate)                               linear warm-up

    base "sgd":   busy = e / max(e)                                          p <- p - lr gate_t g
    base "adam":  busy = 1 where sqrt(v^) is above its percentile, else 0    p <- p - lr gate_t m^ / (sqrt(v^) + eps)

m and v are Adam's moments and m^ and v^ those moments without their bias (Kingma & Ba 2015). e and g have the unit of
the gradient; gates, busy and g_n are pure numbers from 0 to 1. Since every gate of a tensor depends on its largest
gradient, a gradient that is NaN makes all of them NaN; one that is infinite makes only its own NaN, and beside it no
other is a surprise.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST_GATE = 0.1
"""No synapse learns more slowly than by this factor."""
STRENGTH_UNIT = 10.0
"""The plasticity k at which the busiest synapse reaches the lowest gate, where nothing surprises it."""


def updated_eligibility(eligibility: Tensor, gradient: Tensor, trace_decay: float) -> Tensor:
    """Return e_t = beta e_{t-1} + (1 - beta) |g_t|."""
    return trace_decay * eligibility + (1 - trace_decay) * gradient.abs()


def share_of_largest(magnitude: Tensor, eps: float) -> Tensor:
    """Return magnitude / max(magnitude), from 0 to 1; `magnitude` is at least 0.

    A largest magnitude below eps counts as eps: where nothing happens no synapse is busy. Above eps the share does not
    depend on the unit.
    """
    return magnitude / magnitude.max().clamp_min(max(eps, torch.finfo(magnitude.dtype).tiny))


def percentile(magnitude: Tensor, percentage: float) -> Tensor:
    """Return the smallest entry that at least `percentage` percent of all entries do not exceed: shape ()."""
    entries = magnitude.numel()
    rank = min(entries, max(1, -(-entries * percentage // 100)))
    return magnitude.flatten().kthvalue(int(rank)).values


def above_threshold(second_moment: Tensor, threshold: Tensor) -> Tensor:
    """Return 1 where v is above `threshold` (), else 0.

    sqrt(v^), the root of the decayed mean of g squared, is the eligibility; v is in the same order, so that its
    percentile says the same, but for the bias of v, one factor for all. A threshold of an earlier step has to be
    brought to the bias of today, see `bias_growth`.
    """
    return (second_moment > threshold).to(second_moment.dtype)


def bias_growth(decay: float, then: float | Tensor, now: float | Tensor) -> float | Tensor:
    """Return (1 - decay^now) / (1 - decay^then), by which the bias of v alone has let it grow since step `then`."""
    return (1 - decay**now) / (1 - decay**then)


def gate(busy: Tensor, surprise: Tensor, plasticity_k: float) -> Tensor:
    """Return clip(1 - (k / 10) busy (1 - g_n), 0.1, 1): low where a busy synapse sees a gradient that is small."""
    return (1 - plasticity_k / STRENGTH_UNIT * busy * (1 - surprise)).clamp(LOWEST_GATE, 1)


def warmed_up(gate: Tensor, step: Tensor | float, warmup_steps: int) -> Tensor:
    """Return the gate at step t = 1, 2, ...: 1 at first, in full force from `warmup_steps` on."""
    if warmup_steps == 0:
        return gate
    warmth = step / warmup_steps
    warmth = warmth.clamp_max(1.0) if isinstance(warmth, Tensor) else min(1.0, warmth)
    return 1 - warmth * (1 - gate)
