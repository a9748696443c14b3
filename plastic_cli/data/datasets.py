"""Data sets as whole tensors on one device: read, normalised, with a fixed validation split on request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.data.arrays import LabelledImages, StoredDataset, checksum
from plastic_cli.data.catalogue import DATASETS, check_dataset_name, known_dataset, own_path
from plastic_cli.data.folders import data_folder, missing_files, where_to_put
from plastic_cli.data.images import PixelRange, pixel_range
from plastic_cli.data.sources import read_known_set, read_own_set
from plastic_cli.data.splits import stratified_split
from plastic_cli.errors import UserError, did_you_mean

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels. x: (n, channels * height * width) float32, normalised. y: (n,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    image_shape: (channels, height, width). mean, std: per channel, of pixels in [0, 1]; x = (pixel - mean) / std.
    checksum: SHA-256, in hexadecimal, over the stored images and labels of both official splits; a validation split
    does not change it. note: what a reader of figures made with this set must know, often empty.
    darkest: the lowest pixel of the training images, per channel; None stands for 0. pixels: the range of both splits.
    """

    name: str
    train: Split
    test: Split
    validation: Split | None
    classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    checksum: str
    note: str
    darkest: tuple[float, ...] | None = None
    pixels: PixelRange | None = None

    @property
    def black(self) -> tuple[float, ...]:
        """The value of the darkest pixel after normalization, per channel."""
        darkest = self.darkest or (0.0,) * len(self.mean)
        return tuple((low - mean) / std for low, mean, std in zip(darkest, self.mean, self.std, strict=True))

    def split(self, name: str) -> Split:
        """Return the split called train, test or validation.

        Raises UserError for another name, and for validation where none was set aside.
        """
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        if name not in splits:
            raise UserError(f"unknown split '{name}'.{did_you_mean(name, splits)} There are {', '.join(splits)}.")
        split = splits[name]
        if split is None:
            raise UserError(f"{self.name} was loaded without a validation split. Set images aside with --validation N.")
        return split

    def description(self) -> dict[str, Any]:
        """Return the facts that a run stores about what it learned from."""
        return {
            "name": self.name,
            "checksum": self.checksum,
            "image_shape": list(self.image_shape),
            "classes": self.classes,
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "note": self.note,
            "pixels": None if self.pixels is None else asdict(self.pixels),
        }

    def to_pixels(self, x: Tensor) -> Tensor:
        """Undo the normalisation: (..., features) to pixels of the same shape, in [0, 1] where x came from an image.

        Nothing is clipped, so that `from_pixels` undoes it in turn.
        """
        mean, std = self._by_channel(x)
        return (self._channels(x) * std + mean).flatten(-2)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalise pixels, (..., features) in [0, 1]."""
        mean, std = self._by_channel(pixels)
        return ((self._channels(pixels) - mean) / std).flatten(-2)

    def _channels(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.image_shape[0], -1)

    def _by_channel(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=x.dtype, device=x.device)[:, None] for values in (self.mean, self.std))
        return mean, std


def load_dataset(
    name: str,
    folder: Path | None = None,
    *,
    validation: int = 0,
    device: str | torch.device = "cpu",
    download: bool = True,
) -> Dataset:
    """Load a data set of the catalogue, or one's own from a folder or an .npz file.

    folder: where the sets of the catalogue lie, in torchvision's layout; else $PLASTIC_DATA, else the user's cache.
    validation: how many training images to set aside, in proportion to the classes. Always the same ones, whatever the
    seed of the run; the others keep their order. download: fetch a set of the catalogue that is missing.

    One's own set is a folder with train.npz and test.npz (arrays x and y), with one .npz or four .npy (x_train,
    y_train, x_test, y_test), with IDX files named as those of MNIST or EMNIST, or with pictures in a folder for each
    class; uint8 pixels are divided by 255, floats are taken as they are, and mean and standard deviation are those of
    its training images.

    Raises UserError for an unknown name, a set that is missing and cannot be fetched, a damaged file, and a validation
    split that cannot be made.
    """
    stored = _read(name, folder, download=download)
    whole = checksum((stored.train, stored.test))
    channels, height, width = stored.train.x.shape[1:]
    mean, std = stored.mean, stored.std
    if mean is None or std is None:
        mean, std = _training_mean_std(stored)
    kept, held = _set_aside(stored, validation)
    darkest = tuple(float(low) / stored.white for low in stored.train.x.min(axis=(0, 2, 3)))

    def tensors(images: LabelledImages, chosen: NDArray[Any] | slice = slice(None)) -> Split:
        x = torch.from_numpy(images.x[chosen]).to(device).to(torch.float32, copy=True)
        if stored.white != 1:
            x.div_(stored.white)
        centre, spread = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
        return Split(x.sub_(centre).div_(spread).flatten(1), torch.from_numpy(images.y[chosen]).to(device))

    return Dataset(
        name=stored.name,
        train=tensors(stored.train, kept),
        test=tensors(stored.test),
        validation=None if held is None else tensors(stored.train, held),
        classes=len(stored.class_names),
        class_names=stored.class_names,
        image_shape=(channels, height, width),
        mean=mean,
        std=std,
        checksum=whole,
        note=stored.note,
        darkest=darkest,
        pixels=pixel_range((stored.train.x, stored.test.x), stored.white),
    )


def _read(name: str, folder: Path | None, *, download: bool) -> StoredDataset:
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


def _set_aside(stored: StoredDataset, validation: int) -> tuple[NDArray[Any] | slice, NDArray[Any] | None]:
    """Return which training images are kept and which are set aside."""
    if validation == 0:
        return slice(None), None
    images, classes = len(stored.train.y), len(np.unique(stored.train.y))
    if not classes <= validation <= images - classes:
        raise UserError(
            f"validation is {validation:,}: a split of the {images:,} training images of {stored.name} in proportion "
            f"to its {classes} classes takes {classes} to {images - classes:,}."
        )
    if np.bincount(stored.train.y)[np.unique(stored.train.y)].min() < 2:
        raise UserError(f"{stored.name} has a class with a single training image: leave validation at 0.")
    return stratified_split(stored.train.y, validation)


def _training_mean_std(stored: StoredDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, a block of images at a time so that no copy of them is made."""
    x, count = stored.train.x, stored.train.x[:, 0].size
    at_once = max(1, _NUMBERS_AT_ONCE // x[0].size)
    blocks = [x[start : start + at_once] for start in range(0, len(x), at_once)]
    means = sum(block.sum(axis=(0, 2, 3), dtype=np.float64) for block in blocks) / count
    squares = sum(((block - means[:, None, None]) ** 2).sum(axis=(0, 2, 3)) for block in blocks)
    stds = np.sqrt(squares / count)
    # Six digits: few enough to state, and the same on every machine.
    mean, std = (tuple(float(f"{value / stored.white:.6g}") for value in values) for values in (means, stds))
    # A channel that never varies is centered and otherwise left alone.
    return mean, tuple(value if value > 0 else 1.0 for value in std)
