"""The record of a run as a row, and the rows of many runs as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plastic_cli.escapes import valid_text
from plastic_cli.runs.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = [
    "run",
    "name",
    "rule",
    "verb",
    "status",
    "seed",
    "dataset",
    "data_checksum",
    "data_note",
    "created",
    "started",
    "finished",
    "seconds",
    "training_seconds",
    "folder",
    "version",
    "rule_version",
    "host",
    "error",
]
"""Columns that `RunStore.runs()` always has, before `config.FIELD` and `SPLIT/METRIC` columns."""


def row_of(record: RunRecord) -> dict[str, Any]:
    """Return the values of RUN_COLUMNS but the folder, with the dictionaries `config` and `summary`."""
    return {
        "run": record.run,
        "name": record.name,
        "rule": record.rule,
        "verb": record.verb,
        "status": record.status,
        "seed": record.seed,
        "dataset": record.dataset,
        "data_checksum": _text_or_none(record.data.get("checksum")),
        "data_note": record.data_note or None,
        "created": record.created,
        "started": record.started,
        "finished": record.finished,
        "seconds": record.seconds,
        "training_seconds": record.speed.get("seconds"),
        "version": _text_or_none(record.versions.get("plastic")),
        "rule_version": _text_or_none(record.versions.get("rule")),
        "host": _text_or_none(record.process.get("host")),
        "error": record.error,
        "config": record.config,
        "summary": record.summary,
    }


def runs_frame(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return rows with a folder as a table: RUN_COLUMNS, `config.FIELD` and `SPLIT/METRIC`.

    The second value lists folder and name of each final metric that is left out, because another column has its name.
    """
    import pandas as pd

    configs: dict[str, None] = {}
    summaries: dict[str, None] = {}
    for row in rows:
        configs.update(dict.fromkeys(row["config"]))
        summaries.update(dict.fromkeys(row["summary"]))
    columns: dict[str, list[Any]] = {name: _as_texts([row[name] for row in rows]) for name in RUN_COLUMNS}
    settings = [row["config"] for row in rows]
    for name in configs:
        columns[f"config.{valid_text(name)}"] = _as_texts([setting.get(name) for setting in settings])
    clashing = {name for name in summaries if valid_text(name) in columns}
    clashes = [(str(row["folder"]), name) for row in rows for name in clashing.intersection(row["summary"])]
    finals = {
        valid_text(name): [row["summary"].get(name) for row in rows] for name in summaries if name not in clashing
    }
    frame = pd.DataFrame(columns)
    for name in ("created", "started", "finished"):
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601", errors="coerce")
    for name in ("seconds", "training_seconds"):
        frame[name] = frame[name].astype(float)
    return pd.concat([frame, pd.DataFrame(finals, index=frame.index, dtype=float)], axis=1), clashes


def _as_texts(values: list[Any]) -> list[Any]:
    """Return the values, with text that is not UTF-8 as codes."""
    try:
        # All at once, because a large store has a million cells and few stores have a text to change.
        "".join([value for value in values if type(value) is str]).encode()
    except UnicodeEncodeError:
        return [valid_text(value) if isinstance(value, str) else value for value in values]
    return values


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
