"""The runs that a caller names: as a StoredRun, or by id, name or folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plastic_cli.errors import UserError
from plastic_cli.runs.record import RECORD_FILE
from plastic_cli.runs.store import RunStore
from plastic_cli.runs.stored import StoredRun

AnyRun = StoredRun | str | Path
"""A run: what `plastic.train` returned, or the id, name or folder of a run."""


def named_run(run: AnyRun, runs: str | Path | None = None) -> StoredRun:
    """Return a run; raises UserError if there is none.

    runs: the folder in which an id or a name is looked up (default: PLASTIC_RUNS, else ./runs).
    """
    if isinstance(run, StoredRun):
        return run
    if not isinstance(run, str | Path):
        raise UserError(f"{run!r} is not a run. Give what plastic.train returned, or the id, name or folder of a run.")
    if (Path(run) / RECORD_FILE).is_file():
        return StoredRun(Path(run))
    if isinstance(run, Path):
        raise UserError(f"there is no run in {run}.")
    return RunStore(runs).run(run)


def with_resumed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in which `resume` is an id and `runs` is its folder, if a run or the folder of one was given."""
    resumed = options.get("resume")
    if not isinstance(resumed, StoredRun | Path):
        return dict(options)
    run = named_run(resumed)
    return {**options, "runs": run.folder.parent, "resume": run.id}
