"""Student's t intervals of the mean over the seeds of an experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

MINIMUM_VALUES = 3
"""With fewer values there is no interval, because two numbers say too little about their spread."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval.

    low, high: NaN with fewer than `MINIMUM_VALUES` finite values. mean: NaN without finite values. n: number of finite
    values. dropped: number of values that are NaN or infinite and do not count. deviation: the sample standard
    deviation of the finite values, with n - 1; NaN with fewer than two, and for an estimate that is not a mean.
    """

    mean: float
    low: float
    high: float
    n: int
    method: str
    dropped: int = 0
    deviation: float = field(default=math.nan, compare=False)

    @property
    def known(self) -> bool:
        """Whether there were enough values for an interval."""
        return self.n >= MINIMUM_VALUES


def interval_method(confidence: float = CONFIDENCE) -> str:
    """Return the name of the method, for captions."""
    return f"{100 * confidence:g}% t interval of the mean"


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of `values` (n,) and its interval by Student's t.

    The bounds are mean +- t s / sqrt(n), with the sample standard deviation s and the quantile t for n - 1 degrees of
    freedom. Values that are not finite are left out and counted in `dropped`.

    For normal values the 95% interval contains the true mean in 95% of cases, for each n. For few values from a skewed
    or bimodal distribution it contains it less often; `benchmarks/intervals.py` measures how often.
    """
    return mean_intervals([values], confidence)[0]


def mean_intervals(samples: Sequence[ArrayLike], confidence: float = CONFIDENCE) -> list[Interval]:
    """Return `mean_interval` of many samples: the same numbers in a fraction of the time."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    arrays = [np.asarray(sample, dtype=np.float64).ravel() for sample in samples]
    # Sorted, because the order of the seeds must not change the interval.
    finite = [np.sort(array[np.isfinite(array)]) for array in arrays]
    lengths = np.array([len(array) for array in finite], dtype=np.int64)
    low, high = np.full(len(arrays), np.nan), np.full(len(arrays), np.nan)
    for length in np.unique(lengths[lengths >= MINIMUM_VALUES]):
        members = np.flatnonzero(lengths == length)
        table = np.stack([finite[member] for member in members])
        low[members], high[members] = _bounds(table, confidence)
    method = interval_method(confidence)
    return [
        Interval(
            mean=_mean(array),
            low=float(low[index]),
            high=float(high[index]),
            n=len(array),
            method=method if len(array) >= MINIMUM_VALUES else f"no interval with fewer than {MINIMUM_VALUES} values",
            dropped=len(arrays[index]) - len(array),
            deviation=_deviation(array),
        )
        for index, array in enumerate(finite)
    ]


def prediction_method(confidence: float = CONFIDENCE, *, of: int = 1) -> str:
    """Return the name of the method of `prediction_interval`, for captions."""
    further = "one more value" if of == 1 else f"the mean of {of} more values"
    return f"{100 * confidence:g}% t prediction interval of {further}"


def prediction_interval(values: ArrayLike, confidence: float = CONFIDENCE, *, of: int = 1) -> Interval:
    """Return the mean of `values` (n,) and the interval in which one more value lies with this probability.

    of: the number of further values whose mean is predicted. The bounds are mean +- t s sqrt(1/of + 1/n), with the
    sample standard deviation s and the quantile t for n - 1 degrees of freedom. This holds for normal values. Values
    that are not finite are left out and counted in `dropped`.
    """
    found = mean_interval(values, confidence)
    if not found.known:
        return found
    margin = quantile(confidence, found.n - 1) * found.deviation * math.sqrt(1 / of + 1 / found.n)
    return replace(
        found, low=found.mean - margin, high=found.mean + margin, method=prediction_method(confidence, of=of)
    )


def difference_method(*, paired: bool, confidence: float = CONFIDENCE) -> str:
    """Return the name of the method of `difference_interval`, for captions."""
    return f"{100 * confidence:g}% {'paired t interval' if paired else 'Welch t interval'} of the difference"


def difference_interval(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the difference of the means of two independent samples, second minus first, and its interval.

    The bounds are Welch's: the difference +- t sqrt(s1^2 / n1 + s2^2 / n2), where the degrees of freedom of t follow
    from both variances (Welch-Satterthwaite). Values that are not finite are left out. `n` is the smaller number of
    values; with fewer than `MINIMUM_VALUES` there are no bounds.
    """
    samples = [np.asarray(sample, dtype=np.float64).ravel() for sample in (first, second)]
    x, y = (np.sort(sample[np.isfinite(sample)]) for sample in samples)
    n, difference = min(len(x), len(y)), _mean(y) - _mean(x)
    dropped = sum(len(sample) for sample in samples) - len(x) - len(y)
    if n < MINIMUM_VALUES:
        few = f"no interval with fewer than {MINIMUM_VALUES} values"
        return Interval(difference, math.nan, math.nan, n, few, dropped)
    of_x, of_y = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    method = difference_method(paired=False, confidence=confidence)
    if of_x + of_y == 0:
        return Interval(difference, difference, difference, n, method, dropped)
    degrees = (of_x + of_y) ** 2 / (of_x**2 / (len(x) - 1) + of_y**2 / (len(y) - 1))
    margin = float(stdtrit(degrees, 0.5 + confidence / 2)) * math.sqrt(of_x + of_y)
    return Interval(difference, difference - margin, difference + margin, n, method, dropped)


def half_width(deviation: float, n: int, confidence: float = CONFIDENCE) -> float:
    """Return half the width of the interval of n values with standard deviation `deviation`."""
    return quantile(confidence, n - 1) * deviation / math.sqrt(n)


@lru_cache(maxsize=4096)
def quantile(confidence: float, degrees: int) -> float:
    """Return the two-sided quantile of Student's t: `confidence` of its absolute values lie below it."""
    # scipy.special is imported in a tenth of the time of scipy.stats.
    return float(stdtrit(degrees, 0.5 + confidence / 2))


def _bounds(table: NDArray[np.float64], confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return low and high (rows,) for `table` (rows, n)."""
    n = table.shape[1]
    # Scaled, so that the squares of very large values do not overflow.
    scale = np.maximum(np.abs(table).max(axis=1), np.finfo(np.float64).tiny)
    scaled = table / scale[:, None]
    mean = scaled.mean(axis=1)
    margin = quantile(confidence, n - 1) * scaled.std(axis=1, ddof=1) / np.sqrt(n)
    low, high = (mean - margin) * scale, (mean + margin) * scale
    # Without this, rounding gives equal values a width of 1e-17.
    equal = np.ptp(table, axis=1) == 0
    low[equal] = high[equal] = table[equal, 0]
    return low, high


def _mean(values: NDArray[np.float64]) -> float:
    if len(values) == 0:
        return float("nan")
    # Rounding can move the mean of equal values out of their range by one unit in the last place.
    return float(np.clip(values.mean(), values.min(), values.max()))


def _deviation(values: NDArray[np.float64]) -> float:
    # Scaled as in `_bounds`. The deviation of equal values is 0, without the error of rounding.
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan") if len(values) < 2 else 0.0
    scale = float(np.abs(values).max())
    return float((values / scale).std(ddof=1)) * scale
