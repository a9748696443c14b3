"""`plastic rules`: what is installed."""

from __future__ import annotations

from plastic_cli.commands.show import print_rows
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console


def list_rules(*, format: str) -> None:  # noqa: A002
    """Print the installed rules; broken plugins are named on stderr."""
    plugins = discover()
    rows = [
        {"rule": rule.name, "summary": rule.summary, "published in": rule.citation, "from": plugins.origins[rule.name]}
        for rule in plugins.rules.values()
    ]
    print_rows(rows, ["rule", "summary", "published in", "from"], format)
    for broken in plugins.broken:
        Console().warning(f"the plugin '{broken.name}' ({broken.distribution}) does not load: {broken.error}")
