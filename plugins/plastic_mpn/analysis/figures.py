"""The figures of `plastic analyze mpn`: principal components, M, decoding, and ablations."""

# plotnine does not declare the type of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from plotnine import (
    aes,
    coord_cartesian,
    element_blank,
    expand_limits,
    facet_wrap,
    geom_hline,
    geom_jitter,
    geom_line,
    geom_linerange,
    geom_path,
    geom_point,
    geom_raster,
    geom_ribbon,
    geom_segment,
    geom_vline,
    ggplot,
    guide_colorbar,
    guides,
    labs,
    scale_color_gradientn,
    scale_color_manual,
    scale_fill_gradientn,
    scale_fill_manual,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    scale_y_reverse,
    theme,
)

from plastic_cli.figures.theme import DIVERGING, GRAY, PALETTE, discrete_colors, percent_of_one, theme_plastic
from plastic_cli.statistics.intervals import interval_method
from plastic_mpn.analysis.principal_components import PrincipalComponents

STATES = {"h": "hidden state h", "M": "modulations M"}
STATE_COLORS = {STATES["h"]: PALETTE[1], STATES["M"]: PALETTE[0]}
STATE_SHAPES = {STATES["h"]: "o", STATES["M"]: "s"}
TRAJECTORIES = 8
"""Maximum number of trajectories in a figure; more would be hard to distinguish."""
MAX_CATEGORIES = 8
LOWEST_R2 = -0.25
"""R2 has no lower bound. Values below this one are drawn here."""

# Drawn as an image, because a gradient takes megabytes in an SVG.
_COLOR_BAR = guide_colorbar(display="raster", nbin=100)


def variance_figure(table: pd.DataFrame, found: Mapping[str, PrincipalComponents], run_name: str) -> ggplot:
    """Draw the cumulative explained variance of the first components, for h and M. table: `variance_table`."""
    data = _with_state_names(table)
    dimensions = [f"{state}: {components.participation_ratio:.2f}" for state, components in found.items()]
    last = int(data["component"].max())
    return (
        ggplot(data, aes("component", "cumulative", color="state", shape="state"))
        + geom_line(size=0.9)
        + geom_point(size=2.4)
        + _state_colors()
        + scale_shape_manual(values=STATE_SHAPES)
        + scale_x_continuous(breaks=[1, *range(5, last + 1, 5)] if last > 5 else list(range(1, last + 1)))
        + scale_y_continuous(labels=percent_of_one, limits=(0, 1))
        + labs(
            title="Principal components",
            subtitle=f"{run_name}\neffective dimension (participation ratio): {', '.join(dimensions)}",
            x="Number of components",
            y="Cumulative explained variance",
        )
        + theme_plastic(figure_size=(6.5, 4))
        + theme(legend_position="bottom", legend_title=element_blank())
    )


def trajectories_figure(
    table: pd.DataFrame, found: Mapping[str, PrincipalComponents], color: str, run_name: str
) -> ggplot:
    """Draw the trajectories of the first episodes in the plane of two components. table: `trajectory_table`.

    color: the name of the value that colors the lines.
    """
    data = table[table["episode"] < TRAJECTORIES].copy()
    panels = {state: _panel(state, components) for state, components in found.items()}
    data["panel"] = pd.Categorical([panels[state] for state in data["state"]], list(panels.values()))
    categories = sorted(data["value"].dropna().unique())
    colors: list[Any]
    if _are_categories(categories):
        data["value"] = pd.Categorical(
            [_category_name(value) for value in data["value"]], [_category_name(k) for k in categories]
        )
        colors = [scale_color_manual(values=discrete_colors(len(categories)), name=color)]
    else:
        data["value"] = data["value"].astype(float)
        colors = [scale_color_gradientn(discrete_colors(9), name=color), guides(color=_COLOR_BAR)]
    starts = data.groupby(["panel", "episode"], observed=True).first().reset_index()
    ends = data.groupby(["panel", "episode"], observed=True).last().reset_index()
    width = 0.8 + 3.9 * len(panels)
    return (
        ggplot(data, aes("PC1", "PC2", color="value"))
        + geom_path(aes(group="episode"), size=0.7, alpha=0.8)
        + geom_point(data=starts, size=2.6, shape="o", fill="white", stroke=0.8, show_legend=False)
        + geom_point(data=ends, size=2.6, shape="s", show_legend=False)
        + facet_wrap("panel", scales="free")
        + colors
        + labs(
            title="Trajectories in the plane of two components",
            subtitle=f"{run_name}; {data['episode'].nunique()} episodes, start: circle, end: square",
            x="PC1",
            y="PC2",
        )
        + theme_plastic(figure_size=(width, 4.2))
    )


def matrices_figure(matrices: NDArray[np.floating], steps: Sequence[int], run_name: str) -> ggplot:
    """Draw heat maps of M (T, n, d) before each of `steps`, all on one scale."""
    names = [f"step {step}" for step in steps]
    parts = []
    for step, name in zip(steps, names, strict=True):
        unit, number = np.indices(matrices[step].shape)
        parts.append(
            pd.DataFrame({"input": number.ravel(), "unit": unit.ravel(), "M": matrices[step].ravel(), "step": name})
        )
    data = pd.concat(parts)
    data["step"] = pd.Categorical(data["step"], names)
    limit = float(data["M"].abs().max()) or 1.0
    inputs = matrices.shape[2]
    columns = min(3, len(steps))
    rows = -(-len(steps) // columns)
    return (
        ggplot(data, aes("input", "unit", fill="M"))
        # Any other interpolation would mix neighboring entries, which are unrelated.
        + geom_raster(interpolation="nearest")
        + facet_wrap("step", ncol=columns)
        + scale_fill_gradientn(DIVERGING, limits=(-limit, limit), name="M\n(no unit)")
        + scale_x_continuous(expand=(0, 0), breaks=_ticks(inputs))
        + scale_y_reverse(expand=(0, 0))
        + guides(fill=_COLOR_BAR)
        + labs(title="Modulations M in one episode", subtitle=run_name, x="Input", y="Hidden unit")
        + theme_plastic(figure_size=(7.5, 2.6 * rows + 0.9))
        + theme(panel_grid_major=element_blank())
    )


def modulation_figure(table: pd.DataFrame, summary: pd.DataFrame, variance_share: float, run_name: str) -> ggplot:
    """Draw norm and share over the steps: thin lines for episodes, a thick line and a band for mean and interval.

    table: `modulation_table`; summary: `summarize_modulation`.
    """
    variance = (
        f"share of M in the variance of the preactivation, over all steps and episodes: {100 * variance_share:.3g}%"
    )
    names = {"norm": "Frobenius norm of M", "share": "Share of M in the preactivation, by norm"}
    episodes = table["episode"].nunique()
    thin_lines = f"the first {TRAJECTORIES} of {episodes} episodes" if episodes > TRAJECTORIES else "single episodes"
    thin = table[table["episode"] < TRAJECTORIES].melt(["episode", "step"], ["norm", "share"], "measure", "value")
    thick = summary.assign(measure=pd.Categorical(summary["measure"].map(names), list(names.values())))
    thin["measure"] = pd.Categorical(thin["measure"].map(names), list(names.values()))
    known = thick.dropna(subset=["low"])
    return (
        ggplot(thick, aes("step"))
        + geom_line(aes(y="value", group="episode"), data=thin, color=GRAY, size=0.3, alpha=0.6)
        + geom_ribbon(aes(ymin="low", ymax="high"), data=known, fill=PALETTE[0], alpha=0.25)
        + geom_line(aes(y="mean"), color=PALETTE[0], size=1.1)
        + facet_wrap("measure", scales="free_y")
        + expand_limits(y=0)
        + labs(
            title="Modulations M over the episodes",
            subtitle=f"{run_name}\n{variance}",
            x="Step",
            y="",
            caption=f"Thin: {thin_lines}. Thick: mean of the episodes that have the step, {interval_method()}.",
        )
        + theme_plastic(figure_size=(8.5, 3.8))
    )


def past_inputs_figure(table: pd.DataFrame, run_name: str) -> ggplot:
    """Draw how well the observation k steps ago can be decoded, as a function of k. table: `decode`."""
    data = _clipped(_with_state_names(table[table["target"] == "observation"].dropna(subset=["value", "chance"])))
    original, chance = "original targets", "shuffled between episodes"
    lines = pd.concat(
        [data.assign(targets=original), data.assign(targets=chance, value=data["chance"])], ignore_index=True
    )
    return (
        ggplot(lines, aes("lag", "value", color="state", linetype="targets"))
        + geom_hline(yintercept=0, color=GRAY, size=0.4)
        + geom_ribbon(
            aes("lag", ymin="chance_low", ymax="chance_high", fill="state"), data=data, alpha=0.15, inherit_aes=False
        )
        + geom_line(size=0.9)
        + geom_point(aes(shape="state"), size=2.4)
        + _state_colors()
        + scale_fill_manual(values=STATE_COLORS)
        + scale_shape_manual(values=STATE_SHAPES)
        + scale_linetype_manual(values={original: "solid", chance: "dashed"})
        + scale_x_continuous(breaks=sorted(data["lag"].unique()))
        + coord_cartesian(ylim=(min(-0.05, float(data["chance_low"].min()), float(data["value"].min())), 1))
        + labs(
            title="Decoding past observations",
            subtitle=f"{run_name}\nR² on held-out episodes, mean over the entries of an observation",
            x="Steps since the observation",
            y="R²",
        )
        + theme_plastic(figure_size=(7, 4.2))
        + theme(legend_position="right", legend_title=element_blank())
    )


def entries_figure(table: pd.DataFrame, run_name: str) -> ggplot | None:
    """Draw how well the present observation and the environment's info can be decoded, with the range of chance.

    table: `decode`. None if the only target is the observation as a whole.
    """
    data = table[(table["lag"] == 0) & (table["target"] != "observation")].dropna(subset=["value", "chance"])
    if data.empty:
        return None
    data = _clipped(_with_state_names(data))
    names = [
        f"{target}  ({'R²' if score == 'R2' else score})" for target, score in data[["target", "score"]].to_numpy()
    ]
    order = list(dict.fromkeys(names))[::-1]
    # h is drawn slightly above M, which a discrete scale does not allow.
    data["place"] = [order.index(name) for name in names] + np.where(data["state"] == STATES["h"], 0.14, -0.14)
    return (
        ggplot(data, aes("value", "place", color="state", shape="state"))
        + geom_vline(xintercept=0, color=GRAY, size=0.4)
        + geom_segment(aes(x="chance_low", xend="chance_high", yend="place"), size=2.6, alpha=0.3, show_legend=False)
        + geom_point(size=2.6)
        # Above the points and longer than them, so that it is visible if a score is at chance.
        + geom_point(aes(x="chance"), shape="|", size=5, color="#222222", show_legend=False)
        + _state_colors()
        + scale_shape_manual(values=STATE_SHAPES)
        + scale_x_continuous(limits=(LOWEST_R2, 1), breaks=[-0.25, 0, 0.25, 0.5, 0.75, 1])
        + scale_y_continuous(
            breaks=list(range(len(order))), labels=order, limits=(-0.5, len(order) - 0.5), expand=(0, 0)
        )
        + labs(
            title="Decoding the present observation and info",
            subtitle=f"{run_name}\non held-out episodes; bar and pale range: targets shuffled between episodes",
            x="R² or accuracy",
            y="",
        )
        + theme_plastic(figure_size=(7, 1.7 + 0.3 * len(order)))
        + theme(legend_position="bottom", legend_title=element_blank())
    )


def ablation_figure(table: pd.DataFrame, summary: pd.DataFrame, part: str, freezing_step: int, run_name: str) -> ggplot:
    """Draw the return of every episode, the mean and its interval, for each ablation.

    table: `ablate`; summary: `summarize_ablations`; part: the part of the state that the ablations change.
    """
    names = {
        "intact": "intact",
        "zeroed": "set to zero",
        "frozen": f"frozen from\nstep {freezing_step}",
        "shuffled": "shuffled",
    }
    points = table.assign(ablation=_named(table["ablation"], names))
    means = summary.assign(ablation=_named(summary["ablation"], names))
    return (
        ggplot(points, aes("ablation", "return"))
        + geom_jitter(width=0.18, height=0, random_state=0, color=GRAY, alpha=0.5, size=1.4)
        + geom_linerange(
            aes(ymin="low", ymax="high", x="ablation"),
            data=means.dropna(subset=["low"]),
            color=PALETTE[0],
            size=1.3,
            inherit_aes=False,
        )
        + geom_point(aes(y="mean"), data=means, color=PALETTE[0], size=3.4, shape="D")
        # Without this, equal returns would give an axis of almost no length.
        + expand_limits(y=_room(points["return"]))
        + labs(
            title="Ablations of the memory",
            subtitle=f"{run_name}\ngray: episodes, with the same seeds in all conditions; blue: mean",
            caption=f"Bars: {interval_method()}.",
            x=f"Change of the {part}" if part != "M" else "Change of M",
            y="Return",
        )
        + theme_plastic(figure_size=(6, 4))
    )


def _panel(state: str, components: PrincipalComponents) -> str:
    shares = [f"PC{index + 1} {100 * share:.0f}%" for index, share in enumerate(components.variance_ratios[:2])]
    return f"{STATES[state]} ({', '.join(shares)})"


def _are_categories(values: Sequence[Any]) -> bool:
    """Return whether values have discrete colors: strings, or few integers."""
    return all(isinstance(value, str) for value in values) or (
        len(values) <= MAX_CATEGORIES and all(float(value).is_integer() for value in values)
    )


def _category_name(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.0f}"


def _with_state_names(table: pd.DataFrame) -> pd.DataFrame:
    present = [name for state, name in STATES.items() if state in set(table["state"])]
    return table.assign(state=pd.Categorical(table["state"].map(STATES), present))


def _state_colors() -> scale_color_manual:
    return scale_color_manual(values=STATE_COLORS)


def _named(values: pd.Series[str], names: Mapping[str, str]) -> pd.Categorical[str]:
    return pd.Categorical(values.map(names), list(names.values()))


def _clipped(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["value", "chance", "chance_low", "chance_high"]
    return table.assign(**{name: table[name].clip(lower=LOWEST_R2) for name in columns})


def _room(values: pd.Series[float]) -> list[float]:
    """Return the range of the values; if they are equal, a range around them of a tenth of the value, at least 1."""
    low, high = float(values.min()), float(values.max())
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return [low, high]
    aside = max(1.0, 0.1 * abs(low))
    return [low - aside, high + aside]


def _ticks(count: int) -> list[int]:
    places = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(0, count - 1)
    return [int(place) for place in places if 0 <= place < count]
