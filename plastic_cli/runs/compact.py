"""Metrics of many runs as arrays: each text is stored once, and rows hold small numbers for it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.escapes import valid_text

if TYPE_CHECKING:
    import pandas as pd

TEXTS = ("run", "stage", "split", "metric", "labels")
NUMBERS = {"step": "int64", "value": "float64", "time": "float64"}
COLUMNS = ("run", "stage", "split", "step", "metric", "value", "labels", "time")
PIECE = 1 << 15
"""Rows per write and read."""
SMALL = 1 << 15
"""Codes below this fit into 16 bits."""
MISSING = -1
"""The code of a text that is missing."""


@dataclass
class Metrics:
    """Rows of metrics. codes: for each text column positions in `texts`, int16 or int32 (n,); numbers: arrays (n,)."""

    codes: dict[str, NDArray[Any]]
    texts: dict[str, list[str]]
    numbers: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.numbers["step"])


class Collector:
    """Collects rows of runs one after the other, with 34 bytes per row."""

    def __init__(self) -> None:
        self._codes = {column: array("h") for column in TEXTS}
        self._known: dict[str, dict[str, int]] = {column: {} for column in TEXTS}
        self._step, self._value, self._time = array("q"), array("d"), array("d")

    def add(self, run: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add rows of a run; return the number of rows that are left out, because their labels cannot be written."""
        codes, known, left_out = self._codes, self._known, 0
        for column, texts in known.items():
            if codes[column].typecode == "h" and len(texts) + len(rows) >= SMALL:
                codes[column] = array("i", codes[column])
        of_run = _code(known["run"], run)
        stages, splits, metrics = known["stage"], known["split"], known["metric"]
        for row in rows:
            labels = row.get("labels")
            try:
                of_labels = _code(known["labels"], json.dumps(labels, sort_keys=True)) if labels else MISSING
            except (RecursionError, ValueError):
                left_out += 1
                continue
            stage, split, metric = row["stage"], row["split"], row["metric"]
            value, time = row["value"], row.get("time")
            codes["run"].append(of_run)
            codes["stage"].append(stages[stage] if stage in stages else _code(stages, stage))
            codes["split"].append(splits[split] if split in splits else _code(splits, split))
            codes["metric"].append(metrics[metric] if metric in metrics else _code(metrics, metric))
            codes["labels"].append(of_labels)
            self._step.append(row["step"])
            self._value.append(np.nan if value is None else value)
            self._time.append(np.nan if time is None else time)
        return left_out

    def collected(self) -> Metrics:
        """Return the collected rows; no more can be added."""
        value, time = np.asarray(self._value), np.asarray(self._time)
        for numbers in (value, time):
            numbers[~np.isfinite(numbers)] = np.nan
        return Metrics(
            codes={column: np.asarray(self._codes[column]) for column in TEXTS},
            texts={column: list(known) for column, known in self._known.items()},
            numbers={"step": np.asarray(self._step), "value": value, "time": time},
        )


def joined(one: Metrics, other: Metrics, runs: Sequence[str]) -> Metrics:
    """Return the rows of both that belong to `runs`, in the order of `runs`."""
    codes: dict[str, NDArray[Any]] = {}
    texts: dict[str, list[str]] = {}
    for column in TEXTS:
        known = {text: number for number, text in enumerate(one.texts[column])}
        # The last entry is for missing texts.
        moved = np.array([*(_code(known, text) for text in other.texts[column]), MISSING], np.int32)
        codes[column] = np.concatenate([one.codes[column], moved[other.codes[column]]])
        texts[column] = list(known)
    position = {run: number for number, run in enumerate(runs)}
    ranks = np.array([*(position.get(run, len(runs)) for run in texts["run"]), len(runs)])[codes["run"]]
    order = np.argsort(ranks, kind="stable")[: int((ranks < len(runs)).sum())]
    return Metrics(
        codes={column: codes[column][order] for column in TEXTS},
        texts=texts,
        numbers={name: np.concatenate([one.numbers[name], other.numbers[name]])[order] for name in NUMBERS},
    )


def chosen(metrics: Metrics, column: str, wanted: Iterable[str]) -> Metrics:
    """Return the rows whose text in a column is one of `wanted`."""
    texts = set(wanted)
    kept = np.array([*(text in texts for text in metrics.texts[column]), False])[metrics.codes[column]]
    return Metrics(
        codes={name: codes[kept] for name, codes in metrics.codes.items()},
        texts=metrics.texts,
        numbers={name: numbers[kept] for name, numbers in metrics.numbers.items()},
    )


def frame(metrics: Metrics) -> pd.DataFrame:
    """Return the rows as a table of `COLUMNS`; this empties `metrics`, so that memory is freed as the table grows."""
    import pandas as pd

    # Rows share their text objects: 8 bytes per row, whatever the length of the text.
    text = pd.StringDtype("python", na_value=np.nan)
    columns: dict[str, Any] = {}
    for column in COLUMNS:
        if column in NUMBERS:
            columns[column] = metrics.numbers.pop(column)
        else:
            columns[column] = pd.array(_spelled_out(metrics.codes.pop(column), metrics.texts[column]), text, copy=False)
    return pd.DataFrame(columns, copy=False)


def _spelled_out(codes: NDArray[Any], texts: Sequence[str]) -> NDArray[Any]:
    # The last entry is for missing texts.
    entries = np.array([*texts, np.nan], dtype=object)
    found = np.empty(len(codes), dtype=object)
    for begin in range(0, len(codes), PIECE):
        found[begin : begin + PIECE] = entries[codes[begin : begin + PIECE]]
    return found


def write_parquet(metrics: Metrics, path: Path, compression: str = "snappy") -> None:
    """Write the rows as a Parquet file, piece by piece."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {**dict.fromkeys(TEXTS, pa.dictionary(pa.int32(), pa.string())), "step": pa.int64()}
    schema = pa.schema([(column, kinds.get(column, pa.float64())) for column in COLUMNS])
    texts = {column: pa.array(metrics.texts[column], pa.string()) for column in TEXTS}
    with parquet.ParquetWriter(path, schema, use_dictionary=list(TEXTS), compression=compression) as writer:
        for begin in range(0, len(metrics), PIECE):
            piece: dict[str, Any] = {}
            for column in TEXTS:
                codes = metrics.codes[column][begin : begin + PIECE]
                piece[column] = pa.DictionaryArray.from_arrays(
                    pa.array(codes.astype(np.int32), mask=codes == MISSING), texts[column]
                )
            for column in NUMBERS:
                piece[column] = metrics.numbers[column][begin : begin + PIECE]
            writer.write_table(pa.table({column: piece[column] for column in COLUMNS}, schema=schema))
    pa.default_memory_pool().release_unused()


def read_parquet(stream: IO[bytes]) -> Metrics:
    """Read what `write_parquet` wrote; raises errors of pyarrow or Python for other files."""
    import pyarrow as pa
    from pyarrow import parquet

    # A whole column at once, or reading ahead, would take several times the memory of the result.
    file = parquet.ParquetFile(stream, read_dictionary=list(TEXTS), pre_buffer=False)
    rows = file.metadata.num_rows
    codes: dict[str, NDArray[Any]] = {column: np.empty(rows, np.int16) for column in TEXTS}
    known: dict[str, dict[str, int]] = {column: {} for column in TEXTS}
    numbers = {name: np.empty(rows, kind) for name, kind in NUMBERS.items()}
    begin = 0
    for batch in file.iter_batches(PIECE, use_threads=False):
        end = begin + len(batch)
        for column in TEXTS:
            entries = batch.column(column)
            # The last entry is for missing texts.
            texts = entries.dictionary.to_pylist()
            moved = np.array([*(_code(known[column], text) for text in texts), MISSING], np.int32)
            if codes[column].dtype == np.int16 and len(known[column]) >= SMALL:
                codes[column] = codes[column].astype(np.int32)
            codes[column][begin:end] = moved[entries.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)]
        for name in NUMBERS:
            numbers[name][begin:end] = batch.column(name).to_numpy(zero_copy_only=False)
        begin = end
    pa.default_memory_pool().release_unused()
    return Metrics(codes, {column: list(known[column]) for column in TEXTS}, numbers)


def _code(known: dict[str, int], text: str) -> int:
    text = valid_text(text)
    return known.setdefault(text, len(known))
