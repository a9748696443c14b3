"""The results and claims of a report as flat frames for a program: one number per column, shares from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from plastic_cli.reports.claims import Claim, Context, Verdict
from plastic_cli.reports.grouping import OWN
from plastic_cli.reports.results import ClaimResult, Result
from plastic_cli.statistics.intervals import Interval


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return one row per group and one number per column; the columns are always the same."""
    empty = Interval(math.nan, math.nan, math.nan, 0, "")
    rows = []
    for result in results:
        verdict = result.verdict
        rows.append(
            {
                "rule": result.group.rule,
                "dataset": result.group.data,
                "data_note": result.group.note or None,
                "setting": result.group.setting,
                "source": result.group.source or OWN,
                "seeds": len(result.group.runs),
                "failed": result.group.failed,
                "repeated": result.group.repeated,
                "metric": result.metric,
                **flat("", result.value),
                **flat("control_", result.control or empty),
                "chance": result.chance.mean if result.chance else None,
                **flat("loss_", result.loss),
                **flat("seconds_", result.seconds),
                "claim": verdict.claim.id if verdict else None,
                "published": verdict.claim.value if verdict and not verdict.claim.words else None,
                "verdict": verdict.word if verdict else None,
                "reason": verdict.reason if verdict else None,
            }
        )
    names = ["rule", "dataset", "data_note", "setting", "source", "seeds", "failed", "repeated", "metric"]
    names += [name for prefix in ("", "control_", "loss_", "seconds_") for name in flat(prefix, empty)]
    return pd.DataFrame(rows, columns=[*names, "chance", "claim", "published", "verdict", "reason"])


def claims_frame(claims: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return one row per claim and group; figures of other methods have the verdict "context".

    band_low and band_high are the ends of the band, if it has them; seeds_needed is the number of seeds that would
    probably decide an inconclusive claim. Only own runs count; columns that begin with reference_ are about the runs of
    the reference.
    """
    names = ["rule", "id", "statement", "metric", "published", "words", "held_to", "comparison", "tolerance"]
    names += [
        "tolerance_reason",
        "band_low",
        "band_high",
        "dataset",
        "data_note",
        "setting",
        "mean",
        "low",
        "high",
        "n",
        "sd",
    ]
    names += ["failed", "verdict", "reason", "seeds_needed", "unsupported", "source", "link"]
    names += [f"reference_{name}" for name in ("mean", "low", "high", "n", "verdict")]
    rows = []
    for row in claims:
        entry, verdict = row.entry, row.verdict
        claim = entry if isinstance(entry, Claim) else None
        rows.append(
            {
                "rule": row.rule,
                "id": entry.id,
                "statement": entry.statement,
                "metric": entry.metric,
                "published": None if claim and claim.words else entry.value,
                "words": None if isinstance(entry, Context) else entry.words,
                "held_to": claim.value if claim else None,
                "comparison": claim.comparison if claim else None,
                "tolerance": claim.margin if claim else None,
                "tolerance_reason": claim.reason if claim else None,
                "band_low": claim.band.low if claim and math.isfinite(claim.band.low) else None,
                "band_high": claim.band.high if claim and math.isfinite(claim.band.high) else None,
                "dataset": row.group.data if row.group else entry.conditions.get("dataset"),
                "data_note": row.group.note or None if row.group else None,
                "setting": row.group.setting if row.group else None,
                **(flat("", verdict.interval) if verdict else {}),
                "failed": verdict.lost if verdict else None,
                "verdict": "context" if isinstance(entry, Context) else row.word,
                "reason": row.reason,
                "seeds_needed": verdict.seeds_needed if verdict else None,
                "unsupported": claim.unsupported if claim else None,
                "source": entry.source,
                "link": entry.link,
                **_reference(row.reference),
            }
        )
    whole = ("n", "failed", "seeds_needed", "reference_n")
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(whole, "Int64"))


def _reference(verdict: Verdict | None) -> dict[str, Any]:
    """Return the verdict of the reference as columns; nothing without one."""
    if verdict is None:
        return {}
    numbers = flat("reference_", verdict.interval)
    del numbers["reference_sd"]
    return {**numbers, "reference_verdict": verdict.word}


def flat(prefix: str, interval: Interval) -> dict[str, float | int]:
    """Return mean, bounds, number of values and standard deviation of an estimate, with a prefix."""
    return {
        f"{prefix}mean": interval.mean,
        f"{prefix}low": interval.low,
        f"{prefix}high": interval.high,
        f"{prefix}n": interval.n,
        f"{prefix}sd": interval.deviation,
    }
