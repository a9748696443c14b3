"""Escapes that make text from files, names and errors safe for a terminal and a spreadsheet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Compiled at their first use: this module is imported by every command, and most need none of them.
# Control characters, line and paragraph separators, characters that change the direction of writing, half surrogates.
_UNPRINTABLE = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_LINE_ENDS = r"[\t\n\v\f\r\x85\u2028\u2029]+"
_NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, *, keep: str = "") -> str:
    """Return text with control characters as codes, so that a terminal shows them and does not execute them.

    keep: characters that stay unchanged, such as the ends of lines.
    """
    # Most texts have nothing to escape, and this check is much faster.
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNPRINTABLE, lambda match: match[0] if match[0] in keep else _code(match[0]), text)


def printable_line(text: str) -> str:
    """Return `printable` text on one line: ends of lines and tabs become spaces."""
    return printable(re.sub(_LINE_ENDS, " ", text))


def valid_text(text: str) -> str:
    """Return text that UTF-8 can encode: a lone surrogate, as in a name that is not UTF-8, becomes a code."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def csv_cell(value: Any) -> Any:
    """Return a value as a CSV cell that no spreadsheet reads as a formula; numbers stay unchanged.

    Text that begins like a formula and is not a number gets an apostrophe in front.
    """
    if not isinstance(value, str):
        return value
    text = printable(value, keep="\n\t")
    return f"'{text}" if value.startswith(FORMULA_SIGNS) and not re.fullmatch(_NUMBER, value) else text


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV: a header line, numbers in full precision, empty cells for missing values, no formulas."""
    import pandas as pd

    texts = {
        column: frame[column].map(csv_cell, na_action="ignore")
        for column in frame.columns
        if not pd.api.types.is_numeric_dtype(frame[column])
    }
    return frame.assign(**texts).rename(columns=csv_cell).to_csv(index=False, lineterminator="\n")


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
