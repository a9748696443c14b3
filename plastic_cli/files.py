"""Writing files and lines completely or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from plastic_cli.errors import UserError


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` when the block ends without an error.

    durable: wait until file and folder are on the disk, so that a power cut cannot bring back the old content.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            # mkstemp makes files private; the files of a run are as readable as any other file of their owner.
            if hasattr(os, "fchmod"):
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    # Windows opens no folders.
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` with `content` in one step."""
    with atomic_file(path, durable=durable) as stream:
        # A name that is not UTF-8 is written as a code, and the rest of the text as it is.
        stream.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path of the same suffix, then move the file to `path` in one step."""
    # A random name: processes of two machines may have the same number and share a disk.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors for `torch.load(path, weights_only=True)` in one step; raises OSError if the disk is full."""
    import torch

    with atomic_file(path) as stream:
        try:
            torch.save(dict(content), stream)
        except RuntimeError as error:
            # When it closes the archive, torch raises a RuntimeError that hides the OSError.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_tensors(path: Path) -> Any:
    """Read what `write_tensors` wrote, tensors on the CPU.

    Nothing in the file can run code, and reading takes no more memory than the file has bytes. Raises
    FileNotFoundError, and UserError if the file is damaged or holds more than tensors and plain values.
    """
    try:
        return _read_archive(path)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is damaged (it holds more than tensors and plain values, and nothing else is loaded)."
        ) from None
    except Exception as error:  # noqa: BLE001  for a damaged file torch.load raises errors of any kind
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({reason}).") from None


def _read_archive(path: Path) -> Any:
    import torch

    with path.open("rb") as stream:
        with zipfile.ZipFile(stream) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
            # Torch does not check these checksums, so that a flipped bit would become a wrong weight.
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is not what was written")
        stream.seek(0)
        return torch.load(stream, map_location="cpu", weights_only=True)


def append_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Append lines completely or not at all; raises OSError if they cannot be written.

    durable: wait until they are on the disk.
    """
    content = text.encode()
    # O_BINARY, on Windows, keeps line ends as they are.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        before = os.fstat(descriptor).st_size
        if before:
            os.lseek(descriptor, before - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                # A line that was torn by a crash must not damage the next one.
                content = b"\n" + content
        written = os.write(descriptor, content)
        if written != len(content):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, before: float | None = None) -> None:
    """Delete temporary files that a killed process left in `folder` or below.

    before: only files that are older than this time, in seconds since 1970; None: all, since the caller has the lock.
    """
    for leftover in folder.rglob(".*.tmp*"):
        with suppress(OSError):
            if before is None or last_change(leftover) < before:
                leftover.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder with its content; a reader sees all of it or nothing."""
    # A random name, because a killed process may have left a folder with the same beginning.
    shutil.rmtree(folder.rename(folder.with_name(f".removed-{folder.name:.100}-{secrets.token_hex(4)}")))


def last_change(path: Path) -> float:
    """Return when a file or folder was last written to, moved or renamed, in seconds since 1970."""
    state = path.lstat()
    return max(state.st_mtime, state.st_ctime)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
