"""The tables of the report, for a reader and as flat frames for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from plastic_cli.reports.claims import Claim, Context, Unmeasured, Verdict, VerdictWord, finished_text
from plastic_cli.reports.grouping import data_notes, marked_data
from plastic_cli.reports.results import LOSS_METRIC, ClaimResult, Result
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, interval_method
from plastic_cli.tables import Cell, Column, Detailed, Table

_SIGNS = {"equal": "", "at-least": "at least ", "at-most": "at most "}


def results_table(results: Sequence[Result]) -> Table:
    """Return the table of results, without empty columns; a metric that all results share is a heading."""
    metrics = {result.metric for result in results if result.metric}
    shared = metrics.pop() if len(metrics) == 1 else None
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("rule", names_row=True), [result.group.rule for result in results]),
        (Column("data set", names_row=True), [marked_data(result.group) for result in results]),
        (Column("setting", names_row=True), [result.group.setting or None for result in results]),
        (Column("n", numeric=True), [_runs_text(result) for result in results]),
        (Column("metric"), [] if shared else [result.metric for result in results]),
        (Column(shared or "value", numeric=True), [_measured(result.value) for result in results]),
        (
            Column("chance", numeric=True, optional=True),
            [f"{result.chance.mean:.3g}" if result.chance and result.chance.n else None for result in results],
        ),
        (
            Column("control", numeric=True, optional=True),
            [result.control and _measured(result.control) for result in results],
        ),
        (Column(LOSS_METRIC, numeric=True, optional=True), [_measured(result.loss) for result in results]),
        (Column("seconds", numeric=True, optional=True), [_measured(result.seconds) for result in results]),
        (Column("published"), [_published(result.verdict) for result in results]),
        (Column("verdict"), [_result_verdict(result.verdict) for result in results]),
    ]
    repeated = sum(result.group.repeated for result in results)
    caption = _interval_caption()
    if repeated:
        runs = "1 run that repeats" if repeated == 1 else f"{repeated} runs that repeat"
        caption += f" Left out: {runs} a seed of the same setting."
    if any(result.seconds.n for result in results):
        caption += " Seconds are the time of training, without imports, compilation and evaluation."
    caption += data_notes(result.group for result in results)
    return _table("Results", caption, columns)


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """Return the table of published claims and of what our runs measured."""
    rows = [row for row in claims if not isinstance(row.entry, Context)]
    several = len({row.rule for row in rows}) > 1
    metrics = {row.entry.metric for row in rows}
    shared = metrics.pop() if len(metrics) == 1 else None
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("rule", names_row=True), [row.rule for row in rows] if several else []),
        (Column("id", names_row=True), [row.entry.id for row in rows]),
        (Column("statement", names_row=True), [_statement(row.entry) for row in rows]),
        (Column("our setting", optional=True), [row.group.setting or None if row.group else None for row in rows]),
        (Column("metric"), [] if shared else [row.entry.metric for row in rows]),
        (Column("published"), [_figure(row.entry) for row in rows]),
        (Column("measured", numeric=True), [_measured(row.verdict.interval) if row.verdict else None for row in rows]),
        (Column("n", numeric=True), [seeds_text(row.verdict) if row.verdict else "0" for row in rows]),
        (Column("verdict"), [_verdict(row) for row in rows]),
        (Column("source", optional=True), [row.entry.source for row in rows]),
    ]
    caption = f"{_interval_caption()} {VERDICTS_EXPLAINED} A claim is untested with fewer than {MINIMUM_VALUES} seeds."
    if any(isinstance(row.entry, Claim) and row.entry.words for row in rows):
        caption += " If no number was published, the band is our own."
    caption += data_notes(row.group for row in rows if row.group is not None)
    return _table(f"Published claims{f' on {shared}' if shared else ''}", caption, columns)


def context_table(claims: Sequence[ClaimResult]) -> Table:
    """Return the table of published figures of other methods."""
    context = [(row, row.entry) for row in claims if isinstance(row.entry, Context)]
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("id", names_row=True), [entry.id for _, entry in context]),
        (Column("statement", names_row=True), [entry.statement for _, entry in context]),
        (Column("metric"), [entry.metric for _, entry in context]),
        (Column("published", numeric=True), [f"{entry.value:g}" for _, entry in context]),
        (Column("source"), [entry.source for _, entry in context]),
    ]
    return _table("Other methods", "Published results of other methods, for comparison; they have no verdict.", columns)


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
                "failed": result.group.failed,
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
    names = ["rule", "dataset", "data_note", "setting", "seeds", "failed", "repeated", "metric"]
    names += [name for prefix in ("", "control_", "loss_", "seconds_") for name in _flat(prefix, empty)]
    return pd.DataFrame(rows, columns=[*names, "chance", "claim", "published", "verdict", "reason"])


def claims_frame(claims: Sequence[ClaimResult]) -> pd.DataFrame:
    """Return one row per claim and group; figures of other methods have the verdict "context".

    band_low and band_high are the ends of the band, if it has them; seeds_needed is the number of seeds that would
    probably decide an inconclusive claim.
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
    ]
    names += ["failed", "verdict", "reason", "seeds_needed", "unsupported", "source", "link"]
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
                **(_flat("", verdict.interval) if verdict else {}),
                "failed": verdict.lost if verdict else None,
                "verdict": "context" if isinstance(entry, Context) else row.word,
                "reason": _reason(row),
                "seeds_needed": verdict.seeds_needed if verdict else None,
                "unsupported": claim.unsupported if claim else None,
                "source": entry.source,
                "link": entry.link,
            }
        )
    return pd.DataFrame(rows, columns=names).astype({"n": "Int64", "failed": "Int64", "seeds_needed": "Int64"})


VERDICTS_EXPLAINED = (
    "Reproduced: the whole interval lies in the band that the claim allows (published value ± tolerance, or one side"
    " of a bound), no seed failed, and the control lies outside. Not reproduced: the whole interval lies outside."
    " Inconclusive: neither."
)


def seeds_text(verdict: Verdict) -> str:
    """Return the number of seeds of a verdict: "5", or "3 of 5 finished" if some failed."""
    return finished_text(verdict.interval.n, verdict.lost)


def _runs_text(result: Result) -> str:
    dropped = result.value.dropped
    return finished_text(len(result.group.runs) - dropped, result.group.failed + dropped)


def _interval_caption() -> str:
    return f"Mean over n seeds. In brackets: {interval_method()}, from {MINIMUM_VALUES} seeds on."


def _flat(prefix: str, interval: Interval) -> dict[str, float | int]:
    return {
        f"{prefix}mean": interval.mean,
        f"{prefix}low": interval.low,
        f"{prefix}high": interval.high,
        f"{prefix}n": interval.n,
    }


def _table(title: str, caption: str, columns: Sequence[tuple[Column, list[Cell]]]) -> Table:
    """Return a table of columns, without empty ones."""
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


def _figure(entry: Claim | Context | Unmeasured) -> Cell:
    if isinstance(entry, Claim):
        figure = claim_figure(entry)
        return Detailed(entry.words, f"compared with {figure}") if entry.words else figure
    if isinstance(entry, Unmeasured) and entry.words:
        return entry.words
    return None if entry.value is None else f"{entry.value:g}"


def claim_figure(claim: Claim) -> str:
    """Return the number that a claim is compared with and its tolerance as text."""
    tolerance = f" ± {claim.margin:.3g}" if claim.margin else ""
    return f"{_SIGNS[claim.comparison]}{claim.value:g}{tolerance}"


def _verdict(row: ClaimResult) -> Cell:
    return _with_reason(row.word, _reason(row))


def _result_verdict(verdict: Verdict | None) -> Cell:
    return _with_reason(verdict.word, verdict.reason) if verdict else None


def _with_reason(word: VerdictWord, reason: str | None) -> Cell:
    return word if word == "reproduced" or not reason else Detailed(word, reason)


def _reason(row: ClaimResult) -> str | None:
    if isinstance(row.entry, Unmeasured):
        return row.entry.unmeasured
    return row.verdict.reason if row.verdict else None


def _statement(entry: Claim | Context | Unmeasured) -> str:
    unsupported = entry.unsupported if isinstance(entry, Claim) else None
    return f"{entry.statement} (unsupported: {unsupported})" if unsupported else entry.statement
