"""The runs of the reference that came from some recipes, as tables and figures need them."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from plastic_cli.reports.curves import ChosenRuns
from plastic_cli.runs.reference import Reference


def runs_of_recipes(reference: Reference, recipes: Iterable[str]) -> pd.DataFrame:
    """Return the completed runs of some recipes, in the order of their creation, without the versions that made them.

    The reference has one run of a setting and seed: runs of two versions are no two settings.
    """
    wanted = set(recipes)
    runs = reference.runs()
    own = runs[runs["recipes"].map(lambda names: not wanted.isdisjoint(names)) & (runs["status"] == "completed")]
    return own.assign(version=None, rule_version=None)


def chosen_runs(reference: Reference, runs: pd.DataFrame) -> ChosenRuns:
    """Return runs that were trained in epochs as `plastic plot` reads runs of a store."""
    metrics = reference.metrics(list(runs["run"]), stage="train")
    return ChosenRuns(runs, metrics, {run: reference.record(run) for run in runs["run"]}, "epoch")
