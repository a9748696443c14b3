"""The reference of the Python interface: the public names of `plastic_cli` and of every plugin."""

from __future__ import annotations

import ast
from functools import cache

from repository import ROOT

FOLDER = "reference/python"

GROUPS = {
    "api": "Train, load, compare and report",
    "runs": "Runs and the store of runs",
    "reports": "Reports",
    "config": "Options of a rule",
    "plugins": "Rules and plugins",
    "classifier": "Rules that classify images",
    "analysis": "What learning costs",
    "errors": "Errors",
}
"""Titles of the public names, by the room of the toolkit that they come from."""


@cache
def pages() -> dict[str, str]:
    """Return the pages by their address: one for each plugin that has public names."""
    found = {}
    for stub in sorted((ROOT / "plugins").glob("plastic_*/__init__.pyi")):
        package = stub.parent.name
        names = [name for _, name in public_names(f"plugins/{package}/__init__.pyi")]
        found[f"{FOLDER}/{package}.md"] = f"# {package}\n\n" + "\n".join(f"::: {package}.{name}\n" for name in names)
    return found


def public_names(stub: str) -> list[tuple[str, str]]:
    """Return module and name of everything that a stub exports."""
    tree = ast.parse((ROOT / stub).read_text(encoding="utf-8"))
    return [
        (node.module or "", alias.asname or alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    ]


def overview() -> str:
    """Return the docstrings of the toolkit's public names, in groups."""
    groups: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    for module, name in public_names("plastic_cli/__init__.pyi"):
        room = module.partition(".")[0]
        groups.setdefault(GROUPS.get(room, room), []).append(name)
    lines: list[str] = []
    for title, names in groups.items():
        if names:
            lines += [f"## {title}", "", *(f"::: plastic_cli.{name}\n" for name in names)]
    return "\n".join(lines)
