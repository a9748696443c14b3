"""Labelled images as they are stored, before any normalisation, and what must hold of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.errors import UserError


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


def damaged(path: Path, what: str) -> UserError:
    """Return the error for a file that does not hold what it should."""
    return UserError(
        f"{path} is damaged: {what}. Replace it with a good copy; "
        "a set that plastic downloads comes again once the file is deleted."
    )


def check_labels(labels: NDArray[Any], images: int, path: Path, classes: int | None = None) -> NDArray[np.int64]:
    """Return `labels` as int64 after checking them; `path` is the file to blame.

    Raises UserError unless there is one whole number per image, from 0 to `classes` - 1 where `classes` is given.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise damaged(path, f"labels must be whole numbers, one per image, not {labels.dtype} of shape {labels.shape}")
    if len(labels) != images:
        raise damaged(path, f"it holds {len(labels):,} labels for {images:,} images")
    if images == 0:
        raise damaged(path, "it holds no labels")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (classes is not None and highest >= classes):
        wrong = lowest if lowest < 0 else highest
        allowed = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise damaged(path, f"it holds the label {wrong}, where labels are {allowed}")
    return labels.astype(np.int64)


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
