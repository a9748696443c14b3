"""Export to Weights & Biases: configuration, history over the steps of the run, and summary."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from plastic_cli.runs.exports import hyperparameters, metric_name, metric_value

PROJECT = "plastic"
"""The project, unless WANDB_PROJECT is set."""
STEP = "step"
"""The axis of all metrics: the step of the loop. The step of W&B counts rows, because each loop begins at 0."""
_EXIT_CODES = {"completed": 0, "interrupted": 130}


@dataclass
class _Export:
    run: wandb.Run
    rows: int = 0


_open: dict[str, _Export] = {}


def start(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Begin the run under its id, with all rows that were logged before.

    Offline, files of an earlier session that were not synced are removed, because this session holds all their rows.
    Online, W&B keeps its rows and refuses rows whose number it already has.
    """
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    folder = os.environ.get("WANDB_DIR") or run["folder"]
    if mode == "offline":
        _remove_unsynced(Path(folder) / "wandb", run["run"])
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=run["run"],
        name=run["name"] or f"{run['rule']} {run['run']}",
        group=run["rule"],
        tags=[run["rule"]],
        config=hyperparameters(run),
        mode=mode,
        dir=folder,
        resume=None if mode == "offline" else "allow",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
    )
    opened.define_metric(STEP)
    opened.define_metric("*", step_metric=STEP)
    _open[run["folder"]] = _Export(opened)
    together: list[Mapping[str, Any]] = []
    for row in rows:
        if together and (row["step"] != together[0]["step"] or metric_name(row) in map(metric_name, together)):
            log(run, together)
            together = []
        together.append(row)
    log(run, together)


def log(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of one step as one row of the history."""
    export = _open[run["folder"]]
    if rows:
        values = {metric_name(row): metric_value(row) for row in rows}
        export.run.log({STEP: rows[0]["step"], **values}, step=export.rows)
        export.rows += len(rows)


def finish(run: Mapping[str, Any]) -> None:
    """Write status and error into the summary and end the run: "finished", or "failed" with exit code 1 or 130."""
    export = _open.pop(run["folder"], None)
    if export is None:
        return
    export.run.summary["status"] = run["status"]
    if run["error"]:
        export.run.summary["error"] = run["error"]
    export.run.finish(exit_code=_EXIT_CODES.get(run["status"], 1))


def _remove_unsynced(folder: Path, identity: str) -> None:
    for earlier in folder.glob(f"offline-run-*-{identity}"):
        if not list(earlier.glob("*.synced")):
            shutil.rmtree(earlier)
