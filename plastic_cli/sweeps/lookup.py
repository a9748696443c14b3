"""Which planned runs and steps already exist in a store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from plastic_cli.data.catalog import DATASETS
from plastic_cli.distribution import installed_version
from plastic_cli.runs.index import read_index, write_index
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.record import read_record
from plastic_cli.runs.stages import StageRecord, read_stage
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.steps import PlannedStep

Planned = PlannedRun | PlannedStep

Standing = Literal["done", "running", "unfinished", "failed", "missing", "waiting"]
"""done: completed; running: held by a process; unfinished: can be resumed; failed and missing: to be run; waiting: a
step whose run is not done."""


@dataclass(frozen=True)
class Found:
    """How far a planned run or step is.

    stored: what run.json says of the stored run that decides it; None: there is none. stage: the record of a step that
    is done.
    """

    standing: Standing
    stored: Mapping[str, Any] | None = None
    stage: StageRecord | None = None

    @property
    def run(self) -> str | None:
        """The id of the stored run."""
        return None if self.stored is None else str(self.stored["run"])


_stores: dict[tuple[int, Path], RunStore] = {}
_lock = Lock()
"""The threads of a sweep share one store."""


def store_of(folder: Path) -> RunStore:
    """Return the store of a folder, of which this process reads only new and changed runs."""
    with _lock:
        return _stores.setdefault((os.getpid(), folder), RunStore(folder)).refresh()


def find(store: RunStore, planned: Planned) -> Found:
    """Return how far a planned run or step is, as of the last `store.refresh()`."""
    return find_step(store, planned) if isinstance(planned, PlannedStep) else find_run(store, planned)


def find_step(store: RunStore, step: PlannedStep) -> Found:
    """Return how far a planned step is, as of the last `store.refresh()`.

    It is done if its run has a record of the same command with the same options and versions of plastic and the rule.
    """
    of = find_run(store, step.of)
    if of.standing != "done" or of.run is None:
        return Found("waiting", of.stored)
    folder = store.folder / of.run
    stage = read_stage(folder, step.verb, step.config)
    if stage is not None and stage.holds_for(folder, read_record(folder).steps_done, step.versions):
        return Found("done", of.stored, stage)
    return Found("running" if is_held(folder) else "missing", of.stored)


def find_run(store: RunStore, planned: PlannedRun) -> Found:
    """Return how far a planned run is, as of the last `store.refresh()`.

    A stored run is the same if rule, configuration with its seed, version of the rule and data are the same. A run
    that stopped before it had read its data can be resumed too.
    """
    with _lock:
        rows = store.with_settings(planned.rule, planned.config)
    found: dict[Standing, Mapping[str, Any]] = {}
    for row in rows:
        if row["rule_version"] == planned.version and same_data(row["data_checksum"], planned.checksum):
            found[_standing(store, row)] = row
    order: Sequence[Standing] = ("done", "running", "unfinished", "failed")
    return next((Found(standing, found[standing]) for standing in order if standing in found), Found("missing"))


def _standing(store: RunStore, row: Mapping[str, Any]) -> Standing:
    if row["status"] == "completed":
        return "done"
    if is_held(store.folder / row["run"]):
        return "running"
    return "failed" if row["status"] == "failed" else "unfinished"


def claim_of(planned: Planned, found: Found) -> str:
    """Return the name under which a process claims a run, or all steps on a run: a run is written by one process."""
    return f"steps-{found.run}" if isinstance(planned, PlannedStep) else planned.key


def with_data(runs: Sequence[PlannedRun], data_folder: Path | None, store: Path | None = None) -> list[PlannedRun]:
    """Return the runs with the checksums of their data; the index of `store` keeps checksums that take long."""
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
    """Return the checksum of scikit-learn's digits from the index, because importing scikit-learn takes a second."""
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


def same_data(stored: str | None, planned: str | None) -> bool:
    """Return whether two checksums of data do not differ; None if a run has none."""
    # Without a checksum the data were not read yet, are not here, or the rule learns from no data set.
    return stored is None or planned is None or stored == planned
