"""Images as users store them: which axis holds the images, which the channels, and the units of the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.errors import UserError

_CHANNELS = (1, 2, 3, 4)
# In the same units the brightest pixels differ less than this; 0 to 1 and 0 to 16 or 255 differ more.
_OTHER_SCALE = 10.0
_FEW_IMAGES = 3
# Resampling makes pixels negative by less than this share of white.
_CLEARLY_NEGATIVE = 0.12


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images and labels of one split as stored in files. x, y: any shape."""

    x: NDArray[Any]
    y: NDArray[Any]
    x_file: Path
    y_file: Path


def read_images(splits: Sequence[StoredImages]) -> tuple[list[NDArray[Any]], list[str]]:
    """Return the images of each split, (n, channels, height, width), uint8 or float32, and notes on how they were read.

    The axes of images and of channels are the same in all splits. Raises UserError if several readings fit or none
    does, or if the splits differ in type, shape or units.
    """
    numbers = [_as_numbers(split.x, split.x_file) for split in splits]
    notes = []
    counts = [(x.shape, _labels_in(split.y)) for x, split in zip(numbers, splits, strict=True) if x.ndim >= 2]
    number_first = all(shape[0] == labels for shape, labels in counts)
    number_last = all(shape[-1] == labels for shape, labels in counts)
    if number_last and not number_first and len(counts) == len(splits):
        numbers = [np.moveaxis(x, -1, 0) for x in numbers]
        notes.append("images along the last axis, as in MATLAB")
    for x, split in zip(numbers, splits, strict=True):
        if x.size == 0:
            raise UserError(f"{split.x_file}: it holds no images (shape {x.shape}).")
    images = []
    for x, split in zip(numbers, splits, strict=True):
        shaped, note = _as_planes(x, split.x_file)
        images.append(np.ascontiguousarray(shaped))
        notes += [note] if note and note not in notes else []
    first, *others = images
    for other in others:
        ranges = pixel_range([first]), pixel_range([other])
        kinds = [f"{x.dtype} of shape {x.shape[1:]} {values}" for x, values in zip((first, other), ranges, strict=True)]
        if first.shape[1:] != other.shape[1:] or first.dtype != other.dtype:
            raise UserError(
                f"{splits[0].x_file.parent}: training images are {kinds[0]}, test images {kinds[1]}. "
                "Store both the same way."
            )
        if in_other_units(*ranges):
            raise UserError(
                f"{splits[0].x_file.parent}: training pixels range {ranges[0]} and test pixels {ranges[1]}. "
                "Store both in the same units, such as 0 to 1."
            )
    return images, notes


@dataclass(frozen=True)
class PixelRange:
    """The range of pixels.

    low, high: over all pixels. brightest: largest absolute value, median over images. negative: share of images with
    clearly negative pixels. images: number of images.
    """

    low: float
    high: float
    brightest: float
    negative: float
    images: int

    @classmethod
    def from_stored(cls, values: object) -> PixelRange | None:
        """Return the range that a run stored, or None."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or any(not isinstance(values.get(name), int | float) for name in names):
            return None
        return cls(**{name: values[name] for name in names})

    def __str__(self) -> str:
        return f"from {self.low:.4g} to {self.high:.4g}"


def pixel_range(splits: Sequence[NDArray[Any]], white: float = 1.0) -> PixelRange:
    """Return the range of the pixels of all splits, (n, ...) each. white: the stored value of a pixel of 1."""
    lows, highs = (
        np.concatenate([getattr(x.reshape(len(x), -1), extreme)(axis=1) for x in splits]).astype(float) / white
        for extreme in ("min", "max")
    )
    sizes = np.maximum(np.abs(lows), np.abs(highs))
    lit = sizes[sizes > 0]
    brightest = float(np.median(lit)) if len(lit) else 0.0
    return PixelRange(
        low=float(lows.min()),
        high=float(highs.max()),
        brightest=brightest,
        negative=float((lows < -_CLEARLY_NEGATIVE * brightest).mean()) if brightest else 0.0,
        images=len(lows),
    )


def in_other_units(one: PixelRange, other: PixelRange) -> bool:
    """Return whether the pixels of two sets of images must be in different units.

    They are if the brightest pixels differ by a factor of 10, or if most images of one set have clearly negative pixels
    and no image of the other has. For one or two images, which may simply be dark, the factor is 100.
    """
    if not (one.brightest and other.brightest):
        return False
    scale = _OTHER_SCALE if min(one.images, other.images) >= _FEW_IMAGES else _OTHER_SCALE**2
    if not 1 / scale < one.brightest / other.brightest < scale:
        return True
    # If most images of one set have negative pixels, three images without one are not chance.
    return any(
        some.negative > 0.5 and none.low >= 0 and none.images >= _FEW_IMAGES
        for some, none in ((one, other), (other, one))
    )


def _labels_in(y: NDArray[Any]) -> int:
    """Return the number of labels: a row, a column or one-hot."""
    return y.size if y.ndim < 2 or 1 in y.shape else max(y.shape)


def _as_numbers(x: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return pixels as uint8 or float32."""
    kind = x.dtype.kind
    if x.size == 0 or x.dtype == np.uint8:
        return x
    if kind == "b":
        return x.astype(np.uint8)
    if kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32, copy=False)
        # The sum is finite if all pixels are: float32 values cannot overflow a float64 sum.
        if not np.isfinite(x.sum(dtype=np.float64)):
            raise UserError(
                f"{path}: some pixels are not finite numbers (NaN, or beyond the range of float32). Replace them, for "
                "instance with numpy.nan_to_num."
            )
        return x
    if kind in "iu":
        low, high = int(x.min()), int(x.max())
        if low >= 0 and high <= 255:
            return x.astype(np.uint8)
        divisor = next((2**bits - 1 for bits in (16, 32) if high < 2**bits), high)
        write = f"x.astype('float32') / {divisor}" if low >= 0 else "x.astype('float32')"
        raise UserError(
            f"{path}: images are {x.dtype} from {low} to {high}. Store them as uint8 (0 to 255) or as float, such as "
            f"{write}."
        )
    raise UserError(f"{path}: images are {x.dtype}. Store them as uint8 (0 to 255) or as float.")


def _as_planes(x: NDArray[Any], path: Path) -> tuple[NDArray[Any], str]:
    """Return x as (n, channels, height, width), and a note on how it was read."""
    if x.ndim == 2:
        features = x.shape[1]
        side = round(features**0.5)
        height, width = (side, side) if side * side == features else (1, features)
        return x.reshape(-1, 1, height, width), f"flat images of {features} pixels read as {height} x {width}"
    if x.ndim == 3:
        return x[:, None], ""
    if x.ndim == 4:
        last = _channels_last(x.shape[1:], path)
        channels = x.shape[3] if last else x.shape[1]
        notes = [f"of {channels} channels"] if channels not in (1, 3) else []
        notes += ["stored with channels last"] if last else []
        return (x.transpose(0, 3, 1, 2) if last else x), f"images {' '.join(notes)}" if notes else ""
    raise UserError(
        f"{path}: images of shape {x.shape} are not (n, height, width), (n, channels, height, width) or "
        "(n, height, width, channels). Store them in one of these shapes."
    )


def _channels_last(shape: tuple[int, ...], path: Path) -> bool:
    """Return whether the last axis holds the channels; raises UserError if that is ambiguous.

    There are 1 to 4 channels. If both ends could be channels, or neither, the image must be square.
    """
    first, middle, last = shape
    could_be_first, could_be_last = first in _CHANNELS, last in _CHANNELS
    if could_be_first == could_be_last:
        could_be_first, could_be_last = middle == last, first == middle
    if first == last == 1:
        # Both readings give the same image.
        return False
    if could_be_first != could_be_last:
        return could_be_last
    raise UserError(
        f"{path}: images of shape {shape} are {first} channels of {middle} x {last} or {last} channels of {first} x "
        f"{middle}. Store them flat, (n, {first * middle * last}), or pad them so that height and width are equal."
    )
