"""Finding rules and exporters. A broken plugin is reported and never fatal."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from plastic_cli.errors import PlasticError, UserError, did_you_mean
from plastic_cli.plugins.entry_points import GROUP, Entry, installed
from plastic_cli.plugins.rule import Rule

if TYPE_CHECKING:
    from pluggy import PluginManager

EXPORTER_PREFIX = "export-"
"""Prefix of the entry points of exporters, so that rules can be listed without importing a plugin."""


class BrokenPlugin(NamedTuple):
    """A plugin that cannot be used, its distribution and the reason."""

    name: str
    distribution: str
    error: str


@dataclass
class Plugins:
    """The installed rules by name, the entry point of each, and the plugins that are broken."""

    rules: dict[str, Rule] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)

    @cached_property
    def origins(self) -> dict[str, str]:
        """The distribution ("name version") of each rule; it is read only if a command needs it."""
        return {name: entry.origin() for name, entry in self.entries.items()}


class Exporter(NamedTuple):
    """A plugin that writes metrics for another program; origin: its distribution ("name version")."""

    name: str
    origin: str
    manager: PluginManager

    def call(self, hook: str, **arguments: Any) -> None:
        """Call one of the hooks of a run, if the exporter has it."""
        getattr(self.manager.hook, hook)(**arguments)

    def check(self) -> None:
        """Raise UserError, which says what to install, if the exporter cannot work."""
        try:
            self.call("plastic_export_check")
        except PlasticError:
            raise
        except Exception as error:
            raise UserError(f"the exporter '{self.name}' ({self.origin}) does not work: {_reason(error)}") from error


def plugin_names() -> list[str]:
    """Return the names of the plugins of rules without importing any of them."""
    return sorted(name for name in _entry_names() if not name.startswith(EXPORTER_PREFIX))


def exporter_names() -> list[str]:
    """Return the names of the installed exporters without importing any of them."""
    return sorted(name.removeprefix(EXPORTER_PREFIX) for name in _entry_names() if name.startswith(EXPORTER_PREFIX))


def _entry_names() -> set[str]:
    return {entry.name for entry in installed()}


@cache
def discover() -> Plugins:
    """Register every installed plugin except the exporters, and collect their rules.

    A plugin with an import error, a wrong return value or a name that is taken counts as broken. With PLASTIC_STRICT
    the error is raised instead, for authors of plugins.
    """
    from pluggy import PluginManager

    from plastic_cli.plugins.hooks import HookSpecifications

    manager = PluginManager(GROUP)
    manager.add_hookspecs(HookSpecifications)
    plugins = Plugins()
    for entry in installed():
        if entry.name.startswith(EXPORTER_PREFIX):
            continue
        try:
            module = entry.load()
            manager.register(module, name=f"{entry.folder or entry.distribution}:{entry.name}")
            manager.check_pending()
            for rule in _rules_of(manager, module):
                if rule.name in plugins.rules:
                    taken_by = plugins.entries[rule.name].origin()
                    raise ValueError(f"the name '{rule.name}' is already taken by {taken_by}")
                plugins.rules[rule.name] = rule
                plugins.entries[rule.name] = entry
        except Exception as error:
            if os.environ.get("PLASTIC_STRICT"):
                raise
            plugins.broken.append(BrokenPlugin(entry.name, entry.origin(), _reason(error)))
    return plugins


def find_rule(name: str) -> Rule:
    """Return the rule called `name`; raises UserError with the nearest name if there is none."""
    plugins = discover()
    name = str(name)  # Python programs give other objects too.
    if name not in plugins.rules and name.casefold() in plugins.rules:
        name = name.casefold()
    if name in plugins.rules:
        return plugins.rules[name]
    for broken in plugins.broken:
        if broken.name == name:
            raise UserError(f"the plugin '{name}' ({broken.distribution}) does not load: {broken.error}")
    known = ", ".join(plugins.rules) or "none"
    raise UserError(f"there is no rule '{name}'.{did_you_mean(name, plugins.rules)} Installed rules: {known}.")


def load_function(rule: Rule, verb: str) -> Callable[..., Any] | None:
    """Return the function of a verb of `rule`, None if it has none; raises UserError if the rule does not load."""
    try:
        return rule.function(verb)
    except Exception as error:
        if os.environ.get("PLASTIC_STRICT"):
            raise
        raise UserError(f"the rule '{rule.name}' does not load: {type(error).__name__}: {error}") from None


def find_exporter(name: str) -> Exporter:
    """Load the exporter called `name`; raises UserError if there is none or it does not load."""
    from pluggy import PluginManager

    from plastic_cli.plugins.hooks import HookSpecifications

    found = {entry.name: entry for entry in reversed(installed())}
    entry = found.get(EXPORTER_PREFIX + name) or found.get(name)
    if entry is None:
        known = exporter_names()
        guess = did_you_mean(name, known)
        raise UserError(f"there is no exporter '{name}'.{guess} Installed exporters: {', '.join(known) or 'none'}.")
    origin = entry.origin()
    manager = PluginManager(GROUP)
    manager.add_hookspecs(HookSpecifications)
    try:
        module = entry.load()
        manager.register(module)
        manager.check_pending()
    except Exception as error:
        if os.environ.get("PLASTIC_STRICT"):
            raise
        raise UserError(f"the exporter '{name}' ({origin}) does not load: {_reason(error)}") from None
    if not any(caller.name.startswith(_RUN_HOOKS) for caller in manager.get_hookcallers(module) or []):
        raise UserError(f"'{name}' ({origin}) exports nothing. Installed exporters: {', '.join(exporter_names())}.")
    return Exporter(name, origin, manager)


_RUN_HOOKS = ("plastic_run_", "plastic_metrics_")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _rules_of(manager: PluginManager, module: object) -> list[Rule]:
    implemented = manager.get_hookcallers(module) or []
    callers = [caller for caller in implemented if caller.name == "plastic_rule"]
    if not implemented:
        raise TypeError("it implements no plastic_rule() hook")
    if not callers:
        return []
    rules: list[Rule] = []
    for implementation in callers[0].get_hookimpls():
        if implementation.plugin is module:
            returned = implementation.function()
            for rule in returned if isinstance(returned, list) else [returned]:
                if not isinstance(rule, Rule):
                    raise TypeError(f"plastic_rule() returned a {type(rule).__name__}, not a Rule")
                rules.append(rule)
    return rules
