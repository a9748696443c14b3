"""Percentile bootstrap intervals of a mean, over the seeds of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

MINIMUM_VALUES = 3
"""With fewer values than this no interval is given: resampling two numbers says nothing about a third."""

_ELEMENTS_AT_ONCE = 4_000_000
"""Bound on the resampled values held in memory at once (32 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval.

    `low` and `high` are NaN where there are fewer than `MINIMUM_VALUES` finite values, and `mean` too where there is
    none. `n` counts the finite values, `dropped` those that were NaN or infinite and so left out.
    """

    mean: float
    low: float
    high: float
    n: int
    method: str
    dropped: int = 0

    @property
    def known(self) -> bool:
        """Whether there were enough values for an interval."""
        return self.n >= MINIMUM_VALUES


def interval_method(confidence: float = 0.95, resamples: int = 9999) -> str:
    """Name the method in words, for captions."""
    return f"{100 * confidence:g}% percentile bootstrap interval ({resamples} resamples)"


def mean_interval(values: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """Return the mean of `values` (n,) and its percentile bootstrap interval (`scipy.stats.bootstrap`).

    Values that are not finite are left out and counted in `dropped`. The random stream starts at `seed` on every call,
    so that the same values always give the same interval.

    With few seeds the interval is too narrow, since it cannot reach beyond the smallest and the largest value: of 4000
    samples of normal numbers, the 95% interval held the true mean for 75% at n = 3, 84% at n = 5, 92% at n = 10 and 93%
    at n = 20.
    """
    return mean_intervals([values], confidence, resamples, seed)[0]


def mean_intervals(
    samples: Sequence[ArrayLike], confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> list[Interval]:
    """Return `mean_interval` of each of many samples, the same numbers at a fraction of the time.

    Samples of one length are resampled together with the same indices.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    arrays = [np.asarray(sample, dtype=np.float64).ravel() for sample in samples]
    # In order of size: which seed came first must not change the interval.
    finite = [np.sort(array[np.isfinite(array)]) for array in arrays]
    lengths = np.array([len(array) for array in finite], dtype=np.int64)
    low, high = np.full(len(arrays), np.nan), np.full(len(arrays), np.nan)
    for length in np.unique(lengths[lengths >= MINIMUM_VALUES]):
        members = np.flatnonzero(lengths == length)
        table = np.stack([finite[member] for member in members])
        low[members], high[members] = _bounds(table, confidence, resamples, seed)
    method = interval_method(confidence, resamples)
    return [
        Interval(
            mean=_mean(array),
            low=float(low[index]),
            high=float(high[index]),
            n=len(array),
            method=method if len(array) >= MINIMUM_VALUES else f"no interval with fewer than {MINIMUM_VALUES} values",
            dropped=len(arrays[index]) - len(array),
        )
        for index, array in enumerate(finite)
    ]


def _bounds(
    table: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return low and high (rows,) for `table` (rows, n)."""
    rows, n = table.shape
    # The size of a batch depends on n alone: how many rows share a call must not change anybody's interval.
    batch = min(resamples, max(1, _ELEMENTS_AT_ONCE // n))
    step = max(1, _ELEMENTS_AT_ONCE // (batch * n))
    low, high = np.empty(rows), np.empty(rows)
    for start in range(0, rows, step):
        chunk = table[start : start + step]
        result = stats.bootstrap(
            (chunk,),
            np.mean,
            axis=-1,
            vectorized=True,
            batch=batch,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low[start : start + step] = result.confidence_interval.low
        high[start : start + step] = result.confidence_interval.high
    # Equal values: rounding in the mean of a resample would otherwise give a width of 1e-17.
    equal = np.ptp(table, axis=1) == 0
    low[equal] = high[equal] = table[equal, 0]
    return low, high


def _mean(values: NDArray[np.float64]) -> float:
    if len(values) == 0:
        return float("nan")
    # Rounding can push the mean of equal values out of their range by one unit in the last place.
    return float(np.clip(values.mean(), values.min(), values.max()))
