"""A run's folder as bytes, for workers that do not see the store, and its way back in one step."""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
from pathlib import Path

from plastic_cli.runs.record import LOCK_FILE


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
    the same name stays, and this one gets another.
    """
    store.mkdir(parents=True, exist_ok=True)
    # Names that begin with a point are no runs.
    incoming = store / f".incoming-{secrets.token_hex(8)}"
    incoming.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            archive.extractall(incoming, filter="data")
        target = store / run
        if replaces and target.exists():
            before = target.rename(store / f".removed-{secrets.token_hex(8)}")
            incoming.rename(target)
            shutil.rmtree(before, ignore_errors=True)
            return target
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
