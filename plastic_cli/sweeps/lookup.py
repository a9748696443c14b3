"""What of a plan is in a store already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from plastic_cli.data.catalogue import DATASETS
from plastic_cli.data.identity import dataset_checksum
from plastic_cli.errors import UserError
from plastic_cli.runs.record import read_record
from plastic_cli.runs.store import RunStore, is_held
from plastic_cli.sweeps.plan import PlannedRun, canonical

Standing = Literal["done", "running", "unfinished", "failed", "missing"]
"""done: completed; running: another process is at it; unfinished: can be resumed; failed and missing: to be run."""


@dataclass(frozen=True)
class StoredRun:
    """What of a stored run matters here."""

    run: str
    settings: str
    status: str
    version: str | None
    checksum: str | None
    created: str
    seconds: float
    summary: dict[str, float | None]
    error: str | None


@dataclass(frozen=True)
class Found:
    """How a planned run stands, and the stored run that decides it."""

    standing: Standing
    stored: StoredRun | None = None


class StoreIndex:
    """The runs of a store by their settings, read again only where they changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, tuple[int, int]] = {}
        self._runs: dict[str, StoredRun] = {}
        self._by_settings: dict[str, set[str]] = {}
        self._lock = Lock()

    def refresh(self) -> StoreIndex:
        """Take in what was added and changed."""
        with self._lock:
            present = RunStore(self.folder).folders()
            for run in self._read.keys() - present.keys():
                self._forget(run)
            for run, state in present.items():
                seen = (state.st_mtime_ns, state.st_size)
                # A record that is being written may change within the clock's resolution.
                if self._read.get(run) == seen and self._runs[run].status not in ("created", "running"):
                    continue
                self._forget(run)
                with suppress(UserError):
                    record = read_record(self.folder / run)
                    self._read[run] = seen
                    self._runs[run] = StoredRun(
                        run=run,
                        settings=canonical(record.rule, record.config),
                        status=record.status,
                        version=record.versions.get("rule"),
                        checksum=record.data.get("checksum"),
                        created=record.created,
                        seconds=float(record.seconds),
                        summary=record.summary,
                        error=record.error,
                    )
                    self._by_settings.setdefault(self._runs[run].settings, set()).add(run)
        return self

    def find(self, planned: PlannedRun) -> Found:
        """Say how a planned run stands.

        A stored run is the same where rule, configuration with its seed, version of the rule and data are; one that
        was stopped before it had read its data may be finished too.
        """
        with self._lock:
            runs = [self._runs[run] for run in self._by_settings.get(planned.settings, ())]
        # Held first: what a living process is at may be about to be completed.
        found: dict[Standing, StoredRun] = {}
        for stored in sorted(runs, key=lambda stored: (stored.created, stored.run)):
            if stored.version != planned.version or not _same_data(stored, planned):
                continue
            found[self._standing(stored)] = stored
        order: Sequence[Standing] = ("done", "running", "unfinished", "failed")
        return next((Found(word, found[word]) for word in order if word in found), Found("missing"))

    def _standing(self, stored: StoredRun) -> Standing:
        if stored.status == "completed":
            return "done"
        if is_held(self.folder / stored.run):
            return "running"
        return "failed" if stored.status == "failed" else "unfinished"

    def _forget(self, run: str) -> None:
        self._read.pop(run, None)
        stored = self._runs.pop(run, None)
        if stored is not None:
            self._by_settings[stored.settings].discard(run)


_indexes: dict[tuple[int, Path], StoreIndex] = {}


def store_index(folder: Path) -> StoreIndex:
    """Return this process's index of a store, brought up to date."""
    return _indexes.setdefault((os.getpid(), folder), StoreIndex(folder)).refresh()


def with_data(runs: Sequence[PlannedRun], data_folder: Path | None) -> list[PlannedRun]:
    """Return the runs with the checksums of the data that are here."""
    return [run.with_checksum(_checksum(run.config, data_folder)) for run in runs]


def _checksum(config: dict[str, Any], data_folder: Path | None) -> str | None:
    name = config.get("dataset")
    if not isinstance(name, str):
        return None
    return dataset_checksum(name, data_folder if name in DATASETS else None)


def _same_data(stored: StoredRun, planned: PlannedRun) -> bool:
    if None in (stored.checksum, planned.checksum):
        # Not read yet, not here to compare with, or a rule that learns from no data set.
        return True
    return stored.checksum == planned.checksum
