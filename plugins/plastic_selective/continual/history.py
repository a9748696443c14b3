"""The training history of a run: its accuracies, and its stored eligibility and gates, after each round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plastic_cli import Run, UserError
from plastic_cli.runs.store import RunStore
from plastic_selective.config import Train
from plastic_selective.continual.components import ITERATIONS_PER_ROUND, rounds_of_task
from plastic_selective.continual.snapshots import kept_artifacts

OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum SGD", "adam": "Adam", "adamw": "AdamW"}
PENALTIES = {"ewc": "online EWC", "si": "synaptic intelligence"}


@dataclass(frozen=True, eq=False)
class History:
    """The accuracies of a run during training.

    rounds: number of rounds of each task. matrix: the accuracy matrix (tasks + 1, tasks) on the test split, nan for
    tasks that were not completed. curves: columns step (number of rounds, from 0), task (from 1), accuracy.
    """

    run: Run
    config: Train
    rounds: int
    matrix: NDArray[np.float64]
    curves: pd.DataFrame

    @property
    def tasks(self) -> int:
        """Number of tasks of the stream."""
        return self.config.tasks

    @property
    def learned(self) -> int:
        """Number of completed tasks."""
        return int(np.isfinite(self.matrix).all(axis=1).cumprod().sum()) - 1

    @property
    def done(self) -> int:
        """Number of completed rounds."""
        return int(self.curves["step"].max())

    @property
    def last(self) -> int:
        """Number of rounds of the whole stream."""
        return self.tasks * self.rounds

    @property
    def borders(self) -> list[int]:
        """The steps at which a new task begins, except the first."""
        return [self.rounds * task for task in range(1, self.tasks)]

    def ticks(self, most: int) -> list[int]:
        """Return about `most` ticks of an axis or fewer: the borders of tasks and, if there is room, steps between."""
        if self.tasks > most:
            return [self.rounds * task for task in every(self.tasks, most)]
        parts = [
            parts for parts in range(1, self.rounds + 1) if self.rounds % parts == 0 and parts * self.tasks <= most
        ]
        return list(range(0, self.last + 1, self.rounds // max(parts)))

    @property
    def step_name(self) -> str:
        """Label of an axis of steps."""
        if not self.config.iterations:
            return "Epoch"
        return f"Round ({min(ITERATIONS_PER_ROUND, self.config.iterations)} steps)"

    @property
    def learner(self) -> str:
        """Description of optimizer, replay and penalty."""
        return self.learner_with(f"k = {self.config.plasticity_k:g}")

    def learner_with(self, strength: str) -> str:
        """Return the description of optimizer, replay and penalty with this text for the strength of the gate."""
        config = self.config
        name = OPTIMIZERS.get(config.optimizer, f"selective {OPTIMIZERS.get(config.base, config.base)}")
        if config.optimizer == "selective":
            uniform = ", uniform" if config.gating == "uniform" else ""
            name += f" ({strength}{uniform})"
        if config.model != "mlp":
            name += f" on {config.model}"
        if config.penalty != "none":
            name += f" with {PENALTIES[config.penalty]}"
        if config.joint:
            return f"{name}, joint training"
        return name + (
            ", no replay" if config.replay == "none" else f", {config.replay} replay of {config.buffer_size}"
        )

    @property
    def stream(self) -> str:
        """Description of the stream of tasks."""
        config = self.config
        return f"{config.stream} {Path(config.dataset).name}, {config.scenario}-incremental, seed {self.run.seed}"


def read_history(run: Run) -> History:
    """Read the history of a run from its metrics. A message says if it did not complete all tasks.

    The metrics can be newer than the checkpoint of a stopped run. Raises UserError if no task was completed, or if a
    completed run has metrics missing.
    """
    config = Train.from_values(run.config, source=f"run {run.id}")
    rounds, curves = rounds_of_task(config), _curves(run)
    history = History(run, config, rounds, _matrix(curves, config.tasks, rounds), curves)
    if history.learned < history.tasks and run.record.status == "completed":
        raise UserError(
            f"run {run.id} is completed, but its metrics.jsonl lacks accuracies: restore the file or train again."
        )
    if history.learned < 1:
        raise UserError(
            f"run {run.id} stopped before the end of its first task."
            f" Continue it with: plastic train selective --resume {run.id}"
        )
    if history.learned < history.tasks:
        run.message(
            f"run {run.id} completed {history.learned} of {history.tasks} tasks: the results are for these tasks"
        )
    return history


def _curves(run: Run) -> pd.DataFrame:
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    rows = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy") & metrics["labels"].notna()]
    tasks = [int(json.loads(labels)["task"]) for labels in rows["labels"]]
    return pd.DataFrame(
        {"step": rows["step"].to_numpy(), "task": np.array(tasks, dtype=int), "accuracy": rows["value"].to_numpy()}
    )


def _matrix(curves: pd.DataFrame, tasks: int, rounds: int) -> NDArray[np.float64]:
    matrix = np.full((tasks + 1, tasks), np.nan)
    ends = curves[curves["step"] % rounds == 0]
    matrix[ends["step"] // rounds, ends["task"] - 1] = ends["accuracy"]
    return matrix


def require_eligibility(history: History, purpose: str) -> None:
    """Raise UserError, starting with `purpose`, if the run's optimizer has no eligibility and gates."""
    if history.config.optimizer != "selective":
        raise UserError(
            f"{purpose}: run {history.run.id} has --optimizer {history.config.optimizer}, which has no eligibility and"
            " no gates. Choose a run of --optimizer selective."
        )


def snapshot_names(history: History) -> list[str]:
    """Return the names of the artifacts of all rounds. Raises UserError if a file is missing."""
    return kept_artifacts(history.run, "plasticity", range(1, history.done + 1))


def snapshots(history: History) -> Iterator[dict[str, Any]]:
    """Read the artifact of each round, one at a time: see `save_plasticity`."""
    for name in snapshot_names(history):
        yield history.run.load_tensors(name)


def every(count: int, most: int) -> list[int]:
    """Return multiples of 1, 2, 5, 10, 20, ... from 0 to `count`, about `most` of them at most."""
    stride = next(digit * 10**power for power in range(10) for digit in (1, 2, 5) if count <= most * digit * 10**power)
    return list(range(0, count + 1, stride))
