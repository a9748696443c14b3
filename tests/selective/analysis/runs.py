"""Helpers of the tests of `plastic analyze selective` and `plastic render selective`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plastic_cli.analysis import continual
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import plastic
from plastic_selective.continual.history import History, read_history

TASKS, EPOCHS = 3, 2


def look(verb, folder, *options):
    return plastic(verb, "selective", "--json", "--runs", folder.parent, "--run", folder.name, *options)


def history_of(folder):
    return read_history(open_run(folder, stage="analyze"))


def stored_matrix(folder):
    return continual.accuracy_matrix(pd.read_csv(folder / "tables" / "accuracy_matrix.csv"))


def assert_refused(outcome, *parts):
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    for part in parts:
        assert part in lines[0]


def history_with(tasks, rounds, **changes):
    random = np.random.default_rng(0)
    from plastic_selective.config import Train

    matrix = random.random((tasks + 1, tasks))
    steps = [(step, task) for step in range(tasks * rounds + 1) for task in range(1, tasks + 1)]
    curves = pd.DataFrame([{"step": step, "task": task, "accuracy": random.random()} for step, task in steps])
    run = type("AnyRun", (), {"seed": 3, "id": "any"})()
    return History(run, Train.from_values({"tasks": tasks, "epochs": rounds, **changes}), rounds, matrix, curves)
