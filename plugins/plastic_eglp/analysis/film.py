"""`plastic render eglp`: receptive fields, their change, events and accuracy over training, as a film."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plastic_cli import Run
from plastic_cli.classifier.render import stored_weights, weight_changes
from plastic_cli.figures.film import (
    HEADING,
    LABEL,
    Update,
    add_caption,
    animate,
    as_loop,
    growing_curve,
    new_figure,
    show_weights,
    style_curves,
    style_image,
    whole_numbers,
)
from plastic_cli.figures.theme import PALETTE
from plastic_cli.runs.store import RunStore
from plastic_eglp.analysis.measures import event_raster, receptive_shape
from plastic_eglp.control import NAME, SPLIT

UNITS = 36
SECONDS_PER_FRAME = 0.35


def render_learning(run: Run) -> None:
    """Write a GIF with one frame for each epoch whose weights are stored, and its last frame as a picture.

    Raises UserError if the run has no stored weights or events.
    """
    weights = stored_weights(run, UNITS)
    epochs = list(weights)
    first, last = weights[epochs[0]], epochs[-1]
    raster = event_raster(run)
    accuracy, control = _accuracies(run)
    shape = receptive_shape(run, first)
    figure = new_figure(f"eglp on {run.record.dataset}, seed {run.seed}")
    panels = figure.subplot_mosaic(
        [["weights", "change", "events"], ["weights", "change", "accuracy"]], width_ratios=[1, 1, 1.2]
    )
    updates = [
        show_weights(panels["weights"], weights, shape, f"receptive fields of {len(first)} units"),
        show_weights(panels["change"], weight_changes(weights), shape, "change since the start"),
        _show_events(panels["events"], raster),
        _show_accuracy(panels["accuracy"], accuracy, control, last),
        add_caption(figure, lambda epoch: f"epoch {epoch} of {last}"),
    ]
    frames = animate(figure, updates, epochs)
    run.save_video("learning", as_loop(frames, SECONDS_PER_FRAME), SECONDS_PER_FRAME)
    run.save_image("learning", frames[-1])


def _accuracies(run: Run) -> tuple[pd.DataFrame, float | None]:
    """Return the test accuracy by epoch, and that of the zero-event control if the run has one."""
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    accuracy = metrics[metrics["metric"] == "accuracy"]
    control = accuracy.loc[accuracy["split"] == SPLIT, "value"]
    return accuracy[accuracy["split"] == "test"], float(control.iloc[-1]) if len(control) else None


def _show_events(axes: Axes, raster: pd.DataFrame) -> Update:
    """Show which batches of each epoch up to the present one had an event."""
    batches, epochs = int(raster["batch"].max()), int(raster["epoch"].max())
    image = axes.imshow(
        np.zeros((epochs, batches)),
        cmap="Blues",
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


def _show_accuracy(axes: Axes, accuracy: pd.DataFrame, control: float | None, last: int) -> Update:
    learned = accuracy[accuracy["step"] > 0]
    update = growing_curve(axes, learned["step"], 100 * learned["value"], color=PALETTE[0], label="test")
    values = list(100 * learned["value"])
    if control is not None:
        axes.axhline(100 * control, color=PALETTE[1], linestyle="--", linewidth=1.5, label=NAME)
        values.append(100 * control)
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    margin = max(1.0, 0.12 * (high - low))
    axes.set_xlim(0, 1.02 * last)
    axes.set_ylim(low - margin, min(100.5, high + margin))
    whole_numbers(axes.xaxis)
    style_curves(axes, "epoch", "accuracy (%)")
    # With a background, because the line of the control may pass behind the legend.
    axes.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=LABEL)
    return update
