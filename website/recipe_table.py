"""The table of recipes, made from the recipes."""

from __future__ import annotations

from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.sweeps.steps import plan_steps


def overview() -> str:
    """Return one row for each recipe: its rules, the numbers of its runs and steps, the minutes of a run, claims."""
    lines = [
        "| recipe | what it does | rule | runs | minutes a run | steps | claims |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in recipe_names():
        file = read_recipe(name)
        plan = plan_recipe(file)
        minutes = {planned.minutes for planned in plan if planned.minutes is not None}
        longest = f"{max(minutes):g}" if minutes else ""
        rules = ", ".join(dict.fromkeys(planned.rule for planned in plan))
        title = file.recipe.title.replace("|", "\\|")
        steps = len(plan_steps(file, plan)) or ""
        claims = ", ".join(file.recipe.claims)
        lines.append(f"| `{name}` | {title} | {rules} | {len(plan)} | {longest} | {steps} | {claims} |")
    return "\n".join(lines) + "\n"
