"""`plastic render` of a classifier: the weights of the first layer and the accuracy over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from plastic_cli.classifier.data import image_shape_of
from plastic_cli.classifier.weight_snapshots import (
    snapshot_weights as snapshot_weights,  # rules of version 0.2 import it from here
)
from plastic_cli.classifier.weight_snapshots import stored_shape, stored_weights
from plastic_cli.config.model import FilmConfig
from plastic_cli.figures.film import (
    HEADING,
    SMALL,
    Frame,
    Update,
    add_caption,
    animate,
    as_loop,
    growing_curve,
    in_percent,
    legend_above,
    new_figure,
    pace,
    show_weights,
    style_curves,
    whole_numbers,
)
from plastic_cli.figures.theme import GRAY, PALETTE, SOFT_INK
from plastic_cli.figures.view import View, shown
from plastic_cli.figures.weights import wide_columns
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore

SPLITS = {
    "test": ("test", PALETTE[0], "-"),
    "train": ("training", PALETTE[1], "--"),
    "validation": ("validation", PALETTE[2], ":"),
}
"""How the accuracy of each split is named and drawn."""

_WEIGHTS_ASPECT = 1.95
"""Width by height of the panel of weights."""


def render_weights(run: Run, config: FilmConfig | None = None, units: int = 36, steps_per_epoch: int = 1) -> None:
    """Write a film of the first layer's weights and the accuracy over training, and its last frame as a picture.

    config: None for the default options. steps_per_epoch: how often the run measured its accuracy in an epoch. Raises
    UserError if the run has no stored weights.
    """
    weights = stored_weights(run, units)
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    accuracy = metrics[(metrics["metric"] == "accuracy") & metrics["split"].isin(list(SPLITS))]
    accuracy = accuracy.assign(step=accuracy["step"] / steps_per_epoch)
    inputs = next(iter(weights.values())).shape[1]
    title = f"{run.record.rule} on {run.record.dataset}, seed {run.seed}"
    shape = stored_shape(run, inputs)
    of = "hidden units" if shape is None or shape == image_shape_of(run, inputs) else "kernels of the first convolution"
    frames = weight_frames(weights, shape, accuracy, title, of)
    config = config or FilmConfig()
    seconds = config.frame_seconds or pace(len(frames))
    run.save_video("weights", as_loop(frames, seconds), seconds, config.video)
    run.save_image("weights", frames[-1])


def weight_frames(
    weights: Mapping[int, Tensor],
    image_shape: tuple[int, int, int] | None,
    accuracy: pd.DataFrame,
    title: str,
    of: str = "hidden units",
) -> list[Frame]:
    """Return one frame for each epoch of `weights`, (units, inputs) by epoch.

    A frame shows how the weights have changed since the first epoch of `weights`, and the accuracy up to its epoch. The
    weights themselves are not shown: in a wide network they change by less than one sees.
    image_shape: how a row of weights becomes an image; None shows the matrix itself. accuracy: columns split, step and
    value. of: what has these weights.
    """
    epochs = list(weights)
    units = len(weights[epochs[0]])
    figure = new_figure(title)
    left, right = figure.subplots(1, 2, width_ratios=[_WEIGHTS_ASPECT, 1.35])
    columns = None if image_shape is None else wide_columns(units, image_shape, _WEIGHTS_ASPECT)
    heading = f"weights of {units} {of}: change since the start"
    updates = [
        show_weights(left, weight_changes(weights), image_shape, heading, columns),
        *show_accuracy(right, accuracy, epochs[-1]),
        add_caption(figure, lambda epoch: accuracy_caption(accuracy, epoch, epochs[-1])),
    ]
    return animate(figure, updates, epochs)


def accuracy_caption(accuracy: pd.DataFrame, epoch: int, last: int) -> str:
    """Return the epoch and the test accuracy after it in words. accuracy: columns split, step and value."""
    measured = accuracy[(accuracy["split"] == "test") & (accuracy["step"] == epoch)]["value"]
    words = f"epoch {epoch} of {last}"
    return f"{words}: test accuracy {100 * float(measured.iloc[-1]):.1f}%" if len(measured) else words


def weight_changes(weights: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return the change of weights (units, inputs) by epoch since the first epoch."""
    first = next(iter(weights.values()))
    return {epoch: later - first for epoch, later in weights.items()}


def show_accuracy(
    axes: Axes, accuracy: pd.DataFrame, last: int, levels: Mapping[str, float] | None = None
) -> list[Update]:
    """Draw the accuracy of each split up to the epoch, from the untrained network on.

    accuracy: columns split, step and value, from 0 to 1. last: the last epoch. levels: accuracies by name, drawn as
    lines across the panel. The axis shows where the curves differ; a value of the untrained network below it is named.
    """
    levels = levels or {}
    updates = []
    for split, (name, color, line) in SPLITS.items():
        rows = accuracy[accuracy["split"] == split]
        if len(rows):
            updates.append(growing_curve(axes, rows["step"], rows["value"], color=color, linestyle=line, label=name))
    for (name, value), line in zip(levels.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color=GRAY, linestyle=line, linewidth=1.5, label=name)
    _set_view(axes, accuracy, list(levels.values()))
    margin = 0.02 * last or 0.5
    axes.set_xlim(-margin, last + margin)
    style_curves(axes, "epoch", "")
    whole_numbers(axes.xaxis)
    in_percent(axes.yaxis)
    axes.set_title("accuracy", fontsize=HEADING, loc="left")
    if updates:
        legend_above(axes)
    return updates


def _set_view(axes: Axes, accuracy: pd.DataFrame, levels: Sequence[float]) -> None:
    """Set the vertical axis to where the curves differ, and name what lies below it."""
    known = accuracy[accuracy["split"].isin(list(SPLITS)) & np.isfinite(accuracy["value"])]
    if known.empty:
        axes.set_ylim(0, 1)
        return
    curves = known.rename(columns={"value": "mean", "split": "label"})[["label", "step", "mean"]]
    view = shown(curves.assign(style="", panel="", line="", low=np.nan, high=np.nan), View(), share=True)
    low, high = min([*view.edges["mean"], *levels]), max([*view.edges["mean"], *levels])
    below = view.hidden[view.hidden["below"]]
    # The name of what lies below the axis has a place of its own.
    room = 0.12 if len(below) else 0.04 * bool(levels)
    axes.set_ylim(low - room * (high - low), min(1.005, high + 0.04 * (high - low)))
    if len(below):
        first = below.sort_values("step").iloc[0]
        text = f"\N{BLACK DOWN-POINTING SMALL TRIANGLE} epoch {first['step']:g}: {100 * first['value']:.0f}%"
        axes.text(first["step"], axes.get_ylim()[0], text, color=SOFT_INK, fontsize=SMALL, va="bottom")
