"""The figure of the report: accuracy by number of perturbations, with the backpropagation control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from plotnine import (
    aes,
    facet_wrap,
    geom_errorbar,
    geom_hline,
    geom_line,
    geom_point,
    ggplot,
    labs,
    scale_color_manual,
    scale_linetype_manual,
    scale_shape_manual,
    scale_x_log10,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.curves import interval_text, share_labels
from plastic_cli.figures.theme import GRAY, discrete_colors, theme_plastic
from plastic_cli.statistics.intervals import mean_interval
from plastic_grlu.config import NOISE_FORM, Train

LINES = ("dashed", "dotted", "dashdot", "solid")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
NETWORK = ["config.hidden", "config.skip", "config.activation", "config.k", "config.credit", "config.backbone"]
MODEL = ["config.model"]
FEEDBACK = ["config.feedback", "config.feedback_rate"]
TRAINING = ["config.epochs", "config.batch_size", "config.noise", "config.learning_rate"]
SCHEDULE = ["config.final_noise", "config.final_learning_rate"]
LATER = ["config.classes", "config.optimizer", "config.momentum", "config.weight_decay"]
"""Further settings of training, which runs of earlier versions do not have."""
NEEDED = ["test/accuracy", "dataset", *TRAINING, "config.hidden", "config.update", "config.perturbations"]
"""Columns without which a run has no place in the figure: a learner of `plastic.fit` has other options."""


def headline_figures(runs: pd.DataFrame, metrics: pd.DataFrame) -> dict[str, ggplot]:  # noqa: ARG001
    """Return the figures of `plastic report --output` for this rule, by file name."""
    figure = perturbations_figure(runs)
    return {} if figure is None else {"perturbations": figure}


def perturbations_figure(runs: pd.DataFrame) -> ggplot | None:
    """Draw test accuracy against perturbations, one line for each kind of network, with intervals over seeds.

    runs: rows of `RunStore.runs()` of this rule. Only runs in which all units have noise of their own and one reward
    are drawn, and for each data set only those with its most frequent training settings, so that the points of a line
    differ in perturbations only. Dashed lines are the control that follows the
    gradient. Returns None if no line has two points.
    """
    chosen = runs.reindex(columns=[*dict.fromkeys([*runs.columns, *NEEDED, *NETWORK])]).dropna(subset=NEEDED)
    if chosen.empty:
        return None
    chosen = _with_noise_of_all_units(chosen)
    if chosen.empty:
        return None
    chosen = _with_added_settings(chosen)
    settings = chosen.reindex(columns=[*TRAINING, *SCHEDULE, *LATER]).map(str).agg("|".join, axis=1)
    most_frequent = settings.groupby(chosen["dataset"]).transform(lambda group: group.mode().iloc[0])
    chosen = chosen[settings == most_frequent]
    chosen["network"] = [
        _network(row, row["config.update"])
        for row in chosen.reindex(columns=[*NETWORK, *MODEL, *FEEDBACK, "config.update"]).to_dict("records")
    ]
    points = _summarized(chosen[chosen["config.update"] == "grlu"], ["dataset", "network", "config.perturbations"])
    control = _summarized(chosen[chosen["config.update"] == "backprop"], ["dataset", "network"])
    lengths = points.groupby(["dataset", "network"]).size() if len(points) else pd.Series(dtype=int)
    if lengths.empty or lengths.max() < 2:
        return None
    # A data set without a line would be a panel with single dots.
    drawn = lengths[lengths > 1].reset_index()["dataset"]
    points = points[points["dataset"].isin(drawn)]
    networks = sorted(set(points["network"]))[: len(SHAPES)]
    points = points[points["network"].isin(networks)].copy()
    points["hover"] = [
        f"{row['network']}, perturbations = {row['config.perturbations']:g}: {100 * row['mean']:.2f}%"
        for row in points.to_dict("records")
    ]
    panels = points["dataset"].nunique()
    figure = (
        ggplot(points, aes("config.perturbations", "mean", color="network", shape="network"))
        + geom_line(size=0.8)
        + geom_errorbar(aes(ymin="low", ymax="high"), data=points.dropna(subset=["low"]), width=0.06, size=0.7)
        + geom_point(size=2.6)
    )
    if len(control):
        shown = control[control["dataset"].isin(points["dataset"])]
        lines = sorted(shown["network"].unique())
        figure += geom_hline(aes(yintercept="mean", linetype="network"), data=shown, color=GRAY, size=0.7)
        figure += scale_linetype_manual(values=dict(zip(lines, LINES, strict=False)), name="control: backpropagation")
    return (
        figure
        + facet_wrap("dataset", scales="free_y")
        + scale_x_log10(
            breaks=sorted(points["config.perturbations"].unique()), labels=lambda ticks: [f"{t:g}" for t in ticks]
        )
        + scale_y_continuous(labels=share_labels)
        + scale_color_manual(values=dict(zip(networks, discrete_colors(len(networks)), strict=True)))
        + scale_shape_manual(values=dict(zip(networks, SHAPES, strict=False)))
        + labs(
            x="perturbations per image",
            y="test accuracy",
            color="network",
            shape="network",
            title="GRLU: accuracy by number of perturbations",
            caption=interval_text(points, "Bars").strip(),
        )
        + theme_plastic(figure_size=(4.2 + 3.4 * panels, 4.2))
        + theme(legend_position="right")
    )


def _with_noise_of_all_units(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the published form of the noise, with one reward."""
    for name in (*NOISE_FORM, "reward_groups"):
        if (column := f"config.{name}") in runs:
            runs = runs[runs[column].isna() | (runs[column] == Train.added[name])]
    return runs


def _with_added_settings(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the plain values of the settings that runs of earlier versions do not have."""
    runs = runs.reindex(columns=[*dict.fromkeys([*runs.columns, *MODEL, *LATER])])
    plain = Train.added_fields()
    filled = {
        # An empty list is a value too, so `fillna` does not serve.
        column: [
            plain[column.removeprefix("config.")] if value is None or value != value else value
            for value in runs[column]
        ]
        for column in (*MODEL, *LATER)
    }
    return runs.assign(**filled)


def _network(row: Mapping[Any, Any], update: str) -> str:
    hidden, model = row["config.hidden"], row["config.model"]
    sizes = "-".join(str(size) for size in hidden) if isinstance(hidden, list | tuple) else str(hidden)
    if model == "cnn":
        sizes = f"cnn {sizes}"
    elif model != "mlp":
        sizes = str(model)
    activation = f"top-k {row['config.k']:g}" if row["config.activation"] == "top-k" else "ReLU"
    if update == "grlu":
        activation = {
            "output": f"{activation} then noise",
            "preactivation": f"noise then {activation}",
            "learned": f"{activation}, {_feedback(row)}",
        }[row["config.credit"]]
    parts = [sizes, activation]
    if row["config.skip"]:
        parts.append("skip")
    if row["config.backbone"] != "none":
        parts.append(str(row["config.backbone"]))
    return ", ".join(parts)


def _feedback(row: Mapping[Any, Any]) -> str:
    if row["config.feedback"] == "transposed":
        return "transposed weights"
    if row["config.feedback"] == "none":
        return "random features"
    learned = "random feedback" if row["config.feedback_rate"] == 0 else "learned feedback"
    return f"{learned}, layer to layer" if row["config.feedback"] == "layer" else learned


def _summarized(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    rows = []
    for key, group in runs.groupby(by):
        interval = mean_interval(group["test/accuracy"].to_numpy())
        values = dict(zip(by, key, strict=True))
        rows.append({**values, "mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n})
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])
