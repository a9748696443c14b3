"""Files from elsewhere: what they are, whether they fit into memory, and the errors that name them."""

from __future__ import annotations

import io
import os
from pathlib import Path

from plastic_cli.errors import UserError

LARGEST_DEFLATE_RATIO = 1032
"""Deflate, which gzip and zip use, never packs more bytes than this into one (RFC 1951: 258 of them into 2 bits)."""

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
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself"),
)


def damaged(path: Path, what: str) -> UserError:
    """Return the error for a file that does not hold what it should."""
    return UserError(
        f"{path} is damaged: {what}. Replace it with a good copy; "
        "a set that plastic downloads comes again once the file is deleted."
    )


def cannot_be_read(path: Path, error: OSError) -> UserError:
    """Return the error for a file that the system does not give."""
    return UserError(f"{path} cannot be read: {error.strerror or error}.")


def what_it_is(head: bytes) -> str:
    """Return what a file is by its first bytes, such as "a zip archive", or an empty string where that is unknown."""
    for magic, name in _FORMATS:
        if head.startswith(magic):
            return name
    text = head.lstrip().lower()
    return "a web page" if text.startswith((b"<!doctype", b"<html", b"<?xml")) else ""


def check_memory(path: Path, stored_bytes: int, numbers: int) -> None:
    """Raise UserError where `stored_bytes` and as many float32 as `numbers` exceed the memory of this machine."""
    needed, there = stored_bytes + 4 * numbers, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"{path} announces {numbers:,} numbers, which take {needed / 1e9:,.0f} GB of memory, and this machine has "
            f"{there / 1e9:,.0f} GB. Store fewer images, or replace the file if it should be small."
        )


def shown(text: str) -> str:
    """Return a name from a file so that it is safe to print: one line, printable characters, not too many."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= 40 else f"{plain[:37]}..."


def shown_names(names: list[str]) -> str:
    """Return names from a file in one line: the first eight of them and how many there are besides."""
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
