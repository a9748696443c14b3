"""Tables of HTML that a reader can sort and filter, for the page of the report and for the documentation site."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from plastic_cli.reports.claims import VERDICTS
from plastic_cli.statistics.intervals import Interval
from plastic_cli.tables import NOTE_MARK, NOTHING, Cell, Detailed, Number, Table, text_and_detail

SETTING_COLUMNS = ("setting", "first", "second")
"""Headings of the columns whose cells are settings."""
WIDE_COLUMNS = (*SETTING_COLUMNS, "how to run it")
"""Headings of the columns that need room."""

_LONGEST_UNBROKEN = 36


@dataclass(frozen=True)
class PageCell(Detailed):
    """A cell of the page.

    sort: what the column is sorted by; code: commands; address and source: a link; dataset: that of the whole row.
    """

    sort: str = ""
    dataset: str = ""
    code: tuple[str, ...] = ()
    address: str = ""
    source: str = ""

    @property
    def badge(self) -> str:
        """The CSS class of a verdict."""
        return self.text.replace(" ", "-") if self.text in VERDICTS else ""

    @property
    def sorts_by_text(self) -> bool:
        """Whether the text that the cell shows is what it is sorted by, so that it needs no other."""
        if self.detail or self.source:
            return False
        if self.code:
            return " ".join(self.code).startswith(self.sort)
        return " ".join(self.text.split()) == (self.sort or NOTHING)


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    name: its id, of letters, digits and hyphens. datasets: those of all its rows. fold: words that open a table which
    is closed at first. recipes: for each row, the recipes that have it; controls: for each row, whether it is a
    control; the filters of the page use both. sorted_by: the heading of the column by which the rows are in order.
    framed: the table scrolls in a frame of its own, in which headings and names of rows stay in place.
    """

    name: str
    table: Table
    datasets: tuple[str, ...] = ()
    fold: str = ""
    recipes: tuple[tuple[str, ...], ...] | None = None
    controls: tuple[bool, ...] | None = None
    sorted_by: str = ""
    framed: bool = False

    def __post_init__(self) -> None:
        """Check what a style names."""
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a table")


def page_environment() -> Environment:
    """Return the environment of the templates, in which all text from runs, rules and recipes is escaped."""
    environment = Environment(
        loader=PackageLoader("plastic_cli.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"page_cell": page_cell, "rules_of": rules_of, "datasets_of": datasets_of, "json": _json}
    environment.filters["css_text"] = css_text
    environment.globals["wide"] = WIDE_COLUMNS
    return environment


def template_text(environment: Environment, *names: str) -> str:
    """Return the text of styles or scripts, one after the other; they come with plastic and hold no text of runs."""
    assert environment.loader is not None
    return "\n".join(environment.loader.get_source(environment, name)[0] for name in names)


def table_html(table: PageTable) -> str:
    """Return one table with its style, its filters and its script, to be put into a page of another program."""
    environment = page_environment()
    return environment.get_template("alone.html").render(
        each=table,
        style=Markup(template_text(environment, "table.css")),
        script=Markup(template_text(environment, "table.js")),
    )


# ------------------------------------------------------------------------------------------------------------- cells


def page_cell(cell: Cell, heading: str) -> PageCell:
    """Return any cell of a table as a cell of the page. heading: that of its column."""
    if isinstance(cell, PageCell):
        return cell
    text, detail = text_and_detail(cell)
    if heading in SETTING_COLUMNS:
        # A line may end between two fields, and not between a name and its value.
        return PageCell(", ".join(_unbroken(field) for field in text.split(", ")), detail, text)
    if isinstance(cell, Interval | Number):
        value = cell.mean if isinstance(cell, Interval) else cell.value
        return PageCell(text, detail, repr(value) if math.isfinite(value) else "")
    return PageCell(text, detail, "" if cell is None else text)


def _unbroken(field: str) -> str:
    return field.replace(" ", "\N{NO-BREAK SPACE}") if len(field) <= _LONGEST_UNBROKEN else field


def recipe_cell(names: Sequence[str]) -> Cell:
    """Return the cell of some recipes."""
    return PageCell("", sort=names[0], code=tuple(names)) if names else None


def web_address(address: str | None) -> str:
    """Return a web address, or "" for anything else: a link must not run code."""
    return address if address and urlsplit(address).scheme in ("http", "https") else ""


def css_text(text: str) -> Markup:
    """Return a text as a string of CSS. All but plain letters and digits is written as codes, so nothing ends it."""
    codes = (each if each.isascii() and each.isalnum() else f"\\{ord(each):x} " for each in text)
    return Markup('"' + "".join(codes) + '"')


# ----------------------------------------------------------------------------------------------------------- filters


def rules_of(row: Sequence[Cell], table: Table) -> list[str]:
    """Return the rules of a row, for the filter of the page."""
    named = dict(zip((column.heading for column in table.columns), row, strict=True))
    rules = [text_and_detail(named["rule"])[0]] if "rule" in named else []
    return rules + [str(named[name]).partition(":")[0] for name in ("first", "second") if name in named]


def datasets_of(row: Sequence[Cell], table: Table) -> list[str]:
    """Return the data sets of a row, for the filter of the page."""
    own = [cell.dataset for cell in row if isinstance(cell, PageCell) and cell.dataset]
    headings = [column.heading for column in table.columns]
    if "data set" in headings and (cell := row[headings.index("data set")]) is not None:
        own.append(text_and_detail(cell)[0].removesuffix(NOTE_MARK))
    return own


def _json(values: Sequence[str] | None) -> str:
    return "" if values is None else json.dumps(list(values))
