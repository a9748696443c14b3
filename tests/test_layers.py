"""Who may import whom, as docs/architecture.md draws it and pyproject.toml says it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETTINGS = PROJECT["tool"]["importlinter"]


def test_the_contracts_are_kept(capsys):
    from importlinter.cli import lint_imports

    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_plugin_is_under_the_contracts():
    plugins = sorted(PROJECT["project"]["entry-points"]["plastic"].values())
    assert sorted(SETTINGS["root_packages"]) == sorted(["plastic_cli", *plugins])
    by_type = {contract["type"]: contract for contract in SETTINGS["contracts"]}
    assert sorted(by_type["forbidden"]["forbidden_modules"]) == plugins
    assert sorted(by_type["independence"]["modules"]) == plugins
    folders = {Path(package).name for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert folders == {"plastic_cli", *plugins}


def test_the_toolkit_names_no_plugin_even_as_text():
    plugins = PROJECT["project"]["entry-points"]["plastic"].values()
    for path in (ROOT / "plastic_cli").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in plugins if name in text], path
