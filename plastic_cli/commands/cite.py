"""`plastic cite`: BibTeX of rules and of plastic."""

from __future__ import annotations

from typing import Any

from plastic_cli.commands.invocation import DebugOptions, RuleName
from plastic_cli.commands.options import toolkit_command
from plastic_cli.config.model import field
from plastic_cli.plugins.cite import cite


class Options(DebugOptions):
    """Options of `plastic cite`."""

    rules: list[RuleName] = field(
        [],
        "also print the sources of these rules (default: only plastic)",
        argument="RULE...",
        complete="rule",
        repeat=True,
    )


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, print_citation)


def print_citation(options: Options) -> None:
    """Print BibTeX entries."""
    print(cite(options.rules), end="")  # noqa: T201
