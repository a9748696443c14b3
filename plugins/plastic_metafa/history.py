"""What meta-learning left behind, episode by episode: read back, smoothed, and summed up in numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from plastic_cli import UserError
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plastic_cli import Run

SETTLED = 0.1
"""Share of the episodes, the last, over which theta is averaged to say where it settled."""
NEAR = 0.2
"""How far, in parts of where it settled, theta may lie from it and count as settled."""
WINDOW = 30
"""Episodes of the moving averages from which numbers are taken."""


def history(run: Run) -> pd.DataFrame:
    """Return what meta-learning logged for each episode: columns step, metric, value, layer (missing for the whole).

    Raises UserError where no episode was logged.
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
    """Return the mean of the last `window` episodes, of fewer at the beginning; columns as in `history`."""
    ordered = curves.sort_values("step")
    means = ordered.groupby(by)["value"].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return ordered.assign(value=means).reset_index(drop=True)


def strengths(curves: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of `history` that say what theta was, with the term's index as column term."""
    terms = curves["metric"].str.extract(r"^theta_(\d+)$")[0]
    return curves[terms.notna()].assign(term=terms.dropna().astype(int))


def settled_from(theta: pd.Series[float]) -> int:
    """Return the first episode, from 1, behind which the moving average of `theta` stays near where it settled."""
    average = theta.rolling(WINDOW, min_periods=1).mean().reset_index(drop=True)
    goal = float(theta.iloc[-max(1, round(SETTLED * len(theta))) :].mean())
    far = average[(average - goal).abs() > NEAR * abs(goal)]
    return int(far.index[-1]) + 2 if len(far) else 1


def keeps_its_sign(theta: pd.Series[float]) -> bool:
    """Say whether a strength is other than 0 and of one sign in the episodes over which it settles.

    Adam's steps along L1 do not end at 0: a strength that L1 holds there crosses it again and again.
    """
    last = theta.iloc[-max(1, round(SETTLED * len(theta))) :]
    return bool((last > 0).all() or (last < 0).all())


def rises_from(accuracy: pd.Series[float], level: float, window: int = 10) -> int:
    """Return the first episode, from 1, of `window` in a row whose mean accuracy is above `level`.

    One more than there are episodes where there is none.
    """
    ahead = accuracy.reset_index(drop=True).rolling(window).mean().shift(1 - window)
    above = ahead[ahead > level]
    return int(above.index[0]) + 1 if len(above) else len(accuracy) + 1
