"""The index of a store: files under `.index/` that make reading many runs fast.

Each file begins with its format and a checksum. A file that is damaged, has another format or is missing is written
again, and the folders of the runs stay authoritative.
"""

from __future__ import annotations

import gc
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from plastic_cli.files import write_atomically

INDEX_FOLDER = ".index"
INDEX_SCHEMA = 4
"""Format of the index; an index of another format is written again."""
_INDEX_HEAD = re.compile(rb'\{"schema": (\d{1,9}), "checksum": (\d{1,10}), ')


def read_index(store: Path, name: str, is_valid: Callable[[str, Any], bool]) -> dict[str, Any]:
    """Return the content of an index file; its entries are those of the form [time, size, what was read].

    The file begins with its format and the checksum of the rest, so that damage is always noticed.
    """
    try:
        whole = (store / INDEX_FOLDER / name).read_bytes()
        head = _INDEX_HEAD.match(whole)
        if head is None or int(head[1]) != INDEX_SCHEMA or int(head[2]) != zlib.crc32(memoryview(whole)[head.end() :]):
            return {"entries": {}}
        with without_garbage_collection():
            content = json.loads(whole)
        return {
            **content,
            "entries": {
                run: entry
                for run, entry in content["entries"].items()
                if type(entry) is list
                and len(entry) == 3
                and type(entry[0]) is type(entry[1]) is int
                and is_valid(run, entry[2])
            },
        }
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        # A damaged index can be written again.
        return {"entries": {}}


def write_index(store: Path, name: str, content: Mapping[str, Any]) -> None:
    """Replace an index file; if that fails, reading is slower but not wrong."""
    body = json.dumps(content)[1:].encode()
    head = f'{{"schema": {INDEX_SCHEMA}, "checksum": {zlib.crc32(body)}, '.encode()
    with suppress(OSError):
        folder = store / INDEX_FOLDER
        folder.mkdir(exist_ok=True)
        write_atomically(folder / name, head + body, durable=False)


def checksum_of(stream: IO[bytes]) -> int:
    """Return the checksum of the rest of a file."""
    checksum = 0
    while block := stream.read(1 << 20):
        checksum = zlib.crc32(block, checksum)
    return checksum


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off: for half a million new objects it takes as long as creating them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
