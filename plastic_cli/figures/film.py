"""Films of a run: one figure, whose moving parts are drawn again for each frame.

A film is built from `new_figure`, panels on its axes, and `animate`. Each panel returns an Update, which sets the
panel's moving artists to one step. Moving artists are created with `animated=True`; all other artists are drawn once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import DIVERGING, PAPER, SOFT_INK

Frame = NDArray[np.uint8]
"""One picture (height, width, 3), red, green and blue."""

Update = Callable[[int], None]
"""Sets the moving artists of a panel to one step."""

INCHES, DOTS_PER_INCH = (12.0, 4.4), 80
"""Default size: 960 x 352 pixels. Video encoders need multiples of 16."""

SHORTEST, LONGEST, FILM = 0.06, 0.5, 8.0
"""Seconds: limits of the time that a frame is shown, and the length of a film that they allow."""

PAUSE = 0.5
"""Seconds for which a film shows its last frame, at the beginning and at the end."""

FULL_SCALE = 0.998
"""Colors end at this quantile of the absolute values, so that a few large values do not make all others pale."""

SMALL, LABEL, HEADING = 8, 9, 10.5
"""Font sizes in points: numbers at ticks, labels of axes, titles of panels."""

DIVERGING_MAP = LinearSegmentedColormap.from_list("diverging", DIVERGING)
"""Blue for negative, white for 0, vermilion for positive."""

_MARGIN, _CAPTION_TOP, _PANELS_TOP = 0.1, 0.4, 0.56
"""Inches from the edges to the title, and from the top to the caption and to the panels."""

_NOTE_LINE = 0.15
"""Inches that a line of the note needs."""


def new_figure(
    title: str, inches: tuple[float, float] = INCHES, dots_per_inch: int = DOTS_PER_INCH, note: str = ""
) -> Figure:
    """Return an empty figure with a title at the top left and room for a caption below the title.

    note: small text at the bottom left, which says what all frames have in common.
    """
    width, height = inches
    below = (0.5 * _MARGIN + _NOTE_LINE * len(note.splitlines())) / height if note else 0.0
    layout = ConstrainedLayoutEngine(
        w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03, rect=(0, below, 1, 1 - _PANELS_TOP / height - below)
    )
    figure = Figure(figsize=inches, dpi=dots_per_inch, layout=layout, facecolor=PAPER)
    figure.text(_MARGIN / width, 1 - _MARGIN / height, title, ha="left", va="top", fontsize=12, weight="bold")
    if note:
        figure.text(
            _MARGIN / width, 0.5 * _MARGIN / height, note, ha="left", va="bottom", fontsize=SMALL, color=SOFT_INK
        )
    return figure


def animate(figure: Figure, updates: Sequence[Update], steps: Sequence[int]) -> list[Frame]:
    """Draw one frame for each of the `steps`. A frame depends on its step only, and panels keep their places."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")
    background = canvas.copy_from_bbox(figure.bbox)
    moving = sorted(
        (artist for artist in figure.findobj() if artist.get_animated()), key=lambda part: part.get_zorder()
    )
    renderer = canvas.get_renderer()
    frames = []
    for step in steps:
        for update in updates:
            update(step)
        canvas.restore_region(background)
        for artist in moving:
            artist.draw(renderer)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames


def pace(frames: int) -> float:
    """Return the seconds per frame, in hundredths, so that a film of that many frames takes about `FILM` seconds.

    A frame is shown for `SHORTEST` to `LONGEST` seconds: a short film is slow, and a long one takes longer.
    """
    return round(min(max(FILM / max(frames, 1), SHORTEST), LONGEST), 2)


def as_loop(frames: Sequence[Frame], seconds_per_frame: float) -> list[Frame]:
    """Return the frames of a film that repeats: its last frame for `PAUSE` seconds, all frames, the last one again.

    The first frame is what programs show before the film is started. The last one shows most.
    """
    pause = [frames[-1]] * max(1, round(PAUSE / seconds_per_frame))
    return [*pause, *frames, *pause]


def full_scale(arrays: Sequence[ArrayLike]) -> float:
    """Return the magnitude, above 0, at which the colors of several arrays end: their largest 99.8% quantile."""
    magnitudes = [np.abs(np.asarray(array)) for array in arrays]
    quantile = max(float(np.quantile(values, FULL_SCALE)) for values in magnitudes)
    return quantile or max(float(values.max()) for values in magnitudes) or 1.0


# ------------------------------------------------------------------------------------------------------------- panels


def add_caption(figure: Figure, text: Callable[[int], str]) -> Update:
    """Show `text` of the step below the figure's title."""
    width, height = figure.get_size_inches()
    artist = figure.text(
        _MARGIN / width, 1 - _CAPTION_TOP / height, "", ha="left", va="top", fontsize=10, animated=True
    )
    return lambda step: artist.set_text(text(step))


def show_weights(
    axes: Axes,
    weights: Mapping[int, Tensor],
    image_shape: tuple[int, int, int] | None,
    title: str,
    columns: int | None = None,
) -> Update:
    """Show the weights (units, inputs) of a step as images of `image_shape`, or as a matrix if that is None.

    weights: by step. All steps share one color scale, whose end the title names. columns: number of images in a row; by
    default about as many as rows.
    """
    limit = full_scale(list(weights.values()))
    first = next(iter(weights.values())).numpy()
    axes.set_title(f"{title} (±{limit:.2g})", fontsize=HEADING, loc="left")
    if image_shape is None:
        image = axes.imshow(
            first, cmap=DIVERGING_MAP, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", animated=True
        )
        style_image(axes, "input", "hidden unit")
        return lambda step: image.set_data(weights[step].numpy())
    image = axes.imshow(image_grid(first, image_shape, columns, limit=limit), interpolation="nearest", animated=True)
    axes.set_axis_off()
    return lambda step: image.set_data(image_grid(weights[step], image_shape, columns, limit=limit))


def growing_curve(axes: Axes, x: ArrayLike, y: ArrayLike, **style: Any) -> Update:
    """Draw a curve up to the step, x <= step, with a dot at its end. x, y (n,). style: as for `Axes.plot`."""
    times, values = np.asarray(x), np.asarray(y)
    (line,) = axes.plot([], [], animated=True, **{"linewidth": 1.8, **style})
    (end,) = axes.plot([], [], "o", color=line.get_color(), markersize=5, animated=True)

    def update(step: int) -> None:
        shown = times <= step
        line.set_data(times[shown], values[shown])
        end.set_data(times[shown][-1:], values[shown][-1:])

    return update


# -------------------------------------------------------------------------------------------------------------- style


def style_curves(axes: Axes, x_label: str, y_label: str) -> None:
    """Give axes with curves their labels, a grid, and no frame at the top and the right."""
    _label(axes, x_label, y_label)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def style_image(axes: Axes, x_label: str, y_label: str) -> None:
    """Give axes with the image of a matrix their labels and whole numbers at the ticks."""
    _label(axes, x_label, y_label)
    whole_numbers(axes.xaxis)
    whole_numbers(axes.yaxis)
    # The image is drawn over the frame, which is therefore drawn again.
    for spine in axes.spines.values():
        spine.set_animated(True)


def whole_numbers(axis: Axis, most: int = 6) -> None:
    """Put whole numbers at the ticks of an axis, in about `most` steps."""
    axis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def legend_above(axes: Axes, columns: int = 4) -> None:
    """Put a legend above the right end of axes, where it covers no curve."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, frameon=False, fontsize=LABEL, borderaxespad=0.1
    )


def in_percent(axis: Axis) -> None:
    """Show the numbers of an axis of shares in percent: 0.5 as "50%"."""
    axis.set_major_formatter(PercentFormatter(1.0))


def add_color_bar(axes: Axes, scale: ScalarMappable, label: str = "", **options: Any) -> Colorbar:
    """Add a color bar to the right of `axes`. options: as for `Figure.colorbar`."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.02, **options)
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=SMALL)
    return bar


def _label(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=LABEL)
    axes.set_ylabel(y_label, fontsize=LABEL)
    axes.tick_params(labelsize=SMALL)
