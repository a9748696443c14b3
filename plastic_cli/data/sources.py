"""From files to arrays: the sets of the catalogue, and a person's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.arrays import LabelledImages, StoredDataset, check_labels, damaged
from plastic_cli.data.catalogue import DATASETS, DatasetInfo
from plastic_cli.data.cifar import read_cifar_batch
from plastic_cli.data.folders import stored_file
from plastic_cli.data.idx import read_idx
from plastic_cli.data.npz import read_npz
from plastic_cli.data.splits import stratified_split
from plastic_cli.errors import UserError

_OWN_FILES = (
    "train.npz and test.npz with arrays x and y, one .npz with x_train, y_train, x_test and y_test, or "
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (or .gz)"
)


def read_known_set(info: DatasetInfo, folder: Path) -> StoredDataset:
    """Read a set of the catalogue, all of whose files are under the data folder `folder`.

    Raises UserError, naming the file, where one is damaged.
    """
    if info.name == "digits":
        train, test = _read_digits()
    elif info.name == "cifar10":
        batches = [read_cifar_batch(folder / info.folder / name, info.classes) for name in info.files]
        train, test = _joined(batches[:-1]), batches[-1]
    else:
        paths = [stored_file(folder / info.folder, name) or folder / info.folder / name for name in info.files]
        train, test = (_read_known_idx(info, *pair) for pair in (paths[:2], paths[2:]))
    return StoredDataset(
        name=info.name,
        train=train,
        test=test,
        white=16.0 if info.name == "digits" else 255.0,
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        note=_joined_notes(info.note, other_counts(info, len(train.y), len(test.y))),
    )


def other_counts(info: DatasetInfo, train_images: int, test_images: int) -> str:
    """Return the note on a set whose numbers of images are not those of the official one, else an empty string."""
    if (train_images, test_images) == (info.train_images, info.test_images):
        return ""
    official = "the official Balanced split" if info.name == "emnist" else "the official set"
    return (
        f"not {official}: {train_images:,} training and {test_images:,} test images here, "
        f"{info.train_images:,} and {info.test_images:,} there"
    )


def read_own_set(path: Path) -> StoredDataset:
    """Read a person's own set: a folder of IDX or .npz files, or one .npz file.

    Images may be (n, height, width), (n, channels, height, width), (n, height, width, channels) or flat; uint8 (divided
    by 255) or float (taken as they are). Raises UserError, naming the file, where something does not fit.
    """
    notes: list[str] = []
    splits = []
    for x, y, x_file, y_file in _read_own_arrays(path):
        images, note = _as_images(x, x_file)
        splits.append(LabelledImages(images, check_labels(y, len(images), y_file)))
        notes += [note] if note not in notes else []
    train, test = splits
    if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype:
        raise UserError(
            f"{path}: training images are {train.x.dtype} of shape {train.x.shape[1:]} and test images "
            f"{test.x.dtype} of shape {test.x.shape[1:]}. Store both alike."
        )
    classes = int(max(train.y.max(), test.y.max())) + 1
    if classes > len(train.y):
        raise UserError(
            f"{path}: the highest label is {classes - 1:,}, of {len(train.y):,} training images. Number the "
            "classes from 0 on."
        )
    if absent := classes - len(np.unique(train.y)):
        notes.append(f"{absent} of the classes 0 to {classes - 1} have no training image")
    name = path.resolve().name
    return StoredDataset(
        # A folder that happens to be called mnist must not pass for MNIST in a report.
        name=str(path.resolve()) if name in DATASETS else name,
        train=train,
        test=test,
        white=255.0 if train.x.dtype == np.uint8 else 1.0,
        class_names=tuple(str(number) for number in range(classes)),
        mean=None,
        std=None,
        note=_joined_notes(*notes),
    )


def _read_digits() -> tuple[LabelledImages, LabelledImages]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
    kept, held = stratified_split(y, DATASETS["digits"].test_images)
    return LabelledImages(x[kept], y[kept]), LabelledImages(x[held], y[held])


def _read_known_idx(info: DatasetInfo, x_file: Path, y_file: Path) -> LabelledImages:
    x = read_idx(x_file)
    if x.dtype != np.uint8 or x.shape[1:] != info.image_shape[1:]:
        raise damaged(x_file, f"it holds {x.dtype} of shape {x.shape}, not uint8 images of {info.image_shape[1:]}")
    if info.name == "emnist":
        # The official files hold every image with rows and columns exchanged.
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
    return LabelledImages(x[:, None], check_labels(read_idx(y_file), len(x), y_file, info.classes))


def _joined(batches: list[LabelledImages]) -> LabelledImages:
    return LabelledImages(
        np.concatenate([batch.x for batch in batches]), np.concatenate([batch.y for batch in batches])
    )


def _read_own_arrays(path: Path) -> list[tuple[NDArray[Any], NDArray[Any], Path, Path]]:
    """Return images, labels and the files that they come from, for training and test."""
    if path.is_file():
        return _read_one_npz(path)
    pair = [path / "train.npz", path / "test.npz"]
    if all(file.is_file() for file in pair):
        return [(x, y, file, file) for file in pair for x, y in [read_npz(file, ("x", "y"))]]
    for folder in (path, path / "raw"):
        files = [stored_file(folder, name) for name in DATASETS["mnist"].files]
        found = [file for file in files if file is not None]
        if len(found) == len(files):
            train_x, train_y, test_x, test_y = found
            return [(read_idx(x), read_idx(y), x, y) for x, y in ((train_x, train_y), (test_x, test_y))]
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return _read_one_npz(archives[0])
    raise UserError(f"{path} holds no data set. Put there {_OWN_FILES}.")


def _read_one_npz(path: Path) -> list[tuple[NDArray[Any], NDArray[Any], Path, Path]]:
    train_x, train_y, test_x, test_y = read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
    return [(train_x, train_y, path, path), (test_x, test_y, path, path)]


def _as_images(x: NDArray[Any], path: Path) -> tuple[NDArray[Any], str]:
    """Return x as (n, channels, height, width), uint8 or float32, and a note on how it was taken."""
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise damaged(path, "some pixels are not finite numbers")
    elif x.dtype != np.uint8:
        raise UserError(f"{path}: images are {x.dtype}. Store them as uint8 (0 to 255) or as float.")
    if x.size == 0:
        raise damaged(path, f"it holds no images (shape {x.shape})")
    if x.ndim == 2:
        features = x.shape[1]
        side = round(features**0.5)
        height, width = (side, side) if side * side == features else (1, features)
        return x.reshape(-1, 1, height, width), f"flat images of {features} taken as {height} x {width}"
    if x.ndim == 3:
        return x[:, None], ""
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), "images stored with channels last"
    if x.ndim == 4:
        return x, ""
    raise damaged(path, f"images of shape {x.shape} are not (n, height, width) or (n, channels, height, width)")


def _joined_notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
