"""Tensors in what modules and functions receive and return: nested tuples, lists, dictionaries and dataclasses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, Mapping):
        yield from tensors_of(tuple(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_of([getattr(value, part.name) for part in fields(value)])


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return nested tuples, lists, dictionaries and dataclasses with `function` of each tensor; all else is as it was.

    The argument itself does not change.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [mapped(function, part) for part in value]
        # Named tuples take positional arguments, torch's own results one sequence.
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [mapped(function, part) for part in value]
    if isinstance(value, MutableMapping):
        made = copy.copy(value)
        for key, part in value.items():
            made[key] = mapped(function, part)
        return made
    if is_dataclass(value) and not isinstance(value, type) and next(tensors_of(value), None) is not None:
        filled = copy.copy(value)
        for field in fields(value):
            # Frozen dataclasses refuse plain assignment.
            object.__setattr__(filled, field.name, mapped(function, getattr(value, field.name)))
        return filled
    return value
