"""An overview of the data sets of the catalog: their sizes and licenses, and which of them are downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plastic_cli.data.catalog import DATASETS, DatasetInfo, data_folder, missing_files, stored_file
from plastic_cli.errors import UserError


@dataclass(frozen=True)
class DataRow:
    """One data set as `plastic data` shows it.

    where: the folder of its files. missing: the files that are not there. train_images, test_images: numbers of images
    in the files, else in the official set. disk_bytes: size of the files, else of the official files after unpacking.
    mean, std: per channel, of pixels in [0, 1], for normalization; empty if they are computed from the training images.
    """

    name: str
    title: str
    here: bool
    where: str
    missing: tuple[str, ...]
    train_images: int
    test_images: int
    classes: int
    image_shape: tuple[int, int, int]
    disk_bytes: int
    download_bytes: int
    license: str
    source: str
    note: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def data_rows(folder: Path | None = None) -> list[DataRow]:
    """Return a row for every set of the catalog; `folder` as in `load_dataset`. Nothing is fetched."""
    where = data_folder(folder)
    return [_row(info, where) for info in DATASETS.values()]


def _row(info: DatasetInfo, folder: Path) -> DataRow:
    missing = missing_files(info, folder)
    paths = [path for name in info.files if (path := stored_file(folder / info.folder, name))]
    train_images, test_images, note = info.train_images, info.test_images, info.note
    if not missing and len(info.files) == 4:
        train_images, test_images, note = _look_into(info, paths)
    return DataRow(
        name=info.name,
        title=info.title,
        here=not missing,
        where=str(folder / info.folder) if info.files else "scikit-learn",
        missing=missing,
        train_images=train_images,
        test_images=test_images,
        classes=info.classes,
        image_shape=info.image_shape,
        disk_bytes=info.disk_bytes if missing else sum(path.stat().st_size for path in paths),
        download_bytes=info.download_bytes,
        license=info.license,
        source=info.source,
        note=note,
        mean=info.mean,
        std=info.std,
    )


def _look_into(info: DatasetInfo, paths: list[Path]) -> tuple[int, int, str]:
    """Return the numbers of images in the headers of four IDX files, and a note."""
    # Reading arrays needs NumPy, which help and completion do not import.
    from plastic_cli.data.formats.idx import read_idx_shape
    from plastic_cli.data.sources import other_counts

    try:
        _, train_images, _, test_images = (read_idx_shape(path)[0] for path in paths)
    except UserError as error:
        return info.train_images, info.test_images, str(error)
    return train_images, test_images, other_counts(info, train_images, test_images) or info.note
