"""The windows of positions over which the maps of a convolution are averaged for its local classifier."""

from __future__ import annotations

import math

CLASSIFIER_INPUTS = 4096
"""Inputs of the local classifier of a convolution, at most; larger maps are averaged over windows of positions."""


def windows(channels: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width to which maps are averaged, for CLASSIFIER_INPUTS inputs of a local classifier at most.

    Height and width are halved in turn, as in the published program of local losses.
    """
    rows, columns = height, width
    while channels * rows * columns > CLASSIFIER_INPUTS and rows > 1:
        rows = math.ceil(rows / 2)
        if channels * rows * columns > CLASSIFIER_INPUTS:
            columns = math.ceil(columns / 2)
    return rows, columns
