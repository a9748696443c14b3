"""metrics.jsonl: one metric a line, read so that a damaged line costs only itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

MAIN_METRICS = ("test/accuracy", "test/return", "validation/accuracy")
"""By which a run is judged: the first of these that it has."""

MeasuredOn = Literal["train", "validation", "test"]
"""The data that a number can be measured on. A number that any test sample has a part in is measured on test data."""

ROW_KEYS = {"stage", "split", "step", "metric", "value"}


def data_of(metric: str, measured_on: Mapping[str, str]) -> MeasuredOn:
    """Return the data that `split/metric` of a run was measured on.

    measured_on: what the run's record says of its metrics. It comes first; otherwise the split says it, and a split of
    another name, such as that of a control, counts as test data.
    """
    said = measured_on.get(metric, metric.partition("/")[0])
    return next((data for data in get_args(MeasuredOn) if data == said), "test")


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
