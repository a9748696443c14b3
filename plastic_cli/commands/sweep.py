"""`plastic sweep` and `plastic train RULE --grid`: many runs, their progress and their results."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from plastic_cli.commands.invocation import FileOptions, RuleName, SweepInvocation
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_rows
from plastic_cli.config.model import field
from plastic_cli.errors import RunFailed, UserError, did_you_mean
from plastic_cli.escapes import printable_line
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep, SweepRun
from plastic_cli.sweeps.lookup import Found, find_run, store_of, with_data
from plastic_cli.sweeps.plan import PlannedRun, filter_runs, option_text, plan_recipe
from plastic_cli.sweeps.pools import check_scheduler, open_pool
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe, tables_of
from plastic_cli.tables import duration

SHOWN_AT_ONCE = 12
"""Running and failed runs that the live table lists."""


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
    dry_run: bool = field(False, "print the runs, which are done and which are left, and stop", panel="Output")
    quiet: bool = field(False, "print no progress, and only the folders of the runs at the end", panel="Output")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, sweep)


def sweep(options: Options) -> None:
    """Carry out the runs of a recipe that the store does not hold yet."""
    file = read_recipe(options.recipe)
    plan = filter_runs(plan_recipe(file, seeds=options.seeds, rules=options.rule), options.only)
    check_claims(file)
    if options.scheduler is None and not options.dry_run:
        # An exporter of PLASTIC_EXPORT that does not work would make every run fail.
        find_exports(None, Console().warning)
    carry_out_plan(plan, options)


def check_claims(file: RecipeFile) -> None:
    """Raise UserError if a recipe names a claim that its rules do not have."""
    rules = dict.fromkeys(str(table.rule) for _, tables in tables_of(file.recipe) for table in tables if table.rule)
    texts = [find_rule(rule).claims_text() or "" for rule in rules]
    known = [str(entry.get("id")) for text in texts for entry in tomllib.loads(text).get("claim", [])]
    for claim in file.recipe.claims:
        if claim not in known:
            owners = f"the claims.toml of {' and '.join(rules)}"
            raise file.error(("claims",), f"there is no claim '{claim}' in {owners}.{did_you_mean(claim, known)}")


def carry_out_plan(plan: Sequence[PlannedRun], options: SweepInvocation, arguments: tuple[str, ...] = ()) -> None:
    """Carry out a plan, or print it; `arguments` are added to every `plastic train`.

    Raises RunFailed if runs failed, KeyboardInterrupt if they were stopped.
    """
    store = options.runs_folder()
    if store.exists() and not store.is_dir():
        raise UserError(f"cannot write to {store}: it is not a folder. Choose another with --runs.")
    check_scheduler(options.scheduler, options.workers)
    if options.scheduler is None:
        _check_devices(plan)
    plan = with_data(plan, options.data, store)
    if options.dry_run:
        print_plan(plan, options)
        return
    order = {planned.key: number for number, planned in enumerate(plan)}
    results = sorted(run_plan(plan, options, arguments), key=lambda result: order[result.planned.key])
    print_results(results, options)
    failed = [result for result in results if result.word == "failed"]
    _print_failures(failed, options)
    if any(result.word in ("interrupted", "left") for result in results) and not (failed and not options.keep_going):
        if not options.quiet:
            begun = sum(result.word == "interrupted" for result in results)
            left = sum(result.word == "left" for result in results)
            Console().message(f"stopped: {begun} started, {left} not started. Repeat the same command to finish them")
        raise KeyboardInterrupt
    if failed:
        raise RunFailed(f"{len(failed)} of {_runs(len(results))} failed: {failed[0].outcome.error}")


def _check_devices(plan: Sequence[PlannedRun]) -> None:
    """Raise UserError if a run on this machine asks for a GPU that torch does not find."""
    for device in {planned.config.get("device") for planned in plan} & {"cuda", "mps"}:
        from plastic_cli.numerics.devices import find_device

        find_device(str(device))


def run_plan(plan: Sequence[PlannedRun], options: SweepInvocation, arguments: tuple[str, ...] = ()) -> list[SweepRun]:
    """Carry out a plan with a display on stderr, and return the result of each run."""
    store = options.runs_folder()
    quiet = options.quiet or options.output_format() == "json"
    with signals_as_interrupts(TWICE), open_pool(options.scheduler, options.workers) as pool:
        Console(quiet=quiet).message(f"{_runs(len(plan))} in {store}, {pool.description}")
        with _display(quiet) as display:
            sweep = Sweep(plan, pool, store, options, data=options.data, arguments=arguments)
            return sweep.run(display.show)


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def print_plan(plan: Sequence[PlannedRun], options: SweepInvocation) -> None:
    """Print the runs of a plan, and which of them are done and which are left."""
    store = store_of(options.runs_folder().resolve())
    found = [find_run(store, planned) for planned in plan]
    columns = [*_columns(plan), "status", "run"]
    rows = [{**_row(planned), "status": _standing(at), "run": at.run} for planned, at in zip(plan, found, strict=True)]
    print_rows(rows, columns, options.output_format())
    left = [planned for planned, at in zip(plan, found, strict=True) if at.standing != "done"]
    minutes = [planned.minutes for planned in left]
    known = sum(value for value in minutes if value is not None)
    time_left = f", about {duration(60 * known)} one after the other" if left and None not in minutes else ""
    Console().message(f"{_runs(len(plan))}: {len(plan) - len(left)} done, {len(left)} left{time_left}")


def print_results(results: Sequence[SweepRun], options: SweepInvocation) -> None:
    """Print the result of each run; in a table, the mean of the runs that differ only in their seed."""
    store, output_format = options.runs_folder(), options.output_format()
    if options.quiet and output_format != "json":
        for result in results:
            if result.word == "done":
                print(store / str(result.outcome.run))  # noqa: T201
        return
    if output_format == "json":
        for result in results:
            print(json.dumps(_as_object(result, store)))  # noqa: T201
        return
    plan = [result.planned for result in results]
    if output_format != "table":
        rows = []
        for result in results:
            headline = _headline(result)
            rows.append(
                {
                    **_row(result.planned),
                    "status": result.word,
                    "run": result.outcome.run,
                    "seconds": round(result.outcome.seconds, 1),
                    "metric": headline[0],
                    "value": headline[1],
                }
            )
        print_rows(rows, [*_columns(plan), "status", "run", "seconds", "metric", "value"], output_format)
        return
    _print_groups(results)


def _print_groups(results: Sequence[SweepRun]) -> None:
    from plastic_cli.statistics.intervals import mean_interval

    groups: dict[str, list[SweepRun]] = {}
    for result in results:
        varied = {name: value for name, value in result.planned.varied.items() if name != "seed"}
        groups.setdefault(json.dumps([result.planned.name, result.planned.rule, varied], default=str), []).append(
            result
        )
    columns = [column for column in _columns([result.planned for result in results]) if column != "seed"]
    rows = []
    for members in groups.values():
        row = _row(members[0].planned)
        done = [member for member in members if member.word == "done"]
        row.update({"runs": len(members), "done": len(done)})
        names = dict.fromkeys(_headline(member)[0] for member in done)
        values = [value for member in done for value in [_headline(member)[1]] if value is not None]
        if len(names) == 1 and values:
            interval = mean_interval(values)
            row.update({"metric": next(iter(names)), "mean": interval.mean, "low": interval.low, "high": interval.high})
        rows.append(row)
    print_rows(rows, [*columns, "runs", "done", "metric", "mean", "low", "high"], "table")


def _print_failures(failed: Sequence[SweepRun], options: SweepInvocation) -> None:
    if options.quiet:
        return
    console = Console()
    for result in failed:
        console.message(f"failed: {result.planned.label}: {result.outcome.error}")
        if result.log is not None:
            console.message(f"  its output: {result.log}")


def _as_object(result: SweepRun, runs: Path) -> dict[str, Any]:
    outcome = result.outcome
    return {
        "run": outcome.run,
        "rule": result.planned.rule,
        "seed": result.planned.seed,
        "settings": {name: value for name, value in result.planned.varied.items() if name != "seed"},
        "status": {"done": "completed"}.get(result.word, result.word),
        "new": result.fresh,
        "folder": str(runs / outcome.run) if outcome.run else None,
        "seconds": round(outcome.seconds, 3),
        "metrics": dict(outcome.summary),
        **({"error": outcome.error} if outcome.error else {}),
        **({"log": str(result.log)} if result.log else {}),
    }


def _headline(result: SweepRun) -> tuple[str | None, float | None]:
    summary = result.outcome.summary
    name = next((name for name in MAIN_METRICS if name in summary), next(iter(summary), None))
    return name, None if name is None else summary[name]


def _columns(plan: Sequence[PlannedRun]) -> list[str]:
    """Return the columns that distinguish runs: name, rule, varied options, seed."""
    varied = dict.fromkeys(name for planned in plan for name in planned.varied if name != "seed")
    names = ["name"] if any(planned.name for planned in plan) else []
    return [*names, "rule", *varied, "seed"]


def _row(planned: PlannedRun) -> dict[str, Any]:
    varied = {name: option_text(value) for name, value in planned.varied.items()}
    return {"name": planned.name, "rule": planned.rule, **varied, "seed": planned.seed}


def _standing(found: Found) -> str:
    words = {"done": "done", "running": "running", "unfinished": "to be finished", "failed": "failed, left"}
    return words.get(found.standing, "left")


class _Display(Protocol):
    def show(self, progress: Progress) -> None:
        """Show the state of the sweep."""


@contextmanager
def _display(quiet: bool) -> Iterator[_Display]:
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        from rich.console import Console as RichConsole
        from rich.live import Live

        with Live(console=RichConsole(stderr=True), refresh_per_second=4, transient=True) as live:
            yield _Table(live)
    else:
        yield _Lines()


class _Silent:
    def show(self, progress: Progress) -> None:
        pass


class _Lines:
    """One line for each run that ended, for a log file."""

    def __init__(self) -> None:
        self._printed = 0
        self._stopping = False
        self._no_worker = False

    def show(self, progress: Progress) -> None:
        console = Console()
        for result in progress.results[self._printed :]:
            if result.word == "left":
                continue
            took = f" ({duration(result.outcome.seconds)})" if result.fresh else " (already in the store)"
            error = f": {result.outcome.error}" if result.word == "failed" else ""
            number = f"{self._printed + 1}/{progress.total}"
            left = progress.seconds_left()
            rest = f", {duration(left)} left" if left and result.fresh and not error else ""
            console.message(f"[{number}] {result.word} {result.planned.label}{error or took}{rest}")
            self._printed += 1
        if progress.stopping and not self._stopping:
            console.message("stopping: the runs that are running write their checkpoints")
            self._stopping = True
        if not progress.slots and progress.waiting and not self._no_worker:
            console.message("waiting for a worker")
            self._no_worker = True


class _Table:
    """A table that is redrawn: the number of runs in each state, and the runs that are running."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def show(self, progress: Progress) -> None:
        from rich.table import Table
        from rich.text import Text

        left = progress.seconds_left()
        waiting = len(progress.waiting) - progress.elsewhere
        parts = [
            f"{progress.count('done')} done",
            f"{len(progress.running)} running",
            f"{progress.count('failed')} failed",
            f"{waiting} left",
        ]
        if progress.elsewhere:
            parts.append(f"{progress.elsewhere} running in another process")
        if progress.stopping:
            parts.append("stopping: runs write their checkpoints")
        elif not progress.slots:
            parts.append("waiting for a worker")
        elif left:
            parts.append(f"about {duration(left)} left")
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for run in progress.running[:SHOWN_AT_ONCE]:
            table.add_row(Text("running"), Text(printable_line(run.planned.label)), Text(duration(now - run.began)))
        failed = [result for result in progress.results if result.word == "failed"]
        for result in failed[-SHOWN_AT_ONCE:]:
            table.add_row(
                Text("failed"),
                Text(printable_line(result.planned.label)),
                Text(printable_line(str(result.outcome.error))),
            )
        whole = Table.grid()
        whole.add_row(Text(f"{_runs(progress.total)}: " + ", ".join(parts)))
        whole.add_row(table)
        self._live.update(whole)
