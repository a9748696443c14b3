"""What of a plan is in a store already."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from plastic_cli.data.catalogue import DATASETS
from plastic_cli.distribution import installed_version
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.store import RunStore, read_index, write_index
from plastic_cli.sweeps.plan import PlannedRun, canonical

Standing = Literal["done", "running", "unfinished", "failed", "missing"]
"""done: completed; running: another process is at it; unfinished: can be resumed; failed and missing: to be run."""


@dataclass(frozen=True)
class StoredRun:
    """What of a stored run matters here."""

    run: str
    status: str
    version: str | None
    checksum: str | None
    created: str
    seconds: float
    summary: Mapping[str, float | None]
    error: str | None
    rule: str
    config: Mapping[str, Any]

    @cached_property
    def settings(self) -> str:
        """Rule and configuration as one text, the same for the same settings."""
        return canonical(self.rule, self.config)


@dataclass(frozen=True)
class Found:
    """How a planned run stands, and the stored run that decides it."""

    standing: Standing
    stored: StoredRun | None = None


class StoreIndex:
    """The runs of a store by rule and seed, read again only where they changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = RunStore(folder)
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._by_seed: dict[tuple[str, int], dict[str, StoredRun]] = {}
        self._lock = Lock()

    def refresh(self) -> StoreIndex:
        """Take in what was added and changed."""
        with self._lock:
            present = self._store.stored()
            for run in [run for run, row in self._rows.items() if present.get(run) is not row]:
                row = self._rows.pop(run)
                del self._by_seed[row["rule"], row["seed"]][run]
            for run, row in present.items():
                if run not in self._rows:
                    self._rows[run] = row
                    self._by_seed.setdefault((row["rule"], row["seed"]), {})[run] = _stored_run(row)
        return self

    def find(self, planned: PlannedRun) -> Found:
        """Say how a planned run stands.

        A stored run is the same where rule, configuration with its seed, version of the rule and data are; one that
        was stopped before it had read its data may be finished too.
        """
        with self._lock:
            runs = list(self._by_seed.get((planned.rule, planned.seed), {}).values())
        # Held first: what a living process is at may be about to be completed.
        found: dict[Standing, StoredRun] = {}
        for stored in sorted(runs, key=lambda stored: (stored.created, stored.run)):
            if (
                stored.version == planned.version
                and _same_data(stored, planned)
                and stored.settings == planned.settings
            ):
                found[self._standing(stored)] = stored
        order: Sequence[Standing] = ("done", "running", "unfinished", "failed")
        return next((Found(word, found[word]) for word in order if word in found), Found("missing"))

    def _standing(self, stored: StoredRun) -> Standing:
        if stored.status == "completed":
            return "done"
        if is_held(self.folder / stored.run):
            return "running"
        return "failed" if stored.status == "failed" else "unfinished"


def _stored_run(row: Mapping[str, Any]) -> StoredRun:
    return StoredRun(
        run=row["run"],
        status=row["status"],
        version=row["rule_version"],
        checksum=row["data_checksum"],
        created=row["created"],
        seconds=float(row["seconds"]),
        summary=row["summary"],
        error=row["error"],
        rule=row["rule"],
        config=row["config"],
    )


_indexes: dict[tuple[int, Path], StoreIndex] = {}


def store_index(folder: Path) -> StoreIndex:
    """Return this process's index of a store, brought up to date."""
    return _indexes.setdefault((os.getpid(), folder), StoreIndex(folder)).refresh()


def with_data(runs: Sequence[PlannedRun], data_folder: Path | None, store: Path | None = None) -> list[PlannedRun]:
    """Return the runs with the checksums of the data that are here; `store` remembers what takes long to know."""
    return [run.with_checksum(_checksum(run.config, data_folder, store)) for run in runs]


def _checksum(config: dict[str, Any], data_folder: Path | None, store: Path | None) -> str | None:
    name = config.get("dataset")
    if not isinstance(name, str):
        return None
    if name == "digits" and store is not None and store.is_dir():
        return _checksum_of_digits(store)
    from plastic_cli.data.sources import dataset_checksum

    return dataset_checksum(name, data_folder if name in DATASETS else None)


@cache
def _checksum_of_digits(store: Path) -> str | None:
    """Return the checksum of the set that scikit-learn carries, from the index: its import takes a second."""
    libraries = " ".join(f"{package} {version(package)}" for package in ("scikit-learn", "numpy"))
    made_by = f"plastic {installed_version()} {libraries}"
    known = read_index(store, "digits.json", lambda _, checksum: isinstance(checksum, str))["entries"]
    if made_by in known:
        found: str = known[made_by][2]
        return found
    from plastic_cli.data.sources import dataset_checksum

    checksum = dataset_checksum("digits", None)
    if checksum is not None:
        write_index(store, "digits.json", {"entries": {made_by: [0, 0, checksum]}})
    return checksum


def _same_data(stored: StoredRun, planned: PlannedRun) -> bool:
    if None in (stored.checksum, planned.checksum):
        # Not read yet, not here to compare with, or a rule that learns from no data set.
        return True
    return stored.checksum == planned.checksum
