"""`plastic.sweep`: the runs and steps of a recipe, as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plastic_cli.api.console import PythonConsole
from plastic_cli.api.suite_report import is_written, planned_report, write_report
from plastic_cli.config.model import field
from plastic_cli.errors import OptionError, RunFailed, did_you_mean
from plastic_cli.runs.stored import StoredRun
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep, SweepRun
from plastic_cli.sweeps.lookup import Planned
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.steps import PlannedStep
from plastic_cli.verbs.options import DataOptions, RunsOptions
from plastic_cli.verbs.suite import planned_suite
from plastic_cli.verbs.sweep import checked_plan


class RecipeOptions(DataOptions, RunsOptions, SweepOptions):
    """The options of `plastic.sweep`."""

    seeds: int | None = field(None, "number of seeds; overrides the recipe", ge=1)
    rule: list[str] = field([], "only the runs of these rules")
    only: list[str] = field([], "only the runs with NAME=VALUE, or with one of NAME=VALUE,VALUE")
    steps: bool = field(True, "also carry out the steps of the recipe and write its report")
    output: Path | None = field(None, "folder for the report")
    quiet: bool = field(False, "show no progress")


@dataclass(frozen=True)
class SweptStep:
    """A step of a recipe that was carried out on one run.

    verb: eval, analyze or render. options: those that the recipe names. results: the last value of each metric, None if
    it was not finite. files: what it wrote.
    """

    run: StoredRun
    verb: str
    options: Mapping[str, Any]
    results: Mapping[str, float | None]
    files: tuple[Path, ...]
    seconds: float


class SweptRuns(list[StoredRun]):
    """The runs of a sweep in the order of the recipe, the steps that were carried out on them, and their report.

    steps: none for a recipe without steps. report: the folder of the report; None: there is none.
    """

    steps: list[SweptStep]
    report: Path | None

    def __init__(
        self, runs: Sequence[StoredRun] = (), steps: Sequence[SweptStep] = (), report: Path | None = None
    ) -> None:
        super().__init__(runs)
        self.steps, self.report = list(steps), report


def sweep(recipe: str | Path, **options: Any) -> SweptRuns:
    """Carry out what the store does not hold yet of a recipe, and return all its runs in their order, as a list.

    Its attribute `steps` lists the evaluations, analyses and films of the recipe, and `report` is the folder of its
    report.

    recipe: the name of a recipe that comes with plastic, or a TOML file. options: those of `plastic sweep`: `seeds`,
    `rule` and `only` (a text or a list), `steps` (False: only train), `output` (the folder of the report), `workers`,
    `runs` and `data` (folders), `retry`, `timeout`, `keep_going`, `scheduler`, `quiet`.

    Raises UserError, a ValueError, for an unknown recipe or a wrong option; RunFailed if runs or steps failed.
    """
    for name in options:
        if name not in RecipeOptions.model_fields:
            raise OptionError(f"there is no option '{name}'.{did_you_mean(name, RecipeOptions.model_fields)}", name)
    chosen = RecipeOptions.from_values(options)
    suite = planned_suite(str(recipe), seeds=chosen.seeds, rules=chosen.rule, only=chosen.only, with_steps=chosen.steps)
    runs, console = chosen.runs_folder(), PythonConsole(quiet=chosen.quiet)
    report = planned_report(suite, runs, chosen.output)
    everything = checked_plan(suite.plan, chosen, runs, chosen.data, suite.steps)
    swept = _carried_out(everything, chosen, runs, chosen.data, console)
    if report is not None:
        if not is_written(report, runs, everything):
            write_report(report, runs, everything, console)
        swept.report = report.folder
    return swept


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
    return _carried_out(checked_plan(plan, options, runs, data), options, runs, data, console, arguments)


def _carried_out(
    plan: Sequence[Planned],
    options: SweepOptions,
    runs: Path,
    data: Path | None,
    console: PythonConsole,
    arguments: tuple[str, ...] = (),
) -> SweptRuns:
    steps = sum(isinstance(planned, PlannedStep) for planned in plan)
    what = "runs and steps" if steps else "runs"
    with (
        signals_as_interrupts(TWICE),
        open_pool(options.scheduler, options.workers, options.threads) as pool,
        console.progress("run or step" if steps else "run", len(plan), 0) as bar,
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
        message = f"{len(stopped)} of {len(plan)} {what} are not finished: repeat the call to finish them"
        raise KeyboardInterrupt(message)
    if failed:
        raise RunFailed(f"{len(failed)} of {len(results)} {what} failed: {failed[0].outcome.error}")
    found = {result.planned.key: result for result in results}
    in_order = [found[planned.key] for planned in plan]
    stored = [_stored(result, runs, data) for result in in_order if isinstance(result.planned, PlannedRun)]
    return SweptRuns(stored, [_step(result, runs, data) for result in in_order[len(stored) :]])


def _stored(result: SweepRun, runs: Path, data: Path | None) -> StoredRun:
    return StoredRun(runs / str(result.outcome.run), data)


def _step(result: SweepRun, runs: Path, data: Path | None) -> SweptStep:
    step, outcome, run = result.planned, result.outcome, _stored(result, runs, data)
    assert isinstance(step, PlannedStep)
    files = tuple(run.folder / name for name in outcome.files)
    return SweptStep(run, step.verb, step.typed, outcome.summary, files, outcome.seconds)
