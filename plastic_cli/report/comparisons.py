"""Which settings can be compared over which data sets, and how they compare."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, count

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli.config.model import Config
from plastic_cli.report.grouping import Setting, data_notes, settings_across
from plastic_cli.report.results import Result, RunValues, more_is_better
from plastic_cli.statistics.aggregates import (
    Profile,
    improvement_method,
    interquartile_mean_interval,
    interquartile_method,
    performance_profile,
    probability_of_improvement_interval,
)
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval
from plastic_cli.tables import Column, Table

MOST_COMPARED = 8
"""Pairs are compared and profiles drawn among so many settings, the best: 28 pairs can still be read, 435 cannot."""

PROFILE_THRESHOLDS = 201

_SHARES = ("accuracy", "error")
"""Metrics from 0 to 1, which mean the same on every data set; others are compared within one alone."""


@dataclass(frozen=True)
class Compared:
    """One setting's scores (runs, data sets), in the metric's own units, and their interquartile mean.

    left_out: how many of its runs do not count, since they have no finite value or another data set has fewer seeds.
    """

    setting: Setting
    scores: NDArray[np.float64] = field(repr=False)
    iqm: Interval
    left_out: int = 0


@dataclass(frozen=True)
class Improvement:
    """How probably a run of one setting is better than one of another on the same data set."""

    first: Setting
    second: Setting
    probability: Interval


@dataclass(frozen=True)
class Comparison:
    """Settings compared in one metric over the data sets that all of them have, the best first.

    name: for files and labels, of metric and data sets; no two comparisons of a report share one. improvements: of each
    pair among the first `MOST_COMPARED`, the better one first.
    """

    name: str
    metric: str
    datasets: tuple[str, ...]
    compared: tuple[Compared, ...]
    improvements: tuple[Improvement, ...]

    @property
    def subject(self) -> str:
        """What is compared: "test/accuracy on digits, mnist"."""
        datasets = ", ".join(name for name in self.datasets if name)
        return f"{self.metric} on {datasets}" if datasets else self.metric


def compare(
    runs: pd.DataFrame, results: Sequence[Result], models: Mapping[str, type[Config]] | None = None
) -> list[Comparison]:
    """Compare the settings behind `results`, whose runs `runs` holds.

    For each main metric the largest collection of data sets comes first that two settings share, with every setting
    that has all of them; then, for settings that are in no comparison yet, the next. A setting that shares no data set
    with another is compared with nothing. Metrics that are no shares of 1 are compared within each data set alone.
    """
    comparisons: list[Comparison] = []
    values = RunValues(runs)
    for metric in dict.fromkeys(result.metric for result in results if result.metric):
        groups = [result.group for result in results if result.metric == metric and result.value.n]
        settings = settings_across(groups, models)
        for datasets in _collections(settings, together=metric.endswith(_SHARES)):
            able = [setting for setting in settings if set(datasets) <= set(setting.groups)]
            name = unique_name("-".join((metric, *datasets)), [each.name for each in comparisons])
            comparisons.append(_comparison(name, metric, datasets, able, values))
    return comparisons


def unique_name(text: str, taken: Collection[str]) -> str:
    """Return a name of letters, digits and hyphens for a file or an id, other than those that are taken."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "unnamed"
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(each for each in numbered if each not in taken)


def not_compared(results: Sequence[Result], comparisons: Sequence[Comparison]) -> int:
    """Return how many results stand in no comparison, since no other setting has their data set and metric."""
    covered = {
        group.runs
        for comparison in comparisons
        for each in comparison.compared
        for dataset, group in each.setting.groups.items()
        if dataset in comparison.datasets
    }
    return sum(result.group.runs not in covered for result in results if result.value.n)


def profiles(comparison: Comparison) -> list[tuple[Setting, Profile]]:
    """Return the performance profiles of the best settings: the share of runs that are better than each threshold.

    Thresholds are in the metric's units; where less is better, a run is better below them.
    """
    best = comparison.compared[:MOST_COMPARED]
    sign = 1 if more_is_better(comparison.metric) else -1
    every = np.concatenate([each.scores.ravel() for each in best])
    low, high = float(every.min()), float(every.max())
    margin = 0.02 * (high - low) or 0.02 * abs(high) or 0.02
    levels = np.linspace(low - margin, high + margin, PROFILE_THRESHOLDS)
    found = []
    for each in best:
        profile = performance_profile(sign * each.scores, sign * levels)
        found.append((each.setting, Profile(levels, profile.share, profile.low, profile.high)))
    return found


def iqm_table(comparison: Comparison) -> Table:
    """Return the table of interquartile means."""
    compared = comparison.compared
    several = len(comparison.datasets) > 1
    columns = [Column("rule"), Column("setting"), Column("n", numeric=True), Column("interquartile mean", numeric=True)]
    columns += [Column(dataset, numeric=True, optional=True) for dataset in comparison.datasets] if several else []
    rows = []
    for each in compared:
        means = [float(each.scores[:, index].mean()) for index in range(len(comparison.datasets))]
        row = [each.setting.rule, each.setting.text or None, each.iqm.n, each.iqm]
        rows.append((*row, *(Interval(mean, math.nan, math.nan, each.iqm.n, "") for mean in means if several)))
    better = "larger" if more_is_better(comparison.metric) else "smaller"
    caption = (
        f"Mean of the middle half of all runs' {comparison.metric} ({better} is better), n seeds on each data set; in"
        f" brackets the {interquartile_method()}, given from {MINIMUM_VALUES} seeds on. Of fewer than four runs it is"
        " the plain mean."
    )
    caption += " Beside it the mean on each data set." if several else ""
    left_out = sum(each.left_out for each in compared)
    if left_out:
        runs = "1 run" if left_out == 1 else f"{left_out} runs"
        caption += f" Left out: {runs} without a finite value, or with more seeds than on another data set."
    caption += data_notes(group for each in compared for group in each.setting.groups.values())
    title = f"Interquartile means of {comparison.subject}"
    shown = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    return Table(
        title,
        caption,
        tuple(columns[index] for index in shown),
        tuple(tuple(row[index] for index in shown) for row in rows),
    )


def improvement_table(comparison: Comparison) -> Table:
    """Return the table of the probabilities of improvement, with what its intervals are worth."""
    rows = tuple((pair.first.label, pair.second.label, pair.probability) for pair in comparison.improvements)
    caption = (
        "Probability that a run of the first is better than one of the second on the same data set, a tie counting"
        f" half; in brackets the {improvement_method()}, given from {MINIMUM_VALUES} seeds on."
    )
    if len(comparison.compared) > MOST_COMPARED:
        caption += f" Pairs among the best {MOST_COMPARED} of {len(comparison.compared)} settings."
    apart = [pair for pair in comparison.improvements if pair.probability.mean in (0.0, 1.0)]
    if apart:
        seeds = {id(each.setting): each.iqm.n for each in comparison.compared}
        pairs = [sorted((seeds[id(pair.first)], seeds[id(pair.second)])) for pair in apart]
        few, more = min(pairs, key=lambda pair: math.comb(sum(pair), pair[0]))
        times = math.comb(few + more, few) ** len(comparison.datasets)
        counts = f"{few} and {more} seeds" if few != more else "1 seed each" if few == 1 else f"{few} seeds each"
        caption += (
            f" A probability of 1 says that no runs overlap and no more: with {counts} on every data set, two equal"
            f" rules come out so in one of {times} cases, each way."
        )
    return Table(
        f"Probability of improvement in {comparison.subject}",
        caption,
        (Column("first"), Column("second"), Column("probability", numeric=True)),
        rows,
    )


def comparisons_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison and setting; the columns are always the same."""
    names = ["metric", "datasets", "rule", "setting", "seeds", "left_out", "interquartile_mean", "low", "high", "mean"]
    rows = [
        {
            "metric": comparison.metric,
            "datasets": ",".join(comparison.datasets),
            "rule": each.setting.rule,
            "setting": each.setting.text,
            "seeds": each.iqm.n,
            "left_out": each.left_out,
            "interquartile_mean": each.iqm.mean,
            "low": each.iqm.low,
            "high": each.iqm.high,
            "mean": float(each.scores.mean()),
        }
        for comparison in comparisons
        for each in comparison.compared
    ]
    return pd.DataFrame(rows, columns=names)


def improvements_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison and pair of settings; the columns are always the same."""
    names = ["metric", "datasets", "first_rule", "first_setting", "second_rule", "second_setting"]
    rows = [
        {
            "metric": comparison.metric,
            "datasets": ",".join(comparison.datasets),
            "first_rule": pair.first.rule,
            "first_setting": pair.first.text,
            "second_rule": pair.second.rule,
            "second_setting": pair.second.text,
            "probability": pair.probability.mean,
            "low": pair.probability.low,
            "high": pair.probability.high,
        }
        for comparison in comparisons
        for pair in comparison.improvements
    ]
    return pd.DataFrame(rows, columns=[*names, "probability", "low", "high"])


def _collections(settings: Sequence[Setting], *, together: bool) -> list[tuple[str, ...]]:
    """Return the collections of data sets to compare over, so that every setting that can be compared is in one."""
    covers = [frozenset(setting.groups) for setting in settings]
    singles = {frozenset([dataset]) for cover in covers for dataset in cover}
    shared = {first & second for first, second in combinations(set(covers), 2)} if together else set()
    candidates = singles | ({*covers, *shared} - {frozenset()} if together else set())
    able = {candidate: [index for index, cover in enumerate(covers) if candidate <= cover] for candidate in candidates}
    order = sorted(
        (candidate for candidate in candidates if len(able[candidate]) > 1),
        key=lambda candidate: (-len(candidate), -len(able[candidate]), sorted(candidate)),
    )
    chosen: list[frozenset[str]] = []
    seen: set[tuple[int, str]] = set()
    for candidate in order:
        # A collection counts where it shows a setting that none before it showed; alone, where it shows a new data set.
        new = {(index, "" if together else next(iter(candidate))) for index in able[candidate]} - seen
        if new:
            chosen.append(candidate)
            seen |= new
    return [tuple(sorted(candidate)) for candidate in chosen]


def _comparison(
    name: str, metric: str, datasets: tuple[str, ...], settings: Sequence[Setting], values: RunValues
) -> Comparison:
    sign = 1 if more_is_better(metric) else -1
    compared = []
    for setting in settings:
        columns = [values.of(setting.groups[dataset], metric) for dataset in datasets]
        finite = [column[np.isfinite(column)] for column in columns]
        # Every data set is to weigh the same: the first seeds of each, as many as the one with fewest has.
        fewest = min(len(column) for column in finite)
        scores = np.column_stack([column[:fewest] for column in finite])
        left_out = sum(len(column) for column in columns) - scores.size
        compared.append(Compared(setting, scores, interquartile_mean_interval(scores), left_out))
    compared.sort(key=lambda each: -sign * each.iqm.mean)
    improvements = tuple(
        Improvement(
            first.setting,
            second.setting,
            probability_of_improvement_interval(sign * first.scores, sign * second.scores),
        )
        for first, second in combinations(compared[:MOST_COMPARED], 2)
    )
    return Comparison(name, metric, datasets, tuple(compared), improvements)
