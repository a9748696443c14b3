"""Tiny data sets, written from the descriptions of their formats."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np

_TYPE_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array) -> bytes:
    """The IDX file of an array, written from the format's description."""
    header = bytes([0, 0, _TYPE_CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, train: int = 40, test: int = 20, *, seed: int = 0, suffix: str = "", classes: int = 10):
    """Write four IDX files named as those of MNIST; return (train x, train y, test x, test y)."""
    rng = np.random.default_rng(seed)
    arrays = []
    for name, count in (("train", train), ("t10k", test)):
        x = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        y = rng.permutation(np.arange(count) % classes).astype(np.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", x)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", y)
        arrays += [x, y]
    return arrays


class _Python2Pickler(pickle._Pickler):
    """Pickles byte strings and NumPy's private function like Python 2 and NumPy 1, which wrote the CIFAR-10 batches."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text):
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(content)) + content)

    dispatch[bytes] = save_string
    dispatch[str] = save_string

    def save_global(self, obj, name=None):
        module = "numpy.core.multiarray" if obj.__name__ == "_reconstruct" else obj.__module__
        self.write(b"c" + module.encode() + b"\n" + obj.__name__.encode() + b"\n")

    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def write_cifar_batch(path: Path, data, labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        _Python2Pickler(stream, protocol=2).dump({"batch_label": "a batch", "labels": labels, "data": data})


def write_cifar(folder: Path, per_batch: int = 10, *, seed: int = 0):
    """Write six batches; return their images (6, n, 3072) and labels (6, n)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, per_batch, 3072), dtype=np.uint8)
    labels = rng.permuted(np.arange(6 * per_batch).reshape(6, per_batch) % 10, axis=1)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name, x, y in zip(names, images, labels, strict=True):
        write_cifar_batch(folder / name, x, y.tolist())
    return images, labels
