"""Comparisons of rules over tasks and seeds: interquartile mean, probability of improvement, performance profiles.

The measures are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021), and of their library rliable. Their stratified percentile bootstrap is too narrow for few seeds, so this
module computes other intervals; `benchmarks/intervals.py` measures both. Scores are arrays (runs, tasks): one row per
seed, one column per data set or environment, larger is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from plastic_cli.statistics.intervals import (
    CONFIDENCE,
    MINIMUM_VALUES,
    Interval,
    mean_interval,
)

RESAMPLES = 2_000

_LEAST_FOR_QUARTILES = 4
"""With fewer scores no quarter can be cut off."""

_NEAR = 1e-9


@dataclass(frozen=True)
class Profile:
    """A performance profile: for each threshold (t,) the share of all runs above it, with its interval.

    low, high: NaN with fewer than `MINIMUM_VALUES` runs per task.
    """

    thresholds: NDArray[np.float64] = field(repr=False)
    share: NDArray[np.float64] = field(repr=False)
    low: NDArray[np.float64] = field(repr=False)
    high: NDArray[np.float64] = field(repr=False)


def interquartile_method(confidence: float = CONFIDENCE) -> str:
    """Return the name of the method of `interquartile_mean_interval`, for captions."""
    return f"{100 * confidence:g}% t interval with the standard error of a stratified bootstrap"


def improvement_method(confidence: float = CONFIDENCE) -> str:
    """Return the name of the method of `probability_of_improvement_interval`, for captions."""
    return f"{100 * confidence:g}% score interval (Newcombe 2006)"


def profile_method(confidence: float = CONFIDENCE) -> str:
    """Return the name of the method of `performance_profile`, for captions."""
    return f"{100 * confidence:g}% score interval of a share (Wilson)"


def interquartile_mean(scores: ArrayLike) -> float:
    """Return the mean of the middle half of all scores (runs, tasks) together.

    A quarter of the scores, rounded down, is cut off at each end (`scipy.stats.trim_mean`). With fewer than four scores
    the result is the mean.
    """
    return float(stats.trim_mean(_checked(scores), 0.25, axis=None))


def interquartile_mean_interval(scores: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return the interquartile mean of `scores` (runs, tasks) and its interval.

    The bounds are the estimate +- t sqrt(n / (n - 1)) s. The standard error s is that of `RESAMPLES` resamples, whose
    runs are drawn with replacement within each task. The degrees of freedom of t follow from the variances of the tasks
    (Satterthwaite). With fewer than four scores it is the t interval of the mean. `Interval.mean` is the interquartile
    mean and `n` the number of runs per task; with fewer than `MINIMUM_VALUES` there are no bounds. Each call uses the
    same random seed, so that the same scores always give the same interval.
    """
    _check_confidence(confidence)
    table = _sorted_runs(scores)
    runs, tasks = table.shape
    estimate = interquartile_mean(table)
    if runs < MINIMUM_VALUES:
        return _without_bounds(estimate, runs)
    if table.size < _LEAST_FOR_QUARTILES:
        return replace(mean_interval(table, confidence), method=interquartile_method(confidence))
    drawn = table[np.random.default_rng(seed).integers(runs, size=(RESAMPLES, runs, tasks)), np.arange(tasks)]
    cut = table.size // 4
    means = np.sort(drawn.reshape(RESAMPLES, -1), axis=1)[:, cut : table.size - cut].mean(axis=1)
    variances = table.var(axis=0, ddof=1)
    if variances.sum() == 0:
        return Interval(estimate, estimate, estimate, runs, interquartile_method(confidence))
    degrees = variances.sum() ** 2 / np.sum(variances**2 / (runs - 1))
    error = float(means.std()) * math.sqrt(runs / (runs - 1))
    margin = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * error
    return Interval(estimate, estimate - margin, estimate + margin, runs, interquartile_method(confidence))


def probability_of_improvement(first: ArrayLike, second: ArrayLike) -> float:
    """Return the probability that a run of `first` (n, tasks) beats one of `second` (m, tasks) on the same task.

    It is the Mann-Whitney statistic over n m, where a tie counts half, averaged over the tasks. Raises ValueError
    if the numbers of tasks differ.
    """
    return float(_wins(*_same_tasks(first, second)).mean())


def probability_of_improvement_interval(
    first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """Return the probability of improvement of `first` (n, tasks) over `second` (m, tasks) and its interval.

    The bounds p are those at which the estimate lies z standard errors away, sqrt(V(p) / tasks) with
    V(p) = p (1 - p) (1 + N (1 - p) / (2 - p) + N p / (1 + p)) / (n m) and N = (n + m) / 2 - 1: method 5 of Newcombe,
    Statistics in Medicine 25:559 (2006). Such an interval has a width even if no runs overlap. `Interval.mean` is
    the probability and `n` the smaller number of runs per task; with fewer than `MINIMUM_VALUES` there are no bounds.
    """
    _check_confidence(confidence)
    x, y = _same_tasks(first, second)
    n, m, tasks = len(x), len(y), int(x.shape[1])
    estimate = float(_wins(x, y).mean())
    if min(n, m) < MINIMUM_VALUES:
        return _without_bounds(estimate, min(n, m))
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    pairs = (n + m) / 2 - 1

    def excess(p: float) -> float:
        """Return by how much the squared distance of the estimate exceeds z squared standard errors of p."""
        variance = p * (1 - p) * (1 + pairs * (1 - p) / (2 - p) + pairs * p / (1 + p)) / (n * m * tasks)
        return (estimate - p) ** 2 - z**2 * variance

    # For an estimate of 0 or 1 the estimate itself is a root too, and not the wanted bound.
    inner = min(max(estimate, _NEAR), 1 - _NEAR)
    low = 0.0 if estimate <= 0 else float(optimize.brentq(excess, 0.0, inner))
    high = 1.0 if estimate >= 1 else float(optimize.brentq(excess, inner, 1.0))
    return Interval(estimate, low, high, min(n, m), improvement_method(confidence))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike, confidence: float = CONFIDENCE) -> Profile:
    """Return for each of `thresholds` (t,) the share of all `scores` (runs, tasks) above it, and its interval.

    The interval is Wilson's for a share of runs times tasks independent scores.
    """
    _check_confidence(confidence)
    table = _sorted_runs(scores)
    levels = np.asarray(thresholds, dtype=np.float64).ravel()
    share = (table[None] > levels[:, None, None]).mean(axis=(1, 2))
    if len(table) < MINIMUM_VALUES:
        unknown = np.full(len(levels), np.nan)
        return Profile(levels, share, unknown, unknown)
    count, z = table.size, float(stats.norm.ppf(0.5 + confidence / 2))
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    margin = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return Profile(levels, share, np.clip(center - margin, 0, 1), np.clip(center + margin, 0, 1))


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"scores are (runs, tasks), at least one of each, and not of shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("scores must be finite")
    return table


def _sorted_runs(scores: ArrayLike) -> NDArray[np.float64]:
    # The order of the seeds must not change an interval; tasks keep their columns.
    return np.sort(_checked(scores), axis=0)


def _same_tasks(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = _sorted_runs(first), _sorted_runs(second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the two have scores on {x.shape[1]} and {y.shape[1]} tasks; they must be the same ones")
    return x, y


def _wins(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (tasks, n, m): 1 where run i of `x` beats run j of `y`, a half where they tie."""
    mine, other = x.T[:, :, None], y.T[:, None, :]
    wins: NDArray[np.float64] = (mine > other) + 0.5 * (mine == other)
    return wins


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


def _without_bounds(estimate: float, runs: int) -> Interval:
    few = f"no interval with fewer than {MINIMUM_VALUES} runs per task"
    return Interval(estimate, float("nan"), float("nan"), runs, few)
