"""`plastic report`: every setting's result over its seeds, beside what was published."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from plastic_cli.errors import PlasticError, UserError, did_you_mean
from plastic_cli.escapes import csv_text
from plastic_cli.files import write_atomically
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console
from plastic_cli.runs.record import STATUSES
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.config.model import Config
    from plastic_cli.report.claims import PublishedFigures
    from plastic_cli.report.comparisons import Comparison
    from plastic_cli.report.results import ClaimResult, Result
    from plastic_cli.report.tables import Table

    Headline = Callable[[pd.DataFrame, pd.DataFrame], dict[str, ggplot]]

FORMATS = ("table", "markdown", "latex", "csv", "json")
TABLES = ("all", "results", "claims")

DEFAULT_FOLDER = Path("runs")
"""Where runs are when nobody names a folder; that it is not there yet is no mistake."""

PAGE = "index.html"

_UNREADABLE_SHOWN = 5

Drawn = TypeVar("Drawn")


def report(
    runs_folder: Path,
    *,
    rule: str | None = None,
    dataset: str | None = None,
    status: str = "completed",
    table: str = "all",
    format: str = "table",  # noqa: A002
    compare: bool = False,
    output: Path | None = None,
    html: Path | None = None,
    claims: Mapping[str, str] | None = None,
    headlines: Mapping[str, Headline] | None = None,
    recipes: Mapping[tuple[str, str], Sequence[str]] | None = None,
    console: Console | None = None,
) -> None:
    """Print the results of all runs in a folder, and how the published claims fare.

    rule, dataset, status: only these runs. Claims are held against completed runs alone. table: "results", "claims" or
    "all"; CSV holds one table, so that there "all" is the results. compare: print how the settings compare instead; CSV
    then holds the interquartile means. output: a folder that also gets the tables as Markdown, LaTeX and CSV, and the
    figures as PNG and SVG. html: a folder that gets all of it as one page. claims: the text of `claims.toml` by rule;
    None: of the installed rules. headlines: by rule, a function from runs and their metrics to figures by file name;
    None: the function `headline_figures` of a rule's commands, where it has one. recipes: by rule and id of a claim the
    names of the recipes that test it; None: of those that come with plastic. Raises UserError for an unknown choice and
    for a folder that was named and does not exist.
    """
    console = console or Console()
    _check_choice("--format", format, FORMATS)
    _check_choice("--table", table, TABLES)
    _check_choice("--status", status, (*STATUSES, "crashed", "all"))
    if compare and table != "all":
        raise UserError(f"--compare prints tables of its own: leave --table {table} out.")
    for option, folder in (("--output", output), ("--html", html)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise PlasticError(f"cannot write to {folder}: it is a file. Choose another {option}.")
    if html is not None:
        _check_is_ours(html / PAGE)
    if not runs_folder.is_dir() and runs_folder != DEFAULT_FOLDER:
        raise UserError(f"there is no folder {runs_folder}. Name the folder with your runs: --runs FOLDER.")
    store = RunStore(runs_folder)
    runs = store.runs()
    _warn_of_unreadable(store, console)
    texts = _installed_claims() if claims is None else claims
    runs, failed, left_out = _chosen(runs, rule, dataset, status, list(texts), runs_folder, console)

    from plastic_cli.report.grouping import group_runs
    from plastic_cli.report.results import judge_claims, summarise

    models = _training_models(runs["rule"].unique() if len(runs) else ())
    groups = group_runs(runs, models, failed)
    reported = sorted({group.rule for group in groups} | ({rule} if rule else set()))
    published = _published(texts, reported, dataset, console) if status == "completed" else {}
    content = _Content(summarise(runs, groups, published), judge_claims(runs, groups, published))
    if compare or html is not None:
        from plastic_cli.report.comparisons import compare as compared

        content = replace(content, comparisons=compared(runs, content.results, models))
    if output is not None:
        _write_tables(output, content, compare)
    _print(content, table, format, compare, console)
    if output is None and html is None:
        return
    figures = _figures(store, runs, content, headlines, console)
    if output is not None:
        _write_figures(output, figures, console)
        console.message(f"wrote tables and figures into {output}")
    if html is not None:
        tested_by = _recipes() if recipes is None else recipes
        page = _write_page(html, content, figures, tested_by, _about(runs, left_out), console)
        console.message(f"wrote {page}")


@dataclass(frozen=True)
class _Content:
    """What there is to report."""

    results: list[Result]
    judged: list[ClaimResult]
    comparisons: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True)
class _Figure:
    """A figure and what it shows in words, beyond its labels; rule: whose own it is, None for the report's."""

    plot: ggplot
    words: str | None = None
    rule: str | None = None


def _check_is_ours(path: Path) -> None:
    """Raise PlasticError where a page is in the way that somebody else wrote."""
    try:
        head = path.read_bytes()[:4096]
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlasticError(f"cannot replace {path}: {error.strerror or error}. Choose another --html.") from None
    if b'<meta name="generator" content="plastic ' not in head:
        raise PlasticError(f"{path} was not written by plastic, and is left as it is. Choose another --html.")


def _training_models(rules: Iterable[str]) -> dict[str, type[Config]]:
    """Return what each rule's training can be told; a rule that is not installed or does not load goes without."""
    from plastic_cli.resolve import config_model

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
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the runs to report, the failed ones beside completed ones, and in words those that are not complete.

    Where there are none, say why.
    """
    example = f"plastic train {rule or (rules[0] if rules else 'RULE')}"
    if runs.empty:
        console.message(f"no run yet in {folder}. Train a first one with: {example}")
        return runs, runs, ""
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
    chosen, left_out = (runs if status == "all" else runs[runs["status"] == status]), ""
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
    failed = runs[runs["status"] == "failed"] if status == "completed" else runs.iloc[:0]
    return chosen, failed, left_out


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


def _print(content: _Content, table: str, output_format: str, compare: bool, messages: Console) -> None:
    from plastic_cli.report import formats

    judged = content.judged
    if output_format in ("csv", "json"):
        frames = _frames(content, compare)
        if output_format == "csv":
            sys.stdout.write(csv_text(frames[table] if table in frames else next(iter(frames.values()))))
        else:
            sys.stdout.write(formats.json_text(**({table: frames[table]} if table in frames else frames)))
        return
    if compare:
        _say_what_is_not_compared(content, messages)
    elif output_format == "table" and table == "all":
        # A first report is to show what was run, not all that was not.
        untested = [claim for claim in judged if _is_without_runs(claim)]
        if untested:
            messages.message(
                f"{len(untested)} published claims have no run here: `plastic report --table claims` lists them"
            )
        tested_rules = {claim.rule for claim in judged if claim.verdict is not None and claim.verdict.interval.n}
        judged = [claim for claim in judged if claim not in untested and claim.rule in tested_rules]
    shown = _comparison_tables(content) if compare else _shown_tables(content.results, judged, table)
    if output_format == "markdown":
        sys.stdout.write("\n".join(formats.markdown(each) for _, each in shown))
    elif output_format == "latex":
        sys.stdout.write("\n".join(formats.latex(each, f"tab:{name}") for name, each in shown))
    else:
        from rich.console import Console as RichConsole

        # In a pipe there is no width to fit.
        width = RichConsole().width if sys.stdout.isatty() else None
        console = RichConsole(width=width or 10_000, highlight=False, markup=False)
        for index, (_, each) in enumerate(shown):
            if index:
                console.print()
            console.print(formats.rich_table(each, width))


def _is_without_runs(claim: ClaimResult) -> bool:
    from plastic_cli.report.claims import Context

    if isinstance(claim.entry, Context):
        return False
    return claim.verdict is None or not (claim.verdict.interval.n or claim.verdict.lost)


def _frames(content: _Content, compare: bool) -> dict[str, pd.DataFrame]:
    """Return what is asked for as frames by name, the one that a CSV holds first."""
    if compare:
        # Not above: it takes a second to import, and few ask for it.
        from plastic_cli.report import comparisons

        return {
            "comparisons": comparisons.comparisons_frame(content.comparisons),
            "improvements": comparisons.improvements_frame(content.comparisons),
        }
    from plastic_cli.report import tables

    return {"results": tables.results_frame(content.results), "claims": tables.claims_frame(content.judged)}


def _say_what_is_not_compared(content: _Content, messages: Console) -> None:
    from plastic_cli.report.comparisons import not_compared

    alone = not_compared(content.results, content.comparisons)
    if not content.comparisons and content.results:
        messages.message("nothing to compare: no two settings share a data set and a metric")
    elif alone:
        results = "1 result is" if alone == 1 else f"{alone} results are"
        messages.message(f"not compared: {results} alone on a data set and metric")


def _shown_tables(results: list[Result], judged: list[ClaimResult], table: str) -> list[tuple[str, Table]]:
    from plastic_cli.report.tables import claims_table, context_table, results_table

    shown = []
    if table in ("all", "results") and results:
        shown.append(("results", results_table(results)))
    if table in ("all", "claims"):
        shown += [("claims", claims_table(judged)), ("other-methods", context_table(judged))]
    return [(name, each) for name, each in shown if each.rows]


def _comparison_tables(content: _Content) -> list[tuple[str, Table]]:
    from plastic_cli.report.comparisons import improvement_table, middle_table

    return [
        (f"{name}-{comparison.name}", make(comparison))
        for comparison in content.comparisons
        for name, make in (("comparison", middle_table), ("improvement", improvement_table))
    ]


def _write_tables(folder: Path, content: _Content, compare: bool) -> None:
    from plastic_cli.report import formats

    names = {"results": "table"}
    contents = {
        f"{names.get(name, name)}.csv": csv_text(frame)
        for wanted in ((False, True) if compare else (False,))
        for name, frame in _frames(content, wanted).items()
    }
    tables = {name: _shown_tables(content.results, content.judged, name) for name in ("results", "claims")}
    if compare:
        tables["comparisons"] = _comparison_tables(content)
    for name, shown in tables.items():
        stem = names.get(name, name)
        contents[f"{stem}.md"] = "\n".join(formats.markdown(each) for _, each in shown)
        contents[f"{stem}.tex"] = "\n".join(formats.latex(each, f"tab:{label}") for label, each in shown)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise PlasticError(f"cannot write to {folder}: {error.strerror or error}. Choose another --output.") from None


def _figures(
    store: RunStore,
    runs: pd.DataFrame,
    content: _Content,
    headlines: Mapping[str, Headline] | None,
    console: Console,
) -> dict[str, _Figure]:
    """Return every figure of the report by file name."""
    from plastic_cli.report import plots

    if runs.empty:
        return {}
    metrics = store.metrics(runs=list(runs["run"]), stage="train")
    _warn_of_unreadable(store, console)
    figures = {
        name: _Figure(figure, plots.curves_in_words(figure))
        for name, figure in plots.learning_curves(content.results, metrics).items()
    }
    for name, figure in plots.claims_figures(content.judged).items():
        figures[name] = _Figure(figure, plots.claims_in_words(figure))
    for comparison in content.comparisons:
        profile = plots.profile_figure(comparison)
        figures[f"performance-profile-{comparison.name}"] = _Figure(profile, plots.profile_in_words(profile))
    for rule in sorted(set(runs["rule"])):
        headline = _installed_headline(rule) if headlines is None else headlines.get(rule)
        if headline is None:
            continue
        try:
            own = runs[runs["rule"] == rule]
            made = headline(own, metrics[metrics["run"].isin(own["run"])])
        except Exception as error:  # noqa: BLE001  one rule's figure must not cost the others theirs
            _warn_of_headline(rule, error, console)
            continue
        figures |= {f"{rule}-{name}": _Figure(figure, rule=rule) for name, figure in made.items()}
    return figures


def _warn_of_headline(rule: str, error: Exception, console: Console) -> None:
    console.warning(f"the headline figure of {rule} failed: {type(error).__name__}: {error}")


def _each_drawn(
    figures: Mapping[str, _Figure], draw: Callable[[str, _Figure], Drawn], console: Console
) -> Iterator[Drawn]:
    """Draw all figures; a rule's own that cannot be drawn costs a warning."""
    for name, figure in figures.items():
        try:
            drawn = draw(name, figure)
        except PlasticError:
            raise
        except Exception as error:
            if figure.rule is None:
                raise
            _warn_of_headline(figure.rule, error, console)
        else:
            yield drawn


def _write_figures(folder: Path, figures: Mapping[str, _Figure], console: Console) -> None:
    from plastic_cli.figures.files import save_figure

    def save(name: str, figure: _Figure) -> list[Path]:
        return save_figure(figure.plot, folder / "figures", name, description=figure.words)

    list(_each_drawn(figures, save, console))


def _write_page(
    folder: Path,
    content: _Content,
    figures: Mapping[str, _Figure],
    recipes: Mapping[tuple[str, str], Sequence[str]],
    about: tuple[str, list[str]],
    console: Console,
) -> Path:
    """Write the page into `folder` in one step and return its path."""
    from plastic_cli.distribution import installed_version
    from plastic_cli.figures.files import svg_text
    from plastic_cli.report.page import PageFigure, page

    def draw(name: str, figure: _Figure) -> PageFigure:
        return PageFigure(name, svg_text(figure.plot, name, figure.words))

    summary, notes = about
    text = page(
        content.results,
        content.judged,
        content.comparisons,
        list(_each_drawn(figures, draw, console)),
        recipes=recipes,
        summary=summary,
        notes=notes,
        version=installed_version(),
    )
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise PlasticError(f"cannot write to {folder}: {error.strerror or error}. Choose another --html.") from None
    return path


def _about(runs: pd.DataFrame, left_out: str) -> tuple[str, list[str]]:
    """Return a line about the runs, and notes on what is not counted."""
    notes = [f"Not counted: {left_out}."] if left_out else []
    if runs.empty:
        return "No run to report yet.", notes
    rules, sets = sorted(set(runs["rule"])), sorted({str(name) for name in runs["dataset"].dropna()})
    newest = runs["started"].max() if runs["started"].notna().any() else None
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    summary = f"{counted} of {', '.join(rules)}" + (f" on {', '.join(sets)}" if sets else "")
    return summary + (f"; the newest is of {newest:%Y-%m-%d %H:%M} UTC." if newest is not None else "."), notes


def _recipes() -> dict[tuple[str, str], list[str]]:
    """Return by rule and id of a claim the names of the recipes that test it; a recipe that is wrong goes without."""
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


def _installed_headline(rule: str) -> Headline | None:
    installed = discover().rules.get(rule)
    function: Headline | None = getattr(installed.load(), "headline_figures", None) if installed else None
    return function


def _warn_of_unreadable(store: RunStore, console: Console) -> None:
    for error in store.errors[:_UNREADABLE_SHOWN]:
        console.warning(f"{error.folder}: {error.message}")
    if len(store.errors) > _UNREADABLE_SHOWN:
        console.warning(f"{len(store.errors) - _UNREADABLE_SHOWN} more could not be read")
