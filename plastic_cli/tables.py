"""Tables for a reader, printed in a terminal or written as Markdown."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from plastic_cli.escapes import printable_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOTHING = "\N{EN DASH}"
"""The text of a cell without content."""


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


Cell = str | int | float | Detailed | Estimate | None


@dataclass(frozen=True)
class Column:
    """The heading of a column. numeric: its cells are numbers. optional: a narrow terminal leaves it out."""

    heading: str
    numeric: bool = False
    optional: bool = False


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
    return f"{text} ({detail})" if isinstance(cell, Detailed) else f"{text} {detail}"


def rich_table(table: Table, width: int | None = None) -> RichTable:
    """Return the table for a terminal of `width` columns; None: as wide as it needs.

    A detail is below its text. Optional columns are left out, from the right, until the words of the others fit;
    the caption names them.
    """
    from rich.console import Console
    from rich.measure import Measurement

    indices = list(range(len(table.columns)))
    if width is None:
        return _rich_table(table, indices, [], whole_words=True)
    # Measured without a limit: rich would cut the measure to the width of its console.
    console = Console(width=10_000)
    optional = [index for index in indices if table.columns[index].optional]
    left_out: list[str] = []
    while True:
        built = _rich_table(table, indices, left_out, whole_words=True)
        if Measurement.get(console, console.options, built).minimum <= width:
            return built
        if not optional:
            return _rich_table(table, indices, left_out, whole_words=False)
        index = optional.pop()
        indices.remove(index)
        left_out.insert(0, printable_line(table.columns[index].heading))


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables, in a terminal to its width and in a pipe as wide as they need."""
    from rich.console import Console

    width = Console().width if sys.stdout.isatty() else None
    console = Console(width=width or 10_000, highlight=False, markup=False)
    # Captured, because rich exits the program if the reader closes the pipe.
    with console.capture() as captured:
        for index, table in enumerate(tables):
            if index:
                console.print()
            console.print(rich_table(table, width))
    sys.stdout.write(captured.get())


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


def _rich_table(table: Table, indices: list[int], left_out: list[str], *, whole_words: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    built = RichTable(
        title=printable_line(table.title) or None,
        caption=printable_line(table.caption + (f" Left out to fit: {', '.join(left_out)}." if left_out else ""))
        or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index in indices:
        column = table.columns[index]
        heading = printable_line(column.heading)
        texts = [heading, *(cell_text(row[index]) for row in table.rows)]
        longest = max((len(word) for text in texts for word in text.split()), default=0)
        built.add_column(
            heading,
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric,
            # Without this rich breaks words of one column to make room for the next.
            min_width=min(longest, 20) if whole_words and not column.numeric else None,
            max_width=None if column.numeric else table.wrap,
        )
    for row in table.rows:
        cells = []
        for index in indices:
            text, detail = text_and_detail(row[index])
            # Text, not str: what a user named must not be read as markup.
            cell = Text(text, style=_style(row[index]))
            cells.append(cell.append(f"\n{detail}", style="dim") if detail else cell)
        built.add_row(*cells)
    return built


def _markdown_text(text: str) -> str:
    escaped = re.sub(r"([\\`*_|<>\[\]~$#])", r"\\\1", printable_line(re.sub(r"\s+", " ", text)))
    return escaped.replace("&", "&amp;")


def _markdown_cell(cell: Cell) -> str:
    # Square brackets of an interval need no escape.
    return cell_text(cell) if _is_number(cell) else _markdown_text(cell_text(cell))


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


def _is_number(cell: Cell) -> bool:
    return cell is not None and not isinstance(cell, str | Detailed)


def _style(cell: Cell) -> str:
    text, _ = text_and_detail(cell)
    return {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", NOTHING: "dim"}.get(text, "")
