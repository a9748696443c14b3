"""Writing files so that each one appears whole or not at all, and lines that are appended whole."""

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
    """Open a file that takes the place of `path` only when the block ends well.

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
    """Replace `path` by `content` in one step."""
    with atomic_file(path, durable=durable) as stream:
        # A text may hold a name that is not UTF-8: its code must not cost the rest of the file.
        stream.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name of the same ending, then move it to `path` in one step."""
    # Not the process's number: processes of two machines may have the same and share a disk.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `torch.load(path, weights_only=True)` reads, in one step; raises OSError where the disk is full."""
    import torch

    with atomic_file(path) as stream:
        try:
            torch.save(dict(content), stream)
        except RuntimeError as error:
            # Closing its archive torch complains of what is missing in it and hides why.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_tensors(path: Path) -> Any:
    """Read what `write_tensors` wrote, tensors on the CPU.

    Nothing in the file can run code, and reading takes no more memory than the file has bytes. Raises
    FileNotFoundError, and UserError where the file is damaged or holds more than tensors and plain values.
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


def append_whole(path: Path, text: str) -> None:
    """Append lines wholly or not at all; raises OSError where the disk does not take them."""
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
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, before: float | None = None) -> None:
    """Delete temporary files that a killed process left in `folder` or below.

    before: only those that are older than this time, in seconds since 1970; None: whoever calls holds the folder.
    """
    for leftover in folder.rglob(".*.tmp*"):
        with suppress(OSError):
            if before is None or last_change(leftover) < before:
                leftover.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that it holds, in one step for a reader."""
    # A new name each time: the rest of a folder that a killed process was removing must not be in the way.
    shutil.rmtree(folder.rename(folder.with_name(f".removed-{folder.name:.100}-{secrets.token_hex(4)}")))


def last_change(path: Path) -> float:
    """Return when a file or folder was last written to, moved or renamed, in seconds since 1970."""
    state = path.lstat()
    return max(state.st_mtime, state.st_ctime)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
