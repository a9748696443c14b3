"""The figures of the report and their descriptions: learning curves, claims, performance profiles."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from plotnine import (
    aes,
    element_blank,
    element_text,
    geom_point,
    geom_ribbon,
    geom_segment,
    geom_step,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_color_identity,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.curves import (
    LEGEND_WIDTH,
    curves_figure,
    mean_curves,
    number_labels,
    sentence_case,
    share_labels,
    wrapped,
    wrapped_setting,
)
from plastic_cli.figures.theme import GRAY, INK, SeriesStyle, rule_styles, series_scales, theme_plastic
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.claims import Claim, quantity
from plastic_cli.reports.comparisons import MOST_COMPARED, Comparison, profiles, unique_name
from plastic_cli.reports.grouping import Group, Setting, setting_key, setting_text, short_data_names
from plastic_cli.reports.results import ClaimResult, Result, more_is_better
from plastic_cli.statistics.aggregates import profile_method
from plastic_cli.statistics.intervals import MINIMUM_VALUES, interval_method

MOST_CURVES = 8
"""More curves than this in one figure cannot be distinguished."""

MOST_BANDS = 12
"""If published values lie farther apart than this number of their tolerances, differences from them are drawn."""

WIDTH = 6.4
"""Inches: two figures fit next to each other on the page."""


AxisLabels = Callable[[Sequence[float] | Sequence[str]], list[str]]
"""Returns the labels of an axis for the values at its ticks."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    description: its values in words. rule: the rule that made it; None: the report itself. rules, datasets: those that
    it shows.
    """

    plot: ggplot
    description: str | None = None
    rule: str | None = None
    rules: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looks:
    """How the figures of one report name and draw each setting, by `setting_key`."""

    settings: Mapping[str, Setting]
    styles: Mapping[str, SeriesStyle]

    def name(self, group: Group, *, with_rule: bool) -> str:
        """Return the name of the setting of a group. with_rule: also name its rule."""
        setting = self.settings[setting_key(group)]
        return setting.label if with_rule else setting.distinction or setting.rule

    def style(self, group: Group) -> SeriesStyle:
        """Return the style of the setting of a group."""
        return self.styles[setting_key(group)]


def looks(results: Sequence[Result], settings: Sequence[Setting]) -> Looks:
    """Return how to draw the settings of a report: each in one style, those that are drawn first in different colors.

    settings: those of all results, from `settings_across`.
    """
    known = {setting_key(next(iter(setting.groups.values()))): setting for setting in settings}
    best = [
        best_settings([each for each in results if each.metric == metric], MOST_CURVES) for metric in _metrics(results)
    ]
    order = [*(key for keys in best for key in keys), *known]
    return Looks(known, rule_styles({key: known[key].rule for key in order}))


def _metrics(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.metric for result in results if result.metric))


def learning_curves(results: Sequence[Result], metrics: pd.DataFrame, look: Looks) -> dict[str, Figure]:
    """Return a figure of each main metric against the step, by file name; groups without a curve are left out.

    metrics: a frame as `RunStore.metrics()` returns it. Each data set has its own panel. Of more than `MOST_CURVES`
    settings the best are drawn, by their mean rank over the data sets.
    """
    figures = {}
    for key in _metrics(results):
        shown, rows = _curve_rows(metrics, key)
        with_curve = set(rows["run"])
        drawn = [each for each in results if each.metric == key and not with_curve.isdisjoint(each.group.runs)]
        best = best_settings(drawn, MOST_CURVES)
        chosen = [each for name in best for each in drawn if setting_key(each.group) == name]
        if chosen:
            count = len({setting_key(each.group) for each in drawn})
            figures[f"learning-curves-{shown.replace('/', '-')}"] = _curves_figure(chosen, rows, shown, look, count)
    return figures


def _curve_rows(metrics: pd.DataFrame, metric: str) -> tuple[str, pd.DataFrame]:
    """Return the metric of the curve and its rows: `metric`, or if it is measured only once, that of validation."""
    name = metric.partition("/")[2]
    for shown in (metric, f"validation/{name}"):
        rows = _training_rows(metrics, shown)
        rows = rows[rows.groupby("run")["step"].transform("size") > 1]
        if not rows.empty:
            return shown, rows
    return metric, rows


def _training_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return run, step and value of one training metric, each step of a run once."""
    split, _, name = metric.partition("/")
    wanted = (metrics["stage"] == "train") & (metrics["split"] == split) & (metrics["metric"] == name)
    rows: pd.DataFrame = metrics[wanted & metrics["labels"].isna() & np.isfinite(metrics["value"])]
    return rows.drop_duplicates(["run", "step"], keep="last")[["run", "step", "value"]]


def _curves_figure(drawn: Sequence[Result], rows: pd.DataFrame, key: str, look: Looks, count: int) -> Figure:
    """Return the learning curves of some results. count: the number of settings of which these are the best."""
    metric = metric_of(key)
    rules = tuple(sorted({result.group.rule for result in drawn}))
    names = {result.group.runs: look.name(result.group, with_rule=len(rules) > 1) for result in drawn}
    data_names = short_data_names(each.group.data for each in drawn)
    parts = [
        rows[rows["run"].isin(each.group.runs)].assign(
            label=names[each.group.runs], panel=data_names.get(each.group.data, "")
        )
        for each in drawn
    ]
    curves = mean_curves(pd.concat(parts, ignore_index=True))
    datasets = tuple(sorted({name for result in drawn if (name := result.group.data or "")}))
    labels = list(dict.fromkeys(names.values()))
    step = _step_name(drawn, curves)
    curves["hover"] = [_curve_words(row, metric, step) for row in curves.to_dict("records")]
    about = [*rules] if len(rules) == 1 else []
    about += labels if len(labels) == 1 and labels != about else []
    about += data_names.values() if len(datasets) == 1 else []
    figure = curves_figure(
        curves,
        metric,
        View(width=WIDTH if len(datasets) < 2 else 2 * WIDTH),
        {names[result.group.runs]: look.style(result.group) for result in drawn},
        step_name=step,
        about=", ".join(about),
        note=f"The best {len(labels)} of {count} settings." if count > len(labels) else "",
    )
    return Figure(figure, _describe_curves(curves, metric), None, rules, datasets)


def _curve_words(row: Mapping[Any, Any], metric: Metric, step: str) -> str:
    where = f", {row['panel']}" if row["panel"] else ""
    return f"{row['label']}{where}, {step} {row['step']:g}: {_mean_and_bounds(row, 'mean', metric)}"


def _describe_curves(curves: pd.DataFrame, metric: Metric) -> str:
    """Return the last values of learning curves as text."""
    ends = curves.sort_values("step").groupby(["label", "panel", "line"], observed=True, sort=False).tail(1)
    lines = []
    for row in ends.to_dict("records"):
        where = f" on {row['panel']}" if row["panel"] else ""
        lines.append(f"{row['label']}{where} {_mean_and_bounds(row, 'mean', metric)} at {row['step']:g}")
    return _listed("Last values", lines)


def _step_name(results: Sequence[Result], curves: pd.DataFrame) -> str:
    """Return "epoch" if the last step of the runs is their number of epochs, else "step"."""
    epochs = {result.group.config.get("epochs") for result in results}
    last = set(curves.groupby(["label", "panel"], observed=True)["step"].max())
    return "epoch" if last <= epochs else "step"


def best_settings(results: Sequence[Result], count: int) -> list[str]:
    """Return the keys of the `count` best settings, in the order of `results`.

    Settings are ranked by their mean within each data set, and then by their mean rank. Those of own runs come first,
    then the same settings of the reference, then its other settings.
    """
    own = {_configuration(result.group) for result in results if not result.group.source}
    frame = pd.DataFrame(
        {
            "setting": [setting_key(result.group) for result in results],
            "dataset": [result.group.data or "" for result in results],
            "reference": [
                (1 if _configuration(result.group) in own else 2) if result.group.source else 0 for result in results
            ],
            "value": [result.value.mean * (1 if more_is_better(result.metric or "") else -1) for result in results],
        }
    )
    frame["rank"] = frame.groupby("dataset")["value"].rank(ascending=False)
    ranks = frame.groupby("setting", sort=False)[["reference", "rank"]].mean()
    best = set(ranks.sort_values(["reference", "rank"], kind="stable").index[:count])
    return [str(key) for key in ranks.index if key in best]


def _configuration(group: Group) -> str:
    """Return the rule and configuration of a group as text, whatever the source of its runs."""
    return setting_key(replace(group, source=""))


def claims_figures(claims: Sequence[ClaimResult], look: Looks) -> dict[str, Figure]:
    """Return a figure for each metric, by file name, with published values and tolerances and our measurements.

    Only claims with a measurement are drawn. A measured value has the color of its setting.
    """
    tested: dict[str, list[ClaimResult]] = {}
    for row in claims:
        if isinstance(row.entry, Claim) and row.verdict is not None and row.verdict.interval.n:
            tested.setdefault(_axis(row.entry), []).append(row)
    if len(tested) == 1:
        return {"claims": _claims_figure(next(iter(tested.values())), look)}
    return {unique_name(f"claims-{axis}", []): _claims_figure(rows, look) for axis, rows in tested.items()}


def _axis(claim: Claim) -> str:
    """Return the quantity of a claim: a metric, or a difference or ratio of it."""
    return f"{claim.relation} of {claim.metric}" if claim.is_comparison else claim.metric


def _claims_figure(tested: Sequence[ClaimResult], look: Looks) -> Figure:
    assert isinstance(tested[0].entry, Claim)
    metric = quantity(tested[0].entry, tested[0].rule)
    assert metric is not None
    known = _claims_data(tested, look, metric)
    frame, axis, labels_of = _claims_view(known, metric)
    published = frame[frame["what"] == "published"]
    with_interval = frame[frame["what"] == "measured"].dropna(subset=["low", "high"])
    labels = [str(label) for label in frame["claim"].cat.categories]
    # All rows have the height of the label with most lines.
    height = 1.4 + max(0.6, 0.1 + 0.19 * max(label.count("\n") + 1 for label in labels)) * len(labels)
    caption = (
        f"Bar: the published value with its tolerance. Dot: mean over our seeds, in the color of the setting, with the"
        f" {interval_method()}, if there are at least {MINIMUM_VALUES} seeds."
    )
    figure: ggplot = (
        ggplot(frame, aes("value", "claim", color="color"))
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=published, size=4, alpha=0.35, show_legend=False)
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=with_interval, size=1.3, show_legend=False)
        + geom_point(aes(shape="what"), size=2.6)
        + scale_color_identity()
        + scale_shape_manual(values={"published": "|", "measured": "o"}, breaks=["published", "measured"])
        # Each row has its own color; the legend is about the shapes.
        + guides(shape=guide_legend(override_aes={"color": INK}))
        + scale_x_continuous(labels=labels_of)
        + labs(
            title=f"Published and measured: {metric.name}",
            x=axis,
            y="",
            color="",
            shape="",
            caption=wrapped(caption, int(14 * WIDTH)),
        )
        + theme_plastic(figure_size=(WIDTH + 1, height))
        + theme(legend_position="top", legend_title=element_blank(), axis_text_y=element_text(ma="right"))
    )
    rules = tuple(sorted({row.rule for row in tested}))
    datasets = tuple(sorted({row.group.data or "" for row in tested if row.group is not None} - {""}))
    return Figure(figure, _describe_claims(known, metric), None, rules, datasets)


def _claims_view(frame: pd.DataFrame, metric: Metric) -> tuple[pd.DataFrame, str, AxisLabels]:
    """Return what the figure of claims shows, the name of its axis and the function that labels it.

    It shows the values, unless the published values lie so far apart that tolerances and intervals could not be seen:
    then it shows the differences from the published value, and the names of the claims have the values.
    """
    published = frame[frame["what"] == "published"].set_index("claim")
    widths = published["high"] - published["low"]
    share = metric.unit == "%"
    if np.ptp(published["value"]) <= MOST_BANDS * widths.median():
        axis = sentence_case(metric.name if share else metric.heading)
        return frame, axis, share_labels if share else number_labels
    measured = frame[frame["what"] == "measured"].set_index("claim")["value"]
    names = {
        claim: f"{claim}\n{metric.number(measured[claim])}, published {metric.number(published['value'][claim])}"
        for claim in published.index
    }
    origin = frame["claim"].map(published["value"].to_dict()).astype(float)
    columns = ["value", "low", "high"]
    shown = frame.assign(**{column: metric.scale * (frame[column] - origin) for column in columns})
    shown["claim"] = shown["claim"].cat.rename_categories(names)
    return shown, f"Difference from the published value{' (percentage points)' if share else ''}", _signed_labels


def _signed_labels(values: Sequence[float] | Sequence[str]) -> list[str]:
    return [f"{float(value):+g}" if float(value) else "0" for value in values]


def _claims_data(tested: Sequence[ClaimResult], look: Looks, metric: Metric) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in tested:
        assert isinstance(row.entry, Claim)
        assert row.verdict is not None
        assert row.group is not None
        claim, interval = row.entry, row.verdict.interval
        mark = claim.id if len({other.rule for other in tested}) == 1 else f"{row.rule} {claim.id}"
        word = row.verdict.word if interval.known else f"{row.verdict.word}, {row.verdict.reason}"
        setting = wrapped_setting(_distinguishing(row, tested), 40)
        ours = "no number was published: our own line" if claim.words else ""
        label = "\n".join(part for part in (f"{mark}: {word}", ours, setting) if part)
        # A bound has one end: the bar goes from it to the published value.
        low = claim.value if claim.comparison == "at-most" else claim.band.low
        high = claim.value if claim.comparison == "at-least" else claim.band.high
        theirs = {"what": "published", "value": claim.value, "low": low, "high": high, "color": GRAY}
        measured = {"what": "measured", "value": interval.mean, "low": interval.low, "high": interval.high}
        rows.append({"claim": label, **theirs, "hover": f"{mark}, published: {metric.text(claim.value)}"})
        color = look.style(row.group).color
        rows.append({"claim": label, **measured, "color": color, "hover": ""})
        rows[-1]["hover"] = f"{mark}, measured: {_mean_and_bounds(measured, 'value', metric)}"
    frame = pd.DataFrame(rows)
    frame["claim"] = pd.Categorical(frame["claim"], categories=list(dict.fromkeys(frame["claim"]))[::-1])
    return frame


def _describe_claims(frame: pd.DataFrame, metric: Metric) -> str:
    """Return published and measured values as text."""
    lines = []
    for label, rows in frame.groupby("claim", observed=True, sort=False):
        (published,) = rows[rows["what"] == "published"]["value"]
        measured = rows[rows["what"] == "measured"].iloc[0].to_dict()
        values = f"published {metric.text(published)}, measured {_mean_and_bounds(measured, 'value', metric)}"
        lines.append(f"{label!s}: {values}")
    return _listed("Values", lines)


def _distinguishing(row: ClaimResult, tested: Sequence[ClaimResult]) -> str:
    """Return the fields that distinguish a group from the other groups of one claim, as text."""
    groups = [other.group for other in tested if other.rule == row.rule and other.entry.id == row.entry.id]
    assert row.group is not None
    values = {
        name: row.group.config.get(name)
        for name in row.group.differing
        if any(group is not None and group.config.get(name) != row.group.config.get(name) for group in groups)
    }
    datasets = short_data_names(group.data for group in groups if group is not None)
    setting = setting_text(values) if values else ""
    data = datasets.get(row.group.data, "") if len(datasets) > 1 else ""
    return ", ".join(part for part in (data, setting) if part)


def profile_figure(comparison: Comparison, look: Looks) -> Figure:
    """Return a figure of the performance profiles of the best settings of a comparison."""
    metric = metric_of(comparison.metric)
    drawn = profiles(comparison)
    rules = tuple(sorted({setting.rule for setting, _ in drawn}))
    groups = [next(iter(setting.groups.values())) for setting, _ in drawn]
    names = [look.name(group, with_rule=len(rules) > 1) for group in groups]
    parts = [
        pd.DataFrame(
            {
                "label": name,
                "threshold": profile.thresholds,
                "share": profile.share,
                "low": profile.low,
                "high": profile.high,
            }
        )
        for name, (_, profile) in zip(names, drawn, strict=True)
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame["label"] = pd.Categorical(frame["label"], categories=list(dict.fromkeys(names)))
    bounded = frame.dropna(subset=["low", "high"])
    frame["hover"] = [
        f"{row['label']}: {row['share']:.0%} of runs better than {metric.text(row['threshold'])}"
        for row in frame.to_dict("records")
    ]
    caption = (
        f"Share of runs whose {metric.name} is better than the threshold. Ribbon: {profile_method()},"
        f" if there are at least {MINIMUM_VALUES} seeds."
    )
    if len(comparison.compared) > MOST_COMPARED:
        caption += f" The best {MOST_COMPARED} of {len(comparison.compared)} settings are shown."
    lines = [wrapped_setting(name, LEGEND_WIDTH) for name in names]
    styles = {name: look.style(group) for name, group in zip(names, groups, strict=True)}
    datasets = tuple(name for name in comparison.datasets if name)
    data = ", ".join(short_data_names(datasets).values())
    figure: ggplot = (
        ggplot(frame, aes("threshold", "share", color="label", fill="label", linetype="label"))
        + geom_ribbon(
            aes(ymin="low", ymax="high"),
            data=bounded,
            alpha=0.15,
            size=0,
            show_legend=False,
        )
        + geom_step(size=0.9)
        + series_scales(styles, list(styles), ("color", "fill", "linetype"), labels=list(dict.fromkeys(lines)))
        + guides(color=guide_legend(ncol=1), fill=None, linetype=guide_legend(ncol=1))
        + scale_x_continuous(labels=share_labels if metric.unit == "%" else number_labels)
        + scale_y_continuous(labels=share_labels)
        + labs(
            title="Performance profiles",
            subtitle=wrapped(f"{metric.name} on {data}" if data else metric.name, int(11 * WIDTH)),
            x=f"Threshold of {metric.name if metric.unit == '%' else metric.heading}",
            y="Share of runs that are better",
            color="",
            fill="",
            linetype="",
            caption=wrapped(caption, int(14 * WIDTH)),
        )
        + theme_plastic(figure_size=(WIDTH, 3.9 + 0.22 * sum(line.count("\n") + 1 for line in lines)))
        + theme(legend_position="bottom", legend_title=element_blank())
    )
    return Figure(figure, _describe_profile(frame, metric), None, rules, datasets)


def _describe_profile(frame: pd.DataFrame, metric: Metric) -> str:
    """Return for each profile the threshold that half of the runs pass, as text."""
    lines = []
    for label, rows in frame.groupby("label", observed=True, sort=False):
        closest = rows.iloc[int(np.argmin(np.abs(rows["share"].to_numpy() - 0.5)))]
        lines.append(f"{label!s}: {closest['share']:.0%} of runs better than {metric.text(closest['threshold'])}")
    return _listed("Near the median", lines)


def _listed(heading: str, entries: Sequence[str]) -> str:
    return f"{heading}: {'; '.join(' '.join(entry.split()) for entry in entries)}." if entries else ""


def _mean_and_bounds(row: Mapping[Any, Any], name: str, metric: Metric) -> str:
    bounds = "" if pd.isna(row["low"]) else f" [{metric.number(row['low'])}, {metric.number(row['high'])}]"
    return f"{metric.text(row[name])}{bounds}"
