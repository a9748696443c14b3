"""Reads NumPy's .npy and .npz files.

numpy.load is not used: it allocates the memory that a header announces before it knows how much data the file holds.

Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import (
    LARGEST_DEFLATE_RATIO,
    cannot_be_read,
    check_memory,
    damaged,
    fill,
    shown,
    shown_names,
    what_it_is,
)
from plastic_cli.errors import UserError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_MOST_DIMENSIONS = 32
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file; other members are ignored.

    Raises UserError, which names the file, if it is not an .npz file or cannot be read.
    """
    with _opened(path) as archive:
        return list(_arrays(archive))


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Return the arrays called `names` in an .npz file, in the byte order of this machine.

    Raises UserError, which names the file, if it cannot be read, lacks an array, holds pickled objects or is damaged.
    """
    with _opened(path) as archive:
        members = _arrays(archive)
        if absent := [name for name in names if name not in members]:
            raise UserError(
                f"{path} has no array {' or '.join(absent)}: it holds {shown_names(list(members))}. "
                f"Save it as numpy.savez(path, {', '.join(f'{name}=...' for name in names)})."
            )
        return [_read_member(archive, members[name], path) for name in names]


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array in an .npy file, in the byte order of this machine. Raises UserError as `read_npz` does."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.peek(64)[:64]
            if not head.startswith(_MAGIC):
                kind = what_it_is(head)
                raise (
                    UserError(f"{path} is {kind}, not an .npy file.")
                    if kind
                    else damaged(path, "it is not an .npy file")
                )
            return _read_array(stream, size, path, path.stem)
    except OSError as error:
        raise cannot_be_read(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with path.open("rb") as stream:
            head = stream.peek(64)[:64]
            kind = what_it_is(head)
            if kind and not head.startswith(b"PK"):
                raise UserError(f"{path} is {kind}, not an .npz file.")
            try:
                archive = zipfile.ZipFile(stream)
            except Exception as error:  # a broken directory may raise anything at all
                raise damaged(path, "it is not a complete .npz file") from error
            with archive:
                yield archive
    except OSError as error:
        raise cannot_be_read(path, error) from error


def _arrays(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    name = shown(info.filename.removesuffix(".npy"))
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{path}: the array {name} is encrypted. Store it without a password.")
    if info.compress_type not in _COMPRESSIONS:
        raise UserError(
            f"{path}: the array {name} has an unknown compression (method {info.compress_type}). "
            "Write the file with numpy.savez_compressed."
        )
    if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > LARGEST_DEFLATE_RATIO * info.compress_size:
        raise damaged(path, f"{info.compress_size:,} packed bytes cannot hold the {info.file_size:,} of {name}")
    try:
        with archive.open(info) as stream:
            return _read_array(cast("io.BufferedIOBase", stream), info.file_size, path, name)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a broken member may raise anything at all
        raise damaged(path, f"the array {name} cannot be uncompressed") from error


def _read_array(stream: io.BufferedIOBase, size: int, path: Path, name: str) -> NDArray[Any]:
    """Read one array from a stream of `size` bytes. Memory is allocated only if the header agrees with the size."""
    dtype, fortran_order, shape, header = _read_header(stream, path, name)
    if dtype.hasobject:
        raise UserError(
            f"{path}: the array {name} holds Python objects, which are not loaded because they could run code. "
            "Save an array of numbers or of text: numpy.stack(x) for images of one size, y.astype(str) for names."
        )
    count = math.prod(shape)
    announced = count * dtype.itemsize
    if dtype.itemsize == 0 or announced != size - header:
        raise damaged(
            path, f"the header of {name} announces {announced:,} bytes of data and {size - header:,} are there"
        )
    check_memory(path, announced, count)
    content = np.empty(announced, np.uint8)
    there = fill(stream, content.data)
    if there < announced:
        raise damaged(path, f"the header of {name} announces {announced:,} bytes of data and {there:,} are there")
    flat = content.view(dtype)
    array = flat.reshape(shape[::-1]).transpose() if fortran_order else flat.reshape(shape)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    if dtype.kind == "U" and not _is_text(array):
        raise damaged(path, f"the text in {name} has invalid characters")
    return array


def _is_text(array: NDArray[Any]) -> bool:
    """Return whether every character is a valid code point. Python cannot handle a text with an invalid one."""
    codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
    return not codes.size or bool(codes.max() <= sys.maxunicode and not ((codes >= 0xD800) & (codes <= 0xDFFF)).any())


def _read_header(stream: io.BufferedIOBase, path: Path, name: str) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Return type, order, shape and the number of bytes before the data."""
    start = stream.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC):
        raise damaged(path, f"the array {name} does not start like an array")
    if start[6] not in (1, 2, 3):
        raise UserError(f"{path}: the array {name} has the unknown format version {start[6]}.")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _LONGEST_HEADER:
        raise damaged(path, f"the header of {name} has {length:,} bytes")
    try:
        text = stream.read(length).decode("utf-8" if start[6] == 3 else "latin1")
        header = ast.literal_eval(text.strip())
        described, fortran_order, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
    except Exception as error:  # the text may be anything
        raise damaged(path, f"the header of {name} is invalid") from error
    if not isinstance(described, str):
        raise UserError(f"{path}: the array {name} holds records of several fields. Save one plain array.")
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**63 for size in shape)
    if not sizes or len(shape) > _MOST_DIMENSIONS or not isinstance(fortran_order, bool):
        raise damaged(path, f"the header of {name} gives an impossible shape")
    try:
        dtype = np.dtype(described)
    except Exception as error:  # numpy raises several kinds
        raise damaged(path, f"the header of {name} gives an unknown type") from error
    if dtype.names is not None or dtype.subdtype is not None:
        raise UserError(f"{path}: the array {name} holds records of several fields. Save one plain array.")
    return dtype, fortran_order, shape, 8 + width + length
