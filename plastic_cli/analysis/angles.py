"""Angle between an update and a gradient, and signal-to-noise ratio of a stochastic update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def angle_degrees(a: Tensor, b: Tensor) -> float:
    """Return the angle between `a` and `b` (same shape, flattened) in degrees, 0 to 180; nan if one is all zeros.

    The formula 2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||) is accurate also near 0 and 180 degrees, where the arc cosine
    of a normalized product loses half of its digits (Kahan 2006, "How futile are mindless assessments of roundoff in
    floating-point computation?"). Computed in float64.
    """
    if a.shape != b.shape:
        raise ValueError(f"An angle needs two tensors of one shape, not {tuple(a.shape)} and {tuple(b.shape)}.")
    first, second = _unit(a), _unit(b)
    half = torch.atan2(torch.linalg.vector_norm(first - second), torch.linalg.vector_norm(first + second))
    return float(torch.rad2deg(2 * half))


def signal_to_noise(samples: Iterable[Tensor]) -> float:
    """Return |E u|^2 / tr(Cov u) of a stochastic update u, from independent `samples` of it for the same input.

    samples: a tensor (n, ...) or an iterable of n >= 2 tensors of one shape. They are read one at a time, so that many
    samples of a large update need the memory of one. With m the mean of the samples and T the trace of their unbiased
    covariance, |m|^2 is larger than |E u|^2 by T/n on average; the result is max(|m|^2 - T/n, 0) / T. With a ratio of r
    a single sample makes an angle of about arctan(1 / sqrt(r)) with the mean. The result is inf without noise and nan
    if all samples are zero. Computed in float64.
    """
    ratio = SignalToNoise()
    for sample in samples:
        ratio.add(sample)
    return ratio.value()


class SignalToNoise:
    """The ratio of `signal_to_noise` from samples that arrive one at a time."""

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None
        self._count = 0

    def add(self, sample: Tensor) -> None:
        """Take one more sample into account."""
        value = sample.detach().double().flatten()
        if self._mean is None or self._scatter is None:
            self._mean, self._scatter = torch.zeros_like(value), torch.zeros_like(value[:1].sum())
        self._count += 1
        # Welford's recurrence: a sum of squares would cancel if the noise is small relative to the mean.
        deviation = value - self._mean
        self._mean += deviation / self._count
        self._scatter += deviation.dot(value - self._mean)

    def value(self) -> float:
        """Return the ratio; raises ValueError for fewer than 2 samples."""
        if self._mean is None or self._scatter is None or self._count < 2:
            raise ValueError(f"Signal and noise cannot be separated with {self._count} samples; give at least 2.")
        variance = self._scatter / (self._count - 1)
        signal = (self._mean.dot(self._mean) - variance / self._count).clamp_min(0)
        return float(signal / variance)


def _unit(vector: Tensor) -> Tensor:
    """Return `vector` flattened and scaled to length 1 in float64; nan for a zero vector."""
    values = vector.detach().double().flatten()
    # Divided by the largest entry first, so that squares neither underflow nor overflow.
    values = values / values.abs().max()
    norm: Tensor = torch.linalg.vector_norm(values)
    return values / norm
