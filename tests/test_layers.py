"""The layers, rooms and sizes that docs/architecture.md and CONTRIBUTING.md ask for."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETTINGS = PROJECT["tool"]["importlinter"]


def test_the_contracts_are_kept(capsys):
    from importlinter.cli import lint_imports

    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def packages_of(entry_points):
    """The packages that hold the plugins; one package may register several rules."""
    return {module.partition(".")[0] for module in entry_points}


def test_every_plugin_is_under_the_contracts():
    plugins = sorted(packages_of(PROJECT["project"]["entry-points"]["plastic"].values()))
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


def test_every_rule_has_layers_of_its_own():
    contracts = [contract for contract in SETTINGS["contracts"] if contract["type"] == "layers"]
    assert all(contract["exhaustive"] for contract in contracts)
    entry_points = PROJECT["project"]["entry-points"]["plastic"]
    rules = packages_of(module for name, module in entry_points.items() if "export-" not in name)
    assert {"plastic_cli", *rules} <= {container for contract in contracts for container in contract["containers"]}


def test_every_package_is_typed():
    for name in SETTINGS["root_packages"]:
        [folder] = [path for path in (ROOT / name, ROOT / "plugins" / name) if path.is_dir()]
        assert (folder / "py.typed").is_file(), name


def test_tests_mirror_the_rooms():
    rooms = {path.name for path in (ROOT / "plastic_cli").iterdir() if path.is_dir()}
    plugins = {path.name.removeprefix("plastic_") for path in (ROOT / "plugins").iterdir()}
    # Checks of the whole program: every rule, every page, every exporter, every kind of damage.
    across = {"contract", "docs", "exporters", "faults"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("*.py"))}
    assert folders <= rooms | plugins | across


def _functions():
    """Yield (file and name, definition, whether it is in a kernel) of every function of the toolkit and the plugins."""
    for path in [*(ROOT / "plastic_cli").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        where = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{where}: {node.name}", node, "kernels" in where.with_suffix("").parts


def test_no_function_outside_kernels_is_longer_than_80_lines():
    long = [name for name, node, kernel in _functions() if not kernel and node.end_lineno - node.lineno >= 80]
    assert not long


def test_no_function_outside_kernels_and_constructors_takes_more_than_eight_arguments():
    # Each argument of `field` is a keyword of an option's declaration.
    allowed = {"plastic_cli/config/model.py: field"}
    many = []
    for name, node, kernel in _functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        taken = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
        if len(taken) > 8 and not kernel and node.name != "__init__" and name not in allowed:
            many.append(name)
    assert not many
