"""metrics.jsonl: one metric a line, read in pieces, and so that a damaged line costs only itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from plastic_cli.files import atomic_file

MAIN_METRICS = ("test/accuracy", "test/return", "validation/accuracy")
"""By which a run is judged: the first of these that it has."""

MeasuredOn = Literal["train", "validation", "test"]
"""The data that a number can be measured on. A number that any test sample has a part in is measured on test data."""

ROW_KEYS = {"stage", "split", "step", "metric", "value"}

LARGEST_STEP = 2**63 - 1
LONGEST_LINE = 1 << 20
"""Bytes of a line; a longer one is no row, and is not held in memory."""
BLOCK = 1 << 18
"""Bytes that are read at once."""
COPIED_AT_ONCE = 1 << 20
"""Bytes."""


def data_of(metric: str, measured_on: Mapping[str, str]) -> MeasuredOn:
    """Return the data that `split/metric` of a run was measured on.

    measured_on: what the run's record says of its metrics. It comes first; otherwise the split says it, and a split of
    another name, such as that of a control, counts as test data.
    """
    said = measured_on.get(metric, metric.partition("/")[0])
    return next((data for data in get_args(MeasuredOn) if data == said), "test")


def parse_rows(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the lines in `content` and the number of lines that could not be read.

    A full disk or a killed process can leave a torn last line.
    """
    lines = content.splitlines()
    try:
        # One list is read in half the time of its entries one by one.
        values = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        values = []
    if len(values) != len(lines):
        values = [_read(line) for line in lines]
    rows = [value for value in values if _is_row(value)]
    return rows, len(lines) - len(rows)


def read_rows(path: Path, begin: int = 0, end: int | None = None) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield rows and the number of damaged lines, as `parse_rows` returns them, of a piece of a file at a time.

    begin, end: only the bytes between these. Raises OSError where the file cannot be read.
    """
    with path.open("rb") as stream:
        stream.seek(begin)
        left = math.inf if end is None else end - begin
        rest, too_long = b"", False
        while left > 0 and (block := stream.read(int(min(BLOCK, left)))):
            left -= len(block)
            if too_long:
                _, newline, block = block.partition(b"\n")
                if not newline:
                    continue
                too_long = False
                yield [], 1
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                yield parse_rows(whole)
            if len(rest) > LONGEST_LINE:
                rest, too_long = b"", True
        if too_long:
            yield [], 1
        elif rest:
            yield parse_rows(rest)


def drop_training_rows_after(path: Path, kept: int) -> dict[str, float | None]:
    """Drop the training rows after the first `kept` bytes of a metrics file: a resumed loop logs them again.

    Rows of other stages stay. Returns the last value of every training metric before that place.
    """
    path.touch()
    summary: dict[str, float | None] = {}
    for rows, _ in read_rows(path, end=kept):
        for row in rows:
            if row["stage"] == "train" and "labels" not in row:
                summary[f"{row['split']}/{row['metric']}"] = row["value"]
    with atomic_file(path) as stream:
        # The bytes before the checkpoint stay as they are: it stores how many they are.
        with path.open("rb") as before:
            while kept > 0 and (block := before.read(min(kept, COPIED_AT_ONCE))):
                stream.write(block)
                kept -= len(block)
            begin = before.tell()
        for rows, _ in read_rows(path, begin):
            stream.writelines(json.dumps(row).encode() + b"\n" for row in rows if row["stage"] != "train")
    return summary


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= ROW_KEYS
        and isinstance(row["stage"], str)
        and isinstance(row["split"], str)
        and isinstance(row["metric"], str)
        and isinstance(row["step"], int)
        and abs(row["step"]) <= LARGEST_STEP
        and _is_number(row["value"])
        and _is_number(row.get("time"))
        and isinstance(row.get("labels"), dict | None)
    )


def _is_number(value: Any) -> bool:
    """Say whether a value is missing or a number that a float holds: an integer may have any number of digits."""
    return isinstance(value, float) or value is None or (isinstance(value, int) and abs(value) <= LARGEST_STEP)
