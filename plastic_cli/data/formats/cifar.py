"""Reads the batches of CIFAR-10. They are pickles, but no pickle can run code here.

torchvision's reader is not used because it calls `pickle.load`, which runs whatever code a file names.

Source of the format: https://www.cs.toronto.edu/~kriz/cifar.html, section "Dataset layout".
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.arrays import LabeledImages, check_labels
from plastic_cli.data.files import cannot_be_read, check_memory, damaged, shown
from plastic_cli.errors import UserError

_FEATURES = 3 * 32 * 32
_NUMBERS = re.compile(r"[biuf][1248]")


class _Type:
    """The type of an array as a pickle describes it. It is checked before a NumPy object is made."""

    def __init__(self, text: object = "", *_: object) -> None:
        self.text = text
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def checked(self) -> np.dtype[Any]:
        """Return the NumPy type. Raises ValueError unless it is a number of 1 to 8 bytes."""
        if (
            not isinstance(self.text, str)
            or not _NUMBERS.fullmatch(self.text)
            or self.order not in ("|", "<", ">", "=")
        ):
            raise ValueError("it holds an array that is not numeric")
        return np.dtype(self.text if self.order == "|" else f"{self.order}{self.text}")


class _Array:
    """An array as a pickle describes it."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def checked(self) -> NDArray[Any]:
        """Return the array. Raises ValueError, TypeError or AttributeError if type, shape and bytes do not agree."""
        _, shape, kind, fortran_order, content = self.state
        if isinstance(content, str):
            content = content.encode("latin1")
        sizes = tuple(int(size) for size in shape)
        dtype: np.dtype[Any] = kind.checked()
        if len(sizes) > 4 or min(sizes, default=0) < 0 or math.prod(sizes) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {sizes} does not have {len(content):,} bytes")
        # A copy, because bytes cannot be written to.
        return np.frombuffer(content, dtype).reshape(sizes, order="F" if fortran_order else "C").copy()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.state = (1, shape, kind, order == "F", content)
    return array


def _scalar(kind: _Type, content: Any) -> Any:
    return _from_buffer(content, kind, (1,), "C").checked()[0].item()


def _encode(text: str, _encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


# The functions that pickled arrays name, in NumPy 1 and 2. Those of NumPy are never called.
_ALLOWED: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type}
_ALLOWED[("_codecs", "encode")] = _encode
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _Array
    _ALLOWED[(f"{_core}.multiarray", "scalar")] = _scalar
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _from_buffer


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds plain containers and descriptions of arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {shown(f'{module}.{name}')}, which image data do not need")
        return _ALLOWED[module, name]


def read_cifar_batch(path: Path, classes: int) -> LabeledImages:
    """Return the images, (n, 3, 32, 32) uint8, and labels of one batch.

    Memory use is a few times the size of the file. Raises UserError, which names the file, if it cannot be read, asks
    for anything but arrays, or is not such a batch.
    """
    try:
        check_memory(path, path.stat().st_size, 0)
        content = path.read_bytes()
        _check_memo(content)
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except UserError:
        raise
    except Exception as error:  # a broken pickle may raise anything at all
        asked = str(error) if str(error).startswith("it asks for ") else "it is not a complete batch of CIFAR-10"
        raise damaged(path, asked) from error
    data, labels = (_entry(batch, name) for name in ("data", "labels"))
    try:
        x = data.checked() if isinstance(data, _Array) else None
    except Exception as error:  # a pickle may set a state of any kind
        raise damaged(path, "its images are not an array of numbers") from error
    if x is None or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != _FEATURES:
        raise damaged(path, "it is not a CIFAR-10 batch of uint8 images of 3 x 32 x 32")
    return LabeledImages(x.reshape(-1, 3, 32, 32), check_labels(_labels(labels, path), len(x), path, classes))


def _check_memo(content: bytes) -> None:
    """Raise ValueError for a memo index higher than the number of operations: Python would allocate memory for it."""
    for operations, (opcode, number, _) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(number or 0) <= operations:
            raise ValueError("a memo index is out of range")


def _entry(batch: Any, name: str) -> Any:
    """Return an entry of a batch, whose keys are text or, from Python 3, bytes."""
    return batch.get(name, batch.get(name.encode())) if isinstance(batch, dict) else None


def _labels(labels: Any, path: Path) -> NDArray[Any]:
    try:
        if isinstance(labels, _Array):
            return labels.checked()
        if isinstance(labels, list | tuple) and all(type(label) is int for label in labels):
            return np.array(labels, np.int64)
    except Exception as error:  # a pickle may set a state of any kind
        raise damaged(path, "its labels are not a list of numbers") from error
    raise damaged(path, "labels must be whole numbers, one per image: its labels are not a list of numbers")
