"""The report as files: tables, figures and one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from plastic_cli.distribution import installed_version
from plastic_cli.errors import PlasticError
from plastic_cli.escapes import csv_text
from plastic_cli.figures.files import save_figure
from plastic_cli.files import write_atomically
from plastic_cli.reports import plots
from plastic_cli.reports.combinations import combination_figures
from plastic_cli.reports.comparisons import unique_name
from plastic_cli.reports.content import (
    Content,
    comparison_tables,
    frames_of,
    latex_of,
    pareto_tables,
    tables_of,
    with_caption,
)
from plastic_cli.reports.drawings import PageFigure, page_figure
from plastic_cli.reports.options import PAGE
from plastic_cli.reports.page import page
from plastic_cli.reports.pareto import pareto_figures
from plastic_cli.reports.plots import Figure
from plastic_cli.reports.steps import steps_frame, steps_tables
from plastic_cli.reports.with_reference import own_only
from plastic_cli.runs.console import Console
from plastic_cli.statistics.intervals import MINIMUM_VALUES
from plastic_cli.tables import markdown

if TYPE_CHECKING:
    from plastic_cli.reports.options import Headline, ReportOptions, Sources

Drawn = TypeVar("Drawn")


def write_tables(folder: Path, content: Content, options: ReportOptions) -> None:
    """Write the tables as CSV, Markdown and LaTeX; raises PlasticError if that is not possible.

    Columns, a caption and a label are for the table of results, or with table "claims" for that of the claims.
    """
    names = {"results": "table"}
    plain = options.model_copy(update={"columns": None, "caption": None, "label": None, "pareto": None})
    contents: dict[str, str] = {}
    for table in ("results", "claims"):
        own = table == ("claims" if options.table == "claims" else "results") and options.pareto is None
        chosen = options if own else plain
        chosen = chosen.model_copy(update={"table": table, "compare": False})
        stem = names.get(table, table)
        contents[f"{stem}.csv"] = csv_text(frames_of(content, chosen)[table])
        tables = tables_of(content, chosen)
        contents[f"{stem}.md"] = "\n".join(markdown(with_caption(each, chosen)) for each in tables.values())
        contents[f"{stem}.tex"] = "\n".join(latex_of(name, each, chosen) for name, each in tables.items())
    if content.steps:
        contents["steps.csv"] = csv_text(steps_frame(content.steps))
        tables_of_steps = steps_tables(content.steps, content.style)
        contents["steps.md"] = "\n".join(map(markdown, tables_of_steps))
        contents["steps.tex"] = "\n".join(
            latex_of(f"steps-{number}", table, plain) for number, table in enumerate(tables_of_steps, start=1)
        )
    if options.compare:
        contents |= {f"{name}.csv": csv_text(frame) for name, frame in frames_of(content, options).items()}
        tables = comparison_tables(content.comparisons, options.style)
        contents["comparisons.md"] = "\n".join(markdown(each) for each in tables.values())
        contents["comparisons.tex"] = "\n".join(latex_of(name, each, plain) for name, each in tables.items())
    if options.pareto is not None:
        contents |= {f"{name}.csv": csv_text(frame) for name, frame in frames_of(content, options).items()}
        tables = pareto_tables(content, options.style)
        contents["pareto.md"] = "\n".join(markdown(with_caption(each, options)) for each in tables.values())
        contents["pareto.tex"] = "\n".join(latex_of(name, each, options) for name, each in tables.items())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise PlasticError(f"cannot write to {folder}: {error.strerror or error}. Choose another --output.") from None


def make_figures(
    content: Content, metrics: pd.DataFrame, headline: Callable[[str], Headline | None], console: Console
) -> dict[str, Figure]:
    """Return every figure of the report by file name; a rule's own figure that fails costs a warning.

    metrics: those of the reported runs, a frame as `RunStore.metrics()` gives it.
    """
    # Figures of rules and of combinations take all runs of one configuration together.
    runs = own_only(content.runs)
    look = plots.looks(content.results, content.settings)
    priced = {} if content.pareto is None else pareto_figures(content.pareto)
    figures = (
        priced | plots.learning_curves(content.results, metrics, look) | plots.claims_figures(content.judged, look)
    )
    for metric in dict.fromkeys(result.metric for result in content.results if result.metric):
        figures |= combination_figures(runs, metrics, metric)
    for comparison in content.comparisons:
        if not any(each.scores.size >= MINIMUM_VALUES for each in comparison.compared):
            # The profile of one or two runs is a step at their values, which a table already has.
            continue
        figures[f"performance-profile-{comparison.name}"] = plots.profile_figure(comparison, look)
    for rule in sorted(set(runs["rule"])):
        make = headline(rule)
        if make is None:
            continue
        try:
            own = runs[runs["rule"] == rule]
            made = make(own, metrics[metrics["run"].isin(own["run"])])
        except Exception as error:  # noqa: BLE001  one rule's figure must not prevent those of the others
            _warn_of_headline(rule, error, console)
            continue
        shown = tuple(sorted({str(name) for name in own["dataset"].dropna()}))
        figures |= {f"{rule}-{name}": Figure(figure, None, rule, (rule,), shown) for name, figure in made.items()}
    return figures


def _warn_of_headline(rule: str, error: Exception, console: Console) -> None:
    console.warning(f"the headline figure of {rule} failed: {type(error).__name__}: {error}")


def _each_drawn(
    figures: Mapping[str, Figure], draw: Callable[[str, Figure], Drawn], console: Console
) -> Iterator[Drawn]:
    """Draw all figures; a rule's own figure that cannot be drawn costs a warning."""
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


def write_figures(folder: Path, figures: Mapping[str, Figure], console: Console) -> None:
    """Write figures as PNG and SVG; raises PlasticError if that is not possible."""

    def save(name: str, figure: Figure) -> list[Path]:
        return save_figure(figure.plot, folder / "figures", name, description=figure.description)

    list(_each_drawn(figures, save, console))


def write_page(
    folder: Path,
    content: Content,
    figures: Mapping[str, Figure],
    sources: Sources,
    console: Console,
) -> Path:
    """Write the page into `folder` in one step and return its path; raises PlasticError if that is not possible."""
    anchors: list[str] = []

    def draw(name: str, figure: Figure) -> PageFigure:
        anchors.append(unique_name(name, anchors))
        return page_figure(figure.plot, name, anchors[-1], figure.description, figure.rules, figure.datasets)

    text = page(content, list(_each_drawn(figures, draw, console)), sources, installed_version())
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise PlasticError(f"cannot write to {folder}: {error.strerror or error}. Choose another --html.") from None
    return path
