"""Rule: what a plugin registers. Imports nothing heavy, so that a plugin's `__init__` stays light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

VERBS = {"train": "train", "eval": "evaluate", "analyze": "analyze", "render": "render"}
"""The four verbs of the command line and the name of the function that carries each out."""


@dataclass(frozen=True)
class Rule:
    """One plasticity rule.

    name: the word on the command line. summary: one line for `--help`. citation: where the rule was published.
    commands: the module with `train`, `evaluate`, `analyze` and `render`, imported when one of them runs or shows its
    help.
    """

    name: str
    summary: str
    citation: str
    commands: str

    def load(self) -> ModuleType:
        """Import the module of the rule's commands."""
        return import_module(self.commands)

    def function(self, verb: str) -> Callable[..., Any] | None:
        """Return the function behind `verb`, or None where the rule has none."""
        function: Callable[..., Any] | None = getattr(self.load(), VERBS[verb], None)
        return function

    def claims_text(self) -> str | None:
        """Return the text of the `claims.toml` beside the rule's commands, or None where there is none."""
        from importlib.resources import files

        package = self.commands.rpartition(".")[0] or self.commands
        path = files(package) / "claims.toml"
        return path.read_text(encoding="utf-8") if path.is_file() else None
