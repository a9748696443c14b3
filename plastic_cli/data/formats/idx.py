"""Reads IDX files, the format of MNIST, plain or gzipped.

torchvision's reader is not used because it reads a whole file before it checks the header.

Source of the format: http://yann.lecun.com/exdb/mnist/, section "The IDX file format".
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.files import (
    LARGEST_DEFLATE_RATIO,
    cannot_be_read,
    check_memory,
    damaged,
    fill,
    what_it_is,
)
from plastic_cli.errors import UserError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in an IDX file, in the byte order of this machine.

    The content, not the name, says whether it is gzipped. Raises UserError, which names the file, if it cannot be read
    or its header does not match its length.
    """
    with _opened(path) as (stream, size):
        packed = isinstance(stream, gzip.GzipFile)
        dtype, shape = _header(stream, path)
        announced = math.prod(shape) * dtype.itemsize
        promise = f"its header announces {announced:,} bytes of data"
        room = LARGEST_DEFLATE_RATIO * size if packed else size - stream.tell()
        if packed and announced > room:
            raise damaged(path, f"{promise}, more than {size:,} packed bytes can hold")
        if not packed and announced != room:
            raise damaged(path, f"{promise} and {room:,} are there")
        check_memory(path, announced, math.prod(shape))
        content = np.empty(announced, np.uint8)
        count = fill(stream, content.data)
        if count < announced:
            raise damaged(path, f"{promise} and {count:,} are there")
        if stream.read(1):
            raise damaged(path, f"{promise} and more are there")
    return content.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file announces, without reading the data."""
    with _opened(path) as (stream, _):
        return _header(stream, path)[1]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """Open a file, uncompressed if it is compressed, and give its stored size in bytes."""
    try:
        with path.open("rb") as plain:
            size = os.fstat(plain.fileno()).st_size
            if plain.peek(2)[:2] == _GZIP:
                with gzip.open(plain) as unpacked:
                    yield unpacked, size
            else:
                yield plain, size
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, f"it cannot be uncompressed ({error})") from error
    except OSError as error:
        raise cannot_be_read(path, error) from error


def _header(stream: io.BufferedIOBase, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 4:
        kind = what_it_is(magic + stream.read(60))
        if kind:
            raise UserError(f"{path} is {kind}, not an IDX file. Put the IDX file there, plain or gzipped.")
        raise damaged(path, "it does not start like an IDX file")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise damaged(path, "it ends within its header")
    return np.dtype(_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)
