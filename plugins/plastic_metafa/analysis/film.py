"""`plastic render metafa`: theta, accuracy and angles as they develop, as a film."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from plastic_cli import Run
from plastic_cli.figures.theme import OKABE_ITO
from plastic_metafa import rule
from plastic_metafa.history import history, moving_average, strengths

if TYPE_CHECKING:
    from plastic_metafa.config import Render

SECONDS_PER_FRAME = 0.12
LAST_FRAMES = 12
WINDOW = 20


def render_learning(config: Render, run: Run) -> None:
    """Write a GIF of theta, accuracy and angles over the episodes, and its last frame as a picture.

    Raises UserError where no episode was logged.
    """
    curves = history(run)
    last = int(curves["step"].max())
    shown = sorted({int(step) for step in np.linspace(1, last, min(config.frames, last))})
    panels = {
        "theta": strengths(curves),
        "accuracy": moving_average(curves[curves["metric"] == "accuracy"], WINDOW, ["metric"]),
        "angle": moving_average(curves[curves["metric"] == "angle"], WINDOW, ["layer"]),
    }
    levels = {
        "backprop": run.record.summary.get("backprop/accuracy"),
        "feedback alignment": run.record.summary.get("control/accuracy"),
    }
    known = {name: float(value) for name, value in levels.items() if value is not None}
    frames = [_frame(run, panels, known, step, last) for step in shown]
    run.save_video("learning", [*frames, *[frames[-1]] * LAST_FRAMES], SECONDS_PER_FRAME)
    run.save_image("learning", frames[-1])


def _frame(
    run: Run, panels: dict[str, pd.DataFrame], levels: dict[str, float], step: int, last: int
) -> NDArray[np.uint8]:
    figure = Figure(figsize=(13, 5.2), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    theta, accuracy, angle = figure.subplots(1, 3)
    names = {float(term): rule.TERMS[term].name for term in sorted(panels["theta"]["term"].unique())}
    _draw(theta, panels["theta"], "term", names, step, "theta", zero=True)
    _draw(accuracy, panels["accuracy"], "metric", {"accuracy": "this rule"}, step, "accuracy on queries")
    for number, (name, value) in enumerate(levels.items()):
        accuracy.axhline(value, color="#767676", linestyle=("--", ":")[number], linewidth=1.4, label=f"{name} (test)")
    accuracy.set_ylim(0, 1)
    layers = sorted(panels["angle"]["layer"].dropna().unique())
    labels = {layer: f"hidden layer {int(layer)}" for layer in layers}
    _draw(angle, panels["angle"], "layer", labels, step, "angle to backprop's error (degrees)")
    angle.axhline(90, color="#767676", linestyle="--", linewidth=1)
    angle.set_ylim(0, max(100.0, float(panels["angle"]["value"].max()) + 5))
    for axes in (theta, accuracy, angle):
        axes.set_xlim(0, last)
        axes.set_xlabel("episode", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelsize=9)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        # Below the panel, where it covers no curve and stays where it is from frame to frame.
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.suptitle(f"metafa on {run.record.dataset}, seed {run.seed}: episode {step} of {last}", fontsize=13)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(
    axes: Axes,
    curves: pd.DataFrame,
    by: str,
    names: dict[str, str] | dict[float, str],
    step: int,
    title: str,
    *,
    zero: bool = False,
) -> None:
    """Draw a line for each of `names`, up to `step`; the axes are those of all steps."""
    values = curves["value"].dropna()
    if len(values):
        low, high = float(values.min()), float(values.max())
        margin = 0.08 * (high - low) or 0.01
        axes.set_ylim(low - margin, high + margin)
    for number, (key, name) in enumerate(names.items()):
        # A pool has more terms than there are colours that can be told apart.
        colour, style = OKABE_ITO[number % len(OKABE_ITO)], "-" if number < len(OKABE_ITO) else "--"
        part = curves[(curves[by] == key) & (curves["step"] <= step)]
        axes.plot(part["step"], part["value"], color=colour, linestyle=style, linewidth=1.8, label=name)
        axes.plot(part["step"].tail(1), part["value"].tail(1), "o", color=colour, markersize=4)
    if zero:
        axes.axhline(0, color="#767676", linewidth=0.8)
    axes.set_title(title, fontsize=11)
