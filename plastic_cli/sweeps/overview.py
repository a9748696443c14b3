"""An overview of a recipe: its rules, and how many of its runs the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plastic_cli.sweeps.lookup import find_run, store_of, with_data
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import RecipeFile
from plastic_cli.tables import duration


def recipe_row(file: RecipeFile, runs: Path, data: Path | None) -> dict[str, Any]:
    """Return name, rules, runs, runs that the store holds, time, reproduced experiment and title of a recipe."""
    plan = plan_recipe(file)
    store = store_of(runs.resolve())
    # Data is read only if a run in the store may be one of these.
    if any(find_run(store, planned).stored is not None for planned in plan):
        plan = with_data(plan, data, runs)
    done = sum(find_run(store, planned).standing == "done" for planned in plan)
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
