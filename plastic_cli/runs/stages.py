"""stages/VERB-HASH.json: the record of a completed eval, analyze or render in the folder of a run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from plastic_cli.errors import UserError
from plastic_cli.files import append_whole, write_atomically
from plastic_cli.plugins.rule import VERBS
from plastic_cli.runs.record import METRICS_FILE, read_record, settings_text

SCHEMA = 1
"""Version of the record. A reader ignores a newer one, so that the stage is carried out again."""

STAGES_FOLDER = "stages"
PENDING_FILE = ".pending.json"
"""Under STAGES_FOLDER: the record of a stage until its rows are written, with the size of the metrics file before."""

LARGEST_RECORD = 4 << 20
"""Bytes of a record; a larger file is ignored."""


@dataclass(frozen=True)
class StageRecord:
    """A stage that was completed on a run.

    config: all options of the stage. results: the last value of each metric, None if it was not finite. files: what it
    wrote, relative to the folder of the run; a film that `render --output` wrote, by its whole path. seconds: how long
    it took. versions: those of the packages, as in run.json. steps_done: how far the run had been trained. started,
    finished: UTC in ISO 8601.
    """

    verb: str
    config: dict[str, Any]
    results: dict[str, float | None] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    steps_done: dict[str, int] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    schema: int = SCHEMA

    def holds_for(self, folder: Path, steps_done: Mapping[str, int], versions: Mapping[str, str]) -> bool:
        """Return whether the stage need not be carried out again on the run in `folder`.

        The run has not been trained further, the versions of plastic and of the rule are those in `versions`, and all
        files are in the folder. A film that was written elsewhere is not.
        """
        there = all((folder / name).is_file() and not Path(name).is_absolute() for name in self.files)
        return self.is_of_versions(versions) and self.steps_done == steps_done and there

    def is_of_versions(self, versions: Mapping[str, str]) -> bool:
        """Return whether the versions of plastic and of the rule are those in `versions`."""
        return all(self.versions.get(name) == versions.get(name) for name in ("plastic", "rule"))


def stage_file(folder: Path, verb: str, config: Mapping[str, Any]) -> Path:
    """Return the path of the record of a stage; equal configurations have the same."""
    return folder / STAGES_FOLDER / f"{verb}-{sha256(settings_text(verb, config).encode()).hexdigest()[:12]}.json"


def read_stage(folder: Path, verb: str, config: Mapping[str, Any]) -> StageRecord | None:
    """Return the record of a stage on the run in `folder`; None if there is none or it is damaged."""
    found = _read(stage_file(folder, verb, config))
    return found if found is not None and (found.verb, found.config) == (verb, dict(config)) else None


def read_stages(folder: Path) -> list[StageRecord]:
    """Return the records of all stages of the run in `folder`, oldest first; damaged ones are left out."""
    paths = [path for path in (folder / STAGES_FOLDER).glob("*.json") if not path.name.startswith(".")]
    found = [record for path in paths if (record := _read(path)) is not None]
    return sorted(found, key=lambda record: (record.finished, record.verb, settings_text(record.verb, record.config)))


def commit_stage(folder: Path, record: StageRecord, rows: Sequence[str]) -> None:
    """Add the metrics and the record of a stage: both, or after `undo_unfinished_commit` none of them.

    rows: lines of the metrics file. Each gets the name of the record, so that a stage that is carried out again
    replaces its rows. The caller holds the lock of the run. Raises OSError if they cannot be written.
    """
    metrics, target = folder / METRICS_FILE, stage_file(folder, record.verb, record.config)
    target.parent.mkdir(exist_ok=True)
    # First the record: without it the stage is carried out again.
    target.unlink(missing_ok=True)
    mark = f', "record": "{target.stem}"}}\n'
    _drop_lines(metrics, mark.encode())
    pending = target.parent / PENDING_FILE
    size = metrics.stat().st_size if metrics.exists() else 0
    write_atomically(pending, json.dumps({**asdict(record), "metrics_bytes": size}, indent=1, allow_nan=False) + "\n")
    try:
        if rows:
            append_whole(metrics, "".join(row.removesuffix("}\n") + mark for row in rows), durable=True)
        # One rename: from now on the rows stay and the record counts.
        pending.replace(target)
    except BaseException:
        undo_unfinished_commit(folder)
        raise


def _drop_lines(path: Path, end: bytes) -> None:
    """Remove the lines of a metrics file that end with `end`; the file is replaced only if it has some.

    The checkpoint of an unfinished run stores how many bytes of the file belong to it. There a removed line becomes a
    blank line of the same length.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    if end in content:
        is_counted = _is_unfinished(path.parent)
        lines = content.splitlines(keepends=True)
        kept = (
            line if not line.endswith(end) else b" " * (len(line) - 1) + b"\n" if is_counted else b"" for line in lines
        )
        write_atomically(path, b"".join(kept))


def _is_unfinished(folder: Path) -> bool:
    with suppress(UserError):
        return read_record(folder).status != "completed"
    return False


def undo_unfinished_commit(folder: Path) -> None:
    """Remove the rows of a stage whose process ended before its record was in place; the caller holds the lock."""
    pending = folder / STAGES_FOLDER / PENDING_FILE
    try:
        size = json.loads(pending.read_bytes())["metrics_bytes"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # Damaged on the disk: the rows stay.
        size = None
    metrics = folder / METRICS_FILE
    with suppress(FileNotFoundError):
        if type(size) is int and 0 <= size < metrics.stat().st_size:
            os.truncate(metrics, size)
    pending.unlink(missing_ok=True)


def _read(path: Path) -> StageRecord | None:
    try:
        if path.stat().st_size > LARGEST_RECORD:
            return None
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        return None
    try:
        record = StageRecord(**{name: value for name, value in values.items() if name in _FIELDS})
    except TypeError:
        return None
    return record if _is_whole(record) else None


def _is_whole(record: StageRecord) -> bool:
    return (
        record.verb in VERBS
        and all(isinstance(getattr(record, name), kinds) for name, kinds in _KINDS.items())
        and all(_is_finite(value) for value in (*record.results.values(), record.seconds) if value is not None)
        and all(isinstance(name, str) and "\0" not in name for name in record.files)
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("verb", "started", "finished"), (str,)),
    **dict.fromkeys(("config", "results", "versions", "steps_done"), (dict,)),
    "files": (list,),
    "seconds": (int, float),
}
_FIELDS = frozenset(entry.name for entry in fields(StageRecord))
