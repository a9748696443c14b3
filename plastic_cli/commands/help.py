"""The help of every command, drawn as panels of plain text, which needs no library."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDEST = 100
WIDEST_NAME = 34
"""Width of the help, and of the column of names, in characters; a longer name has its own line."""

BOLD, DIM = "1", "2"
Panels = Mapping[str, Sequence[tuple[str, str]]]


def help_text(usage: str, about: str, panels: Panels, closing: str = "") -> str:
    """Return usage, paragraphs, one box of (name, help) rows for each panel, and a closing line."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = [f" {usage}", ""]
    for paragraph in about.split("\n\n"):
        lines += [*_wrapped(paragraph, width - 2, " "), ""]
    names = max((len(name) for rows in panels.values() for name, _ in rows if len(name) <= WIDEST_NAME), default=0)
    for title, rows in panels.items():
        if rows:
            lines += _box(title, rows, names, width)
    lines += ["", *_wrapped(closing, width - 2, " "), ""] if closing else [""]
    return "\n".join(lines)


def command_help(command: Any, context: Any, commands: Panels | None = None) -> str:
    """Return the help of a command of Typer; `commands` are the panels of a group's own commands."""
    parameters = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    panels: dict[str, list[tuple[str, str]]] = {name: list(rows) for name, rows in (commands or {}).items()}
    panels["Arguments"] = [(str(argument.metavar), argument.help or "") for argument in arguments]
    for parameter in parameters:
        if parameter.param_type_name == "option":
            # `--help` has no panel of its own.
            panel = getattr(parameter, "rich_help_panel", None) or ("Output" if "Output" in panels else "Options")
            panels.setdefault(panel, []).append((_name_of(parameter), parameter.help or ""))
    words = [command.subcommand_metavar] if commands else []
    words += [argument.metavar if argument.required else f"[{argument.metavar}]" for argument in arguments]
    usage = " ".join(["Usage:", context.command_path, *words, "[OPTIONS]"])
    return help_text(usage, command.help or "", panels)


def _name_of(option: Any) -> str:
    names = sorted((name.strip() for name in option.opts), key=len)
    # If a switch can be turned off in several ways, the first is shown.
    shown = " / ".join([names[0], option.secondary_opts[0].strip()]) if option.secondary_opts else ", ".join(names)
    return f"{shown} {option.metavar}" if option.metavar else shown


def _box(title: str, rows: Sequence[tuple[str, str]], names: int, width: int) -> list[str]:
    lines = [f"╭─ {title} ".ljust(width - 1, "─") + "╮"]
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - names - 6), break_on_hyphens=False) or [""]
        if len(name) > names:
            lines.append(f"│ {_styled(name, BOLD)}{' ' * (width - 3 - len(name))}│")
            name = ""
        for first, line in zip([name, *[""] * len(wrapped)], wrapped, strict=False):
            padding = " " * (width - 5 - max(names, len(first)) - len(line))
            lines.append(f"│ {_styled(first, BOLD)}{' ' * (names - len(first))}  {line}{padding}│")
    return [*lines, "╰" + "─" * (width - 2) + "╯"]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    words = " ".join(text.split())
    return textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _styled(text: str, code: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain or not text else f"\x1b[{code}m{text}\x1b[0m"
