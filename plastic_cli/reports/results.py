"""The results of each group of runs, and the verdicts on published claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli.reports.claims import Claim, Context, PublishedFigures, Unmeasured, Verdict, VerdictWord, judge
from plastic_cli.reports.grouping import CONFIG_PREFIX, REFERENCE, Group, setting_text
from plastic_cli.reports.stages import is_stage_of, stage_defaults
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.stages import StageRecord, read_stages
from plastic_cli.statistics.intervals import Interval, mean_intervals

ACCURACY_METRIC, CHANCE_METRIC, LOSS_METRIC = "test/accuracy", "test/chance", "test/loss"
TRAINING_SECONDS = "training_seconds"
STAGES = "stages"
"""The column of a frame of runs that holds the records of stages of runs without a folder."""
CONTROL = "control"
"""The split of the metrics of a control that a run includes."""

_LESS_IS_BETTER = ("loss", "error", "forgetting", "seconds", "angle", "perplexity")


@dataclass(frozen=True)
class Result:
    """The result of a group.

    metric: the main metric of the group; None if its runs stored none. value, loss, seconds: intervals over the seeds;
    seconds are those of training, without imports, compilation and evaluation. verdict: on the most specific claim
    about the main metric whose conditions the group meets. control: the main metric of the control that the runs
    include. chance: the value of a guess, if the runs store it.
    """

    group: Group
    metric: str | None
    value: Interval
    loss: Interval
    seconds: Interval
    verdict: Verdict | None = None
    control: Interval | None = None
    chance: Interval | None = None


@dataclass(frozen=True)
class ClaimResult:
    """A published result, and the verdict of one group that meets its conditions (group None: there is none).

    reference: the verdict of the reference, if it was asked for and has runs that meet the conditions.
    """

    rule: str
    entry: Claim | Context | Unmeasured
    group: Group | None = None
    verdict: Verdict | None = None
    reference: Verdict | None = None

    @property
    def word(self) -> VerdictWord:
        """The verdict as one word."""
        return self.verdict.word if self.verdict else "untested"

    @property
    def reason(self) -> str | None:
        """The reason for the verdict, or for its absence."""
        if isinstance(self.entry, Unmeasured):
            return self.entry.unmeasured
        return self.verdict.reason if self.verdict else None


def metric_columns(runs: pd.DataFrame) -> list[str]:
    """Return the columns of `runs` that hold final metrics, in their order."""
    return [column for column in runs.columns if "/" in column and not column.startswith(CONFIG_PREFIX)]


def more_is_better(metric: str) -> bool:
    """Return whether a larger value of `split/metric` is better, by the name of the metric."""
    return not metric.rpartition("/")[2].endswith(_LESS_IS_BETTER)


def summarize(
    runs: pd.DataFrame, groups: Sequence[Group], published: Mapping[str, PublishedFigures] | None = None
) -> list[Result]:
    """Return the result of each group. `runs` must contain all runs of the groups."""
    values = RunValues(runs)
    metrics = _main_metrics(runs, groups, values)
    losses = [LOSS_METRIC if metric != LOSS_METRIC else None for metric in metrics]
    main = values.intervals(groups, metrics)
    loss = values.intervals(groups, losses)
    seconds = values.intervals(groups, [TRAINING_SECONDS] * len(groups))
    controls = [metric and f"{CONTROL}/{metric.rpartition('/')[2]}" for metric in metrics]
    control = values.intervals(groups, controls)
    chance = values.intervals(groups, [CHANCE_METRIC if metric == ACCURACY_METRIC else None for metric in metrics])
    alike: dict[tuple[str, str | None], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.rule, group.source), []).append(group)
    results = []
    for index, group in enumerate(groups):
        metric = metrics[index]
        claim = _most_specific(published.get(group.rule) if published else None, group, metric)
        verdict = _verdict(claim, group, alike[group.rule, group.source], values) if claim else None
        measured = main[index], loss[index], seconds[index]
        results.append(Result(group, metric, *measured, verdict, control[index], chance[index]))
    return results


def judge_claims(
    runs: pd.DataFrame, groups: Sequence[Group], published: Mapping[str, PublishedFigures]
) -> list[ClaimResult]:
    """Return the claims of each rule with their verdicts, one for each group that meets the conditions of a claim.

    Only groups of own runs have a verdict; that of the reference stands beside it. Figures of other methods follow, if
    a group meets their conditions.
    """
    values = RunValues(runs)
    rows: list[ClaimResult] = []
    for rule, figures in published.items():
        of_rule = [group for group in groups if group.rule == rule]
        own = [group for group in of_rule if group.source != REFERENCE]
        shipped = [group for group in of_rule if group.source == REFERENCE]
        for claim in figures.claims:
            references = [
                (group, _verdict(claim, group, shipped, values)) for group in shipped if claim.holds_for(group)
            ]
            matching = [group for group in own if claim.holds_for(group)]
            for group in matching:
                verdict = _verdict(claim, group, own, values)
                rows.append(ClaimResult(rule, claim, group, verdict, _nearest_verdict(references, group)))
            if not matching:
                rows.append(ClaimResult(rule, claim, None, judge(claim, []), _nearest_verdict(references)))
        rows.extend(ClaimResult(rule, entry) for entry in figures.unmeasured)
        rows.extend(
            ClaimResult(rule, entry) for entry in figures.context if any(entry.holds_for(group) for group in of_rule)
        )
    return rows


def _verdict(claim: Claim, group: Group, groups: Sequence[Group], values: RunValues) -> Verdict:
    """Judge a claim by a group; a second setting is one of `groups`."""
    options = claim.against or claim.control_setting
    return _judged(claim, group, values, _setting_with(options, group, groups, values) if options else None)


def _nearest_verdict(verdicts: Sequence[tuple[Group, Verdict]], own: Group | None = None) -> Verdict | None:
    """Return the verdict of the group with the configuration of `own`, else of the one with most seeds."""

    def rank(pair: tuple[Group, Verdict]) -> tuple[bool, int]:
        group, verdict = pair
        return own is not None and (group.config, group.data) == (own.config, own.data), verdict.interval.n

    return max(verdicts, key=rank)[1] if verdicts else None


def _judged(claim: Claim, group: Group, values: RunValues, other: Group | None = None) -> Verdict:
    """Judge a claim by a group; if the claim compares two settings, by the differences from `other`, seed by seed.

    other: the second setting of the claim, with which it compares or which is its control.

    For a claim about a stage, only runs with this stage count; a seed without it did not fail.
    """
    own = values.of_claim(group, claim, claim.metric)
    seeds = values.seeds(group)
    failed_seeds = {*group.failed_seeds}
    if claim.against:
        if other is None:
            empty = judge(claim, [])
            return replace(empty, reason=f"no run with {setting_text(claim.against)}, otherwise equal")
        theirs = dict(zip(values.seeds(other), values.of_claim(other, claim, claim.metric), strict=True))
        pairs = [(value, theirs[seed]) for seed, value in zip(seeds, own, strict=True) if seed in theirs]
        failed_seeds |= {*other.failed_seeds}
    elif claim.against_metric is not None:
        pairs = list(zip(own, values.of_claim(group, claim, claim.against_metric), strict=True))
    else:
        measured = [value for value in own if value is not None]
        controls = values.of_claim(other, claim, claim.metric) if other else values.control_of(group, claim)
        control = [value for value in controls if value is not None and math.isfinite(value)]
        return _with_command(judge(claim, measured, failed=len(failed_seeds), control=control), group)
    related = [_relation(claim, one, two) for one, two in pairs if one is not None and two is not None]
    return _with_command(judge(claim, related, failed=len(failed_seeds)), group)


def _relation(claim: Claim, first: float, second: float) -> float:
    """Return the difference or the ratio of two values, as the claim says."""
    if claim.relation == "ratio":
        return math.nan if second == 0 else first / second
    return first - second


def _with_command(verdict: Verdict, group: Group) -> Verdict:
    """Return the verdict; if it has no value because a stage is missing, its reason says which command to run."""
    claim = verdict.claim
    if claim.stage is None or verdict.interval.n or verdict.lost or not group.runs:
        return verdict
    return replace(verdict, reason=f"no `plastic {claim.command}` of these runs")


def _setting_with(options: Mapping[str, Any], group: Group, groups: Sequence[Group], values: RunValues) -> Group | None:
    """Return the group that has the values of `options` and otherwise the configuration of `group`.

    A field may differ if it has no value in one of the two. Of several such groups the one with most common seeds is
    returned.
    """

    def is_otherwise_equal(other: Group) -> bool:
        names = {*group.config, *other.config} - {*options}
        pairs = [(group.config.get(name), other.config.get(name)) for name in names]
        return all(first == second or first is None or second is None for first, second in pairs)

    candidates = [
        other
        for other in groups
        if other is not group
        and other.data == group.data
        and all(other.config.get(name) == value for name, value in options.items())
        and is_otherwise_equal(other)
    ]
    seeds = set(values.seeds(group))
    return max(candidates, key=lambda other: len(seeds.intersection(values.seeds(other))), default=None)


class RunValues:
    """The columns of a frame of runs, by run id, and the results of their stages."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = runs
        self._position = {str(run): position for position, run in enumerate(runs["run"])}
        self._columns: dict[str, NDArray[np.float64]] = {}
        self._stages: dict[str, list[StageRecord]] = {}

    def of(self, group: Group, metric: str) -> NDArray[np.float64]:
        """Return the values of a metric (n,), one per run of the group; NaN for a run without the metric."""
        if metric not in self._columns:
            if metric in self._runs.columns:
                column = pd.to_numeric(self._runs[metric], errors="coerce").to_numpy(
                    dtype=np.float64, na_value=math.nan
                )
            else:
                column = np.full(len(self._runs), math.nan)
            self._columns[metric] = column
        return self._columns[metric][[self._position[run] for run in group.runs]]

    def of_claim(self, group: Group, claim: Claim, metric: str) -> list[float | None]:
        """Return the values of a metric that a claim names, one per run of the group.

        NaN is a value that is not finite or missing; None is the result of a stage that was not carried out.
        """
        trained = self.of(group, metric).tolist()
        if claim.stage is None:
            return list(trained)
        values: list[float | None] = []
        for run, value in zip(group.runs, trained, strict=True):
            stage = self._newest_stage(run, group.rule, claim)
            if stage is None:
                values.append(None)
                continue
            # The result to compare with may be a metric of training.
            found = stage.results.get(metric, value if metric != claim.metric else None)
            values.append(math.nan if found is None else float(found))
        return values

    def control_of(self, group: Group, claim: Claim) -> list[float | None]:
        """Return the values of the control of a claim, one per run of the group; nothing if there is none."""
        if claim.control_metric is not None:
            return self.of_claim(group, claim, claim.control_metric)
        if claim.stage is not None:
            return []
        return list(self.of(group, f"{CONTROL}/{claim.metric.rpartition('/')[2]}").tolist())

    def _newest_stage(self, run: str, rule: str, claim: Claim) -> StageRecord | None:
        """Return the newest record of the stage that a claim is about with its result; None if a run has none."""
        if run not in self._stages:
            place, columns = self._position[run], self._runs.columns
            stored, folder = (self._runs[name].iloc[place] if name in columns else None for name in (STAGES, "folder"))
            if isinstance(stored, list):
                self._stages[run] = stored
            else:
                self._stages[run] = read_stages(Path(folder)) if isinstance(folder, str) else []
        fitting = [
            record
            for record in self._stages[run]
            if record.verb == claim.stage
            and claim.metric in record.results
            and is_stage_of(claim.options, record.config, stage_defaults(rule, record.verb))
        ]
        return fitting[-1] if fitting else None

    def seeds(self, group: Group) -> list[int]:
        """Return the seed of each run of the group."""
        column = self._runs["seed"]
        return [int(column.iloc[self._position[run]]) for run in group.runs]

    def intervals(self, groups: Sequence[Group], metrics: Sequence[str | None]) -> list[Interval]:
        """Return the interval of a metric of each group; for a group without a metric an empty one."""
        return mean_intervals(
            [self.of(group, metric) if metric else [] for group, metric in zip(groups, metrics, strict=True)]
        )


def _main_metrics(runs: pd.DataFrame, groups: Sequence[Group], values: RunValues) -> list[str | None]:
    available = metric_columns(runs)
    ordered = [
        *(metric for metric in MAIN_METRICS if metric in available),
        *(metric for metric in available if metric.startswith("test/") and metric not in MAIN_METRICS),
        *(metric for metric in available if not metric.startswith("test/") and metric not in MAIN_METRICS),
    ]
    return [
        next((metric for metric in ordered if np.isfinite(values.of(group, metric)).any()), None) for group in groups
    ]


def _most_specific(figures: PublishedFigures | None, group: Group, metric: str | None) -> Claim | None:
    if figures is None:
        return None
    matching = [
        claim
        for claim in figures.claims
        if claim.metric == metric and claim.stage is None and not claim.is_comparison and claim.holds_for(group)
    ]
    return max(matching, key=lambda claim: len(claim.conditions), default=None)
