"""From a name to arrays: the known data sets, and the user's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.arrays import LabeledImages, StoredDataset, check_labels, checksum
from plastic_cli.data.catalog import (
    DATASETS,
    DatasetInfo,
    check_dataset_name,
    data_folder,
    known_dataset,
    missing_files,
    own_path,
    stored_file,
    where_to_put,
)
from plastic_cli.data.files import damaged
from plastic_cli.data.formats.cifar import read_cifar_batch
from plastic_cli.data.formats.idx import read_idx
from plastic_cli.data.images import read_images
from plastic_cli.data.labels import number_classes, read_labels
from plastic_cli.data.own_files import find_own_arrays, known_idx_set
from plastic_cli.errors import UserError

_DIGITS_TEST_IMAGES = "digits_test_images.txt"
"""The test images of the digits, which have no official split: the positions that `stratified_split` holds out."""


def read_dataset(name: str, folder: Path | None = None, *, download: bool = True) -> StoredDataset:
    """Read a known data set, or the user's own from a folder or an .npz file; arguments as in `load_dataset`.

    Raises UserError for an unknown name, a set that is missing and cannot be downloaded, and a damaged file.
    """
    known = known_dataset(name)
    if known is None:
        check_dataset_name(name)
        return read_own_set(own_path(name))
    info, where = DATASETS[known], data_folder(folder)
    if missing_files(info, where):
        if not download:
            raise UserError(f"{known} is not in {where}. {where_to_put(info, where)}")
        from plastic_cli.data.download import download_dataset

        download_dataset(info, where)
    try:
        return read_known_set(info, where)
    except MemoryError as error:
        raise UserError(f"{known} does not fit into the memory of this machine.") from error


@cache
def dataset_checksum(name: str, folder: Path | None = None) -> str | None:
    """Return the checksum that `load_dataset` gives a set, or None if it is not here or cannot be read.

    Runs with the same checksum used the same data. No tensors are made, and nothing is downloaded.
    """
    try:
        stored = read_dataset(name, folder, download=False)
    except (OSError, UserError, MemoryError):
        return None
    return checksum((stored.train, stored.test))


def read_known_set(info: DatasetInfo, folder: Path) -> StoredDataset:
    """Read a known data set whose files are all in the data folder `folder`.

    Raises UserError, which names the file, if one is damaged.
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
        mean=info.mean or None,
        std=info.std or None,
        note=_joined_notes(info.note, other_counts(info, len(train.y), len(test.y))),
    )


def other_counts(info: DatasetInfo, train_images: int, test_images: int) -> str:
    """Return a note if the numbers of images are not those of the official data set, else an empty string."""
    if (train_images, test_images) == (info.train_images, info.test_images):
        return ""
    return (
        f"not {info.official}: {train_images:,} training and {test_images:,} test images here, "
        f"{info.train_images:,} and {info.test_images:,} there"
    )


def read_own_set(path: Path) -> StoredDataset:
    """Read the user's own data set: a folder with IDX, .npz or .npy files or pictures, or one .npz file.

    Images are (n, height, width), (n, channels, height, width), (n, height, width, channels) or flat, as uint8 (divided
    by 255) or float (not scaled). Raises UserError, which names the file, if something does not fit.
    """
    resolved = path.resolve()
    # A folder that is called mnist must not be listed as MNIST in a report.
    name = str(resolved) if resolved.name in DATASETS else resolved.name
    try:
        known = known_idx_set(path) if path.is_dir() else None
        if known is not None:
            info, folder = known
            here = replace(info, folder="", mean=(), std=())
            stored = read_known_set(here, folder)
            return replace(stored, name=name, note=_joined_notes(f"read as {info.name}", stored.note))
        return _own_set(path, name)
    except MemoryError as error:
        raise UserError(f"{path} does not fit into the memory of this machine. Store fewer images.") from error


def _own_set(path: Path, name: str) -> StoredDataset:
    splits, notes = find_own_arrays(path)
    (train_x, test_x), more = read_images(splits)
    train_labels, test_labels = (
        read_labels(split.y, len(x), split.y_file) for split, x in zip(splits, (train_x, test_x), strict=True)
    )
    train_y, test_y, class_names, on_classes = number_classes(train_labels, test_labels, path)
    # Bytes that are all 0 or 1 are pixels in [0, 1] already.
    byte = train_x.dtype == np.uint8 and max(train_x.max(), test_x.max()) > 1
    return StoredDataset(
        name=name,
        train=LabeledImages(train_x, train_y),
        test=LabeledImages(test_x, test_y),
        white=255.0 if byte else 1.0,
        class_names=class_names,
        mean=None,
        std=None,
        note=_joined_notes(*notes, *more, *on_classes),
    )


def _read_digits() -> tuple[LabeledImages, LabeledImages]:
    table = _digits_table()
    x, y = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)
    held = np.array((files(__package__) / _DIGITS_TEST_IMAGES).read_text("ascii").split(), dtype=np.intp)
    kept = np.delete(np.arange(len(y)), held)
    return LabeledImages(x[kept], y[kept]), LabeledImages(x[held], y[held])


def _digits_table() -> NDArray[np.uint8]:
    """Return scikit-learn's digits: a row of 64 pixels and the label for each image."""
    # The import of sklearn.datasets takes longer than many a training, so its file is read instead.
    package = find_spec("sklearn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if path is not None and path.is_file():
        return np.loadtxt(path, delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.uint8)


def _read_known_idx(info: DatasetInfo, x_file: Path, y_file: Path) -> LabeledImages:
    x, y = read_idx(x_file), read_idx(y_file)
    if x.dtype != np.uint8 or x.shape[1:] != info.image_shape[1:]:
        raise damaged(x_file, f"it holds {x.dtype} of shape {x.shape}, not uint8 images of {info.image_shape[1:]}")
    if info.transposed:
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
    labels = check_labels(y, len(x), y_file, info.classes, first=info.first_label)
    return LabeledImages(x[:, None], labels)


def _joined(batches: list[LabeledImages]) -> LabeledImages:
    return LabeledImages(np.concatenate([batch.x for batch in batches]), np.concatenate([batch.y for batch in batches]))


def _joined_notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
