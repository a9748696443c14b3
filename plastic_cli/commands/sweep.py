"""`plastic sweep` and `plastic train RULE --grid`: many runs, their progress and their results."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

from plastic_cli.commands.invocation import FileOptions, RuleName, SweepInvocation
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_next, print_rows
from plastic_cli.config.model import field
from plastic_cli.errors import RunFailed, did_you_mean
from plastic_cli.escapes import printable_line
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.signals import TWICE, signals_as_interrupts
from plastic_cli.sweeps.engine import Progress, Sweep, SweepRun
from plastic_cli.sweeps.lookup import Found, find_run, store_of
from plastic_cli.sweeps.plan import PlannedRun, filter_runs, option_text, plan_recipe
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe, tables_of
from plastic_cli.tables import duration
from plastic_cli.verbs.sweep import checked_plan

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
    plan = checked_plan(plan, options, store, options.data)
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
    if options.format == "table":
        print_next(_next_commands(plan), options, options.console())


def _next_commands(plan: Sequence[PlannedRun]) -> list[str]:
    rules = {planned.rule for planned in plan}
    varied = [name for planned in plan for name in planned.varied if name != "seed"]
    plot = [f"plastic plot --rule {rules.pop()} --by {_typed(varied[0])}"] if len(rules) == 1 and varied else []
    return ["plastic report", *plot, "plastic runs"]


def run_plan(plan: Sequence[PlannedRun], options: SweepInvocation, arguments: tuple[str, ...] = ()) -> list[SweepRun]:
    """Carry out a plan with a display on stderr, and return the result of each run."""
    store = options.runs_folder()
    quiet = options.quiet or options.output_format() == "json"
    with signals_as_interrupts(TWICE), open_pool(options.scheduler, options.workers, options.threads) as pool:
        threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
        Console(quiet=quiet).message(f"{_runs(len(plan))} in {store}, {pool.description}, {threads} each")
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
    """Print one row for runs that differ only in their seed: how many are done, and the mean of their main metric."""
    from plastic_cli.statistics.intervals import interval_method, mean_interval

    groups: dict[str, list[SweepRun]] = {}
    for result in results:
        varied = {name: value for name, value in result.planned.varied.items() if name != "seed"}
        key = json.dumps([result.planned.name, result.planned.rule, varied], default=str)
        groups.setdefault(key, []).append(result)
    rows, known = [], False
    for members in groups.values():
        row = _row(members[0].planned)
        done = [member for member in members if member.word == "done"]
        row["runs"] = str(len(members)) if len(done) == len(members) else f"{len(done)} of {len(members)}"
        names = dict.fromkeys(_headline(member)[0] for member in done)
        values = [value for member in done for value in [_headline(member)[1]] if value is not None]
        name = next(iter(names), None)
        if len(names) == 1 and values and name is not None:
            metric, interval = metric_of(name, row["rule"]), mean_interval(values)
            known = known or interval.known
            numbers = {bound: metric.number(getattr(interval, bound)) for bound in ("mean", "low", "high")}
            row.update({"result": metric.name, **numbers, "unit": metric.unit_after})
        rows.append(row)
    columns = [column for column in _columns([result.planned for result in results]) if column != "seed"]
    columns += ["runs", "result", "mean", *(["low", "high"] if known else [])]
    columns += ["unit"] if any(row.get("unit") for row in rows) else []
    title = f"mean of each setting, {interval_method()}" if known else "mean of each setting"
    shown = [{_typed(name): value for name, value in row.items()} for row in rows]
    print_rows(shown, list(map(_typed, columns)), "table", title, right=["runs", "mean", "low", "high"])


def _typed(name: str) -> str:
    """Return the name of an option as it is typed: learning-rate for learning_rate."""
    return name.replace("_", "-")


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
    """A display that is redrawn: a bar, the times, the number of runs in each state, and the runs under way."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def show(self, progress: Progress) -> None:
        from rich.console import Group
        from rich.text import Text

        ended = [result for result in progress.results if result.word == "failed"][-SHOWN_AT_ONCE:]
        failed = [
            Text(printable_line(f" failed: {result.planned.label}: {result.outcome.error}"), "red") for result in ended
        ]
        now = time.monotonic()
        running = [
            Text(printable_line(f" {_clock(now - run.began)}  {run.planned.label}"))
            for run in progress.running[:SHOWN_AT_ONCE]
        ]
        hidden = len(progress.running) - len(running)
        if hidden:
            running.append(Text(f" and {hidden} more"))
        lines = [*running, *failed]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        self._live.update(Group(self._bar(progress, now), Text(f" {_counts(progress)}"), *lines))

    def _bar(self, progress: Progress, now: float) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 1))
        ended = len(progress.results)
        left = progress.seconds_left()
        line.add_row(
            f"runs {ended}/{progress.total}",
            ProgressBar(total=max(1, progress.total), completed=ended, width=30),
            _clock(now - progress.began),
            f"left {_clock(left)}",
        )
        return line


def _counts(progress: Progress) -> str:
    """Return how many runs are in each state: "3 running, 1 failed, 8 waiting"."""
    failed, waiting = progress.count("failed"), len(progress.waiting) - progress.elsewhere
    counts = {"running": len(progress.running), "failed": failed, "waiting": waiting}
    parts = [f"{number} {word}" for word, number in counts.items() if number or word == "running"]
    if progress.elsewhere:
        parts.append(f"{progress.elsewhere} running in another process")
    if progress.stopping:
        parts.append("stopping: runs write their checkpoints")
    elif not progress.slots:
        parts.append("waiting for a worker")
    return ", ".join(parts)


def _clock(seconds: float | None) -> str:
    """Return a time as the progress bar of a run shows it: 0:01:30, or -:--:-- if it is not known."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
