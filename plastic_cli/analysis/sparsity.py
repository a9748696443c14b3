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
    summary = torch.stack(
        [
            silent_fraction(activity).mean(),
            dead_units(activity).double().mean(),
            lifetime_sparsity(activity).nanmean(),
            population_sparsity(activity).nanmean(),
        ]
    )
    return Sparsity(*summary.tolist())


def _treves_rolls(activity: Tensor, dim: int) -> Tensor:
    values = activity.detach().double().abs()
    # The measure does not depend on scale. Dividing by the largest value prevents underflow of squares.
    values = values / values.amax(dim=dim, keepdim=True)
    n = values.shape[dim]
    spread = values.mean(dim=dim).square() / values.square().mean(dim=dim)
    return (1 - spread) / torch.tensor(1 - 1 / n, dtype=torch.float64, device=values.device)
