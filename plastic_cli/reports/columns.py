"""Columns that a user chooses: those of the tables, metrics of the runs and options of the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.reports.frames import claims_frame, flat
from plastic_cli.reports.grouping import OWN, setting_text
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.results import ClaimResult, Result, RunValues, metric_columns
from plastic_cli.reports.tables import (
    TableColumn,
    claim_columns,
    claims_table,
    common_metric,
    result_columns,
    results_table,
)
from plastic_cli.statistics.intervals import Interval
from plastic_cli.tables import Cell, Column, Table

LISTED = 12
"""A message lists at most this many metrics and options."""


def chosen_results_table(
    runs: pd.DataFrame, results: Sequence[Result], names: Sequence[str], style: NumberStyle
) -> Table:
    """Return the table of results with the columns `names`; raises UserError for a column that does not exist."""
    usual = result_columns(results, style)
    names = _checked(names, [*usual, *metric_columns(runs), *_options(results)])
    values = RunValues(runs)
    shown: list[TableColumn] = []
    estimates: list[Interval] = []
    for name in names:
        measured = _estimates(name, results, values)
        estimates += measured or []
        if name in usual:
            shown.append(usual[name])
        elif measured is not None:
            metric = common_metric(name, [result.group.rule for result in results])
            shown.append((Column(style.heading(metric), numeric=True), [style.estimate(e, metric) for e in measured]))
        else:
            shown.append(_option_column(name, results))
    return results_table(results, style, shown, estimates)


def chosen_results_frame(runs: pd.DataFrame, results: Sequence[Result], names: Sequence[str]) -> pd.DataFrame:
    """Return the columns `names` of the results as numbers; a mean has columns NAME, NAME_sd, NAME_low and so on."""
    usual = result_columns(results)
    names = _checked(names, [*usual, *metric_columns(runs), *_options(results)])
    values = RunValues(runs)
    columns: dict[str, list[Any]] = {}
    for name in names:
        measured = _estimates(name, results, values)
        if measured is not None:
            each = [flat("", estimate) for estimate in measured]
            columns[name] = [numbers["mean"] for numbers in each]
            columns |= {f"{name}_{key}": [numbers[key] for numbers in each] for key in ("sd", "low", "high", "n")}
        elif name in usual:
            columns[name] = [_plain(name, result) for result in results]
        else:
            columns[name] = [result.group.config.get(name) for result in results]
    return pd.DataFrame(columns)


def chosen_claims_table(claims: Sequence[ClaimResult], names: Sequence[str], style: NumberStyle) -> Table:
    """Return the table of claims with the columns `names`; raises UserError for a column that does not exist."""
    return claims_table(claims, style, _checked(names, list(claim_columns([], style))))


def chosen_claims_frame(claims: Sequence[ClaimResult], names: Sequence[str]) -> pd.DataFrame:
    """Return the columns `names` of the claims; "measured" is their mean and its interval."""
    names = _checked(names, list(claim_columns([])))
    kept = [column for name in names for column in (["mean", "low", "high"] if name == "measured" else [name])]
    return claims_frame(claims)[list(dict.fromkeys(kept))]


def _checked(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return names of columns as they are stored: an option may be typed with hyphens."""
    found = []
    for name in names:
        stored = name if name in known else name.replace("-", "_")
        stored = {"data_set": "dataset"}.get(stored, stored)
        if stored not in known:
            more = f", ... ({len(known) - LISTED - 12} more)" if len(known) > LISTED + 12 else ""
            listed = ", ".join(known[: LISTED + 12]) + more
            raise UserError(
                f"--columns {name}: there is no such column.{did_you_mean(name, known)} There are: {listed}."
            )
        found.append(stored)
    return list(dict.fromkeys(found))


def _options(results: Sequence[Result]) -> list[str]:
    """Return the options of the rules that a run of the results has."""
    return [
        name
        for name in dict.fromkeys(name for result in results for name in result.group.config)
        if any(result.group.config.get(name) is not None for result in results)
    ]


def _estimates(name: str, results: Sequence[Result], values: RunValues) -> list[Interval] | None:
    """Return the estimates of a column; None for a column of text."""
    if "/" in name:
        return values.intervals([result.group for result in results], [name] * len(results))
    own = {"value": "value", "loss": "loss", "seconds": "seconds", "control": "control", "chance": "chance"}.get(name)
    if own is None:
        return None
    empty = values.intervals([result.group for result in results], [None] * len(results))
    return [getattr(result, own) or none for result, none in zip(results, empty, strict=True)]


def _plain(name: str, result: Result) -> Any:
    """Return the content of a usual column of text for a program."""
    claim = result.verdict.claim if result.verdict else None
    plain: Mapping[str, Any] = {
        "rule": result.group.rule,
        "dataset": result.group.data,
        "setting": result.group.setting,
        "source": result.group.source or OWN,
        "n": result.value.n,
        "metric": result.metric,
        "published": claim.value if claim and not claim.words else None,
        "verdict": result.verdict.word if result.verdict else None,
    }
    return plain[name]


def _option_column(name: str, results: Sequence[Result]) -> TableColumn:
    values = [result.group.config.get(name) for result in results]
    numeric = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    cells: list[Cell] = []
    for value in values:
        if value is None:
            cells.append(None)
        elif isinstance(value, bool):
            cells.append("yes" if value else "no")
        else:
            cells.append(setting_text({name: value}).partition(" = ")[2])
    return Column(name.replace("_", " "), numeric=numeric), cells
