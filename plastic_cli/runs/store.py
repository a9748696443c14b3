"""All runs of a folder as pandas tables.

The folders of the runs are authoritative. The index under `.index/` only saves time. Each read checks it against the
sizes and times of the files and against its own checksum. It may be deleted at any moment, and it is not written if the
folder is read-only.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.escapes import valid_text
from plastic_cli.files import write_through
from plastic_cli.runs.index import INDEX_FOLDER, checksum_of, read_index, without_garbage_collection, write_index
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.metrics import MAIN_METRICS, read_rows
from plastic_cli.runs.record import (
    METRICS_FILE,
    RECORD_FILE,
    UNFINISHED,
    read_record,
    settings_text,
    with_present_options,
)
from plastic_cli.runs.rows import row_of, runs_frame
from plastic_cli.runs.selection import ids_with_part

if TYPE_CHECKING:
    import pandas as pd

    from plastic_cli.runs.compact import Metrics
    from plastic_cli.runs.stored import StoredRun

INDEX_SHARE = 50
"""The index is written again if one run in this many has changed: writing takes as long as reading those."""
SHOWN_RUNS = 50
"""The runs that a notebook shows, the newest first."""
READ_ALONE = 20
"""The metrics of up to this many runs are read from their own files, without the index."""

METRIC_COLUMNS = ["run", "stage", "split", "step", "metric", "value", "labels", "time"]
"""Columns of `RunStore.metrics()`."""


@dataclass(frozen=True)
class ReadError:
    """A run that could not be read, or could be read only in part."""

    folder: str
    message: str


def default_folder() -> Path:
    """Return the folder of the runs if none is named: PLASTIC_RUNS, else ./runs."""
    return Path(os.environ.get("PLASTIC_RUNS") or "runs")


class RunStore:
    """The runs in one folder. After each read, `errors` lists the runs that could not be read.

    folder: the folder (default: PLASTIC_RUNS, else ./runs).
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        # Absolute, because the working folder of a notebook may change.
        self.folder = (default_folder() if folder is None else Path(folder).expanduser()).absolute()
        self.errors: list[ReadError] = []
        self._entries: dict[str, list[Any]] = {}
        self._indexed: dict[str, list[Any]] | None = None
        self._grouped: dict[str, dict[str, Any]] = {}
        self._by_seed: dict[tuple[str, int], dict[str, str | None]] = {}

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for row in self.rows():
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        number = sum(counts.values())
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<RunStore {self.folder}: {number} run{'' if number == 1 else 's'}{f' ({words})' if words else ''}>"

    def _repr_html_(self) -> str:
        shown = ["run", "name", "rule", "dataset", "seed", "status", "seconds"]
        frame = self.runs()
        results = [name for name in MAIN_METRICS if name in frame]
        newest = frame.iloc[::-1][[*shown, *results]].head(SHOWN_RUNS)
        text: str = newest.to_html(index=False, na_rep="", float_format="{:.4g}".format)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{text}"

    # --------------------------------------------------------------------------------------------------- finding

    def folders(self) -> dict[str, os.stat_result]:
        """Return the id of every run and the file status of its run.json, oldest first."""
        found = {}
        if not self.folder.exists():
            return {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    # A folder without a record is a run that is being created, or not a run.
                    with suppress(OSError):
                        found[entry.name] = os.stat(f"{entry.path}/{RECORD_FILE}")  # noqa: PTH116  ten thousand times
        except OSError as error:
            raise UserError(f"cannot read the runs in {self.folder}: {error.strerror}.") from None
        return dict(sorted(found.items()))

    def find(self, text: str) -> Path:
        """Return the folder of the run with this name, this id, its unique beginning, or the letters at its end.

        Raises UserError if no run or several runs match; the message lists similar or matching runs.
        """
        folders = self.folders()
        if text in folders:
            return self.folder / text
        # Names take precedence over beginnings of ids, because a person chose them.
        names: dict[str, list[str]] = {}
        for row in self._records(folders):
            if row["name"]:
                names.setdefault(row["name"], []).append(row["run"])
        matches = (names.get(text) if text else None) or ids_with_part(folders, text)
        if len(matches) == 1:
            return self.folder / matches[0]
        if matches:
            listed = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise UserError(f"'{text}' matches {len(matches)} runs: {listed}. Type more of the id.")
        guess = did_you_mean(text, [*names, *folders])
        raise UserError(f"there is no run '{text}' in {self.folder}.{guess} `plastic runs` lists them.")

    def remove(self, run: str | StoredRun) -> None:
        """Delete a run for good; of a link, only the link. run: a run of this store, or a text as for `find`.

        Raises UserError if there is no such run, or if another process writes to it.
        """
        from plastic_cli.runs.folder import remove_run

        remove_run(self.find(run) if isinstance(run, str) else self.folder / run.id)

    def run(self, text: str) -> StoredRun:
        """Return the run with this name, this id, or a unique part of the id; raises UserError like `find`."""
        from plastic_cli.runs.stored import StoredRun

        return StoredRun(self.find(text))

    def newest(self, rule: str, status: str = "completed") -> Path:
        """Return the folder of the newest run of `rule` with this status; raises UserError if there is none."""
        for row in sorted(self.rows(), key=lambda row: (row["created"], row["run"]), reverse=True):
            if row["rule"] == rule and row["status"] == status:
                return self.folder / str(row["run"])
        damaged = "1 run" if len(self.errors) == 1 else f"{len(self.errors)} runs"
        unread = f" Also, {damaged} could not be read: `plastic runs` says why." if self.errors else ""
        raise UserError(
            f"there is no {status} run of {rule} in {self.folder}. Make one with: plastic train {rule}{unread}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the record of every run as a dictionary, oldest first; this does not import pandas."""
        with without_garbage_collection():
            return list(self._records(self.folders()))

    def names(self) -> list[tuple[str, str]]:
        """Return the ids and names of all runs, each with a short description, for shell completion."""
        rows = self.rows()
        about = [(row["run"], f"{row['rule']} {row['status']}") for row in rows]
        return about + [(row["name"], f"{row['rule']} {row['run']}") for row in rows if row["name"]]

    # --------------------------------------------------------------------------------------------------- reading

    def runs(self) -> pd.DataFrame:
        r"""Return one row per run, oldest first.

        Columns: RUN_COLUMNS; then `config.FIELD` for every field of the configuration (lists as lists); then the last
        training value of every metric as `split/metric`. Times are UTC timestamps and `seconds` is a float. `status` is
        "crashed" for an unfinished run that no living process holds. Text that is not UTF-8 contains codes such as
        `\udcff`. A final metric with the name of another column is left out.
        """
        with without_garbage_collection():
            rows = list(self._records(self.folders()))
            frame, clashes = runs_frame(rows)
        for folder, name in clashes:
            message = f"its metric '{name}' is left out: another column has that name"
            self.errors.append(ReadError(folder, message))
        return frame

    def metrics(self, runs: Sequence[str] | None = None, stage: str | None = None) -> pd.DataFrame:
        """Return every logged metric, one per row, with METRIC_COLUMNS, in the order of logging.

        runs: only these ids. stage: only "train", "eval" or "analyze". `labels` is JSON text or missing, `value` is NaN
        if it was not finite, and `time` is in seconds since 1970.
        """
        from plastic_cli.runs.compact import chosen, frame

        self.errors = []
        folders = list(self.folders())
        if runs is not None and len(runs) <= READ_ALONE:
            # For a few runs, reading the index of a large store takes longer than reading their files.
            wanted = set(runs)
            found = self._read_metrics([run for run in folders if run in wanted], {})
        else:
            found = self._compacted(folders)
            if runs is not None:
                found = chosen(found, "run", map(valid_text, runs))
        if stage is not None:
            found = chosen(found, "stage", [stage])
        return frame(found)

    # ---------------------------------------------------------------------------------------------- the records

    def refresh(self) -> RunStore:
        """Read runs that were added or changed, for `with_settings`, and return this store."""
        self.errors = []
        self._refresh(self.folders())
        # A row that has not changed is the same object.
        for run in [run for run, row in self._grouped.items() if self._entries.get(run, (0, 0, None))[2] is not row]:
            row = self._grouped.pop(run)
            del self._by_seed[row["rule"], row["seed"]][run]
        for run, (_, _, row) in self._entries.items():
            if run not in self._grouped:
                self._grouped[run] = row
                self._by_seed.setdefault((row["rule"], row["seed"]), {})[run] = None
        return self

    def with_settings(self, rule: str, config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the records of the runs with this rule and configuration, oldest first, as of the last `refresh`.

        `status` is the one in run.json, whether or not a process holds the run.
        """
        wanted = settings_text(rule, config)
        runs = self._by_seed.get((rule, int(config["seed"])), {})
        for run, settings in runs.items():
            if settings is None:
                runs[run] = settings_text(rule, self._grouped[run]["config"])
        found = [self._grouped[run] for run, settings in runs.items() if settings == wanted]
        return sorted(found, key=lambda row: (row["created"], row["run"]))

    def _records(self, folders: dict[str, os.stat_result]) -> Iterator[dict[str, Any]]:
        """Yield the record of every run, from the index if its file is unchanged; mark crashed runs."""
        self.errors = []
        self._refresh(folders)
        folder = str(self.folder / "x")[:-1]
        # The ids of runs of one second have no order.
        for row in sorted((entry[2] for entry in self._entries.values()), key=lambda row: (row["created"], row["run"])):
            # The folder may have been moved or copied since the index was written.
            row = {**row, "folder": folder + row["run"]}
            if row["status"] in UNFINISHED and not is_held(self.folder / row["run"]):
                row["status"] = "crashed"
            yield row

    def _refresh(self, folders: dict[str, os.stat_result]) -> None:
        """Update the entries: for each readable run, time and size of its file and its record."""
        if self._indexed is None:
            index = read_index(self.folder, "records.json", _is_row)
            self._entries = index["entries"]
            for _, _, row in self._entries.values():
                # An older version may have written the index.
                row["config"] = with_present_options(row["rule"], row["config"])
            self._indexed = dict(self._entries)
        fresh: dict[str, list[Any]] = {}
        for run, state in folders.items():
            known = self._entries.get(run)
            # The record of an unfinished run may change within the resolution of the clock.
            if (
                known is not None
                and known[0] == state.st_mtime_ns
                and known[1] == state.st_size
                and known[2]["status"] not in UNFINISHED
            ):
                fresh[run] = known
                continue
            try:
                row = row_of(read_record(self.folder / run))
            except UserError as error:
                self.errors.append(ReadError(str(self.folder / run), str(error)))
                continue
            # An equal record stays the same object, so that what was derived from it stays valid.
            fresh[run] = [state.st_mtime_ns, state.st_size, known[2] if known is not None and known[2] == row else row]
        self._entries = fresh
        keep = {run: entry for run, entry in fresh.items() if entry[2]["status"] not in UNFINISHED}
        before = self._indexed
        changed = len(before.keys() - keep.keys()) + sum(before.get(run, ())[:2] != keep[run][:2] for run in keep)
        if changed * INDEX_SHARE > len(keep):
            write_index(self.folder, "records.json", {"entries": keep})
            self._indexed = keep

    # ------------------------------------------------------------------------------------------ compacted metrics

    def _compacted(self, folders: Sequence[str]) -> Metrics:
        from plastic_cli.runs.compact import chosen, joined

        present: dict[str, list[int]] = {}
        for run in folders:
            with suppress(OSError):
                state = os.stat(f"{self.folder}/{run}/{METRICS_FILE}")  # noqa: PTH116  ten thousand times
                present[run] = [state.st_mtime_ns, state.st_size]
        cached, entries = self._cached_metrics()
        valid = {run for run, state in present.items() if entries.get(run, ())[:2] == state}
        damaged = {run: entries[run][2] for run in valid}
        missing = [run for run in present if run not in valid]
        gone = entries.keys() - valid
        # The table holds codes for names that are not UTF-8.
        found = chosen(cached, "run", map(valid_text, valid)) if gone else cached
        if missing:
            fresh = self._read_metrics(missing, damaged)
            found = joined(found, fresh, [valid_text(run) for run in present]) if len(found) else fresh
        # One file may be larger than a thousand others.
        size, read = (sum(present[run][1] for run in runs) for runs in (present, missing))
        if (len(missing) + len(gone)) * INDEX_SHARE > len(present) or read * INDEX_SHARE > size:
            self._write_metrics(found, {run: [*present[run], damaged[run]] for run in present if run in damaged})
        for run in present:
            if damaged.get(run) and run in valid:
                self._note_damage(run, damaged[run])
        return found

    def _cached_metrics(self) -> tuple[Metrics, dict[str, Any]]:
        """Return the compacted metrics, and for each run in them time, size and number of damaged lines of its file."""
        from plastic_cli.runs.compact import Collector, read_parquet

        index = read_index(self.folder, "metrics.json", lambda _, entry: isinstance(entry, int) and entry >= 0)
        if not index["entries"]:
            return Collector().collected(), {}
        try:
            with (self.folder / INDEX_FOLDER / "metrics.parquet").open("rb") as stream:
                # The two files of the index are replaced one after the other. The checksum says that they belong
                # together and that this one is complete.
                if checksum_of(stream) != index.get("table"):
                    return Collector().collected(), {}
                stream.seek(0)
                return read_parquet(stream), index["entries"]
        except Exception:  # noqa: BLE001  a damaged index raises errors of any kind, and can be written again
            return Collector().collected(), {}

    def _read_metrics(self, runs: Iterable[str], damaged: dict[str, int]) -> Metrics:
        """Read the metrics of `runs`; `damaged` gets the number of damaged lines of each readable run."""
        from plastic_cli.runs.compact import Collector

        collector = Collector()
        for run in runs:
            path = self.folder / run / METRICS_FILE
            lines = 0
            try:
                for rows, lost in read_rows(path):
                    lines += lost + collector.add(run, rows)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.errors.append(ReadError(str(path), str(error)))
                continue
            damaged[run] = lines
            if lines:
                self._note_damage(run, lines)
        return collector.collected()

    def _note_damage(self, run: str, lines: int) -> None:
        message = "1 damaged line was left out" if lines == 1 else f"{lines} damaged lines were left out"
        self.errors.append(ReadError(str(self.folder / run / METRICS_FILE), message))

    def _write_metrics(self, metrics: Metrics, entries: dict[str, list[int]]) -> None:
        """Replace the compacted metrics; if that fails, reading is slower but not wrong."""
        from plastic_cli.runs.compact import write_parquet

        written: list[int] = []

        def write(path: Path) -> None:
            write_parquet(metrics, path)
            with path.open("rb") as stream:
                written.append(checksum_of(stream))

        with suppress(OSError):
            folder = self.folder / INDEX_FOLDER
            folder.mkdir(exist_ok=True)
            write_through(folder / "metrics.parquet", write)
            write_index(self.folder, "metrics.json", {"table": written[0], "entries": entries})


def _is_row(run: str, row: Any) -> bool:
    """Return whether an entry of the index is a row in the form of this version."""
    return (
        type(row) is dict
        and _has_form_of_row(tuple(row), tuple(map(type, row.values())))
        and row["run"] == run
        and set(map(type, row["summary"].values())) <= _NUMBERS_OR_NONE
    )


@cache
def _has_form_of_row(names: tuple[str, ...], kinds: tuple[type, ...]) -> bool:
    """Return whether a row has these names and types of values; ten thousand rows have few different forms."""
    return set(names) == _ROW_KINDS.keys() and all(
        issubclass(kind, _ROW_KINDS[name]) for name, kind in zip(names, kinds, strict=True)
    )


_TEXT, _TEXT_OR_NONE = (str,), (str, type(None))
_NUMBERS_OR_NONE = {float, int, bool, type(None)}
_ROW_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run", "rule", "verb", "status", "created"), _TEXT),
    **dict.fromkeys(
        ("name", "dataset", "data_checksum", "data_note", "started", "finished", "version", "rule_version", "host"),
        _TEXT_OR_NONE,
    ),
    "error": _TEXT_OR_NONE,
    "seed": (int,),
    "seconds": (int, float),
    "training_seconds": (int, float, type(None)),
    "config": (dict,),
    "summary": (dict,),
}
