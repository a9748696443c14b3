"""Folders of pictures, one folder for each class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import check_memory, damaged, shown
from plastic_cli.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_GRAY, _COLOR = {"1", "L", "LA", "La"}, {"P", "RGB", "RGBX", "RGBA", "RGBa", "PA", "CMYK", "YCbCr", "LAB", "HSV"}
_ALPHA = {"LA", "La", "RGBA", "RGBa", "PA"}
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B"}


@dataclass(frozen=True)
class _Picture:
    """A picture before it is decoded. mode: Pillow's name for the type of pixels. alpha: it can be transparent."""

    path: Path
    label: str
    mode: str
    alpha: bool
    size: tuple[int, int]


def has_pictures(folder: Path) -> bool:
    """Return whether a folder contains folders of pictures."""
    return any(True for _ in _files(folder))


def read_pictures(folders: Sequence[Path]) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], list[str]]:
    """Return the images and labels of each split, and notes on how they were read.

    Labels are the names of the folders. Images are (n, channels, height, width): uint8, or float32 from 0 to 1 for
    16-bit gray pictures. All get the channels of the picture with the most. Raises UserError, which names the file, if
    a picture cannot be decoded or differs in size from the first.
    """
    splits = [[_look(path, label) for path, label in _files(folder)] for folder in folders]
    everything = [picture for split in splits for picture in split]
    first = everything[0]
    for picture in everything:
        if picture.size != first.size:
            raise UserError(
                f"{picture.path} has {_by(picture.size)} pixels and {first.path} has {_by(first.size)}. "
                "Resize all pictures to one size."
            )
    mode, channels = _common_mode(everything)
    width, height = first.size
    check_memory(folders[0].parent, 0, len(everything) * channels * height * width)
    notes = []
    if len({picture.mode for picture in everything}) > 1:
        notes.append(f"pictures of several types ({', '.join(sorted({p.mode for p in everything}))}) read as {mode}")
    sixteen_bits = mode in _SIXTEEN_BITS
    read = []
    for split in splits:
        x = np.empty((len(split), height, width, channels), np.float32 if sixteen_bits else np.uint8)
        for number, picture in enumerate(split):
            with _opened(picture.path) as image:
                pixels = np.asarray(image if sixteen_bits else image.convert(mode))
            x[number] = pixels.reshape(height, width, channels)
        if sixteen_bits:
            x /= 65535
        read.append((x.transpose(0, 3, 1, 2), np.array([picture.label for picture in split], str)))
    return read, notes


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pictures in a folder of class folders, and their class, in the order of their names."""
    try:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.name.startswith("."):
                for path in sorted(inner.iterdir()):
                    if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith("."):
                        yield path, inner.name
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error


def _look(path: Path, label: str) -> _Picture:
    with _opened(path) as image:
        alpha = image.mode in _ALPHA or "transparency" in image.info
        return _Picture(path, label, image.mode, alpha, image.size)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UserError(f"{path} has too many pixels. Resize it.") from error
        except (UserError, MemoryError):
            raise
        except Exception as error:  # a broken picture may raise anything at all
            raise damaged(path, "it is not a complete picture") from error


def _common_mode(pictures: Sequence[_Picture]) -> tuple[str, int]:
    """Return the Pillow mode to which all pictures convert without loss, and its number of channels."""
    modes = {picture.mode for picture in pictures}
    if modes <= _SIXTEEN_BITS:
        return pictures[0].mode, 1
    for picture in pictures:
        if picture.mode not in _GRAY | _COLOR:
            raise UserError(
                f"{picture.path} has pixels of type {shown(picture.mode)}, which differs from the other pictures or "
                "cannot be read. Store all as 8-bit, or all as 16-bit gray."
            )
    alpha = any(picture.alpha for picture in pictures)
    if modes <= _GRAY:
        return ("LA", 2) if alpha else ("L", 1)
    return ("RGBA", 4) if alpha else ("RGB", 3)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
