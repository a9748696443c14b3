"""The rows of one metric of some runs, and which part of a figure each of them belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plastic_cli.errors import UserError, did_you_mean

SHOWN_FIRST = ("accuracy", "return", "loss")
"""Without a wanted metric, the first of these that has a curve is drawn."""

_SPLITS = ("train", "validation", "test", "control")
_SPLIT_WORDS = {"train": "training"}


def metric_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the training rows of a metric: run, split, labels, step, value; each step of a run once.

    metrics: a frame as `RunStore.metrics()` returns it. metric: "split/name", or "name" for all splits. If a metric has
    rows with and without labels, such as the accuracy of each task and their mean, those without labels are returned,
    unless only the others have more than one step. Raises UserError if no run has the metric.
    """
    rows = with_any_labels(metrics, metric)
    is_plain = rows["labels"].isna()
    plain, labeled = rows[is_plain], rows[~is_plain]
    return labeled if plain.empty or (has_curve(labeled) and not has_curve(plain)) else plain


def with_any_labels(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return `metric_rows` with all rows that have labels and without."""
    split, _, name = metric.rpartition("/")
    training = metrics[metrics["stage"] == "train"]
    rows = training[training["metric"] == name]
    rows = rows[rows["split"] == split] if split else rows
    if rows.empty:
        known = known_metrics(training)
        near = did_you_mean(metric, [*known, *(each.partition("/")[2] for each in known)])
        raise UserError(f"no run has the metric '{metric}'.{near} There are: {', '.join(known) or 'none'}.")
    finite = rows[rows["value"].notna()]
    return finite.drop_duplicates(["run", "split", "labels", "step"], keep="last")[
        ["run", "split", "labels", "step", "value"]
    ]


def known_metrics(metrics: pd.DataFrame) -> list[str]:
    """Return the metrics of some rows as "split/name", in order of appearance."""
    pairs = metrics[["split", "metric"]].drop_duplicates()
    return [f"{split}/{name}" for split, name in zip(pairs["split"], pairs["metric"], strict=True)]


def first_metric(metrics: pd.DataFrame) -> str:
    """Return the name of the metric to draw if none is wanted: one with a curve, if there is one."""
    plain = metrics[(metrics["stage"] == "train") & metrics["labels"].isna()]
    steps = plain.groupby("metric", sort=False)["step"].nunique()
    curves = [str(name) for name in steps.index if steps[name] > 1] or [str(name) for name in steps.index]
    if not curves:
        raise UserError("the run has no metrics yet.")
    return next((name for name in SHOWN_FIRST if name in curves), curves[0])


def has_curve(rows: pd.DataFrame) -> bool:
    """Return whether some run has more than one step of the metric."""
    curves = rows.groupby(["run", "split", "labels"], dropna=False)["step"]
    return bool((curves.max() > curves.min()).any())


def split_words(split: str) -> str:
    """Return a split in words: "training" for "train"."""
    return _SPLIT_WORDS.get(split, split)


def in_order(splits: Sequence[str]) -> list[str]:
    """Return splits in their usual order: training, validation, test, control, others."""
    known = [split for split in _SPLITS if split in splits]
    return known + [split for split in splits if split not in known]


def label_values(labels: str | None) -> dict[str, Any]:
    """Return the labels of a row, stored as JSON text; none for a row without."""
    return json.loads(labels) if isinstance(labels, str) else {}


def label_text(labels: Mapping[str, Any]) -> str:
    """Return the labels of a row in words: "layer 1"."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in labels.items())


def number_first(text: str) -> tuple[float, str]:
    """Return a key that sorts "task 2" before "task 10"."""
    last = text.rpartition(" ")[2]
    try:
        return float(last), text
    except ValueError:
        return float("inf"), text
