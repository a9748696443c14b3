"""Sparsity of activity: how few units are active, and to how few stimuli each unit responds.

activity is (samples, units); trailing dimensions are flattened into units. The Treves-Rolls sparsity of values
r_1 ... r_n is

    S = (1 - (sum |r_i| / n)^2 / (sum r_i^2 / n)) / (1 - 1/n),

which is 0 if all |r_i| are equal and 1 if only one is not zero. It is the measure of Treves and Rolls 1991, as restated
by Vinje and Gallant 2000, with the absolute value of Willmore and Tolhurst 2001 (equation 4) for signed responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sparsity:
    """Averages over a set of samples; lifetime and population exclude units and samples that are completely silent."""

    silent: float
    """Mean fraction of units that are zero in a sample."""
    dead: float
    """Fraction of units that are zero in every sample."""
    lifetime: float
    """Mean lifetime sparsity of the units that are not dead."""
    population: float
    """Mean population sparsity of the samples that are not all zero."""


def silent_fraction(activity: Tensor) -> Tensor:
    """Return the fraction of units whose activity is exactly zero in each sample, float64 (samples,)."""
    return (activity.flatten(1) == 0).double().mean(dim=1)


def dead_units(activity: Tensor) -> Tensor:
    """Return whether each unit is zero in every sample, bool (units,)."""
    return (activity.flatten(1) == 0).all(dim=0)


def lifetime_sparsity(activity: Tensor) -> Tensor:
    """Return each unit's Treves-Rolls sparsity over samples, float64 (units,); nan for dead units and one sample."""
    return _treves_rolls(activity.flatten(1), dim=0)


def population_sparsity(activity: Tensor) -> Tensor:
    """Return each sample's Treves-Rolls sparsity over units, float64 (samples,); nan for all-zero rows and one unit."""
    return _treves_rolls(activity.flatten(1), dim=1)


def sparsity(activity: Tensor) -> Sparsity:
    """Summarize `activity` (samples, units); see `Sparsity`."""
    batches = BatchedSparsity()
    batches.add(activity)
    return batches.summary()


class BatchedSparsity:
    """The `Sparsity` of activity that arrives in batches of samples, so that no more than one has to be in memory."""

    def __init__(self) -> None:
        self._silent: list[Tensor] = []
        self._population: list[Tensor] = []
        self._samples = 0
        # By unit: the largest |r|, and the sums of |r| and r^2 in units of it.
        self._largest: Tensor | None = None
        self._sum: Tensor | None = None
        self._sum_of_squares: Tensor | None = None

    def add(self, activity: Tensor) -> None:
        """Take a batch of `activity` (samples, units) into account."""
        self._silent.append(silent_fraction(activity))
        self._population.append(population_sparsity(activity))
        values = activity.flatten(1).detach().double().abs()
        largest = values.amax(dim=0)
        if self._largest is None or self._sum is None or self._sum_of_squares is None:
            self._largest = torch.zeros_like(largest)
            self._sum, self._sum_of_squares = torch.zeros_like(largest), torch.zeros_like(largest)
        largest = torch.maximum(largest, self._largest)
        # A unit that has been silent so far has sums of 0.
        scale = torch.where(largest > 0, largest, 1.0)
        before, values = self._largest / scale, values / scale
        self._sum = self._sum * before + values.sum(dim=0)
        self._sum_of_squares = self._sum_of_squares * before.square() + values.square().sum(dim=0)
        self._largest, self._samples = largest, self._samples + len(values)

    def summary(self) -> Sparsity:
        """Return the summary of all samples so far; raises ValueError without a sample."""
        if self._largest is None or self._sum is None or self._sum_of_squares is None:
            raise ValueError("Sparsity needs at least one sample.")
        lifetime = _selectivity(self._sum / self._samples, self._sum_of_squares / self._samples, self._samples)
        parts = [
            torch.cat(self._silent).mean(),
            (self._largest == 0).double().mean(),
            lifetime.nanmean(),
            torch.cat(self._population).nanmean(),
        ]
        return Sparsity(*torch.stack(parts).tolist())


def _treves_rolls(activity: Tensor, dim: int) -> Tensor:
    values = activity.detach().double().abs()
    # The measure does not depend on scale. Dividing by the largest value prevents underflow of squares.
    values = values / values.amax(dim=dim, keepdim=True)
    return _selectivity(values.mean(dim=dim), values.square().mean(dim=dim), values.shape[dim])


def _selectivity(mean: Tensor, mean_square: Tensor, n: int) -> Tensor:
    """Return the Treves-Rolls sparsity of n values from their mean and mean square; nan if all are zero."""
    spread = mean.square() / mean_square
    return (1 - spread) / torch.tensor(1 - 1 / n, dtype=torch.float64, device=spread.device)
