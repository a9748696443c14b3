"""The reference of the command line, made from the commands themselves: every option, its default and its help."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from plastic_cli.app import RootGroup
from plastic_cli.commands.verbs import rule_command
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import VERBS, Rule
from repository import ROOT

FOLDER = "reference/command-line"


@cache
def pages() -> dict[str, str]:
    """Return the pages by their address: one for each command of the toolkit, one for each rule."""
    found = {f"{FOLDER}/rule-{name}.md": _rule_page(rule) for name, rule in discover().rules.items()}
    commands = {name: entry for name, entry in RootGroup.entries.items() if name not in (*VERBS, "tune")}
    return found | {f"{FOLDER}/{name}.md": _command_page(name, entry.build(name)) for name, entry in commands.items()}


def overview() -> str:
    """Return the table of commands, with a link to the page of each."""
    lines: list[str] = []
    panel = None
    for name, entry in RootGroup.entries.items():
        if entry.panel != panel:
            panel = entry.panel
            lines += ["", f"## {panel}", "", "| command | |", "|---|---|"]
        if name in (*VERBS, "tune"):
            verb = "train" if name == "tune" else name
            links = ", ".join(f"[{rule}](rule-{rule}.md#plastic-{verb}-{rule})" for rule in discover().rules)
            lines.append(f"| `plastic {name} RULE` | {_escaped(entry.about)} Rules: {links} |")
        else:
            lines.append(f"| [`plastic {name}`]({name}.md) | {_escaped(entry.about)} |")
    return "\n".join(lines) + "\n"


def _rule_page(rule: Rule) -> str:
    has_page = (ROOT / f"docs/rules/{rule.name}.md").is_file()
    link = f" [What the rule does](../../rules/{rule.name}.md)." if has_page else ""
    parts = [f"# {rule.name}\n\n{_escaped(rule.summary)}{link}\n"]
    for verb in (verb for verb in VERBS if rule.function(verb) is not None):
        command = rule_command(verb, rule.name)
        about = (command.help or "").split("\n\n")[0]
        parts.append(f"## plastic {verb} {rule.name}\n\n{_escaped(about)}\n\n{_options(command)}")
    return "\n".join(parts)


def _command_page(name: str, command: Any) -> str:
    parts = [f"# plastic {name}\n\n{_escaped(command.help or '')}\n\n{_options(command)}"]
    for inner_name, inner in getattr(command, "commands", {}).items():
        parts.append(f"## plastic {name} {inner_name}\n\n{_escaped(inner.help or '')}\n\n{_options(inner)}")
    return "\n".join(parts)


def _options(command: Any) -> str:
    panels: dict[str, list[str]] = {}
    with command.make_context(str(command.name), [], resilient_parsing=True) as context:
        parameters = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    for parameter in parameters:
        if parameter.name == "help":
            continue
        is_argument = parameter.param_type_name == "argument"
        panel = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
        panels.setdefault(panel, []).append(_row(parameter, is_argument))
    lines: list[str] = []
    for panel, rows in panels.items():
        lines += [f"**{panel}**", "", "| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any, is_argument: bool) -> str:
    text, default = _help_and_default(parameter.help or "")
    names = [str(parameter.metavar)] if is_argument else list(_names(parameter))
    shown = "<br>".join(f"`{name}`{{ .option }}" for name in names)
    return f"| {shown} | {f'`{default}`' if default else ''} | {_escaped(text)} |"


def _names(option: Any) -> Iterator[str]:
    names = sorted((name.strip() for name in option.opts), key=len)
    yield ", ".join(names) + (f" {option.metavar}" if option.metavar else "")
    yield from (name.strip() for name in option.secondary_opts[:1])


def _help_and_default(text: str) -> tuple[str, str]:
    """Split the help of an option, such as "passes over the images (at least 1; default: 10)"."""
    found = re.search(r"(?P<before>[(;] ?)default: (?P<default>[^();]*)\)$", text)
    if found is None:
        return text, ""
    rest = text[: found.start()].rstrip()
    return (rest + ")" if found["before"].startswith(";") else rest), found["default"]


def _escaped(text: str) -> str:
    """Return text for a cell of a table: options as code, and nothing that Markdown reads as its own."""
    text = html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("*", "\\*")
    return re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", text)
