"""Printing tables and results on stdout, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.escapes import csv_cell, printable_line
from plastic_cli.tables import Cell, Column, Table, markdown, print_tables

if TYPE_CHECKING:
    from plastic_cli.commands.invocation import Invocation
    from plastic_cli.runs.run import Run

FORMATS = ("table", "markdown", "csv", "json")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output_format: str, title: str = "") -> None:
    """Print rows as a table for reading, Markdown, CSV or JSON; raises UserError for another format."""
    if output_format == "json":
        print(json.dumps([{column: row.get(column) for column in columns} for row in rows], default=str))  # noqa: T201
    elif output_format == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([csv_cell(column) for column in columns])
        writer.writerows([[csv_cell(_plain(row.get(column))) for column in columns] for row in rows])
        sys.stdout.write(stream.getvalue())
    elif output_format in ("table", "markdown"):
        table = _table(rows, columns)
        if output_format == "markdown":
            sys.stdout.write(markdown(table))
            return
        if title:
            print(printable_line(title))  # noqa: T201
        print_tables([table])
    else:
        raise UserError(f"--format {output_format}: choose {', '.join(FORMATS)}.{did_you_mean(output_format, FORMATS)}")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    numeric = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    return Table(
        "",
        "",
        tuple(Column(column, numeric=is_number) for column, is_number in zip(columns, numeric, strict=True)),
        tuple(tuple(_cell(row.get(column)) for column in columns) for row in rows),
        wrap=None,
    )


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return text_of(value)
    return value if isinstance(value, int | float | None) else str(value)


def text_of(value: Any) -> str:
    """Return a value as the text that an option takes; nothing for a missing one."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(text_of, value)) if isinstance(value, list | tuple) else str(value)


def result_of(run: Run, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a command on one run, as `--json` prints it; a metric that is not finite is None."""
    finite = {key: value if value is not None and math.isfinite(value) else None for key, value in metrics.items()}
    return {
        "run": run.id,
        "rule": run.record.rule,
        "seed": run.seed,
        "status": run.record.status,
        "folder": str(run.folder),
        "seconds": run.record.seconds,
        "metrics": finite,
        **({"files": run.files} if run.files else {}),
        **({"error": run.record.error} if run.record.error else {}),
    }


def print_result(result: Mapping[str, Any], run: Run, invocation: Invocation) -> None:
    """Print the result of one run as soon as the run ends."""
    if invocation.output_format() == "json":
        print(json.dumps(result), flush=True)  # noqa: T201
    elif invocation.quiet:
        print(result["folder"], flush=True)  # noqa: T201
    elif invocation.format == "table":
        _print_metrics(result, run)


def print_together(results: Sequence[Mapping[str, Any]], invocation: Invocation) -> None:
    """Print what needs all runs: one table of all results for a program, or the mean over seeds."""
    if invocation.output_format() == "json" or invocation.quiet:
        return
    if invocation.format != "table":
        about = ["run", "rule", "seed", "status", "seconds"]
        rows = [
            {**{key: result[key] for key in about}, "metric": name, "value": value}
            for result in results
            for name, value in result["metrics"].items()
        ]
        print_rows(rows, [*about, "metric", "value"], invocation.format)
    elif len(results) > 1:
        _print_over_seeds(results)


def _print_metrics(result: Mapping[str, Any], run: Run) -> None:
    """Print metrics, time, speed and folder of one run."""
    rows = [{"metric": key, "value": value} for key, value in result["metrics"].items()]
    rows.append({"metric": "seconds", "value": float(result["seconds"])})
    speed = run.record.speed
    if run.stage == "train" and speed.get("seconds"):
        rows.append({"metric": "samples per second", "value": round(speed["samples"] / speed["seconds"])})
    print_rows(rows, ["metric", "value"], "table", title=f"{result['rule']}, {run.stage}, seed {result['seed']}")
    status = "" if result["status"] == "completed" else f" ({result['status']})"
    print(printable_line(f"run {result['run']}{status} in {result['folder']}"))  # noqa: T201


def _print_over_seeds(results: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and interval of every metric over the runs of several seeds."""
    from plastic_cli.statistics.intervals import interval_method, mean_interval

    completed = [result for result in results if result["status"] == "completed"]
    names = dict.fromkeys(key for result in completed for key in result["metrics"])
    rows = []
    for name in names:
        values = [result["metrics"][name] for result in completed if result["metrics"].get(name) is not None]
        if not values:
            continue
        interval = mean_interval(values)
        rows.append(
            {"metric": name, "mean": interval.mean, "low": interval.low, "high": interval.high, "runs": interval.n}
        )
    title = f"over seeds, {interval_method()}"
    print_rows(rows, ["metric", "mean", "low", "high", "runs"], "table", title=title)


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return ""
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else value
