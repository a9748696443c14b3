"""`plastic render selective`: a film of the eligibility and gates of a layer during training, and its last frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli import Run, UserError
from plastic_cli.classifier.data import image_shape_of
from plastic_cli.figures.film import (
    HEADING,
    SMALL,
    Frame,
    Update,
    add_caption,
    add_color_bar,
    animate,
    as_loop,
    full_scale,
    in_percent,
    new_figure,
    pace,
    style_curves,
    style_image,
    whole_numbers,
)
from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import DIVERGING, GRAY, ordered_colors
from plastic_selective.continual.history import History, read_history, snapshot_names
from plastic_selective.continual.snapshots import SHOWN_ROWS, kept_artifacts

if TYPE_CHECKING:
    from plastic_selective.config import Render

MOST_FRAMES = 60
MOST_NAMED = 10
"""Largest number of tasks with a legend; a longer one would hide the curves."""
SHADES = 48
"""Number of shades between 0 and the end of the colors. A GIF has 256 colors, and the curves need some of them."""

_COLORS = LinearSegmentedColormap.from_list("diverging", DIVERGING, 2 * SHADES + 1)


@dataclass(frozen=True)
class Panel:
    """One panel of the film: a matrix (units, inputs) for each step, all on one color scale.

    limit: the magnitude, above 0, at which the colors end. signed: negative values have colors of their own.
    label: returns the text of the color bar for a magnitude.
    """

    title: str
    matrices: Mapping[int, NDArray[np.float32]]
    limit: float
    signed: bool = False
    label: Callable[[float], str] = "{:.2g}".format


def render_plasticity(config: Render, run: Run) -> None:
    """Write the film of one layer, and its last frame as a picture.

    A run of selective plasticity shows eligibility and gates after each round, a control its weights after each task.
    Raises UserError if the network has no such layer, or if a file of the run is missing.
    """
    history = read_history(run)
    if history.config.optimizer == "selective":
        panels = _eligibility_and_gates(history, config.layer)
    else:
        run.message(f"{history.config.optimizer} has no eligibility and no gates: showing the weights instead")
        panels = _weights(history, config.layer)
    units_and_inputs = next(iter(panels[0].matrices.values())).shape
    # Only the first layer sees images. Another layer can have the same number of inputs by chance.
    shape = image_shape_of(run, units_and_inputs[1]) if config.layer == 1 else None
    frames = draw_frames(history, panels, shape)
    name = f"plasticity_layer_{config.layer}"
    seconds = config.frame_seconds or pace(len(frames))
    run.save_video(name, as_loop(frames, seconds), seconds, config.video)
    run.save_image(name, frames[-1])


def evenly_spaced(names: Sequence[str], most: int = MOST_FRAMES) -> list[str]:
    """Return at most `most` evenly spaced names, including the last."""
    stride = -(-len(names) // most)
    return list(names[(len(names) - 1) % stride :: stride])


# -------------------------------------------------------------------------------------------------------- what is shown


def _eligibility_and_gates(history: History, number: int) -> list[Panel]:
    names = snapshot_names(history)
    chosen = evenly_spaced(names)
    if len(chosen) < len(names):
        history.run.message(f"showing {len(chosen)} of {len(names)} rounds")
    eligibilities, closed = {}, {}
    for name in chosen:
        snapshot = history.run.load_tensors(name)
        layer = snapshot["layers"][_index(history, number, len(snapshot["layers"]))]
        step = int(snapshot["epoch"])
        eligibilities[step], closed[step] = _array(layer["eligibility"]), 1 - _array(layer["gate"])
    units = len(next(iter(closed.values())))
    return [
        Panel(f"eligibility, layer {number}, {units} units", eligibilities, full_scale(list(eligibilities.values()))),
        Panel(
            "gates (white: open)",
            closed,
            max(float(matrix.max()) for matrix in closed.values()) or 1.0,
            label=lambda x: f"{1 - x:.3g}",
        ),
    ]


def _weights(history: History, number: int) -> list[Panel]:
    weights = {}
    for name in evenly_spaced(kept_artifacts(history.run, "network", range(history.learned + 1))):
        kept = history.run.load_tensors(name)
        matrices = [tensor for tensor in kept["network"].values() if tensor.dim() > 1]
        step = int(kept["task"]) * history.rounds
        weights[step] = _array(matrices[_index(history, number, len(matrices))][:SHOWN_ROWS].flatten(1))
    first = next(iter(weights.values()))
    changes = {step: matrix - first for step, matrix in weights.items()}
    title = f"weights, layer {number}, {len(first)} units"
    return [
        Panel(title, weights, full_scale(list(weights.values())), signed=True),
        Panel("change since the start", changes, full_scale(list(changes.values())), signed=True),
    ]


def _index(history: History, number: int, layers: int) -> int:
    if number > layers:
        raise UserError(f"--layer {number}: the network of run {history.run.id} has {layers} layers.")
    return number - 1


def _array(tensor: Tensor) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = tensor.float().numpy()
    return matrix


# --------------------------------------------------------------------------------------------------------- how it looks


def draw_frames(history: History, panels: Sequence[Panel], image_shape: tuple[int, int, int] | None) -> list[Frame]:
    """Return one frame for each step of the two `panels`, with the accuracies up to that step to their right.

    image_shape: shape of a row of a matrix as an image (channels are averaged); None shows the matrix.
    """
    figure = new_figure(history.learner)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    updates = [_show_panel(place, panel, image_shape) for place, panel in zip(axes, panels, strict=False)]
    updates += [_show_accuracies(axes[-1], history), add_caption(figure, lambda step: _caption(history, step))]
    return animate(figure, updates, list(panels[0].matrices))


def _show_panel(axes: Axes, panel: Panel, image_shape: tuple[int, int, int] | None) -> Update:
    def picture(step: int) -> NDArray[np.uint8]:
        matrix = panel.matrices[step]
        images, (height, width) = matrix.reshape(1, -1), matrix.shape
        if image_shape is not None:
            channels, height, width = image_shape
            images = matrix.reshape(len(matrix), channels, height * width).mean(axis=1)
        shades = np.round(images * (SHADES / panel.limit)) / SHADES
        return image_grid(shades, (height, width), limit=1.0, gap=0 if image_shape is None else 1)

    first = picture(next(iter(panel.matrices)))
    image = axes.imshow(
        first, interpolation="nearest", aspect="auto" if image_shape is None else "equal", animated=True
    )
    axes.set_title(panel.title, fontsize=HEADING, loc="left")
    if image_shape is None:
        style_image(axes, "input", "unit")
    else:
        axes.set_axis_off()
    low = -panel.limit if panel.signed else 0.0
    colors = _COLORS if panel.signed else ListedColormap(_COLORS(np.arange(SHADES, 2 * SHADES + 1)))
    ticks = np.linspace(low, panel.limit, 5)
    bar = add_color_bar(axes, ScalarMappable(Normalize(low, panel.limit), colors), ticks=ticks)
    bar.ax.set_yticklabels([panel.label(float(tick)) for tick in ticks])
    return lambda step: image.set_data(picture(step))


def _show_accuracies(axes: Axes, history: History) -> Update:
    colors = ordered_colors(history.tasks)
    updates = [
        _show_accuracy(axes, history.curves[history.curves["task"] == task], task, color, history.rounds)
        for task, color in enumerate(colors, start=1)
    ]
    for border in history.borders:
        axes.axvline(border, color=GRAY, linewidth=0.8, linestyle="--")
    axes.set_xlim(-0.02 * history.last, 1.02 * history.last)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("accuracy (dotted: before the task)", fontsize=HEADING, loc="left")
    axes.set_xticks(history.ticks(most=10))
    style_curves(axes, f"{history.step_name.lower()} (dashed: a new task)", "")
    in_percent(axes.yaxis)
    if history.tasks <= MOST_NAMED:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=SMALL)
    else:
        bar = add_color_bar(axes, ScalarMappable(Normalize(0.5, len(colors) + 0.5), ListedColormap(colors)))
        whole_numbers(bar.ax.yaxis)
        bar.ax.set_title("task", fontsize=SMALL)

    def update(step: int) -> None:
        for each in updates:
            each(step)

    return update


def _show_accuracy(axes: Axes, curve: pd.DataFrame, task: int, color: str, rounds: int) -> Update:
    """Draw the accuracy on one task: dotted before the task begins, then a line. `curve`: step, accuracy."""
    begins = (task - 1) * rounds
    before, since = curve[curve["step"] <= begins], curve[curve["step"] >= begins]
    (dotted,) = axes.plot([], [], ":", color=color, linewidth=1.0, animated=True)
    (line,) = axes.plot([], [], color=color, linewidth=1.8, label=f"task {task}", animated=True)
    (end,) = axes.plot([], [], "o", color=color, markersize=5, animated=True)

    def update(step: int) -> None:
        for artist, part in ((dotted, before), (line, since), (end, curve)):
            shown = part[part["step"] <= step]
            shown = shown.tail(1) if artist is end else shown
            artist.set_data(shown["step"], shown["accuracy"])

    return update


def _caption(history: History, step: int) -> str:
    task = max(1, -(-step // history.rounds))
    during = f"task {task} of {history.tasks}" if step else "before training"
    unit = history.step_name.partition(" ")[0].lower()
    return f"{history.stream}: {during}, {unit} {step} of {history.last}"
