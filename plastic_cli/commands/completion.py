"""What shell completion offers for the names that options and arguments take."""

from __future__ import annotations

from collections.abc import Callable


def completions_for(kind: str) -> Callable[[str], list[tuple[str, str]]]:
    """Return the completion function for 'dataset', 'run', 'exporter', 'rule' or 'recipe'."""
    return {"dataset": datasets, "run": runs, "exporter": exporters, "rule": rules, "recipe": recipes}[kind]


def datasets(incomplete: str) -> list[tuple[str, str]]:
    """Offer the data sets of the catalog."""
    from plastic_cli.data.catalog import dataset_names

    return [(name, "") for name in dataset_names() if name.startswith(incomplete)]


def exporters(incomplete: str) -> list[tuple[str, str]]:
    """Offer the installed exporters."""
    from plastic_cli.plugins.discovery import exporter_names

    return [(name, "") for name in exporter_names() if name.startswith(incomplete)]


def rules(incomplete: str) -> list[tuple[str, str]]:
    """Offer the installed rules."""
    from plastic_cli.plugins.discovery import plugin_names

    return [(name, "") for name in plugin_names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Offer the runs of the default folder by id and by name, the newest first."""
    from plastic_cli.errors import PlasticError
    from plastic_cli.escapes import printable_line
    from plastic_cli.runs.store import RunStore

    try:
        known = RunStore().names()
    except PlasticError:
        return []
    # A name with characters that a terminal would obey cannot be typed.
    known = [(name, printable_line(about)) for name, about in reversed(known) if printable_line(name) == name]
    return [(name, about) for name, about in known if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[tuple[str, str]]:
    """Offer the recipes that come with plastic."""
    from plastic_cli.sweeps.recipe import recipe_names

    return [(name, "") for name in recipe_names() if name.startswith(incomplete)]
