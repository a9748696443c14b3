"""`plastic sweep` and `plastic train RULE --grid`: many runs, the steps on them, and their results."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from plastic_cli.api.suite_report import SuiteReport, is_written, planned_report, write_report
from plastic_cli.commands.invocation import FileOptions, RuleName, SweepInvocation
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_next
from plastic_cli.commands.sweep_progress import display
from plastic_cli.commands.sweep_results import counted, print_failures, print_plan, print_results, typed_name
from plastic_cli.config.model import field
from plastic_cli.errors import RunFailed, did_you_mean
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.reports.options import PAGE
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import find_exports
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Sweep, SweepRun
from plastic_cli.sweeps.lookup import Planned
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.recipe import RecipeFile, tables_of
from plastic_cli.sweeps.steps import PlannedStep
from plastic_cli.verbs.suite import planned_suite
from plastic_cli.verbs.sweep import checked_plan


class Options(FileOptions, SweepInvocation):
    """Options of `plastic sweep`."""

    panel: ClassVar[str] = "Recipe"

    recipe: str = field(
        ..., "name of a recipe (see `plastic recipes`) or a TOML file", argument="RECIPE", complete="recipe"
    )
    seeds: int | None = field(None, "number of seeds; overrides the recipe", ge=1)
    rule: list[RuleName] = field([], "only the runs of this rule (can be repeated)", complete="rule", repeat=True)
    only: list[str] = field(
        [], "only the runs with NAME=VALUE, or with one of NAME=VALUE,VALUE (can be repeated)", repeat=True
    )
    steps: bool = field(
        True, "also carry out the steps of the recipe and write its report, or only train", option="--steps/--no-steps"
    )
    output: Path | None = field(
        None, "folder for the report (default: for a recipe with a report, reports/RECIPE in the store)", panel="Output"
    )
    dry_run: bool = field(
        False, "print the runs and steps, which are done and which are left, and stop", panel="Output"
    )
    quiet: bool = field(False, "print no progress, and only the folders of the runs at the end", panel="Output")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, sweep)


def sweep(options: Options) -> None:
    """Carry out the runs and steps of a recipe that the store does not hold yet, and write its report."""
    suite = planned_suite(
        options.recipe, seeds=options.seeds, rules=options.rule, only=options.only, with_steps=options.steps
    )
    check_claims(suite.file)
    report = planned_report(suite, options.runs_folder(), options.output)
    if options.scheduler is None and not options.dry_run:
        # An exporter of PLASTIC_EXPORT that does not work would make every run fail.
        find_exports(None, Console().warning)
    carry_out_plan(suite.plan, options, steps=suite.steps, report=report)


def check_claims(file: RecipeFile) -> None:
    """Raise UserError if a recipe names a claim that its rules do not have."""
    rules = dict.fromkeys(str(table.rule) for _, tables in tables_of(file.recipe) for table in tables if table.rule)
    texts = [find_rule(rule).claims_text() or "" for rule in rules]
    known = [str(entry.get("id")) for text in texts for entry in tomllib.loads(text).get("claim", [])]
    for claim in file.recipe.claims:
        if claim not in known:
            owners = f"the claims.toml of {' and '.join(rules)}"
            raise file.error(("claims",), f"there is no claim '{claim}' in {owners}.{did_you_mean(claim, known)}")


def carry_out_plan(
    plan: Sequence[PlannedRun],
    options: SweepInvocation,
    arguments: tuple[str, ...] = (),
    *,
    steps: Sequence[PlannedStep] = (),
    report: SuiteReport | None = None,
) -> None:
    """Carry out a plan, or print it; `arguments` are added to every `plastic train`.

    steps: what is carried out on the runs. report: what is written about the runs at the end. Raises RunFailed if runs
    or steps failed, KeyboardInterrupt if they were stopped.
    """
    everything = checked_plan(plan, options, options.runs_folder(), options.data, steps)
    if options.dry_run:
        print_plan(everything, options)
        if report is not None:
            written = is_written(report, options.runs_folder(), everything)
            Console().message(f"report: {report.folder} ({'done' if written else 'left'})")
        return
    order = {planned.key: number for number, planned in enumerate(everything)}
    results = sorted(run_plan(everything, options, arguments), key=lambda result: order[result.planned.key])
    print_results(results, options)
    failed = [result for result in results if result.word == "failed"]
    print_failures(failed, options)
    if any(result.word in ("interrupted", "left") for result in results) and not (failed and not options.keep_going):
        if not options.quiet:
            begun = sum(result.word == "interrupted" for result in results)
            left = sum(result.word in ("left", "blocked") for result in results)
            Console().message(f"stopped: {begun} started, {left} not started. Repeat the same command to finish them")
        raise KeyboardInterrupt
    if report is not None and (options.keep_going or not failed):
        _write_report(report, everything, options)
    if failed:
        total = counted([result.planned for result in results])
        raise RunFailed(f"{len(failed)} of {total} failed: {failed[0].outcome.error}")
    if options.format == "table":
        print_next(_next_commands(plan), options, options.console())


def _write_report(report: SuiteReport, everything: Sequence[Planned], options: SweepInvocation) -> None:
    if not is_written(report, options.runs_folder(), everything):
        write_report(report, options.runs_folder(), everything, options.console())
    if options.output_format() == "json":
        print(json.dumps({"report": str(report.folder)}))  # noqa: T201
    else:
        options.console().message(f"report: {report.folder / PAGE}")


def _next_commands(plan: Sequence[PlannedRun]) -> list[str]:
    rules = {planned.rule for planned in plan}
    varied = [name for planned in plan for name in planned.varied if name != "seed"]
    plot = [f"plastic plot --rule {rules.pop()} --by {typed_name(varied[0])}"] if len(rules) == 1 and varied else []
    return ["plastic report", *plot, "plastic runs"]


def run_plan(plan: Sequence[Planned], options: SweepInvocation, arguments: tuple[str, ...] = ()) -> list[SweepRun]:
    """Carry out a plan with a display on stderr, and return the result of each run and step."""
    store = options.runs_folder()
    quiet = options.quiet or options.output_format() == "json"
    what = "runs and steps" if any(isinstance(planned, PlannedStep) for planned in plan) else "runs"
    with signals_as_interrupts(TWICE), open_pool(options.scheduler, options.workers, options.threads) as pool:
        threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
        Console(quiet=quiet).message(f"{counted(plan)} in {store}, {pool.description}, {threads} each")
        with display(quiet, what) as shown:
            sweep = Sweep(plan, pool, store, options, data=options.data, arguments=arguments)
            return sweep.run(shown.show)
