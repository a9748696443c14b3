"""Learning curves: the mean over seeds with its interval, on an axis that shows where the curves differ."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from plotnine import (
    aes,
    element_blank,
    facet_wrap,
    geom_blank,
    geom_line,
    geom_point,
    geom_ribbon,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_linetype_manual,
    scale_x_continuous,
    scale_x_log10,
    scale_y_continuous,
    scale_y_log10,
    theme,
)

from plastic_cli.figures.metric_rows import (
    first_metric,
    in_order,
    label_text,
    label_values,
    metric_rows,
    number_first,
    split_words,
)
from plastic_cli.figures.theme import GRAY, SeriesStyle, ordered_colors, series_scales, series_styles, theme_plastic
from plastic_cli.figures.view import CURVE, Shown, View, named, shown
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.statistics.intervals import MINIMUM_VALUES, interval_method, mean_intervals

CURVE_COLUMNS = ["label", "style", "panel", "line", "step", "mean", "low", "high", "n"]
"""Columns of `mean_curves`."""

MOST_POINTS = 12
"""Curves with up to this number of steps show a point at each step."""

MOST_STYLES = 4
"""Number of line types that a reader can distinguish."""

LEGEND_WIDTH = 40
"""Characters per line of the legend."""

_NAMES = ["label", "style", "panel"]
_LINETYPES = ("solid", "dashed", "dotted", "dashdot")


def mean_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each curve over its runs and the interval of the mean, with CURVE_COLUMNS.

    rows: label, panel, run, step, value, and optionally style: one value per run and step. label: what the color
    shows; style: what the type of line shows; panel: what has its own part of the figure. A step counts if all runs of
    a curve have it, so that each point of a line is the mean of the same runs. Runs without two common steps are
    separate lines.
    """
    rows = rows if "style" in rows else rows.assign(style="")
    parts = [pd.DataFrame(columns=CURVE_COLUMNS)]
    for names, own in rows.groupby(_NAMES, sort=False, observed=True):
        table = own.pivot_table(index="step", columns="run", values="value", observed=True)
        common = table.dropna()
        lines = {"": common}
        if len(common) < min(2, len(table)):
            lines = {str(run): table[[run]].dropna() for run in table.columns}
        for line, values in lines.items():
            intervals = mean_intervals(list(values.to_numpy()))
            part = pd.DataFrame(
                [(each.mean, each.low, each.high, each.n) for each in intervals], columns=["mean", "low", "high", "n"]
            )
            parts.append(named(part, _NAMES, names).assign(line=line, step=values.index))
    curves = pd.concat(parts[1:] or parts, ignore_index=True)[CURVE_COLUMNS]
    for name in _NAMES:
        curves[name] = pd.Categorical(curves[name], categories=ordered_values(rows[name]))
    return curves


def ordered_values(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column in the order of its categories, or else of their appearance."""
    present = list(dict.fromkeys(column))
    return [value for value in column.cat.categories if value in present] if column.dtype == "category" else present


def curves_figure(
    curves: pd.DataFrame,
    metric: Metric,
    view: View | None = None,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    step_name: str = "step",
    about: str = "",
    note: str = "",
) -> ggplot:
    """Draw mean curves, a frame with CURVE_COLUMNS, against the step.

    styles: how each label is drawn, from `series_styles` for all figures of a report; None: in the order of the
    labels. step_name: what a step is, such as "epoch". about: what all curves have in common, for the subtitle. note: a
    sentence for the caption. Step 0 is the untrained network. It is drawn, unless its value would flatten the rest of
    the curves: then a mark is at the edge of the axis, and the caption gives the value. Shares are shown in percent.
    """
    view = view or View()
    share = metric.unit == "%"
    inside = shown(curves, view, share=share)
    labels, kinds, panels = (ordered_values(curves[name]) for name in ("label", "style", "panel"))
    styles = styles or series_styles(map(str, labels))
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    has_legend = len(labels) > 1 or len(kinds) > 1
    width, height, beside = curve_size(view, labels if len(labels) > 1 else [], kinds, len(panels), columns)
    left_out = view.log_x and bool((curves["step"] <= 0).any())
    hidden = _hidden_text(inside.hidden, step_name, metric, leaves_out_0=left_out)
    caption = " ".join(part for part in (_seeds_text(curves), hidden, note) if part)
    figure: ggplot = ggplot(curves, aes("step", "mean", color="label"))
    for layer in _layers(inside, several_kinds=len(kinds) > 1):
        figure += layer
    names = [str(label) for label in labels]
    options = {"labels": [wrapped_setting(name, LEGEND_WIDTH) for name in names]}
    aesthetics = ("color", "fill") if len(kinds) > 1 else ("color", "fill", "linetype")
    for scale in series_scales(styles, names, aesthetics, **options):
        figure += scale
    if len(kinds) > 1:
        figure += scale_linetype_manual(values=dict(zip(kinds, _LINETYPES * len(kinds), strict=False)))
    # Each scale has another guide object, because plotnine changes it.
    figure += guides(color=guide_legend(ncol=1) if len(labels) > 1 else None, fill=None, linetype=guide_legend(ncol=1))
    figure += _x_scale(view)
    figure += y_scale(view, share=share)
    if len(panels) > 1:
        figure += facet_wrap("panel", ncol=columns, scales="free")
    figure += labs(
        title=view.title or sentence_case(metric.name),
        subtitle=wrapped(about, int(11 * width)) or None,
        x=step_name,
        y=metric.name if share else metric.heading,
        color="",
        fill="",
        linetype="",
        caption=wrapped(caption, int(14 * width)) or None,
    )
    figure += theme_plastic(figure_size=(width, height))
    return figure + theme(
        legend_position=("right" if beside else "bottom") if has_legend else "none", legend_title=element_blank()
    )


def _layers(inside: Shown, *, several_kinds: bool) -> list[Any]:
    """Return intervals, lines, points and marks."""
    lines, ribbons = (
        frame.assign(group=[f"{row.label}\n{row.style}\n{row.line}\n{row.piece}" for row in frame.itertuples()])
        for frame in (inside.lines, inside.ribbons)
    )
    lengths = lines.groupby("group")["step"].transform("size")
    kind = {"linetype": "style" if several_kinds else "label"}
    layers = [
        geom_blank(aes("step", "mean"), data=inside.edges, inherit_aes=False),
        # Without the means, which can lie outside the axis where only an end of the interval lies inside.
        geom_ribbon(
            aes("step", ymin="low", ymax="high", fill="label", group="group"),
            data=ribbons,
            inherit_aes=False,
            alpha=0.18,
            size=0,
            show_legend=False,
        ),
        geom_line(aes(group="group", **kind), data=lines[lengths > 1], size=0.9),
    ]
    steps = inside.points.groupby(CURVE, observed=True)["step"].transform("size")
    few = steps.max() <= MOST_POINTS
    points = inside.points if few else inside.points[steps == 1]
    layers.append(geom_point(data=points, size=1.4 if few else 2, show_legend=False))
    for below, mark in ((True, "v"), (False, "^")):
        marks = inside.hidden[inside.hidden["below"] == below]
        if len(marks):
            layers.append(
                geom_point(
                    aes("step", "mean"), data=marks, inherit_aes=False, shape=mark, color=GRAY, fill=GRAY, size=2
                )
            )
    return layers


def curve_size(
    view: View, labels: Sequence[Any], kinds: Sequence[Any], panels: int, columns: int
) -> tuple[float, float, bool]:
    """Return width and height in inches, and whether the legend is at the right of the panels."""
    entries = [wrapped_setting(str(label), LEGEND_WIDTH) for label in labels]
    entries += [str(kind) for kind in kinds] if len(kinds) > 1 else []
    longest = max((len(line) for entry in entries for line in entry.split("\n")), default=0)
    legend = 0.55 + 0.072 * longest if entries else 0.0
    lines = sum(entry.count("\n") + 1 for entry in entries)
    panel_width = {1: 5.0, 2: 3.6, 3: 2.9}[columns]
    width = view.width or panel_width * columns + 0.5 + legend
    # Below the panels, a legend would take most of a height that the user chose.
    least = 2.2 if view.height is not None else 3.6 if columns == 1 else 2.6
    beside = width - legend >= least * columns
    rows = -(-panels // columns)
    tall = max({1: 3.0, 2: 2.6, 3: 2.2}[columns] * rows + 1.2, 1.4 + 0.2 * lines if beside else 0)
    return width, view.height or (tall if beside else tall + 0.2 * lines), beside


def _x_scale(view: View) -> Any:
    if view.log_x:
        return scale_x_log10(labels=number_labels, minor_breaks=[], expand=(0.02, 0))
    return scale_x_continuous(breaks=whole_breaks, labels=number_labels, minor_breaks=[], expand=(0.02, 0))


def y_scale(view: View, *, share: bool) -> Any:
    """Return the vertical scale of values whose view is drawn by `shown`."""
    scale = scale_y_log10 if view.log_y else scale_y_continuous
    return scale(labels=share_labels if share else number_labels, minor_breaks=[], expand=(0, 0))


def share_labels(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return shares in percent with the digits that they need: 0.925 as "92.5%"."""
    return [f"{text}%" if text else "" for text in number_labels([100 * float(value) for value in values])]


def number_labels(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return the labels of an axis: with the same number of decimals, or from 0.01 to 100 each with its own."""
    numbers = [float(value) for value in values]
    finite = [abs(number) for number in numbers if np.isfinite(number)]
    positive = [number for number in finite if number > 0]
    if positive and (max(positive) >= 1e7 or min(positive) < 1e-4):
        texts = [f"{number:g}" for number in numbers]
    elif len(positive) > 1 and 0 not in finite and max(positive) >= 100 * min(positive):
        texts = [f"{number:,.6g}" for number in numbers]
    else:
        decimals = next((d for d in range(6) if all(abs(round(each, d) - each) < 1e-9 for each in finite)), 6)
        texts = [f"{number:,.{decimals}f}" for number in numbers]
    return [text if np.isfinite(number) else "" for text, number in zip(texts, numbers, strict=True)]


def whole_breaks(limits: tuple[float, float]) -> list[float]:
    """Return up to six breaks at integer steps."""
    low, high = int(np.ceil(limits[0])), int(np.floor(limits[1]))
    rough = max((high - low) / 5, 1)
    power = 10 ** int(np.floor(np.log10(rough)))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [float(value) for value in range(-(-low // step) * step, high + 1, step)]


def number_of_seeds(means: pd.DataFrame) -> str:
    """Return the number of seeds of means, column n, in words: "3 seeds", "2 to 5 seeds"."""
    least, most = int(means["n"].min()), int(means["n"].max())
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def interval_text(means: pd.DataFrame, shape: str) -> str:
    """Say which interval `shape`, such as "Ribbon", shows; nothing if no mean has an interval.

    means: columns low and n.
    """
    if not means["low"].notna().any():
        return ""
    few = f", if there are at least {MINIMUM_VALUES} seeds" if means["n"].min() < MINIMUM_VALUES else ""
    return f" {shape}: {interval_method()}{few}."


def _seeds_text(curves: pd.DataFrame) -> str:
    """Say what a line and its ribbon are."""
    if curves["n"].max() == 1:
        return ""
    return f"Line: mean over {number_of_seeds(curves)}.{interval_text(curves, 'Ribbon')}"


def _hidden_text(hidden: pd.DataFrame, step_name: str, metric: Metric, *, leaves_out_0: bool) -> str:
    """Say which values lie outside the axis."""
    sentences = []
    if len(hidden):
        for below, own in hidden.groupby("below", sort=False):
            steps = sorted(set(own["step"]))
            values = [metric.text(value) for value in (own["value"].min(), own["value"].max())]
            where = f"{step_name} {steps[0]:g}" if len(steps) == 1 else f"{step_name}s {steps[0]:g} to {steps[-1]:g}"
            mark, side = ("\N{BLACK DOWN-POINTING SMALL TRIANGLE}", "below") if below else (
                "\N{BLACK UP-POINTING SMALL TRIANGLE}", "above")  # fmt: skip
            amount = values[0] if values[0] == values[1] else f"{values[0]} to {values[1]}"
            sentences.append(f"{mark} {sentence_case(where)}, {side} the axis: {amount}.")
    if leaves_out_0:
        sentences.append(f"{sentence_case(step_name)} 0 has no place on a logarithmic axis.")
    return " ".join(sentences)


def sentence_case(text: str) -> str:
    """Return a text whose first letter is a capital one."""
    return text[:1].upper() + text[1:]


def wrapped_setting(setting: str, width: int) -> str:
    """Break the text of a setting between its fields."""
    fields = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in setting.split(", "))
    return wrapped(fields, width).replace("\N{NO-BREAK SPACE}", " ")


def wrapped(text: str, width: int) -> str:
    """Break a text into lines of up to `width` characters."""
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width) or [""])


def run_figure(
    metrics: pd.DataFrame,
    metric: str | None = None,
    view: View | None = None,
    *,
    rule: str | None = None,
    step_name: str = "step",
    about: str = "",
    smooth: int = 1,
) -> ggplot:
    """Draw the curves of one run: a metric of one split, or of each split, or of each layer or task.

    metrics: a frame as `RunStore.metrics()` returns it, with the rows of one run. metric: "split/name", or "name" for
    all splits; None: the accuracy, else the return, else the loss. smooth: each point is the mean of this number of
    steps. Raises UserError if the run has no such metric.
    """
    wanted = metric or first_metric(metrics)
    rows = metric_rows(metrics, wanted)
    labels = [label_text(label_values(text)) for text in rows["labels"]]
    splits = [split_words(split) for split in rows["split"]]
    several = len(set(splits)) > 1
    if any(labels):
        rows = rows.assign(label=labels, style=splits if several else "")
        order = sorted(set(labels), key=number_first)
    else:
        rows = rows.assign(label=splits, style="")
        order = [split_words(split) for split in in_order(list(dict.fromkeys(rows["split"])))]
    rows = rows.assign(label=pd.Categorical(rows["label"], order), panel="")
    curves = mean_curves(smoothed(rows, smooth))
    styles = ordered_styles(order) if any(labels) else None
    note = smoothing_text(smooth, step_name)
    return curves_figure(curves, metric_of(wanted, rule), view, styles, step_name=step_name, about=about, note=note)


def ordered_styles(names: Sequence[str]) -> dict[str, SeriesStyle]:
    """Return a style for each of some names with an order, such as the numbers of layers."""
    plain = series_styles(names)
    colors = ordered_colors(len(plain))
    return {
        name: replace(style, color=color, linetype="solid")
        for (name, style), color in zip(plain.items(), colors, strict=True)
    }


def smoothed(rows: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return rows in which each value is the mean of the values of its curve in the last `steps` steps."""
    if steps <= 1:
        return rows
    ordered = rows.sort_values("step", kind="stable").reset_index(drop=True)
    value = ordered["value"].to_numpy(dtype=np.float64, copy=True)
    for place in ordered.groupby(["run", *_NAMES], sort=False, observed=True).indices.values():
        step, sums = ordered["step"].to_numpy()[place], np.append(0, np.cumsum(value[place]))
        first = np.searchsorted(step, step - steps, side="right")
        value[place] = (sums[1:] - sums[first]) / (np.arange(1, len(place) + 1) - first)
    return ordered.assign(value=value)


def smoothing_text(steps: int, step_name: str) -> str:
    """Say how the curves are smoothed; "" if they are not."""
    return f"Each point is the mean of the last {steps} {step_name}s." if steps > 1 else ""
