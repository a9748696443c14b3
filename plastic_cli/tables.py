"""Tables for a reader, as text, Markdown and HTML; `terminal_tables` prints them in a terminal."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape
from typing import Protocol

from plastic_cli.escapes import printable_line

NOTHING = "\N{EN DASH}"
"""The text of a cell without content."""

NOTE_MARK = "*"
"""Stands after the name of data, or after a result, that a note is about."""


class Estimate(Protocol):
    """A mean with its interval, such as `plastic_cli.statistics.intervals.Interval`."""

    @property
    def mean(self) -> float:
        """The mean."""

    @property
    def low(self) -> float:
        """The lower bound."""

    @property
    def high(self) -> float:
        """The upper bound."""

    @property
    def n(self) -> int:
        """The number of values."""

    @property
    def dropped(self) -> int:
        """The number of values that are not finite and do not count."""

    @property
    def known(self) -> bool:
        """Whether there are bounds."""


@dataclass(frozen=True)
class Detailed:
    """A text with a detail, which is shown in brackets, or below the text in a terminal."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Number(Detailed):
    """A number as text, with its interval or deviation as the detail. value: the number itself."""

    value: float = math.nan


Cell = str | int | float | Detailed | Estimate | None


@dataclass(frozen=True)
class Column:
    """The heading of a column.

    numeric: its cells are numbers. optional: a narrow terminal leaves it out. names_row: its cells say what the row is
    about. whole: its cells are never broken into lines, as the ids of runs. lines: a narrow terminal leaves optional
    columns out before it breaks a cell of this column into more lines. note: the sentence of the caption that explains
    the column; it is left out with the column.
    """

    heading: str
    numeric: bool = False
    optional: bool = False
    names_row: bool = False
    whole: bool = False
    lines: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table for a reader. wrap: in a terminal, a cell of text has lines of this many characters at most."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    wrap: int | None = 48


def number_text(value: float) -> str:
    """Return a number with four significant digits: 0.9283, 12.30, 168.0, 1.234e-05."""
    if not math.isfinite(value):
        return NOTHING
    if value == 0 or 1e4 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:#.4g}".removesuffix(".")


def with_prefix(value: float, unit: str = "") -> str:
    """Return a number of 0 or more with four significant digits and an SI prefix: 253.5 GFLOP, 9.66 kB, 11.88 M, 22."""
    prefix = ""
    for following in "kMGTPE":
        # What would be rounded to 1000 gets the next prefix.
        if float(f"{value:.4g}") < 1000:
            break
        value, prefix = value / 1000, following
    return f"{value:.4g} {prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Return a time in a readable unit: 0.3 s, 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def cell_text(cell: Cell) -> str:
    """Return a cell as plain text; an interval as "mean [low, high]"."""
    text, detail = text_and_detail(cell)
    if not detail:
        return text
    return f"{text} {detail}" if is_number(cell) else f"{text} ({detail})"


def markdown(table: Table) -> str:
    """Return the table as GitHub-flavored Markdown, with the title above and the caption below."""
    lines = [
        *([f"### {_markdown_text(table.title)}", ""] if table.title else []),
        _markdown_row([_markdown_text(column.heading) for column in table.columns]),
        _markdown_row(["---:" if column.numeric else "---" for column in table.columns]),
        *(_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows),
        *(["", _markdown_text(table.caption)] if table.caption else []),
    ]
    return "\n".join(lines) + "\n"


def html(table: Table) -> str:
    """Return the table as an HTML element with the title above and the caption below, for a notebook."""

    def row(tag: str, texts: list[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {"right" if column.numeric else "left"}">{text}</{tag}>'
            for column, text in zip(table.columns, texts, strict=True)
        )

    lines = [
        f"<h4>{escape(printable_line(table.title))}</h4>" if table.title else "",
        "<table><thead>",
        row("th", [escape(printable_line(column.heading)) for column in table.columns]),
        "</thead><tbody>",
        *(row("td", [escape(cell_text(cell)) for cell in cells]) for cells in table.rows),
        "</tbody></table>",
        f"<p><small>{escape(printable_line(table.caption))}</small></p>" if table.caption else "",
    ]
    return "\n".join(line for line in lines if line)


def _markdown_text(text: str) -> str:
    escaped = re.sub(r"([\\`*_|<>\[\]~$#])", r"\\\1", printable_line(re.sub(r"\s+", " ", text)))
    return escaped.replace("&", "&amp;")


def _markdown_cell(cell: Cell) -> str:
    # Square brackets of an interval need no escape.
    return cell_text(cell) if is_number(cell) else _markdown_text(cell_text(cell))


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text_and_detail(cell: Cell) -> tuple[str, str]:
    """Return the text of a cell and its detail, which for an interval is its bounds."""
    if cell is None:
        return NOTHING, ""
    if isinstance(cell, Detailed):
        return printable_line(cell.text), printable_line(cell.detail)
    if isinstance(cell, float):
        return number_text(cell), ""
    if isinstance(cell, str | int):
        return printable_line(str(cell)), ""
    bounds = [f"[{number_text(cell.low)}, {number_text(cell.high)}]"] if cell.known else []
    # The number of values is shown only if it differs from the number of runs.
    count = [f"(n={cell.n})"] if cell.dropped else []
    return number_text(cell.mean), " ".join(bounds + count)


def is_number(cell: Cell) -> bool:
    """Return whether a cell is a number, alone or with its interval."""
    return isinstance(cell, Number) or (cell is not None and not isinstance(cell, str | Detailed))
