"""`plastic render metafa`: theta, accuracy and angles over the episodes, as a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plastic_cli import Run
from plastic_cli.figures.film import (
    HEADING,
    LABEL,
    Update,
    add_caption,
    animate,
    as_loop,
    growing_curve,
    in_percent,
    new_figure,
    pace,
    style_curves,
    whole_numbers,
)
from plastic_cli.figures.theme import GRAY, PALETTE, ordered_colors
from plastic_metafa import rule
from plastic_metafa.history import history, moving_average, strengths
from plastic_metafa.theta_file import sort_terms

if TYPE_CHECKING:
    from plastic_metafa.config import Render

INCHES = (13.0, 5.6)
WINDOW = 20
"""Episodes per moving average of accuracy and angles."""


def render_learning(config: Render, run: Run) -> None:
    """Write a film of theta, accuracy and angles over the episodes, and its last frame as a picture.

    Raises UserError if no episode was logged.
    """
    curves = history(run)
    last = int(curves["step"].max())
    steps = sorted({int(step) for step in np.linspace(1, last, min(config.frames, last))})
    accuracy = moving_average(curves[curves["metric"] == "accuracy"], WINDOW, ["metric"])
    angles = moving_average(curves[curves["metric"] == "angle"], WINDOW, ["layer"])
    figure = new_figure(f"metafa on {run.record.dataset}, seed {run.seed}", INCHES)
    left, middle, right = figure.subplots(1, 3)
    updates = [
        *_show_theta(left, strengths(curves)),
        *_show_accuracy(middle, accuracy, run),
        *_show_angles(right, angles),
        add_caption(figure, lambda step: f"episode {step} of {last}"),
    ]
    for axes in (left, middle, right):
        axes.set_xlim(0, 1.015 * last)
        whole_numbers(axes.xaxis, 5)
        # Below the panel, where it covers no curve.
        axes.legend(frameon=False, fontsize=LABEL, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    frames = animate(figure, updates, steps)
    seconds = config.frame_seconds or pace(len(frames))
    run.save_video("learning", as_loop(frames, seconds), seconds, config.video)
    run.save_image("learning", frames[-1])


def _show_theta(axes: Axes, theta: pd.DataFrame) -> list[Update]:
    names = {term: term if isinstance(term, str) else rule.TERMS[term].name for term in sort_terms(theta["term"])}
    updates = _show_curves(axes, theta, "term", names, "strength theta")
    low, high = float(theta["value"].min()), float(theta["value"].max())
    margin = 0.08 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)
    axes.axhline(0, color=GRAY, linewidth=0.8)
    return updates


def _show_accuracy(axes: Axes, accuracy: pd.DataFrame, run: Run) -> list[Update]:
    updates = _show_curves(axes, accuracy, "metric", {"accuracy": "this rule"}, "accuracy on queries")
    summary = run.record.summary
    controls = (("backprop", "backprop/accuracy", "--"), ("feedback alignment", "control/accuracy", "-."))
    for name, key, linestyle in controls:
        if (value := summary.get(key)) is not None:
            axes.axhline(float(value), color=GRAY, linestyle=linestyle, linewidth=1.4, label=f"{name} (test)")
    axes.set_ylim(0, 1.02)
    in_percent(axes.yaxis)
    return updates


def _show_angles(axes: Axes, angles: pd.DataFrame) -> list[Update]:
    names = {layer: f"hidden layer {int(layer)}" for layer in sorted(angles["layer"].dropna().unique())}
    title = "angle to backprop's error (degrees)"
    updates = _show_curves(axes, angles, "layer", names, title, ordered_colors(len(names)))
    axes.axhline(90, color=GRAY, linestyle="--", linewidth=1)
    axes.set_ylim(0, max(100.0, float(angles["value"].max()) + 5))
    return updates


def _show_curves(
    axes: Axes,
    curves: pd.DataFrame,
    by: str,
    names: Mapping[Any, str],
    title: str,
    colors: Sequence[str] = PALETTE,
) -> list[Update]:
    """Add a growing curve for each of `names`, the values of column `by`."""
    updates = []
    for number, (key, name) in enumerate(names.items()):
        # A pool has more terms than there are colors that can be distinguished.
        linestyle = "-" if number < len(colors) else "--"
        color = colors[number % len(colors)]
        part = curves[curves[by] == key]
        updates.append(growing_curve(axes, part["step"], part["value"], color=color, linestyle=linestyle, label=name))
    axes.set_title(title, fontsize=HEADING, loc="left")
    style_curves(axes, "episode", "")
    return updates
