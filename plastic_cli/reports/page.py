"""The report as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from markupsafe import Markup

from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.claims import VERDICTS, Claim, Context, Unmeasured, quantity
from plastic_cli.reports.comparisons import Comparison, improvement_table, iqm_table, not_compared
from plastic_cli.reports.content import Content, has_no_runs, training_models
from plastic_cli.reports.drawings import PageFigure, page_colors
from plastic_cli.reports.grouping import control_name, data_notes, setting_and_data
from plastic_cli.reports.html_tables import (
    PageCell,
    PageTable,
    page_environment,
    recipe_cell,
    template_text,
    web_address,
)
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.options import Sources
from plastic_cli.reports.pareto import Pareto, pareto_table
from plastic_cli.reports.results import ClaimResult
from plastic_cli.reports.steps import step_figures, steps_tables
from plastic_cli.reports.tables import (
    REFERENCE_EXPLAINED,
    VERDICTS_EXPLAINED,
    claim_figure,
    context_table,
    reference_cell,
    results_table,
    seeds_text,
)
from plastic_cli.reports.with_reference import own_only
from plastic_cli.statistics.intervals import MINIMUM_VALUES
from plastic_cli.tables import Cell, Column, Detailed, Table


@dataclass(frozen=True)
class Section:
    """A part of the page: texts, then tables, then figures. name: its id."""

    name: str
    heading: str
    texts: tuple[str, ...] = ()
    tables: tuple[PageTable, ...] = ()
    figures: tuple[PageFigure, ...] = ()


def page(content: Content, figures: Sequence[PageFigure], sources: Sources, version: str) -> str:
    """Return the page of a report, with the recipes of the claims and settings that `sources` knows."""
    title = "Plasticity rules: published and measured"
    return render_page(title, _summary(content.runs), _sections(content, figures, sources), version)


def render_page(title: str, summary: str, sections: Sequence[Section], version: str) -> str:
    """Return a page of sections. All text from runs, rules and recipes is escaped."""
    environment = page_environment()
    style, script = (template_text(environment, f"table.{kind}", f"page.{kind}") for kind in ("css", "js"))
    return environment.get_template("page.html").render(
        title=title,
        summary=summary,
        version=version,
        sections=sections,
        # These files come with plastic and contain no text of runs.
        style=Markup(page_colors() + style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


# ---------------------------------------------------------------------------------------------------------- sections


def _summary(runs: pd.DataFrame) -> str:
    """Return one sentence about the reported runs."""
    if runs.empty:
        return "No run to report yet."
    rules, datasets = sorted(set(runs["rule"])), sorted({str(name) for name in runs["dataset"].dropna()})
    own = own_only(runs)
    newest = own["started"].max() if own["started"].notna().any() else None
    counted = "1 run" if len(own) == 1 else f"{len(own)} runs"
    if len(own) < len(runs):
        counted += f" and {len(runs) - len(own)} of the reference,"
    summary = f"{counted} of {', '.join(rules)}" + (f" on {', '.join(datasets)}" if datasets else "")
    return summary + (f"; the newest is of {newest:%Y-%m-%d %H:%M} UTC." if newest is not None else ".")


def _sections(content: Content, figures: Sequence[PageFigure], sources: Sources) -> list[Section]:
    """Return the sections of the page: what was run comes first, what was published last."""
    drawn = {figure.name: figure for figure in figures}
    profiles = tuple(
        drawn.pop(name)
        for comparison in content.comparisons
        if (name := f"performance-profile-{comparison.name}") in drawn
    )
    priced = tuple(drawn.pop(name) for name in list(drawn) if name.startswith("pareto-"))
    published = tuple(drawn.pop(name) for name in list(drawn) if name == "claims" or name.startswith("claims-"))
    sections = [_results_section(content, sources)]
    if content.pareto is not None and content.pareto.rows:
        sections.append(_pareto_section(content.pareto, content.style, priced))
    if drawn:
        sections.append(Section("figures", "Figures", figures=tuple(drawn.values())))
    if content.steps:
        sections.append(_steps_section(content))
    if content.comparisons:
        sections.append(_comparisons_section(content, profiles))
    claims = [row for row in content.judged if not isinstance(row.entry, Context)]
    if claims:
        sections.append(_claims_section(claims, sources.recipes, published, content.style))
    others = context_table(content.judged, content.style)
    if others.rows:
        links = {row.entry.id: row.entry.link for row in content.judged if isinstance(row.entry, Context)}
        table = PageTable("others-table", _with_links(others, links))
        sections.append(Section("others", "Other methods", tables=(table,)))
    return sections


_STEPS_TEXT = (
    "Steps are evaluations, analyses and films of the trained runs. Pictures show the first seed of each setting. All"
    " tables, pictures and films are in the folders of the runs."
)


def _steps_section(content: Content) -> Section:
    tables = tuple(
        PageTable(f"steps-table-{number}", table)
        for number, table in enumerate(steps_tables(content.steps, content.style), start=1)
    )
    return Section("steps", "Steps", (_STEPS_TEXT,), tables, tuple(step_figures(content.steps)))


def _results_section(content: Content, sources: Sources) -> Section:
    notes = (f"Not counted: {content.selection.not_counted}.",) if content.selection.not_counted else ()
    if not content.results:
        return Section("results", "Results", (*notes, "There is no run to report yet."))
    groups = [result.group for result in content.results]
    models = training_models(dict.fromkeys(group.rule for group in groups))
    keys = [setting_and_data(group.rule, group.dataset, group.config) for group in groups]
    table = PageTable(
        "results-table",
        results_table(content.results, content.style),
        recipes=tuple(tuple(sources.recipes_of.get(key, ())) for key in keys) if sources.recipes_of else None,
        controls=tuple(control_name(group, models.get(group.rule)) is not None for group in groups),
    )
    return Section("results", "Results", notes, (table,))


def _pareto_section(pareto: Pareto, style: NumberStyle, figures: tuple[PageFigure, ...]) -> Section:
    table = PageTable(
        "pareto-table", pareto_table(pareto, style), controls=tuple(row.control is not None for row in pareto.rows)
    )
    return Section("pareto", "The price of learning", (), (table,), figures)


def _comparisons_section(content: Content, profiles: tuple[PageFigure, ...]) -> Section:
    tables = tuple(
        itertools.chain.from_iterable(_comparison_tables(each, content.style) for each in content.comparisons)
    )
    texts = ["Settings may differ in more than their rule."]
    alone = not_compared(content.results, content.comparisons)
    if alone:
        results = "1 result is" if alone == 1 else f"{alone} results are"
        texts.append(f"{results} not compared, because no other setting has the same data set and metric.")
    return Section("comparisons", "Comparisons", tuple(texts), tables, profiles)


def _claims_section(
    claims: Sequence[ClaimResult],
    recipes: Mapping[tuple[str, str], Sequence[str]],
    figures: tuple[PageFigure, ...],
    style: NumberStyle,
) -> Section:
    """Return the section of published claims; those without a run are in a table that is closed at first."""
    measured = [row for row in claims if not has_no_runs(row)]
    untested = [row for row in claims if has_no_runs(row)]
    tables = [PageTable("verdicts", _verdicts_table(claims))]
    if measured:
        table = _claims_table("Claims with runs", measured, recipes, style)
        tables.append(PageTable("claims-table", table, recipes=_recipes_of_claims(measured, recipes)))
    if untested:
        count = "1 claim has" if len(untested) == 1 else f"{len(untested)} claims have"
        table = _claims_table("Claims without a run", untested, recipes, style)
        named = _recipes_of_claims(untested, recipes)
        tables.append(PageTable("untested-claims-table", table, fold=f"{count} no run here", recipes=named))
    return Section("claims", "Published claims", _CLAIMS_TEXTS, tuple(tables), figures)


def _recipes_of_claims(
    claims: Sequence[ClaimResult], recipes: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(recipes.get((row.rule, row.entry.id), ())) for row in claims)


_CLAIMS_TEXTS = (
    (
        "A claim is a published result of a rule. It is compared with each of our settings that meets the published"
        " conditions, over all seeds of the setting."
    ),
    (
        f"{VERDICTS_EXPLAINED} Untested: there are fewer than {MINIMUM_VALUES} seeds, or the entry says why it is not"
        " measured."
    ),
)


def _verdicts_table(claims: Sequence[ClaimResult]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for rule in sorted({row.rule for row in claims}):
        words: list[str] = [row.word for row in claims if row.rule == rule]
        rows.append((rule, *(words.count(word) for word in VERDICTS)))
    return Table(
        "At a glance",
        "Number of published results by verdict. A result counts once for each setting that meets its conditions.",
        (Column("rule"), *(Column(word, numeric=True) for word in VERDICTS)),
        tuple(rows),
    )


def _claims_table(
    title: str, claims: Sequence[ClaimResult], recipes: Mapping[tuple[str, str], Sequence[str]], style: NumberStyle
) -> Table:
    with_reference = any(row.reference is not None for row in claims)
    columns = (
        Column("claim"),
        Column("rule"),
        Column("statement"),
        Column("published"),
        Column("measured", numeric=True),
        Column("seeds", numeric=True),
        Column("verdict"),
        *((Column("reference"),) if with_reference else ()),
        Column("recipe"),
    )
    caption = f"{style.caption([row.verdict.interval for row in claims if row.verdict])} To run the recipe of a claim:"
    caption = f"{caption} plastic sweep RECIPE.".strip()
    caption += f" {REFERENCE_EXPLAINED}" if with_reference else ""
    caption += data_notes(row.group for row in claims if row.group is not None)
    rows = [_claim_row(row, recipes, style) for row in claims]
    if with_reference:
        shipped = [reference_cell(row, quantity(row.entry, row.rule), style) for row in claims]
        rows = [(*cells[:-1], cell, cells[-1]) for cells, cell in zip(rows, shipped, strict=True)]
    return Table(title, caption, columns, tuple(rows))


def _claim_row(
    row: ClaimResult, recipes: Mapping[tuple[str, str], Sequence[str]], style: NumberStyle
) -> tuple[Cell, ...]:
    claim, verdict = row.entry, row.verdict
    metric = quantity(claim, row.rule) or Metric("")
    address = web_address(claim.link)
    identity = PageCell(claim.id, sort=claim.id, dataset=str(claim.conditions.get("dataset") or ""))
    if isinstance(claim, Unmeasured):
        words = claim.words or (style.figure(claim.value, 0.0, metric) if claim.value is not None else "")
        published = PageCell(words, style.heading(metric), words, address=address, source=claim.source)
        return (identity, row.rule, claim.statement, published, None, 0, Detailed("untested", claim.unmeasured), None)
    assert isinstance(claim, Claim)
    assert verdict is not None
    details = (
        f"Unsupported: {claim.unsupported}" if claim.unsupported else "",
        f"Our setting: {row.group.setting}" if row.group and row.group.setting else "",
        f"Measured by: plastic {claim.command}" if claim.stage else "",
    )
    return (
        identity,
        row.rule,
        Detailed(claim.statement, ". ".join(detail for detail in details if detail)),
        PageCell(
            claim.words or claim_figure(claim, row.rule, style),
            f"{style.heading(metric)}; {_tolerance_text(claim, row.rule, style)}",
            repr(claim.value),
            address=address,
            source=claim.source,
        ),
        style.estimate(verdict.interval, metric),
        PageCell(seeds_text(verdict), sort=str(verdict.interval.n)),
        Detailed(verdict.word, "" if verdict.word == "reproduced" else verdict.reason or ""),
        recipe_cell(recipes.get((row.rule, claim.id), ())),
    )


def _tolerance_text(claim: Claim, rule: str, style: NumberStyle) -> str:
    if claim.words:
        return f"compared with {claim_figure(claim, rule, style)}, our own line: {claim.reason}"
    return f"band: {claim.reason}"


def _comparison_tables(comparison: Comparison, style: NumberStyle) -> list[PageTable]:
    tables = [PageTable(f"iqm-{comparison.name}", iqm_table(comparison, style), comparison.datasets)]
    if comparison.improvements:
        name = f"improvement-{comparison.name}"
        tables.append(PageTable(name, improvement_table(comparison), comparison.datasets))
    return tables


def _with_links(table: Table, links: Mapping[str, str | None]) -> Table:
    """Return a table whose first cells are ids and whose last cells are sources, with a link in each last cell."""
    rows = tuple(
        (*row[:-1], PageCell("", sort=str(row[-1]), address=web_address(links.get(str(row[0]))), source=str(row[-1])))
        for row in table.rows
    )
    return replace(table, rows=rows)
