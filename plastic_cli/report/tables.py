"""The report's two tables, as rows for a reader and as flat frames for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from plastic_cli.analysis.intervals import MINIMUM_VALUES, Interval, interval_method
from plastic_cli.report.claims import Claim, Verdict
from plastic_cli.report.grouping import data_notes, marked_data
from plastic_cli.report.results import LOSS_METRIC, ClaimResult, Result

_SIGNS = {"equal": "", "at-least": "at least ", "at-most": "at most "}


@dataclass(frozen=True)
class Detailed:
    """A text with a second one in brackets, or below it where there is little room."""

    text: str
    detail: str


Cell = str | int | Detailed | Interval | None


@dataclass(frozen=True)
class Column:
    """A heading, whether the cells below it are numbers, and whether a narrow terminal may go without them."""

    heading: str
    numeric: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """A table for a reader; the renderers decide how a cell looks."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def results_table(results: Sequence[Result]) -> Table:
    """Return the table of what was measured. Columns that would be empty are left out, and so is a metric all share."""
    metrics = {result.metric for result in results if result.metric}
    shared = metrics.pop() if len(metrics) == 1 else None
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("rule"), [result.group.rule for result in results]),
        (Column("data set"), [marked_data(result.group) for result in results]),
        (Column("setting"), [result.group.setting or None for result in results]),
        (Column("n", numeric=True), [len(result.group.runs) for result in results]),
        (Column("metric"), [] if shared else [result.metric for result in results]),
        (Column(shared or "value", numeric=True), [_measured(result.value) for result in results]),
        (
            Column("chance", numeric=True),
            [f"{result.chance.mean:.3g}" if result.chance and result.chance.n else None for result in results],
        ),
        (Column("control", numeric=True), [result.control and _measured(result.control) for result in results]),
        (Column(LOSS_METRIC, numeric=True, optional=True), [_measured(result.loss) for result in results]),
        (Column("seconds", numeric=True, optional=True), [_measured(result.seconds) for result in results]),
        (Column("published"), [_published(result.verdict) for result in results]),
        (Column("verdict"), [_verdict(result.verdict) if result.verdict else None for result in results]),
    ]
    repeated = sum(result.group.repeated for result in results)
    caption = _interval_caption()
    if repeated:
        runs = "1 run that repeats" if repeated == 1 else f"{repeated} runs that repeat"
        caption += f" Left out: {runs} a seed of the same setting."
    caption += data_notes(result.group for result in results)
    return _table("Results", caption, columns)


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """Return the table of what was published about the rules, and how it fares against our runs."""
    judged = [(row, row.entry, row.verdict) for row in claims if isinstance(row.entry, Claim) and row.verdict]
    several = len({row.rule for row, _, _ in judged}) > 1
    metrics = {claim.metric for _, claim, _ in judged}
    shared = metrics.pop() if len(metrics) == 1 else None
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("rule"), [row.rule for row, _, _ in judged] if several else []),
        (Column("id"), [claim.id for _, claim, _ in judged]),
        (Column("statement"), [_statement(claim) for _, claim, _ in judged]),
        (
            Column("our setting", optional=True),
            [row.group.setting or None if row.group else None for row, _, _ in judged],
        ),
        (Column("metric"), [] if shared else [claim.metric for _, claim, _ in judged]),
        (Column("published"), [_figure(claim) for _, claim, _ in judged]),
        (Column("measured", numeric=True), [_measured(verdict.interval) for _, _, verdict in judged]),
        (Column("n", numeric=True), [verdict.interval.n for _, _, verdict in judged]),
        (Column("verdict"), [_verdict(verdict) for _, _, verdict in judged]),
        (Column("source", optional=True), [claim.source for _, claim, _ in judged]),
    ]
    caption = (
        f"{_interval_caption()} A claim is reproduced where the published value lies in that interval widened by the"
        " tolerance (±), one published as a bound where the interval reaches it; it is untested with fewer than"
        f" {MINIMUM_VALUES} seeds."
    )
    if any(claim.words for _, claim, _ in judged):
        caption += " Where no number was published, the line that it is held to is ours."
    caption += data_notes(row.group for row, _, _ in judged if row.group is not None)
    return _table(f"Published claims{f' on {shared}' if shared else ''}", caption, columns)


def context_table(claims: Sequence[ClaimResult]) -> Table:
    """Return the table of other methods' published figures."""
    context = [row for row in claims if not isinstance(row.entry, Claim)]
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("id"), [row.entry.id for row in context]),
        (Column("statement"), [row.entry.statement for row in context]),
        (Column("metric"), [row.entry.metric for row in context]),
        (Column("published", numeric=True), [f"{row.entry.value:g}" for row in context]),
        (Column("source"), [row.entry.source for row in context]),
    ]
    return _table("Other methods", "Published by others, for comparison; not held against our runs.", columns)


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
                "seeds": len(result.group.runs),
                "repeated": result.group.repeated,
                "metric": result.metric,
                **_flat("", result.value),
                **_flat("control_", result.control or empty),
                "chance": result.chance.mean if result.chance else None,
                **_flat("loss_", result.loss),
                **_flat("seconds_", result.seconds),
                "claim": verdict.claim.id if verdict else None,
                "published": verdict.claim.value if verdict and not verdict.claim.words else None,
                "verdict": verdict.word if verdict else None,
                "reason": verdict.reason if verdict else None,
            }
        )
    names = ["rule", "dataset", "data_note", "setting", "seeds", "repeated", "metric"]
    names += [name for prefix in ("", "control_", "loss_", "seconds_") for name in _flat(prefix, empty)]
    return pd.DataFrame(rows, columns=[*names, "chance", "claim", "published", "verdict", "reason"])


def claims_frame(claims: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return one row per claim and group; figures of other methods have the verdict "context"."""
    names = ["rule", "id", "statement", "metric", "published", "words", "held_to", "comparison", "tolerance"]
    names += ["tolerance_reason", "dataset", "data_note"]
    names += ["setting", "mean", "low", "high", "n", "verdict", "reason", "unsupported", "source", "link"]
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
                "words": claim.words if claim else None,
                "held_to": claim.value if claim else None,
                "comparison": claim.comparison if claim else None,
                "tolerance": claim.tolerance if claim else None,
                "tolerance_reason": claim.tolerance_reason if claim else None,
                "dataset": row.group.data if row.group else entry.conditions.get("dataset"),
                "data_note": row.group.note or None if row.group else None,
                "setting": row.group.setting if row.group else None,
                **(_flat("", verdict.interval) if verdict else {}),
                "verdict": verdict.word if verdict else "context",
                "reason": verdict.reason if verdict else None,
                "unsupported": claim.unsupported if claim else None,
                "source": entry.source,
                "link": entry.link,
            }
        )
    return pd.DataFrame(rows, columns=names).astype({"n": "Int64"})


def _interval_caption() -> str:
    return f"Mean over n seeds; in brackets the {interval_method()}, given from {MINIMUM_VALUES} seeds on."


def _flat(prefix: str, interval: Interval) -> dict[str, float | int]:
    return {
        f"{prefix}mean": interval.mean,
        f"{prefix}low": interval.low,
        f"{prefix}high": interval.high,
        f"{prefix}n": interval.n,
    }


def _table(title: str, caption: str, columns: Sequence[tuple[Column, list[Cell]]]) -> Table:
    """Put columns together, without those that have nothing to show."""
    kept = [(column, cells) for column, cells in columns if any(cell is not None for cell in cells)]
    return Table(
        title=title,
        caption=caption,
        columns=tuple(column for column, _ in kept),
        rows=tuple(zip(*(cells for _, cells in kept), strict=True)),
    )


def _measured(interval: Interval) -> Cell:
    return interval if interval.n else None


def _published(verdict: Verdict | None) -> Cell:
    return Detailed(verdict.claim.words or claim_figure(verdict.claim), verdict.claim.id) if verdict else None


def _figure(claim: Claim) -> Cell:
    return Detailed(claim.words, f"held to {claim_figure(claim)}") if claim.words else claim_figure(claim)


def claim_figure(claim: Claim) -> str:
    """Return as text what a claim is held to, with its tolerance: the published number, if there is one."""
    tolerance = f" ± {claim.tolerance:g}" if claim.tolerance else ""
    return f"{_SIGNS[claim.comparison]}{claim.value:g}{tolerance}"


def _verdict(verdict: Verdict) -> Cell:
    return verdict.word if verdict.word == "reproduced" else Detailed(verdict.word, verdict.reason)


def _statement(claim: Claim) -> str:
    return f"{claim.statement} (unsupported: {claim.unsupported})" if claim.unsupported else claim.statement
