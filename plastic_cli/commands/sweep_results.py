"""The plan and the results of a sweep on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plastic_cli.commands.invocation import SweepInvocation
from plastic_cli.commands.show import print_rows
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.console import Console
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.sweeps.engine import SweepRun
from plastic_cli.sweeps.lookup import Found, Planned, find, store_of
from plastic_cli.sweeps.plan import PlannedRun, option_text
from plastic_cli.sweeps.steps import PlannedStep, run_of
from plastic_cli.tables import duration

MOST_LABELS = 3
"""Of runs that failed for one reason this number is named."""


def print_plan(plan: Sequence[Planned], options: SweepInvocation) -> None:
    """Print the runs and steps of a plan, and which of them are done and which are left."""
    store = store_of(options.runs_folder().resolve())
    found = [find(store, planned) for planned in plan]
    columns = [*_columns(plan), "status", "run"]
    rows = [{**_row(planned), "status": _standing(at), "run": at.run} for planned, at in zip(plan, found, strict=True)]
    print_rows(rows, columns, options.output_format())
    left = [planned for planned, at in zip(plan, found, strict=True) if at.standing != "done"]
    known = [planned.minutes for planned in left if planned.minutes is not None]
    without_steps = [planned for planned in left if planned.minutes is None and isinstance(planned, PlannedStep)]
    time_left = f", about {duration(60 * sum(known))} one after the other" if known else ""
    if len(known) + len(without_steps) < len(left):
        time_left = ""
    elif without_steps and time_left:
        time_left += f", and {counted(without_steps)} of unknown time"
    Console().message(f"{counted(plan)}: {len(plan) - len(left)} done, {len(left)} left{time_left}")


def counted(plan: Sequence[Planned]) -> str:
    """Return the number of runs and steps in words: "3 runs and 1 step"."""
    steps = sum(isinstance(planned, PlannedStep) for planned in plan)
    numbers = [(len(plan) - steps, "run"), (steps, "step")]
    words = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in numbers if number]
    return " and ".join(words) or "0 runs"


def print_results(results: Sequence[SweepRun], options: SweepInvocation) -> None:
    """Print the result of each run and step; in a table, the mean of those that differ only in their seed."""
    store, output_format = options.runs_folder(), options.output_format()
    if options.quiet and output_format != "json":
        for result in results:
            if result.word == "done" and isinstance(result.planned, PlannedRun):
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
    """Print one row for runs and steps that differ only in their seed: how many are done, and their main metric."""
    from plastic_cli.reports.numbers import possible_ends, shown_interval
    from plastic_cli.statistics.intervals import mean_interval

    groups: dict[str, list[SweepRun]] = {}
    for result in results:
        row = _row(result.planned)
        key = json.dumps({name: value for name, value in row.items() if name != "seed"}, default=str)
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
            ends = zip(("mean", "low", "high"), (interval.mean, *possible_ends(interval, metric)), strict=True)
            numbers = {bound: metric.number(value) for bound, value in ends}
            row.update({"result": metric.name, **numbers, "unit": metric.unit_after})
        rows.append(row)
    columns = [column for column in _columns([result.planned for result in results]) if column != "seed"]
    columns += ["runs", "result", "mean", *(["low", "high"] if known else [])]
    columns += ["unit"] if any(row.get("unit") for row in rows) else []
    title = f"mean of each setting, {shown_interval()}" if known else "mean of each setting"
    shown = [{typed_name(name): value for name, value in row.items()} for row in rows]
    print_rows(shown, list(map(typed_name, columns)), "table", title, right=["runs", "mean", "low", "high"])


def typed_name(name: str) -> str:
    """Return the name of an option as it is typed: learning-rate for learning_rate."""
    return name.replace("_", "-")


def print_failures(failed: Sequence[SweepRun], options: SweepInvocation) -> None:
    """Print why runs and steps failed, each reason once, and where the output is."""
    if options.quiet:
        return
    console = Console()
    of_error: dict[str | None, list[SweepRun]] = {}
    for result in failed:
        of_error.setdefault(result.outcome.error, []).append(result)
    for error, results in of_error.items():
        labels = [result.planned.label for result in results]
        more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
        console.message(f"failed: {', '.join(labels[:MOST_LABELS])}{more}: {error}")
        log = next((result.log for result in results if result.log is not None), None)
        if log is not None:
            console.message(f"  {'its output' if len(results) == 1 else 'output of one of them'}: {log}")


def _as_object(result: SweepRun, runs: Path) -> dict[str, Any]:
    outcome, planned = result.outcome, result.planned
    return {
        "run": outcome.run,
        "rule": planned.rule,
        "seed": planned.seed,
        "settings": {name: value for name, value in run_of(planned).varied.items() if name != "seed"},
        **({"step": planned.verb, "options": planned.typed} if isinstance(planned, PlannedStep) else {}),
        "status": {"done": "completed"}.get(result.word, result.word),
        "new": result.fresh,
        "folder": str(runs / outcome.run) if outcome.run else None,
        "seconds": round(outcome.seconds, 3),
        "metrics": dict(outcome.summary),
        **({"files": list(outcome.files)} if isinstance(planned, PlannedStep) else {}),
        **({"error": outcome.error} if outcome.error else {}),
        **({"log": str(result.log)} if result.log else {}),
    }


def _headline(result: SweepRun) -> tuple[str | None, float | None]:
    summary = result.outcome.summary
    name = next((name for name in MAIN_METRICS if name in summary), next(iter(summary), None))
    return name, None if name is None else summary[name]


def _columns(plan: Sequence[Planned]) -> list[str]:
    """Return the columns that distinguish runs and steps: name, rule, varied options, seed, step."""
    varied = dict.fromkeys(name for planned in plan for name in run_of(planned).varied if name != "seed")
    names = ["name"] if any(run_of(planned).name for planned in plan) else []
    step = ["step"] if any(isinstance(planned, PlannedStep) for planned in plan) else []
    return [*names, "rule", *varied, "seed", *step]


def _row(planned: Planned) -> dict[str, Any]:
    run = run_of(planned)
    varied = {name: option_text(value) for name, value in run.varied.items()}
    step = planned.command if isinstance(planned, PlannedStep) else "train"
    return {"name": run.name, "rule": run.rule, **varied, "seed": run.seed, "step": step}


def _standing(found: Found) -> str:
    words = {"done": "done", "running": "running", "unfinished": "to be finished", "failed": "failed, left"}
    return words.get(found.standing, "left")
