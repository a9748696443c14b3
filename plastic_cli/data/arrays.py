"""Labelled images as they are stored, before any normalisation, and what must hold of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import damaged


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """One split. x: (n, channels, height, width), uint8 or float. y: (n,) int64."""

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """A data set as read from its files.

    white: the stored value that stands for a pixel of 1. mean, std: of the pixels in [0, 1], None where they are yet to
    be taken from the training split.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    white: float
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    note: str


def check_labels(labels: NDArray[Any], images: int, path: Path, classes: int, first: int = 0) -> NDArray[np.int64]:
    """Return the labels of a known set as int64, from 0, after checking them; `path` is the file to blame.

    Raises UserError unless there is one whole number per image, from `first` on, of `classes` of them.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise damaged(path, f"labels must be whole numbers, one per image, not {labels.dtype} of shape {labels.shape}")
    if len(labels) != images:
        raise damaged(path, f"it holds {len(labels):,} labels for {images:,} images")
    if images == 0:
        raise damaged(path, "it holds no labels")
    lowest, highest = int(labels.min()), int(labels.max())
    last = first + classes - 1
    if lowest < first or highest > last:
        wrong = lowest if lowest < first else highest
        raise damaged(path, f"it holds the label {wrong}, where labels are {first} to {last}")
    return labels.astype(np.int64) - first


def checksum(splits: Iterable[LabelledImages]) -> str:
    """Return the SHA-256, in hexadecimal, over type, shape and bytes of every array, in order.

    It is taken of the arrays, not the files, so that a set has the same checksum packed or unpacked.
    """
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.x, split.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
