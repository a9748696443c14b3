"""`plastic render eglp`: receptive fields, their change, events and accuracy over training, as a film."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from plastic_cli import Run
from plastic_cli.classifier.render import accuracy_caption, show_accuracy, weight_changes
from plastic_cli.classifier.weight_snapshots import stored_weights
from plastic_cli.figures.film import (
    HEADING,
    Update,
    add_caption,
    animate,
    as_loop,
    new_figure,
    pace,
    show_weights,
    style_image,
)
from plastic_cli.figures.theme import PALETTE, PAPER
from plastic_cli.figures.weights import wide_columns
from plastic_cli.runs.store import RunStore
from plastic_eglp.analysis.measures import event_raster, receptive_shape
from plastic_eglp.config import Render
from plastic_eglp.control import NAME, SPLIT

UNITS = 36


def render_learning(config: Render, run: Run) -> None:
    """Write a film with one frame for each epoch whose weights are stored, and its last frame as a picture.

    Raises UserError if the run has no stored weights or events.
    """
    weights = stored_weights(run, UNITS)
    epochs = list(weights)
    first, last = weights[epochs[0]], epochs[-1]
    raster = event_raster(run)
    accuracy, control = _accuracies(run)
    shape = receptive_shape(run, first)
    columns = None if shape is None else wide_columns(len(first), shape, 0.87)
    figure = new_figure(f"eglp on {run.record.dataset}, seed {run.seed}")
    panels = figure.subplot_mosaic(
        [["weights", "change", "accuracy"], ["weights", "change", "events"]],
        width_ratios=[1, 1, 1.8],
        height_ratios=[1.35, 1],
    )
    heading = f"receptive fields of {len(first)} units"
    updates = [
        show_weights(panels["weights"], weights, shape, heading, columns),
        show_weights(panels["change"], weight_changes(weights), shape, "change since the start", columns),
        *show_accuracy(panels["accuracy"], accuracy, last, {} if control is None else {NAME: control}),
        _show_events(panels["events"], raster),
        add_caption(figure, lambda epoch: accuracy_caption(accuracy, epoch, last)),
    ]
    frames = animate(figure, updates, epochs)
    seconds = config.frame_seconds or pace(len(frames))
    run.save_video("learning", as_loop(frames, seconds), seconds, config.video)
    run.save_image("learning", frames[-1])


def _accuracies(run: Run) -> tuple[pd.DataFrame, float | None]:
    """Return the accuracy of each split by epoch, and that of the zero-event control if the run has one."""
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    accuracy = metrics[metrics["metric"] == "accuracy"]
    control = accuracy.loc[accuracy["split"] == SPLIT, "value"]
    return accuracy[accuracy["split"] != SPLIT], float(control.iloc[-1]) if len(control) else None


def _show_events(axes: Axes, raster: pd.DataFrame) -> Update:
    """Show which batches of each epoch up to the present one had an event."""
    batches, epochs = int(raster["batch"].max()), int(raster["epoch"].max())
    image = axes.imshow(
        np.zeros((epochs, batches)),
        cmap=ListedColormap([PAPER, PALETTE[0]]),
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, batches + 0.5, epochs + 0.5, 0.5),
        animated=True,
    )
    title = axes.set_title("events", fontsize=HEADING, loc="left")
    title.set_animated(True)
    style_image(axes, "batch of the epoch", "epoch")

    def update(epoch: int) -> None:
        cells = np.zeros((epochs, batches))
        events = raster[(raster["event"] > 0) & (raster["epoch"] <= epoch)]
        cells[events["epoch"].to_numpy() - 1, events["batch"].to_numpy() - 1] = 1
        image.set_data(cells)
        title.set_text(f"events: {len(events)}")

    return update
