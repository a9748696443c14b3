"""Pictures of weights: what units respond to, as images on one color scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from plastic_cli.figures.film import DIVERGING_MAP, HEADING, Frame, add_color_bar, full_scale, new_figure
from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import DPI

_HEIGHT = 5.6
"""Inches of the whole picture."""


def wide_columns(units: int, image_shape: Sequence[int], aspect: float) -> int:
    """Return the number of columns with which the images of `units` fill a panel of this width by height best.

    Of similar numbers, the one that leaves the fewest empty places is returned.
    """
    height, width = image_shape[-2:]
    best = math.sqrt(units * aspect * height / width)
    able = [columns for columns in range(1, units + 1) if 0.75 * best <= columns <= 1.3 * best] or [round(best) or 1]
    return min(able, key=lambda columns: (-units % columns, abs(columns - best)))


def weights_picture(
    weights: Mapping[str, Tensor], image_shape: tuple[int, int, int], title: str, note: str = ""
) -> Frame:
    """Return a picture of weights (units, inputs), one panel for each name, all on one color scale.

    image_shape: (channels, height, width) of the inputs of a unit. One channel has a color bar; three channels are red,
    green and blue around medium gray. note: small text at the bottom.
    """
    limit = full_scale(list(weights.values()))
    figure = new_figure(title, (1.2 + 4.9 * len(weights), _HEIGHT), DPI, note)
    panels = np.atleast_1d(figure.subplots(1, len(weights)))
    for panel, (name, matrix) in zip(panels, weights.items(), strict=True):
        columns = wide_columns(len(matrix), image_shape, 1.0)
        panel.imshow(image_grid(matrix, image_shape, columns, limit=limit), interpolation="nearest")
        panel.set_title(name, fontsize=HEADING, loc="left")
        panel.set_axis_off()
    if image_shape[0] == 1:
        add_color_bar(panels[-1], ScalarMappable(Normalize(-limit, limit), DIVERGING_MAP), "weight")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
