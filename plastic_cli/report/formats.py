"""Renderings of a table: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plastic_cli.escapes import printable_line
from plastic_cli.report.grouping import plain_value
from plastic_cli.report.tables import Cell, Column, Detailed, Table
from plastic_cli.statistics.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

NOTHING = "\N{EN DASH}"
"""What stands in a cell without content."""

LATEX_LINES = 34
"""Lines of a table on one page, below its caption, in the narrowest of the standard classes."""

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau phi chi psi omega"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\`{}",
    # A row that begins with one of these would be read as an argument of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\textellipsis{}",
    "\N{LEFT DOUBLE QUOTATION MARK}": r"\textquotedblleft{}",
    "\N{RIGHT DOUBLE QUOTATION MARK}": r"\textquotedblright{}",
    "\N{LEFT SINGLE QUOTATION MARK}": r"\textquoteleft{}",
    "\N{RIGHT SINGLE QUOTATION MARK}": r"\textquoteright{}",
    "\N{PLUS-MINUS SIGN}": r"\ensuremath{\pm}",
    "\N{MULTIPLICATION SIGN}": r"\ensuremath{\times}",
    "\N{MIDDLE DOT}": r"\ensuremath{\cdot}",
    "\N{LESS-THAN OR EQUAL TO}": r"\ensuremath{\leq}",
    "\N{GREATER-THAN OR EQUAL TO}": r"\ensuremath{\geq}",
    "\N{DEGREE SIGN}": r"\ensuremath{^{\circ}}",
    **{
        unicodedata.lookup(f"GREEK SMALL LETTER {name}"): rf"\ensuremath{{\{name.replace('lamda', 'lambda')}}}"
        for name in _GREEK.split()
    },
}

_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
}


def number_text(value: float) -> str:
    """Return a number with four significant digits: 0.9283, 12.30, 168.0, 1.234e-05."""
    if not math.isfinite(value):
        return NOTHING
    if value == 0 or 1e4 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:#.4g}".removesuffix(".")


def cell_text(cell: Cell) -> str:
    """Return a cell as plain text; an interval as "mean [low, high]"."""
    text, detail = _text_and_detail(cell)
    if not detail:
        return text
    return f"{text} {detail}" if isinstance(cell, Interval) else f"{text} ({detail})"


def rich_table(table: Table, width: int | None = None) -> RichTable:
    """Return the table for a terminal of `width` columns; None: as wide as it needs.

    What stands in brackets elsewhere stands below here. Columns that may be left out go, from the right, until the
    words of the rest fit; the caption names them.
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
        shown = _rich_table(table, indices, left_out, whole_words=True)
        if Measurement.get(console, console.options, shown).minimum <= width:
            return shown
        if not optional:
            return _rich_table(table, indices, left_out, whole_words=False)
        index = optional.pop()
        indices.remove(index)
        left_out.insert(0, printable_line(table.columns[index].heading))


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables on a terminal as wide as it is, or into a pipe as wide as they need."""
    from rich.console import Console

    width = Console().width if sys.stdout.isatty() else None
    console = Console(width=width or 10_000, highlight=False, markup=False)
    for index, table in enumerate(tables):
        if index:
            console.print()
        console.print(rich_table(table, width))


def markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown, with the caption below."""
    lines = [
        f"### {_markdown_text(table.title)}",
        "",
        _markdown_row([_markdown_text(column.heading) for column in table.columns]),
        _markdown_row(["---:" if column.numeric else "---" for column in table.columns]),
        *(_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows),
        "",
        _markdown_text(table.caption),
    ]
    return "\n".join(lines) + "\n"


def latex(table: Table, label: str) -> str:
    """Return the table as LaTeX floats that shrink to the width of the text; needs booktabs and graphicx.

    A table that is longer than a page goes on in further floats under the same number.
    """
    widths = [_latex_width(column, [row[index] for row in table.rows]) for index, column in enumerate(table.columns)]
    alignment = "".join(
        "r" if column.numeric else f"p{{{width}em}}" if width else "l"
        for column, width in zip(table.columns, widths, strict=True)
    )
    floats = []
    for number, rows in enumerate(_latex_pages(table, widths)):
        head = [rf"\caption{{{latex_text(table.caption)}}}", rf"\label{{{label}}}"]
        floats += [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            *(head if number == 0 else [r"\addtocounter{table}{-1}", r"\caption[]{(continued)}"]),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(latex_text(column.heading) for column in table.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    return "\n".join(floats) + "\n"


def json_text(**frames: pd.DataFrame) -> str:
    """Return frames as one JSON object, each under its name as a list of rows; a missing number is null."""
    content = {
        name: [{str(key): plain_value(value) for key, value in row.items()} for row in frame.to_dict("records")]
        for name, frame in frames.items()
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def latex_text(text: str) -> str:
    """Return text that LaTeX prints as it stands, whatever characters are in it.

    Letters with common accents and small Greek letters are written with commands; any other character that a plain
    LaTeX font lacks is shown by its code, such as U+0416.
    """
    pieces = [_latex_character(character) for character in re.sub(r"\s+", " ", text)]
    # Two of these in a row would join into another character, such as a dash.
    return re.sub(r"([-',])(?=\1)", r"\1{}", "".join(pieces))


def _rich_table(table: Table, indices: list[int], left_out: list[str], *, whole_words: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=printable_line(table.title),
        caption=printable_line(table.caption) + (f" Left out to fit: {', '.join(left_out)}." if left_out else ""),
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
        longest = max(len(word) for text in texts for word in text.split())
        shown.add_column(
            heading,
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric,
            # Rich would otherwise break words of one column to make room for the next.
            min_width=min(longest, 20) if whole_words and not column.numeric else None,
            max_width=None if column.numeric else 48,
        )
    for row in table.rows:
        cells = []
        for index in indices:
            text, detail = _text_and_detail(row[index])
            # Text, not str: what a user named must not be read as markup.
            cell = Text(text, style=_style(row[index]))
            cells.append(cell.append(f"\n{detail}", style="dim") if detail else cell)
        shown.add_row(*cells)
    return shown


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character if character.isprintable() else ""
    decomposed = unicodedata.normalize("NFD", character)
    if len(decomposed) == 2 and decomposed[0].isascii() and decomposed[0].isalpha() and decomposed[1] in _ACCENTS:
        # The dotless letters carry an accent without clashing with their dot.
        base = {"i": r"\i", "j": r"\j"}.get(decomposed[0], decomposed[0])
        return rf"\{_ACCENTS[decomposed[1]]}{{{base}}}"
    return f"U+{ord(character):04X}"


def _latex_cell(cell: Cell) -> str:
    if not isinstance(cell, Interval):
        return latex_text(cell_text(cell))
    text = cell_text(cell).replace("[", "{[}").replace("]", "{]}").replace(NOTHING, r"\textendash{}")
    text = re.sub(r"(\d)e([+-])0*(\d+)", lambda match: _power(*match.groups()), text)
    return re.sub(r"(?<![\d{^])-(?=\d)", "$-$", text)


def _latex_width(column: Column, cells: list[Cell]) -> int:
    """Return the width in em at which the lines of a column of long texts break, 0 where they need not."""
    longest = 0 if column.numeric else max((len(cell_text(cell)) for cell in cells), default=0)
    return 0 if longest <= 25 else 12 if longest <= 60 else 20


def _latex_pages(table: Table, widths: list[int]) -> list[list[tuple[Cell, ...]]]:
    """Return the rows in parts, each of which fits on a page."""
    pages: list[list[tuple[Cell, ...]]] = [[]]
    lines = 0
    for row in table.rows:
        # An em holds two letters of running text, or less where words do not fill their line.
        needed = max(
            math.ceil(len(cell_text(cell)) / (1.7 * width)) if width else 1
            for cell, width in zip(row, widths, strict=True)
        )
        if pages[-1] and lines + needed > LATEX_LINES:
            pages.append([])
            lines = 0
        pages[-1].append(row)
        lines += needed
    return pages


def _power(digit: str, sign: str, exponent: str) -> str:
    return rf"{digit}\ensuremath{{\times 10^{{{'-' if sign == '-' else ''}{exponent}}}}}"


def _markdown_text(text: str) -> str:
    escaped = re.sub(r"([\\`*_|<>\[\]~$#])", r"\\\1", printable_line(re.sub(r"\s+", " ", text)))
    return escaped.replace("&", "&amp;")


def _markdown_cell(cell: Cell) -> str:
    return cell_text(cell) if isinstance(cell, Interval) else _markdown_text(cell_text(cell))


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text_and_detail(cell: Cell) -> tuple[str, str]:
    if cell is None:
        return NOTHING, ""
    if isinstance(cell, Detailed):
        return printable_line(cell.text), printable_line(cell.detail)
    if isinstance(cell, Interval):
        bounds = [f"[{number_text(cell.low)}, {number_text(cell.high)}]"] if cell.known else []
        # How many values there were is worth a word only where it is not the number of runs.
        count = [f"(n={cell.n})"] if cell.dropped else []
        return number_text(cell.mean), " ".join(bounds + count)
    return printable_line(str(cell)), ""


def _style(cell: Cell) -> str:
    text, _ = _text_and_detail(cell)
    return {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", NOTHING: "dim"}.get(text, "")
