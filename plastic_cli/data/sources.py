"""From files to arrays: the sets of the catalogue, and a person's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from plastic_cli.data.arrays import LabelledImages, StoredDataset, check_labels
from plastic_cli.data.catalogue import DATASETS, DatasetInfo
from plastic_cli.data.cifar import read_cifar_batch
from plastic_cli.data.files import damaged
from plastic_cli.data.folders import stored_file
from plastic_cli.data.idx import read_idx
from plastic_cli.data.images import read_images
from plastic_cli.data.labels import number_classes, read_labels
from plastic_cli.data.own_files import find_own_arrays, known_idx_set
from plastic_cli.data.splits import stratified_split
from plastic_cli.errors import UserError


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
        mean=info.mean or None,
        std=info.std or None,
        note=_joined_notes(info.note, other_counts(info, len(train.y), len(test.y))),
    )


def other_counts(info: DatasetInfo, train_images: int, test_images: int) -> str:
    """Return the note on a set whose numbers of images are not those of the official one, else an empty string."""
    if (train_images, test_images) == (info.train_images, info.test_images):
        return ""
    return (
        f"not {info.official}: {train_images:,} training and {test_images:,} test images here, "
        f"{info.train_images:,} and {info.test_images:,} there"
    )


def read_own_set(path: Path) -> StoredDataset:
    """Read a person's own set: a folder with IDX, .npz, .npy files or pictures, or one .npz file.

    Images may be (n, height, width), (n, channels, height, width), (n, height, width, channels) or flat; uint8 (divided
    by 255) or float (taken as they are). Raises UserError, naming the file, where something does not fit.
    """
    resolved = path.resolve()
    # A folder that happens to be called mnist must not pass for MNIST in a report.
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
    # Images of zeros and ones are in [0, 1] already, though they are stored as bytes.
    byte = train_x.dtype == np.uint8 and max(train_x.max(), test_x.max()) > 1
    return StoredDataset(
        name=name,
        train=LabelledImages(train_x, train_y),
        test=LabelledImages(test_x, test_y),
        white=255.0 if byte else 1.0,
        class_names=class_names,
        mean=None,
        std=None,
        note=_joined_notes(*notes, *more, *on_classes),
    )


def _read_digits() -> tuple[LabelledImages, LabelledImages]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
    kept, held = stratified_split(y, DATASETS["digits"].test_images)
    return LabelledImages(x[kept], y[kept]), LabelledImages(x[held], y[held])


def _read_known_idx(info: DatasetInfo, x_file: Path, y_file: Path) -> LabelledImages:
    x, y = read_idx(x_file), read_idx(y_file)
    if x.dtype != np.uint8 or x.shape[1:] != info.image_shape[1:]:
        raise damaged(x_file, f"it holds {x.dtype} of shape {x.shape}, not uint8 images of {info.image_shape[1:]}")
    if info.transposed:
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
    labels = check_labels(y, len(x), y_file, info.classes, first=info.first_label)
    return LabelledImages(x[:, None], labels)


def _joined(batches: list[LabelledImages]) -> LabelledImages:
    return LabelledImages(
        np.concatenate([batch.x for batch in batches]), np.concatenate([batch.y for batch in batches])
    )


def _joined_notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
