"""Frames of a film: the weights of hidden units as images, beside the accuracy up to that moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.analysis.figures import image_grid
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

    curves: rows with split, step and value, the accuracies that were logged; each frame shows them up to its epoch.
    image_shape: how a row of weights becomes an image; None shows the matrix itself. All frames share one scale.
    """
    limit = max(float(weights.abs().quantile(0.998)) for weights in snapshots) or 1.0
    return [
        _frame(weights, epoch, image_shape, curves, title, limit, max(epochs))
        for weights, epoch in zip(snapshots, epochs, strict=True)
    ]


def _frame(
    weights: Tensor,
    epoch: int,
    image_shape: tuple[int, int, int] | None,
    curves: pd.DataFrame,
    title: str,
    limit: float,
    last: int,
) -> NDArray[np.uint8]:
    figure = Figure(figsize=(9, 4.6), dpi=100, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid, curve = figure.subplots(1, 2, width_ratios=[1.1, 1])
    if image_shape is None:
        grid.imshow(weights.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        grid.set_xlabel("input")
        grid.set_ylabel("hidden unit")
    else:
        grid.imshow(image_grid(weights, image_shape, limit=limit), interpolation="nearest")
        grid.set_axis_off()
    grid.set_title(f"weights of {len(weights)} hidden units (±{limit:.2g})", fontsize=11)
    for split, rows in curves[curves["step"] <= epoch].groupby("split"):
        colour, line = SPLIT_STYLES[str(split)]
        curve.plot(rows["step"], 100 * rows["value"], line, color=colour, label=split, linewidth=2)
        curve.plot(rows["step"].iloc[-1], 100 * rows["value"].iloc[-1], "o", color=colour)
    lowest = 100 * float(curves["value"].min()) if len(curves) else 0.0
    curve.set_xlim(-0.02 * last, 1.02 * last)
    curve.set_ylim(max(0.0, lowest - 5), 101)
    curve.set_xlabel("epoch")
    curve.set_ylabel("accuracy (%)")
    curve.set_title(f"epoch {epoch} of {last}", fontsize=11)
    curve.grid(alpha=0.3)
    curve.spines[["top", "right"]].set_visible(False)
    if curve.lines:
        curve.legend(loc="lower right", frameon=False)
    figure.suptitle(title, fontsize=12)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
