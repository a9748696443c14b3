"""`plastic render eglp`: receptive fields, what learning added, and the events beside the accuracy, as a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli import Run, UserError
from plastic_cli.figures.film import draw_weights, full_scale
from plastic_cli.figures.theme import OKABE_ITO
from plastic_cli.runs.store import RunStore
from plastic_eglp.analysis.measures import event_raster, receptive_shape
from plastic_eglp.control import NAME, SPLIT

UNITS = 36
SECONDS_PER_FRAME = 0.35
LAST_FRAMES = 5


@dataclass(frozen=True)
class Panel:
    """Where a film shows weights (units, inputs) of each frame, all on one scale that ends at `limit`."""

    place: str
    title: str
    weights: Sequence[Tensor]
    limit: float
    shape: tuple[int, int, int] | None


def render_learning(run: Run) -> None:
    """Write a GIF, a frame for each epoch that kept its weights, and the last frame as a still.

    Raises UserError where the run kept nothing to show.
    """
    names = run.stored_tensors("weights-")
    if not names:
        raise UserError(f"run {run.id} kept no weights to show: train it to the end of an epoch first.")
    raster = event_raster(run)
    snapshots = [run.load_tensors(name) for name in names]
    weights = [snapshot["weights"][:UNITS].float() for snapshot in snapshots]
    epochs = [int(snapshot["epoch"]) for snapshot in snapshots]
    curve, control = _accuracies(run)
    shape = receptive_shape(run, weights[0])
    added = [part - weights[0] for part in weights]
    panels = [
        Panel("now", f"receptive fields of {len(weights[0])} units", weights, full_scale(weights), shape),
        Panel("added", "what learning added", added, full_scale(added), shape),
    ]
    frames = [_frame(run, panels, number, epochs, raster, curve, control) for number in range(len(epochs))]
    run.save_video("learning", [*frames, *[frames[-1]] * LAST_FRAMES], SECONDS_PER_FRAME)
    run.save_image("learning", frames[-1])


def _accuracies(run: Run) -> tuple[pd.DataFrame, float | None]:
    """Return the test accuracy by epoch, and that of the zero-event control where the run has one."""
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    accuracy = metrics[metrics["metric"] == "accuracy"]
    control = accuracy.loc[accuracy["split"] == SPLIT, "value"]
    return accuracy[accuracy["split"] == "test"], float(control.iloc[-1]) if len(control) else None


def _frame(
    run: Run,
    panels: Sequence[Panel],
    number: int,
    epochs: Sequence[int],
    raster: pd.DataFrame,
    curve: pd.DataFrame,
    control: float | None,
) -> NDArray[np.uint8]:
    figure = Figure(figsize=(12, 4.4), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["now", "added", "events"], ["now", "added", "accuracy"]], width_ratios=[1, 1, 1.2])
    for panel in panels:
        draw_weights(axes[panel.place], panel.weights[number], panel.limit, panel.shape, panel.title)
    _draw_events(axes["events"], raster, epochs[number])
    _draw_accuracy(axes["accuracy"], curve, control, epochs[number], epochs[-1])
    figure.suptitle(
        f"eglp on {run.record.dataset}, seed {run.seed}: epoch {epochs[number]} of {epochs[-1]}", fontsize=13
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_events(axes: Axes, raster: pd.DataFrame, epoch: int) -> None:
    batches, epochs = int(raster["batch"].max()), int(raster["epoch"].max())
    cells = np.zeros((epochs, batches))
    fired = raster[(raster["event"] > 0) & (raster["epoch"] <= epoch)]
    cells[fired["epoch"].to_numpy() - 1, fired["batch"].to_numpy() - 1] = 1
    axes.imshow(
        cells,
        cmap="Blues",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, batches + 0.5, epochs + 0.5, 0.5),
    )
    axes.set_title(f"events: {len(fired)}", fontsize=11)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("batch of the epoch", fontsize=9)
    axes.set_ylabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_accuracy(axes: Axes, curve: pd.DataFrame, control: float | None, epoch: int, last: int) -> None:
    learned = curve[curve["step"] > 0]
    seen = learned[learned["step"] <= epoch]
    axes.plot(seen["step"], 100 * seen["value"], color=OKABE_ITO[0], linewidth=2, label="test")
    values = list(100 * learned["value"])
    if control is not None:
        axes.axhline(100 * control, color=OKABE_ITO[1], linestyle="--", linewidth=1.5, label=NAME)
        values.append(100 * control)
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    margin = max(1.0, 0.12 * (high - low))
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(low - margin, min(100.5, high + margin))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("accuracy (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
