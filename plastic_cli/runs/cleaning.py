"""Removal of what killed processes leave in a folder of runs, as soon as no living process can need it."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from plastic_cli.files import last_change, remove_leftovers
from plastic_cli.runs.index import INDEX_FOLDER
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.record import LOCK_FILE, RECORD_FILE

DAY = 24 * 3600.0
"""Seconds. A living process needs such files only for moments, or renews them (the marker of a sweep)."""
RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z]{4,8}")
SWEEPS_FOLDER = ".sweeps"
"""Under the store: claims, logs and the trials of `plastic tune`."""


def clean_store_daily(store: Path) -> None:
    """Clean a store that has not been cleaned for a day; a store without an index is not cleaned yet."""
    stamp = store / INDEX_FOLDER / "cleaned"
    with suppress(OSError):
        if not stamp.parent.is_dir() or (stamp.exists() and stamp.stat().st_mtime > time.time() - DAY):
            return
        stamp.touch()
        clean_store(store)


def clean_store(store: Path, age: float = DAY) -> None:
    """Remove leftovers that are older than `age` seconds; what cannot be removed stays.

    Leftovers are: folders of runs that were killed before their first record, runs that were being removed or moved
    into the store, temporary files, and markers and claims of killed sweeps. Folders with a record and folders that are
    not named like a run are never touched.
    """
    before = time.time() - age
    for path in store.iterdir():
        with suppress(OSError):
            _clean(path, before)


def _clean(path: Path, before: float) -> None:
    if path.is_symlink() or not path.is_dir():
        return
    if path.name.startswith((".removed-", ".incoming-")):
        if last_change(path) < before:
            shutil.rmtree(path, ignore_errors=True)
    elif path.name == INDEX_FOLDER:
        remove_leftovers(path, before)
    elif path.name == SWEEPS_FOLDER:
        remove_leftovers(path, before)
        _clean_sweeps(path, before)
    elif RUN_ID.fullmatch(path.name):
        remove_leftovers(path, before)
        if not (path / RECORD_FILE).exists() and last_change(path) < before:
            _remove_empty(path)


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a run that holds only its lock, if no process holds the lock."""
    if [entry.name for entry in folder.iterdir()] == [LOCK_FILE] and not is_held(folder):
        (folder / LOCK_FILE).unlink()
    # This fails for a folder that is not empty.
    folder.rmdir()


def _clean_sweeps(folder: Path, before: float) -> None:
    for marker in folder.glob("marker-*"):
        if last_change(marker) < before:
            marker.unlink(missing_ok=True)
    for settings in folder.glob("logs/*.toml"):
        # A run reads it in its first second.
        if last_change(settings) < before:
            settings.unlink(missing_ok=True)
    for claim in folder.glob("claims/*.lock"):
        if last_change(claim) < before:
            # A claim is held for as long as its run takes.
            with suppress(Timeout), FileLock(claim, timeout=0):
                claim.unlink(missing_ok=True)
