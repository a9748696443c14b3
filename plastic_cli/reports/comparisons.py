"""Comparisons of settings over the data sets that they share."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli.config.model import Config
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.grouping import Setting, data_notes, settings_across
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.results import Result, RunValues, more_is_better
from plastic_cli.reports.tables import DEFAULT_STYLE, SETTING_EXPLAINED, common_metric
from plastic_cli.statistics.aggregates import (
    Profile,
    improvement_method,
    interquartile_mean_interval,
    interquartile_method,
    performance_profile,
    probability_of_improvement_interval,
)
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval
from plastic_cli.tables import Column, Number, Table

MOST_COMPARED = 8
"""The number of best settings whose pairs and profiles are shown: 28 pairs can still be read, 435 cannot."""

PROFILE_THRESHOLDS = 201

_SHARES = ("accuracy", "error")
"""Metrics from 0 to 1 are comparable across data sets; other metrics are compared within one data set."""


@dataclass(frozen=True)
class Compared:
    """The scores (runs, data sets) of one setting, in the units of the metric, and their interquartile mean.

    left_out: number of runs that do not count, because they have no finite value or another data set has fewer seeds.
    """

    setting: Setting
    scores: NDArray[np.float64] = field(repr=False)
    iqm: Interval
    left_out: int = 0


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of one setting is better than a run of another on the same data set."""

    first: Setting
    second: Setting
    probability: Interval


@dataclass(frozen=True)
class Comparison:
    """Settings compared in one metric over the data sets that all of them have, the best first.

    name: for files and labels, unique in a report. improvements: of each pair of the first `MOST_COMPARED` settings,
    the better one first; a setting with one seed is in no pair.
    """

    name: str
    metric: str
    datasets: tuple[str, ...]
    compared: tuple[Compared, ...]
    improvements: tuple[Improvement, ...]

    @property
    def subject(self) -> str:
        """Metric and data sets: "test accuracy on digits, mnist"."""
        datasets = ", ".join(name for name in self.datasets if name)
        return f"{self.quantity.name} on {datasets}" if datasets else self.quantity.name

    @property
    def quantity(self) -> Metric:
        """The name and unit of the metric, as the rules of the settings name it."""
        return common_metric(self.metric, [each.setting.rule for each in self.compared])


def compare(
    runs: pd.DataFrame, results: Sequence[Result], models: Mapping[str, type[Config]] | None = None
) -> list[Comparison]:
    """Compare the settings of `results`; `runs` contains their runs.

    For each main metric the first comparison is over the largest collection of data sets that two settings share, with
    all settings that have these data sets. Further comparisons follow for settings that are in none yet. A setting that
    shares no data set with another is not compared. Metrics that do not lie between 0 and 1 are compared within each
    data set.
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


def unique_name(text: str, used: Collection[str]) -> str:
    """Return a name of letters, digits and hyphens for a file or an id that is not in `used`."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "unnamed"
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(each for each in numbered if each not in used)


def not_compared(results: Sequence[Result], comparisons: Sequence[Comparison]) -> int:
    """Return the number of results in no comparison, because no other setting has their data set and metric."""
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

    Thresholds are in the units of the metric. For a metric that should be small, a run is better below a threshold.
    """
    best = comparison.compared[:MOST_COMPARED]
    sign = 1 if more_is_better(comparison.metric) else -1
    scores = np.concatenate([each.scores.ravel() for each in best])
    low, high = float(scores.min()), float(scores.max())
    margin = 0.02 * (high - low) or 0.02 * abs(high) or 0.02
    levels = np.linspace(low - margin, high + margin, PROFILE_THRESHOLDS)
    found = []
    for each in best:
        profile = performance_profile(sign * each.scores, sign * levels)
        found.append((each.setting, Profile(levels, profile.share, profile.low, profile.high)))
    return found


def iqm_table(comparison: Comparison, style: NumberStyle = DEFAULT_STYLE) -> Table:
    """Return the table of interquartile means."""
    compared = comparison.compared
    several = len(comparison.datasets) > 1
    metric = comparison.quantity
    # The standard deviation does not belong to an interquartile mean.
    style = replace(style, deviation=False)
    heading = style.heading(replace(metric, name="interquartile mean"))
    columns = [Column("rule", names_row=True), Column("setting", names_row=True)]
    columns += [Column("n", numeric=True), Column(heading, numeric=True)]
    columns += [Column(dataset, numeric=True, optional=True) for dataset in comparison.datasets] if several else []
    rows = []
    for each in compared:
        means = [float(each.scores[:, index].mean()) for index in range(len(comparison.datasets))]
        row = [each.setting.rule, each.setting.text or None, each.iqm.n, style.estimate(each.iqm, metric)]
        rows.append((*row, *(Number(style.text(mean, metric), "", mean) for mean in means if several)))
    better = "larger" if more_is_better(comparison.metric) else "smaller"
    caption = (
        f"Mean of the middle half of the {metric.name} of all runs ({better} is better), with n seeds on each data set."
        " With fewer than four runs it is the mean."
    )
    if any(each.iqm.known for each in compared):
        caption += f" In brackets: {interquartile_method()}, if there are at least {MINIMUM_VALUES} seeds."
    caption += f" {SETTING_EXPLAINED}" if any(each.setting.text for each in compared) else ""
    caption += " The other columns are the means on each data set." if several else ""
    left_out = sum(each.left_out for each in compared)
    if left_out:
        runs = "1 run" if left_out == 1 else f"{left_out} runs"
        caption += f" Left out: {runs} without a finite value, or with more seeds than on another data set."
    caption += data_notes(group for each in compared for group in each.setting.groups.values())
    title = f"Interquartile means of {comparison.subject}"
    kept = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    return Table(
        title,
        caption,
        tuple(columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in rows),
    )


def improvement_table(comparison: Comparison) -> Table:
    """Return the table of the probabilities of improvement, with a caption that explains them.

    It has no rows if at most one setting has more than one seed.
    """
    rows = tuple((pair.first.label, pair.second.label, pair.probability) for pair in comparison.improvements)
    caption = (
        "Probability that a run of the first setting is better than a run of the second on the same data set; a tie"
        " counts half."
    )
    if any(pair.probability.known for pair in comparison.improvements):
        caption += f" In brackets: {improvement_method()}, if there are at least {MINIMUM_VALUES} seeds."
    repeated = sum(each.iqm.n > 1 for each in comparison.compared)
    single = len(comparison.compared) - repeated
    if single:
        caption += f" Left out: {'1 setting' if single == 1 else f'{single} settings'} with one seed."
    if repeated > MOST_COMPARED:
        caption += f" Pairs among the best {MOST_COMPARED} of {repeated} settings."
    apart = [pair for pair in comparison.improvements if pair.probability.mean in (0.0, 1.0)]
    if apart:
        seeds = {id(each.setting): each.iqm.n for each in comparison.compared}
        pairs = [sorted((seeds[id(pair.first)], seeds[id(pair.second)])) for pair in apart]
        few, more = min(pairs, key=lambda pair: math.comb(sum(pair), pair[0]))
        times = math.comb(few + more, few) ** len(comparison.datasets)
        counts = f"{few} and {more} seeds" if few != more else f"{few} seeds each"
        caption += (
            f" A probability of 1 only says that the runs do not overlap. With {counts} on every data set, this happens"
            f" for two equal rules in one of {times} cases, in each direction."
        )
    return Table(
        f"Probability of improvement in {comparison.subject}",
        caption,
        (Column("first", names_row=True), Column("second", names_row=True), Column("probability", numeric=True)),
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
    """Return the collections of data sets to compare over, so that each setting that can be compared is in one."""
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
        # A collection is used if it adds a setting or, for a metric that is compared within one data set, a data set.
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
        # Each data set has the same weight: of each, as many of the first seeds as the smallest one has.
        fewest = min(len(column) for column in finite)
        scores = np.column_stack([column[:fewest] for column in finite])
        left_out = sum(len(column) for column in columns) - scores.size
        compared.append(Compared(setting, scores, interquartile_mean_interval(scores), left_out))
    compared.sort(key=lambda each: -sign * each.iqm.mean)
    # One seed says nothing about the probability that another run is better.
    repeated = [each for each in compared if each.iqm.n > 1]
    improvements = tuple(
        Improvement(
            first.setting,
            second.setting,
            probability_of_improvement_interval(sign * first.scores, sign * second.scores),
        )
        for first, second in combinations(repeated[:MOST_COMPARED], 2)
    )
    return Comparison(name, metric, datasets, tuple(compared), improvements)
