"""Tables and text in LaTeX."""

from __future__ import annotations

import math
import re
import unicodedata

from plastic_cli.errors import UserError
from plastic_cli.escapes import printable_line
from plastic_cli.statistics.intervals import Interval
from plastic_cli.tables import NOTHING, Cell, Column, Number, Table, cell_text

LATEX_LINES = 34
"""Lines of a table that fit on one page below a caption, in the narrowest standard class."""

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
    # After a line break, LaTeX would read one of these at the beginning of a row as an argument.
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
    "\N{MINUS SIGN}": r"\ensuremath{-}",
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


def latex(table: Table, label: str, caption: str | None = None) -> str:
    """Return the table as LaTeX floats that shrink to the width of the text; they need booktabs and graphicx.

    caption: in place of the title and caption of the table. The usual caption is then a comment. A caption with a
    backslash or a dollar sign is LaTeX, any other is text. A table that is longer than a page continues in further
    floats with the same number. Raises UserError for a label that LaTeX cannot read.
    """
    if not re.fullmatch(r"[\w:.+/ -]+", label, re.ASCII):
        raise UserError(f"--label {label}: a label has letters, digits and the signs : . + / - _ only.")
    widths = [_latex_width(column, [row[index] for row in table.rows]) for index, column in enumerate(table.columns)]
    alignment = "".join(
        "r" if column.numeric else f"p{{{width}em}}" if width else "l"
        for column, width in zip(table.columns, widths, strict=True)
    )
    written = _usual_caption(table) if caption is None else latex_caption(caption)
    head = [rf"\caption{{{written}}}", rf"\label{{{label}}}"]
    floats = [r"% needs \usepackage{booktabs,graphicx}"]
    if caption is not None and table.caption:
        floats.append(f"% {printable_line(table.caption)}")
    for number, rows in enumerate(_latex_pages(table, widths)):
        floats += [
            r"\begin{table}",
            r"\centering",
            *(head if number == 0 else [r"\addtocounter{table}{-1}", r"\caption[]{(continued)}"]),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(_latex_heading(column.heading) for column in table.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    return "\n".join(floats) + "\n"


def _usual_caption(table: Table) -> str:
    """Return the title and the caption of a table; the number of seeds is a symbol, as in its heading."""
    title = f"{table.title.rstrip('.')}." if table.title else ""
    return re.sub(r"\bn(?= seeds)", "$n$", latex_text(f"{title} {table.caption}".strip()))


def latex_caption(text: str) -> str:
    """Return a caption of a user: LaTeX as it is, any other text with escapes."""
    return re.sub(r"\s+", " ", text) if re.search(r"[\\$]", text) else latex_text(text)


def _latex_heading(heading: str) -> str:
    """Return a heading with a capital letter; the number of seeds is a symbol."""
    return "$n$" if heading == "n" else latex_text(heading[:1].upper() + heading[1:])


def latex_text(text: str) -> str:
    """Return text with escapes, so that LaTeX prints exactly this text.

    Letters with common accents and small Greek letters become commands. Any other character that a plain LaTeX font
    lacks becomes a code such as U+0416.
    """
    pieces = [_latex_character(character) for character in re.sub(r"\s+", " ", text)]
    # LaTeX would join two of these in a row into another character, such as a dash.
    return re.sub(r"([-',])(?=\1)", r"\1{}", "".join(pieces))


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character if character.isprintable() else ""
    decomposed = unicodedata.normalize("NFD", character)
    if len(decomposed) == 2 and decomposed[0].isascii() and decomposed[0].isalpha() and decomposed[1] in _ACCENTS:
        # With an accent these letters have no dot.
        base = {"i": r"\i", "j": r"\j"}.get(decomposed[0], decomposed[0])
        return rf"\{_ACCENTS[decomposed[1]]}{{{base}}}"
    return f"U+{ord(character):04X}"


def _latex_cell(cell: Cell) -> str:
    if not isinstance(cell, Interval | Number):
        return latex_text(cell_text(cell))
    text = cell_text(cell).replace("[", "{[}").replace("]", "{]}").replace(NOTHING, r"\textendash{}")
    text = text.replace("%", r"\%")
    text = re.sub(r"^(\S+) ± (\d\S*)", r"$\1 \\pm \2$", text).replace("±", _LATEX["±"])
    text = re.sub(r"(\d)e([+-])0*(\d+)", lambda match: _power(*match.groups()), text)
    return re.sub(r"(?<![\d{^$])-(?=\d)", "$-$", text)


def _latex_width(column: Column, cells: list[Cell]) -> int:
    """Return the width in em of a column with long texts, whose lines break; 0 for other columns."""
    longest = 0 if column.numeric else max((len(cell_text(cell)) for cell in cells), default=0)
    return 0 if longest <= 25 else 12 if longest <= 60 else 20


def _latex_pages(table: Table, widths: list[int]) -> list[list[tuple[Cell, ...]]]:
    """Return the rows in parts that fit on one page each."""
    pages: list[list[tuple[Cell, ...]]] = [[]]
    lines = 0
    for row in table.rows:
        # An em holds about two letters, or fewer if words do not fill their line.
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
