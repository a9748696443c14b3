"""Frames of a film of a stream of tasks: two pictures of a layer's synapses, beside the accuracies so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import DIVERGING, discrete_colors
from plastic_selective.continual.history import History

INCHES, DOTS_PER_INCH = (12.0, 4.4), 80
"""960 x 352 pixels, multiples of 16, which video encoders want."""
FULL_SCALE = 0.998
"""The colours end at this quantile of all magnitudes, so that a few large ones do not pale the rest."""
MOST_NAMED = 10
"""With more tasks than this a legend would hide the curves."""

SHADES = 48
"""Between 0 and the end of the colours: a GIF has 256 colours in all, and the curves need some of them."""

_COLOURS = LinearSegmentedColormap.from_list("diverging", DIVERGING, 2 * SHADES + 1)
Updater = Callable[[int], None]


@dataclass(frozen=True)
class Pictures:
    """One panel of a film: a matrix (units, inputs) in each frame, all on one scale.

    limit: the magnitude at which the colours end, above 0. signed: colours on both sides of 0, otherwise only above it.
    words: tells a magnitude what the colour bar says there.
    """

    title: str
    matrices: Sequence[NDArray[np.float32]]
    limit: float
    signed: bool = False
    words: Callable[[float], str] = "{:.2g}".format


def full_scale(matrices: Sequence[NDArray[np.float32]]) -> float:
    """Return the magnitude at which the colours of several matrices end: above 0."""
    magnitudes = np.abs(np.stack(matrices))
    return float(np.quantile(magnitudes, FULL_SCALE)) or float(magnitudes.max()) or 1.0


def film_frames(
    history: History,
    steps: Sequence[int],
    panels: Sequence[Pictures],
    image_shape: tuple[int, int, int] | None,
) -> list[NDArray[np.uint8]]:
    """Return one frame (352, 960, 3) for each of the `steps`, at which the two `panels` have one matrix each.

    image_shape: how a row of a matrix becomes an image (channels are averaged); None shows the matrix itself. To the
    right are the accuracies on all tasks up to that step, with a dashed line where a new task begins.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.02, rect=(0, 0, 1, 0.87))
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.text(0.012, 0.975, history.learner, ha="left", va="top", fontsize=12, weight="bold")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    updaters = [_pictures(place, panel, image_shape) for place, panel in zip(axes, panels, strict=False)]
    updaters += [_accuracies(axes[-1], history, steps), _caption(figure, history, steps)]
    frames = []
    for frame in range(len(steps)):
        for update in updaters:
            update(frame)
        if frame == 0:
            canvas.draw()
            # Panels must not move from frame to frame.
            figure.set_layout_engine("none")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames


def _pictures(axes: Axes, panel: Pictures, image_shape: tuple[int, int, int] | None) -> Updater:
    def shown(frame: int) -> NDArray[np.uint8]:
        matrix = panel.matrices[frame]
        images, (height, width) = matrix.reshape(1, -1), matrix.shape
        if image_shape is not None:
            channels, height, width = image_shape
            images = matrix.reshape(len(matrix), channels, height * width).mean(axis=1)
        shades = np.round(images * (SHADES / panel.limit)) / SHADES
        return image_grid(shades, (height, width), limit=1.0, gap=0 if image_shape is None else 1)

    image = axes.imshow(shown(0), interpolation="nearest", aspect="auto" if image_shape is None else "equal")
    axes.set_title(panel.title, fontsize=10.5, loc="left")
    if image_shape is None:
        axes.set_xlabel("input", fontsize=9)
        axes.set_ylabel("unit", fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=8)
    else:
        axes.set_axis_off()
    _colour_bar(axes, panel)
    return lambda frame: image.set_data(shown(frame))


def _colour_bar(axes: Axes, panel: Pictures) -> None:
    low = -panel.limit if panel.signed else 0.0
    colours = _COLOURS if panel.signed else ListedColormap(_COLOURS(np.arange(SHADES, 2 * SHADES + 1)))
    scale = ScalarMappable(Normalize(low, panel.limit), colours)
    ticks = np.linspace(low, panel.limit, 5)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.02, ticks=ticks)
    bar.ax.set_yticklabels([panel.words(float(tick)) for tick in ticks])
    bar.ax.tick_params(labelsize=8)


def _task_bar(axes: Axes, colours: Sequence[str]) -> None:
    """Show which colour is which task, where a legend would be too long."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    scale = ScalarMappable(Normalize(0.5, len(colours) + 0.5), ListedColormap(list(colours)))
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    bar.ax.set_title("task", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _accuracies(axes: Axes, history: History, steps: Sequence[int]) -> Updater:
    colours = discrete_colors(history.tasks)
    curves = [history.curves[history.curves["task"] == task] for task in range(1, history.tasks + 1)]
    lines = [
        axes.plot([], [], color=colour, linewidth=1.8, label=f"task {task}")[0]
        for task, colour in enumerate(colours, start=1)
    ]
    untaught = [axes.plot([], [], ":", color=colour, linewidth=1.0)[0] for colour in colours]
    ends = [axes.plot([], [], "o", color=colour, markersize=5)[0] for colour in colours]
    for border in history.borders:
        axes.axvline(border, color="#767676", linewidth=0.8, linestyle="--")
    axes.set_xlim(-0.02 * history.last, 1.02 * history.last)
    axes.set_ylim(-3, 103)
    axes.set_xlabel(f"{history.step_name.lower()} (dashed: a new task)", fontsize=9)
    axes.set_ylabel("accuracy (%)", fontsize=9)
    axes.set_title("accuracy (dotted: not yet learned)", fontsize=10.5, loc="left")
    axes.set_xticks(history.ticks(most=10))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if history.tasks <= MOST_NAMED:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    else:
        _task_bar(axes, colours)

    def update(frame: int) -> None:
        for task, (curve, line, dots, end) in enumerate(zip(curves, lines, untaught, ends, strict=True)):
            so_far = curve[curve["step"] <= steps[frame]]
            before, since = (
                so_far[so_far["step"] <= task * history.rounds],
                so_far[so_far["step"] >= task * history.rounds],
            )
            dots.set_data(before["step"], 100 * before["accuracy"])
            line.set_data(since["step"], 100 * since["accuracy"])
            end.set_data(so_far["step"].iloc[-1:], 100 * so_far["accuracy"].iloc[-1:])

    return update


def _caption(figure: Figure, history: History, steps: Sequence[int]) -> Updater:
    text = figure.text(0.012, 0.905, "", ha="left", va="top", fontsize=10)
    unit = history.step_name.partition(" ")[0].lower()

    def update(frame: int) -> None:
        step = steps[frame]
        task = max(1, -(-step // history.rounds))
        during = f"task {task} of {history.tasks}" if step else "before training"
        text.set_text(f"{history.stream}: {during}, {unit} {step} of {history.last}")

    return update
