"""From the text of an option to the value of its field."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from plastic_cli.config.describe import as_typed, holds_several, literal_choices, option_name, type_word
from plastic_cli.errors import match_choice

MOST_DIGITS = 40
"""A whole number with more digits than this is refused before it is converted."""


def split_list(text: str) -> list[str]:
    """Return the values of a text such as `256,128`; raises ValueError for an empty value between commas."""
    parts = [part.strip() for part in text.split(",")]
    if parts == [""]:
        return []
    if "" in parts:
        raise ValueError("there is an empty value between the commas")
    return parts


def whole_number(text: str) -> int | str:
    """Return the whole number of a text with a point or an exponent, such as `1e6`; return other texts unchanged."""
    if not text.isascii() or not any(letter in text for letter in ".eE"):
        return text
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return text
    if not number.is_finite():
        return text
    if number.adjusted() > MOST_DIGITS:
        raise ValueError("the number is too large")
    return int(number) if number == number.to_integral_value() else text


def read_value(name: str, info: FieldInfo, value: Any) -> Any:
    """Return a value converted for its field if that is unambiguous, else unchanged."""
    if holds_several(info):
        if isinstance(value, str):
            try:
                value = split_list(value)
            except ValueError as error:
                raise ValueError(f"{as_typed(name, value)}: {error}") from None
        elif isinstance(value, int | float):
            value = [value]
        if isinstance(value, list | tuple):
            return [_read_one(name, info, entry) for entry in value]
        return value
    return _read_one(name, info, value)


def as_value(name: str, info: FieldInfo, value: Any) -> Any:
    """Return a text as the value that its field gets from it; other values, and texts that are wrong, unchanged."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        read = read_value(name, info, value)
        word = type_word(info).removesuffix(",...")
        return tuple(_of_type(word, entry) for entry in read) if isinstance(read, list) else _of_type(word, read)
    return value


def truth_of(text: str) -> bool | None:
    """Return what a text means for a yes-or-no option, None if it means neither."""
    word = text.strip().casefold()
    return True if word in ("true", "yes", "on", "1") else False if word in ("false", "no", "off", "0") else None


def _of_type(word: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if word == "yes|no":
        truth = truth_of(value)
        return value if truth is None else truth
    return int(value) if word == "int" else float(value) if word == "float" else value


def _read_one(name: str, info: FieldInfo, value: Any) -> Any:
    if isinstance(value, PathLike):
        # In Python, the folder of a data set may be a Path.
        value = fspath(value)
    if not isinstance(value, str):
        return value
    if type_word(info) == "path":
        if not value:
            raise ValueError(f"{option_name(name)} is empty. Give a path, or leave it out")
        # A shell replaces ~ only at the beginning of a word; Python and files do not.
        return Path(value).expanduser()
    choices = literal_choices(info)
    if choices:
        return match_choice(value, choices)
    if type_word(info).removesuffix(",...") == "int":
        try:
            return whole_number(value)
        except ValueError as error:
            raise ValueError(f"{as_typed(name, value)}: {error}") from None
    return value
