"""Frames of a film of one episode: the environment, M, the inputs, the choice and the return so far."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from plastic_cli.figures.film import (
    HEADING,
    LABEL,
    SMALL,
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
from plastic_cli.figures.theme import DIVERGING, GRAY, GRID, INK, PALETTE, SOFT_INK, discrete_colors
from plastic_mpn.analysis.choice import Choice
from plastic_mpn.analysis.cropping import content_window
from plastic_mpn.analysis.recording import Episode
from plastic_mpn.analysis.sorting import unit_order
from plastic_mpn.environments.names import Names

INCHES, DOTS_PER_INCH = (8.0, 5.44), 100
"""800 x 544 pixels. Video encoders need multiples of 16."""

PICTURE_ASPECT = 1.45
"""Width by height of the panel of the environment."""

MOST_ROWS = 8
"""Up to this number of inputs or actions have a line each; more are shown as an image."""

LONG = 150
"""In episodes with more steps than this, dots for single steps are not connected: the lines would hide them."""

# Steps that are still to come are gray, a color that no value has.
_COLORS = LinearSegmentedColormap.from_list("diverging", DIVERGING).with_extremes(bad="#EDEDED")


def choose_steps(length: int, most: int) -> tuple[int, ...]:
    """Return at most `most` evenly spaced steps of an episode, including the last one."""
    stride = -(-length // most)
    return tuple(range((length - 1) % stride, length, stride))


def episode_frames(
    episode: Episode, steps: Sequence[int], *, title: str, choice: Choice, names: Names, note: str = ""
) -> list[Frame]:
    """Return one frame (544, 800, 3) for each of the `steps`.

    Top left: the environment's own picture if the episode has pictures of these steps, otherwise the hidden states up
    to the step. Top right: M as the step used it, or the hidden states if the network has no M; similar units are
    neighbors.
    Bottom: the inputs, what the outputs say about the actions, and the return up to the step. All scales are those of
    the whole episode. note: small text below the panels.
    """
    figure = new_figure(title, INCHES, DOTS_PER_INCH, note)
    rows = figure.add_gridspec(2, 1, height_ratios=[1.15, 1])
    above = rows[0].subgridspec(1, 2, width_ratios=[1.1, 1])
    below = rows[1].subgridspec(1, 3, width_ratios=[1.1, 1.1, 0.8])
    top = [figure.add_subplot(above[0, column]) for column in range(2)]
    bottom = [figure.add_subplot(below[0, column]) for column in range(3)]
    updates = [
        _picture(top[0], episode, steps) or _instead_of_picture(top[0], episode, names),
        _modulations(top[1], episode, names) or _hidden(top[1], episode),
        _inputs(bottom[0], episode, names),
        _choice(bottom[1], episode, choice),
        _return(bottom[2], episode),
        add_caption(figure, lambda step: caption(episode, step, names)),
    ]
    for axes in bottom:
        _mark_trials(axes, episode)
    return animate(figure, updates, steps)


def caption(episode: Episode, step: int, names: Names) -> str:
    """Return the step, its time, the trial and its period if there are trials, the action, and the reward for it."""
    time = "" if names.step_seconds is None else f" ({step * names.step_seconds:.2f} s)"
    parts = [f"step {step} of {len(episode) - 1}{time}"]
    info = episode.infos[step]
    if "trial" in info and "period" in info:
        parts.append(f"trial {int(info['trial']) + 1} of {int(episode.infos[-1]['trial']) + 1}: {info['period']}")
    parts += [f"action: {names.actions[episode.actions[step]]}", f"reward {episode.rewards[step]:.4g}"]
    return "  \N{MIDDLE DOT}  ".join(parts)


# ------------------------------------------------------------------------------------------------------------- panels


def _picture(axes: Axes, episode: Episode, steps: Sequence[int]) -> Update | None:
    if episode.frames is None or not set(steps) <= set(episode.frame_steps):
        return None
    place = {step: index for index, step in enumerate(episode.frame_steps)}
    frames = episode.frames[:, *content_window(episode.frames, PICTURE_ASPECT)]
    image = axes.imshow(frames[0], animated=True)
    axes.set_title("environment", fontsize=HEADING, loc="left")
    axes.set_axis_off()
    return lambda step: image.set_data(frames[place[step]])


def _instead_of_picture(axes: Axes, episode: Episode, names: Names) -> Update:
    if episode.matrices is None:
        # The hidden states are shown in place of M.
        return _history(axes, episode.observations, "observation", names.observations)
    return _hidden(axes, episode)


def _modulations(axes: Axes, episode: Episode, names: Names) -> Update | None:
    if episode.matrices is None:
        return None
    matrices = episode.matrices[:, unit_order(episode)]
    image = _image(axes, matrices[0], full_scale([matrices]))
    axes.set_title("modulations M before the step", fontsize=HEADING, loc="left")
    style_image(axes, "input", "hidden unit (sorted)")
    if not episode.projected and len(names.observations) == matrices.shape[2] <= MOST_ROWS:
        axes.set_xlabel("")
        axes.set_xticks(range(matrices.shape[2]), [textwrap.fill(name, 9) for name in names.observations])
        axes.tick_params(axis="x", labelsize=SMALL if matrices.shape[2] <= 5 else SMALL - 1)
    elif episode.projected:
        axes.set_xlabel("projected input", fontsize=LABEL)
    add_color_bar(axes, image, "M (no unit)", extend="both")
    return lambda step: image.set_data(matrices[step])


def _hidden(axes: Axes, episode: Episode) -> Update:
    return _history(axes, episode.hidden[:, unit_order(episode)], "hidden state h", rows="hidden unit (sorted)")


def _inputs(axes: Axes, episode: Episode, names: Names) -> Update:
    if episode.observations.shape[1] > MOST_ROWS:
        return _history(axes, episode.observations, "input", names.observations)
    labels = [names.observation(index) for index in range(episode.observations.shape[1])]
    return _traces(axes, episode.observations, labels)


def _traces(axes: Axes, values: NDArray[np.float32], labels: Sequence[str]) -> Update:
    """Show values (T, k) up to the present step as k lines above each other, each on a scale of its own."""
    length, count = values.shape
    times = np.arange(length)
    low, high = values.min(axis=0).clip(max=0), values.max(axis=0).clip(min=0)
    room = np.where(high > low, high - low, 1.0)
    bottoms = count - 1 - np.arange(count) + 0.12
    heights = bottoms + 0.76 * (values - low) / room
    for zero in bottoms - 0.76 * low / room:
        axes.axhline(zero, color=GRID, linewidth=0.8)
    lines = [axes.plot([], [], color=INK, linewidth=0.9, drawstyle="steps-mid", animated=True)[0] for _ in range(count)]
    axes.set_ylim(0, count)
    axes.set_yticks(bottoms + 0.38, [textwrap.fill(label, 14 if count <= 4 else 24) for label in labels])
    _limit_steps(axes, length)
    axes.set_xlabel("step", fontsize=LABEL)
    axes.tick_params(labelsize=SMALL)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("inputs, each on its own scale", fontsize=HEADING, loc="left")

    def update(step: int) -> None:
        for line, trace in zip(lines, heights.T, strict=True):
            line.set_data(times[: step + 1], trace[: step + 1])

    return update


def _history(
    axes: Axes, values: NDArray[np.floating[Any]], name: str, labels: Sequence[str] = (), rows: str = "input"
) -> Update:
    """Show values (T, k) up to the present step as an image with one row for each of the k."""
    shown = np.full(values.T.shape, np.nan)
    image = _image(axes, shown, full_scale([values]))
    axes.set_title(f"{name} up to now", fontsize=HEADING, loc="left")
    style_image(axes, "step", rows)
    if labels and len(labels) <= MOST_ROWS:
        axes.set_yticks(range(len(labels)), [textwrap.fill(label, 14) for label in labels])
        axes.set_ylabel("")
    add_color_bar(axes, image, extend="both")

    def update(step: int) -> None:
        shown[:, : step + 1] = values[: step + 1].T
        shown[:, step + 1 :] = np.nan
        image.set_data(shown)

    return update


def _image(axes: Axes, values: NDArray[Any], limit: float) -> AxesImage:
    return axes.imshow(
        values, cmap=_COLORS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", animated=True
    )


def _choice(axes: Axes, episode: Episode, choice: Choice) -> Update:
    if choice.values.shape[1] > MOST_ROWS:
        return _history(axes, choice.values, choice.label, choice.names, rows="action")
    return _two_actions(axes, episode, choice) if choice.sides else _several_actions(axes, episode, choice)


def _two_actions(axes: Axes, episode: Episode, choice: Choice) -> Update:
    """Show one value, above `choice.middle` for the second action and below it for the first one."""
    values, times = choice.values[:, 0], np.arange(len(episode))
    axes.axhline(choice.middle, color=GRAY, linewidth=0.8)
    (line,) = axes.plot([], [], color=GRAY, linewidth=0.8, animated=True)
    dots = [
        axes.plot([], [], "o", color=color, markersize=2 if len(episode) > LONG else 3, animated=True)[0]
        for color in PALETTE[:2]
    ]
    (present,) = axes.plot([], [], "o", color=INK, markersize=7, markerfacecolor="none", animated=True)
    _style_steps(axes, choice.values, choice.label, choice.limits)
    _name_actions(axes, choice.names, marker="o", markersize=4, linewidth=0)

    def update(step: int) -> None:
        for action, dot in enumerate(dots):
            taken = np.flatnonzero(episode.actions[: step + 1] == action)
            dot.set_data(times[taken], values[taken])
        if len(episode) <= LONG:
            line.set_data(times[: step + 1], values[: step + 1])
        present.set_data([step], [values[step]])

    return update


def _several_actions(axes: Axes, episode: Episode, choice: Choice) -> Update:
    times = np.arange(len(episode))
    colors = discrete_colors(choice.values.shape[1])
    lines = [
        axes.plot([], [], color=color, linewidth=1.4, linestyle=_line_style(index, len(colors)), animated=True)[0]
        for index, color in enumerate(colors)
    ]
    (chosen,) = axes.plot([], [], "o", color=INK, markersize=7, markerfacecolor="none", animated=True)
    _style_steps(axes, choice.values, choice.label, choice.limits)
    _name_actions(axes, choice.names, linewidth=1.4)

    def update(step: int) -> None:
        for line, values in zip(lines, choice.values.T, strict=True):
            line.set_data(times[: step + 1], values[: step + 1])
        chosen.set_data([step], [choice.values[step, episode.actions[step]]])

    return update


def _line_style(index: int, count: int) -> str | tuple[float, tuple[float, float]]:
    """Return solid for the first line and shorter dashes for each later one, so that lines below show in the gaps."""
    return (0, (2 * (count - index), 1.2 * index)) if index else "solid"


def _name_actions(axes: Axes, names: Sequence[str], **style: Any) -> None:
    """Name the colors of the actions above the axes."""
    handles = [Line2D([], [], color=color, **style) for color in discrete_colors(len(names))]
    columns = len(names) if sum(map(len, names)) < 34 else 2
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, frameon=False,
        fontsize=SMALL, handlelength=1.0, columnspacing=1.0, handletextpad=0.4, borderpad=0.2,
    )  # fmt: skip


def _return(axes: Axes, episode: Episode) -> Update:
    returns = np.cumsum(episode.rewards)
    update = growing_curve(axes, np.arange(len(episode)), returns, color=PALETTE[2], drawstyle="steps-post")
    counts_trials = "correct" in episode.infos[0] and set(np.unique(episode.rewards)) <= {0, 1}
    _style_steps(axes, returns, "correct trials so far" if counts_trials else "return so far")
    return update


def _mark_trials(axes: Axes, episode: Episode) -> None:
    """Draw a thin line where a trial begins."""
    trials = [info.get("trial") for info in episode.infos]
    for step in range(1, len(trials)):
        if trials[step] != trials[step - 1]:
            axes.axvline(step - 0.5, color=SOFT_INK, linewidth=0.5, linestyle=(0, (1, 3)))


# -------------------------------------------------------------------------------------------------------------- style


def _limit_steps(axes: Axes, length: int) -> None:
    aside = 0.02 * length if length > 1 else 0.5
    axes.set_xlim(-aside, length - 1 + aside)
    whole_numbers(axes.xaxis, 5)


def _style_steps(
    axes: Axes, values: NDArray[np.floating[Any]], name: str, limits: tuple[float, float] | None = None
) -> None:
    """Give axes the limits, labels and ticks of values (T, ...) at each step of an episode."""
    low, high = limits or (float(values.min()), float(values.max()))
    margin = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    style_curves(axes, "step", name)
    _limit_steps(axes, len(values))
    _full_numbers(axes.yaxis)


def _full_numbers(axis: Axis) -> None:
    """Show the values themselves at the ticks, not their differences from a common offset."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.axes.ticklabel_format(axis="y", useOffset=False)
