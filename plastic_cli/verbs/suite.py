"""What a recipe plans: its runs, the steps on them, and the report about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plastic_cli.errors import OptionError
from plastic_cli.reports.options import ReportOptions
from plastic_cli.sweeps.plan import PlannedRun, filter_runs, plan_recipe
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe
from plastic_cli.sweeps.steps import PlannedStep, plan_steps

OF_THE_SWEEP = ("runs", "output", "html", "rule", "dataset", "status")
"""Options of a report that a recipe cannot have: the sweep says which runs are reported, and where."""


@dataclass(frozen=True)
class Suite:
    """The runs of a recipe, the steps on them, and the options of the report; None: no report is written."""

    file: RecipeFile
    plan: Sequence[PlannedRun]
    steps: Sequence[PlannedStep]
    report: ReportOptions | None


def planned_suite(
    recipe: str,
    *,
    seeds: int | None = None,
    rules: Sequence[str] = (),
    only: Sequence[str] = (),
    with_steps: bool = True,
) -> Suite:
    """Read a recipe and return what it plans; raises UserError, with the line, for what is wrong in it.

    seeds: number of seeds, instead of the recipe's. rules, only: which runs, as `--rule` and `--only` say. with_steps:
    also its steps and its report.
    """
    file = read_recipe(recipe)
    plan = filter_runs(plan_recipe(file, seeds=seeds, rules=rules), only)
    steps, report = plan_steps(file, plan), report_options(file)
    return Suite(file, plan, steps, report) if with_steps else Suite(file, plan, [], None)


def report_options(file: RecipeFile) -> ReportOptions | None:
    """Return the options of a recipe's report; raises UserError, with the line, for one that is wrong."""
    given = file.recipe.report
    if given is None:
        return None
    for name in given:
        if name in OF_THE_SWEEP:
            raise file.error(("report", name), f"a report of a recipe has no option '{name}': it reports its runs.")
        if name not in ReportOptions.model_fields:
            guess = ReportOptions.similar_option(name)
            raise file.error(("report", name), f"`plastic report` has no option '{name}'.{guess}")
    try:
        return ReportOptions.from_values(given)
    except OptionError as error:
        raise file.error(("report", error.key) if error.key else ("report",), str(error)) from None
