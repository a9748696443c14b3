"""Options that have no effect given others."""

from __future__ import annotations

from typing import Any

from plastic_cli.config.describe import as_typed, option_name
from plastic_cli.config.parsing import truth_of


def matches(value: Any, wanted: Any) -> bool:
    """Say whether a value, or its text, equals a wanted value."""
    if not isinstance(value, str):
        return bool(value == wanted)
    if isinstance(wanted, str):
        return value.strip().casefold() == wanted.casefold()
    if isinstance(wanted, bool):
        return truth_of(value) is wanted
    try:
        return bool(float(value) == wanted)
    except (TypeError, ValueError):
        return False


def reason_unused(option: str, value: Any, values: tuple[Any, ...]) -> str:
    """Return why options that need `option` to have one of `values` have no effect if it is `value`."""
    if values == (True,):
        return f"without {option_name(option)}"
    if values == (None,) or values[0] is False:
        return f"with {as_typed(option, value)}"
    *others, last = [str(entry) for entry in values]
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"with {as_typed(option, value)}: it belongs to {option_name(option)} {listed}"
