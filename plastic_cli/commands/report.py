"""`plastic report`: the results of all runs over their seeds, next to published results."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.commands.invocation import DatasetName, DebugOptions, FileOptions, RuleName
from plastic_cli.commands.options import toolkit_command
from plastic_cli.config.model import field
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.escapes import csv_text
from plastic_cli.plugins.discovery import discover
from plastic_cli.reports.options import PAGE, ReportOptions, Sources
from plastic_cli.runs.console import Console
from plastic_cli.runs.store import RunStore
from plastic_cli.tables import markdown
from plastic_cli.terminal_tables import print_tables
from plastic_cli.verbs.options import RunsOptions

if TYPE_CHECKING:
    from plastic_cli.reports.content import Content
    from plastic_cli.reports.options import Headline

DEFAULT_FOLDER = Path("runs")
"""The default folder of the runs; it is not an error if this folder does not exist yet."""

UNREADABLE_SHOWN = 5

GENERATOR = b'<meta name="generator" content="plastic '
"""The text that identifies the page of an earlier report."""


class Options(ReportOptions, FileOptions, DebugOptions):
    """Options of `plastic report`."""

    rule: RuleName | None = field(None, "only runs of this rule", complete="rule")
    dataset: DatasetName | None = field(None, "only runs on this data set", complete="dataset")
    json_lines: bool = field(False, "the same as --format json", panel="Output", option="--json")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, _report)


def _report(options: Options) -> None:
    changes: dict[str, Any] = {"format": "json"} if options.json_lines else {}
    if "runs" not in options.model_fields_set:
        changes["runs"] = RunsOptions().runs_folder()
    report(options.model_copy(update=changes))


def report(options: ReportOptions, sources: Sources | None = None, console: Console | None = None) -> None:
    """Print the results of all runs in a folder and the verdicts on published claims, and write the chosen files.

    sources: what rules and recipes contribute; None: the installed ones. Raises UserError for an unknown choice and for
    a folder of runs that does not exist, PlasticError for a folder that cannot be written.
    """
    console = console or Console()
    check_options(options)
    store = RunStore(options.runs)
    runs = store.runs()
    _warn_of_unreadable(store, console)
    sources = sources or installed_sources(options)

    from plastic_cli.reports.content import read_content

    content = read_content(runs, options, sources.claims, console)
    if options.output is not None:
        from plastic_cli.reports.write import write_tables

        write_tables(options.output, content, compare=options.compare)
    _print(content, options, console)
    if options.output is not None or options.html is not None:
        _write(options, content, sources, store, console)


def check_options(options: ReportOptions) -> None:
    """Raise UserError or PlasticError, before anything is read, for options that cannot work."""
    if options.compare and options.table != "all":
        raise UserError(f"--compare prints its own tables: leave --table {options.table} out.")
    for option, folder in (("--output", options.output), ("--html", options.html)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise PlasticError(f"cannot write to {folder}: it is a file. Choose another {option}.")
    if options.html is not None:
        _check_page_can_be_replaced(options.html / PAGE)
    if not options.runs.is_dir() and options.runs != DEFAULT_FOLDER:
        raise UserError(f"there is no folder {options.runs}. Name the folder with your runs: --runs FOLDER.")


def _check_page_can_be_replaced(path: Path) -> None:
    """Raise PlasticError if `path` exists and plastic did not write it."""
    try:
        head = path.read_bytes()[:4096]
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlasticError(f"cannot replace {path}: {error.strerror or error}. Choose another --html.") from None
    if GENERATOR not in head:
        raise PlasticError(f"{path} was not written by plastic, and is left as it is. Choose another --html.")


def installed_sources(options: ReportOptions) -> Sources:
    """Return the claims and figures of the installed rules, and the recipes if a page lists them."""
    claims = {name: text for name, rule in discover().rules.items() if (text := rule.claims_text())}
    return Sources(claims, _installed_headline, recipes_by_claim() if options.html is not None else {})


def _installed_headline(rule: str) -> Headline | None:
    installed = discover().rules.get(rule)
    return installed.member("headline_figures") if installed else None


def recipes_by_claim() -> dict[tuple[str, str], list[str]]:
    """Return the names of the recipes that test a claim, by rule and id of the claim; broken recipes are skipped."""
    from plastic_cli.sweeps.recipe import read_recipe, recipe_names

    found: dict[tuple[str, str], list[str]] = {}
    for name in recipe_names():
        with suppress(UserError, OSError):
            recipe = read_recipe(name).recipe
            rules = {str(table.rule) for table in (recipe, *recipe.runs) if table.rule is not None}
            for claim in recipe.claims:
                for rule in sorted(rules):
                    found.setdefault((rule, claim), []).append(name)
    return found


def _print(content: Content, options: ReportOptions, console: Console) -> None:
    from plastic_cli.reports.content import comparison_tables, frames_of, has_no_runs, json_text, tables_of
    from plastic_cli.reports.latex import latex

    judged = content.judged
    if options.format in ("csv", "json"):
        frames = frames_of(content, compare=options.compare)
        if options.format == "csv":
            sys.stdout.write(
                csv_text(frames[options.table] if options.table in frames else next(iter(frames.values())))
            )
        else:
            table: str = options.table
            named = {table: frames[table]} if table in frames else frames
            sys.stdout.write(json_text(**named))
        return
    if options.compare:
        _print_not_compared(content, console)
    elif options.format == "table" and options.table == "all":
        # A first report shows what was run, and only counts the claims without a run.
        untested = [claim for claim in judged if has_no_runs(claim)]
        if untested:
            console.message(
                f"{len(untested)} published claims have no run here: `plastic report --table claims` lists them"
            )
        tested_rules = {claim.rule for claim in judged if claim.verdict is not None and claim.verdict.interval.n}
        judged = [claim for claim in judged if claim not in untested and claim.rule in tested_rules]
    if options.compare:
        tables = comparison_tables(content.comparisons)
    else:
        tables = tables_of(content.results, judged, options.table)
    if options.format == "markdown":
        sys.stdout.write("\n".join(markdown(table) for _, table in tables))
    elif options.format == "latex":
        sys.stdout.write("\n".join(latex(table, f"tab:{name}") for name, table in tables))
    else:
        print_tables([table for _, table in tables])


def _print_not_compared(content: Content, console: Console) -> None:
    from plastic_cli.reports.comparisons import not_compared

    alone = not_compared(content.results, content.comparisons)
    if not content.comparisons and content.results:
        console.message("nothing to compare: no two settings share a data set and a metric")
    elif alone:
        results = "1 result is" if alone == 1 else f"{alone} results are"
        console.message(f"{results} not compared, because no other setting has the same data set and metric")


def _write(options: ReportOptions, content: Content, sources: Sources, store: RunStore, console: Console) -> None:
    from plastic_cli.reports.write import make_figures, write_figures, write_page

    figures = {}
    if not content.runs.empty:
        metrics = store.metrics(runs=list(content.runs["run"]), stage="train")
        _warn_of_unreadable(store, console)
        figures = make_figures(content, metrics, sources.headline, console)
    if options.output is not None:
        write_figures(options.output, figures, console)
        console.message(f"wrote tables and figures into {options.output}")
    if options.html is not None:
        path = write_page(options.html, content, figures, sources.recipes, console)
        console.message(f"wrote {path}")


def _warn_of_unreadable(store: RunStore, console: Console) -> None:
    for error in store.errors[:UNREADABLE_SHOWN]:
        console.warning(f"{error.folder}: {error.message}")
    if len(store.errors) > UNREADABLE_SHOWN:
        console.warning(f"{len(store.errors) - UNREADABLE_SHOWN} more could not be read")
