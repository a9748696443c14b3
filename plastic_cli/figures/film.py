"""Frames of a film: the weights of hidden units as images, beside the accuracy up to that moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import OKABE_ITO

SPLIT_STYLES = {"train": (OKABE_ITO[1], "--"), "validation": (OKABE_ITO[2], ":"), "test": (OKABE_ITO[0], "-")}


def weight_frames(
    snapshots: Sequence[Tensor],
    epochs: Sequence[int],
    image_shape: tuple[int, int, int] | None,
    curves: pd.DataFrame,
    title: str,
) -> list[NDArray[np.uint8]]:
    """Return one frame (height, width, 3) per snapshot of weights (units, inputs).

    Each frame shows the weights, what learning has added to those of the first snapshot (which is small beside them in
    a wide network, and would not be seen), and the accuracy so far. All frames share their scales.
    curves: rows with split, step and value, the accuracies that were logged. image_shape: how a row of weights becomes
    an image; None shows the matrix itself.
    """
    changes = [weights - snapshots[0] for weights in snapshots]
    limits = full_scale(snapshots), full_scale(changes)
    return [
        _frame(weights, change, limits, epoch, image_shape, curves, title, max(epochs))
        for weights, change, epoch in zip(snapshots, changes, epochs, strict=True)
    ]


def full_scale(tensors: Sequence[Tensor]) -> float:
    """Return the magnitude at which the colours of several tensors of weights end: above 0."""
    return max(float(tensor.abs().quantile(0.998)) for tensor in tensors) or 1.0


def _frame(
    weights: Tensor,
    change: Tensor,
    limits: tuple[float, float],
    epoch: int,
    image_shape: tuple[int, int, int] | None,
    curves: pd.DataFrame,
    title: str,
    last: int,
) -> NDArray[np.uint8]:
    figure = Figure(figsize=(12, 4.4), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.05])
    draw_weights(left, weights, limits[0], image_shape, f"weights of {len(weights)} hidden units")
    draw_weights(middle, change, limits[1], image_shape, "what learning added")
    _draw_curves(right, curves, epoch, last)
    figure.suptitle(title, fontsize=13)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_weights(
    axes: Axes, weights: Tensor, limit: float, image_shape: tuple[int, int, int] | None, title: str
) -> None:
    """Draw weights (units, inputs) as images of `image_shape`, or as a matrix where that is None."""
    if image_shape is None:
        axes.imshow(weights.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_xlabel("input")
        axes.set_ylabel("hidden unit")
    else:
        axes.imshow(image_grid(weights, image_shape, limit=limit), interpolation="nearest")
        axes.set_axis_off()
    axes.set_title(f"{title} (±{limit:.2g})", fontsize=11)


def _draw_curves(axes: Axes, curves: pd.DataFrame, epoch: int, last: int) -> None:
    # Before the first epoch accuracy is at chance: an axis down to there would flatten all that follows.
    curves = curves[curves["step"] > 0]
    for split, rows in curves[curves["step"] <= epoch].groupby("split"):
        colour, line = SPLIT_STYLES[str(split)]
        axes.plot(rows["step"], 100 * rows["value"], line, color=colour, label=split, linewidth=2)
        axes.plot(rows["step"].iloc[-1], 100 * rows["value"].iloc[-1], "o", color=colour)
    bottom, top = (100 * curves["value"].min(), 100 * curves["value"].max()) if len(curves) else (0.0, 100.0)
    margin = max(1.0, 0.15 * (top - bottom))
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.set_ylim(max(0.0, bottom - margin), min(100.5, top + margin))
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"epoch {epoch} of {last}", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False)
