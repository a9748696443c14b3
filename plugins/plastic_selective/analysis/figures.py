"""The figures of `plastic analyze selective`: accuracies, eligibility and gates, shared synapses, strengths."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotnine import (
    aes,
    annotate,
    coord_fixed,
    element_blank,
    element_rect,
    element_text,
    facet_wrap,
    geom_blank,
    geom_hline,
    geom_line,
    geom_point,
    geom_raster,
    geom_segment,
    geom_text,
    geom_tile,
    geom_vline,
    ggplot,
    guide_colorbar,
    guides,
    labs,
    scale_color_identity,
    scale_color_manual,
    scale_fill_gradientn,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    scale_y_log10,
    scale_y_reverse,
    theme,
)

from plastic_cli.figures.theme import (
    CELL_INK,
    CELL_INK_ON_DARK,
    CELL_SOFT_INK,
    DIVERGING,
    GRAY,
    GRID,
    INK,
    PALETTE,
    SEQUENTIAL,
    SOFT_INK,
    ordered_colors,
    percent,
    percent_of_one,
    theme_plastic,
)
from plastic_selective.analysis.overlap import BUSIEST
from plastic_selective.continual.history import History, every

MOST_NUMBERED = 15
"""Largest number of tasks whose cells in a matrix have numbers."""
MOST_NAMED = 12
"""Largest number of tasks with a legend; a longer one would be higher than the figure."""
MOST_BORDERS = 40
MOST_FRAMED = 100
"""Largest number of tasks whose cells in a matrix can have a frame."""
MOST_HISTOGRAMS = 6
NARROWEST = 5.0
"""Smallest range of an axis of accuracies, in percent: single images must not look like differences."""
MEAN = "mean of tasks so far"

# As an image: a gradient would take megabytes in an SVG.
_COLOR_BAR = guide_colorbar(display="raster", nbin=100)


# ------------------------------------------------------------------------------------------------------- forgetting


def matrix_figure(history: History) -> ggplot:
    """Draw the accuracy matrix in percent: a column for each task, a row for the state after each task."""
    after, task = np.indices(history.matrix.shape)
    cells = pd.DataFrame({"after": after.ravel(), "task": task.ravel() + 1, "accuracy": 100 * history.matrix.ravel()})
    cells = cells.dropna()
    dark = np.where(cells["accuracy"] > 60, CELL_INK_ON_DARK, CELL_INK)
    # Low accuracies on later tasks are pale, so that the part that can be forgotten stands out.
    cells["ink"] = np.where((cells["accuracy"] <= 25) & (cells["task"] > cells["after"]), CELL_SOFT_INK, dark)
    cells["text"] = [f"{value:.1f}" for value in cells["accuracy"]]
    numbered = history.tasks <= MOST_NUMBERED
    rows = history.matrix.shape[0]
    side = max(0.62, min(1.0, 3.2 / history.tasks)) if numbered else 9 / rows
    edge = 0.3 if numbered else 0
    figure = ggplot(cells, aes("task", "after", fill="accuracy")) + geom_tile(color=GRID, size=edge)
    if numbered:
        figure += geom_text(aes(label="text", color="ink"), size=8.5 if history.tasks <= 10 else 7.5)
    framed = history.tasks <= MOST_FRAMED
    if framed:
        just_learned = cells[cells["after"] == cells["task"]]
        figure += geom_tile(data=just_learned, fill="none", color=CELL_INK, size=min(0.8, 24 / history.tasks))
    ticks = _ticks(history.tasks)
    width = max(5.2, side * history.tasks + 2.6)
    return (
        figure
        + scale_color_identity()
        + scale_fill_gradientn(SEQUENTIAL, limits=(0, 100), name="Accuracy", labels=percent)
        + scale_x_continuous(breaks=ticks, expand=(0, 0))
        + scale_y_reverse(breaks=[0, *ticks], labels=["untrained", *map(str, ticks)], expand=(0, 0))
        + guides(fill=_COLOR_BAR)
        + coord_fixed()
        + labs(
            title="Accuracy matrix",
            subtitle=_subtitle(
                history, width, "test accuracy (%) on each task" + ("; framed: just learned" if framed else "")
            ),
            x="Tested on task",
            y="After learning task",
        )
        + theme_plastic(figure_size=(width, side * rows + 1.7))
        + theme(panel_grid_major=element_blank())
    )


def curves_figure(history: History) -> ggplot:
    """Draw the accuracy on each task during training, dotted before the task begins, and the mean so far."""
    data = history.curves.assign(accuracy=100 * history.curves["accuracy"])
    data["begins"] = history.rounds * (data["task"] - 1)
    names = [f"task {task}" for task in range(1, history.tasks + 1)]
    data["line"] = pd.Categorical([names[task - 1] for task in data["task"]], [*names, MEAN])
    before, since = data[data["step"] <= data["begins"]], data[data["step"] >= data["begins"]]
    learned = since[since["step"] > since["begins"]]
    mean = learned.groupby("step", as_index=False)["accuracy"].mean()
    mean["line"] = pd.Categorical([MEAN] * len(mean), [*names, MEAN])
    colors = [*ordered_colors(history.tasks), INK]
    figure = ggplot(since, aes("step", "accuracy", color="line", group="line"))
    for border in history.borders if history.tasks <= MOST_BORDERS else []:
        figure += geom_vline(xintercept=border, color=GRAY, linetype="dashed", size=0.4)
    if history.tasks <= MOST_NAMED:
        word = "task " if history.tasks <= 8 else ""
        for task in range(history.tasks):
            figure += annotate(
                "text", x=history.rounds * (task + 0.5), y=106, label=f"{word}{task + 1}", size=8, color=SOFT_INK
            )
    notes = ["dotted: before the task is learned"]
    if history.tasks > MOST_NAMED:
        notes.append(f"from blue (task 1) to orange (task {history.tasks}); thick dashes: {MEAN}")
        notes += ["thin dashes: a new task"] * (history.tasks <= MOST_BORDERS)
    figure += geom_line(data=before, linetype="dotted", size=0.6)
    figure += geom_line(size=0.9)
    if history.last <= 60 and history.tasks <= MOST_NAMED:
        figure += geom_point(size=1.6)
    return (
        figure
        + geom_line(data=mean, size=1.3, linetype="dashed")
        + scale_color_manual(values=colors, breaks=[*names, MEAN], limits=[*names, MEAN])
        + scale_x_continuous(limits=(0, history.last), expand=(0.01, 0), breaks=history.ticks(most=20))
        + scale_y_continuous(limits=(-1, 108), breaks=[0, 20, 40, 60, 80, 100], labels=percent, expand=(0, 0))
        + labs(
            title="Accuracy on each task during training",
            subtitle=_subtitle(history, 8, "; ".join(notes)),
            x=history.step_name,
            y="Accuracy (test)",
        )
        + theme_plastic(figure_size=(8, 4.4))
        + theme(
            legend_position="right" if history.tasks <= MOST_NAMED else "none",
            legend_title=element_blank(),
        )
    )


def intransigence_figure(history: History, table: pd.DataFrame) -> ggplot:
    """Draw the accuracy on each task just after learning, and of joint training. table: `forgetting_table`."""
    names = {"learned": "this run, just learned", "joint": "joint training"}
    data = table.dropna(subset=["learned", "joint"]).melt("task", list(names), "trained", "accuracy")
    data["accuracy"] *= 100
    data["trained"] = pd.Categorical(data["trained"].map(names), list(names.values()))
    gaps = table.dropna(subset=["learned", "joint"])
    ends = pd.DataFrame({"task": gaps["task"], "low": 100 * gaps["learned"], "high": 100 * gaps["joint"]})
    return (
        ggplot(data, aes("task", "accuracy"))
        + geom_segment(aes(x="task", xend="task", y="low", yend="high"), data=ends, color=GRAY, size=0.8)
        + geom_point(aes(color="trained", shape="trained"), size=3)
        + scale_color_manual(values=[PALETTE[0], PALETTE[1]])
        + scale_shape_manual(values=["o", "D"])
        + geom_blank(aes("task", "value"), data=_widened(data.assign(value=data["accuracy"])))
        + scale_x_continuous(breaks=_ticks(history.tasks), limits=(0.5, history.tasks + 0.5))
        + scale_y_continuous(labels=percent)
        + labs(
            title="Intransigence",
            subtitle=_subtitle(history, 7, "distance from the dot up to the diamond; negative if the dot is higher"),
            x="Task",
            y="Accuracy (test)",
        )
        + theme_plastic(figure_size=(7, 4))
        + theme(legend_position="bottom", legend_title=element_blank())
    )


# ------------------------------------------------------------------------------------------------ eligibility, gates


def distribution_figure(history: History, histogram: pd.DataFrame, means: pd.DataFrame, quantity: str) -> ggplot:
    """Draw the distribution of a quantity in each layer after each round, with its mean.

    histogram, means: the two tables of `distribution_tables`. quantity: "eligibility" or "gate".
    """
    data = _with_layer_names(histogram).assign(share=histogram["count"] / histogram["synapses"])
    data["value"] = (data["low"] + data["high"]) / 2
    data["round"] = data["step"] - 0.5
    data["share"] = data["share"].where(data["share"] > 0)
    data = data[data["low"] >= _lowest(histogram) - 1e-9]
    line = _with_layer_names(means).assign(round=means["step"] - 0.5)
    figure = ggplot(data, aes("round", "value")) + geom_raster(aes(fill="share"), interpolation="nearest")
    for border in history.borders if history.tasks <= MOST_BORDERS else []:
        figure += geom_vline(xintercept=border, color=CELL_INK, linetype="dashed", size=0.4)
    layers = data["panel"].nunique()
    bordered = "; dashed: a new task" if history.tasks <= MOST_BORDERS else ""
    return (
        figure
        + geom_line(aes(y=f"{quantity}_mean"), data=line, color=PALETTE[1], size=0.9)
        + geom_point(aes(y=f"{quantity}_mean"), data=line, color=PALETTE[1], size=0.9)
        + facet_wrap("panel", ncol=1)
        # The palest color differs from white, which means no synapses.
        + scale_fill_gradientn(SEQUENTIAL[1:], trans="log10", name="Synapses", labels=percent_of_one, na_value="white")
        + scale_x_continuous(limits=(0, history.last), expand=(0, 0), breaks=history.ticks(most=20))
        + scale_y_continuous(limits=(_lowest(histogram), 1), expand=(0, 0), breaks=_QUARTERS)
        + guides(fill=_COLOR_BAR)
        + labs(
            title=f"{_QUANTITIES[quantity]} during training",
            subtitle=_subtitle(history, 7.5, f"color: share of a layer's synapses; line: mean{bordered}"),
            x=history.step_name,
            y=_AXES[quantity],
        )
        + theme_plastic(figure_size=(7.5, 1.7 * layers + 1.6))
        + theme(panel_grid_major=element_blank(), panel_spacing_y=0.03)
    )


def histogram_figure(history: History, histogram: pd.DataFrame, quantity: str) -> ggplot:
    """Draw the distribution of a quantity in each layer at the end of several tasks, including the last."""
    ends = {step: step // history.rounds for step in histogram["step"].unique() if step % history.rounds == 0}
    places = np.unique(np.linspace(0, len(ends) - 1, min(MOST_HISTOGRAMS, len(ends))).round().astype(int))
    chosen = [list(ends)[place] for place in places]
    data = _with_layer_names(histogram[histogram["step"].isin(chosen) & (histogram["count"] > 0)])
    data["share"] = data["count"] / data["synapses"]
    names = [f"task {ends[step]}" for step in chosen]
    left_out = len(chosen) < len(ends)
    *most, last = (str(ends[step]) for step in chosen)
    notes = [f"tasks {', '.join(most)} and {last} of {len(ends)}"] * left_out
    data["after"] = pd.Categorical([f"task {ends[step]}" for step in data["step"]], names)
    layers = data["panel"].nunique()
    columns = 2 if layers == 4 else min(3, layers)
    width = max(6.5, 2.9 * columns + 1.0)
    return (
        ggplot(data, aes(x="low", xend="high", y="share", yend="share", color="after"))
        + geom_segment(size=1.3)
        + facet_wrap("panel", ncol=columns)
        + scale_color_manual(values=ordered_colors(len(names)), name="After")
        + scale_x_continuous(limits=(_lowest(histogram), 1), breaks=_QUARTERS, labels=_plainly)
        + scale_y_log10(labels=percent_of_one)
        + labs(
            title=f"{_QUANTITIES[quantity]} at the end of tasks",
            subtitle=_subtitle(history, width, *notes),
            x=_AXES[quantity],
            y="Synapses of the layer",
        )
        + theme_plastic(figure_size=(width, 2.6 * -(-layers // columns) + 1.5))
        + theme(legend_position="bottom", panel_spacing_x=0.03)
    )


# ---------------------------------------------------------------------------------------------------------- overlap


def overlap_figure(history: History, table: pd.DataFrame) -> ggplot:
    """Draw the share of busiest synapses that each pair of tasks has in common, by layer. table: `overlap_table`."""
    mirrored = pd.concat([table, table.rename(columns={"task": "other_task", "other_task": "task"})])
    data = _with_layer_names(mirrored)
    layers, tasks = data["panel"].nunique(), history.learned
    columns = 2 if layers == 4 else min(3, layers)
    panel = max(2.1, min(3.8, 0.4 * tasks))
    width = max(7.0, panel * columns + 2.4)
    data["ink"] = np.where((data["shared"] - BUSIEST).abs() > 0.45, CELL_INK_ON_DARK, CELL_INK)
    data["text"] = [f"{100 * value:.0f}" for value in data["shared"]]
    # White means chance, which is not in the middle of the scale.
    positions = [*np.linspace(0, BUSIEST, 4), *np.linspace(BUSIEST, 1, 4)[1:]]
    figure = ggplot(data, aes("other_task", "task", fill="shared")) + geom_tile(color=GRID, size=0.3)
    if tasks <= MOST_NUMBERED:
        figure += geom_text(aes(label="text", color="ink"), size=8.5 if tasks <= 6 else 6.5)
    ticks = _ticks(tasks)
    chance = f"Chance: {100 * BUSIEST:g}%, among active synapses {_range(data['chance_active'])}"
    carried = f"{_range(data['carried_over'])} of a task's eligibility comes from the earlier task and those before it"
    replayed = "" if history.config.replay == "none" else "\nReplayed images of earlier tasks increase the shared part."
    return (
        figure
        + facet_wrap("panel", ncol=columns)
        + scale_color_identity()
        + scale_fill_gradientn(
            DIVERGING,
            values=positions,
            limits=(0, 1),
            breaks=[0, BUSIEST, 0.5, 0.75, 1],
            labels=["0%", "25%: chance", "50%", "75%", "100%"],
            name="Shared",
        )
        + scale_x_continuous(breaks=ticks, limits=(0.5, tasks + 0.5), expand=(0, 0))
        + scale_y_reverse(breaks=ticks, limits=(tasks + 0.5, 0.5), expand=(0, 0))
        + guides(fill=_COLOR_BAR)
        + coord_fixed()
        + labs(
            title="Busy synapses that two tasks have in common",
            subtitle=_subtitle(
                history, width, "% of the busiest quarter of one task that is also in the busiest quarter of the other"
            ),
            caption=f"{chance}.\n{carried}.{replayed}",
            x="Task",
            y="Task",
        )
        + theme_plastic(figure_size=(width, panel * -(-layers // columns) + 2.5))
        + theme(
            # Gray for a task with itself, because white means chance.
            panel_background=element_rect(fill=GRID, color="none"),
            panel_grid_major=element_blank(),
            panel_spacing=0.03,
            plot_caption=element_text(ha="left"),
        )
    )


# ---------------------------------------------------------------------------------------------------------- sweep k


def sweep_figure(history: History, table: pd.DataFrame) -> ggplot:
    """Draw accuracy and forgetting over k, with those of the base only as dashed lines. table: `sweep_k`."""
    panels = {"accuracy": "Average accuracy", "task": "Accuracy by task", "forgetting": "Forgetting"}
    overall = "all tasks"
    by_task = [name for name in table.columns if name.startswith("accuracy_task_")]
    names = [overall, *(f"task {name.rpartition('_')[2]}" for name in by_task)]
    parts = [
        pd.DataFrame({"k": table["k"], "value": 100 * table[name], "panel": panels[name], "what": overall})
        for name in ("accuracy", "forgetting")
    ]
    parts += [
        pd.DataFrame({"k": table["k"], "value": 100 * table[column], "panel": panels["task"], "what": name})
        for column, name in zip(by_task, names[1:], strict=True)
    ]
    data = pd.concat(parts, ignore_index=True)
    data["panel"] = pd.Categorical(data["panel"], list(panels.values()))
    data["what"] = pd.Categorical(data["what"], names)
    base = data[data["k"] == 0]
    colors = [INK, *ordered_colors(len(by_task))]
    used = data[data["k"] == history.config.plasticity_k]
    marked = f"; ring: the k of this run, {history.config.plasticity_k:g}" if len(used) else ""
    return (
        ggplot(data, aes("k", "value", color="what"))
        + geom_hline(aes(yintercept="value", color="what"), data=base, linetype="dashed", size=0.6, show_legend=False)
        + geom_line(size=0.9)
        + geom_point(size=2.2)
        + geom_point(data=used, shape="o", fill="none", size=5, stroke=0.8, show_legend=False)
        + facet_wrap("panel", scales="free_y", ncol=3)
        + scale_color_manual(values=colors)
        + geom_blank(data=_widened(data))
        + scale_x_continuous(breaks=sorted(table["k"]), labels=_plainly)
        + scale_y_continuous(labels=percent)
        + labs(
            title="Strength of the gate",
            subtitle=_subtitle(
                history,
                10,
                f"dashed: k = 0, base optimizer only{marked}",
                learner=history.learner_with(f"k = 0 to {table['k'].max():g}"),
            ),
            caption="One seed: differences may be due to chance. Use several seeds and `plastic report` for intervals.",
            x="Plasticity k",
            y="",
        )
        + theme_plastic(figure_size=(10, 4))
        + theme(
            legend_position="bottom" if len(by_task) <= MOST_NAMED else "none",
            legend_title=element_blank(),
            panel_spacing_x=0.04,
        )
    )


FULL_NAMES = 9
"""Largest number of layers whose panels say that the numbers are units; longer titles would meet."""

_QUANTITIES = {"eligibility": "Eligibility", "gate": "Gates"}
_AXES = {"eligibility": "Eligibility (share of the layer's largest)", "gate": "Gate (1: open)"}
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]


def _with_layer_names(table: pd.DataFrame) -> pd.DataFrame:
    names = dict(table[["layer", "layer_name"]].drop_duplicates().sort_values("layer").to_numpy())
    if len(names) > FULL_NAMES:
        names = {layer: name.removesuffix(" units") for layer, name in names.items()}
    ordered = [f"layer {layer}: {name}" for layer, name in names.items()]
    described = [f"layer {layer}: {names[layer]}" for layer in table["layer"]]
    return table.assign(panel=pd.Categorical(described, ordered))


def _widened(data: pd.DataFrame) -> pd.DataFrame:
    """Return points that widen the axis of each panel to at least NARROWEST, around its values."""
    panels = data.groupby("panel", observed=True) if "panel" in data.columns else [("", data)]
    parts = []
    for _, rows in panels:
        center = (rows["value"].min() + rows["value"].max()) / 2
        parts += [rows.iloc[:1].assign(value=center + shift) for shift in (-NARROWEST / 2, NARROWEST / 2)]
    return pd.concat(parts)


def _subtitle(history: History, width: float, *notes: str, learner: str | None = None) -> str:
    """Return the descriptions of learner and stream, and notes, in lines that fit a figure `width` inches wide."""
    lines = (learner or history.learner, history.stream, *notes)
    return "\n".join(textwrap.fill(line, int(12.5 * (width - 0.4))) for line in lines)


def _ticks(tasks: int) -> list[int]:
    ticks = every(tasks, 20)[1:]
    return ticks if ticks[0] <= 2 else [1, *ticks]


def _plainly(values: Sequence[float] | Sequence[str]) -> list[str]:
    return [f"{float(value):g}" for value in values]


def _lowest(histogram: pd.DataFrame) -> float:
    """Return the largest multiple of 0.25 below all values, at which an axis can begin."""
    return min(0.75, float(histogram.loc[histogram["count"] > 0, "low"].min()) // 0.25 * 0.25)


def _range(values: pd.Series[Any]) -> str:
    low, high = 100 * values.min(), 100 * values.max()
    return f"{low:.0f}%" if round(low) == round(high) else f"{low:.0f} to {high:.0f}%"
