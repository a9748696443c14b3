"""Figures of credit x update x network: a value of every combination, and a value of every layer."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    element_text,
    facet_wrap,
    geom_hline,
    geom_line,
    geom_point,
    geom_segment,
    geom_vline,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_x_continuous,
    scale_x_log10,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.curves import (
    interval_text,
    number_labels,
    number_of_seeds,
    ordered_values,
    sentence_case,
    share_labels,
    whole_breaks,
    wrapped,
    wrapped_setting,
)
from plastic_cli.figures.theme import GRAY, series_scales, series_styles, theme_plastic
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric
from plastic_cli.statistics.intervals import mean_intervals

WIDTH = 6.7
"""Inches: the width of a page of a journal."""

NARROW = 4.5
"""Inches: in a narrower figure, such as one for a column of a journal, the networks are below each other."""

_SIZE, _NARROW_SIZE = 9.5, 8.0
"""Points of the text."""
_SPREAD = 0.56
"""The share of the place of a credit rule over which its updates are spread."""


def combinations_figure(
    values: pd.DataFrame,
    metric: Metric,
    view: View | None = None,
    *,
    chance: float | None = None,
    about: str = "",
) -> ggplot:
    """Draw a value of every combination: a row for each credit rule, a panel for each network and data set.

    values: credit, network, update, dataset, run, value: one row per run. The mark and the color show the update. The
    credit rules are in the order of their mean rank over the combinations, the one with the largest values at the top.
    chance: a value to mark by a line.
    """
    view = view or View()
    width = view.width or WIDTH
    narrow = width < NARROW
    means = _placed(values, metric)
    means["panel"], columns = _panels(means, narrow=narrow)
    order = _by_rank(means)
    updates = [str(update) for update in ordered_values(means["update"])]
    base = _NARROW_SIZE if narrow else _SIZE
    names = [wrapped_setting(name, 18 if narrow else 26) for name in order]
    figure: ggplot = ggplot(means, aes("mean", "place", color="update", shape="update"))
    if chance is not None:
        figure += geom_vline(xintercept=chance, linetype="dotted", color=GRAY, size=0.6)
    figure += geom_segment(
        aes(x="low", xend="high", yend="place"), data=means.dropna(subset=["low"]), size=0.8, show_legend=False
    )
    figure += geom_point(size=1.9 if narrow else 2.3)
    for scale in series_scales(series_styles(updates), updates, ("color", "shape"), name="Update: "):
        figure += scale
    figure += _x_scale(view, share=metric.unit == "%")
    figure += scale_y_continuous(
        breaks=[-place for place in range(len(order))],
        labels=names,
        minor_breaks=[],
        limits=(0.5 - len(order), 0.5),
        expand=(0, 0),
    )
    figure += facet_wrap("panel", ncol=columns)
    figure += labs(
        title=view.title or f"{sentence_case(metric.name)} of every combination",
        subtitle=wrapped(about, _letters(width, base)) or None,
        x=sentence_case(metric.name if metric.unit == "%" else metric.heading),
        y="",
        caption=wrapped(_caption(means, chance, metric), int(1.2 * _letters(width, base))) or None,
    )
    lines = sum(name.count("\n") + 1 for name in names)
    panel = max(0.027 * base * len(order), 0.02 * base * lines, 0.9) + 0.32
    height = view.height or -(-means["panel"].nunique() // columns) * panel + 1.5
    figure += theme_plastic(base, (width, height))
    return figure + theme(
        legend_position="top" if len(updates) > 1 else "none",
        axis_text_y=element_text(ma="right"),
        axis_line_y=element_blank(),
        axis_ticks_y=element_blank(),
        panel_spacing=0.03,
    )


def _letters(width: float, base: float) -> int:
    """Return how many letters of a subtitle fit a line of `width` inches. base: the size of the letters in points."""
    return int(135 * width / base)


def _placed(values: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return the mean of every combination with its place on the vertical axis, and its value in words."""
    means = _means(values, ["credit", "network", "update", "dataset"])
    order = _by_rank(means)
    updates = [str(update) for update in ordered_values(means["update"])]
    step, middle = _SPREAD / max(len(updates), 2), (len(updates) - 1) / 2
    if metric.unit == "%":
        means[["low", "high"]] = means[["low", "high"]].clip(0, 1)
    rows = means.to_dict("records")
    means["place"] = [
        -order.index(str(row["credit"])) - step * (updates.index(str(row["update"])) - middle) for row in rows
    ]
    means["hover"] = [
        f"{row['credit']}, {row['network']}, {row['update']}, {row['dataset']}: {metric.text(row['mean'])}"
        for row in rows
    ]
    return means


def _x_scale(view: View, *, share: bool) -> Any:
    limits: Any = view.x_range
    if view.log_x:
        return scale_x_log10(labels=_power_labels, breaks=_few_powers, minor_breaks=[], limits=limits)
    labels = share_labels if share else number_labels
    return scale_x_continuous(labels=labels, minor_breaks=[], limits=limits, breaks=_few_breaks)


def _caption(means: pd.DataFrame, chance: float | None, metric: Metric) -> str:
    text = "" if means["n"].max() == 1 else f"Mark: mean over {number_of_seeds(means)}.{interval_text(means, 'Bar')}"
    return f"{text} Dotted line: chance, {metric.text(chance)}.".strip() if chance is not None else text


def _layers_caption(means: pd.DataFrame, reference: float | None, metric: Metric) -> str:
    text = "" if means["n"].max() == 1 else f"Mark: mean over {number_of_seeds(means)}."
    return f"{text} Dotted line: {metric.text(reference)}.".strip() if reference is not None else text


def layers_figure(
    values: pd.DataFrame, metric: Metric, view: View | None = None, *, reference: float | None = None, about: str = ""
) -> ggplot:
    """Draw a value of every layer: a line for each credit rule, a panel for each update and network.

    values: credit, network, update, dataset, run, place, value: one row per run and layer of one data set. place: the
    number of the layer. reference: a value to mark by a line.
    """
    view = view or View()
    width = view.width or WIDTH
    narrow = width < NARROW
    base = _NARROW_SIZE if narrow else _SIZE
    means = _means(values, ["credit", "network", "update", "dataset", "place"])
    means["panel"], columns = _panels(means, narrow=narrow, by=("update",))
    means["hover"] = [
        f"{row['credit']}, {row['panel']}, layer {row['place']}: {metric.text(row['mean'])}"
        for row in means.to_dict("records")
    ]
    rules = [str(name) for name in ordered_values(means["credit"])]
    figure: ggplot = ggplot(means, aes("place", "mean", color="credit", shape="credit"))
    if reference is not None:
        figure += geom_hline(yintercept=reference, linetype="dotted", color=GRAY, size=0.6)
    lengths = means.groupby(["credit", "panel"], observed=True)["place"].transform("size")
    figure += geom_line(aes(group="credit"), data=means[lengths > 1], size=0.7)
    figure += geom_point(size=1.3)
    names = [wrapped_setting(name, 40) for name in rules]
    for scale in series_scales(series_styles(rules), rules, ("color", "shape"), labels=names, name=""):
        figure += scale
    across = 1 if narrow else 3
    figure += guides(color=guide_legend(ncol=across), shape=guide_legend(ncol=across))
    figure += scale_x_continuous(breaks=whole_breaks, minor_breaks=[])
    figure += _y_scale(view, means, in_degrees=metric.unit == "degrees")
    figure += facet_wrap("panel", ncol=columns, scales="free_x")
    figure += labs(
        title=view.title or f"{sentence_case(metric.name)} of every layer",
        subtitle=wrapped(about, _letters(width, base)) or None,
        x="Layer, from the input",
        y=sentence_case(metric.heading),
        caption=wrapped(_layers_caption(means, reference, metric), int(1.2 * _letters(width, base))) or None,
    )
    panel = 1.25 if narrow else 1.5
    rows = -(-means["panel"].nunique() // columns)
    height = view.height or rows * panel + 1.3 + 0.19 * -(-len(rules) // across)
    figure += theme_plastic(base, (width, height))
    return figure + theme(legend_position="bottom", legend_title=element_blank(), panel_spacing=0.03)


def _y_scale(view: View, means: pd.DataFrame, *, in_degrees: bool) -> Any:
    limits: Any = view.y_range
    if not in_degrees:
        return scale_y_continuous(minor_breaks=[], breaks=_few_breaks, limits=limits)
    top = max(90.0, float(means["mean"].max()))
    return scale_y_continuous(minor_breaks=[], breaks=list(range(0, 181, 30)), limits=limits or (0, top))


def _means(values: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the mean over the seeds and its interval: mean, low, high and n."""
    grouped = values.groupby(list(names), observed=True)["value"]
    intervals = mean_intervals([own.to_numpy() for _, own in grouped])
    table = grouped.size().index.to_frame(index=False)
    bounds = [(each.mean, each.low, each.high, each.n) for each in intervals]
    return pd.concat([table, pd.DataFrame(bounds, columns=["mean", "low", "high", "n"])], axis=1)


def _by_rank(means: pd.DataFrame) -> list[str]:
    """Return the credit rules in the order of their mean rank within each network, update and data set."""
    ranks = means.groupby(["network", "update", "dataset"], observed=True)["mean"].rank(pct=True)
    order = ranks.groupby(means["credit"].astype(str), sort=False).mean().sort_values(ascending=False, kind="stable")
    return [str(name) for name in order.index]


def _panels(means: pd.DataFrame, *, narrow: bool, by: Sequence[str] = ()) -> tuple[Any, int]:
    """Return the panel of each row, and the number of columns: the networks, or one in a narrow figure."""
    parts = [part for part in ("dataset", *by) if len(set(means[part])) > 1]
    order = means[[*parts, "network"]].drop_duplicates().sort_values([*parts, "network"])

    def text(row: Any) -> str:
        return ", ".join(str(row[part]) for part in ("network", *parts))

    texts = [text(row) for row in means.to_dict("records")]
    return pd.Categorical(texts, [text(row) for row in order.to_dict("records")]), (
        1 if narrow else min(len(set(means["network"])), 3)
    )


def _few_breaks(limits: tuple[float, float]) -> list[float]:
    """Return up to five breaks, so that the labels of narrow panels do not touch."""
    low, high = limits
    power = 10.0 ** math.floor(math.log10(high - low)) if high > low else 1.0
    step = next(power * factor for factor in (0.25, 0.5, 1, 2, 5) if (high - low) / (power * factor) <= 5)
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [round(number * step, 12) for number in numbers]


def _few_powers(limits: tuple[float, float]) -> list[float]:
    """Return up to three powers of 10 within the limits of a logarithmic axis; its ends if there is none."""
    low, high = limits
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [10.0**power for power in powers[:: max(1, -(-len(powers) // 3))]] or [low, high]


def _power_labels(values: Sequence[float] | Sequence[str]) -> list[str]:
    return [f"{float(value):.0e}".replace("e+0", "e").replace("e+", "e") for value in values]
