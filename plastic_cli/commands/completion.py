"""What shell completion offers for data sets and runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def completions_for(kind: str) -> Callable[[str], list[tuple[str, str]]]:
    """Return the completion function for 'dataset', 'run' or 'exporter'."""
    return {"dataset": datasets, "run": runs, "exporter": exporters}[kind]


def datasets(incomplete: str) -> list[tuple[str, str]]:
    """Offer the data sets of the catalogue."""
    from plastic_cli.data.catalogue import dataset_names

    return [(name, "") for name in dataset_names() if name.startswith(incomplete)]


def exporters(incomplete: str) -> list[tuple[str, str]]:
    """Offer the installed exporters."""
    from plastic_cli.plugins.discovery import exporter_names

    return [(name, "") for name in exporter_names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Offer the runs of the default folder by id and by name, the newest first."""
    from plastic_cli.errors import PlasticError
    from plastic_cli.escapes import printable_line
    from plastic_cli.runs.store import RunStore

    try:
        known = RunStore(Path(os.environ.get("PLASTIC_RUNS", "runs"))).names()
    except PlasticError:
        return []
    # A name that a terminal would obey cannot be typed either.
    known = [(name, printable_line(about)) for name, about in reversed(known) if printable_line(name) == name]
    return [(name, about) for name, about in known if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Complete the name of a recipe."""
    from plastic_cli.sweeps.recipe import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]
