"""Results against a price: each setting, and the frontier of those that no cheaper one reaches."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from plotnine import (
    aes,
    coord_cartesian,
    element_blank,
    facet_wrap,
    geom_linerange,
    geom_point,
    geom_segment,
    geom_step,
    geom_text,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_fill_manual,
    scale_x_continuous,
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
    wrapped,
    wrapped_setting,
)
from plastic_cli.figures.theme import GRAY, INK, PAPER, SOFT_INK, rule_styles, series_scales, theme_plastic
from plastic_cli.figures.view import MARGIN, View, share_range
from plastic_cli.plugins.metrics import Metric

MOST_NAMED = 24
"""Of more settings than this, only those on the frontier and the controls have a number and a name."""
OTHERS = "other settings"

_PANEL = 4.2
"""Inches: the width of a panel."""
_LEGEND_WIDTH = 40
_ZERO_GAP = 0.7
"""Powers of ten between the place of the price 0 and the smallest price above it."""
_CLOSE = 0.05
"""Points closer than this share of the price axis get numbers above each other."""
_LINE = 0.075
"""Share of the vertical axis that a number takes."""


def pareto_figure(
    points: pd.DataFrame, metric: Metric, price: Metric, view: View | None = None, *, more_is_better: bool = True
) -> ggplot:
    """Draw results against a price on a logarithmic axis, with the frontier, in a panel for each data set.

    points: number, label, rule, panel, price, mean, low, high, n, is_control, on_frontier, hover: a row for each
    setting and panel; low and high are NaN without an interval. Rules have colors and marks of their own, settings have
    numbers, and controls have hollow marks. A price of 0 has a place of its own at the left end.
    """
    view = view or View()
    placed = _placed(points)
    panels = [str(panel) for panel in ordered_values(placed["panel"])]
    share = metric.unit == "%"
    if share:
        # An interval can reach beyond what a share can be.
        placed[["low", "high"]] = placed[["low", "high"]].clip(0, 1)
    ends = _ends(placed, view, share=share)
    named = placed[placed["label"] != OTHERS]
    labels = list(dict.fromkeys(named.sort_values("number")["label"]))
    columns = min(len(panels), 2)
    entries = {label: wrapped_setting(label, _LEGEND_WIDTH) for label in labels}
    lines = sum(entry.count("\n") + 1 for entry in entries.values())
    longest = max((len(line) for entry in entries.values() for line in entry.split("\n")), default=0)
    width = view.width or _PANEL * columns + 0.8 + 0.072 * longest
    height = view.height or max(3.4 * -(-len(panels) // columns) + 0.9, 1.3 + 0.2 * lines)
    numbers = _numbers(named, height=height / -(-len(panels) // columns))
    if ends is not None:
        numbers = numbers[numbers["above"].between(*ends)]
    figure: ggplot = (
        ggplot(placed, aes("place", "mean"))
        + geom_step(
            aes(group="panel"), data=_steps(placed), color=SOFT_INK, size=0.6, linetype="dashed", direction="hv"
        )
        + geom_linerange(aes(ymin="low", ymax="high"), data=placed.dropna(subset=["low"]), color=GRAY, size=0.8)
        + geom_point(data=placed[placed["label"] == OTHERS], color=GRAY, size=1.2, alpha=0.6)
        + geom_segment(
            aes(xend="line_x", yend="text_y"),
            data=numbers[numbers["is_moved"]],
            color=GRAY,
            size=0.3,
            show_legend=False,
        )
        + geom_point(aes(color="label", shape="label", fill="label"), data=named, size=2.6, stroke=0.8)
        + geom_text(
            aes("text_x", "above", label="number_text"), data=numbers, size=7.5, ha="left", va="center", color=INK
        )
    )
    figure += _scales(named, labels, entries)
    figure += _price_scale(placed, numbers)
    figure += scale_y_continuous(labels=share_labels if share else number_labels, minor_breaks=[])
    if ends is not None:
        figure += coord_cartesian(ylim=ends)
    if len(panels) > 1:
        figure += facet_wrap("panel", ncol=columns, scales="free_y")
    figure += labs(
        title=view.title or f"{sentence_case(metric.name)} against {price.name}",
        subtitle=panels[0] if len(panels) == 1 and panels[0] else None,
        x=sentence_case(price.heading),
        y=sentence_case(metric.name if metric.unit == "%" else metric.heading),
        caption=wrapped(_caption(placed, more_is_better=more_is_better), int(13 * width)),
    )
    figure += theme_plastic(9.5, (width, height))
    return figure + theme(legend_position="right", legend_title=element_blank(), panel_spacing=0.03)


def _placed(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with their place on the axis: the logarithm of the price, or left of all for the price 0."""
    many = points["number"].nunique() > MOST_NAMED
    shown = points["on_frontier"] | points["is_control"] if many else pd.Series(True, index=points.index)
    kept = set(points.loc[shown, "number"])
    labels = [
        label if number in kept else OTHERS for label, number in zip(points["label"], points["number"], strict=True)
    ]
    prices = points["price"].to_numpy(dtype=float)
    positive = prices[prices > 0]
    zero = math.log10(positive.min()) - _ZERO_GAP if len(positive) else 0.0
    places = np.full(len(prices), zero)
    places[prices > 0] = np.log10(positive)
    return points.assign(label=labels, place=places)


def _steps(placed: pd.DataFrame) -> pd.DataFrame:
    """Return the corners of the frontier of each panel, which ends at the largest price of the panel."""
    parts = []
    right = placed["place"].max()
    for _, own in placed.groupby("panel", observed=True, sort=False):
        best = own[own["on_frontier"]].sort_values("place")
        parts.append(pd.concat([best, best.tail(1).assign(place=right)]))
    return pd.concat(parts, ignore_index=True)[["panel", "place", "mean"]]


def _numbers(named: pd.DataFrame, *, height: float) -> pd.DataFrame:
    """Return the named points with the place of their number, to the right of the point, without overlap."""
    span = max(float(np.ptp(named["place"])), 0.5)
    parts = []
    for _, own in named.groupby("panel", observed=True, sort=False):
        ends = np.nanmin([own["low"].min(), own["mean"].min()]), np.nanmax([own["high"].max(), own["mean"].max()])
        tall = max(ends[1] - ends[0], 1e-9)
        gap = _LINE * tall * 3.4 / height
        own = own.sort_values("place")
        cluster = (own["place"].diff() > _CLOSE * span).cumsum()
        for _, close in own.groupby(cluster, sort=False):
            spread = apart(close["mean"].to_numpy(dtype=float), gap)
            right = float(close["place"].max())
            moved = (np.abs(spread - close["mean"]) > gap / 4) | (right - close["place"] > 0.02 * span)
            parts.append(
                close.assign(
                    text_x=right + 0.035 * span,
                    line_x=right + 0.03 * span,
                    text_y=spread,
                    is_moved=moved,
                    above=spread + 0.3 * gap,
                )
            )
    numbers = pd.concat(parts, ignore_index=True)
    return numbers.assign(number_text=numbers["number"].astype(str))


def apart(values: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Return values that are at least `gap` apart, in the same order, with the least squared change."""
    order = np.argsort(values, kind="stable")
    # Isotonic regression of the values without their gaps: neighbors that would be out of order share their mean.
    offsets = gap * np.arange(len(values))
    blocks: list[list[float]] = []
    for value in values[order] - offsets:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (first, many), (second, few) = blocks[-2:]
            blocks[-2:] = [[(first * many + second * few) / (many + few), many + few]]
    found = np.empty(len(values))
    found[order] = np.concatenate([np.full(int(count), mean) for mean, count in blocks]) + offsets
    return found


def _scales(named: pd.DataFrame, labels: Sequence[str], entries: Mapping[str, str]) -> list[Any]:
    """Return the scales of the settings: color and mark are those of the rule, controls are hollow."""
    rules = dict(zip(named["label"], named["rule"], strict=True))
    hollow = dict(zip(named["label"], named["is_control"], strict=True))
    by_rule = rule_styles({rule: rule for rule in dict.fromkeys(rules.values())})
    styles = {label: by_rule[rules[label]] for label in labels}
    texts = [entries[label] for label in labels]
    fills = {label: PAPER if hollow[label] else styles[label].color for label in labels}
    return [
        *series_scales(styles, labels, ("color", "shape"), labels=texts, name=""),
        scale_fill_manual(values=fills, breaks=list(labels), limits=list(labels), labels=texts, name=""),
        guides(color=guide_legend(ncol=1), shape=guide_legend(ncol=1), fill=guide_legend(ncol=1)),
    ]


def _price_scale(placed: pd.DataFrame, numbers: pd.DataFrame) -> Any:
    """Return the axis of prices, marked at powers of ten, and at 0 if a setting costs nothing."""
    costly = placed.loc[placed["price"] > 0, "place"]
    low, high = (costly.min(), costly.max()) if len(costly) else (0.0, 1.0)
    breaks = _breaks(low, high, (1,))
    if len(breaks) < 2:
        breaks = _breaks(low, high, (1, 2, 5))
    if (placed["price"] <= 0).any():
        zero = float(placed["place"].min())
        breaks = {zero: "0"} | {place: text for place, text in breaks.items() if place > zero + 0.3}
    left = min(placed["place"].min(), *breaks)
    right = max(numbers["text_x"].max() + 0.06 * (high - left), *breaks)
    return scale_x_continuous(
        breaks=list(breaks), labels=list(breaks.values()), minor_breaks=[], limits=(left, right), expand=(0.03, 0)
    )


def _breaks(low: float, high: float, factors: Sequence[int]) -> dict[float, str]:
    """Return up to five marks between two powers of ten, at multiples by `factors`, with their labels."""
    powers = range(math.floor(low) - 1, math.ceil(high) + 1)
    places = {power + math.log10(factor): f"{factor}e{power}" for power in powers for factor in factors}
    inside = {place: text for place, text in places.items() if low - 0.15 <= place <= high + 0.15}
    return dict(list(inside.items())[:: max(1, -(-len(inside) // 5))])


def _ends(placed: pd.DataFrame, view: View, *, share: bool) -> tuple[float, float] | None:
    """Return the ends of the vertical axis if the user chose one of them; else None."""
    wanted = share_range(view.y_range) if share else view.y_range
    if wanted is None:
        return None
    low, high = placed["mean"].min(), placed["mean"].max()
    room = MARGIN * (high - low)
    return low - room if wanted[0] is None else wanted[0], high + room if wanted[1] is None else wanted[1]


def _caption(placed: pd.DataFrame, *, more_is_better: bool) -> str:
    means = placed
    seeds = "Each mark is one run." if means["n"].max() == 1 else f"Mark: mean over {number_of_seeds(means)}."
    better = "highest" if more_is_better else "lowest"
    parts = [
        f"{seeds}{interval_text(means, 'Bar')}",
        f"Dashed line: the frontier, the {better} mean for at most this price.",
        "Hollow marks: controls." if placed["is_control"].any() else "",
        "Dots without a number: other settings." if (placed["label"] == OTHERS).any() else "",
    ]
    return " ".join(part for part in parts if part)
