"""run.json: what a run is, as it stands on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plastic_cli.errors import UserError
from plastic_cli.runs.files import write_atomically

SCHEMA = 1
"""Version of run.json and metrics.jsonl. A reader refuses a newer one and reads every older one."""

RECORD_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = "lock"

STATUSES = ("created", "running", "completed", "failed", "interrupted")
"""What stands in run.json; a run that says "running" but has no living process is read as "crashed"."""


@dataclass
class RunRecord:
    """Everything known about one run. Times are UTC in ISO 8601; `seconds` counts all sittings but for lost work.

    measured_on: by metric of the summary, the data that it was measured on, where its split does not say so; read it
    with `metrics.data_of`.
    """

    run: str
    rule: str
    seed: int
    config: dict[str, Any]
    name: str | None = None
    status: str = "created"
    verb: str = "train"
    dataset: str | None = None
    created: str = ""
    started: str | None = None
    finished: str | None = None
    seconds: float = 0.0
    steps_done: dict[str, int] = field(default_factory=dict)
    summary: dict[str, float | None] = field(default_factory=dict)
    measured_on: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    speed: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    process: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Replace the run.json of `folder` in one step."""
        write_atomically(folder / RECORD_FILE, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def read_record(folder: Path) -> RunRecord:
    """Read the run.json of `folder`; raises UserError, in one line, where it is missing, damaged or too new."""
    path = folder / RECORD_FILE
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run: it has no {RECORD_FILE}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise UserError(f"{path} is not the record of a run.")
    if values["schema"] > SCHEMA:
        raise UserError(
            f"{path} was written by a newer version of plastic (format {values['schema']}, this one reads {SCHEMA})."
            " Upgrade plastic to use this run."
        )
    known = {entry.name for entry in fields(RunRecord)}
    try:
        record = RunRecord(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise UserError(f"{path} is incomplete: {error}.") from None
    wrong = _wrong_field(record)
    if wrong is not None:
        raise UserError(f"{path} is damaged: its '{wrong}' cannot be {getattr(record, wrong)!r:.80}.")
    return record


def _wrong_field(record: RunRecord) -> str | None:
    """Return the first field that every reader relies on and that holds something else, or None."""
    for names, kinds in _KINDS.items():
        for name in names:
            if not isinstance(getattr(record, name), kinds):
                return name
    if record.status not in STATUSES:
        return "status"
    for name, value in record.summary.items():
        if not isinstance(name, str) or not isinstance(value, float | int | None):
            return "summary"
    for name in ("created", "started", "finished"):
        try:
            datetime.fromisoformat(getattr(record, name) or "1970-01-01")
        except ValueError:
            return name
    return None


_KINDS: dict[tuple[str, ...], Any] = {
    ("run", "rule", "status", "verb", "created"): str,
    ("name", "dataset", "started", "finished", "error"): str | None,
    ("seed",): int,
    ("seconds",): float | int,
    ("config", "steps_done", "summary", "measured_on", "speed", "data", "versions", "machine", "process"): dict,
    ("argv",): list,
}


def now() -> str:
    """Return the present time in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
