"""The lock of a run's folder: one process at a time writes to a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.runs.record import LOCK_FILE

try:
    import fcntl
except ImportError:
    # Windows.
    fcntl = None  # type: ignore[assignment]

HELD = "is being written by another process"
"""Words of the error if another process holds a run."""
READERS_SECONDS = 1.0
"""Time that a writer waits for readers, which hold the lock for microseconds to check whether a run is alive."""


@contextmanager
def locked_folder(folder: Path, process: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder of a run against other processes.

    The operating system frees the lock when the process ends, however it ends. process: pid and host of the last
    writer, for the message. Raises UserError if another process holds the folder, RunFailed if the folder cannot
    be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=READERS_SECONDS)
    except Timeout:
        where = f" (process {process['pid']} on {process['host']})" if {"pid", "host"} <= process.keys() else ""
        raise UserError(f"run {folder.name} {HELD}{where}. Wait for it or stop it.") from None
    except OSError as error:
        raise RunFailed(f"cannot write to {folder}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a living process writes to the run in `folder`.

    On POSIX systems this takes a shared lock, so that two readers do not see each other as a writer, and so that it
    works in a store that cannot be written.
    """
    if fcntl is None:
        return _is_locked(folder / LOCK_FILE)
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_locked(path: Path) -> bool:
    """Say whether another process holds the lock `path`, on systems that have exclusive locks only."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True
