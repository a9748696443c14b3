"""Reading IDX files, the format of MNIST, plain or gzipped.

Source of the format: http://yann.lecun.com/exdb/mnist/, section "The IDX file format".
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.data.arrays import damaged
from plastic_cli.errors import UserError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in an IDX file, in the byte order of this machine.

    Raises UserError, naming the file, where it cannot be read or its header disagrees with its length.
    """
    with _opened(path) as stream:
        dtype, shape = _header(stream, path)
        content = bytearray(stream.read())
    announced = math.prod(shape) * dtype.itemsize
    if len(content) != announced:
        raise damaged(path, f"its header announces {announced:,} bytes of data and {len(content):,} are there")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file announces, without reading the data."""
    with _opened(path) as stream:
        return _header(stream, path)[1]


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    try:
        with path.open("rb") as plain:
            if path.suffix == ".gz":
                with gzip.open(plain) as unpacked:
                    yield unpacked
            else:
                yield plain
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, f"it does not unpack ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _header(stream: io.BufferedIOBase, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 4:
        raise damaged(path, "it does not begin like an IDX file")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise damaged(path, "it ends within its header")
    return np.dtype(_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)
