"""All runs of a folder as pandas tables.

The folders of the runs are the truth. What is compacted under `.index/` only saves time: it is checked against the
files' sizes and times at every read, may be deleted at any moment, and is not written where the folder is read-only.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.runs.files import write_through
from plastic_cli.runs.metrics import parse_rows
from plastic_cli.runs.record import LOCK_FILE, METRICS_FILE, RECORD_FILE, read_record

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

INDEX_SCHEMA = 3
"""Format of the files that make reading fast; one of another format is made again."""

METRIC_COLUMNS = ["run", "stage", "split", "step", "metric", "value", "labels", "time"]
"""Columns of `RunStore.metrics()`."""


@dataclass(frozen=True)
class ReadError:
    """A run that could not be read, or only in part."""

    folder: str
    message: str


class RunStore:
    """The runs in one folder. After each read, `errors` lists what could not be read."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.errors: list[ReadError] = []

    # --------------------------------------------------------------------------------------------------- finding

    def folders(self) -> dict[str, os.stat_result]:
        """Return the id of every run here and the state of its run.json, oldest first."""
        found = {}
        if not self.folder.exists():
            return {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    # A folder without a record is a run in its first millisecond, or not a run.
                    with suppress(OSError):
                        found[entry.name] = os.stat(f"{entry.path}/{RECORD_FILE}")  # noqa: PTH116  ten thousand times
        except OSError as error:
            raise UserError(f"cannot read the runs in {self.folder}: {error.strerror}.") from None
        return dict(sorted(found.items()))

    def find(self, text: str) -> Path:
        """Return the folder of the run with this id, a unique beginning of it, or this name.

        Raises UserError, with what is near or what is ambiguous, where there is not exactly one.
        """
        folders = self.folders()
        if text in folders:
            return self.folder / text
        # Names first: a person chose them.
        names: dict[str, list[str]] = {}
        for row in self._records(folders):
            if row["name"]:
                names.setdefault(row["name"], []).append(row["run"])
        matches = names.get(text) or [run for run in folders if run.startswith(text)] if text else []
        if len(matches) == 1:
            return self.folder / matches[0]
        if matches:
            shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise UserError(f"'{text}' fits {len(matches)} runs: {shown}. Type more of the id.")
        guess = did_you_mean(text, [*names, *folders])
        raise UserError(f"there is no run '{text}' in {self.folder}.{guess} `plastic runs` lists them.")

    def newest(self, rule: str, status: str = "completed") -> Path:
        """Return the folder of the newest run of `rule` with this status; raises UserError where there is none."""
        for row in sorted(self.rows(), key=lambda row: (row["created"], row["run"]), reverse=True):
            if row["rule"] == rule and row["status"] == status:
                return self.folder / str(row["run"])
        damaged = "1 run" if len(self.errors) == 1 else f"{len(self.errors)} runs"
        unread = f" Besides, {damaged} could not be read: `plastic runs` says why." if self.errors else ""
        raise UserError(
            f"there is no {status} run of {rule} in {self.folder}. Make one with: plastic train {rule}{unread}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return what run.json says of every run, oldest first, as dictionaries: for lists that need no pandas."""
        return list(self._records(self.folders()))

    def names(self) -> list[tuple[str, str]]:
        """Return the ids and names of all runs, each with a word about it, for shell completion."""
        rows = self.rows()
        about = [(row["run"], f"{row['rule']} {row['status']}") for row in rows]
        return about + [(row["name"], f"{row['rule']} {row['run']}") for row in rows if row["name"]]

    # --------------------------------------------------------------------------------------------------- reading

    def runs(self) -> pd.DataFrame:
        """Return one row per run, oldest first.

        Columns: RUN_COLUMNS; then `config.FIELD` for every field of the configuration (lists as lists); then the last
        training value of every metric as `split/metric`. Times are UTC timestamps, `seconds` is a float, `status` says
        "crashed" for a run that was never finished and that no living process holds.
        """
        import pandas as pd

        rows = []
        for record in self._records(self.folders()):
            row = {column: record.get(column) for column in RUN_COLUMNS}
            row.update({f"config.{key}": value for key, value in record["config"].items()})
            row.update(record["summary"])
            rows.append(row)
        # From one list per column: pandas needs seconds, not milliseconds, for ten thousand dictionaries.
        columns = dict.fromkeys(RUN_COLUMNS) | dict.fromkeys(
            key for row in rows for key in row if key.startswith("config.")
        )
        columns |= dict.fromkeys(key for row in rows for key in row)
        frame = pd.DataFrame({column: [row.get(column) for row in rows] for column in columns})
        for column in ("created", "started", "finished"):
            frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601")
        for column in ("seconds", "training_seconds"):
            frame[column] = pd.to_numeric(frame[column], errors="coerce").astype(float)
        for column in frame.columns[len(RUN_COLUMNS) :]:
            if not column.startswith("config."):
                frame[column] = frame[column].astype(float)
        return frame

    def metrics(self, runs: Sequence[str] | None = None, stage: str | None = None) -> pd.DataFrame:
        """Return every logged metric, tidy: METRIC_COLUMNS, in the order in which it was logged.

        runs: only these ids. stage: only "train", "eval" or "analyze". `labels` is JSON text or missing, `value` is NaN
        where it was not finite, `time` is in seconds since 1970.
        """
        frame = self._compacted()
        if runs is not None:
            frame = frame[frame["run"].isin(set(runs))]
        if stage is not None:
            frame = frame[frame["stage"] == stage]
        return frame.reset_index(drop=True)

    # ---------------------------------------------------------------------------------------------- the records

    def _records(self, folders: dict[str, os.stat_result]) -> Iterator[dict[str, Any]]:
        """Read the record of every run, from the index where the file is as it was, and say what is crashed."""
        self.errors = []
        entries = self._read_index("records.json")["entries"]
        fresh: dict[str, list[Any]] = {}
        rows = []
        for run, state in folders.items():
            known = entries.get(run)
            if known is not None and known[0] == state.st_mtime_ns and known[1] == state.st_size:
                row = known[2]
            else:
                try:
                    row = self._read_row(run)
                except UserError as error:
                    self.errors.append(ReadError(str(self.folder / run), str(error)))
                    continue
            fresh[run] = [state.st_mtime_ns, state.st_size, row]
            rows.append(row)
        # What is being written may change within the clock's resolution; only what is finished goes into the index.
        keep = {run: entry for run, entry in fresh.items() if entry[2]["status"] not in ("created", "running")}
        if keep.keys() != entries.keys() or any(entries[run][:2] != entry[:2] for run, entry in keep.items()):
            self._write_index("records.json", {"schema": INDEX_SCHEMA, "entries": keep})
        # Ids of one second are in no order.
        for row in sorted(rows, key=lambda row: (row["created"], row["run"])):
            # The folder may have been moved or copied since the index was written.
            row = {**row, "folder": str(self.folder / row["run"])}
            if row["status"] in ("created", "running") and not is_held(self.folder / row["run"]):
                row["status"] = "crashed"
            yield row

    def _read_row(self, run: str) -> dict[str, Any]:
        record = read_record(self.folder / run)
        return {
            # A copied or renamed folder goes by the name it has now.
            "run": run,
            "name": record.name,
            "rule": record.rule,
            "verb": record.verb,
            "status": record.status,
            "seed": record.seed,
            "dataset": record.dataset,
            "data_checksum": record.data.get("checksum"),
            "data_note": record.data.get("note") or None,
            "created": record.created,
            "started": record.started,
            "finished": record.finished,
            "seconds": record.seconds,
            "training_seconds": record.speed.get("seconds"),
            "version": record.versions.get("plastic"),
            "rule_version": record.versions.get("rule"),
            "host": record.process.get("host"),
            "error": record.error,
            "config": record.config,
            "summary": record.summary,
        }

    # ------------------------------------------------------------------------------------------ compacted metrics

    def _compacted(self) -> pd.DataFrame:
        import pandas as pd

        self.errors = []
        present: dict[str, tuple[int, int]] = {}
        for run in self.folders():
            with suppress(OSError):
                state = (self.folder / run / METRICS_FILE).stat()
                present[run] = (state.st_mtime_ns, state.st_size)
        cached, entries = self._cached_metrics()
        valid = {run for run, state in present.items() if tuple(entries.get(run, ())[:2]) == state}
        damaged = {run: int(entries[run][2]) for run in valid}
        if valid == present.keys() == entries.keys():
            frame = cached
        else:
            fresh = self._read_metrics([run for run in present if run not in valid], damaged)
            frame = pd.concat([cached[cached["run"].isin(valid)], fresh], ignore_index=True)
            order = {run: position for position, run in enumerate(present)}
            frame = frame.sort_values("run", key=lambda runs: runs.map(order), kind="stable", ignore_index=True)
            self._write_metrics(frame, {run: [*present[run], damaged[run]] for run in present if run in damaged})
        for run in present:
            if damaged.get(run):
                lines = "1 damaged line was" if damaged[run] == 1 else f"{damaged[run]} damaged lines were"
                self.errors.append(ReadError(str(self.folder / run / METRICS_FILE), f"{lines} left out"))
        return frame

    def _cached_metrics(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the compacted metrics and, for each run in them, time and size of its file and its damaged lines."""
        import pandas as pd

        empty = self._read_metrics([], {})
        index = self._read_index("metrics.json")
        if not index["entries"]:
            return empty, {}
        try:
            frame = pd.read_parquet(self.folder / ".index" / "metrics.parquet")
        except Exception:  # noqa: BLE001  whatever ails the index, it can be made again
            return empty, {}
        # The two files of the index are replaced one after the other: the generation says that they belong together.
        if frame.attrs.get("generation") != index.get("generation"):
            return empty, {}
        return _typed(frame), index["entries"]

    def _read_metrics(self, runs: Iterable[str], damaged: dict[str, int]) -> pd.DataFrame:
        """Read the metrics of `runs`; `damaged` gets, for each that can be read, how many lines cannot."""
        import pandas as pd

        columns: dict[str, list[Any]] = {column: [] for column in METRIC_COLUMNS}
        for run in runs:
            path = self.folder / run / METRICS_FILE
            try:
                rows, damaged[run] = parse_rows(path.read_bytes())
            except OSError as error:
                self.errors.append(ReadError(str(path), str(error)))
                continue
            for row in rows:
                columns["run"].append(run)
                for key in ("stage", "split", "step", "metric", "value", "time"):
                    columns[key].append(row.get(key))
                labels = row.get("labels")
                columns["labels"].append(json.dumps(labels, sort_keys=True) if labels else None)
        return _typed(pd.DataFrame(columns))

    def _write_metrics(self, frame: pd.DataFrame, entries: dict[str, list[int]]) -> None:
        """Replace the compacted metrics. Where that cannot be done reading is slower, not wrong."""
        generation = os.urandom(8).hex()
        frame.attrs["generation"] = generation
        with suppress(OSError):
            folder = self.folder / ".index"
            folder.mkdir(exist_ok=True)
            write_through(folder / "metrics.parquet", lambda path: frame.to_parquet(path, index=False))
            self._write_index("metrics.json", {"schema": INDEX_SCHEMA, "generation": generation, "entries": entries})

    # --------------------------------------------------------------------------------------------- index files

    def _read_index(self, name: str) -> dict[str, Any]:
        """Return what an index file holds; its entries are those of the shape [time, size, what was read]."""
        try:
            content = json.loads((self.folder / ".index" / name).read_bytes())
        except (OSError, ValueError):
            content = None
        entries = (
            content.get("entries") if isinstance(content, dict) and content.get("schema") == INDEX_SCHEMA else None
        )
        if not isinstance(entries, dict):
            return {"entries": {}}
        # Entries of another shape come from another version: their runs are read again.
        whole = {run: entry for run, entry in entries.items() if isinstance(entry, list) and len(entry) == 3}
        return {**content, "entries": whole}

    def _write_index(self, name: str, content: dict[str, Any]) -> None:
        with suppress(OSError):
            folder = self.folder / ".index"
            folder.mkdir(exist_ok=True)
            write_through(folder / name, lambda path: path.write_text(json.dumps(content), encoding="utf-8"))


def is_held(folder: Path) -> bool:
    """Say whether a living process writes to the run in `folder`, which is whether its lock is taken.

    A shared lock, so that readers do not take each other for the writer, and one that a read-only store grants.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _typed(metrics: pd.DataFrame) -> pd.DataFrame:
    """Give every column its type, which pandas would guess from the rows that happen to be there."""
    import pandas as pd

    text = pd.StringDtype(na_value=float("nan"))
    numbers = {"step": "int64", "value": "float64", "time": "float64"}
    return metrics.astype({column: numbers.get(column, text) for column in METRIC_COLUMNS})
