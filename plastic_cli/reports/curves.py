"""Figures of chosen runs: learning curves, or final values over an option."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotnine import ggplot

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.figures.curves import (
    MOST_STYLES,
    curves_figure,
    mean_curves,
    ordered_styles,
    ordered_values,
    smoothed,
    smoothing_text,
)
from plastic_cli.figures.finals import finals_figure
from plastic_cli.figures.metric_rows import (
    has_curve,
    in_order,
    known_metrics,
    label_text,
    label_values,
    metric_rows,
    number_first,
    split_words,
    with_any_labels,
)
from plastic_cli.figures.theme import SeriesStyle, rule_styles
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.plugins.models import former_names
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import (
    CONFIG_PREFIX,
    OWN,
    SOURCE,
    group_runs,
    plain_value,
    setting_text,
    settings_across,
    short_data_names,
)
from plastic_cli.reports.results import metric_columns, more_is_better
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import RunRecord, read_record
from plastic_cli.runs.store import RunStore

MOST_LABELS = 12
"""Of more settings than this the best are drawn."""
MOST_PANELS = 16

FACTS = ("rule", "dataset", "seed", "status", "name", "run", "version")
"""What `by` can be, next to the options that runs store and the labels of their metrics."""

SHAPE = ("depth", "width")
"""`by` can also be the number of hidden layers, or the units of each if all have the same number."""


@dataclass(frozen=True)
class ChosenRuns:
    """Some runs: a frame as `RunStore.runs()` gives it, their training metrics, their records by id, and their step."""

    runs: pd.DataFrame
    metrics: pd.DataFrame
    records: Mapping[str, RunRecord]
    step_name: str


@dataclass(frozen=True)
class RunsPlot:
    """A figure of some runs. messages: which runs and values are left out of the figure, and why."""

    figure: ggplot
    metric: str
    messages: tuple[str, ...] = ()


def read_runs(folders: Iterable[str | Path]) -> ChosenRuns:
    """Read some runs, each once, in this order; raises UserError if a folder is not a run.

    Two folders of one name hold the same run, since the name is its id.
    """
    by_id: dict[str, Path] = {}
    for folder in folders:
        by_id.setdefault(Path(folder).absolute().name, Path(folder))
    paths = list(by_id.values())
    records = {path: read_record(path) for path in paths}
    frames, metrics = [], []
    for parent in dict.fromkeys(path.parent for path in paths):
        store, names = RunStore(parent), [path.name for path in paths if path.parent == parent]
        everything = store.runs().set_index("run", drop=False)
        frames.append(everything.loc[names])
        metrics.append(store.metrics(runs=names, stage="train"))
    runs = pd.concat(frames).reindex([path.name for path in paths]) if frames else RunStore("runs").runs().iloc[:0]
    rows = pd.concat(metrics, ignore_index=True) if metrics else pd.DataFrame()
    units = {unit for record in records.values() for unit in record.steps_done}
    named = {path.name: record for path, record in records.items()}
    return ChosenRuns(runs.reset_index(drop=True), rows, named, units.pop() if len(units) == 1 else "step")


def plot_runs(
    chosen: ChosenRuns,
    metric: str | None = None,
    by: str | None = None,
    *,
    final: bool = False,
    smooth: int = 1,
    view: View | None = None,
) -> RunsPlot:
    """Draw a metric of some runs: the mean over the seeds of each setting, with its interval.

    metric: "split/name", or "name" for all splits; None: the main metric of the runs. by: an option, one of FACTS or a
    label of the metric, such as "layer": curves have a color for each of its values, and final values are drawn against
    it. final: draw final values, which are also drawn if the metric was logged once per run. smooth: a point of a curve
    is the mean of this number of steps. Raises UserError for a metric or option that no run has.
    """
    if chosen.runs.empty:
        raise UserError("there is no run to plot.")
    by = None if by is None else _present_name(by, chosen.runs)
    if by in SHAPE and not _is_option(by, chosen.runs):
        chosen = replace(chosen, runs=_with_shape(chosen.runs))
    wanted = metric or main_metric(chosen, final=final)
    rows, messages = _rows(chosen, wanted, by)
    if not final and not has_curve(rows):
        final = True
        messages.append(f"{wanted} was logged once per run, so the final values are drawn")
    kept, settings = _settings(chosen.runs, by)
    if len(kept) < len(chosen.runs):
        messages.append(f"{_counted(len(chosen.runs) - len(kept))} repeated with the same seed: the newest one counts")
    parts = _in_parts(rows[rows["run"].isin(kept)], chosen.runs, settings, by)
    rules = sorted(set(chosen.runs["rule"]))
    named = named_metric(wanted, rules, rows, chosen.metrics)
    about = _about(parts, rules)
    if final:
        drawn, option, without = _final_values(parts, by)
        if without:
            messages.append(f"{_counted(without)} without {_words(str(by))}: left out")
        if by is not None and len(set(drawn["x"])) == 1:
            messages.append(f"all runs have the same value of {option}, so there is one point on the axis")
        best, note = _best_labels(drawn, wanted)
        styles = _rule_styles(best, chosen.runs)
        figure = finals_figure(best, named, view, styles, option=option, about=about, note=note)
    else:
        parts = _with_roles(parts, ["by", "setting", "split", "labels"] if by else ["setting", "split", "labels"])
        best, note = _best_labels(parts, wanted)
        notes = " ".join(text for text in (note, smoothing_text(smooth, chosen.step_name)) if text)
        figure = curves_figure(
            mean_curves(smoothed(best, smooth)),
            named,
            view,
            _styles(parts, by) or _rule_styles(best, chosen.runs),
            step_name=chosen.step_name,
            about=about,
            note=notes,
        )
    return RunsPlot(figure, wanted, tuple(messages))


def named_metric(metric: str, rules: Sequence[str], rows: pd.DataFrame, metrics: pd.DataFrame) -> Metric:
    """Return the name and unit of a metric as it is drawn.

    A rule's own name may say what the rows without labels are, such as the mean of the tasks. If other rows are drawn,
    the metric has its general name.
    """
    everything = with_any_labels(metrics, metric)
    is_part = rows["labels"].notna().any() and everything["labels"].isna().any()
    return metric_of(metric, rules[0] if len(rules) == 1 and not is_part else None)


def main_metric(chosen: ChosenRuns, *, final: bool = False) -> str:
    """Return the metric to draw if none is wanted: the main metric that most of the runs have.

    If it is logged only once, that of validation is returned, unless final values are wanted.
    """
    logged = set(known_metrics(chosen.metrics))
    columns = [name for name in metric_columns(chosen.runs) if name in logged]
    counts = {name: int(chosen.runs[name].notna().sum()) for name in columns}
    ordered = [name for name in MAIN_METRICS if counts.get(name)] or [name for name in columns if counts[name]]
    if not ordered:
        raise UserError("the chosen runs have no metrics yet.")
    best = max(ordered, key=lambda name: counts[name])
    other = f"validation/{best.partition('/')[2]}"
    if not final and counts.get(other) and not has_curve(metric_rows(chosen.metrics, best)):
        return other if has_curve(metric_rows(chosen.metrics, other)) else best
    return best


def _rows(chosen: ChosenRuns, metric: str, by: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of the metric, and a message about runs without it; raises UserError for an unknown `by`."""
    rows = metric_rows(chosen.metrics, metric)
    if by is not None and not _is_option(by, chosen.runs):
        labeled = with_any_labels(chosen.metrics, metric)
        names = {name for text in labeled["labels"].unique() for name in label_values(text)}
        if by not in names:
            columns = [str(column) for column in chosen.runs.columns]
            options = [each.removeprefix(CONFIG_PREFIX) for each in columns if each.startswith(CONFIG_PREFIX)]
            known = sorted({*options, *names, *FACTS})
            raise UserError(f"--by {by}: the chosen runs have no such option.{did_you_mean(by, known)}")
        rows = labeled[[by in label_values(text) for text in labeled["labels"]]]
    without = len(chosen.runs) - rows["run"].nunique()
    return rows, [f"{_counted(without)} without {metric}: left out"] if without else []


def _present_name(by: str, runs: pd.DataFrame) -> str:
    """Return the name of an option as it is stored, such as learning_rate for "learning-rate" or a former name."""
    name = by if _is_option(by, runs) else by.replace("-", "_")
    former = {old: new for rule in runs["rule"].unique() for old, new in former_names(rule).items()}
    return former.get(name, name)


def _with_shape(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with the options depth and width in place of hidden, which holds the units of each hidden layer."""
    column = f"{CONFIG_PREFIX}hidden"
    if column not in runs.columns:
        return runs
    sizes = [plain_value(value) or [] for value in runs[column]]
    if any(len(set(each)) > 1 for each in sizes):
        raise UserError("--by depth or width needs hidden layers of one size in each run, such as --hidden 64,64.")
    shaped = runs.drop(columns=column)
    shaped[f"{CONFIG_PREFIX}depth"] = [len(each) for each in sizes]
    shaped[f"{CONFIG_PREFIX}width"] = [each[0] if each else math.nan for each in sizes]
    return shaped


def _is_option(by: str, runs: pd.DataFrame) -> bool:
    return by in FACTS or f"{CONFIG_PREFIX}{by}" in runs.columns


def _settings(runs: pd.DataFrame, by: str | None) -> tuple[set[str], dict[str, tuple[int, str, str]]]:
    """Return the runs that count, and for each run the place of its setting, its text without `by`, and its data.

    Of several runs of one setting with the same seed the newest counts, unless each run is wanted.
    """
    models = training_models(runs["rule"].unique())
    kept = {run for group in group_runs(runs, models) for run in group.runs}
    # Each run gets another seed, so that runs that differ only in `by` are all in a group.
    others = runs.drop(columns=f"{CONFIG_PREFIX}{by}", errors="ignore").assign(seed=range(len(runs)))
    several_rules = len(others["rule"].unique()) > 1 and by != "rule"
    settings = {}
    groups = group_runs(others, models)
    data_names = short_data_names(group.data for group in groups)
    for place, setting in enumerate(settings_across(groups, models)):
        # A setting without a text is the only one of its rule.
        text = ": ".join(part for part in (setting.rule if several_rules else "", setting.distinction) if part)
        if not text and SOURCE in runs.columns:
            text = OWN
        for group in setting.groups.values():
            settings.update(dict.fromkeys(group.runs, (place, text, data_names.get(group.data, ""))))
    return (set(settings) if by in ("run", "name") else kept), settings


def _in_parts(
    rows: pd.DataFrame, runs: pd.DataFrame, settings: Mapping[str, tuple[int, str, str]], by: str | None
) -> pd.DataFrame:
    """Return run, step and value with what tells the curves apart: by, setting, split, labels and dataset.

    All of these are ordered categories. by_number: the value of `by` where it is a number;
    has_by: whether there is one.
    """
    values = _values_of(by, runs) if by is not None and _is_option(by, runs) else {}
    labels = [label_values(text) for text in rows["labels"]]
    if by is not None and not values:
        by_value = [each[by] for each in labels]
        by_text = [label_text({by: value}) for value in by_value]
        labels = [{name: value for name, value in each.items() if name != by} for each in labels]
    else:
        by_value = [values.get(run) for run in rows["run"]]
        by_text = [_by_text(by, value) for value in by_value]
    places = {text: place for place, text, _ in settings.values()}
    columns = {
        "by": (by_text, lambda text: number_first(text.rpartition("= ")[2])),
        "setting": ([settings[run][1] for run in rows["run"]], lambda text: (places[text], text)),
        "split": ([split_words(split) for split in rows["split"]], None),
        "labels": ([label_text(each) for each in labels], number_first),
        "dataset": ([settings[run][2] for run in rows["run"]], number_first),
    }
    numbers = [float(value) if _is_number(value) else math.nan for value in by_value]
    parts = rows[["run", "step", "value"]].assign(by_number=numbers, has_by=[value is not None for value in by_value])
    for name, (texts, key) in columns.items():
        present = list(dict.fromkeys(texts))
        order = (
            sorted(present, key=key)
            if key
            else [split_words(split) for split in in_order(list(rows["split"].unique()))]
        )
        parts[name] = pd.Categorical(texts, order)
    if by == "dataset":
        parts["dataset"] = pd.Categorical([""] * len(parts))
    return parts


def _values_of(by: str, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the value of an option or fact for each run, None for a run without it."""
    if by == "name":
        return dict(zip(runs["run"], runs["name"].fillna(runs["run"]), strict=True))
    column = by if by in FACTS else f"{CONFIG_PREFIX}{by}"
    values = {run: plain_value(value) for run, value in zip(runs["run"], runs[column], strict=True)}
    if by == "dataset":
        names = short_data_names(values.values())
        return {run: names.get(name) for run, name in values.items()}
    return values


def _by_text(by: str | None, value: Any) -> str:
    if by is None:
        return ""
    return str(value) if by in ("rule", "dataset", "name", "run", "status") else setting_text({by: value})


def _with_roles(parts: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows with label, style and panel: what the color, the type of line and the place of a curve show.

    The color shows the first of `names` with several values. The next one is the type of line, if it has few values
    that all have a text; more become panels, or a part of the label. Data sets are panels.
    """
    label, style, panel = "", "", "dataset" if len(ordered_values(parts["dataset"])) > 1 else ""
    joined: list[str] = []
    for name in names:
        count = parts[name].nunique()
        if count < 2:
            continue
        if not label:
            label = name
        elif name == "labels" and not panel and count <= MOST_PANELS:
            panel = name
        elif not style and count <= MOST_STYLES and not joined and "" not in set(parts[name]):
            style = name
        else:
            joined.append(name)
    if not label:
        # A single curve is called by its setting, or by its split.
        label = next((name for name in names if parts[name].iloc[0]), names[0])
    empty = pd.Categorical([""] * len(parts))
    return parts.assign(
        label=_combined(parts, [label, *joined]) if joined else parts[label],
        style=parts[style] if style else empty,
        panel=parts[panel] if panel else empty,
    )


def _combined(parts: pd.DataFrame, names: Sequence[str]) -> Any:
    """Return the texts of several columns as one, in the order of their values."""
    codes = parts[list(names)].apply(lambda column: column.cat.codes)
    texts = [", ".join(text for text in row if text) for row in parts[list(names)].itertuples(index=False)]
    order = codes.assign(text=texts).drop_duplicates().sort_values(list(names))["text"]
    return pd.Categorical(texts, list(dict.fromkeys(order)))


def _best_labels(parts: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """Return the rows of the best labels by their final values, and a note if some are left out."""
    labels = ordered_values(parts["label"])
    if len(labels) <= MOST_LABELS:
        return parts, ""
    final = parts.sort_values("step", kind="stable").groupby(["run", "label", "panel"], observed=True)["value"].last()
    means = final.groupby("label", observed=True).mean().sort_values(ascending=not more_is_better(metric))
    best = set(means.index[:MOST_LABELS])
    kept = parts[parts["label"].isin(best)]
    order = [label for label in labels if label in best]
    note = f"The best {MOST_LABELS} of {len(labels)} settings are shown."
    return kept.assign(label=pd.Categorical(kept["label"].astype(object), order)), note


def _styles(parts: pd.DataFrame, by: str | None) -> Any:
    """Return ordered colors if the labels are numbers: those of `by`, of layers or of tasks."""
    labels = [str(label) for label in ordered_values(parts["label"])]
    numbers = by is not None and bool(parts["by_number"].notna().all())
    is_ordered = (numbers and set(labels) <= set(parts["by"])) or (
        labels != [""] and set(labels) <= set(parts["labels"])
    )
    return ordered_styles(labels) if is_ordered else None


def _rule_styles(parts: pd.DataFrame, runs: pd.DataFrame) -> dict[str, SeriesStyle] | None:
    """Return a style for each label that gives each rule its own color, if each label is of one rule."""
    rules = parts["run"].map(dict(zip(runs["run"], runs["rule"], strict=True)))
    of_label = rules.groupby(parts["label"].astype(str)).unique()
    labels = [str(label) for label in ordered_values(parts["label"])]
    if any(len(of_label[label]) > 1 for label in labels):
        return None
    return rule_styles({label: str(of_label[label][0]) for label in labels})


def _final_values(parts: pd.DataFrame, by: str | None) -> tuple[pd.DataFrame, str, int]:
    """Return the final values, the name of their axis, and the number of runs without a value of `by`."""
    last = parts.sort_values("step", kind="stable").drop_duplicates(["run", "split", "labels", "by"], keep="last")
    without = 0
    if by is None:
        drawn = _with_roles(last, ["split", "labels"]).assign(x=last["setting"])
        if len(ordered_values(drawn["x"])) == 1:
            drawn = drawn.assign(x=pd.Categorical([str(drawn["setting"].iloc[0]) or "all runs"] * len(drawn)))
        option = ""
    else:
        numbers = bool(last.loc[last["has_by"], "by_number"].notna().all() and last["has_by"].any())
        # A run without a number has no place on the axis; next to other names there is the name "none".
        having = last[last["has_by"]] if numbers else last
        without = int(last["run"].nunique() - having["run"].nunique())
        settings = set(having["setting"])
        if "" in settings and len(settings) > 1:
            # Settings of which one has no text have no legend: each one is a name on the axis.
            drawn = _with_roles(having, ["split", "labels"]).assign(x=_combined(having, ["by", "setting"]))
        else:
            texts = [str(text).rpartition("= ")[2] for text in having["by"]]
            names = pd.Categorical(texts, sorted(set(texts), key=number_first))
            x = having["by_number"].astype(float) if numbers else names
            drawn = _with_roles(having, ["setting", "split", "labels"]).assign(x=x)
        option = _words(by)
    return drawn, option, without


def _about(parts: pd.DataFrame, rules: Sequence[str]) -> str:
    """Return what all curves have in common: "grlu on digits, k = 0.5"."""
    datasets = [str(data) for data in ordered_values(parts["dataset"]) if data]
    settings = [str(text) for text in ordered_values(parts["setting"])]
    common = f"{', '.join(rules)}" + (f" on {', '.join(datasets)}" if datasets else "")
    return f"{common}: {settings[0]}" if len(settings) == 1 and settings[0] else common


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _words(name: str) -> str:
    return name.replace("_", " ")
