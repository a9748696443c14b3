"""Labels as users store them (whole numbers, floats, text, one-hot), read as class numbers from 0."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import shown, shown_names
from plastic_cli.errors import UserError

_LARGEST = 2**53
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}(\.0*)?")


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """The labels of one split.

    y: (n,) int64. names: of the classes, in order; empty unless labels are text. columns: of one-hot labels, else 0.
    """

    y: NDArray[np.int64]
    names: tuple[str, ...]
    columns: int


def read_labels(labels: NDArray[Any], images: int, path: Path) -> StoredLabels:
    """Return the labels of `images` images; `path` is the file to name in errors.

    Whole numbers, also as floats, as text or in a column, text and one-hot labels are read. Raises UserError, which
    says what to write, for anything else.
    """
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.reshape(-1)
    columns = 0
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        columns = labels.shape[0] if labels.shape[1] == images != labels.shape[0] else labels.shape[1]
        labels = _from_one_hot(labels, images, path)
    if labels.ndim != 1:
        raise UserError(f"{path}: labels have the shape {labels.shape}. Store one label for each image.")
    if len(labels) != images:
        raise UserError(
            f"{path}: it holds {len(labels):,} labels for {images:,} images. Store one label for each image."
        )
    if images == 0:
        raise UserError(f"{path}: it holds no labels.")
    kind = labels.dtype.kind
    if kind in "SU":
        return _from_text(labels, path)
    if kind == "f":
        labels = _from_floats(labels, path)
    elif kind not in "biu":
        raise UserError(f"{path}: labels are {labels.dtype}. Store whole numbers from 0, or the names of classes.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        what = "write (y > 0)" if set(np.unique(labels).tolist()) == {-1, 1} else "number the classes from 0 on"
        raise UserError(f"{path}: it holds the label {lowest}: {what}.")
    if highest > _LARGEST:
        raise UserError(f"{path}: it holds the label {highest}: number the classes from 0 on.")
    return StoredLabels(labels.astype(np.int64), (), columns)


def number_classes(
    train: StoredLabels, test: StoredLabels, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...], list[str]]:
    """Return the labels of both splits as class numbers, the names of the classes, and notes.

    Names are sorted. Numbers stay as stored, so that sets that lack different classes agree. Raises UserError if one
    split has text and the other numbers, if the numbers do not fit the number of images, or for a single class.
    """
    if bool(train.names) != bool(test.names):
        text, numbers = ("training", "test") if train.names else ("test", "training")
        raise UserError(f"{path}: {text} labels are text and {numbers} labels are numbers. Store both the same way.")
    if train.names:
        names = sorted({*train.names, *test.names})
        number = {name: place for place, name in enumerate(names)}
        train_y, test_y = (np.array([number[name] for name in each.names])[each.y] for each in (train, test))
        class_names = tuple(shown(name) for name in names)
    else:
        train_y, test_y = train.y, test.y
        classes = max(int(train_y.max()) + 1, int(test_y.max()) + 1, train.columns, test.columns)
        if classes > len(train_y):
            raise UserError(
                f"{path}: the highest label is {classes - 1:,}, but there are {len(train_y):,} training images. "
                "Number the classes from 0 on."
            )
        class_names = tuple(str(number) for number in range(classes))
    if len(class_names) < 2:
        raise UserError(f"{path}: all labels are {class_names[0]}. A data set needs at least two classes.")
    notes = [f"classes in order: {shown_names(list(class_names))}"] if train.names else []
    for split, y in (("training", train_y), ("test", test_y)):
        there = np.unique(y)
        if absent := len(class_names) - len(there):
            which = "" if train.names else f" 0 to {len(class_names) - 1}"
            notes.append(f"{absent} of the classes{which} have no {split} image")
            if split == "training" and not train.names and absent == there[0]:
                notes.append(f"labels start at {there[0]}: store y - {there[0]} if classes should start at 0")
    return train_y, test_y, class_names, notes


def _from_one_hot(labels: NDArray[Any], images: int, path: Path) -> NDArray[Any]:
    rows = labels.T if labels.shape[1] == images != labels.shape[0] else labels
    if len(rows) != images:
        raise UserError(
            f"{path}: labels have the shape {labels.shape} for {images:,} images. Store one for each image."
        )
    if ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all():
        return np.asarray(rows.argmax(axis=1))
    raise UserError(
        f"{path}: labels have the shape {labels.shape} and are not one-hot. "
        "Store one class number for each image, such as y.argmax(1)."
    )


def _from_floats(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    if not np.isfinite(labels).all():
        raise UserError(f"{path}: some labels are not finite numbers (NaN or infinity). Remove these images.")
    if (labels != np.round(labels)).any() or np.abs(labels).max() > _LARGEST:
        wrong = labels[(labels != np.round(labels)) | (np.abs(labels) > _LARGEST)][0]
        raise UserError(f"{path}: it holds the label {wrong:g}. Store whole numbers from 0, or the names of classes.")
    return labels.astype(np.int64)


def _from_text(labels: NDArray[Any], path: Path) -> StoredLabels:
    distinct, y = np.unique(labels, return_inverse=True)
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in distinct.tolist()]
    except UnicodeDecodeError:
        raise UserError(f"{path}: some labels are bytes that are not UTF-8. Store them as text.") from None
    names = [name.strip() for name in names]
    if "" in names:
        raise UserError(f"{path}: some labels are empty. Give the class of each image.")
    if all(_WHOLE.fullmatch(name) for name in names):
        numbers = np.array([int(name.partition(".")[0]) for name in names], np.int64)
        return read_labels(numbers[y], len(labels), path)
    merged = sorted(set(names))
    place = {name: number for number, name in enumerate(merged)}
    return StoredLabels(np.array([place[name] for name in names], np.int64)[y], tuple(merged), 0)
