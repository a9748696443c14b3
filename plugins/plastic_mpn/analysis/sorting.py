"""The order in which hidden units are shown, so that units of similar activity are neighbors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_mpn.analysis.recording import Episode

MOST_COLUMNS = 2000
"""Maximum number of columns from which the component is computed."""


def unit_order(episode: Episode) -> NDArray[np.int64]:
    """Return the order of the hidden units (n,) by their M over the episode, or by h if the network has no M."""
    states = episode.hidden if episode.matrices is None else episode.matrices
    return component_order(np.moveaxis(states, 1, 0).reshape(states.shape[1], -1))


def component_order(rows: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the order of rows (n, k) by their weight in the first principal component of the columns, from + to -.

    The columns are not centered: M and h are relative to 0. The sign of the component is that with which its largest
    weight is positive.
    """
    columns = np.unique(np.linspace(0, rows.shape[1] - 1, MOST_COLUMNS).astype(int))
    weights = np.linalg.svd(rows[:, columns].astype(np.float64), full_matrices=False)[0][:, 0]
    sign = np.sign(weights[np.abs(weights).argmax()])
    return np.argsort(-sign * weights, kind="stable")
