"""Data sets as tensors on one device: normalized, with a fixed validation split on request."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.data.arrays import LabeledImages, StoredDataset, checksum, stratified_split
from plastic_cli.data.images import PixelRange, pixel_range
from plastic_cli.data.sources import read_dataset
from plastic_cli.errors import UserError, did_you_mean

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels. x: (n, channels * height * width) float32, normalized. y: (n,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    image_shape: (channels, height, width). mean, std: per channel, of pixels in [0, 1]; x = (pixel - mean) / std.
    checksum: SHA-256, in hexadecimal, of the stored images and labels of both official splits. It does not depend on
    the validation split. note: what a reader of results must know about the data, often empty. darkest: lowest pixel of
    the training images, per channel; None means 0. pixels: range of the pixels of both splits.
    only_classes: the classes that the splits have images of, empty for all; labels and `classes` do not change.
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
    only_classes: tuple[int, ...] = ()

    @property
    def black(self) -> tuple[float, ...]:
        """The value of the darkest pixel after normalization, per channel."""
        darkest = self.darkest or (0.0,) * len(self.mean)
        return tuple((low - mean) / std for low, mean, std in zip(darkest, self.mean, self.std, strict=True))

    def split(self, name: str) -> Split:
        """Return the split called train, test or validation.

        Raises UserError for another name, and for validation if the data set has no such split.
        """
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        if name not in splits:
            raise UserError(f"unknown split '{name}'.{did_you_mean(name, splits)} The splits are {', '.join(splits)}.")
        split = splits[name]
        if split is None:
            raise UserError(f"{self.name} was loaded without a validation split. Set images aside with --validation N.")
        return split

    def description(self) -> dict[str, Any]:
        """Return the facts that a run stores about its data set."""
        facts: dict[str, Any] = {
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
        # Records of runs on all classes are what they were before there was a choice.
        return {**facts, "only_classes": list(self.only_classes)} if self.only_classes else facts

    def of_classes(self, chosen: Collection[int]) -> Dataset:
        """Return the data set with the images of the classes `chosen` in every split, in their order; none means all.

        Labels, normalization and checksum are those of the whole data set. Raises UserError for an unknown class.
        """
        if not chosen:
            return self
        wrong = [label for label in chosen if not 0 <= label < self.classes]
        if wrong:
            raise UserError(
                f"there is no class {wrong[0]} in {self.name}: its classes are 0 to {self.classes - 1}. Choose others"
                " with --classes."
            )
        kept = torch.tensor(sorted(chosen))

        def images_of(split: Split) -> Split:
            mask = torch.isin(split.y, kept.to(split.y.device))
            return Split(split.x[mask], split.y[mask])

        return replace(
            self,
            train=images_of(self.train),
            test=images_of(self.test),
            validation=None if self.validation is None else images_of(self.validation),
            only_classes=tuple(sorted(chosen)),
        )

    def to_pixels(self, x: Tensor) -> Tensor:
        """Undo the normalization of x, (..., features): pixels of the same shape, in [0, 1] for unchanged images.

        Values are not clipped, so that `from_pixels` is the exact inverse.
        """
        mean, std = self._by_channel(x)
        return (self._channels(x) * std + mean).flatten(-2)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalize pixels, (..., features) in [0, 1]."""
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
    classes: Collection[int] = (),
    device: str | torch.device = "cpu",
    download: bool = True,
) -> Dataset:
    """Load a known data set, or the user's own from a folder or an .npz file.

    folder: the data folder, in torchvision's layout (default: $PLASTIC_DATA, else the user cache directory).
    validation: number of training images to set aside, in proportion to the classes. They are the same for every seed,
    and the other images keep their order. classes: those whose images are returned, all if empty; the validation split
    is set aside first (see `Dataset.of_classes`). download: download a known data set that is missing.

    The user's own data set is a folder with train.npz and test.npz (arrays x and y), with one .npz or four .npy files
    (x_train, y_train, x_test, y_test), with IDX files named as those of MNIST or EMNIST, or with one folder of pictures
    per class. uint8 pixels are divided by 255; floats are not scaled. Mean and standard deviation are computed from the
    training images.

    Raises UserError for an unknown name, a data set that is missing and cannot be downloaded, a damaged file, and a
    validation split that is not possible.
    """
    stored = read_dataset(name, folder, download=download)
    whole = checksum((stored.train, stored.test))
    channels, height, width = stored.train.x.shape[1:]
    mean, std = stored.mean, stored.std
    if mean is None or std is None:
        mean, std = _training_mean_std(stored)
    kept, held = _set_aside(stored, validation)
    darkest = tuple(float(low) / stored.white for low in stored.train.x.min(axis=(0, 2, 3)))

    def tensors(images: LabeledImages, chosen: NDArray[Any] | slice = slice(None)) -> Split:
        x = torch.from_numpy(images.x[chosen]).to(device).to(torch.float32, copy=True)
        if stored.white != 1:
            x.div_(stored.white)
        center, spread = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
        return Split(x.sub_(center).div_(spread).flatten(1), torch.from_numpy(images.y[chosen]).to(device))

    whole_set = Dataset(
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
    return whole_set.of_classes(classes)


def _set_aside(stored: StoredDataset, validation: int) -> tuple[NDArray[Any] | slice, NDArray[Any] | None]:
    """Return the indices of the training images that are kept and of those that are set aside."""
    if validation == 0:
        return slice(None), None
    images, classes = len(stored.train.y), len(np.unique(stored.train.y))
    if not classes <= validation <= images - classes:
        raise UserError(
            f"validation is {validation:,}: a split of the {images:,} training images of {stored.name} in proportion "
            f"to its {classes} classes needs {classes} to {images - classes:,}."
        )
    if np.bincount(stored.train.y)[np.unique(stored.train.y)].min() < 2:
        raise UserError(f"{stored.name} has a class with a single training image: leave validation at 0.")
    return stratified_split(stored.train.y, validation)


def _training_mean_std(stored: StoredDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, computed in blocks so that the images are not copied."""
    x, count = stored.train.x, stored.train.x[:, 0].size
    at_once = max(1, _NUMBERS_AT_ONCE // x[0].size)
    blocks = [x[start : start + at_once] for start in range(0, len(x), at_once)]
    means = sum(block.sum(axis=(0, 2, 3), dtype=np.float64) for block in blocks) / count
    squares = sum(((block - means[:, None, None]) ** 2).sum(axis=(0, 2, 3)) for block in blocks)
    stds = np.sqrt(squares / count)
    # Six digits are the same on every machine.
    mean, std = (tuple(float(f"{value / stored.white:.6g}") for value in values) for values in (means, stds))
    # A constant channel is centered but not scaled.
    return mean, tuple(value if value > 0 else 1.0 for value in std)
