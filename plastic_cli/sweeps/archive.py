"""A run's folder as bytes, for workers that do not see the store, and its way back in one step."""

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
"""What the folder of a run may be called that travels: what `plastic` calls runs, and what a person may call a copy."""
LARGEST_RUN = 64 << 30
"""Bytes of an unpacked run."""
MOST_FILES = 20_000
READ_AT_ONCE = 1 << 20
"""Bytes. Files are read in smaller pieces; only a header that is no header asks for more."""
MOVE_SECONDS = 60.0
"""A move that a living process is in the middle of is over after this time."""


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
    """Move a packed run into a store, whole or not at all, and return its folder.

    replaces: it is a later state of the run of that name, whose place it takes. Otherwise a run that happens to have
    the same name stays, and this one gets another. Raises UserError for a name that no run has, RunFailed for an
    archive that is damaged or holds anything but the files of a run.
    """
    if not RUN_NAME.fullmatch(run):
        raise UserError(f"{run!r:.80} is no name of a run: it has letters, digits, '.', '_' and '-'.")
    store.mkdir(parents=True, exist_ok=True)
    # Names that begin with a point are no runs.
    incoming = store / f".incoming-{secrets.token_hex(8)}"
    incoming.mkdir()
    try:
        try:
            _extract(content, incoming)
        except (
            tarfile.TarError,
            gzip.BadGzipFile,
            zlib.error,
            EOFError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
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
                # A folder is not moved onto one that holds something.
                return incoming.rename(target)
            except OSError:
                if not target.exists():
                    raise
                target = store / f"{run}{secrets.choice('abcdefghjkmnpqrstuvwxyz')}"
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise


def finish_moves(store: Path) -> None:
    """Put runs into their places whose process was killed between taking the old state away and putting the new."""
    for ready in store.glob(".ready-*"):
        with suppress(OSError):
            target = store / ready.name.split("-", 2)[2]
            if last_change(ready) > time.time() - MOVE_SECONDS:
                continue
            if target.exists():
                # It was killed before it took the old state away, which may have been gone on with since.
                shutil.rmtree(ready, ignore_errors=True)
            else:
                ready.rename(target)


def _put_in_place(incoming: Path, target: Path) -> Path:
    """Let a later state take the place of a run; where that is cut short, `finish_moves` finishes it."""
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
    """A stream that refuses to be read in pieces larger than READ_AT_ONCE: an archive may claim any size."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= READ_AT_ONCE:
            raise tarfile.ReadError("a header of absurd size")
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
                raise tarfile.ReadError(f"{member.name!r:.80} is no plain file")
            parts = path.parts
            if path.is_absolute() or not parts or any(part.startswith(".") or "\0" in part for part in parts):
                raise tarfile.ReadError(f"{member.name!r:.80} is no file of a run")
            room -= member.size
            if member.size < 0 or room < 0:
                raise tarfile.ReadError(f"there is no room for {member.name!r:.80} of {member.size:,} bytes")
            source = archive.extractfile(member)
            assert source is not None
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # "x": no file is written twice.
            with target.open("xb") as stream:
                shutil.copyfileobj(source, stream)
                stream.flush()
                os.fsync(stream.fileno())
    # At the end stands the checksum of all; before it nothing but padding.
    if len(unpacked.read(READ_AT_ONCE)) == READ_AT_ONCE:
        raise tarfile.ReadError("more follows behind its end")
