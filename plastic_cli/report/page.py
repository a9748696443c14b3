"""The report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from plastic_cli.report.claims import VERDICTS, Claim, Context, Unmeasured, Verdict
from plastic_cli.report.comparisons import Comparison, improvement_table, iqm_table, not_compared, unique_name
from plastic_cli.report.formats import NOTHING, number_text
from plastic_cli.report.grouping import data_notes
from plastic_cli.report.results import ClaimResult, Result
from plastic_cli.report.tables import (
    VERDICTS_EXPLAINED,
    Cell,
    Column,
    Detailed,
    Table,
    claim_figure,
    context_table,
    results_table,
    seeds_text,
)
from plastic_cli.statistics.intervals import MINIMUM_VALUES, Interval, interval_method

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True)
class PageFigure:
    """A figure for the page: an SVG with its title and description inside, as `svg_text` gives it."""

    name: str
    svg: str


@dataclass(frozen=True)
class _PageCell:
    text: str
    detail: str = ""
    sort: str = ""
    badge: str = ""
    code: tuple[str, ...] = ()
    link: str = ""
    link_text: str = ""


@dataclass(frozen=True)
class _PageTable:
    """A table of the page; header is the column that names a row."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[_PageCell, ...], ...]
    header: int = 0


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
    tables: tuple[_PageTable, ...] = ()
    figures: tuple[_DrawnFigure, ...] = ()


def page(
    results: Sequence[Result],
    judged: Sequence[ClaimResult],
    comparisons: Sequence[Comparison],
    figures: Sequence[PageFigure],
    *,
    recipes: Mapping[tuple[str, str], Sequence[str]],
    summary: str,
    version: str,
    notes: Sequence[str] = (),
) -> str:
    """Return the page.

    recipes: by rule and id of a claim the names of the recipes that test it. summary: a line about the runs that are
    reported. notes: what else a reader must know, such as runs that are not counted. Everything that comes from runs,
    rules and recipes is escaped.
    """
    environment = Environment(
        loader=PackageLoader("plastic_cli.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        title="Plasticity rules: published and measured",
        summary=summary,
        version=version,
        sections=_sections(results, judged, comparisons, figures, recipes, notes),
        # These two are ours and hold nothing that comes from elsewhere.
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def inline_svg(svg: str, name: str) -> Markup:
    """Return an SVG file as an element of a page: its ids begin with `name`, and it styles nothing but itself.

    The file is read as XML and written again without comments, metadata, scripts, event handlers and foreign content.
    """
    root = ElementTree.fromstring(svg)
    _strip(root)
    root.attrib.pop("width", None)
    height = root.attrib.pop("height", None)
    box = root.get("viewBox", "").split()
    if height is not None and len(box) == 4:
        # As wide as it was drawn: matplotlib's units are points.
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
    # From names without their namespace: in HTML the element says what it is.
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


def _sections(
    results: Sequence[Result],
    judged: Sequence[ClaimResult],
    comparisons: Sequence[Comparison],
    figures: Sequence[PageFigure],
    recipes: Mapping[tuple[str, str], Sequence[str]],
    notes: Sequence[str],
) -> list[_Section]:
    drawn: dict[str, _DrawnFigure] = {}
    for figure in figures:
        drawn[figure.name] = _drawn(figure, unique_name(figure.name, [each.name for each in drawn.values()]))
    profiles = tuple(
        drawn.pop(name) for comparison in comparisons if (name := f"performance-profile-{comparison.name}") in drawn
    )
    published = tuple(drawn.pop(name) for name in list(drawn) if name == "claims" or name.startswith("claims-"))
    claims = [row for row in judged if not isinstance(row.entry, Context)]
    # What was measured comes first; those without a run are many.
    claims.sort(key=lambda row: row.verdict is None or not row.verdict.interval.n)
    sections = []
    if claims:
        both = (_verdicts_table(claims), _claims_table(claims, recipes))
        sections.append(_Section("claims", "Published claims", _CLAIMS_TEXTS, both, published))
    if results:
        measured = _page_table("results-table", results_table(results))
        sections.append(_Section("results", "Results", tuple(notes), (measured,)))
    else:
        sections.append(_Section("results", "Results", (*notes, "There is no run to report yet.")))
    if comparisons:
        tables = tuple(itertools.chain.from_iterable(_comparison_tables(each) for each in comparisons))
        texts = [
            "What is compared may differ in more than its rule: the setting names every difference that was asked for."
        ]
        alone = not_compared(results, comparisons)
        if alone:
            texts.append(f"{_counted(alone, 'result')} alone on a data set and metric, and so in no comparison.")
        sections.append(_Section("comparisons", "Comparisons", tuple(texts), tables, profiles))
    if drawn:
        sections.append(_Section("figures", "Figures", figures=tuple(drawn.values())))
    others = context_table(judged)
    if others.rows:
        links = {row.entry.id: row.entry.link for row in judged if isinstance(row.entry, Context)}
        sections.append(_Section("others", "Other methods", tables=(_page_table("others-table", others, links),)))
    return sections


_CLAIMS_TEXTS = (
    (
        "A claim is a result that was published about a rule. It is compared with every setting of ours that meets the"
        " published conditions, over all its seeds."
    ),
    (
        f"{VERDICTS_EXPLAINED} Untested: there are fewer than {MINIMUM_VALUES} seeds, or the entry says why nothing is"
        " measured."
    ),
)


def _verdicts_table(claims: Sequence[ClaimResult]) -> _PageTable:
    rows = []
    for rule in sorted({row.rule for row in claims}):
        words: list[str] = [row.word for row in claims if row.rule == rule]
        counts = [words.count(word) for word in VERDICTS]
        rows.append((_text_cell(rule), *(_PageCell(str(count), sort=str(count)) for count in counts)))
    return _PageTable(
        "verdicts",
        "At a glance",
        "How many published results have which verdict. A result counts once for each setting that it is about.",
        (Column("rule"), *(Column(word, numeric=True) for word in VERDICTS)),
        tuple(rows),
    )


def _claims_table(claims: Sequence[ClaimResult], recipes: Mapping[tuple[str, str], Sequence[str]]) -> _PageTable:
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
    rows = []
    for row in claims:
        claim, verdict = row.entry, row.verdict
        if isinstance(claim, Unmeasured):
            rows.append(_unmeasured_row(row.rule, claim))
            continue
        assert isinstance(claim, Claim)
        assert verdict is not None
        statement = f"Unsupported: {claim.unsupported}" if claim.unsupported else ""
        setting = f"Our setting: {row.group.setting}" if row.group and row.group.setting else ""
        rows.append(
            (
                _text_cell(claim.id),
                _text_cell(row.rule),
                _PageCell(claim.statement, ". ".join(part for part in (statement, setting) if part), claim.statement),
                _PageCell(
                    claim.words or claim_figure(claim),
                    f"{claim.metric}; {_held_to(claim)}",
                    repr(claim.value),
                    link=_web_address(claim.link),
                    link_text=claim.source,
                ),
                _interval_cell(verdict.interval) if verdict.interval.n else _PageCell(NOTHING),
                _PageCell(seeds_text(verdict), sort=str(verdict.interval.n)),
                _verdict_cell(verdict),
                _recipe_cell(recipes.get((row.rule, claim.id), ())),
            )
        )
    caption = (
        f"Mean over the seeds; in brackets the {interval_method()}, given from {MINIMUM_VALUES} seeds on. What tests a"
        " claim is run by: plastic sweep RECIPE."
    )
    caption += data_notes(row.group for row in claims if row.group is not None)
    return _PageTable("claims-table", "Every claim", caption, columns, tuple(rows))


def _unmeasured_row(rule: str, entry: Unmeasured) -> tuple[_PageCell, ...]:
    published = entry.words or (f"{entry.value:g}" if entry.value is not None else "")
    return (
        _text_cell(entry.id),
        _text_cell(rule),
        _text_cell(entry.statement),
        _PageCell(published, entry.metric or "", published, link=_web_address(entry.link), link_text=entry.source),
        _PageCell(NOTHING),
        _PageCell("0", sort="0"),
        _PageCell("untested", entry.unmeasured, "untested", badge=_badge("untested")),
        _PageCell(NOTHING),
    )


def _held_to(claim: Claim) -> str:
    if claim.words:
        return f"compared with {claim_figure(claim)}, our own line: {claim.reason}"
    return f"band: {claim.reason}"


def _counted(number: int, noun: str) -> str:
    return f"1 {noun} stands" if number == 1 else f"{number} {noun}s stand"


def _comparison_tables(comparison: Comparison) -> list[_PageTable]:
    tables = [_page_table(f"iqm-{comparison.name}", iqm_table(comparison))]
    if comparison.improvements:
        tables.append(_page_table(f"improvement-{comparison.name}", improvement_table(comparison)))
    return tables


def _page_table(name: str, table: Table, links: Mapping[str, str | None] | None = None) -> _PageTable:
    rows = []
    for row in table.rows:
        cells = [_cell(cell) for cell in row]
        if links is not None:
            address = _web_address(links.get(cells[0].text))
            source = cells.pop()
            cells.append(_PageCell("", sort=source.text, link=address, link_text=source.text))
        rows.append(tuple(cells))
    return _PageTable(name, table.title, table.caption, table.columns, tuple(rows))


# ------------------------------------------------------------------------------------------------------------- cells


def _cell(cell: Cell) -> _PageCell:
    if cell is None:
        return _PageCell(NOTHING)
    if isinstance(cell, Interval):
        return _interval_cell(cell)
    if isinstance(cell, Detailed):
        return _PageCell(cell.text, cell.detail, cell.text, badge=_badge(cell.text))
    return _PageCell(str(cell), sort=str(cell), badge=_badge(str(cell)))


def _text_cell(text: str) -> _PageCell:
    return _PageCell(text, sort=text)


def _interval_cell(interval: Interval) -> _PageCell:
    bounds = f"[{number_text(interval.low)}, {number_text(interval.high)}]" if math.isfinite(interval.low) else ""
    count = f"n = {interval.n}" if interval.dropped else ""
    sort = repr(interval.mean) if math.isfinite(interval.mean) else ""
    return _PageCell(number_text(interval.mean), ", ".join(part for part in (bounds, count) if part), sort)


def _verdict_cell(verdict: Verdict) -> _PageCell:
    return _PageCell(
        verdict.word, "" if verdict.word == "reproduced" else verdict.reason, verdict.word, badge=_badge(verdict.word)
    )


def _recipe_cell(names: Sequence[str]) -> _PageCell:
    if not names:
        return _PageCell(NOTHING)
    return _PageCell("", sort=names[0], code=tuple(names))


def _badge(text: str) -> str:
    return text.replace(" ", "-") if text in VERDICTS else ""


def _web_address(address: str | None) -> str:
    """Return an address that is safe to follow, or nothing: a link must not run code."""
    return address if address and urlsplit(address).scheme in ("http", "https") else ""


def _drawn(figure: PageFigure, name: str) -> _DrawnFigure:
    root: Any = ElementTree.fromstring(figure.svg)
    title, description = (root.findtext(f"{_SVG}{tag}", "") for tag in ("title", "desc"))
    return _DrawnFigure(name, title, description, inline_svg(figure.svg, f"drawing-{name}"))
