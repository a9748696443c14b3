"""The content of a report: the runs, their results, the verdicts on published claims and the comparisons."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.plugins.discovery import discover, plugin_names
from plastic_cli.plugins.models import config_model
from plastic_cli.reports.claims import Context, PublishedFigures, read_claims
from plastic_cli.reports.columns import (
    chosen_claims_frame,
    chosen_claims_table,
    chosen_results_frame,
    chosen_results_table,
)
from plastic_cli.reports.frames import claims_frame, results_frame
from plastic_cli.reports.grouping import NotInstalled, Setting, group_runs, plain_value, settings_across
from plastic_cli.reports.latex import latex
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.options import ReportOptions
from plastic_cli.reports.results import ClaimResult, Result, judge_claims, summarize
from plastic_cli.reports.tables import DEFAULT_STYLE, claims_table, context_table, results_table
from plastic_cli.reports.with_reference import joined, reference_runs
from plastic_cli.runs.console import Console
from plastic_cli.tables import Table

if TYPE_CHECKING:
    from plastic_cli.reports.comparisons import Comparison
    from plastic_cli.reports.pareto import Pareto
    from plastic_cli.reports.steps import StepOnRun
    from plastic_cli.runs.reference import Reference


@dataclass(frozen=True)
class Selection:
    """The runs to report. failed: the failed ones with completed runs; not_counted: the other ones, in words."""

    runs: pd.DataFrame
    failed: pd.DataFrame
    not_counted: str = ""


@dataclass(frozen=True)
class Content:
    """What there is to report about a selection of runs.

    settings: those of the results, each with its groups on all data sets. style: how tables show numbers. pareto: the
    results against a price, if the report has one. steps: what the steps of a recipe computed on the runs.
    """

    selection: Selection
    results: list[Result]
    judged: list[ClaimResult]
    comparisons: list[Comparison]
    settings: list[Setting]
    style: NumberStyle = DEFAULT_STYLE
    pareto: Pareto | None = None
    steps: tuple[StepOnRun, ...] = ()

    @property
    def runs(self) -> pd.DataFrame:
        """The reported runs."""
        return self.selection.runs


def read_content(
    runs: pd.DataFrame,
    options: ReportOptions,
    claims: Mapping[str, str],
    console: Console,
    reference: Reference | None = None,
) -> Content:
    """Return the content of a report about `runs`, a frame as `RunStore.runs()` gives it.

    claims: the text of `claims.toml` by rule. reference: its runs are shown beside the own ones. Raises UserError for a
    rule or data set that no run has.
    """
    rows = reference.rows() if reference is not None else []
    selection = select_runs(runs, options, list(claims), console, {str(row["dataset"]) for row in rows})
    own_rules = set(selection.runs["rule"])
    if reference is not None:
        selection = with_reference(selection, reference, options, console)
    counted = [frame["rule"] for frame in (selection.runs, selection.failed) if len(frame)]
    models = training_models(sorted({str(rule) for rules in counted for rule in rules}))
    groups = group_runs(selection.runs, models, selection.failed)
    published: dict[str, PublishedFigures] = {}
    if options.status == "completed":
        rules = {group.rule for group in groups} | {*options.rule}
        published = _published({rule: claims[rule] for rule in sorted(rules) if rule in claims}, options, console)
    results = summarize(selection.runs, groups, published)
    # Of rules without an own run, the claims are shown only if the report is about the reference alone.
    shown = {rule: figures for rule, figures in published.items() if not own_rules or rule in own_rules}
    judged = judge_claims(selection.runs, groups, shown if reference is not None else published)
    content = Content(selection, results, judged, [], settings_across(groups, models), options.style)
    if options.pareto is not None:
        from plastic_cli.reports.pareto import priced_results

        content = replace(content, pareto=priced_results(selection.runs, results, options.pareto))
    return with_comparisons(content) if options.compare or options.html is not None else content


def with_comparisons(content: Content) -> Content:
    """Return the content with the comparisons of its settings."""
    # Imported here, because it takes a second and most reports need no comparison.
    from plastic_cli.reports.comparisons import compare

    if content.comparisons or content.runs.empty:
        return content
    models = training_models(content.runs["rule"].unique())
    return replace(content, comparisons=compare(content.runs, content.results, models))


def with_reference(selection: Selection, reference: Reference, options: ReportOptions, console: Console) -> Selection:
    """Return the selection with the runs of the reference: those on the data sets of the own runs, or all without any.

    The options `rule` and `dataset` hold for the reference too.
    """
    own = selection.runs
    datasets = {str(name) for name in own["dataset"].dropna()} if len(own) else None
    if options.dataset is not None:
        datasets = {options.dataset}
    shipped = reference_runs(reference, options.rule, datasets)
    completed = shipped[shipped["status"] == "completed"]
    count = "1 run" if len(completed) == 1 else f"{len(completed)} runs"
    on = "" if datasets is None else f" on {', '.join(sorted(datasets)) or 'no data set'}"
    console.message(f"reference: {count}{on}")
    failed = joined(selection.failed, shipped[shipped["status"] == "failed"])
    return replace(selection, runs=joined(own, completed), failed=failed)


def select_runs(
    runs: pd.DataFrame, options: ReportOptions, rules: list[str], console: Console, datasets: Collection[str] = ()
) -> Selection:
    """Return the runs that fit the options; if there are none, print why.

    rules: those that are installed. datasets: further data sets that are known. Raises UserError for a rule or data set
    that is not known and that no run has.
    """
    # The rule of the first pages of the documentation, if it is installed.
    first = "grlu" if "grlu" in rules else next(iter(rules), "RULE")
    example = f"plastic train {options.rule[0] if options.rule else first}"
    if runs.empty:
        console.message(f"no run yet in {options.runs}. Train a first one with: {example}")
        return Selection(runs, runs)
    rules_of_runs = {*runs["rule"], *rules}
    for option, given, known in (
        *(("--rule", rule, rules_of_runs) for rule in options.rule),
        ("--dataset", options.dataset, {*datasets, *(str(name) for name in runs["dataset"].dropna())}),
    ):
        if given is not None and given not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UserError(f"{option} {given}: no run has it.{did_you_mean(given, known)} There are: {listed}.")
    if options.rule:
        runs = runs[runs["rule"].isin(options.rule)]
    if options.dataset is not None:
        runs = runs[runs["dataset"] == options.dataset]
    status, not_counted = options.status, ""
    # With --reference, a table follows.
    advice = "" if options.reference else f" Train one: {example}"
    selected = runs if status == "all" else runs[runs["status"] == status]
    if selected.empty:
        named = [("rule", rule) for rule in options.rule] + [("dataset", options.dataset)]
        chosen = " ".join(f"--{name} {value}" for name, value in named if value)
        of = f" with {chosen}" if chosen else ""
        others = f" (runs of another status: {counted})" if (counted := _counts(runs)) else ""
        console.message(f"no {status} run of your own in {options.runs}{of}{others}.{advice}")
    elif status == "completed" and len(selected) < len(runs):
        not_counted = _counts(runs[runs["status"] != "completed"])
        console.message(f"not counted: {not_counted} (see `plastic runs`)")
    failed = runs[runs["status"] == "failed"] if status == "completed" else runs.iloc[:0]
    return Selection(selected, failed, not_counted)


def _counts(runs: pd.DataFrame) -> str:
    """Return how many runs have which status: "2 failed, 1 running"."""
    return ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())


def training_models(rules: Iterable[str]) -> dict[str, type[Config]]:
    """Return the training options of each rule, without those of rules that do not load."""
    models: dict[str, type[Config]] = {}
    for name in rules:
        if name not in plugin_names():
            models[name] = NotInstalled
            continue
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
    """Return whether no run, not even a failed one or one of the reference, tests a claim."""
    if isinstance(claim.entry, Context):
        return False
    verdicts = [verdict for verdict in (claim.verdict, claim.reference) if verdict is not None]
    return not any(verdict.interval.n or verdict.lost for verdict in verdicts)


def frames_of(content: Content, options: ReportOptions) -> dict[str, pd.DataFrame]:
    """Return the frames of a report by name; a CSV holds the first one.

    They are results and claims, or comparisons and improvements, or the results against a price.
    """
    if content.pareto is not None and options.pareto is not None:
        from plastic_cli.reports.pareto import pareto_frame

        return {"pareto": pareto_frame(content.pareto)}
    if options.compare:
        from plastic_cli.reports.comparisons import comparisons_frame, improvements_frame

        return {
            "comparisons": comparisons_frame(content.comparisons),
            "improvements": improvements_frame(content.comparisons),
        }
    if options.columns is not None:
        if options.table == "claims":
            return {"claims": chosen_claims_frame(content.judged, options.columns)}
        return {"results": chosen_results_frame(content.runs, content.results, options.columns)}
    return {"results": results_frame(content.results), "claims": claims_frame(content.judged)}


def tables_of(content: Content, options: ReportOptions, judged: list[ClaimResult] | None = None) -> dict[str, Table]:
    """Return the tables that `options.table` names, without empty ones. judged: the claims to show, if not all.

    With columns, a caption or a label there is one table.
    """
    style, columns = options.style, options.columns
    shown = content.judged if judged is None else judged
    tables: dict[str, Table] = {}
    if options.table in ("all", "results") and content.results:
        if columns is None:
            tables["results"] = results_table(content.results, style)
        else:
            tables["results"] = chosen_results_table(content.runs, content.results, columns, style)
    if options.table == "claims" and columns is not None:
        tables["claims"] = chosen_claims_table(shown, columns, style)
    elif options.table == "claims" or (options.table == "all" and options.table_option is None):
        tables |= {"claims": claims_table(shown, style), "other-methods": context_table(shown, style)}
    if options.table_option is not None:
        tables.pop("other-methods", None)
    return {name: each for name, each in tables.items() if each.rows}


def pareto_tables(content: Content, style: NumberStyle) -> dict[str, Table]:
    """Return the table of results against a price by its name; empty without a price or a priced result."""
    if content.pareto is None or not content.pareto.rows:
        return {}
    from plastic_cli.reports.pareto import pareto_table

    return {"pareto": pareto_table(content.pareto, style)}


def comparison_tables(comparisons: Iterable[Comparison], style: NumberStyle) -> dict[str, Table]:
    """Return the tables of some comparisons by name, without empty ones."""
    from plastic_cli.reports.comparisons import improvement_table, iqm_table

    tables = {}
    for comparison in comparisons:
        tables[f"comparison-{comparison.name}"] = iqm_table(comparison, style)
        tables[f"improvement-{comparison.name}"] = improvement_table(comparison)
    return {name: each for name, each in tables.items() if each.rows}


def with_caption(table: Table, options: ReportOptions) -> Table:
    """Return a table with the caption of the options as its title; the explanations stay below it."""
    return table if options.caption is None else replace(table, title=options.caption)


def latex_of(name: str, table: Table, options: ReportOptions) -> str:
    """Return a table as LaTeX, with the caption and the label of the options."""
    return latex(table, options.label or f"tab:{name}", options.caption)


def json_text(**frames: pd.DataFrame) -> str:
    """Return frames as one JSON object, each under its name as a list of rows; a missing number is null."""
    content = {
        name: [{str(key): plain_value(value) for key, value in row.items()} for row in frame.to_dict("records")]
        for name, frame in frames.items()
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
