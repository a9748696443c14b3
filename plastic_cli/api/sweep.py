"""`plastic.sweep`: the runs of a recipe, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plastic_cli.api.console import PythonConsole
from plastic_cli.config.model import field
from plastic_cli.errors import OptionError, RunFailed, did_you_mean
from plastic_cli.runs.stored import StoredRun
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import PlannedRun, filter_runs, plan_recipe
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.verbs.options import DataOptions, RunsOptions
from plastic_cli.verbs.sweep import checked_plan


class RecipeOptions(DataOptions, RunsOptions, SweepOptions):
    """The options of `plastic.sweep`."""

    seeds: int | None = field(None, "number of seeds; overrides the recipe", ge=1)
    rule: list[str] = field([], "only the runs of these rules")
    only: list[str] = field([], "only the runs with NAME=VALUE, or with one of NAME=VALUE,VALUE")
    quiet: bool = field(False, "show no progress")


def sweep(recipe: str | Path, **options: Any) -> list[StoredRun]:
    """Carry out the runs of a recipe that the store does not hold yet, and return all its runs in their order.

    recipe: the name of a recipe that comes with plastic, or a TOML file. options: those of `plastic sweep`: `seeds`,
    `rule` and `only` (a text or a list), `workers`, `runs` and `data` (folders), `retry`, `timeout`, `keep_going`,
    `scheduler`, `quiet`.

    Raises UserError, a ValueError, for an unknown recipe or a wrong option; RunFailed if runs failed.
    """
    for name in options:
        if name not in RecipeOptions.model_fields:
            raise OptionError(f"there is no option '{name}'.{did_you_mean(name, RecipeOptions.model_fields)}", name)
    chosen = RecipeOptions.from_values(options)
    plan = filter_runs(plan_recipe(read_recipe(str(recipe)), seeds=chosen.seeds, rules=chosen.rule), chosen.only)
    return carry_out(plan, chosen, chosen.runs_folder(), chosen.data, PythonConsole(quiet=chosen.quiet))


def carry_out(
    plan: Sequence[PlannedRun],
    options: SweepOptions,
    runs: Path,
    data: Path | None,
    console: PythonConsole,
    arguments: tuple[str, ...] = (),
) -> list[StoredRun]:
    """Carry out a plan with one bar over its runs, and return the runs in the order of the plan.

    arguments: added to every `plastic train`. Raises RunFailed if runs failed, KeyboardInterrupt if they were stopped.
    """
    plan = checked_plan(plan, options, runs, data)
    with (
        signals_as_interrupts(TWICE),
        open_pool(options.scheduler, options.workers, options.threads) as pool,
        console.progress("run", len(plan), 0) as bar,
    ):
        shown = 0

        def show(progress: Progress) -> None:
            nonlocal shown
            while shown < len(progress.results):
                shown += 1
                bar.end_step(shown, progress.results[shown - 1].outcome.summary)

        results = Sweep(plan, pool, runs, options, data=data, arguments=arguments).run(show)
    stopped = [result for result in results if result.word in ("interrupted", "left")]
    failed = [result for result in results if result.word == "failed"]
    if stopped and not (failed and not options.keep_going):
        raise KeyboardInterrupt(f"{len(stopped)} of {len(plan)} runs are not finished: repeat the call to finish them")
    if failed:
        raise RunFailed(f"{len(failed)} of {len(results)} runs failed: {failed[0].outcome.error}")
    found = {result.planned.key: str(result.outcome.run) for result in results}
    return [StoredRun(runs / found[planned.key], data) for planned in plan]
