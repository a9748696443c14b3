"""Options of an environment on the command line: KEY=VALUE, separated by commas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

RESERVED = {"render_mode": "`plastic render` sets it", "max_episode_steps": "use --max-episode-steps"}


def split_options(text: str) -> list[str]:
    """Split a text such as "delay=[3,5],sigma=1.0" at the commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def read_options(options: Sequence[str]) -> dict[str, Any]:
    """Return the options as values. Raises ValueError unless each is KEY=VALUE with a plain, finite value."""
    read = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--env-options {option}: write KEY=VALUE, e.g. delay=20")
        if name in RESERVED:
            raise ValueError(f"--env-options {option}: {RESERVED[name]}")
        try:
            read[name] = json.loads(value)
        except json.JSONDecodeError:
            read[name] = {"True": True, "False": False}.get(value, value)
        if isinstance(read[name], float) and not math.isfinite(read[name]):
            raise ValueError(f"--env-options {option}: write a finite number")
    return read
