"""`plastic report`: every setting's result over its seeds, beside what was published."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import PlasticError, UserError, did_you_mean
from plastic_cli.plugins import discover
from plastic_cli.runs.console import Console
from plastic_cli.runs.files import write_atomically
from plastic_cli.runs.record import STATUSES
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.config import Config
    from plastic_cli.report.claims import PublishedFigures
    from plastic_cli.report.results import ClaimResult, Result

    Headline = Callable[[pd.DataFrame, pd.DataFrame], dict[str, ggplot]]

FORMATS = ("table", "markdown", "latex", "csv", "json")
TABLES = ("all", "results", "claims")

DEFAULT_FOLDER = Path("runs")
"""Where runs are when nobody names a folder; that it is not there yet is no mistake."""

_UNREADABLE_SHOWN = 5


def report(
    runs_folder: Path,
    *,
    rule: str | None = None,
    dataset: str | None = None,
    status: str = "completed",
    table: str = "all",
    format: str = "table",  # noqa: A002
    output: Path | None = None,
    claims: Mapping[str, str] | None = None,
    headlines: Mapping[str, Headline] | None = None,
    console: Console | None = None,
) -> None:
    """Print the results of all runs in a folder, and how the published claims fare.

    rule, dataset, status: only these runs. Claims are held against completed runs alone. table: "results", "claims" or
    "all"; CSV holds one table, so that there "all" is the results. output: a folder that also gets the tables as
    Markdown, LaTeX and CSV, and the figures as PNG and SVG. claims: the text of `claims.toml` by rule; None: of the
    installed rules. headlines: by rule, a function from the runs and their metrics to figures by file name; None: the
    function `headline_figures` of a rule's commands, where it has one. Raises UserError for an unknown choice and for a
    folder that was named and does not exist.
    """
    console = console or Console()
    _check_choice("--format", format, FORMATS)
    _check_choice("--table", table, TABLES)
    _check_choice("--status", status, (*STATUSES, "crashed", "all"))
    if not runs_folder.is_dir() and runs_folder != DEFAULT_FOLDER:
        raise UserError(f"there is no folder {runs_folder}. Name the folder with your runs: --runs FOLDER.")
    store = RunStore(runs_folder)
    runs = store.runs()
    _warn_of_unreadable(store, console)
    texts = _installed_claims() if claims is None else claims
    runs = _chosen(runs, rule, dataset, status, list(texts), runs_folder, console)

    from plastic_cli.report.grouping import group_runs
    from plastic_cli.report.results import judge_claims, summarise

    groups = group_runs(runs, _training_models(runs["rule"].unique() if len(runs) else ()))
    reported = sorted({group.rule for group in groups} | ({rule} if rule else set()))
    published = _published(texts, reported, dataset, console) if status == "completed" else {}
    results = summarise(runs, groups, published)
    judged = judge_claims(runs, groups, published)
    if output is not None:
        _write_tables(output, results, judged)
    _print(results, judged, table, format, console)
    if output is not None:
        _write_figures(output, store, runs, results, judged, headlines, console)
        console.message(f"wrote tables and figures into {output}")


def _training_models(rules: Iterable[str]) -> dict[str, type[Config]]:
    """Return what each rule's training can be told; a rule that is not installed or does not load goes without."""
    from plastic_cli.commands.verbs import config_model

    models = {}
    for name in rules:
        with suppress(Exception):
            train = discover().rules[name].function("train")
            if train is not None:
                models[name] = config_model(train)
    return models


def _check_choice(option: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise UserError(f"{option} {given}: choose {', '.join(choices)}.{did_you_mean(given, choices)}")


def _chosen(
    runs: pd.DataFrame,
    rule: str | None,
    dataset: str | None,
    status: str,
    rules: list[str],
    folder: Path,
    console: Console,
) -> pd.DataFrame:
    """Return the runs that are to be reported, and say why where there are none."""
    example = f"plastic train {rule or (rules[0] if rules else 'RULE')}"
    if runs.empty:
        console.message(f"no run yet in {folder}. Train a first one with: {example}")
        return runs
    for option, given, known in (
        ("--rule", rule, {*runs["rule"], *rules}),
        ("--dataset", dataset, {str(name) for name in runs["dataset"].dropna()}),
    ):
        if given is not None and given not in known:
            shown = ", ".join(sorted(known)) or "none"
            raise UserError(f"{option} {given}: no run has it.{did_you_mean(given, known)} There are: {shown}.")
    if rule is not None:
        runs = runs[runs["rule"] == rule]
    if dataset is not None:
        runs = runs[runs["dataset"] == dataset]
    chosen = runs if status == "all" else runs[runs["status"] == status]
    if chosen.empty:
        others = ", ".join(f"{count} {word}" for word, count in runs["status"].value_counts().items()) or "none"
        console.message(
            f"no {status} run in {folder} to report (runs that fit otherwise: {others}). Train one: {example}"
        )
    elif status == "completed" and len(chosen) < len(runs):
        left_out = ", ".join(
            f"{count} {word}" for word, count in runs["status"].value_counts().items() if word != "completed"
        )
        console.message(f"not counted: {left_out} (see `plastic runs`)")
    return chosen


def _installed_claims() -> dict[str, str]:
    return {name: text for name, rule in discover().rules.items() if (text := rule.claims_text())}


def _published(
    texts: Mapping[str, str], rules: list[str], dataset: str | None, console: Console
) -> dict[str, PublishedFigures]:
    """Read the claims of some rules about one data set or all; a rule whose file is wrong goes without."""
    from plastic_cli.report.claims import read_claims

    published = {}
    for name in rules:
        if name in texts:
            try:
                figures = read_claims(name, texts[name])
            except UserError as error:
                console.warning(f"{error} This rule's claims are left out.")
            else:
                published[name] = figures.about(dataset) if dataset else figures
    return published


def _print(results: list[Result], judged: list[ClaimResult], table: str, output_format: str, messages: Console) -> None:
    from plastic_cli.report import formats, tables

    if output_format == "csv":
        frame = tables.claims_frame(judged) if table == "claims" else tables.results_frame(results)
        sys.stdout.write(formats.csv_text(frame))
        return
    if output_format == "json":
        frames = {"results": tables.results_frame(results), "claims": tables.claims_frame(judged)}
        sys.stdout.write(formats.json_text(**{name: frame for name, frame in frames.items() if table in ("all", name)}))
        return
    if output_format == "table" and table == "all":
        # A first report is to show what was run, not all that was not.
        untested = [claim for claim in judged if claim.verdict is not None and not claim.verdict.interval.n]
        if untested:
            messages.message(
                f"{len(untested)} published claims have no run here: `plastic report --table claims` lists them"
            )
        tested_rules = {claim.rule for claim in judged if claim.verdict is not None and claim.verdict.interval.n}
        judged = [claim for claim in judged if claim not in untested and claim.rule in tested_rules]
    shown = _shown_tables(results, judged, table)
    if output_format == "markdown":
        sys.stdout.write("\n".join(formats.markdown(each) for _, each in shown))
    elif output_format == "latex":
        sys.stdout.write("\n".join(formats.latex(each, f"tab:{name}") for name, each in shown))
    else:
        from rich.console import Console as RichConsole

        # In a pipe there is no width to fit.
        width = RichConsole().width if sys.stdout.isatty() else None
        console = RichConsole(width=width or 10_000, highlight=False)
        for index, (_, each) in enumerate(shown):
            if index:
                console.print()
            console.print(formats.rich_table(each, width))


def _shown_tables(results: list[Result], judged: list[ClaimResult], table: str) -> list[tuple[str, Any]]:
    from plastic_cli.report.tables import claims_table, context_table, results_table

    shown = []
    if table in ("all", "results") and results:
        shown.append(("results", results_table(results)))
    if table in ("all", "claims"):
        shown += [("claims", claims_table(judged)), ("other-methods", context_table(judged))]
    return [(name, each) for name, each in shown if each.rows]


def _write_tables(folder: Path, results: list[Result], judged: list[ClaimResult]) -> None:
    from plastic_cli.report import formats, tables

    contents = {
        "table.csv": formats.csv_text(tables.results_frame(results)),
        "claims.csv": formats.csv_text(tables.claims_frame(judged)),
    }
    for name, wanted in (("table", "results"), ("claims", "claims")):
        shown = _shown_tables(results, judged, wanted)
        contents[f"{name}.md"] = "\n".join(formats.markdown(each) for _, each in shown)
        contents[f"{name}.tex"] = "\n".join(formats.latex(each, f"tab:{label}") for label, each in shown)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise PlasticError(f"cannot write to {folder}: {error.strerror or error}. Choose another --output.") from None


def _write_figures(
    folder: Path,
    store: RunStore,
    runs: pd.DataFrame,
    results: list[Result],
    judged: list[ClaimResult],
    headlines: Mapping[str, Headline] | None,
    console: Console,
) -> None:
    from plastic_cli.figures.files import save_figure
    from plastic_cli.report.plots import claims_figure, learning_curves

    if runs.empty:
        return
    metrics = store.metrics(runs=list(runs["run"]), stage="train")
    _warn_of_unreadable(store, console)
    figures = learning_curves(results, metrics)
    claims = claims_figure(judged)
    if claims is not None:
        figures["claims"] = claims
    for rule in sorted(set(runs["rule"])):
        headline = _installed_headline(rule) if headlines is None else headlines.get(rule)
        if headline is None:
            continue
        try:
            own = runs[runs["rule"] == rule]
            made = headline(own, metrics[metrics["run"].isin(own["run"])])
        except Exception as error:  # noqa: BLE001  one rule's figure must not cost the others theirs
            console.warning(f"the headline figure of {rule} failed: {type(error).__name__}: {error}")
            continue
        figures |= {f"{rule}-{name}": figure for name, figure in made.items()}
    for name, figure in figures.items():
        save_figure(figure, folder / "figures", name)


def _installed_headline(rule: str) -> Headline | None:
    installed = discover().rules.get(rule)
    function: Headline | None = getattr(installed.load(), "headline_figures", None) if installed else None
    return function


def _warn_of_unreadable(store: RunStore, console: Console) -> None:
    for error in store.errors[:_UNREADABLE_SHOWN]:
        console.warning(f"{error.folder}: {error.message}")
    if len(store.errors) > _UNREADABLE_SHOWN:
        console.warning(f"{len(store.errors) - _UNREADABLE_SHOWN} more could not be read")
