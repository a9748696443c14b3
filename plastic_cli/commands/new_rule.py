"""`plastic new-rule`: a working plugin as a separate distribution, to turn into your own rule."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from plastic_cli.commands.invocation import DebugOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.config.model import field
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import exporter_names, plugin_names
from plastic_cli.runs.console import Console

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "plastic_${name}/__init__.py": "package/__init__.py",
    "plastic_${name}/rule.py": "package/rule.py",
    "plastic_${name}/learner.py": "package/learner.py",
    "plastic_${name}/config.py": "package/config.py",
    "plastic_${name}/commands.py": "package/commands.py",
    "plastic_${name}/cost.py": "package/cost.py",
    "plastic_${name}/claims.toml": "package/claims.toml",
    "plastic_${name}/py.typed": "package/py.typed",
    "tests/test_${name}.py": "tests/test_rule.py",
}
"""The files of the plugin, and the template of each."""

LONGEST_NAME = 40


class Options(DebugOptions):
    """Options of `plastic new-rule`."""

    name: str = field(..., "name of the rule on the command line", argument="NAME")
    folder: Path = field(Path(), "folder in which plastic-NAME is created")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, lambda options: new_rule(options.name, options.folder))


def new_rule(name: str, folder: Path) -> None:
    """Write the plugin into `folder`/plastic-NAME, whole or not at all; raises UserError for an invalid name."""
    check_name(name)
    target = folder / f"plastic-{name}"
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already. Choose another name, or another folder with --folder.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--folder {folder}: it is not a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".plastic-") as drafts:
        draft = Path(drafts) / target.name
        for path, content in contents(name).items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_text(content, encoding="utf-8")
        draft.rename(target)
    Console().message(
        f"wrote {target}. Now:\n"
        f"  pip install -e {target}\n"
        f"  plastic train {name}\n"
        f"Then write your rule into {target / f'plastic_{name}' / 'rule.py'}"
    )


def contents(name: str) -> dict[str, str]:
    """Return the files of the plugin, by path."""
    templates = files("plastic_cli.commands") / "rule_template"
    return {
        Template(path).substitute(name=name): Template(
            (templates / f"{source}.template").read_text(encoding="utf-8")
        ).substitute(name=name)
        for path, source in FILES.items()
    }


def check_name(name: str) -> None:
    """Raise UserError if a rule cannot have this name."""
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}", name):
        suggestion = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        usable = re.fullmatch(r"[a-z][a-z0-9_]*", suggestion) is not None and len(suggestion) <= LONGEST_NAME
        guess = f" Did you mean '{suggestion}'?" if usable else ""
        raise UserError(
            f"'{name}' is not a valid name of a rule: use at most {LONGEST_NAME} lower-case letters, digits and '_',"
            f" beginning with a letter.{guess}"
        )
    if name in plugin_names():
        raise UserError(f"there is a rule '{name}' already: `plastic rules` lists them. Choose another name.")
    if name in exporter_names() or find_spec(f"plastic_{name}") is not None:
        raise UserError(f"a package plastic_{name} is installed already. Choose another name.")
