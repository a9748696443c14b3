"""Where runs stand in the reference: among runs of their setting, next to controls, and next to published figures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.plugins.models import train_model
from plastic_cli.reports.circumstances import facts_of
from plastic_cli.reports.claims import Claim, PublishedFigures, Verdict, judge, read_claims
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import (
    CONFIG_PREFIX,
    SOURCE,
    Group,
    chosen_classes,
    differing_options,
    group_runs,
    plain_value,
    setting_text,
)
from plastic_cli.reports.reference_settings import (
    COMPLETED,
    ReferenceSetting,
    Row,
    control_of_all,
    nearest_settings,
    own_control,
    same_setting,
    version_text,
)
from plastic_cli.reports.results import CONTROL, ClaimResult, judge_claims
from plastic_cli.reports.standing_tables import as_html, as_text
from plastic_cli.reports.with_reference import PREFIX, reference_runs
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import RunRecord, read_record
from plastic_cli.runs.reference import Reference
from plastic_cli.runs.store import default_folder
from plastic_cli.runs.stored import StoredRun
from plastic_cli.statistics.intervals import Interval, difference_interval, mean_interval, prediction_interval

NEAREST = 3
"""Number of nearest settings that are shown if the reference does not have the setting itself."""

RESULT_COLUMNS = ["metric", "run", "seed", "value", "mean", "low", "high", "n", "sd", "position"]
MEAN_COLUMNS = ["metric", "mean", "runs", "inside", "reference_mean", "low", "high", "n", "sd", "position"]
REPEAT_COLUMNS = [
    "run",
    "seed",
    "reference_run",
    "same_run",
    "results",
    "equal",
    "furthest",
    "value",
    "reference_value",
    "made_with",
]
NEAREST_COLUMNS = ["rule", "options", "differing", "version", "metric", "mean", "low", "high", "n"]
PAIRED_COLUMNS = ["metric", "pairs", "difference", "low", "high"]
CONTROL_COLUMNS = ["control", *NEAREST_COLUMNS, "difference", "difference_low", "difference_high"]
PUBLISHED_COLUMNS = [
    *("id", "statement", "metric", "published", "words", "comparison", "band_low", "band_high", "value", "position"),
    *("reference_mean", "reference_low", "reference_high", "reference_n", "verdict", "reason", "reference_setting"),
    *("source", "link"),
]


@dataclass(frozen=True)
class JudgedClaim:
    """A published figure whose conditions some runs meet.

    verdict: that of the reference. value: of the runs, the mean over their seeds; NaN if it is not measured.
    other_setting: the setting that was judged, if the reference does not have that of the runs.
    """

    claim: Claim
    verdict: Verdict
    value: float
    other_setting: str | None = None


class Standing:
    """Where completed runs of one setting stand in the reference.

    `results`: for each metric of each run, the prediction interval of the runs of the same setting, and whether the
    run lies inside, below or above. `means`: the same for the mean of several runs. `repeats`: runs whose seed is in
    the reference, and whether their results are equal to the bit. `paired`: the differences from those, seed by seed.
    `nearest`: the nearest settings, if the reference
    has no run of this one. `controls`: the controls of the rule on the same data. `published`: the published figures
    whose conditions the runs meet, with the verdict of the reference. `notes`: what limits the comparison, in words.
    """

    def __init__(self, folders: Sequence[Path], reference: Reference) -> None:
        for folder in folders:
            check_completed(StoredRun(folder))
        records = [read_record(folder) for folder in folders]
        check_one_setting(records)
        if reference.problem is not None:
            raise PlasticError(reference.problem)
        self.records = tuple(sorted(records, key=lambda record: (record.seed, record.created)))
        self.reference = reference
        self._folders = {folder.absolute().name: folder for folder in folders}
        self.first = self.records[0]
        self.model = training_models([self.first.rule]).get(self.first.rule)
        self.same = same_setting(reference, self.first)

    @cached_property
    def rows(self) -> list[Row]:
        """The runs of the reference on the data set of the runs."""
        return [row for row in self.reference.rows() if row["dataset"] == self.first.dataset]

    @property
    def _models(self) -> dict[str, type[Config]] | None:
        return {self.first.rule: self.model} if self.model else None

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """What `group_runs` and `judge_claims` need of the runs."""
        return pd.DataFrame(
            [
                {
                    "run": each.run, "rule": each.rule, "dataset": each.dataset, "seed": each.seed,
                    "folder": str(self._folders[each.run]),
                    **{f"{CONFIG_PREFIX}{name}": value for name, value in each.config.items()}, **each.summary,
                }
                for each in self.records
            ]
        )  # fmt: skip

    @cached_property
    def group(self) -> Group:
        """The setting of the runs."""
        (group,) = group_runs(self._frame, self._models)
        return group

    @property
    def own_version(self) -> str:
        """The version of plastic that stored the runs, with that of the rule if it does not come with plastic."""
        return version_text(self.first.versions.get("plastic"), self.first.versions.get("rule"))

    @property
    def metrics(self) -> list[str]:
        """The metrics of the runs, the main ones first."""
        return ordered_metrics(name for record in self.records for name in record.summary)

    @property
    def metric(self) -> str | None:
        """The main metric."""
        return next(iter(self.metrics), None)

    @property
    def value(self) -> Interval:
        """The mean of the main metric over the runs."""
        return mean_interval([_value(record, self.metric) for record in self.records] if self.metric else [])

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per metric and run, with RESULT_COLUMNS.

        low and high are the prediction interval of the reference runs of this setting with another seed than the run.
        position: "inside", "below" or "above"; "unknown" with fewer than three of these runs; "not finite".
        """
        rows = []
        for metric in self.metrics:
            for record in self.records:
                interval = prediction_interval(self.same.values(metric, [record.seed]) if self.same else [])
                value = _value(record, metric)
                rows.append(
                    {
                        "metric": metric, "run": record.run, "seed": record.seed, "value": value,
                        **_bounds(interval), "position": position(value, interval),
                    }
                )  # fmt: skip
        return pd.DataFrame(rows, columns=RESULT_COLUMNS)

    @cached_property
    def means(self) -> pd.DataFrame:
        """One row per metric with MEAN_COLUMNS: the mean of several runs; empty for one run.

        low and high are the prediction interval of the mean of this number of further runs. inside: the number of runs
        that lie inside their own prediction interval.
        """
        rows = []
        for metric in self.metrics if len(self.records) > 1 else []:
            own = mean_interval([_value(record, metric) for record in self.records])
            reference = self.same.values(metric) if self.same else []
            interval = prediction_interval(reference, of=max(own.n, 1))
            of_runs = self.results[self.results["metric"] == metric]
            bounds = _bounds(interval)
            rows.append(
                {
                    "metric": metric, "mean": own.mean, "runs": own.n,
                    "inside": int((of_runs["position"] == "inside").sum()),
                    "reference_mean": bounds.pop("mean"), **bounds, "position": position(own.mean, interval),
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=MEAN_COLUMNS)

    @cached_property
    def repeats(self) -> pd.DataFrame:
        """One row per run whose seed the reference has on the same data, with REPEAT_COLUMNS.

        same_run: whether it is the stored run itself. results: number of results that both have, without times; equal:
        how many of them are equal to the bit; furthest: the result that differs most, with both values; made_with: what
        the two were made with that differs.
        """
        rows = []
        of_seed = {row["seed"]: row for row in self.same.rows} if self.same and self.same.same_data else {}
        for record in self.records:
            if record.seed in of_seed:
                theirs = self.reference.record(of_seed[record.seed]["run"])
                rows.append({"run": record.run, "seed": record.seed, **_compared(record, theirs)})
        return pd.DataFrame(rows, columns=REPEAT_COLUMNS)

    @cached_property
    def paired(self) -> pd.DataFrame:
        """One row per metric with PAIRED_COLUMNS: several runs minus the runs of the reference with the same seeds.

        low and high are the paired t interval of the mean difference; missing with fewer than three pairs. A run that
        is itself in the reference is no pair.
        """
        of_seed = {row["seed"]: row for row in self.same.rows} if self.same and self.same.same_data else {}
        pairs = [
            (record, row["summary"])
            for record in self.records
            if (row := of_seed.get(record.seed)) is not None and row["run"] != record.run
        ]
        rows = []
        for metric in self.metrics if len(pairs) > 1 else []:
            interval = mean_interval([_value(record, metric) - _number(theirs.get(metric)) for record, theirs in pairs])
            rows.append(
                {
                    "metric": metric, "pairs": interval.n, "difference": interval.mean,
                    "low": interval.low, "high": interval.high,
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=PAIRED_COLUMNS)

    @cached_property
    def nearest(self) -> pd.DataFrame:
        """The nearest settings of the reference, with NEAREST_COLUMNS; empty if the reference has the setting itself.

        options: those that differ, with the value there and, in brackets, that of the runs.
        """
        return pd.DataFrame([self._described(setting) for setting in self._nearest], columns=NEAREST_COLUMNS)

    @cached_property
    def _nearest(self) -> list[ReferenceSetting]:
        return [] if self.same is not None else nearest_settings(self.rows, self.first, self.model, NEAREST)

    @cached_property
    def controls(self) -> pd.DataFrame:
        """The controls of the runs on their data set, as far as the reference has them, with CONTROL_COLUMNS.

        The setting of a control is the one that is nearest to that of the runs; options names what else differs.
        difference: the mean of the runs minus that of the control, and its interval: of three or more runs Welch's t
        interval; of fewer, that of the difference from the mean of as many further runs of the control.
        """
        found = [(name, setting, self._main_values(setting)) for name, setting in self._controls]
        included = f"{CONTROL}/{self.metric.partition('/')[2]}" if self.metric else ""
        if self.same is not None and (values := self.same.values(included)):
            found.insert(0, ("control of each run", self.same, values))
        own = [_value(record, self.metric) for record in self.records]
        rows = []
        for name, setting, values in found:
            difference = _difference(own, values)
            rows.append(
                {
                    "control": name, **self._described(setting), **_mean_and_bounds(mean_interval(values)),
                    "difference": difference.mean, "difference_low": difference.low,
                    "difference_high": difference.high,
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=CONTROL_COLUMNS)

    @cached_property
    def _controls(self) -> list[tuple[str, ReferenceSetting]]:
        """Name and nearest setting of each control with the same test images."""
        own = chosen_classes(self.first.config)
        rows = [row for row in self.rows if chosen_classes(row["config"]) == own]
        found: list[tuple[str, ReferenceSetting]] = []
        if self.model is not None and issubclass(self.model, TrainConfig):
            for name, options in self.model.controls.items():
                found += _named(name, own_control(rows, self.first, self.model, options))
        for rule, model in _control_models({str(row["rule"]) for row in rows} - {self.first.rule}):
            found += _named(rule, control_of_all(rows, self.first, model, rule, None))
            for name in model.controls:
                found += _named(name, control_of_all(rows, self.first, model, rule, name))
        return found

    def _described(self, setting: ReferenceSetting) -> dict[str, Any]:
        """Return a setting of the reference as a row: what differs, and the mean of the main metric."""
        return {
            "rule": setting.rule,
            "options": differences_text(setting.differing, setting.config, self.first.config),
            "differing": len(setting.differing),
            "version": setting.version,
            "metric": self.metric,
            **_mean_and_bounds(mean_interval(self._main_values(setting))),
        }

    def _main_values(self, setting: ReferenceSetting) -> list[float]:
        return setting.values(self.metric) if self.metric else []

    @cached_property
    def judged(self) -> list[JudgedClaim]:
        """The claims whose conditions the runs meet, with the verdicts of the reference and of the runs."""
        rule = discover().rules.get(self.first.rule)
        text = rule.claims_text() if rule else None
        every = read_claims(self.first.rule, text).claims if text else ()
        claims = tuple(each for each in every if each.holds_for(self.group))
        if not claims:
            return []
        figures = {self.first.rule: PublishedFigures(self.first.rule, claims)}
        of_runs = {row.entry.id: row.verdict for row in judge_claims(self._frame, [self.group], figures)}
        datasets = None if self.first.dataset is None else {self.first.dataset}
        runs = reference_runs(self.reference, [self.first.rule], datasets).drop(columns=SOURCE)
        completed = runs["status"] == COMPLETED
        groups = group_runs(runs[completed], self._models, runs[~completed])
        judged = judge_claims(runs[completed], groups, figures)
        same = {f"{PREFIX}{row['run']}" for row in self.same.rows} if self.same else set()
        found = []
        for claim in claims:
            having = [each for each in judged if each.entry.id == claim.id and each.group is not None]
            # Of several groups that meet the conditions: that of the same setting, else the one with most seeds.
            best = max(having, key=lambda each: (_common(each, same), len(_runs_of(each))), default=None)
            verdict = best.verdict if best and best.verdict else judge(claim, [])
            other = best.group.setting if best and best.group and not _common(best, same) else None
            of_claim = of_runs.get(claim.id)
            found.append(JudgedClaim(claim, verdict, of_claim.interval.mean if of_claim else math.nan, other))
        return found

    @cached_property
    def published(self) -> pd.DataFrame:
        """One row per published figure whose conditions the runs meet, with PUBLISHED_COLUMNS.

        value: the mean of the runs; position: whether it lies inside the band that the claim allows. The verdict is
        that of the runs of the reference. reference_setting: their setting, if it is another one. published is missing
        if no number was published; then words has what was.
        """
        rows = []
        for each in self.judged:
            claim, interval = each.claim, each.verdict.interval
            band = Interval(claim.value, claim.band.low, claim.band.high, 1, "")
            rows.append(
                {
                    "id": claim.id, "statement": claim.statement, "metric": claim.metric,
                    "published": None if claim.words else claim.value, "words": claim.words,
                    "comparison": claim.comparison,
                    "band_low": band.low if math.isfinite(band.low) else None,
                    "band_high": band.high if math.isfinite(band.high) else None,
                    "value": each.value,
                    "position": "unknown" if math.isnan(each.value) else _within(each.value, band),
                    "reference_mean": interval.mean, "reference_low": interval.low, "reference_high": interval.high,
                    "reference_n": interval.n, "verdict": each.verdict.word, "reason": each.verdict.reason,
                    "reference_setting": each.other_setting, "source": claim.source, "link": claim.link,
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=PUBLISHED_COLUMNS)

    @cached_property
    def notes(self) -> list[str]:
        """What limits the comparison, as sentences."""
        record, rule, data = self.first, self.first.rule, self.first.dataset
        everything = self.reference.rows()
        of_rule = [row for row in everything if row["rule"] == rule]
        on_data = sorted({str(row["dataset"]) for row in of_rule})
        notes = []
        if not of_rule:
            rules = ", ".join(sorted({str(row["rule"]) for row in everything})) or "no rule yet"
            notes.append(f"The reference has no run of {rule}. It has runs of {rules}.")
        elif str(data) not in on_data:
            notes.append(f"The reference has no run of {rule} on {data}. It has runs on {', '.join(on_data)}.")
        elif self.same is None:
            notes.append("The reference has no run of this setting. The nearest settings are shown.")
        else:
            notes += _notes_on(self.same, record)
        settings = (
            [("this setting", self.same)] if self.same else [("nearest settings", each) for each in self._nearest]
        )
        notes += _notes_on_data([*settings, *self._controls], record)
        if chosen_classes(record.config) and not self._controls:
            notes.append("The reference has no control with the same test images.")
        if record.data_note:
            notes.append(f"{data}: {record.data_note}.")
        return notes

    def __repr__(self) -> str:
        return as_text(self, width=80)

    def _repr_html_(self) -> str:
        return as_html(self)


def check_completed(run: StoredRun) -> None:
    """Raise UserError for a run that is not completed."""
    status = run.status
    if status != "completed":
        folder = run.folder.parent
        runs = "" if folder == default_folder().absolute() else f" --runs {shlex.quote(str(folder))}"
        more = "" if status == "failed" else f" Continue it: plastic train {run.rule} --resume {run.id}{runs}"
        raise UserError(f"run {run.id} is not completed ({status}), so it is not compared with the reference.{more}")


def check_one_setting(records: Sequence[RunRecord]) -> None:
    """Raise UserError unless the runs differ only in their seed."""
    if not records:
        raise UserError("name at least one run to compare.")
    first = records[0]
    for record in records[1:]:
        if (
            record.rule != first.rule
            or record.data.get("checksum") != first.data.get("checksum")
            or differing_options(first.config, record.config)
        ):
            raise UserError(
                f"runs {first.run} and {record.run} differ in more than their seed: compare each with the reference."
            )


def ordered_metrics(names: Iterable[str]) -> list[str]:
    """Return metrics in the order of their importance: the main ones, other test results, controls, all others."""
    splits = ("test/", f"{CONTROL}/", "validation/")

    def key(name: str) -> tuple[int, int]:
        main = MAIN_METRICS.index(name) if name in MAIN_METRICS else len(MAIN_METRICS)
        return main, next((place for place, split in enumerate(splits) if name.startswith(split)), len(splits))

    return sorted(dict.fromkeys(names), key=key)


def position(value: float, interval: Interval) -> str:
    """Return where a value lies: "inside" an interval with its ends, "below", "above"; "unknown" without an interval.

    A value that is not finite is "not finite".
    """
    if not math.isfinite(value):
        return "not finite"
    return _within(value, interval) if interval.known else "unknown"


def _within(value: float, ends: Interval) -> str:
    if not math.isfinite(value):
        return "not finite"
    return "below" if value < ends.low else "above" if value > ends.high else "inside"


def differences_text(names: Sequence[str], theirs: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return the options that differ: "perturbations = 1 (here 16)"; an option that only they have is named alone."""
    texts = []
    for name in names:
        here = setting_text({name: plain_value(own.get(name))})
        words = name.replace("_", " ")
        short = here.removeprefix(f"{words} = ")
        texts.append(f"{setting_text({name: plain_value(theirs.get(name))})} (here {short})")
    return ", ".join(texts)


def _value(record: RunRecord, metric: str | None) -> float:
    return _number(record.summary.get(metric) if metric else None)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _difference(own: Sequence[float], control: Sequence[float]) -> Interval:
    """Return the mean of runs minus that of a control, with its interval.

    Of fewer than three runs the spread is not known: the interval is that of the difference from the mean of as many
    further runs of the control, so it contains 0 if the runs lie in the prediction interval of the control.
    """
    mean = mean_interval(own)
    if mean.known:
        return difference_interval(control, own)
    predicted = prediction_interval(control, of=max(mean.n, 1))
    return Interval(
        mean.mean - predicted.mean, mean.mean - predicted.high, mean.mean - predicted.low, predicted.n, predicted.method
    )


def _bounds(interval: Interval) -> dict[str, float | int]:
    return {**_mean_and_bounds(interval), "sd": interval.deviation}


def _mean_and_bounds(interval: Interval) -> dict[str, float | int]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}


def _named(name: str, setting: ReferenceSetting | None) -> list[tuple[str, ReferenceSetting]]:
    return [] if setting is None else [(name, setting)]


def _runs_of(judged: ClaimResult) -> set[str]:
    return set(judged.group.runs) if judged.group else set()


def _common(judged: ClaimResult, runs: set[str]) -> int:
    return len(_runs_of(judged) & runs)


def _control_models(rules: Iterable[str]) -> list[tuple[str, type[TrainConfig]]]:
    """Return those of the rules that are controls for all rules, with their training options."""
    found = []
    for rule in sorted(rules):
        with suppress(Exception):
            # A rule that is not installed or does not load has no controls that are known.
            model = train_model(find_rule(rule))
            if model.controls_all_rules:
                found.append((rule, model))
    return found


def _compared(record: RunRecord, theirs: RunRecord) -> dict[str, Any]:
    """Return how many results of a run and of the same run of the reference are equal to the bit."""
    common = [
        name
        for name in ordered_metrics(record.summary)
        if name in theirs.summary and metric_of(name, record.rule).unit != "s"
    ]
    pairs = {name: (_value(record, name), _value(theirs, name)) for name in common}
    differing = {name: pair for name, pair in pairs.items() if not _equal(*pair)}
    furthest = max(differing, key=lambda name: _relative(*differing[name]), default=None)
    value, reference = differing[furthest] if furthest else (math.nan, math.nan)
    own_facts, their_facts = facts_of(record), facts_of(theirs)
    names = [name for name in own_facts if name != "commit" and own_facts[name] != their_facts.get(name, "unknown")]
    made_with = [f"{name}: {their_facts.get(name, 'unknown')} (here {own_facts[name]})" for name in names]
    return {
        "reference_run": theirs.run, "same_run": theirs.run == record.run,
        "results": len(common), "equal": len(common) - len(differing), "furthest": furthest,
        "value": value, "reference_value": reference, "made_with": "; ".join(made_with) or None,
    }  # fmt: skip


def _equal(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _relative(first: float, second: float) -> float:
    """Return the difference of two numbers relative to the larger one; infinite if only one is finite."""
    if not math.isfinite(first) or not math.isfinite(second):
        return math.inf
    return abs(first - second) / max(abs(first), abs(second))


def _notes_on(same: ReferenceSetting, record: RunRecord) -> list[str]:
    """Return how the runs of the reference were made differently from a run of their setting, as sentences."""
    notes = []
    own = version_text(record.versions.get("plastic"), record.versions.get("rule"))
    if same.version != own:
        notes.append(f"The reference was measured with plastic {same.version}, and this with plastic {own}.")
    if same.failed:
        total = same.failed + len(same.rows)
        notes.append(f"{same.failed} of {total} runs of this setting in the reference failed and have no result.")
    return notes


def _notes_on_data(settings: Sequence[tuple[str, ReferenceSetting]], record: RunRecord) -> list[str]:
    """Return which of the named settings were measured on other data than a run, and what is special about those."""
    other = [(name, setting) for name, setting in settings if not setting.same_data]
    here = str(record.data.get("checksum"))[:8]
    notes: dict[str, None] = {}
    for checksum in dict.fromkeys(setting.rows[0]["data_checksum"] for _, setting in other):
        having = [(name, setting) for name, setting in other if setting.rows[0]["data_checksum"] == checksum]
        which = "" if len(having) == len(settings) else f" ({', '.join(dict.fromkeys(name for name, _ in having))})"
        notes[
            f"The reference{which} was measured on other data under the name {record.dataset}: its checksum is"
            f" {str(checksum)[:8]}, here it is {here}."
        ] = None
        for special in dict.fromkeys(row["data_note"] for _, setting in having for row in setting.rows):
            if special and special != record.data_note:
                notes[f"About the data of the reference: {special}."] = None
    return list(notes)
