"""Splits that are the same on every machine and in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Any number would do; it must never change, or published figures would be about other images.
_SPLIT_SEED = 0


def stratified_split(labels: NDArray[np.int64], held_out: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (kept, held out): indices, each in rising order, with every class held out in proportion to its size.

    Independent of the seed of any run. Raises ValueError where `held_out` is below the number of classes, leaves fewer
    images than classes, or a class has a single image.
    """
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=_SPLIT_SEED, stratify=labels)
    return np.sort(kept), np.sort(held)
