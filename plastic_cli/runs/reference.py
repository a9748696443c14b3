"""The reference: runs of all recipes that were measured and come with plastic, as three Parquet files.

In `plastic_cli/reference/`, `runs.parquet` has one row for each run, `metrics.parquet` its metrics, where every curve
is thinned to `CURVE_POINTS` points, and `stages.parquet` the records of eval, analyze and render. `Reference` reads
them like a store of runs. The folder holds data only.

`runs.parquet` holds the checksums of the two other files, and is replaced last. So no reader combines the files of two
references.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError
from plastic_cli.escapes import valid_text
from plastic_cli.runs.record import RunRecord, read_record, settings_text, with_present_options
from plastic_cli.runs.rows import row_of, runs_frame
from plastic_cli.runs.stages import StageRecord, read_stages
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA = 1
"""Version of the files; a reader refuses a newer one."""
SCHEMA_KEY = b"plastic reference schema"
CHECKSUMS_KEY = b"plastic reference checksums"
"""Metadata of runs.parquet: SHA-256 of the two other files, by name; files of the first versions have none."""
ATTEMPTS, PAUSE_SECONDS = 10, 0.05
"""How often files that do not belong together are read again, because they are just being replaced."""
RUNS_FILE, METRICS_FILE, STAGES_FILE = "runs.parquet", "metrics.parquet", "stages.parquet"
CURVE_POINTS = 50
"""Points of a curve that are kept; its first and its last point are among them."""
ENDED = ("completed", "failed")
"""Statuses of the runs in the reference: runs that failed count."""

PLAIN = ("run", "rule", "seed", "verb", "status", "dataset", "created", "started", "finished", "seconds")
"""Fields of a record that are columns of runs.parquet."""
NESTED = ("config", "steps_done", "summary", "measured_on", "speed", "data", "versions", "machine", "project")
"""Fields of a record that are columns with JSON text."""
STAGE_PLAIN = ("verb", "seconds", "started", "finished")
STAGE_NESTED = ("config", "results", "files", "versions", "steps_done")
"""The same for the record of a stage and stages.parquet."""
NOT_DISTINGUISHING = ("seed", "device")
"""Options that may differ between runs of one setting."""

REFERENCE_COLUMNS = [
    "recipes",
    "torch",
    "numpy",
    "python",
    "processor",
    "instructions",
    "system",
    "threads",
    "used_device",
    "commit",
]
"""Columns of `Reference.runs()` in addition to those of `RunStore.runs()`."""


class Reference:
    """The measured runs that come with plastic. It reads like a `RunStore`, and nothing can be added.

    problem: why the reference could not be read, in one line; it has no runs then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problem: str | None = None
        self._records: dict[str, RunRecord] = {}
        self._recipes: dict[str, list[str]] = {}
        self._stages: dict[str, list[StageRecord]] = {}
        self._settings: dict[str, list[str]] | None = None
        self._checksums: dict[str, str] = {}
        try:
            self._read_one_state()
        except FileNotFoundError:
            self.problem = f"there is no reference in {folder}: install plastic again."
        except UserError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001  a damaged file raises errors of any kind
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.problem = f"cannot read the reference in {folder}: {reason}. Install plastic again."

    def __repr__(self) -> str:
        recipes = {name for names in self._recipes.values() for name in names}
        return f"<Reference {self.folder}: {len(self._records)} runs of {len(recipes)} recipes>"

    def _read_one_state(self) -> None:
        for _ in range(ATTEMPTS):
            try:
                return self._read()
            except _MixedFilesError:
                time.sleep(PAUSE_SECONDS)
        raise UserError(
            f"the files in {self.folder} do not belong together: {RUNS_FILE} was written with another {STAGES_FILE} or"
            f" {METRICS_FILE}. Install plastic again."
        )

    def _read(self) -> None:
        records, recipes = {}, {}
        table = _read_table(self.folder / RUNS_FILE)
        checksums = json.loads((table.schema.metadata or {}).get(CHECKSUMS_KEY, b"{}"))
        for name, checksum in checksums.items():
            # A file that is missing or damaged has an error of its own, where it is read.
            if _is_parquet(self.folder / name) and _checksum(self.folder / name) != checksum:
                raise _MixedFilesError
        for entry in table.to_pylist():
            named = entry.pop("recipes")
            nested = {name: json.loads(entry[name]) for name in NESTED}
            record = RunRecord(**{name: entry[name] for name in PLAIN}, **nested)
            record.config = with_present_options(record.rule, record.config)
            records[record.run], recipes[record.run] = record, list(named)
        for entry in _read_table(self.folder / STAGES_FILE).to_pylist():
            nested = {name: json.loads(entry[name]) for name in STAGE_NESTED}
            stage = StageRecord(**{name: entry[name] for name in STAGE_PLAIN}, **nested)
            self._stages.setdefault(entry["run"], []).append(stage)
        # Only if both files could be read.
        self._records, self._recipes, self._checksums = records, recipes, checksums

    def record(self, run: str) -> RunRecord:
        """Return everything that is known about a run; raises UserError if there is none."""
        if run not in self._records:
            raise UserError(f"the reference has no run '{run}'.")
        return self._records[run]

    def stages(self, run: str) -> list[StageRecord]:
        """Return the records of eval, analyze and render on a run, oldest first; their files do not exist."""
        return list(self._stages.get(run, []))

    def rows(self) -> list[dict[str, Any]]:
        """Return the record of every run as `RunStore.rows` does, oldest first. The folder of a run does not exist."""
        return [self._row(record) for record in self._records.values()]

    def datasets(self) -> set[str | None]:
        """Return the data sets of all runs."""
        return {record.dataset for record in self._records.values()}

    def of_recipe(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of the runs of a recipe."""
        return [self._row(record) for run, record in self._records.items() if name in self._recipes[run]]

    def recipes(self) -> dict[str, list[str]]:
        """Return the ids of the runs of each recipe that has any."""
        found: dict[str, list[str]] = {}
        for run, names in self._recipes.items():
            for name in names:
                found.setdefault(name, []).append(run)
        return dict(sorted(found.items()))

    def with_setting(self, rule: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of the runs with this rule and configuration, whatever their seed and device."""
        if self._settings is None:
            self._settings = {}
            for run, record in self._records.items():
                self._settings.setdefault(setting_text(record.rule, record.config), []).append(run)
        return [self._row(self._records[run]) for run in self._settings.get(setting_text(rule, config), [])]

    def runs(self) -> pd.DataFrame:
        """Return one row per run, oldest first: the columns of `RunStore.runs`, and REFERENCE_COLUMNS.

        recipes: names of the recipes that the run belongs to. used_device: the device of the run. commit: of plastic.
        """
        import pandas as pd

        frame, _ = runs_frame(self.rows())
        records = list(self._records.values())
        more = {
            "recipes": [self._recipes[record.run] for record in records],
            **{name: [record.versions.get(name) for record in records] for name in ("torch", "numpy", "python")},
            **{
                name: [record.machine.get(name) for record in records]
                for name in ("processor", "instructions", "system", "threads")
            },
            "used_device": [record.machine.get("device") for record in records],
            "commit": [record.project.get("commit") for record in records],
        }
        return pd.concat([frame, pd.DataFrame(more, columns=REFERENCE_COLUMNS, index=frame.index)], axis=1)

    def metrics(self, runs: Sequence[str] | None = None, stage: str | None = None) -> pd.DataFrame:
        """Return the metrics of all stages as `RunStore.metrics` does; curves are thinned, and `time` is NaN."""
        from plastic_cli.runs.compact import Collector, chosen, frame, read_parquet

        if self.problem is not None:
            return frame(Collector().collected())
        try:
            content = (self.folder / METRICS_FILE).read_bytes()
            found = read_parquet(io.BytesIO(content))
        except Exception as error:  # noqa: BLE001  a damaged file raises errors of any kind
            raise UserError(f"cannot read {self.folder / METRICS_FILE}: {error}. Install plastic again.") from None
        if self._checksums and hashlib.sha256(content).hexdigest() != self._checksums[METRICS_FILE]:
            raise UserError(f"{self.folder / METRICS_FILE} was replaced after the runs had been read. Start again.")
        if runs is not None:
            found = chosen(found, "run", map(valid_text, runs))
        if stage is not None:
            found = chosen(found, "stage", [stage])
        return frame(found)

    def _row(self, record: RunRecord) -> dict[str, Any]:
        return {**row_of(record), "folder": str(self.folder / record.run)}


def reference_folder() -> Path:
    """Return the folder of the reference that comes with plastic."""
    return Path(str(files("plastic_cli"))) / "reference"


def read_reference(folder: Path | None = None) -> Reference:
    """Return the reference in a folder (default: the one that comes with plastic); each folder is read once."""
    return _read_reference(reference_folder() if folder is None else folder)


@cache
def _read_reference(folder: Path) -> Reference:
    return Reference(folder)


def setting_text(rule: str, config: Mapping[str, Any]) -> str:
    """Return rule and configuration without seed and device as text: equal for runs of one setting."""
    return settings_text(rule, {name: value for name, value in config.items() if name not in NOT_DISTINGUISHING})


def write_reference(
    store: RunStore, folder: Path, recipes: Mapping[str, Collection[str]], *, keep: Reference | None = None
) -> int:
    """Write the runs of a store that belong to recipes as a reference, and return their number.

    recipes: for each recipe the `settings_text` of its runs, seeds included. All runs of a setting are of one version
    of plastic: the newest of those with most seeds. Of several runs of this version with one seed, a completed one is
    kept before a failed one, and the newest. keep: a reference whose runs stay unless the store has others.
    """
    named: dict[str, list[str]] = {}
    for recipe, settings in recipes.items():
        for text in settings:
            named.setdefault(text, []).append(recipe)
    sources = [(read_record(Path(row["folder"])), True) for row in store.rows() if row["status"] in ENDED]
    if keep is not None:
        sources += [(keep.record(row["run"]), False) for row in keep.rows()]
    chosen = _of_one_version((record, new) for record, new in sources if _settings(record) in named)
    records = sorted((record for record, _ in chosen), key=lambda record: (record.created, record.run))
    names = {record.run: sorted(named[_settings(record)]) for record in records}
    stages = {
        record.run: read_stages(store.folder / record.run) if from_store or keep is None else keep.stages(record.run)
        for record, from_store in chosen
    }
    new = [record.run for record, from_store in chosen if from_store]
    old = [record.run for record, from_store in chosen if not from_store]
    folder.mkdir(parents=True, exist_ok=True)
    # Everything is written before the first file is replaced.
    draft = folder / f".{secrets.token_hex(8)}.tmp"
    draft.mkdir()
    try:
        _write_metrics(draft / METRICS_FILE, store, new, keep, old, [record.run for record in records])
        _write_stages(draft / STAGES_FILE, {record.run: stages[record.run] for record in records})
        checksums = {name: _checksum(draft / name) for name in (METRICS_FILE, STAGES_FILE)}
        _write_runs(draft / RUNS_FILE, records, names, checksums)
        for name in (METRICS_FILE, STAGES_FILE, RUNS_FILE):
            (draft / name).replace(folder / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _read_reference.cache_clear()
    return len(records)


def _of_one_version(sources: Iterable[tuple[RunRecord, bool]]) -> list[tuple[RunRecord, bool]]:
    """Return one run for each seed of each setting, all of one version. sources: runs, and whether they are new."""
    settings: dict[str, dict[tuple[int, ...], dict[str, tuple[RunRecord, bool]]]] = {}

    def rank(source: tuple[RunRecord, bool]) -> tuple[bool, bool, str]:
        record, new = source
        return record.status == "completed", new, record.created

    for source in sources:
        record = source[0]
        versions = settings.setdefault(setting_text(record.rule, record.config), {})
        seeds = versions.setdefault(_version(record), {})
        known = seeds.get(_settings(record))
        if known is None or rank(known) < rank(source):
            seeds[_settings(record)] = source
    found: list[tuple[RunRecord, bool]] = []
    for versions in settings.values():
        most = max(versions, key=lambda version: (len(versions[version]), version))
        found += versions[most].values()
    return found


def _settings(record: RunRecord) -> str:
    return settings_text(record.rule, record.config)


def thinned(metrics: pd.DataFrame, points: int = CURVE_POINTS) -> pd.DataFrame:
    """Return the rows of metrics with at most `points` rows of each curve, evenly spaced, with its first and last."""
    keys = [metrics[name].fillna("") for name in ("run", "stage", "split", "metric", "labels")]
    groups = metrics.groupby(keys, sort=False)
    place, size = groups.cumcount(), groups["value"].transform("size")
    # Row i of n is kept if it is the first one in its part of the curve, and the last row always is.
    part = (place * (points - 1)) // (size - 1).clip(lower=1)
    before = ((place - 1) * (points - 1)) // (size - 1).clip(lower=1)
    return metrics[(size <= points) | (place == 0) | (part != before)]


class _MixedFilesError(Exception):
    """The files of a reference do not belong together."""


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_parquet(path: Path) -> bool:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            return bool(file.metadata.num_rows >= 0)
    except Exception:  # noqa: BLE001  a damaged file raises errors of any kind
        return False


def _version(record: RunRecord) -> tuple[int, ...]:
    parts = str(record.versions.get("plastic", "0")).split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _read_table(path: Path) -> pa.Table:
    from pyarrow import parquet

    # parquet.read_table imports pandas, which takes longer than all the rest.
    with parquet.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    schema = int((table.schema.metadata or {}).get(SCHEMA_KEY, b"0"))
    if schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer version of plastic (format {schema}, this one reads {SCHEMA})."
            " Upgrade plastic."
        )
    return table


def _write_runs(
    path: Path, records: Sequence[RunRecord], recipes: Mapping[str, list[str]], checksums: Mapping[str, str]
) -> None:
    entries = [asdict(replace(record, argv=[], process={})) for record in records]
    columns: dict[str, list[Any]] = {name: [entry[name] for entry in entries] for name in PLAIN}
    for name in NESTED:
        columns[name] = [json.dumps(entry[name], allow_nan=False) for entry in entries]
    columns["recipes"] = [recipes[record.run] for record in records]
    _write_table(path, columns, {CHECKSUMS_KEY: json.dumps(checksums).encode()})


def _write_stages(path: Path, stages: Mapping[str, Sequence[StageRecord]]) -> None:
    entries = [{"run": run, **asdict(stage)} for run, listed in stages.items() for stage in listed]
    columns: dict[str, list[Any]] = {name: [entry[name] for entry in entries] for name in ("run", *STAGE_PLAIN)}
    for name in STAGE_NESTED:
        columns[name] = [json.dumps(entry[name], allow_nan=False) for entry in entries]
    _write_table(path, columns)


def _write_table(path: Path, columns: Mapping[str, list[Any]], about: Mapping[bytes, bytes] | None = None) -> None:
    """Write columns of text, except for those of `kinds`, with the version of the format. about: more metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"seed": pa.int64(), "seconds": pa.float64(), "recipes": pa.list_(pa.string())}
    schema = pa.schema(
        [(name, kinds.get(name, pa.string())) for name in columns],
        metadata={SCHEMA_KEY: str(SCHEMA).encode(), **(about or {})},
    )
    table = pa.table(dict(columns), schema=schema)
    options = {"compression": "zstd", "compression_level": 19}
    parquet.write_table(table, path, **options)


def _write_metrics(
    path: Path, store: RunStore, new: Iterable[str], keep: Reference | None, old: Iterable[str], order: Sequence[str]
) -> None:
    import pandas as pd

    parts = [thinned(store.metrics(list(new)))]
    if keep is not None:
        parts.append(keep.metrics(list(old)))
    rank = {run: number for number, run in enumerate(order)}
    whole = pd.concat(parts, ignore_index=True)
    whole = whole.iloc[whole["run"].map(rank).argsort(kind="stable")]
    from plastic_cli.runs.compact import Collector, write_parquet

    collector = Collector()
    for run, rows in whole.groupby("run", sort=False):
        collector.add(str(run), [_logged(row) for row in rows.to_dict("records")])
    found = collector.collected()
    write_parquet(found, path, compression="zstd")


def _logged(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row of a metrics table in the form of metrics.jsonl, without its time."""
    labels = row["labels"]
    return {
        **{name: row[name] for name in ("stage", "split", "step", "metric", "value")},
        "labels": json.loads(labels) if isinstance(labels, str) else None,
    }
