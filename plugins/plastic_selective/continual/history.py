"""What a run kept of its history: accuracies as the tasks were learned, and eligibility and gates after each round."""

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

OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum SGD", "adam": "Adam"}
PENALTIES = {"ewc": "online EWC", "si": "synaptic intelligence"}


@dataclass(frozen=True, eq=False)
class History:
    """How a run went.

    rounds: of each task; accuracy was measured after each. matrix: the accuracy matrix, (tasks + 1, tasks), test split,
    nan for tasks that the run did not come to. curves: columns step (rounds so far, from 0), task (from 1), accuracy.
    """

    run: Run
    config: Train
    rounds: int
    matrix: NDArray[np.float64]
    curves: pd.DataFrame

    @property
    def tasks(self) -> int:
        """How many tasks the stream has."""
        return self.config.tasks

    @property
    def learned(self) -> int:
        """How many tasks were learned to their end."""
        return int(np.isfinite(self.matrix).all(axis=1).cumprod().sum()) - 1

    @property
    def done(self) -> int:
        """How many rounds were learned."""
        return int(self.curves["step"].max())

    @property
    def last(self) -> int:
        """The last step of the whole stream."""
        return self.tasks * self.rounds

    @property
    def borders(self) -> list[int]:
        """The steps at which one task gives way to the next."""
        return [self.rounds * task for task in range(1, self.tasks)]

    def ticks(self, most: int) -> list[int]:
        """Return `most` steps for an axis or fewer: the borders of tasks and, where there is room, between them."""
        if self.tasks > most:
            return [self.rounds * task for task in every(self.tasks, most)]
        parts = [
            parts for parts in range(1, self.rounds + 1) if self.rounds % parts == 0 and parts * self.tasks <= most
        ]
        return list(range(0, self.last + 1, self.rounds // max(parts)))

    @property
    def step_name(self) -> str:
        """What a step is, for axes."""
        if not self.config.iterations:
            return "Epoch"
        return f"Round ({min(ITERATIONS_PER_ROUND, self.config.iterations)} steps)"

    @property
    def learner(self) -> str:
        """What learned: optimizer, replay and penalty."""
        return self.learner_with(f"k = {self.config.plasticity_k:g}")

    def learner_with(self, strength: str) -> str:
        """Return what learned, with these words for the strength of the gate."""
        config = self.config
        name = OPTIMIZERS.get(config.optimizer, f"selective {OPTIMIZERS.get(config.base, config.base)}")
        if config.optimizer == "selective":
            uniform = ", uniform" if config.gating == "uniform" else ""
            name += f" ({strength}{uniform})"
        if config.penalty != "none":
            name += f" with {PENALTIES[config.penalty]}"
        if config.joint:
            return f"{name}, joint training"
        return name + (
            ", no replay" if config.replay == "none" else f", {config.replay} replay of {config.buffer_size}"
        )

    @property
    def stream(self) -> str:
        """What was learned."""
        config = self.config
        return f"{config.stream} {Path(config.dataset).name}, {config.scenario}-incremental, seed {self.run.seed}"


def read_history(run: Run) -> History:
    """Read how a run went, from what it logged: where it was stopped its checkpoint may be older. Says how far it came.

    Raises UserError for a run that learned no task to its end, and for one that logged less than it learned.
    """
    config = Train.from_values(run.config, source=f"run {run.id}")
    rounds, curves = rounds_of_task(config), _curves(run)
    history = History(run, config, rounds, _matrix(curves, config.tasks, rounds), curves)
    if history.learned < history.tasks and run.record.status == "completed":
        raise UserError(
            f"run {run.id} is completed, but its metrics.jsonl lacks accuracies: restore that file, or train it again."
        )
    if history.learned < 1:
        raise UserError(
            f"run {run.id} stopped before the end of its first task."
            f" Go on with: plastic train selective --resume {run.id}"
        )
    if history.learned < history.tasks:
        run.message(f"run {run.id} learned {history.learned} of its {history.tasks} tasks: what follows is after those")
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
    """Raise UserError, beginning with `purpose`, where the run's optimizer has no eligibility and gates."""
    if history.config.optimizer != "selective":
        raise UserError(
            f"{purpose}: run {history.run.id} learned with {history.config.optimizer}, which has no eligibility and no"
            " gates. Choose a run of --optimizer selective."
        )


def snapshot_names(history: History) -> list[str]:
    """Return the names of what was kept after each round; raises UserError where one is missing."""
    return kept_artifacts(history.run, "plasticity", range(1, history.done + 1))


def snapshots(history: History) -> Iterator[dict[str, Any]]:
    """Read what was kept after each round, one after the other: see `snapshots.save_plasticity`."""
    for name in snapshot_names(history):
        yield history.run.load_tensors(name)


def every(count: int, most: int) -> list[int]:
    """Return 0 and every first, second, fifth, tenth ... number up to `count`, about `most` of them at most."""
    stride = next(digit * 10**power for power in range(10) for digit in (1, 2, 5) if count <= most * digit * 10**power)
    return list(range(0, count + 1, stride))
