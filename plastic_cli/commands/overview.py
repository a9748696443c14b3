"""The help of `plastic` itself: panels of plain text, which cost no import."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence


def overview(summary: str, panels: Mapping[str, Sequence[tuple[str, str]]], closing: str) -> str:
    """Return the help text: a summary, one box of (name, help) rows for each panel, and a closing line."""
    width = min(shutil.get_terminal_size().columns, 100)
    names = max(len(name) for rows in panels.values() for name, _ in rows)
    lines = [" Usage: plastic COMMAND [RULE] [OPTIONS]", "", f" {summary}", ""]
    for title, rows in panels.items():
        lines.append(f"╭─ {title} ".ljust(width - 1, "─") + "╮")
        for name, text in rows:
            wrapped = textwrap.wrap(text, max(20, width - names - 6)) or [""]
            for first, line in zip([name, *[""] * len(wrapped)], wrapped, strict=False):
                lines.append(f"│ {first.ljust(names)}  {line}".ljust(width - 1) + "│")
        lines.append("╰" + "─" * (width - 2) + "╯")
    lines += ["", *(f" {line}" for line in textwrap.wrap(closing, width - 2)), ""]
    return "\n".join(lines)
