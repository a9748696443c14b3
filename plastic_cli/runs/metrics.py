"""metrics.jsonl: one metric per line, read in pieces; a damaged line is skipped without loss of the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from plastic_cli.files import atomic_file

MAIN_METRICS = ("test/accuracy", "test/return", "validation/accuracy")
"""The main metric of a run is the first of these that it has."""

MeasuredOn = Literal["train", "validation", "test"]
"""The data that a number is measured on. If any test sample contributes, it is measured on test data."""

ROW_KEYS = {"stage", "split", "step", "metric", "value"}

LARGEST_STEP = 2**63 - 1
LONGEST_LINE = 1 << 20
"""Bytes of a line; a longer line is skipped and not held in memory."""
BLOCK = 1 << 18
"""Bytes per read."""
COPIED_AT_ONCE = 1 << 20
"""Bytes per copy."""


def data_of(metric: str, measured_on: Mapping[str, str]) -> MeasuredOn:
    """Return the data that `split/metric` of a run was measured on.

    measured_on: the field of the run's record, which takes precedence. A split of another name, such as the split
    of a control, counts as test data.
    """
    named = measured_on.get(metric, metric.partition("/")[0])
    return next((data for data in get_args(MeasuredOn) if data == named), "test")


def parse_rows(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the lines in `content` and the number of lines that could not be read.

    A full disk or a killed process can leave an incomplete last line. Blank lines were rows of a stage that was carried
    out again.
    """
    lines = [line for line in content.splitlines() if not line.isspace()]
    try:
        # Reading one list takes half the time of reading its entries one by one.
        values = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        values = []
    if len(values) != len(lines):
        values = [_read(line) for line in lines]
    rows = [value for value in values if _is_row(value)]
    return rows, len(lines) - len(rows)


def read_rows(path: Path, begin: int = 0, end: int | None = None) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Read a file in pieces, and yield for each piece its rows and its number of damaged lines.

    begin, end: read only the bytes between these. Raises OSError if the file cannot be read.
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
    """Drop the training rows after the first `kept` bytes of a metrics file, since a resumed loop logs them again.

    Rows of other stages stay. Returns the last value of every training metric in those bytes.
    """
    path.touch()
    summary: dict[str, float | None] = {}
    for rows, _ in read_rows(path, end=kept):
        for row in rows:
            if row["stage"] == "train" and "labels" not in row:
                summary[f"{row['split']}/{row['metric']}"] = row["value"]
    with atomic_file(path) as stream:
        # These bytes stay unchanged, because the checkpoint stores their number.
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
    """Return whether a value is missing or a number that fits a float: an integer may have any number of digits."""
    return isinstance(value, float) or value is None or (isinstance(value, int) and abs(value) <= LARGEST_STEP)
