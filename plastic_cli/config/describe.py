"""The parts of an option in `--help`: its name, its type, its choices and its bounds."""

from __future__ import annotations

import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

LARGEST = 2**31 - 1
"""Upper bound of whole numbers by default."""


def option_name(field_name: str) -> str:
    """Return the option of a field: `batch_size` is `--batch-size`."""
    return "--" + field_name.replace("_", "-")


def as_typed(field_name: str, value: Any) -> str:
    """Return how a value is typed: `--epochs 3`, `--joint`, `--no-joint`."""
    option = option_name(field_name)
    if isinstance(value, bool):
        return option if value else f"--no-{option[2:]}"
    return f"{option} {','.join(str(entry) for entry in value) if isinstance(value, tuple | list) else value}"


def holds_several(info: FieldInfo) -> bool:
    """Say whether a field holds a list or tuple of values."""
    annotation: Any = info.annotation
    return _holds_several(annotation)


@cache
def _holds_several(annotation: Any) -> bool:
    return any(typing.get_origin(choice) in (tuple, list) for choice in alternatives(annotation))


def literal_choices(info: FieldInfo) -> tuple[str, ...]:
    """Return the words of a field that is a choice of words, else an empty tuple."""
    annotation: Any = info.annotation
    return _literal_choices(annotation)


# Recipes have thousands of configurations, and each value is read by the type of its field.
@cache
def _literal_choices(annotation: Any) -> tuple[str, ...]:
    for choice in alternatives(annotation):
        if typing.get_origin(choice) is Literal:
            return tuple(str(word) for word in typing.get_args(choice))
    return ()


def type_word(info: FieldInfo) -> str:
    """Return what `--help` shows in place of the value: int, float, text, a choice of words or a list."""
    annotation: Any = info.annotation
    return _type_word(annotation)


@cache
def _type_word(annotation: Any) -> str:
    choices = _literal_choices(annotation)
    if choices:
        # Two or three words fit into the place of the value; the help of a longer choice lists them.
        return "|".join(choices) if len("|".join(choices)) <= 16 else "word"
    for choice in alternatives(annotation):
        if typing.get_origin(choice) in (tuple, list):
            return f"{_plain_word(typing.get_args(choice)[0])},..."
        if choice is not type(None):
            return _plain_word(choice)
    return "text"


def is_switch(info: FieldInfo) -> bool:
    """Say whether a field is a yes-or-no option."""
    return bool in alternatives(info.annotation)


def bounds_text(info: FieldInfo) -> str:
    """Return the bounds of a numeric field as text, such as "at least 1" or "above 0, at most 1"."""
    found: dict[str, Any] = {}
    for constraint in info.metadata:
        for key in ("ge", "gt", "le", "lt"):
            if getattr(constraint, key, None) is not None:
                found[key] = getattr(constraint, key)
    if found.get("le") in (LARGEST, 2**63 - 1):
        del found["le"]
    low = f"at least {found['ge']:g}" if "ge" in found else f"above {found['gt']:g}" if "gt" in found else ""
    high = f"at most {found['le']:g}" if "le" in found else f"below {found['lt']:g}" if "lt" in found else ""
    return ", ".join(part for part in (low, high) if part)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself; without the metadata of `Annotated`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in alternatives(part))
    return (typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation,)


def _plain_word(annotation: Any) -> str:
    return {int: "int", float: "float", str: "text", Path: "path", bool: "yes|no"}.get(annotation, "text")
