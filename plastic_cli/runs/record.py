"""run.json: the record of a run on the disk."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plastic_cli.config.model import present_names
from plastic_cli.errors import UserError
from plastic_cli.files import write_atomically
from plastic_cli.plugins.models import former_names, with_added_options

SCHEMA = 1
"""Version of run.json and metrics.jsonl. A reader refuses a newer one and reads every older one."""

RECORD_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = "lock"

LARGEST_RECORD = 16 << 20
"""Bytes of a run.json; a larger file is not read."""
DEEPEST = 64
"""Levels of lists and tables in a run.json."""

UNFINISHED = ("created", "running")
"""The statuses of a run that has not ended; without a process that holds it, it counts as crashed."""
STATUSES = ("created", "running", "completed", "failed", "interrupted")
"""The statuses in run.json; a run with status "running" that no process holds is read as "crashed"."""


BOOKKEEPING = frozenset({"dataset", "seed", "device", "name", "runs", "data", "threads", "workers"})
"""Fields of a configuration that do not change the experiment; the data set is a separate key."""

NOTES_BETWEEN = "; "
"""What stands between two notes on the data of a run."""


@dataclass
class RunRecord:
    """Everything known about one run. Times are UTC in ISO 8601; `seconds` counts all sessions, without lost work.

    measured_on: the data that a metric of the summary was measured on, if its split does not say so; read it with
    `metrics.data_of`. project: the git commit of the user's project when the run started, and whether tracked files
    had changed; empty if the run did not start in a repository.
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
    project: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def classes_of_images(self) -> str:
        """The classes that the images of all splits have: "0 to 4, 7", or "all"; "" for data without classes."""
        only, count = self.data.get("only_classes"), self.data.get("classes")
        # A record is read as it is, so the values can be of any type.
        if isinstance(only, list) and only and all(isinstance(each, int) for each in only) and len(only) != count:
            return ranges_text(only)
        return "all" if count else ""

    @property
    def data_note(self) -> str:
        """What a reader must know about the data, such as a choice of classes; "" if there is nothing."""
        classes = self.classes_of_images
        chosen = f"runs with classes {classes} are trained and tested on images of these classes only"
        notes = [self.data.get("note"), "" if classes in ("", "all") else chosen]
        return NOTES_BETWEEN.join(note for note in notes if isinstance(note, str) and note)

    def write(self, folder: Path) -> None:
        """Replace the run.json of `folder` in one step."""
        write_atomically(folder / RECORD_FILE, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def read_record(folder: Path) -> RunRecord:
    """Read the run.json of `folder`; raises UserError, in one line, if it is missing, damaged or too new.

    The returned record can always be sorted, counted and written again: numbers have at most 64 bits, lists are nested
    a few levels deep, and pandas knows the times.
    """
    path = folder / RECORD_FILE
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_RECORD + 1)
        if len(content) > LARGEST_RECORD:
            raise UserError(f"{path} is not the record of a run: it has more than {LARGEST_RECORD >> 20} MB.")
        values = json.loads(content, parse_int=_whole_number, parse_float=_number, parse_constant=_number)
        if content.count(b"[") + content.count(b"{") > DEEPEST and _depth(values) > DEEPEST:
            raise RecursionError
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run: it has no {RECORD_FILE}.") from None
    except RecursionError:
        raise UserError(f"cannot read {path}: it is nested more than {DEEPEST} levels deep.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise UserError(f"{path} is not the record of a run.")
    if values["schema"] > SCHEMA:
        raise UserError(
            f"{path} was written by a newer version of plastic (format {values['schema']}, this one reads {SCHEMA})."
            " Upgrade plastic to use this run."
        )
    try:
        record = RunRecord(**{key: value for key, value in values.items() if key in _FIELDS})
    except TypeError as error:
        raise UserError(f"{path} is incomplete: {error}.") from None
    wrong = _wrong_field(record)
    if wrong is not None:
        raise UserError(f"{path} is damaged: its '{wrong}' cannot be {getattr(record, wrong)!r:.80}.")
    # A copied or renamed run is known by the present name of its folder.
    record.run = folder.name
    record.config = with_present_options(record.rule, record.config)
    for name in ("created", "started", "finished"):
        time = getattr(record, name)
        if time and not _USUAL_TIME.fullmatch(time):
            setattr(record, name, _as_utc(time))
    return record


def _whole_number(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"it holds a whole number of {len(text)} digits")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text:.20}, which is not a finite number")
    return number


def _depth(value: Any) -> int:
    """Return the depth of nested lists and tables, without recursion."""
    depth, level = 0, [value]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _as_utc(time: str) -> str:
    """Return a time in UTC as ISO 8601; raises ValueError for a time that pandas cannot hold."""
    read = datetime.fromisoformat(time)
    # Two days' room for the offset from UTC, and nanoseconds since 1970 in 64 bits.
    if not 1679 <= read.year <= 2261:
        raise ValueError(f"the year {read.year}")
    utc = read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")


def _wrong_field(record: RunRecord) -> str | None:
    """Return the first field whose value has the wrong type or range, or None."""
    for name, kinds in _KINDS.items():
        if not isinstance(getattr(record, name), kinds):
            return name
    if record.status not in STATUSES:
        return "status"
    for value in record.summary.values():
        if not isinstance(value, float | int | None):
            return "summary"
    for value in record.steps_done.values():
        if not isinstance(value, int) or not 0 <= value < 2**63:
            return "steps_done"
    for value in record.speed.values():
        if not isinstance(value, float | int):
            return "speed"
    for name in ("created", "started", "finished"):
        time = getattr(record, name)
        try:
            if time:
                # A text can have the form of a date that does not exist, such as the 30th of February.
                _as_utc(time)
        except (ValueError, OverflowError):
            return name
    return None


_TEXT, _TEXT_OR_NONE, _TABLE = (str,), (str, type(None)), (dict,)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run", "rule", "status", "verb", "created"), _TEXT),
    **dict.fromkeys(("name", "dataset", "started", "finished", "error"), _TEXT_OR_NONE),
    "seed": (int,),
    "seconds": (float, int),
    **dict.fromkeys(
        (
            "config",
            "steps_done",
            "summary",
            "measured_on",
            "speed",
            "data",
            "versions",
            "machine",
            "process",
            "project",
        ),
        _TABLE,
    ),
    "argv": (list,),
}
_FIELDS = frozenset(entry.name for entry in fields(RunRecord))
_USUAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?\+00:00")


def with_present_options(rule: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the present options and their names, whatever version stored it."""
    former = former_names(rule)
    return with_added_options(rule, config if former.keys().isdisjoint(config) else present_names(config, former))


def ranges_text(numbers: Iterable[int]) -> str:
    """Return whole numbers as text, three or more in a row as a range: "0 to 4, 7"."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    texts = [[f"{each[0]} to {each[-1]}"] if len(each) > 2 else map(str, each) for each in ranges]
    return ", ".join(text for of_range in texts for text in of_range)


def settings_text(rule: str, config: Mapping[str, Any]) -> str:
    """Return rule and configuration as one text, the same for the same settings in any order."""
    return json.dumps([rule, dict(config)], sort_keys=True)


def now() -> str:
    """Return the current time in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
