"""The marker that a plugin puts on its hooks, and the hooks that there are."""

from __future__ import annotations

from pluggy import HookimplMarker, HookspecMarker

from plastic_cli.rule import Rule

GROUP = "plastic"
"""The name of the entry points through which plugins are found."""

hookimpl = HookimplMarker(GROUP)
_hookspec = HookspecMarker(GROUP)


class HookSpecifications:
    """What a plugin can implement."""

    @_hookspec
    def plastic_rule(self) -> Rule | list[Rule]:
        """Return the rule, or the rules, that this plugin adds."""
        raise NotImplementedError
