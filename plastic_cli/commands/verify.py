"""`plastic verify`: run recipes again and compare the results with the reference."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from plastic_cli.commands.invocation import FileOptions, RuleName, SweepInvocation
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_rows
from plastic_cli.commands.sweep import run_plan
from plastic_cli.config.model import field
from plastic_cli.errors import RunFailed
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.console import Console
from plastic_cli.sweeps.lookup import Planned, find, store_of
from plastic_cli.tables import duration
from plastic_cli.verbs.options import VerificationOptions
from plastic_cli.verbs.sweep import checked_plan
from plastic_cli.verbs.verify import (
    COLUMNS,
    CONFIDENCE,
    Check,
    JudgedMean,
    Verdict,
    chosen_checks,
    failure_text,
    judged,
    judged_means,
    mean_row,
    plan_of_checks,
    same_seed_text,
    settings_of,
    steps_of_checks,
    summary_text,
    verdict_rows,
)


class Options(FileOptions, VerificationOptions, SweepInvocation):
    """Options of `plastic verify`."""

    panel: ClassVar[str] = "Verification"

    recipe: str | None = field(
        None,
        "name of a recipe (see `plastic recipes`) or a TOML file; or --sample",
        argument="RECIPE",
        complete="recipe",
    )
    rule: list[RuleName] = field([], "only the runs of this rule (can be repeated)", complete="rule", repeat=True)
    runs: Path | None = field(
        None, "folder for the runs, in which they stay and can be continued (default: a temporary folder)", panel="Run"
    )
    dry_run: bool = field(False, "print the runs and what the reference holds of them, and stop", panel="Output")
    quiet: bool = field(False, "print no progress and no table: only one line if a run has shifted", panel="Output")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, verify)


def verify(options: Options) -> None:
    """Repeat the chosen runs and print where each result stands; raises RunFailed if one has shifted."""
    from plastic_cli.runs.reference import read_reference

    checks = chosen_checks(options.recipe, options, read_reference())
    if options.dry_run:
        _print_checks(checks, options)
        return
    kept = options.runs is not None
    with _folder_of_runs(options.runs) as folder:
        here = options.model_copy(update={"runs": folder})
        plan = checked_plan(plan_of_checks(checks), here, folder, here.data, steps_of_checks(checks))
        _warn_of_old_runs(plan, folder)
        verdicts = judged(checks, run_plan(plan, here) if plan else [], folder)
    means = judged_means(verdicts)
    _print_verdicts(verdicts, means, options)
    failure = failure_text(verdicts, means, exact=options.exact)
    left = sum(verdict.word == "not finished" for verdict in verdicts)
    if left and not (failure and not options.keep_going):
        again = "Repeat the same command to finish them" if kept else "With --runs FOLDER they can be finished later"
        _console(options).message(f"stopped: {left} of {len(verdicts)} runs are not finished. {again}")
        raise KeyboardInterrupt
    if failure is not None:
        raise RunFailed(failure)


@contextmanager
def _folder_of_runs(runs: Path | None) -> Iterator[Path]:
    """Yield the folder for the runs: the chosen one, or a temporary folder that is removed at the end."""
    if runs is not None:
        yield runs
        return
    with tempfile.TemporaryDirectory(prefix="plastic-verify-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _console(options: Options) -> Console:
    return Console(quiet=options.quiet or options.output_format() == "json")


def _warn_of_old_runs(plan: Sequence[Planned], folder: Path) -> None:
    """Say how many runs the folder holds already: they are judged and not repeated."""
    if not folder.is_dir():
        return
    store = store_of(folder.resolve())
    old = sum(find(store, planned).standing == "done" for planned in plan)
    if old:
        Console().warning(f"{folder} holds {old} of the {len(plan)} runs already: they are judged and not run again")


def _print_checks(checks: Sequence[Check], options: Options) -> None:
    """Print the runs that would be repeated, with the number of other seeds and the time in the reference."""
    rows = [
        {
            "recipe": check.recipe,
            "rule": check.planned.rule,
            "settings": settings_of(check.planned),
            "seed": check.planned.seed,
            "other seeds": len(check.others),
            "seconds": None if check.seconds is None else round(check.seconds, 1),
            "not comparable": check.reason,
        }
        for check in checks
    ]
    columns = [name for name in rows[0] if name != "not comparable" or any(row[name] for row in rows)]
    print_rows(rows, columns, options.output_format())
    comparable = [check for check in checks if check.reason is None]
    seconds = sum(check.seconds or 0.0 for check in comparable)
    times = f", about {duration(seconds)} one after the other" if comparable else ""
    Console().message(f"{len(comparable)} of {len(checks)} can be compared{times}")


def _print_verdicts(verdicts: Sequence[Verdict], means: Sequence[JudgedMean], options: Options) -> None:
    """Print where each run stands, and why runs cannot be compared."""
    output_format = options.output_format()
    if output_format == "json":
        for verdict in verdicts:
            print(json.dumps(_as_object(verdict, kept=options.runs is not None)))  # noqa: T201
        for mean in means:
            print(json.dumps(_mean_as_object(mean)))  # noqa: T201
        return
    if options.quiet:
        return
    if output_format == "csv":
        rows = [row for verdict in verdicts for row in verdict_rows(verdict)]
        if options.runs is None:
            rows = [{**row, "run": None} for row in rows]
        rows += [mean_row(mean) for mean in means]
        print_rows(rows, COLUMNS, "csv")
    else:
        _print_table(verdicts, output_format)
        _print_means(means, output_format)
    reasons: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.reason is not None and verdict.word == "not comparable":
            reasons[verdict.reason] = reasons.get(verdict.reason, 0) + 1
    for reason, number in reasons.items():
        runs = "1 run is" if number == 1 else f"{number} runs are"
        Console().message(f"{runs} not comparable: {reason}")
    for verdict in verdicts:
        if verdict.word == "failed":
            Console().message(f"failed: {verdict.check.planned.label}: {verdict.reason}")
    Console().message(summary_text(verdicts, means))


def _print_table(verdicts: Sequence[Verdict], output_format: str) -> None:
    rows = [
        {
            "recipe": row["recipe"],
            "run": verdict.check.planned.label,
            **_shown(row),
            "seeds": row["other_seeds"] or None,
            "verdict": row["verdict"],
            "same seed": same_seed_text(verdict),
        }
        for verdict in verdicts
        for row in verdict_rows(verdict)
    ]
    columns = ["run", "result", "value", "low", "high", "seeds", "verdict", "same seed"]
    if len({row["recipe"] for row in rows}) > 1:
        columns.insert(0, "recipe")
    numbers = sum(len(verdict.metrics) for verdict in verdicts)
    title = f"prediction intervals from the other seeds of the reference, together {100 * CONFIDENCE:g}%"
    print_rows(rows, columns, output_format, title if numbers else "", right=["value", "low", "high"])


def _print_means(means: Sequence[JudgedMean], output_format: str) -> None:
    """Print the means over the repeated seeds of each setting; small shifts of all seeds are seen there."""
    rows = [
        {
            "recipe": row["recipe"],
            "setting": row["settings"] or row["rule"],
            **_shown(row),
            "seeds": f"{row['repeated_seeds']} repeated, {row['other_seeds']} stored",
            "verdict": row["verdict"],
        }
        for row in map(mean_row, means)
    ]
    if not rows:
        return
    print()  # noqa: T201
    columns = ["setting", "result", "value", "low", "high", "seeds", "verdict"]
    if len({row["recipe"] for row in rows}) > 1:
        columns.insert(0, "recipe")
    title = "means over the repeated seeds, with the prediction interval from the seeds of the reference"
    print_rows(rows, columns, output_format, title, right=["value", "low", "high"])


def _shown(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the judged metric of a row as texts."""
    if row["metric"] is None:
        return dict.fromkeys(("result", "value", "low", "high"))
    metric = metric_of(row["metric"], row["rule"])
    # No value lies outside of what is possible, although the interval of few values may.
    least, most = metric.possible
    low, high = max(row["low"], least), min(row["high"], most)
    name = metric.heading if metric.unit_after else metric.name
    return {
        "result": name if row["step"] in (None, "train") else f"{row['step']}: {name}",
        "value": metric.number(row["value"]),
        "low": metric.number(low),
        "high": metric.number(high),
    }


def _mean_as_object(mean: JudgedMean) -> dict[str, Any]:
    """Return the mean over the repeated seeds of a setting as `--json` prints it."""
    row = mean_row(mean)
    about = ("recipe", "rule", "settings", "metric", "verdict", "value", "mean", "low", "high", "repeated_seeds")
    return {**{name: row[name] for name in about}, "stored_seeds": row["other_seeds"], "shifted": mean.alarm}


def _as_object(verdict: Verdict, *, kept: bool) -> dict[str, Any]:
    """Return the verdict of one run as `--json` prints it."""
    row = verdict_rows(verdict)[0]
    about = ("recipe", "rule", "settings", "seed", "verdict", "other_seeds", "same_seed")
    largest = verdict.largest_difference
    return {
        **{name: row[name] for name in about},
        "verdict": verdict.word,
        "shifted": verdict.alarm,
        "metrics": {
            (f"{judged.step}: " if judged.step else "") + judged.metric: {
                "value": judged.value,
                **{name: getattr(judged.interval, name) for name in ("mean", "low", "high")},
                "inside": judged.inside,
            }
            for judged in verdict.metrics
        },
        "difference": None if largest is None or math.isinf(largest) else largest,
        "differences": {name: list(pair) for name, pair in (verdict.differences or {}).items()},
        "conditions": list(verdict.conditions),
        "run": verdict.run if kept else None,
        "seconds": verdict.seconds,
        **({"reason": verdict.reason} if verdict.reason else {}),
    }
