"""Angles between an update and a gradient, and how much of a stochastic update is signal."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def angle_degrees(a: Tensor, b: Tensor) -> float:
    """Return the angle between `a` and `b` (same shape, flattened) in degrees, 0 to 180; nan if one is all zeros.

    Exact to rounding also near 0 and 180 degrees, where the arc cosine of a normalised product loses half of its
    digits: 2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||), after Kahan 2006, "How futile are mindless assessments of
    roundoff in floating-point computation?". Computed in float64.
    """
    if a.shape != b.shape:
        raise ValueError(f"An angle needs two tensors of one shape, not {tuple(a.shape)} and {tuple(b.shape)}.")
    first, second = _unit(a), _unit(b)
    half = torch.atan2(torch.linalg.vector_norm(first - second), torch.linalg.vector_norm(first + second))
    return float(torch.rad2deg(2 * half))


def signal_to_noise(samples: Iterable[Tensor]) -> float:
    """Return |E u|^2 / tr(Cov u) of a stochastic update u, from independent `samples` of it given the same input.

    `samples` is a tensor (n, ...) or anything that yields n >= 2 tensors of one shape, which are taken one at a time so
    that many samples of a large update need the memory of one. With m the samples' mean and T the trace of their
    unbiased covariance, |m|^2 exceeds |E u|^2 by T/n on average; the result is max(|m|^2 - T/n, 0) / T. A ratio of r
    means that a single sample makes an angle of about arctan(1 / sqrt(r)) with the mean. inf without noise, nan where
    all samples are zero. Float64.
    """
    mean: Tensor | None = None
    scatter: Tensor | None = None
    count = 0
    for sample in samples:
        value = sample.detach().double().flatten()
        if mean is None or scatter is None:
            mean, scatter = torch.zeros_like(value), torch.zeros_like(value[:1].sum())
        count += 1
        # Welford's recurrence: a sum of squares would cancel where the noise is small beside the mean.
        deviation = value - mean
        mean += deviation / count
        scatter += deviation.dot(value - mean)
    if mean is None or scatter is None or count < 2:
        raise ValueError(f"Signal and noise cannot be told apart from {count} samples; give at least 2.")
    variance = scatter / (count - 1)
    signal = (mean.dot(mean) - variance / count).clamp_min(0)
    return float(signal / variance)


def _unit(vector: Tensor) -> Tensor:
    """Return `vector` flattened and scaled to length 1 in float64; nan for a zero vector."""
    values = vector.detach().double().flatten()
    # Divided by the largest entry first, so that no square under- or overflows.
    values = values / values.abs().max()
    norm: Tensor = torch.linalg.vector_norm(values)
    return values / norm
