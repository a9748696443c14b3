"""metrics.jsonl: one metric a line, read so that a damaged line costs only itself."""

from __future__ import annotations

import json
from typing import Any

MAIN_METRICS = ("test/accuracy", "test/return", "validation/accuracy")
"""By which a run is judged: the first of these that it has."""

ROW_KEYS = {"stage", "split", "step", "metric", "value"}


def parse_rows(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a metrics file and the number of lines that could not be read.

    A full disk or a killed process can leave a torn last line.
    """
    rows: list[dict[str, Any]] = []
    damaged = 0
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            damaged += 1
            continue
        if _is_row(row):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= ROW_KEYS
        and all(isinstance(row[key], str) for key in ("stage", "split", "metric"))
        and isinstance(row["step"], int)
        and isinstance(row["value"], float | int | None)
        and isinstance(row.get("time"), float | int | None)
    )
