"""A comparison of chosen runs: the options that differ, the results with their differences, and what else differs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError
from plastic_cli.figures.curves import mean_curves, smoothed, smoothing_text
from plastic_cli.figures.metric_rows import has_curve, label_text, label_values, metric_rows, number_first, split_words
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.circumstances import facts_of
from plastic_cli.reports.content import training_models
from plastic_cli.reports.curves import ChosenRuns, main_metric
from plastic_cli.reports.grouping import Group, group_runs, plain_value, short_data_names
from plastic_cli.reports.results import metric_columns
from plastic_cli.reports.side_tables import TIMES, SideTableName, as_html, as_text, one_table
from plastic_cli.reports.standing import Standing
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import RunRecord
from plastic_cli.runs.reference import read_reference
from plastic_cli.statistics.intervals import (
    MINIMUM_VALUES,
    Interval,
    difference_interval,
    mean_interval,
)

if TYPE_CHECKING:
    from plotnine import ggplot

    from plastic_cli.figures.view import View

MOST_SIDES = len(ascii_uppercase)

RESULT_COLUMNS = [
    "metric",
    "setting",
    "title",
    "mean",
    "low",
    "high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
]
"""Columns of `Comparison.results`; the differences are those from the first setting."""


@dataclass(frozen=True)
class Side:
    """One setting of a comparison, or one run. letter: A, B, ...; distinction: what it differs in from the others."""

    letter: str
    rule: str
    dataset: str | None
    distinction: str
    records: tuple[RunRecord, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(record.seed for record in self.records)

    @property
    def title(self) -> str:
        """The rule, the data and what distinguishes the side: "grlu on digits, perturbations = 16"."""
        on = f" on {self.dataset}" if self.dataset else ""
        return f"{self.rule}{on}" + (f", {self.distinction}" if self.distinction else "")


class Comparison:
    """Runs side by side. Runs that differ only in their seed form one setting, A, B, ...; A is the first one.

    If all runs have one setting, each of them is a side. `options`: the options that differ. `results`: the last value
    of each metric, its mean over the seeds and its difference from A. `circumstances`: versions, machine, data and
    commit, as far as they differ. `figure(metric)`: the curves over each other. `standing`: where runs of one setting
    stand in the reference.
    """

    def __init__(self, chosen: ChosenRuns) -> None:
        self.chosen = chosen
        self.sides, self.notes = _sides(chosen)
        self._models = training_models(side.rule for side in self.sides)

    @cached_property
    def options(self) -> pd.DataFrame:
        """The options that differ: one row per option, one column per setting, and the default.

        An option that the rule of a setting does not have is pandas.NA there. With several rules there is a column
        for the default of each.
        """
        return _options(self.sides, self._models)

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per metric and setting, with RESULT_COLUMNS.

        Differences are taken seed by seed where the settings have common seeds; `pairs` is the number of these, and
        missing where the interval is Welch's.
        """
        return _results(self.chosen.runs, self.sides)

    @cached_property
    def circumstances(self) -> pd.DataFrame:
        """Versions, machine, data and commit that differ: one row each, one column per setting."""
        return _circumstances(self.sides)

    @cached_property
    def standing(self) -> Standing | None:
        """Where the runs stand in the reference; None if they differ in more than their seed, or are not all completed.

        Of several runs with one seed the newest counts. Raises PlasticError if the reference cannot be read.
        """
        records = [record for side in self.sides for record in side.records]
        made = {(record.data.get("checksum"), json.dumps(record.versions, sort_keys=True)) for record in records}
        if not self.options.empty or len(made) > 1 or any(record.status != "completed" for record in records):
            return None
        newest = {record.seed: record for record in sorted(records, key=lambda record: (record.created, record.run))}
        folders = self.chosen.runs.set_index("run")["folder"]
        return Standing([Path(folders[record.run]) for record in newest.values()], read_reference())

    @property
    def facts(self) -> list[str]:
        """The names of what is known about how the runs were made, such as "version of torch"."""
        return list(dict.fromkeys(name for side in self.sides for record in side.records for name in facts_of(record)))

    @property
    def metrics(self) -> list[str]:
        """The metrics of the results, the main one first."""
        return list(dict.fromkeys(self.results["metric"]))

    @property
    def curves(self) -> pd.DataFrame:
        """The mean curves of the main metric: setting, step, mean, low, high and n."""
        curves = mean_curves(self._rows(main_metric(self.chosen), 1))
        return curves.assign(setting=[str(label)[:1] for label in curves["label"]])[
            ["setting", "step", "mean", "low", "high", "n"]
        ]

    def figure(self, metric: str | None = None, *, smooth: int = 1, view: View | None = None) -> ggplot:
        """Draw the curves of a metric over each other, or its final values if it was logged once.

        metric: "split/name", or "name" for all splits; None: the main metric. smooth: each point is the mean of this
        number of steps. Raises UserError for a metric that no run has.
        """
        from plastic_cli.figures.curves import curves_figure
        from plastic_cli.figures.finals import finals_figure
        from plastic_cli.figures.theme import rule_styles

        wanted = metric or main_metric(self.chosen)
        rows = self._rows(wanted, smooth)
        named = self.metric(wanted)
        styles = rule_styles({self.label(side): side.rule for side in self.sides})
        data = short_data_names(side.dataset for side in self.sides)
        about = f"on {', '.join(data.values())}" if data else ""
        if not has_curve(metric_rows(self.chosen.metrics, wanted)):
            last = rows.sort_values("step", kind="stable").drop_duplicates(["run", "style", "panel"], keep="last")
            values = last.assign(x=last["label"], label=pd.Categorical(last["style"]))
            return finals_figure(values, named, view, option="", about=about)
        step = self.chosen.step_name
        note = smoothing_text(smooth, step)
        return curves_figure(mean_curves(rows), named, view, styles, step_name=step, about=about, note=note)

    def metric(self, name: str) -> Metric:
        """Return the name and the unit of a metric: those of the rules that have it, if these agree."""
        own = self.results[(self.results["metric"] == name) & (self.results["n"] > 0)]
        rules = {side.rule for side in self.sides if side.letter in set(own["setting"]) or own.empty}
        known = {metric_of(name, rule) for rule in rules}
        return known.pop() if len(known) == 1 else metric_of(name)

    def label(self, side: Side) -> str:
        """Return the letter of a side and what tells it apart, for legends: "B: grlu, perturbations = 16"."""
        rules, datasets = ({each.rule for each in self.sides}, {each.dataset for each in self.sides})
        names = short_data_names(datasets)
        parts = [
            side.rule if len(rules) > 1 or not side.distinction else "",
            names.get(side.dataset, "") if len(datasets) > 1 else "",
            side.distinction,
        ]
        return f"{side.letter}: {', '.join(part for part in parts if part)}"

    def _rows(self, metric: str, smooth: int) -> pd.DataFrame:
        rows = metric_rows(self.chosen.metrics, metric)
        labels = {record.run: self.label(side) for side in self.sides for record in side.records}
        rows = rows[rows["run"].isin(labels)]
        splits = [split_words(split) for split in rows["split"]]
        panels = [label_text(label_values(text)) for text in rows["labels"]]
        return smoothed(
            rows.assign(
                label=pd.Categorical(rows["run"].map(labels), list(dict.fromkeys(labels.values()))),
                style=splits if len(set(splits)) > 1 else "",
                panel=pd.Categorical(panels, sorted(set(panels), key=number_first)),
            ),
            smooth,
        )

    def latex(self, table: SideTableName = "results") -> str:
        """Return a table as LaTeX for booktabs and graphicx; "" if nothing differs in it."""
        return one_table(self, table, "latex")

    def markdown(self, table: SideTableName = "results") -> str:
        """Return a table as Markdown; "" if nothing differs in it."""
        return one_table(self, table, "markdown")

    def __repr__(self) -> str:
        return as_text(self, width=80)

    def _repr_html_(self) -> str:
        return as_html(self)


# ---------------------------------------------------------------------------------------------------------------- sides


def _sides(chosen: ChosenRuns) -> tuple[tuple[Side, ...], tuple[str, ...]]:
    """Return the sides in the order in which their runs were chosen, and notes for the reader."""
    if len(chosen.runs) < 2:
        raise UserError("name at least two runs to compare.")
    groups = group_runs(chosen.runs, training_models(chosen.runs["rule"].unique()))
    place = {str(run): place for place, run in enumerate(chosen.runs["run"])}
    # Also a run that is left out, because a newer one has its seed, was chosen at its place.
    groups.sort(key=lambda group: min(place[run] for run in (*group.runs, *group.older)))
    notes = []
    if len(groups) == 1:
        ids = sorted((str(run) for run in chosen.runs["run"]), key=lambda run: place[run])
        sides = [_side(letter, groups[0], f"seed {chosen.records[run].seed}", [run], chosen)
                 for letter, run in zip(ascii_uppercase, ids, strict=False)]  # fmt: skip
        notes.append("All runs have the same options, so each run is compared.")
        if len({chosen.records[run].seed for run in ids}) == len(ids):
            notes.append("They differ in the seed.")
        count = len(ids)
    else:
        sides = [
            _side(letter, group, group.distinction, group.runs, chosen)
            for letter, group in zip(ascii_uppercase, groups, strict=False)
        ]
        count = len(groups)
        repeated = sum(group.repeated for group in groups)
        if repeated:
            runs = "1 run is" if repeated == 1 else f"{repeated} runs are"
            notes.append(f"{runs} left out: a newer run has the same options and seed.")
    if count > MOST_SIDES:
        raise UserError(
            f"{count} settings are too many to compare side by side. Choose up to {MOST_SIDES} by name, --rule or"
            " --where; --where validation=0 leaves out the trials of `plastic tune`."
        )
    return tuple(sides), (*notes, *_warnings(sides, of_one_setting=len(groups) == 1))


def _side(letter: str, group: Group, distinction: str, runs: Iterable[str], chosen: ChosenRuns) -> Side:
    records = tuple(chosen.records[run] for run in runs)
    return Side(letter, group.rule, group.data, distinction, records)


def _warnings(sides: Sequence[Side], *, of_one_setting: bool) -> list[str]:
    """Return what makes the results of the sides less comparable. of_one_setting: each side is one run of it."""
    notes = []
    if len({side.dataset for side in sides}) > 1:
        notes.append("The settings were trained on different data, so their results are not directly comparable.")
    elif len({record.classes_of_images for side in sides for record in side.records}) > 1:
        notes.append(
            "The settings were tested on images of different classes, so their results are not directly comparable."
        )
    for side in sides:
        unfinished = sorted({record.status for record in side.records if record.status != "completed"})
        if unfinished:
            notes.append(f"{side.letter} has runs that are {' and '.join(unfinished)}: their last values are shown.")
    if not of_one_setting and max(len(side.records) for side in sides) == 1:
        notes.append("Each setting has one run. The differences may be due to the seed.")
    return notes


# -------------------------------------------------------------------------------------------------------------- options


def _options(sides: Sequence[Side], models: Mapping[str, type[Config]]) -> pd.DataFrame:
    configs = [_config(side) for side in sides]
    rules = list(dict.fromkeys(side.rule for side in sides))
    defaults = {rule: _defaults(models.get(rule)) for rule in rules}
    names = dict.fromkeys(name for config in configs for name in config)
    rows = []
    for name in names:
        if len({json.dumps(config.get(name, "absent"), sort_keys=True) for config in configs}) < 2:
            continue
        row: dict[str, Any] = {"option": name}
        row |= {side.letter: config.get(name, pd.NA) for side, config in zip(sides, configs, strict=True)}
        row |= {_default_column(rule, rules): defaults[rule].get(name, pd.NA) for rule in rules}
        rows.append(row)
    columns = ["option", *(side.letter for side in sides), *(_default_column(rule, rules) for rule in rules)]
    return pd.DataFrame(rows, columns=columns, dtype=object).set_index("option")


def _default_column(rule: str, rules: Sequence[str]) -> str:
    return "default" if len(rules) == 1 else f"default of {rule}"


def _config(side: Side) -> dict[str, Any]:
    """Return the rule, the data and the options of a side, without its seeds and devices."""
    config = {
        name: plain_value(value)
        for name, value in side.records[0].config.items()
        if name not in ("device", "seed", "dataset")
    }
    return {"rule": side.rule, "dataset": side.dataset, **config}


def _defaults(model: type[Config] | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {name: plain_value(info.default) for name, info in model.model_fields.items() if not info.is_required()}


# -------------------------------------------------------------------------------------------------------------- results


def _results(runs: pd.DataFrame, sides: Sequence[Side]) -> pd.DataFrame:
    of_run = runs.set_index("run")
    rows = []
    for metric in _ordered_metrics(runs, sides):
        values = [of_run[metric].reindex([each.run for each in side.records]).to_numpy(np.float64) for side in sides]
        for side, own in zip(sides, values, strict=True):
            mean, difference, pairs = mean_interval(own), _EMPTY, None
            if side is not sides[0]:
                difference, pairs = _difference(sides[0], values[0], side, own)
            rows.append(
                {
                    "metric": metric, "setting": side.letter, "title": side.title, "mean": mean.mean,
                    "low": mean.low, "high": mean.high, "n": mean.n, "difference": difference.mean,
                    "difference_low": difference.low, "difference_high": difference.high, "pairs": pairs,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=RESULT_COLUMNS).astype({"pairs": "Int64"})


_EMPTY = Interval(math.nan, math.nan, math.nan, 0, "")


def _difference(first: Side, base: Any, side: Side, own: Any) -> tuple[Interval, int | None]:
    """Return the difference of a side from the first one, and the number of pairs if it was taken seed by seed."""
    of_seed = {seed: value for seed, value in zip(first.seeds, base, strict=True) if math.isfinite(value)}
    pairs = [
        value - of_seed[seed]
        for seed, value in zip(side.seeds, own, strict=True)
        if seed in of_seed and math.isfinite(value)
    ]
    all_paired = len(pairs) == len(of_seed) == np.isfinite(own).sum()
    if pairs and (all_paired or len(pairs) >= MINIMUM_VALUES):
        return mean_interval(pairs), len(pairs)
    return difference_interval(base, own), None


def _ordered_metrics(runs: pd.DataFrame, sides: Sequence[Side]) -> list[str]:
    """Return the metrics of the chosen runs: the main ones first, then those that all sides have, then times."""
    ids = [[record.run for record in side.records] for side in sides]
    of_run = runs.set_index("run")
    having = {name: sum(bool(of_run.loc[own, name].notna().any()) for own in ids) for name in metric_columns(runs)}
    present = [name for name, count in having.items() if count]
    splits = ("test/", "validation/", "train/")

    def key(name: str) -> tuple[int, int, int]:
        main = MAIN_METRICS.index(name) if name in MAIN_METRICS else len(MAIN_METRICS)
        split = next((place for place, split in enumerate(splits) if name.startswith(split)), len(splits))
        return (-(having[name] == len(sides)), main, split)

    return [*sorted(present, key=key), *(name for name in TIMES if runs[name].notna().any())]


# -------------------------------------------------------------------------------------------------------- circumstances


def _circumstances(sides: Sequence[Side]) -> pd.DataFrame:
    facts = [[facts_of(record) for record in side.records] for side in sides]
    names = dict.fromkeys(name for side in facts for each in side for name in each)
    rows = []
    for name in names:
        texts = [_joined(each.get(name, "unknown") for each in side) for side in facts]
        if len(set(texts)) > 1 or ", " in texts[0]:
            rows.append({"circumstance": name, **{side.letter: text for side, text in zip(sides, texts, strict=True)}})
    columns = ["circumstance", *(side.letter for side in sides)]
    return pd.DataFrame(rows, columns=columns, dtype=object).set_index("circumstance")


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts)))
