"""`plastic rules`: the installed rules."""

from __future__ import annotations

from typing import Any

from plastic_cli.commands.invocation import OutputOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_rows
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, OutputOptions, list_rules)


def list_rules(options: OutputOptions) -> None:
    """Print the installed rules, with a warning for every broken plugin."""
    plugins = discover()
    rows = [
        {"rule": rule.name, "summary": rule.summary, "published in": rule.citation, "from": plugins.origins[rule.name]}
        for rule in plugins.rules.values()
    ]
    print_rows(rows, ["rule", "summary", "published in", "from"], options.output_format())
    for broken in plugins.broken:
        Console().warning(f"the plugin '{broken.name}' ({broken.distribution}) does not load: {broken.error}")
