"""The runs of the reference beside own runs, in one frame that keeps them apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from plastic_cli.reports.grouping import OWN, REFERENCE, SOURCE
from plastic_cli.reports.results import STAGES
from plastic_cli.runs.reference import Reference

PREFIX = f"{REFERENCE}/"
"""The beginning of the ids of runs of the reference in a frame: an own run can have the same id."""


def reference_runs(reference: Reference, rules: Collection[str], datasets: Collection[str] | None) -> pd.DataFrame:
    """Return the runs of the reference as `RunStore.runs()` gives runs, with the columns `SOURCE` and `STAGES`.

    rules: only runs of these rules; all if empty. datasets: only runs on these data sets; None: all.
    """
    frame = reference.runs()
    if rules:
        frame = frame[frame["rule"].isin(rules)]
    if datasets is not None:
        frame = frame[frame["dataset"].isin(datasets)]
    stages = pd.Series([reference.stages(run) for run in frame["run"]], index=frame.index, dtype=object)
    more = pd.DataFrame({SOURCE: REFERENCE, STAGES: stages}, index=frame.index)
    return pd.concat([frame.assign(run=PREFIX + frame["run"]), more], axis=1)


def joined(own: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """Return own runs and those of the reference as one frame."""
    marked = own.assign(**{SOURCE: OWN})
    frames = [frame for frame in (marked, shipped) if len(frame)]
    # A copy, because a frame of many parts is slow.
    return pd.concat(frames, ignore_index=True).copy() if frames else marked


def reference_metrics(reference: Reference, runs: Sequence[str], stage: str) -> pd.DataFrame:
    """Return the metrics of those of the runs that are runs of the reference, with their ids in a frame of runs."""
    ids = [run.removeprefix(PREFIX) for run in runs if run.startswith(PREFIX)]
    metrics = reference.metrics(ids, stage)
    return metrics.assign(run=PREFIX + metrics["run"].astype(object))


def own_only(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that are not those of the reference."""
    return runs[runs[SOURCE] != REFERENCE] if SOURCE in runs.columns else runs
