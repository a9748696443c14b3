"""The entry points through which plugins are found.

Same result as `importlib.metadata.entry_points`, which takes longer to import than to read all files here.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

GROUP = "plastic"
"""The group of entry points that plugins use."""


class Entry(NamedTuple):
    """An entry point: its name, "module" or "module:attribute", and the folder with the metadata of its distribution.

    folder: None if the distribution is not in a folder, for example in a zip file; then `distribution` names it.
    """

    name: str
    value: str
    folder: Path | None
    distribution: tuple[str, str] | None = None

    def load(self) -> Any:
        """Import the plugin."""
        module, _, attribute = self.value.partition("[")[0].partition(":")
        loaded = import_module(module.strip())
        for name in filter(None, attribute.strip().split(".")):
            loaded = getattr(loaded, name)
        return loaded

    def origin(self) -> str:
        """Return how runs record the distribution, such as "plastic-nudge 1.0"."""
        from importlib.metadata import Distribution

        from plastic_cli.distribution import origin_of

        if self.folder is None:
            return origin_of(*self.distribution) if self.distribution else "an unknown distribution"
        about = Distribution.at(self.folder).metadata
        return origin_of(about["Name"], about["Version"])


def installed() -> list[Entry]:
    """Return all entry points of plastic, by name."""
    if not _only_folders():
        return _from_importlib()
    found: dict[str, list[Entry]] = {}
    for place in sys.path:
        try:
            folders = [path for path in Path(place).iterdir() if path.suffix in (".dist-info", ".egg-info")]
        except OSError:
            continue
        for folder in folders:
            # As in importlib.metadata, the first of several distributions of one name is the one in use.
            distribution = re.sub(r"[-_.]+", "_", folder.stem.partition("-")[0]).lower()
            if distribution not in found:
                found[distribution] = _read(folder)
    return sorted((entry for entries in found.values() for entry in entries), key=lambda entry: entry.name)


def _only_folders() -> bool:
    """Say whether every distribution lies in a folder of `sys.path`, and not in a zip file or with another finder."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    return all(getattr(finder, "__name__", "") == "PathFinder" for finder in finders) and not any(
        Path(place).is_file() for place in sys.path
    )


def _read(folder: Path) -> list[Entry]:
    try:
        text = (folder / "entry_points.txt").read_text(encoding="utf-8")
    except OSError:
        return []
    entries, inside = [], False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            entries.append(Entry(name.strip(), value.strip(), folder))
    return entries


def _from_importlib() -> list[Entry]:
    from importlib.metadata import entry_points

    return sorted(
        (
            Entry(entry.name, entry.value, None, (entry.dist.name, entry.dist.version) if entry.dist else None)
            for entry in entry_points(group=GROUP)
        ),
        key=lambda entry: entry.name,
    )
