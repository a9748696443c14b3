"""Tables in a terminal: no number, heading or note is cut.

A table that is too wide for the terminal loses its optional columns, and its caption names them. If it is still too
wide, each row becomes a paragraph: what the row is about, and then "heading: content" for the other columns.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from plastic_cli.escapes import printable_line
from plastic_cli.tables import NOTHING, Cell, Table, cell_text, is_number, text_and_detail

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

CAPTION_WIDTH = 100
"""A caption has no longer lines, because they are hard to read."""

_UNLIMITED = 10_000

_LONG_TEXT, _NARROWEST_LONG_TEXT = 30, 14
"""A column with a text longer than the first number is at least as wide as the second."""

_LONGEST_WORD = 20
"""A word up to this length is not broken in a column."""

_GAP = 2

_PIECE = re.compile(r"\S+ [=±] \S+|\[[^][ ]+ [^][ ]+\](?: \(n=\d+\))?|\S+")

_STYLES = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", NOTHING: "dim"}


def print_tables(tables: Sequence[Table], file: TextIO | None = None) -> None:
    """Print tables, in a terminal to its width and in a pipe as wide as they need. file: default stdout."""
    from rich.console import Console

    stream = sys.stdout if file is None else file
    width = Console(file=stream).width if stream.isatty() else None
    console = Console(file=stream, width=width or _UNLIMITED, highlight=False, markup=False, force_jupyter=False)
    # Captured, because rich exits the program if the reader closes the pipe.
    with console.capture() as captured:
        for index, table in enumerate(tables):
            if index:
                console.print()
            console.print(drawn(table, width))
    stream.write(_without_trailing_spaces(captured.get()))


def table_text(table: Table, width: int | None) -> str:
    """Return a table as plain text for a terminal of `width` columns; None: as wide as it needs."""
    from rich.console import Console

    console = Console(width=width or _UNLIMITED, highlight=False, markup=False, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        console.print(drawn(table, width))
    return _without_trailing_spaces(captured.get())


def drawn(table: Table, width: int | None = None) -> Group:
    """Return the table for a terminal of `width` columns; None: as wide as it needs."""
    from rich.console import Group
    from rich.text import Text

    lines, left_out = _rows(table, width)
    title, caption = printable_line(table.title), printable_line(table.caption)
    for note in (column.note for column in table.columns if column.note and column.heading in left_out):
        caption = " ".join(caption.replace(printable_line(note), "").split())
    if left_out:
        caption = f"{caption} Left out to fit: {', '.join(left_out)}.".strip()
    above = [*(Text(line, "bold") for line in wrapped(title, width or _UNLIMITED)), Text("")] if title else []
    narrow = min(width or CAPTION_WIDTH, CAPTION_WIDTH)
    below = [Text(""), *(Text(line, "dim italic") for line in wrapped(caption, narrow))] if caption else []
    return Group(*above, *lines, *below)


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text; where there is room, "name = value" and "[low, high]" stay whole."""
    return _filled(_PIECE.findall(text), width) or [""]


def _filled(pieces: Sequence[str], width: int, space: str = " ") -> list[str]:
    """Return lines with as many whole pieces as fit; a piece that is longer than a line is broken."""
    lines: list[str] = []
    for piece in pieces:
        joined = f"{lines[-1]}{space}{piece}" if lines else piece
        if lines and _cells(joined) <= width:
            lines[-1] = joined
        elif _cells(piece) <= width:
            lines.append(piece)
        else:
            # An interval stays whole if it fits into a line of its own.
            parts = _PIECE.findall(piece)
            parts = parts if len(parts) > 1 else piece.split()
            lines += _filled(parts, width) if len(parts) > 1 else _broken(piece, width)
    return lines


def _broken(word: str, width: int) -> list[str]:
    """Return the lines of a word: broken after slashes and commas, and where that is not enough anywhere."""
    from rich.cells import chop_cells

    parts = [chopped for part in re.findall(r"[^/,]*[/,]|[^/,]+", word) for chopped in chop_cells(part, width)]
    return _filled(parts, width, "")


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _without_trailing_spaces(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


# ------------------------------------------------------------------------------------------------------------ columns


@dataclass(frozen=True)
class _Column:
    """A column: for each cell its text and, if it has one, its detail, which is shown below.

    natural: the width that it needs without broken lines. least: the width in which it can be read. lines: the most
    lines of a cell while an optional column is shown.
    """

    heading: str
    numeric: bool
    optional: bool
    cells: list[list[str]]
    natural: int
    least: int
    lines: int | None


def _columns(table: Table, *, beside: bool) -> list[_Column]:
    """Return the columns. beside: the detail of a number is next to it, and not below."""
    built = []
    for index, column in enumerate(table.columns):
        heading = printable_line(column.heading)
        cells = [_lines(row[index], beside=beside) for row in table.rows]
        lines = [line for cell in cells for line in cell]
        longest = max(map(_cells, (heading, *lines)))
        of_heading = max(map(_cells, heading.split()), default=0)
        if column.numeric or column.whole:
            # The words of a heading may be in several lines, a number may not.
            natural, least = longest, max(of_heading, *map(_cells, lines), 0)
        else:
            words = max((_cells(word) for line in lines for word in re.findall(r"\S+ ± \S+|\S+", line)), default=0)
            natural = longest if table.wrap is None else max(of_heading, min(longest, table.wrap))
            narrowest = _NARROWEST_LONG_TEXT if longest > _LONG_TEXT else 0
            least = min(natural, max(of_heading, min(words, _LONGEST_WORD), narrowest))
        built.append(_Column(heading, column.numeric, column.optional, cells, natural, least, column.lines))
    return built


def _lines(cell: Cell, *, beside: bool) -> list[str]:
    if beside and is_number(cell):
        return [cell_text(cell)]
    return [part for part in text_and_detail(cell) if part] or [""]


def _total(widths: Sequence[int]) -> int:
    """Return the width of a line, with one space at its beginning."""
    return 1 + sum(widths) + _GAP * (len(widths) - 1)


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the widths of the columns: first headings of numbers are broken, then the widest texts, until all fit."""
    widths = [column.natural for column in columns]
    while _total(widths) > width:
        able = [index for index, column in enumerate(columns) if widths[index] > column.least]
        widths[max(able, key=lambda index: (columns[index].numeric, widths[index]))] -= 1
    return widths


# --------------------------------------------------------------------------------------------------------------- rows


def _rows(table: Table, width: int | None) -> tuple[list[Text], list[str]]:
    """Return the lines of the table and the headings of the columns that are left out."""
    columns = _columns(table, beside=True)
    natural = [column.natural for column in columns]
    if width is None or _total(natural) <= width:
        return _aligned(table, columns, natural), []
    columns = _columns(table, beside=False)
    left_out: list[str] = []
    while (too_wide := _total([column.least for column in columns]) > width) or _has_tall_cells(columns, width):
        optional = [column for column in columns if column.optional]
        if not optional and too_wide:
            return _paragraphs(table, width), []
        if not optional:
            break
        columns.remove(optional[-1])
        left_out.insert(0, optional[-1].heading)
    return _aligned(table, columns, _widths(columns, width)), left_out


def _has_tall_cells(columns: Sequence[_Column], width: int) -> bool:
    """Return whether a cell has more lines than its column allows, and fewer if the column is wider."""
    return any(
        len(wrapped(text, own)) > max(column.lines, len(wrapped(text, column.natural)))
        for column, own in zip(columns, _widths(columns, width), strict=True)
        if column.lines is not None
        for cell in column.cells
        for text in cell
    )


def _aligned(table: Table, columns: Sequence[_Column], widths: Sequence[int]) -> list[Text]:
    from rich.text import Text

    heads = [wrapped(column.heading, width) for column, width in zip(columns, widths, strict=True)]
    tall = max(map(len, heads), default=0)
    blank = [[""] * (tall - len(head)) + head for head in heads]
    lines = [_line(columns, widths, [(head[number], "bold") for head in blank]) for number in range(tall)]
    lines.append(Text(" " + "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (_total(widths) - 1)))
    for row in range(len(table.rows)):
        cells = []
        for column, width in zip(columns, widths, strict=True):
            text, *detail = column.cells[row]
            style = _STYLES.get(text, "")
            parts = [(line, style) for line in wrapped(text, width)]
            cells.append([*parts, *((line, "dim") for each in detail for line in wrapped(each, width))])
        lines += [
            _line(columns, widths, [cell[number] if number < len(cell) else ("", "") for cell in cells])
            for number in range(max(map(len, cells), default=0))
        ]
    return lines


def _line(columns: Sequence[_Column], widths: Sequence[int], parts: Sequence[tuple[str, str]]) -> Text:
    from rich.text import Text

    # Text, not str: what a user named must not be read as markup.
    line = Text(" ")
    for index, (column, width, (text, style)) in enumerate(zip(columns, widths, parts, strict=True)):
        space = " " * (width - _cells(text))
        line.append(" " * _GAP if index else "")
        line.append(space if column.numeric else "").append(text, style).append("" if column.numeric else space)
    return line


def _paragraphs(table: Table, width: int) -> list[Text]:
    """Return each row as a paragraph that fits any width."""
    from rich.text import Text

    named = [index for index, column in enumerate(table.columns) if column.names_row] or [0]
    lines: list[Text] = []
    for row in table.rows:
        name = " \N{MIDDLE DOT} ".join(cell_text(row[index]) for index in named if row[index] is not None)
        lines += [Text(""), *(Text(f" {line}", "bold") for line in wrapped(name, width - 1))]
        items = [
            f"{printable_line(column.heading)}: {cell_text(row[index])}"
            for index, column in enumerate(table.columns)
            if index not in named and row[index] is not None
        ]
        lines += [Text(f"   {line}") for line in _filled(items, width - 3, "   ")]
    return lines[1:]
