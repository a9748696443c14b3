"""Final values over an option: the mean over seeds with its interval, and each seed."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotnine import (
    aes,
    coord_flip,
    element_blank,
    element_text,
    facet_wrap,
    geom_blank,
    geom_line,
    geom_linerange,
    geom_point,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_x_continuous,
    scale_x_log10,
    theme,
)

from plastic_cli.errors import UserError
from plastic_cli.figures.curves import (
    CURVE_COLUMNS,
    LEGEND_WIDTH,
    curve_size,
    interval_text,
    number_labels,
    number_of_seeds,
    ordered_values,
    sentence_case,
    wrapped,
    wrapped_setting,
    y_scale,
)
from plastic_cli.figures.theme import SeriesStyle, series_scales, series_styles, theme_plastic
from plastic_cli.figures.view import CURVE, View, shown
from plastic_cli.plugins.metrics import Metric
from plastic_cli.statistics.intervals import mean_intervals

MOST_MARKED = 8
"""Up to this number of values of an option are marked on the axis."""
LEAST_GAP = 0.07
"""Values of an option that are closer than this share of the axis are not all marked."""
NAME_WIDTH = 30
"""Characters per line of a name on the axis."""
_SPREAD = 0.5
"""The share of the place of a name over which the labels are spread."""


def finals_figure(
    values: pd.DataFrame,
    metric: Metric,
    view: View | None = None,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    option: str,
    about: str = "",
    note: str = "",
) -> ggplot:
    """Draw final values against an option.

    values: label, panel, x, run, value: one row per run. x: the value of the option, a number, or names, which are
    below each other in the order of their categories. styles: how each label is drawn, as for `curves_figure`. Raises
    UserError for a logarithmic axis of names.
    """
    view = view or View()
    share = metric.unit == "%"
    names = [] if pd.api.types.is_numeric_dtype(values["x"]) else [str(name) for name in ordered_values(values["x"])]
    if names and view.log_x:
        raise UserError("--log x needs numbers on the horizontal axis, and this one has names. Leave it out.")
    labels, panels = (ordered_values(values[name]) for name in ("label", "panel"))
    placed = values.assign(step=_places(values, names))
    means = _means(placed)
    inside = shown(means, view, share=share, skip_early=False)
    ends = inside.edges.groupby("panel", observed=True)["mean"].agg(["min", "max"])
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    width, height, beside = curve_size(view, labels if len(labels) > 1 else [], [], len(panels), columns)
    if names and view.height is None:
        legend = sum(wrapped_setting(str(label), LEGEND_WIDTH).count("\n") + 1.4 for label in labels)
        height = max(_height_of_names(values, -(-len(panels) // columns)), 1.2 + 0.18 * legend if beside else 0)
    keys = [str(label) for label in labels]
    styles = styles or series_styles(keys)
    figure: ggplot = (
        ggplot(means, aes("step", "mean", color="label"))
        + geom_blank(aes("step", "mean"), data=inside.edges, inherit_aes=False)
        + geom_point(aes("step", "value"), data=_inside(placed, "value", ends), size=1.2, alpha=0.35, show_legend=False)
        + geom_linerange(aes(ymin="low", ymax="high"), data=_cut(inside.points, ends), size=0.9, show_legend=False)
    )
    sizes = inside.lines.groupby(CURVE, observed=True)["step"].transform("size")
    if not names and (sizes > 1).any():
        figure += geom_line(aes(group="label"), data=inside.lines[sizes > 1], size=0.7)
    figure += geom_point(aes(shape="label"), data=inside.points, size=2.6)
    for scale in series_scales(
        styles, keys, ("color", "shape"), labels=[wrapped_setting(key, LEGEND_WIDTH) for key in keys]
    ):
        figure += scale
    figure += guides(color=guide_legend(ncol=1), shape=guide_legend(ncol=1))
    figure += _x_scale(placed["step"], names, view)
    figure += y_scale(view, share=share)
    if len(panels) > 1:
        figure += facet_wrap("panel", ncol=columns, scales="free_x" if names else "free_y")
    if names:
        figure += coord_flip()
    figure += labs(
        title=view.title or sentence_case(metric.name),
        subtitle=wrapped(about, int(11 * width)) or None,
        x=option,
        y=metric.name if share else metric.heading,
        color="",
        shape="",
        caption=wrapped(" ".join(part for part in (_seeds_text(means), note) if part), int(14 * width)) or None,
    )
    figure += theme_plastic(figure_size=(width, height))
    return figure + theme(
        legend_position=("right" if beside else "bottom") if len(labels) > 1 else "none",
        legend_title=element_blank(),
        axis_text_y=element_text(ma="right"),
    )


def _places(values: pd.DataFrame, names: Sequence[str]) -> Any:
    """Return where each run is on the axis: at its number, or at its name and there next to other labels."""
    if not names:
        return values["x"].astype(float)
    place = values["x"].astype(object).astype(str).map({name: place for place, name in enumerate(names)})
    there = values.assign(place=place, code=pd.factorize(values["label"], sort=True)[0]).groupby(["panel", "place"])[
        "code"
    ]
    rank, count = there.rank(method="dense"), there.transform("nunique")
    # The first name and the first label are at the top.
    return -(place + _SPREAD * ((rank - 0.5) / count - 0.5))


def _height_of_names(values: pd.DataFrame, rows: int) -> float:
    """Return the height in inches of `rows` rows of panels: each label and each line of the text has a line."""
    labels = values.groupby(values["x"].astype(str))["label"].nunique()
    lines = [max(int(count), wrapped_setting(str(name), NAME_WIDTH).count("\n") + 1) for name, count in labels.items()]
    return max(2.4, 1.2 + rows * max(0.9, 0.17 * sum(lines) + 0.12 * len(lines) + 0.2))


def _means(placed: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each label at each place of the axis, in the form of `mean_curves`."""
    of_places = placed.groupby(["label", "panel", "step"], observed=True)["value"]
    intervals = mean_intervals([values.to_numpy() for _, values in of_places])
    bounds = [(each.mean, each.low, each.high, each.n) for each in intervals]
    means = pd.concat(
        [of_places.size().index.to_frame(index=False), pd.DataFrame(bounds, columns=["mean", "low", "high", "n"])],
        axis=1,
    )
    return means.assign(style="", line="")[CURVE_COLUMNS]


def _inside(frame: pd.DataFrame, column: str, ends: pd.DataFrame) -> pd.DataFrame:
    low, high = (frame["panel"].astype(object).map(ends[end].to_dict()) for end in ("min", "max"))
    return frame[frame[column].between(low, high)]


def _cut(points: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    low, high = (points["panel"].astype(object).map(ends[end].to_dict()) for end in ("min", "max"))
    known = points.dropna(subset=["low", "high"])
    return known.assign(low=known["low"].clip(low, high), high=known["high"].clip(low, high))


def _x_scale(steps: pd.Series[Any], names: Sequence[str], view: View) -> Any:
    if names:
        texts = [wrapped_setting(name, NAME_WIDTH) for name in names]
        at = [-place for place in range(len(names))]
        return scale_x_continuous(breaks=at, labels=texts, minor_breaks=[], limits=(0.4 - len(names), 0.6))
    scale = scale_x_log10 if view.log_x else scale_x_continuous
    measured = np.unique(steps)
    places = np.log10(measured[measured > 0]) if view.log_x else measured
    gaps = np.diff(places)
    if len(measured) <= MOST_MARKED and (len(gaps) == 0 or gaps.min() >= LEAST_GAP * gaps.sum()):
        labels = [f"{value:g}" for value in measured]
        return scale(breaks=list(measured), labels=labels, minor_breaks=[], expand=(0.05, 0))
    return scale(labels=number_labels, minor_breaks=[], expand=(0.05, 0))


def _seeds_text(means: pd.DataFrame) -> str:
    if means["n"].max() == 1:
        return "Each point is one run."
    seeds = number_of_seeds(means)
    return f"Large points: mean over {seeds}. Small points: single seeds.{interval_text(means, 'Bar')}"
