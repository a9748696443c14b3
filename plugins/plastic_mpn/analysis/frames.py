"""Frames of a film of one episode: the environment, the modulations M, the outputs, and the return so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from plastic_cli.figures.film import (
    HEADING,
    Frame,
    Update,
    add_caption,
    add_color_bar,
    animate,
    full_scale,
    growing_curve,
    new_figure,
    style_curves,
    style_image,
    whole_numbers,
)
from plastic_cli.figures.theme import DIVERGING, PALETTE, discrete_colors
from plastic_mpn.analysis.recording import Episode

INCHES, DOTS_PER_INCH = (8.0, 5.44), 100
"""800 x 544 pixels. Video encoders need multiples of 16."""

# Steps that are still to come are gray, a color that no value has.
_COLORS = LinearSegmentedColormap.from_list("diverging", DIVERGING).with_extremes(bad="#EDEDED")


def choose_steps(length: int, most: int) -> tuple[int, ...]:
    """Return at most `most` evenly spaced steps of an episode, including the last one."""
    stride = -(-length // most)
    return tuple(range((length - 1) % stride, length, stride))


def episode_frames(episode: Episode, steps: Sequence[int], *, title: str, output_name: str) -> list[Frame]:
    """Return one frame (544, 800, 3) for each of the `steps`.

    Top left: the environment's own picture if the episode has pictures of these steps, otherwise the observations up to
    the step. Top right: M as the step used it, or the hidden states up to the step if the network has no M. Bottom: the
    outputs, the difference of each output from their mean, and the sum of the rewards up to the step. All scales are
    those of the whole episode.
    """
    figure = new_figure(title, INCHES, DOTS_PER_INCH)
    rows = figure.add_gridspec(2, 1, height_ratios=[1.35, 1])
    above = rows[0].subgridspec(1, 2, width_ratios=[1.1, 1])
    below = rows[1].subgridspec(1, 3, width_ratios=[1.25, 0.55, 1])
    top = [figure.add_subplot(above[0, column]) for column in range(2)]
    bottom = [figure.add_subplot(below[0, column]) for column in range(3)]
    last = len(episode) - 1
    updates = [
        _picture(top[0], episode, steps) or _history(top[0], episode.observations, "observation", "input"),
        _modulations(top[1], episode) or _history(top[1], episode.hidden, "hidden state h", "hidden unit"),
        _outputs(bottom[0], episode, output_name),
        _preferences(bottom[1], episode, output_name),
        _return(bottom[2], episode),
        add_caption(
            figure,
            lambda step: (
                f"step {step} (0 to {last}),  action {episode.actions[step]},  reward {episode.rewards[step]:.4g}"
            ),
        ),
    ]
    return animate(figure, updates, steps)


def _picture(axes: Axes, episode: Episode, steps: Sequence[int]) -> Update | None:
    if episode.frames is None or not set(steps) <= set(episode.frame_steps):
        return None
    frames, place = episode.frames, {step: index for index, step in enumerate(episode.frame_steps)}
    image = axes.imshow(frames[0], animated=True)
    axes.set_title("environment", fontsize=HEADING, loc="left")
    axes.set_axis_off()
    return lambda step: image.set_data(frames[place[step]])


def _history(axes: Axes, values: NDArray[np.float32], name: str, rows: str) -> Update:
    """Show values (T, k) up to the present step as an image with one row for each of the k."""
    shown = np.full(values.T.shape, np.nan)
    image = _image(axes, shown, full_scale([values]))
    axes.set_title(f"{name} up to now", fontsize=HEADING, loc="left")
    style_image(axes, "step", rows)
    add_color_bar(axes, image, name, extend="both")

    def update(step: int) -> None:
        shown[:, : step + 1] = values[: step + 1].T
        shown[:, step + 1 :] = np.nan
        image.set_data(shown)

    return update


def _modulations(axes: Axes, episode: Episode) -> Update | None:
    matrices = episode.matrices
    if matrices is None:
        return None
    image = _image(axes, matrices[0], full_scale([matrices]))
    axes.set_title("modulations M before the step", fontsize=HEADING, loc="left")
    style_image(axes, "input", "hidden unit")
    add_color_bar(axes, image, "M (no unit)", extend="both")
    return lambda step: image.set_data(matrices[step])


def _image(axes: Axes, values: NDArray[Any], limit: float) -> AxesImage:
    return axes.imshow(
        values, cmap=_COLORS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", animated=True
    )


def _outputs(axes: Axes, episode: Episode, name: str) -> Update:
    outputs, times = episode.outputs, np.arange(len(episode))
    colors = discrete_colors(outputs.shape[1])
    lines = [
        axes.plot([], [], color=color, linewidth=1.6, linestyle=_line_style(index, len(colors)), animated=True)[0]
        for index, color in enumerate(colors)
    ]
    (chosen,) = axes.plot([], [], "o", color="#222222", markersize=6, markerfacecolor="none", animated=True)
    _style_steps(axes, outputs, name)

    def update(step: int) -> None:
        for line, values in zip(lines, outputs.T, strict=True):
            line.set_data(times[: step + 1], values[: step + 1])
        chosen.set_data([step], [outputs[step, episode.actions[step]]])

    return update


def _line_style(index: int, count: int) -> str | tuple[float, tuple[float, float]]:
    """Return solid for the first line and shorter dashes for each later one, so that lines below show in the gaps."""
    return (0, (4 * (count - index), 4 * index)) if index else "solid"


def _preferences(axes: Axes, episode: Episode, name: str) -> Update:
    """Show the difference of each output from their mean, which is often small against their common change."""
    preferences = episode.outputs - episode.outputs.mean(axis=1, keepdims=True)
    number = preferences.shape[1]
    bars = axes.bar(range(number), [0.0] * number, color=discrete_colors(number), animated=True)
    limit = 1.06 * float(np.abs(preferences).max()) or 1.0
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_ylim(-limit, limit)
    axes.set_xlim(-0.7, number - 0.3)
    style_curves(axes, "action", f"{name} minus mean")
    whole_numbers(axes.xaxis, 8)
    _full_numbers(axes.yaxis)

    def update(step: int) -> None:
        for bar, height in zip(bars, preferences[step].tolist(), strict=True):
            bar.set_height(height)

    return update


def _return(axes: Axes, episode: Episode) -> Update:
    returns = np.cumsum(episode.rewards)
    update = growing_curve(axes, np.arange(len(episode)), returns, color=PALETTE[2], drawstyle="steps-post")
    _style_steps(axes, returns, "return so far")
    return update


def _style_steps(axes: Axes, values: NDArray[np.floating[Any]], name: str) -> None:
    """Give axes the limits, labels and ticks of values (T, ...) at each step of an episode."""
    length = len(values)
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5
    aside = 0.02 * length if length > 1 else 0.5
    axes.set_xlim(-aside, length - 1 + aside)
    axes.set_ylim(low - margin, high + margin)
    style_curves(axes, "step", name)
    whole_numbers(axes.xaxis, 5)
    _full_numbers(axes.yaxis)


def _full_numbers(axis: Axis) -> None:
    """Show the values themselves at the ticks, not their differences from a common offset."""
    axis.set_major_locator(MaxNLocator(5))
    axis.axes.ticklabel_format(axis="y", useOffset=False)
