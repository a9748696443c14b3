"""`plastic report`: the results of all runs over their seeds, next to published results."""

from __future__ import annotations

import sys
from typing import Any, Literal

from plastic_cli.api.report import Report, make_report
from plastic_cli.commands.invocation import DatasetName, DebugOptions, FileOptions, RuleName
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_next
from plastic_cli.config.model import field
from plastic_cli.escapes import csv_text
from plastic_cli.reports.options import ReportOptions, Sources
from plastic_cli.runs.console import Console
from plastic_cli.tables import markdown
from plastic_cli.terminal_tables import print_tables
from plastic_cli.verbs.options import RunsOptions


class Options(ReportOptions, FileOptions, DebugOptions):
    """Options of `plastic report`."""

    rule: list[RuleName] = field([], "only runs of this rule (can be repeated)", complete="rule", repeat=True)
    dataset: DatasetName | None = field(None, "only runs on this data set", complete="dataset")
    format: Literal["table", "markdown", "latex", "csv", "json"] = field(
        "table", "format of the tables", panel="Output"
    )
    json_lines: bool = field(False, "the same as --format json", panel="Output", option="--json")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, _report)


def _report(options: Options) -> None:
    changes: dict[str, Any] = {"format": "json"} if options.json_lines else {}
    if "runs" not in options.model_fields_set:
        changes["runs"] = RunsOptions().runs_folder()
    made = print_report(options.model_copy(update=changes))
    if made.content.results and options.format == "table" and not options.json_lines and options.html is None:
        typed = RunsOptions(runs=options.runs if "runs" in options.model_fields_set else None)
        print_next(["plastic report --html report", "plastic plot"], typed, made.console)


def print_report(options: Options, sources: Sources | None = None, console: Console | None = None) -> Report:
    """Print the results of all runs in a folder and the verdicts on published claims, and write the chosen files.

    The arguments and errors are those of `make_report`.
    """
    made = make_report(options, sources, console)
    if options.format in ("csv", "json"):
        _print_for_programs(made, options)
    else:
        _print_tables(made, options)
    made.write_chosen()
    return made


def _print_for_programs(made: Report, options: Options) -> None:
    from plastic_cli.reports.content import frames_of, json_text

    frames = frames_of(made.content, options)
    if options.format == "csv":
        sys.stdout.write(csv_text(frames[options.table] if options.table in frames else next(iter(frames.values()))))
    else:
        table: str = options.table
        named = {table: frames[table]} if table in frames else frames
        sys.stdout.write(json_text(**named))


def _print_tables(made: Report, options: Options) -> None:
    from plastic_cli.reports.content import (
        comparison_tables,
        has_no_runs,
        latex_of,
        pareto_tables,
        tables_of,
        with_caption,
    )

    judged = made.content.judged
    if options.pareto is not None:
        _print_not_priced(made)
        tables = pareto_tables(made.content, options.style)
    elif options.compare:
        _print_not_compared(made)
        tables = comparison_tables(made.content.comparisons, options.style)
    else:
        if options.format == "table" and options.table == "all":
            # A first report shows what was run, and only counts the claims without a run.
            untested = [claim for claim in judged if has_no_runs(claim)]
            if untested:
                made.console.message(
                    f"{len(untested)} published claims have no run here: `plastic report --table claims` lists them"
                )
            tested_rules = {
                claim.rule
                for claim in judged
                for verdict in (claim.verdict, claim.reference)
                if verdict is not None and verdict.interval.n
            }
            judged = [claim for claim in judged if claim not in untested and claim.rule in tested_rules]
        tables = tables_of(made.content, options, judged)
    if options.format == "markdown":
        sys.stdout.write("\n".join(markdown(with_caption(table, options)) for table in tables.values()))
    elif options.format == "latex":
        sys.stdout.write("\n".join(latex_of(name, table, options) for name, table in tables.items()))
    else:
        print_tables([with_caption(table, options) for table in tables.values()])


def _print_not_priced(made: Report) -> None:
    pareto = made.content.pareto
    if pareto is not None and pareto.not_priced and not pareto.rows:
        rules = ", ".join(sorted({result.group.rule for result in pareto.not_priced}))
        made.console.message(f"no result has a known price: the cost of {rules} is not known for these runs")


def _print_not_compared(made: Report) -> None:
    from plastic_cli.reports.comparisons import not_compared

    content = made.content
    alone = not_compared(content.results, content.comparisons)
    if not content.comparisons and content.results:
        made.console.message("nothing to compare: no two settings share a data set and a metric")
    elif alone:
        results = "1 result is" if alone == 1 else f"{alone} results are"
        made.console.message(f"{results} not compared, because no other setting has the same data set and metric")
