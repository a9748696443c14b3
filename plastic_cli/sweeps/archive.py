"""The folder of a run as an archive, for workers that do not see the store."""

from __future__ import annotations

import gzip
import io
import os
import re
import secrets
import shutil
import tarfile
import time
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.escapes import printable_line
from plastic_cli.files import last_change
from plastic_cli.runs.record import LOCK_FILE, RECORD_FILE

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""The names of folders that can be sent: those of runs, and usual names of copies."""
LARGEST_RUN = 64 << 30
"""Bytes of an unpacked run."""
MOST_FILES = 20_000
READ_AT_ONCE = 1 << 20
"""Bytes. Files are read in smaller pieces; only a damaged header asks for more."""
MOVE_SECONDS = 60.0
"""Seconds. A move of a living process takes less time."""


_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


def pack(folder: Path) -> bytes:
    """Return a run's folder as a compressed archive, without its lock."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != LOCK_FILE and not path.name.startswith("."):
                archive.add(path, str(path.relative_to(folder)), recursive=False)
    return stream.getvalue()


def unpack(content: bytes, store: Path, run: str, *, replaces: bool = False) -> Path:
    """Move a packed run into a store, completely or not at all, and return its folder.

    replaces: the run is a later state of the run with that name and replaces it. Otherwise an existing run with the
    same name stays, and this one gets another name. Raises UserError for an invalid name, RunFailed for an archive that
    is damaged or holds anything but the files of a run.
    """
    if not RUN_NAME.fullmatch(run):
        raise UserError(f"{run!r:.80} is not the name of a run: use letters, digits, '.', '_' and '-'.")
    store.mkdir(parents=True, exist_ok=True)
    # A folder whose name begins with a dot is not a run.
    incoming = store / f".incoming-{secrets.token_hex(8)}"
    incoming.mkdir()
    try:
        try:
            _extract(content, incoming)
        except _DAMAGE as error:
            reason = printable_line(str(error)) or type(error).__name__
            raise RunFailed(f"run {run} came back in an archive that is damaged: {reason}.") from None
        except OSError as error:
            raise RunFailed(f"cannot write run {run} into {store}: {error.strerror or error}.") from None
        if not (incoming / RECORD_FILE).is_file():
            raise RunFailed(f"run {run} came back without its {RECORD_FILE}.")
        target = store / run
        if replaces and target.exists():
            return _put_in_place(incoming, target)
        while True:
            try:
                # The system refuses to replace a folder that is not empty.
                return incoming.rename(target)
            except OSError:
                if not target.exists():
                    raise
                target = store / f"{run}{secrets.choice('abcdefghjkmnpqrstuvwxyz')}"
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise


def finish_moves(store: Path) -> None:
    """Finish moves whose process was killed between removing the old state of a run and placing the new one."""
    for ready in store.glob(".ready-*"):
        with suppress(OSError):
            target = store / ready.name.split("-", 2)[2]
            if last_change(ready) > time.time() - MOVE_SECONDS:
                continue
            if target.exists():
                # It was killed before it removed the old state, which another process may have continued since.
                shutil.rmtree(ready, ignore_errors=True)
            else:
                ready.rename(target)


def _put_in_place(incoming: Path, target: Path) -> Path:
    """Replace a run with a later state; if that is interrupted, `finish_moves` finishes it."""
    token = secrets.token_hex(8)
    ready = incoming.rename(incoming.with_name(f".ready-{token}-{target.name}"))
    try:
        before = target.rename(target.with_name(f".removed-{token}"))
        try:
            ready.rename(target)
        except OSError:
            before.rename(target)
            raise
    except OSError:
        shutil.rmtree(ready, ignore_errors=True)
        raise
    shutil.rmtree(before, ignore_errors=True)
    return target


class _Bounded(io.BufferedIOBase):
    """A stream that refuses reads of more than READ_AT_ONCE, because a damaged archive may claim any size."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= READ_AT_ONCE:
            raise tarfile.ReadError("a header is too large")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _extract(content: bytes, folder: Path) -> None:
    """Write the files of an archive into an empty folder; raises tarfile.TarError for anything but plain files."""
    room = min(LARGEST_RUN, shutil.disk_usage(folder).free)
    unpacked = gzip.GzipFile(fileobj=io.BytesIO(content))
    with tarfile.open(fileobj=_Bounded(unpacked), mode="r:") as archive:
        for number, member in enumerate(archive):
            path = PurePosixPath(member.name)
            if number >= MOST_FILES:
                raise tarfile.ReadError(f"it holds more than {MOST_FILES:,} files")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise tarfile.ReadError(f"{member.name!r:.80} is not a plain file")
            parts = path.parts
            if path.is_absolute() or not parts or any(part.startswith(".") or "\0" in part for part in parts):
                raise tarfile.ReadError(f"{member.name!r:.80} is not a file of a run")
            room -= member.size
            if member.size < 0 or room < 0:
                raise tarfile.ReadError(f"the disk has no space for {member.name!r:.80} of {member.size:,} bytes")
            source = archive.extractfile(member)
            assert source is not None
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # With "x" no file is written twice.
            with target.open("xb") as stream:
                shutil.copyfileobj(source, stream)
                stream.flush()
                os.fsync(stream.fileno())
    # Only padding and the checksum may follow.
    if len(unpacked.read(READ_AT_ONCE)) == READ_AT_ONCE:
        raise tarfile.ReadError("data follow after its end")
