"""Labeled images as they are stored, before normalization: checks, checksum and stratified split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import damaged

# Any number works. It must never change, because published results depend on the split.
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """One split. x: (n, channels, height, width), uint8 or float. y: (n,) int64."""

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """A data set as read from its files.

    white: the stored value of a pixel of 1. mean, std: of the pixels in [0, 1]; None if they are still to be computed
    from the training split. note: what a reader of results must know about the data, may be empty.
    """

    name: str
    train: LabeledImages
    test: LabeledImages
    white: float
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    note: str


def check_labels(labels: NDArray[Any], images: int, path: Path, classes: int, first: int = 0) -> NDArray[np.int64]:
    """Return the labels of a known set as int64, from 0; `path` is the file to name in errors.

    Raises UserError unless there is one whole number per image, from `first` to `first + classes - 1`.
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
        raise damaged(path, f"it holds the label {wrong}, but labels are {first} to {last}")
    return labels.astype(np.int64) - first


def checksum(splits: Iterable[LabeledImages]) -> str:
    """Return the SHA-256, in hexadecimal, over type, shape and bytes of every array, in order.

    It is computed from the arrays, not the files: a data set has the same checksum compressed and uncompressed.
    """
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.x, split.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def stratified_split(labels: NDArray[np.int64], held_out: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (kept, held out): sorted indices. Every class is held out in proportion to its size.

    The split is the same on every machine and does not depend on the seed of a run. Raises ValueError if `held_out` is
    below the number of classes or leaves fewer images than classes, or if a class has a single image.
    """
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=_SPLIT_SEED, stratify=labels)
    return np.sort(kept), np.sort(held)
