"""Metrics of meta-learning by episode: read from a run, smoothed, and summarized as numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from plastic_cli import UserError
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plastic_cli import Run

FINAL_SHARE = 0.1
"""Share of the episodes, the last ones, whose mean is the final value of theta."""
SETTLED_WITHIN = 0.2
"""theta counts as settled while it differs from its final value by at most this share of it."""
WINDOW = 30
"""Episodes of the moving averages that numbers are read from."""


def history(run: Run) -> pd.DataFrame:
    """Return what meta-learning logged for each episode: columns step, metric, value, layer (NaN for no layer).

    Raises UserError if the run has logged no episode.
    """
    metrics = RunStore(run.folder.parent).metrics(runs=[run.id], stage="train")
    metrics = metrics[metrics["split"] == "train"]
    if metrics.empty:
        raise UserError(f"run {run.id} has no episode to show yet.")
    layers = metrics["labels"].map(lambda text: _layer(text))
    return pd.DataFrame(
        {"step": metrics["step"], "metric": metrics["metric"], "value": metrics["value"], "layer": layers}
    ).reset_index(drop=True)


def _layer(labels: Any) -> float:
    return float(json.loads(labels)["layer"]) if isinstance(labels, str) else float("nan")


def moving_average(curves: pd.DataFrame, window: int, by: list[str]) -> pd.DataFrame:
    """Return the mean of the last `window` episodes, of fewer at the start; columns as in `history`."""
    ordered = curves.sort_values("step")
    means = ordered.groupby(by)["value"].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return ordered.assign(value=means).reset_index(drop=True)


def strengths(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `history` that hold theta, with the key of the term as column term."""
    terms = curves["metric"].str.extract(r"^theta_(\d+|[\w.]+:\w+)$")[0]
    keys = [int(term) if term.isdecimal() else term for term in terms.dropna()]
    return curves[terms.notna()].assign(term=pd.Series(keys, terms.dropna().index, dtype=object))


def settled_from(theta: pd.Series[float]) -> int:
    """Return the first episode, from 1, after which the moving average of `theta` stays near its final value."""
    average = theta.rolling(WINDOW, min_periods=1).mean().reset_index(drop=True)
    final = float(theta.iloc[-max(1, round(FINAL_SHARE * len(theta))) :].mean())
    far = average[(average - final).abs() > SETTLED_WITHIN * abs(final)]
    return int(far.index[-1]) + 2 if len(far) else 1


def keeps_its_sign(theta: pd.Series[float]) -> bool:
    """Return whether a strength is nonzero and has one sign in the last episodes.

    Adam's steps along the L1 penalty do not end at 0: a strength that the penalty holds there crosses it repeatedly.
    """
    last = theta.iloc[-max(1, round(FINAL_SHARE * len(theta))) :]
    return bool((last > 0).all() or (last < 0).all())


def rises_from(accuracy: pd.Series[float], level: float, window: int = 10) -> int:
    """Return the first episode, from 1, that starts a `window` whose mean accuracy is above `level`.

    If there is none, return the number of episodes plus one.
    """
    ahead = accuracy.reset_index(drop=True).rolling(window).mean().shift(1 - window)
    above = ahead[ahead > level]
    return int(above.index[0]) + 1 if len(above) else len(accuracy) + 1
