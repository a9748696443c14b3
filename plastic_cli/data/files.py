"""Checks of files that are not trusted: their format, their size in memory, and errors that name them."""

from __future__ import annotations

import io
from pathlib import Path

from plastic_cli.errors import UserError
from plastic_cli.numerics.machine import memory

LARGEST_DEFLATE_RATIO = 1032
"""The largest compression ratio of deflate, which gzip and zip use (RFC 1951: 258 bytes in 2 bits)."""

_BLOCK = 1 << 20
_FORMATS = (
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a single array (.npy)"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def damaged(path: Path, what: str) -> UserError:
    """Return the error for a file with wrong content."""
    return UserError(
        f"{path} is damaged: {what}. Replace it with a good copy; "
        "if plastic downloaded it, delete it to download it again."
    )


def cannot_be_read(path: Path, error: OSError) -> UserError:
    """Return the error for a file that the operating system cannot read."""
    return UserError(f"{path} cannot be read: {error.strerror or error}.")


def what_it_is(head: bytes) -> str:
    """Return the format of a file by its first bytes, such as "a zip archive"; an empty string if unknown."""
    for magic, name in _FORMATS:
        if head.startswith(magic):
            return name
    text = head.lstrip().lower()
    return "a web page" if text.startswith((b"<!doctype", b"<html", b"<?xml")) else ""


def check_memory(path: Path, stored_bytes: int, numbers: int) -> None:
    """Raise UserError if `stored_bytes` bytes and `numbers` float32 values exceed the memory of this machine."""
    needed = stored_bytes + 4 * numbers
    there = memory()
    if there is not None and needed > there:
        raise UserError(
            f"{path} announces {numbers:,} numbers, which need {needed / 1e9:,.0f} GB of memory; this machine has "
            f"{there / 1e9:,.0f} GB. Store fewer images, or replace the file if it should be small."
        )


def shown(text: str) -> str:
    """Return a name from a file, safe to print: one line of at most 40 printable characters."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= 40 else f"{plain[:37]}..."


def shown_names(names: list[str]) -> str:
    """Return names from a file in one line: the first eight, and the number of the others."""
    listed = ", ".join(shown(name) for name in names[:8])
    return f"{listed} and {len(names) - 8:,} more" if len(names) > 8 else listed or "nothing"


def fill(stream: io.BufferedIOBase, target: memoryview) -> int:
    """Read from a binary stream into `target` until it is full or the stream ends; return the number of bytes."""
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _BLOCK])
        if not count:
            break
        done += count
    return done
