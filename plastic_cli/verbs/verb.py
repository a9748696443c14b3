"""One verb of one rule, and the session in which it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule, load_function
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS, Rule
from plastic_cli.resolve import resolve

if TYPE_CHECKING:
    from plastic_cli.runs.console import Console
    from plastic_cli.runs.exports import Exports


class RuleVerb(NamedTuple):
    """One verb of one rule: the function that carries it out and the model of its options."""

    name: str
    rule: Rule
    function: Callable[..., Any]
    model: type[Config]

    def resolve(
        self, typed: Mapping[str, Any], file: Path | None = None, stored: Mapping[str, Any] | None = None
    ) -> Config:
        """Return the configuration: typed options, then those of a file, then stored ones, then the defaults."""
        return resolve(self.model, typed, self.read_options(file), str(file or ""), stored)

    def read_options(self, file: Path | None) -> dict[str, Any]:
        """Return the options of a configuration file or recipe by their present names; none without a file."""
        if file is None:
            return {}
        from plastic_cli.sweeps.recipe import read_options

        return self.model.read_names(read_options(file, self.rule.name), str(file))


def find_verb(name: str, rule_name: str) -> RuleVerb:
    """Return the verb `name` of a rule; raises UserError if the rule or the verb does not exist."""
    rule = find_rule(rule_name)
    function = load_function(rule, name)
    if function is None:
        able = [f"`plastic {other} {rule_name}`" for other in VERBS if rule.function(other) is not None]
        raise UserError(f"the rule '{rule_name}' has no {name}. It has {', '.join(able) or 'no command'}.")
    return RuleVerb(name, rule, function, config_model(function))


@dataclass(frozen=True)
class Session:
    """Where a verb reads and writes, and where it reports.

    runs: the folder of the runs. data: the folder of the data sets; None for the default. argv: what the user typed,
    for the record of new runs.
    """

    runs: Path
    console: Console
    data: Path | None = None
    exports: Exports | None = None
    argv: tuple[str, ...] = ()


def check_device(device: object) -> None:
    """Raise UserError if `device`, the value of an option, is a GPU that torch does not find."""
    # The CPU is always there, and importing torch takes seconds.
    if device in ("cuda", "mps"):
        from plastic_cli.numerics.devices import find_device

        find_device(str(device))
