"""From the text of an option to the value of its field."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic.fields import FieldInfo

from plastic_cli.config.describe import as_typed, holds_several, literal_choices, type_word
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


def _read_one(name: str, info: FieldInfo, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    choices = literal_choices(info)
    if choices:
        return match_choice(value, choices)
    if type_word(info).removesuffix(",...") == "int":
        try:
            return whole_number(value)
        except ValueError as error:
            raise ValueError(f"{as_typed(name, value)}: {error}") from None
    return value
