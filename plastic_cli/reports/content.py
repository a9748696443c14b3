"""The content of a report: the runs, their results, the verdicts on published claims and the comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.models import config_model
from plastic_cli.reports.claims import Context, PublishedFigures, read_claims
from plastic_cli.reports.grouping import Setting, group_runs, plain_value, settings_across
from plastic_cli.reports.options import ReportOptions
from plastic_cli.reports.results import ClaimResult, Result, judge_claims, summarize
from plastic_cli.reports.tables import claims_frame, claims_table, context_table, results_frame, results_table
from plastic_cli.runs.console import Console
from plastic_cli.tables import Table

if TYPE_CHECKING:
    from plastic_cli.reports.comparisons import Comparison


@dataclass(frozen=True)
class Selection:
    """The runs to report. failed: the failed ones with completed runs; not_counted: the other ones, in words."""

    runs: pd.DataFrame
    failed: pd.DataFrame
    not_counted: str = ""


@dataclass(frozen=True)
class Content:
    """What there is to report about a selection of runs.

    settings: those of the results, each with its groups on all data sets.
    """

    selection: Selection
    results: list[Result]
    judged: list[ClaimResult]
    comparisons: list[Comparison]
    settings: list[Setting]

    @property
    def runs(self) -> pd.DataFrame:
        """The reported runs."""
        return self.selection.runs


def read_content(runs: pd.DataFrame, options: ReportOptions, claims: Mapping[str, str], console: Console) -> Content:
    """Return the content of a report about `runs`, a frame as `RunStore.runs()` gives it.

    claims: the text of `claims.toml` by rule. Raises UserError for a rule or data set that no run has.
    """
    selection = select_runs(runs, options, list(claims), console)
    models = _training_models(selection.runs["rule"].unique() if len(selection.runs) else ())
    groups = group_runs(selection.runs, models, selection.failed)
    published: dict[str, PublishedFigures] = {}
    if options.status == "completed":
        rules = {group.rule for group in groups} | ({options.rule} if options.rule else set())
        published = _published({rule: claims[rule] for rule in sorted(rules) if rule in claims}, options, console)
    results = summarize(selection.runs, groups, published)
    judged = judge_claims(selection.runs, groups, published)
    comparisons: list[Comparison] = []
    if options.compare or options.html is not None:
        # Imported here, because it takes a second and most reports need no comparison.
        from plastic_cli.reports.comparisons import compare

        comparisons = compare(selection.runs, results, models)
    return Content(selection, results, judged, comparisons, settings_across(groups, models))


def select_runs(runs: pd.DataFrame, options: ReportOptions, rules: list[str], console: Console) -> Selection:
    """Return the runs that fit the options; if there are none, print why.

    rules: those that are installed. Raises UserError for a rule or data set that no run has.
    """
    example = f"plastic train {options.rule or (rules[0] if rules else 'RULE')}"
    if runs.empty:
        console.message(f"no run yet in {options.runs}. Train a first one with: {example}")
        return Selection(runs, runs)
    for option, given, known in (
        ("--rule", options.rule, {*runs["rule"], *rules}),
        ("--dataset", options.dataset, {str(name) for name in runs["dataset"].dropna()}),
    ):
        if given is not None and given not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UserError(f"{option} {given}: no run has it.{did_you_mean(given, known)} There are: {listed}.")
    if options.rule is not None:
        runs = runs[runs["rule"] == options.rule]
    if options.dataset is not None:
        runs = runs[runs["dataset"] == options.dataset]
    status, not_counted = options.status, ""
    selected = runs if status == "all" else runs[runs["status"] == status]
    if selected.empty:
        console.message(
            f"no {status} run in {options.runs} to report (runs of another status: {_counts(runs) or 'none'})."
            f" Train one: {example}"
        )
    elif status == "completed" and len(selected) < len(runs):
        not_counted = _counts(runs[runs["status"] != "completed"])
        console.message(f"not counted: {not_counted} (see `plastic runs`)")
    failed = runs[runs["status"] == "failed"] if status == "completed" else runs.iloc[:0]
    return Selection(selected, failed, not_counted)


def _counts(runs: pd.DataFrame) -> str:
    """Return how many runs have which status: "2 failed, 1 running"."""
    return ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())


def _training_models(rules: Iterable[str]) -> dict[str, type[Config]]:
    """Return the training options of each rule, without those of rules that are missing or do not load."""
    models = {}
    for name in rules:
        with suppress(Exception):
            train = discover().rules[name].function("train")
            if train is not None:
                models[name] = config_model(train)
    return models


def _published(texts: Mapping[str, str], options: ReportOptions, console: Console) -> dict[str, PublishedFigures]:
    """Read the claims of some rules about one data set or all, without those of a rule whose file is wrong."""
    published = {}
    for name, text in texts.items():
        try:
            figures = read_claims(name, text)
        except UserError as error:
            console.warning(f"{error} This rule's claims are left out.")
        else:
            published[name] = figures.about(options.dataset) if options.dataset else figures
    return published


def has_no_runs(claim: ClaimResult) -> bool:
    """Return whether no run, not even a failed one, tests a claim."""
    if isinstance(claim.entry, Context):
        return False
    return claim.verdict is None or not (claim.verdict.interval.n or claim.verdict.lost)


def frames_of(content: Content, *, compare: bool) -> dict[str, pd.DataFrame]:
    """Return results and claims, or comparisons and improvements, as frames by name; a CSV holds the first one."""
    if compare:
        from plastic_cli.reports.comparisons import comparisons_frame, improvements_frame

        return {
            "comparisons": comparisons_frame(content.comparisons),
            "improvements": improvements_frame(content.comparisons),
        }
    return {"results": results_frame(content.results), "claims": claims_frame(content.judged)}


def tables_of(results: list[Result], judged: list[ClaimResult], table: str) -> list[tuple[str, Table]]:
    """Return the tables "results", "claims" or "all" by name, without empty ones."""
    tables = []
    if table in ("all", "results") and results:
        tables.append(("results", results_table(results)))
    if table in ("all", "claims"):
        tables += [("claims", claims_table(judged)), ("other-methods", context_table(judged))]
    return [(name, each) for name, each in tables if each.rows]


def comparison_tables(comparisons: Iterable[Comparison]) -> list[tuple[str, Table]]:
    """Return the tables of some comparisons by name."""
    from plastic_cli.reports.comparisons import improvement_table, iqm_table

    return [
        (f"{name}-{comparison.name}", make(comparison))
        for comparison in comparisons
        for name, make in (("comparison", iqm_table), ("improvement", improvement_table))
    ]


def json_text(**frames: pd.DataFrame) -> str:
    """Return frames as one JSON object, each under its name as a list of rows; a missing number is null."""
    content = {
        name: [{str(key): plain_value(value) for key, value in row.items()} for row in frame.to_dict("records")]
        for name, frame in frames.items()
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
