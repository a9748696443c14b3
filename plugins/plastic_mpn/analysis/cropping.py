"""The part of an environment's pictures in which something is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.12
"""Margin around the content, as a share of its size."""

SMALLEST = 0.4
"""Smallest width and height of the part, as a share of those of the picture."""


def content_window(frames: NDArray[np.uint8], aspect: float) -> tuple[slice, slice]:
    """Return the rows and columns of pictures (steps, height, width, 3) that hold all content.

    Content is what differs from the rest of its row, for columns, or of its column, for rows: a line across the whole
    picture, such as the track of a cart, does not make the part as wide as the picture. What moves is content as well.
    aspect: width by height of the space in which the pictures are shown; the part fills it if the pictures allow.
    """
    first = frames[0].astype(np.int16)
    moving: NDArray[np.bool_] = np.zeros(frames.shape[1:3], np.bool_)
    for frame in frames[1:]:
        moving |= (frame != frames[0]).any(axis=-1)
    by_row = (first != np.median(first, axis=1, keepdims=True)).any(axis=-1) | moving
    by_column = (first != np.median(first, axis=0, keepdims=True)).any(axis=-1) | moving
    height, width = frames.shape[1:3]
    top, bottom = _extent(by_column.any(axis=1))
    left, right = _extent(by_row.any(axis=0))
    tall, wide = max(bottom - top, SMALLEST * height), max(right - left, SMALLEST * width)
    wide, tall = max(wide, tall * aspect), max(tall, wide / aspect)
    return _around(top, bottom, tall, height), _around(left, right, wide, width)


def _extent(used: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the first and the last place that is used, with a margin; everything if none is."""
    places = np.flatnonzero(used)
    if not len(places):
        return 0.0, float(len(used))
    margin = MARGIN * (places[-1] + 1 - places[0])
    return float(places[0] - margin), float(places[-1] + 1 + margin)


def _around(low: float, high: float, size: float, limit: int) -> slice:
    """Return a range of `size` around the center of low to high, inside 0 to limit."""
    size = min(size, limit)
    start = min(max((low + high - size) / 2, 0), limit - size)
    return slice(round(start), round(start + size))
