"""The report as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from plastic_cli.reports.claims import VERDICTS, Claim, Context, Unmeasured
from plastic_cli.reports.comparisons import Comparison, improvement_table, iqm_table, not_compared, unique_name
from plastic_cli.reports.content import Content
from plastic_cli.reports.grouping import data_notes
from plastic_cli.reports.results import ClaimResult
from plastic_cli.reports.tables import VERDICTS_EXPLAINED, claim_figure, context_table, results_table, seeds_text
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, interval_method
from plastic_cli.tables import Cell, Column, Detailed, Table, text_and_detail

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True)
class PageFigure:
    """A figure for the page: an SVG that contains its title and description, as `svg_text` returns it."""

    name: str
    svg: str


@dataclass(frozen=True)
class PageCell(Detailed):
    """A cell of the page. sort: what the column is sorted by; code: commands; address and source: a link."""

    sort: str = ""
    code: tuple[str, ...] = ()
    address: str = ""
    source: str = ""

    @property
    def badge(self) -> str:
        """The CSS class of a verdict."""
        return self.text.replace(" ", "-") if self.text in VERDICTS else ""


@dataclass(frozen=True)
class _DrawnFigure:
    name: str
    title: str
    description: str
    svg: Markup


@dataclass(frozen=True)
class _Section:
    name: str
    heading: str
    texts: tuple[str, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    figures: tuple[_DrawnFigure, ...] = ()


def page(
    content: Content, figures: Sequence[PageFigure], recipes: Mapping[tuple[str, str], Sequence[str]], version: str
) -> str:
    """Return the page.

    recipes: by rule and id of a claim, the names of the recipes that test it. All text from runs, rules and recipes is
    escaped.
    """
    environment = Environment(
        loader=PackageLoader("plastic_cli.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["page_cell"] = page_cell
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        title="Plasticity rules: published and measured",
        summary=_summary(content.runs),
        version=version,
        sections=_sections(content, figures, recipes),
        # These two files come with plastic and contain no text of runs.
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def inline_svg(svg: str, name: str) -> Markup:
    """Return an SVG file as an element of a page, with ids that begin with `name`.

    The file is read as XML and written without comments, metadata, styles, scripts, event handlers and foreign content.
    """
    root = ElementTree.fromstring(svg)
    _strip(root)
    root.attrib.pop("width", None)
    height = root.attrib.pop("height", None)
    box = root.get("viewBox", "").split()
    if height is not None and len(box) == 4:
        # The width at which it was drawn; matplotlib uses points.
        root.set("width", f"{float(box[2]) * 4 / 3:.0f}")
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key in ("aria-labelledby", "aria-describedby"):
                element.set(key, " ".join(f"{name}-{part}" for part in value.split()))
            elif key == f"{_XLINK}href":
                del element.attrib[key]
                if value.startswith("#"):
                    element.set("href", f"#{name}-{value[1:]}")
                elif value.startswith("data:image/png;base64,"):
                    element.set("href", value)
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
        element.tag = element.tag.removeprefix(_SVG)
    # Names have no namespace, because HTML needs none.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _strip(element: ElementTree.Element) -> None:
    for key in list(element.attrib):
        if key.lower().startswith("on"):
            del element.attrib[key]
    for child in list(element):
        if not child.tag.startswith(_SVG) or child.tag.removeprefix(_SVG) in _UNWANTED:
            element.remove(child)
        else:
            _strip(child)


_UNWANTED = ("metadata", "script", "style", "foreignObject", "a", "animate", "set")


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


# ---------------------------------------------------------------------------------------------------------- sections


def _summary(runs: pd.DataFrame) -> str:
    """Return one sentence about the reported runs."""
    if runs.empty:
        return "No run to report yet."
    rules, datasets = sorted(set(runs["rule"])), sorted({str(name) for name in runs["dataset"].dropna()})
    newest = runs["started"].max() if runs["started"].notna().any() else None
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    summary = f"{counted} of {', '.join(rules)}" + (f" on {', '.join(datasets)}" if datasets else "")
    return summary + (f"; the newest is of {newest:%Y-%m-%d %H:%M} UTC." if newest is not None else ".")


def _sections(
    content: Content, figures: Sequence[PageFigure], recipes: Mapping[tuple[str, str], Sequence[str]]
) -> list[_Section]:
    comparisons = content.comparisons
    drawn: dict[str, _DrawnFigure] = {}
    for figure in figures:
        drawn[figure.name] = _drawn(figure, unique_name(figure.name, [each.name for each in drawn.values()]))
    profiles = tuple(
        drawn.pop(name) for comparison in comparisons if (name := f"performance-profile-{comparison.name}") in drawn
    )
    published = tuple(drawn.pop(name) for name in list(drawn) if name == "claims" or name.startswith("claims-"))
    claims = [row for row in content.judged if not isinstance(row.entry, Context)]
    # Claims with a measurement come first, because many have no run.
    claims.sort(key=lambda row: row.verdict is None or not row.verdict.interval.n)
    sections = []
    if claims:
        both = (("verdicts", _verdicts_table(claims)), ("claims-table", _claims_table(claims, recipes)))
        sections.append(_Section("claims", "Published claims", _CLAIMS_TEXTS, both, published))
    notes = (f"Not counted: {content.selection.not_counted}.",) if content.selection.not_counted else ()
    if content.results:
        measured = ("results-table", results_table(content.results))
        sections.append(_Section("results", "Results", notes, (measured,)))
    else:
        sections.append(_Section("results", "Results", (*notes, "There is no run to report yet.")))
    if comparisons:
        tables = tuple(itertools.chain.from_iterable(_comparison_tables(each) for each in comparisons))
        texts = ["Settings may differ in more than their rule. The setting names all options that differ."]
        alone = not_compared(content.results, comparisons)
        if alone:
            results = "1 result is" if alone == 1 else f"{alone} results are"
            texts.append(f"{results} not compared, because no other setting has the same data set and metric.")
        sections.append(_Section("comparisons", "Comparisons", tuple(texts), tables, profiles))
    if drawn:
        sections.append(_Section("figures", "Figures", figures=tuple(drawn.values())))
    others = context_table(content.judged)
    if others.rows:
        links = {row.entry.id: row.entry.link for row in content.judged if isinstance(row.entry, Context)}
        sections.append(_Section("others", "Other methods", tables=(("others-table", _with_links(others, links)),)))
    return sections


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


def _claims_table(claims: Sequence[ClaimResult], recipes: Mapping[tuple[str, str], Sequence[str]]) -> Table:
    columns = (
        Column("claim"),
        Column("rule"),
        Column("statement"),
        Column("published"),
        Column("measured", numeric=True),
        Column("seeds", numeric=True),
        Column("verdict"),
        Column("recipe"),
    )
    caption = (
        f"Mean over the seeds. In brackets: {interval_method()}, from {MINIMUM_VALUES} seeds on. To run the recipe of a"
        " claim: plastic sweep RECIPE."
    )
    caption += data_notes(row.group for row in claims if row.group is not None)
    return Table("Every claim", caption, columns, tuple(_claim_row(row, recipes) for row in claims))


def _claim_row(row: ClaimResult, recipes: Mapping[tuple[str, str], Sequence[str]]) -> tuple[Cell, ...]:
    claim, verdict = row.entry, row.verdict
    address = _web_address(claim.link)
    if isinstance(claim, Unmeasured):
        words = claim.words or (f"{claim.value:g}" if claim.value is not None else "")
        published = PageCell(words, claim.metric or "", words, address=address, source=claim.source)
        return (claim.id, row.rule, claim.statement, published, None, 0, Detailed("untested", claim.unmeasured), None)
    assert isinstance(claim, Claim)
    assert verdict is not None
    details = (
        f"Unsupported: {claim.unsupported}" if claim.unsupported else "",
        f"Our setting: {row.group.setting}" if row.group and row.group.setting else "",
    )
    return (
        claim.id,
        row.rule,
        Detailed(claim.statement, ". ".join(detail for detail in details if detail)),
        PageCell(
            claim.words or claim_figure(claim),
            f"{claim.metric}; {_tolerance_text(claim)}",
            repr(claim.value),
            address=address,
            source=claim.source,
        ),
        verdict.interval if verdict.interval.n else None,
        PageCell(seeds_text(verdict), sort=str(verdict.interval.n)),
        Detailed(verdict.word, "" if verdict.word == "reproduced" else verdict.reason or ""),
        _recipe_cell(recipes.get((row.rule, claim.id), ())),
    )


def _tolerance_text(claim: Claim) -> str:
    if claim.words:
        return f"compared with {claim_figure(claim)}, our own line: {claim.reason}"
    return f"band: {claim.reason}"


def _comparison_tables(comparison: Comparison) -> list[tuple[str, Table]]:
    tables = [(f"iqm-{comparison.name}", iqm_table(comparison))]
    if comparison.improvements:
        tables.append((f"improvement-{comparison.name}", improvement_table(comparison)))
    return tables


def _with_links(table: Table, links: Mapping[str, str | None]) -> Table:
    """Return a table whose first cells are ids and whose last cells are sources, with a link in each last cell."""
    rows = tuple(
        (*row[:-1], PageCell("", sort=str(row[-1]), address=_web_address(links.get(str(row[0]))), source=str(row[-1])))
        for row in table.rows
    )
    return replace(table, rows=rows)


# ------------------------------------------------------------------------------------------------------------- cells


def page_cell(cell: Cell) -> PageCell:
    """Return any cell of a table as a cell of the page."""
    if isinstance(cell, PageCell):
        return cell
    text, detail = text_and_detail(cell)
    if isinstance(cell, Interval):
        return PageCell(text, detail, repr(cell.mean) if math.isfinite(cell.mean) else "")
    return PageCell(text, detail, "" if cell is None else text)


def _recipe_cell(names: Sequence[str]) -> Cell:
    return PageCell("", sort=names[0], code=tuple(names)) if names else None


def _web_address(address: str | None) -> str:
    """Return a web address, or "" for anything else: a link must not run code."""
    return address if address and urlsplit(address).scheme in ("http", "https") else ""


def _drawn(figure: PageFigure, name: str) -> _DrawnFigure:
    root: Any = ElementTree.fromstring(figure.svg)
    title, description = (root.findtext(f"{_SVG}{tag}", "") for tag in ("title", "desc"))
    return _DrawnFigure(name, title, description, inline_svg(figure.svg, f"drawing-{name}"))
