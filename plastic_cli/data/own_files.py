"""The files of the user's own data set: finds and reads them under the usual names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plastic_cli.data.catalog import (
    DATASETS,
    DatasetInfo,
    missing_files,
    stored_file,
)
from plastic_cli.data.files import shown, shown_names
from plastic_cli.data.formats.idx import read_idx
from plastic_cli.data.formats.npz import npz_names, read_npy, read_npz
from plastic_cli.data.formats.pictures import has_pictures, read_pictures
from plastic_cli.data.images import StoredImages
from plastic_cli.errors import UserError

_IMAGES = ("x", "images", "image", "imgs", "data", "pixels")
_LABELS = ("y", "labels", "label", "targets", "target")
_SPLITS = (("train", "training"), ("test", "testing"))
_OWN_FILES = (
    "train.npz and test.npz with arrays x and y, IDX files named as those of MNIST, or pictures "
    "train/CLASS/NAME.png and test/CLASS/NAME.png; docs/data.md lists all layouts"
)


def find_own_arrays(path: Path) -> tuple[list[StoredImages], list[str]]:
    """Return the training and test split in a folder or an .npz file, and notes on how they were read.

    Raises UserError, which says what is there and what to put there, if there is no data set.
    """
    if path.is_file():
        return _read_one_npz(path), []
    names = _names_in(path)
    pair = [path / "train.npz", path / "test.npz"]
    if all(file.is_file() for file in pair):
        return [_read_split(file) for file in pair], []
    for folder in (path, path / "raw"):
        for split_name in ("t10k", "test"):
            files = [stored_file(folder, name.replace("t10k", split_name)) for name in DATASETS["mnist"].files]
            train_x, train_y, test_x, test_y = files
            if train_x and train_y and test_x and test_y:
                return [_read_idx_pair(train_x, train_y), _read_idx_pair(test_x, test_y)], []
    stems = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if found := _pick(stems, path, "file"):
        arrays = {stem: read_npy(path / f"{stem}.npy") for stem in found}
        train_x, train_y, test_x, test_y = (path / f"{stem}.npy" for stem in found)
        of = arrays.__getitem__
        return [
            StoredImages(of(train_x.stem), of(train_y.stem), train_x, train_y),
            StoredImages(of(test_x.stem), of(test_y.stem), test_x, test_y),
        ], []
    archives = [path / name for name in names if name.endswith(".npz")]
    if len(archives) == 1 and archives[0] not in pair:
        return _read_one_npz(archives[0]), []
    if folders := _picture_folders(path):
        read, notes = read_pictures(folders)
        return [StoredImages(x, y, folder, folder) for (x, y), folder in zip(read, folders, strict=True)], notes
    raise UserError(f"{path} {_what_is_missing(path, names)}")


def known_idx_set(path: Path) -> tuple[DatasetInfo, Path] | None:
    """Return the known data set whose files are in the user's folder, and the folder with the files.

    Only the splits of EMNIST are recognized by their file names. Raises UserError if there are several.
    """
    for folder in (path, path / "raw"):
        here = [
            info
            for info in DATASETS.values()
            if info.transposed and all(stored_file(folder, name) for name in info.files)
        ]
        if len(here) == 1:
            return here[0], folder
        if here:
            named = ", ".join(info.name for info in here)
            raise UserError(
                f"{folder} contains {named}. Put them into FOLDER/{here[0].folder} and use --data FOLDER --dataset "
                f"{here[-1].name}, for instance."
            )
    return None


def _names_in(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_idx_pair(x_file: Path, y_file: Path) -> StoredImages:
    return StoredImages(read_idx(x_file), read_idx(y_file), x_file, y_file)


def _read_split(path: Path) -> StoredImages:
    names = npz_names(path)
    wanted = [_one_of(names, spellings, path, "array") or spellings[0] for spellings in (_IMAGES, _LABELS)]
    x, y = read_npz(path, wanted)
    return StoredImages(x, y, path, path)


def _read_one_npz(path: Path) -> list[StoredImages]:
    wanted = _pick(npz_names(path), path, "array", partly=True)
    train_x, train_y, test_x, test_y = read_npz(path, wanted)
    return [StoredImages(train_x, train_y, path, path), StoredImages(test_x, test_y, path, path)]


def _pick(names: Sequence[str], path: Path, what: str, *, partly: bool = False) -> list[str]:
    """Return the names of training images, training labels, test images and test labels among `names`.

    The list is empty if one is missing; with `partly` it has the first possible name in its place.
    """
    picked = []
    for split in _SPLITS:
        for kinds in (_IMAGES, _LABELS):
            spellings = [f"{kind}_{part}" for kind in kinds for part in split]
            spellings += [f"{part}_{kind}" for kind in kinds for part in split]
            found = _one_of(names, spellings, path, what)
            if found is None and not partly:
                return []
            picked.append(found or spellings[0])
    return picked


def _one_of(names: Iterable[str], spellings: Sequence[str], path: Path, what: str) -> str | None:
    """Return the name with one of the spellings, in any case, or None; raises UserError if there are two."""
    exact = [name for name in names if name == spellings[0]]
    found = exact or [name for name in names if name.lower().replace("-", "_") in spellings]
    if len(found) > 1:
        raise UserError(
            f"{path}: it is not clear which {what} to read, {' or '.join(shown(name) for name in found)}. Keep one."
        )
    return found[0] if found else None


def _picture_folders(path: Path) -> list[Path]:
    folders = []
    for split in _SPLITS:
        there = [path / name for name in split if (path / name).is_dir() and has_pictures(path / name)]
        if len(there) != 1:
            return []
        folders += there
    return folders


def _what_is_missing(path: Path, names: Sequence[str]) -> str:
    """Return what a folder lacks to be a data set, as the end of a sentence that starts with its path."""
    for info in DATASETS.values():
        if info.files and not missing_files(info, path):
            return f"contains {info.name}: use --data {path} --dataset {info.name}."
    pair = ["train.npz", "test.npz"]
    absent = [name for name in pair if not (path / name).is_file()]
    if len(absent) == 1:
        return f"has no {absent[0]}, only the other split."
    for folder in (path, path / "raw"):
        absent = [name for name in DATASETS["mnist"].files if stored_file(folder, name) is None]
        if 0 < len(absent) < 4:
            return f"has no {' and no '.join(absent)}, only other IDX files."
    folders = [name for name in names if (path / name).is_dir() and has_pictures(path / name)]
    if folders or has_pictures(path):
        there = f"pictures under {shown_names(folders)}" if folders else "pictures without a split"
        return f"contains {there}: store them as train/CLASS/NAME.png and test/CLASS/NAME.png."
    there = f", only {shown_names(list(names))}" if names else ", it is empty"
    return f"contains no data set{there}. It needs {_OWN_FILES}."
