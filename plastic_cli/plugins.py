"""Finding rules: the hook that a plugin implements, and discovery in which a broken plugin is reported, never fatal."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.rule import Rule

if TYPE_CHECKING:
    from pluggy import PluginManager


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be used, where it comes from and why."""

    name: str
    distribution: str
    error: str


@dataclass
class Plugins:
    """The rules that are here by name, the distribution ("name version") that each comes from, and what is broken."""

    rules: dict[str, Rule] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)


def plugin_names() -> list[str]:
    """Return the names of the installed plugins without importing any of them."""
    return sorted({entry.name for entry in entry_points(group="plastic")})


@cache
def discover() -> Plugins:
    """Register every installed plugin, one by one, and collect its rules.

    An import error, a wrong return value or a name that is taken makes that plugin a broken one. With PLASTIC_STRICT
    set the error is raised instead, which is what a plugin's author wants to see.
    """
    from pluggy import PluginManager

    from plastic_cli.hooks import GROUP, HookSpecifications

    manager = PluginManager(GROUP)
    manager.add_hookspecs(HookSpecifications)
    plugins = Plugins()
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        origin = _origin(entry)
        try:
            module = entry.load()
            manager.register(module, name=f"{origin}:{entry.name}")
            manager.check_pending()
            for rule in _rules_of(manager, module):
                if rule.name in plugins.rules:
                    raise ValueError(f"the name '{rule.name}' is already taken by {plugins.origins[rule.name]}")
                plugins.rules[rule.name] = rule
                plugins.origins[rule.name] = origin
        except Exception as error:
            if os.environ.get("PLASTIC_STRICT"):
                raise
            plugins.broken.append(BrokenPlugin(entry.name, origin, f"{type(error).__name__}: {error}"))
    return plugins


def find_rule(name: str) -> Rule:
    """Return the rule called `name`; raises UserError, with the nearest name, where there is none."""
    plugins = discover()
    if name in plugins.rules:
        return plugins.rules[name]
    for broken in plugins.broken:
        if broken.name == name:
            raise UserError(f"the plugin '{name}' ({broken.distribution}) does not load: {broken.error}")
    known = ", ".join(plugins.rules) or "none"
    raise UserError(f"there is no rule '{name}'.{did_you_mean(name, plugins.rules)} Installed rules: {known}.")


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _rules_of(manager: PluginManager, module: object) -> list[Rule]:
    callers = [caller for caller in manager.get_hookcallers(module) or [] if caller.name == "plastic_rule"]
    if not callers:
        raise TypeError("it implements no plastic_rule() hook")
    rules: list[Rule] = []
    for implementation in callers[0].get_hookimpls():
        if implementation.plugin is module:
            returned = implementation.function()
            for rule in returned if isinstance(returned, list) else [returned]:
                if not isinstance(rule, Rule):
                    raise TypeError(f"plastic_rule() returned a {type(rule).__name__}, not a Rule")
                rules.append(rule)
    return rules
