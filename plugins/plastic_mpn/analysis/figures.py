"""The figures of `plastic analyze mpn`: principal components, M, decoding, and ablations."""

# plotnine does not declare the type of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from plotnine import (
    aes,
    coord_cartesian,
    element_blank,
    element_text,
    expand_limits,
    facet_wrap,
    geom_hline,
    geom_jitter,
    geom_line,
    geom_linerange,
    geom_point,
    geom_raster,
    geom_ribbon,
    geom_segment,
    geom_vline,
    ggplot,
    guide_colorbar,
    guides,
    labs,
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

from plastic_cli.figures.film import full_scale
from plastic_cli.figures.theme import DIVERGING, GRAY, INK, PALETTE, percent_of_one, theme_plastic
from plastic_cli.statistics.intervals import interval_method
from plastic_mpn.analysis.sorting import component_order

STATES = {"h": "hidden state h", "M": "modulations M"}
STATE_COLORS = {STATES["h"]: PALETTE[1], STATES["M"]: PALETTE[0]}
STATE_SHAPES = {STATES["h"]: "o", STATES["M"]: "s"}
TRAJECTORIES = 8
"""Maximum number of trajectories in a figure; more would be hard to distinguish."""
MAX_NAMED_INPUTS = 8
LOWEST_R2 = -0.25
"""R2 has no lower bound. Values below this one are drawn here."""

# Drawn as an image, because a gradient takes megabytes in an SVG.
COLOR_BAR = guide_colorbar(display="raster", nbin=100)


def matrices_figure(
    matrices: NDArray[np.floating], steps: Sequence[int], run_name: str, names: Sequence[str] = (), x: str = "Input"
) -> ggplot:
    """Draw heat maps of M (T, n, d) before each of `steps`, all on one scale; similar units are neighbors.

    names: those of the d inputs; without them, the inputs are numbered, and `x` says what they are.
    """
    panels = [f"step {step}" for step in steps]
    parts = []
    order = component_order(np.moveaxis(matrices, 1, 0).reshape(matrices.shape[1], -1))
    for step, name in zip(steps, panels, strict=True):
        shown = matrices[step][order]
        unit, number = np.indices(shown.shape)
        parts.append(pd.DataFrame({"input": number.ravel(), "unit": unit.ravel(), "M": shown.ravel(), "step": name}))
    data = pd.concat(parts)
    data["step"] = pd.Categorical(data["step"], panels)
    limit = full_scale([matrices[list(steps)]])
    data["M"] = data["M"].clip(-limit, limit)
    columns = min(3, len(steps))
    rows = -(-len(steps) // columns)
    inputs = matrices.shape[2]
    named = len(names) == inputs <= MAX_NAMED_INPUTS
    scale = (
        scale_x_continuous(expand=(0, 0), breaks=list(range(inputs)), labels=list(names))
        if named
        else scale_x_continuous(expand=(0, 0), breaks=_ticks(inputs))
    )
    return (
        ggplot(data, aes("input", "unit", fill="M"))
        # Any other interpolation would mix neighboring entries, which are unrelated.
        + geom_raster(interpolation="nearest")
        + facet_wrap("step", ncol=columns)
        + scale_fill_gradientn(DIVERGING, limits=(-limit, limit), name="M\n(no unit)")
        + scale
        + scale_y_reverse(expand=(0, 0))
        + guides(fill=COLOR_BAR)
        + labs(
            title="Modulations M in one episode",
            subtitle=f"{run_name}\nunits sorted by their weight in the first principal component of M",
            x="" if named else x,
            y="Hidden unit (sorted)",
        )
        + theme_plastic(figure_size=(7.5, 2.6 * rows + (1.9 if named else 1.1)))
        + theme(
            panel_spacing_y=0.03,
            panel_grid_major=element_blank(),
            axis_text_x=element_text(rotation=45, ha="right", size=8) if named else element_text(),
        )
    )


def modulation_figure(table: pd.DataFrame, summary: pd.DataFrame, variance_share: float, run_name: str) -> ggplot:
    """Draw norm and share over the steps: thin lines for episodes, a thick line and a band for mean and interval.

    table: `modulation_table`; summary: `summarize_modulation`.
    """
    variance = (
        f"share of M in the variance of the preactivation, over all steps and episodes: {100 * variance_share:.3g}%"
    )
    names = {"norm": "Frobenius norm of M", "share": "Share of M in the preactivation, by norm (%)"}
    table = table.assign(share=100 * table["share"])
    in_percent = np.where(summary["measure"] == "share", 100, 1)
    summary = summary.assign(**{name: in_percent * summary[name] for name in ("mean", "low", "high")})
    episodes = table["episode"].nunique()
    thin_lines = f"the first {TRAJECTORIES} of {episodes} episodes" if episodes > TRAJECTORIES else "single episodes"
    thin = table[table["episode"] < TRAJECTORIES].melt(["episode", "step"], ["norm", "share"], "measure", "value")
    thick = summary.assign(measure=pd.Categorical(summary["measure"].map(names), list(names.values())))
    thin["measure"] = pd.Categorical(thin["measure"].map(names), list(names.values()))
    known = thick.dropna(subset=["low"])
    ribbon = f", {interval_method()}" if len(known) else ""
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
            caption=f"Thin: {thin_lines}. Thick: mean of the episodes that have the step{ribbon}.",
        )
        + theme_plastic(figure_size=(8.5, 3.8))
    )


def past_inputs_figure(table: pd.DataFrame, run_name: str) -> ggplot:
    """Draw how well the observation k steps ago can be decoded, as a function of k. table: `decode`."""
    data = _clipped(with_state_names(table[table["target"] == "observation"].dropna(subset=["value", "chance"])))
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
        + state_colors()
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


def entries_figure(table: pd.DataFrame, run_name: str, names: Sequence[str] = ()) -> ggplot | None:
    """Draw R2 of the numbers in the present observation and in the environment's info, with the range of chance.

    table: `decode`. names: those of the observations. None if the only target is the observation as a whole.
    """
    data = table[(table["lag"] == 0) & (table["target"] != "observation") & (table["score"] == "R2")]
    scale = scale_x_continuous(limits=(LOWEST_R2, 1), breaks=[-0.25, 0, 0.25, 0.5, 0.75, 1])
    return _targets_figure(_clipped(data), "Decoding the present observation and info", run_name, names, scale, "R²")


def classes_figure(table: pd.DataFrame, run_name: str) -> ggplot | None:
    """Draw the accuracy of the decoded classes in the environment's info, with the range of chance.

    table: `decode`. None if there are no classes.
    """
    data = table[(table["lag"] == 0) & (table["score"] == "accuracy")]
    scale = scale_x_continuous(limits=(0, 1), breaks=[0, 0.25, 0.5, 0.75, 1], labels=percent_of_one)
    return _targets_figure(data, "Decoding the classes in info", run_name, (), scale, "Accuracy")


def _targets_figure(
    table: pd.DataFrame, title: str, run_name: str, names: Sequence[str], scale: scale_x_continuous, score: str
) -> ggplot | None:
    """Draw the score of each target, decoded from h and from M, and the range of that of shuffled targets."""
    data = table.dropna(subset=["value", "chance"])
    if data.empty:
        return None
    data = with_state_names(data)
    known = {f"observation-{index}": name for index, name in enumerate(names)}
    targets = [known.get(target, target.replace("_", " ")) for target in data["target"]]
    order = list(dict.fromkeys(targets))[::-1]
    # h is drawn slightly above M, which a discrete scale does not allow.
    data["place"] = [order.index(target) for target in targets] + np.where(data["state"] == STATES["h"], 0.14, -0.14)
    return (
        ggplot(data, aes("value", "place", color="state", shape="state"))
        + geom_vline(xintercept=0, color=GRAY, size=0.4)
        + geom_segment(aes(x="chance_low", xend="chance_high", yend="place"), size=2.6, alpha=0.3, show_legend=False)
        + geom_point(size=2.6)
        # Above the points and longer than them, so that it is visible if a score is at chance.
        + geom_point(aes(x="chance"), shape="|", size=5, color=INK, show_legend=False)
        + state_colors()
        + scale_shape_manual(values=STATE_SHAPES)
        + scale
        + scale_y_continuous(
            breaks=list(range(len(order))), labels=order, limits=(-0.5, len(order) - 0.5), expand=(0, 0)
        )
        + labs(
            title=title,
            subtitle=f"{run_name}\non held-out episodes; bar and pale range: targets shuffled between episodes",
            x=score,
            y="",
        )
        + theme_plastic(figure_size=(7, 1.8 + 0.3 * len(order)))
        + theme(legend_position="bottom", legend_title=element_blank())
    )


def ablation_figure(
    table: pd.DataFrame, summary: pd.DataFrame, part: str, freezing_step: int, run_name: str, *, trials: int = 0
) -> ggplot:
    """Draw the return of every episode, the mean and its interval, for each ablation.

    table: `ablate`; summary: `summarize_ablations`; part: the part of the state that the ablations change. trials: of
    an episode if the return counts the correct ones, which are then drawn in percent; 0 otherwise.
    """
    percent = 100 / trials if trials else 1
    table = table.assign(**{"return": percent * table["return"]})
    summary = summary.assign(**{name: percent * summary[name] for name in ("mean", "low", "high")})
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
            caption=f"Bars: {interval_method()}." if means["low"].notna().any() else "",
            x=f"Change of the {part}" if part != "M" else "Change of M",
            y="Correct trials (%)" if trials else "Return",
        )
        + theme_plastic(figure_size=(6, 4))
    )


def with_state_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the states named in words, in the order of `STATES`."""
    present = [name for state, name in STATES.items() if state in set(table["state"])]
    return table.assign(state=pd.Categorical(table["state"].map(STATES), present))


def state_colors() -> scale_color_manual:
    """Return the color scale of h and M."""
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
