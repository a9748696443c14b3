"""Frames of a film of one episode: the environment, the state of M, the outputs, and the return so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from plastic_cli.figures.theme import DIVERGING, OKABE_ITO, discrete_colours
from plastic_mpn.analysis.recording import Episode

INCHES, DOTS_PER_INCH = (8.0, 5.44), 100
"""800 x 544 pixels, multiples of 16, which video encoders want."""

# What is not there yet is grey, which no value is.
_COLOURS = LinearSegmentedColormap.from_list("diverging", DIVERGING).with_extremes(bad="#EDEDED")
_FULL_SCALE = 0.998
"""The colours end at this quantile of all absolute values, so that a few large ones do not pale the rest."""

Updater = Callable[[int], None]


def choose_steps(length: int, most: int, extra: Sequence[int] = ()) -> tuple[int, ...]:
    """Return at most `most` evenly spaced steps of an episode, the last among them, and the `extra` ones."""
    stride = -(-length // most)
    regular = range((length - 1) % stride, length, stride)
    return tuple(sorted({*regular, *extra}))


def episode_frames(episode: Episode, steps: Sequence[int], *, title: str, output_name: str) -> list[NDArray[np.uint8]]:
    """Return one frame (544, 800, 3) for each of the `steps`.

    Top left is the environment's own picture where the episode has pictures of these steps, otherwise the observations
    up to that step; top right M as the step used it, or for a network without M its hidden states up to that step.
    Below are the outputs, how far each is above their mean, and the sum of the rewards up to that step. All scales are
    those of the whole episode.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03, rect=(0, 0, 1, 0.91))
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout=layout, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.text(0.012, 0.985, title, ha="left", va="top", fontsize=12, weight="bold")
    rows = figure.add_gridspec(2, 1, height_ratios=[1.35, 1])
    above = rows[0].subgridspec(1, 2, width_ratios=[1.1, 1])
    below = rows[1].subgridspec(1, 3, width_ratios=[1.25, 0.55, 1])
    top = [figure.add_subplot(above[0, column]) for column in range(2)]
    bottom = [figure.add_subplot(below[0, column]) for column in range(3)]
    updaters = [
        _picture(top[0], episode, steps) or _history(top[0], episode.observations, "observation", "input"),
        _modulations(top[1], episode) or _history(top[1], episode.hidden, "hidden state h", "hidden unit"),
        _outputs(bottom[0], episode, output_name),
        _preferences(bottom[1], episode, output_name),
        _return(bottom[2], episode),
        _caption(figure, episode),
    ]
    # What does not move is drawn once; a frame is that picture with the moving parts drawn over it.
    moving = sorted((part for part in figure.findobj() if part.get_animated()), key=lambda part: part.get_zorder())
    canvas.draw()
    renderer = canvas.get_renderer()
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for step in steps:
        for update in updaters:
            update(step)
        canvas.restore_region(background)
        for part in moving:
            part.draw(renderer)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames


def _picture(axes: Axes, episode: Episode, steps: Sequence[int]) -> Updater | None:
    if episode.frames is None or not set(steps) <= set(episode.frame_steps):
        return None
    frames, place = episode.frames, {step: index for index, step in enumerate(episode.frame_steps)}
    image = axes.imshow(frames[0], animated=True)
    axes.set_title("environment", fontsize=10, loc="left")
    axes.set_axis_off()
    return lambda step: image.set_data(frames[place[step]])


def _history(axes: Axes, values: NDArray[np.float32], name: str, rows: str) -> Updater:
    """Show values (T, k) up to the present step as a picture, a row for each of the k."""
    limit = _limit(values)
    shown = np.full(values.T.shape, np.nan)
    image = axes.imshow(
        shown, cmap=_COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", animated=True
    )
    _describe(axes, f"{name} up to now", "step", rows)
    _colour_bar(axes, image, name)

    def update(step: int) -> None:
        shown[:, : step + 1] = values[: step + 1].T
        shown[:, step + 1 :] = np.nan
        image.set_data(shown)

    return update


def _modulations(axes: Axes, episode: Episode) -> Updater | None:
    matrices = episode.matrices
    if matrices is None:
        return None
    limit = _limit(matrices)
    image = axes.imshow(
        matrices[0], cmap=_COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", animated=True
    )
    _describe(axes, "modulations M before the step", "input", "hidden unit")
    _colour_bar(axes, image, "M (no unit)")
    return lambda step: image.set_data(matrices[step])


def _outputs(axes: Axes, episode: Episode, name: str) -> Updater:
    outputs, times = episode.outputs, np.arange(len(episode))
    colours = discrete_colours(outputs.shape[1])
    lines = [
        axes.plot([], [], color=colour, linewidth=1.6, linestyle=_line_style(index, len(colours)), animated=True)[0]
        for index, colour in enumerate(colours)
    ]
    (chosen,) = axes.plot([], [], "o", color="#222222", markersize=6, markerfacecolor="none", animated=True)
    _along_time(axes, outputs, len(episode), name)

    def update(step: int) -> None:
        for line, values in zip(lines, outputs.T, strict=True):
            line.set_data(times[: step + 1], values[: step + 1])
        chosen.set_data([step], [outputs[step, episode.actions[step]]])

    return update


def _line_style(index: int, count: int) -> str | tuple[float, tuple[float, float]]:
    """Return solid for the first line and shorter dashes for each later one: what lies below shows in the gaps."""
    return (0, (4 * (count - index), 4 * index)) if index else "solid"


def _preferences(axes: Axes, episode: Episode, name: str) -> Updater:
    """Show each output less their mean, which may be small beside how much all of them change together."""
    preferences = episode.outputs - episode.outputs.mean(axis=1, keepdims=True)
    number = preferences.shape[1]
    bars = axes.bar(range(number), [0.0] * number, color=discrete_colours(number), animated=True)
    limit = 1.06 * float(np.abs(preferences).max()) or 1.0
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_ylim(-limit, limit)
    axes.set_xlim(-0.7, number - 0.3)
    axes.set_xlabel("action", fontsize=9)
    axes.set_ylabel(f"{name} less the mean", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    _plain(axes)

    def update(step: int) -> None:
        for bar, height in zip(bars, preferences[step].tolist(), strict=True):
            bar.set_height(height)

    return update


def _return(axes: Axes, episode: Episode) -> Updater:
    returns = np.cumsum(episode.rewards)
    times = np.arange(len(episode))
    (line,) = axes.plot([], [], color=OKABE_ITO[2], linewidth=1.8, drawstyle="steps-post", animated=True)
    (end,) = axes.plot([], [], "o", color=OKABE_ITO[2], markersize=5, animated=True)
    _along_time(axes, returns, len(episode), "return so far")

    def update(step: int) -> None:
        line.set_data(times[: step + 1], returns[: step + 1])
        end.set_data([step], [returns[step]])

    return update


def _caption(figure: Figure, episode: Episode) -> Updater:
    text = figure.text(0.012, 0.94, "", ha="left", va="top", fontsize=10, animated=True)

    def update(step: int) -> None:
        text.set_text(
            f"step {step} (0 to {len(episode) - 1}),  action {episode.actions[step]},"
            f"  reward {episode.rewards[step]:.4g}"
        )

    return update


def _along_time(axes: Axes, values: NDArray[np.floating[Any]], length: int, name: str) -> None:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5
    aside = 0.02 * length if length > 1 else 0.5
    axes.set_xlim(-aside, length - 1 + aside)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel(name, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5))
    # The numbers at the ticks are the values, not what is to be added to some other number.
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _describe(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)


def _colour_bar(axes: Axes, image: Any, name: str) -> None:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(image, ax=axes, extend="both", fraction=0.05, pad=0.02)
    bar.set_label(name, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _limit(values: NDArray[np.float32]) -> float:
    return float(np.quantile(np.abs(values), _FULL_SCALE)) or float(np.abs(values).max()) or 1.0
