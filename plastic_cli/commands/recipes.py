"""`plastic recipes`: what comes with plastic, or lies in a folder, and how much of it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plastic_cli.commands.show import print_rows
from plastic_cli.commands.sweep import duration
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console
from plastic_cli.sweeps.lookup import store_index, with_data
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe, recipe_names

COLUMNS = ["recipe", "rule", "runs", "done", "time", "reproduces", "title"]


def list_recipes(runs: Path, *, rule: str | None, data: Path | None, format: str) -> None:  # noqa: A002
    """Print every recipe with its rules, how many runs it has, how many of them are done, and the time of all."""
    rows = []
    for name in recipe_names():
        try:
            file = read_recipe(name)
            row = _row(file, runs, data)
        except UserError as error:
            # A recipe of a plugin that is not here, or broken, takes no other one with it.
            Console().warning(str(error))
            continue
        if rule is None or rule in row["rule"].split(", "):
            rows.append(row)
    if rule is not None and not rows:
        raise UserError(f"--rule {rule}: no recipe is of it. Installed rules: {', '.join(discover().rules)}.")
    columns = COLUMNS if format != "table" else [column for column in COLUMNS if column != "reproduces"]
    print_rows(rows, columns, format)
    if format == "table":
        Console().message("`plastic recipes NAME` shows one, `plastic sweep NAME` runs what is left of it")


def show_recipe(text: str) -> None:
    """Print one recipe as it is written, to be read or to be changed into one's own."""
    file = read_recipe(text)
    print(file.text, end="" if file.text.endswith("\n") else "\n")  # noqa: T201


def _row(file: RecipeFile, runs: Path, data: Path | None) -> dict[str, Any]:
    plan = plan_recipe(file)
    index = store_index(runs.resolve())
    # Data is read only where a run in the store may be one of these.
    if any(index.find(planned).stored is not None for planned in plan):
        plan = with_data(plan, data, runs)
    done = sum(index.find(planned).standing == "done" for planned in plan)
    minutes = [planned.minutes for planned in plan]
    known = None if None in minutes else sum(value for value in minutes if value is not None)
    return {
        "recipe": file.name,
        "rule": ", ".join(dict.fromkeys(planned.rule for planned in plan)),
        "runs": len(plan),
        "done": done,
        "time": None if known is None else duration(60 * known),
        "reproduces": file.recipe.reproduces or None,
        "title": file.recipe.title,
    }
