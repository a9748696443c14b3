"""`plastic render` of a classifier: the weights of the first layer and the accuracy over training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from plastic_cli.classifier.data import image_shape_of
from plastic_cli.errors import UserError
from plastic_cli.figures.film import (
    HEADING,
    LABEL,
    Frame,
    Update,
    add_caption,
    animate,
    as_loop,
    growing_curve,
    new_figure,
    show_weights,
    style_curves,
    whole_numbers,
)
from plastic_cli.figures.theme import PALETTE
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore

SNAPSHOT_UNITS = 64
"""Number of units, at most, whose weights are stored."""

SNAPSHOTS = 60
"""Number of epochs, about, whose weights are stored."""

SPLIT_STYLES = {"test": (PALETTE[0], "-"), "train": (PALETTE[1], "--"), "validation": (PALETTE[2], ":")}


def snapshot_weights(run: Run, epoch: int, epochs: int, weights: Tensor) -> None:
    """Store the weights (units, inputs) of the first units after an epoch, for `render`.

    A run of up to `SNAPSHOTS` epochs stores every epoch; a longer one stores evenly spaced epochs and the last.
    """
    if epoch % math.ceil(epochs / SNAPSHOTS) == 0 or epoch == epochs:
        kept = weights[:SNAPSHOT_UNITS].detach().to("cpu", torch.float16).clone()
        run.save_tensors(f"weights-{epoch:06d}", {"epoch": epoch, "weights": kept})


def stored_weights(run: Run, units: int) -> dict[int, Tensor]:
    """Return the stored weights (units, inputs) of the first `units` units by epoch, in order.

    Raises UserError if the run has none.
    """
    snapshots = [run.load_tensors(name) for name in run.stored_tensors("weights-")]
    if not snapshots:
        raise UserError(f"run {run.id} has no stored weights to render. Train it for at least one epoch.")
    return {int(snapshot["epoch"]): snapshot["weights"][:units].float() for snapshot in snapshots}


def render_weights(run: Run, units: int = 36, seconds_per_frame: float = 0.35) -> None:
    """Write a GIF of the first layer's weights and the accuracy over training, and its last frame as a picture.

    Raises UserError if the run has no stored weights.
    """
    weights = stored_weights(run, units)
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    accuracy = metrics[(metrics["metric"] == "accuracy") & metrics["split"].isin(list(SPLIT_STYLES))]
    inputs = next(iter(weights.values())).shape[1]
    title = f"{run.record.rule} on {run.record.dataset}, seed {run.seed}"
    frames = weight_frames(weights, image_shape_of(run, inputs), accuracy, title)
    run.save_video("weights", as_loop(frames, seconds_per_frame), seconds_per_frame)
    run.save_image("weights", frames[-1])


def weight_frames(
    weights: Mapping[int, Tensor], image_shape: tuple[int, int, int] | None, accuracy: pd.DataFrame, title: str
) -> list[Frame]:
    """Return one frame for each epoch of `weights`, (units, inputs) by epoch.

    A frame shows the weights, their change since the first epoch of `weights`, and the accuracy up to its epoch. The
    change has its own scale, because it is small relative to the weights of a wide network.
    image_shape: how a row of weights becomes an image; None shows the matrix itself. accuracy: columns split, step and
    value.
    """
    epochs = list(weights)
    figure = new_figure(title)
    left, center, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.05])
    updates = [
        show_weights(left, weights, image_shape, f"weights of {len(weights[epochs[0]])} hidden units"),
        show_weights(center, weight_changes(weights), image_shape, "change since the start"),
        *_show_accuracy(right, accuracy, epochs[-1]),
        add_caption(figure, lambda epoch: f"epoch {epoch} of {epochs[-1]}"),
    ]
    return animate(figure, updates, epochs)


def weight_changes(weights: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return the change of weights (units, inputs) by epoch since the first epoch."""
    first = next(iter(weights.values()))
    return {epoch: later - first for epoch, later in weights.items()}


def _show_accuracy(axes: Axes, accuracy: pd.DataFrame, last: int) -> list[Update]:
    # Before the first epoch accuracy is at chance: an axis down to chance would flatten the curves.
    learned = accuracy[accuracy["step"] > 0]
    updates = []
    for split, (color, line) in SPLIT_STYLES.items():
        rows = learned[learned["split"] == split]
        if len(rows):
            updates.append(
                growing_curve(axes, rows["step"], 100 * rows["value"], color=color, linestyle=line, label=split)
            )
    low, high = (100 * learned["value"].min(), 100 * learned["value"].max()) if len(learned) else (0.0, 100.0)
    margin = max(1.0, 0.15 * (high - low))
    margin_x = 0.02 * last or 0.5
    axes.set_xlim(-margin_x, last + margin_x)
    axes.set_ylim(max(0.0, low - margin), min(100.5, high + margin))
    style_curves(axes, "epoch", "accuracy (%)")
    whole_numbers(axes.xaxis)
    axes.set_title("accuracy", fontsize=HEADING, loc="left")
    if updates:
        axes.legend(loc="lower right", frameon=False, fontsize=LABEL)
    return updates
