"""Printing tables and results on stdout, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.escapes import csv_cell, printable_line
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.tables import Cell, Column, Table, markdown
from plastic_cli.terminal_tables import print_tables

if TYPE_CHECKING:
    from plastic_cli.commands.invocation import Invocation
    from plastic_cli.runs.console import Console
    from plastic_cli.runs.run import Run
    from plastic_cli.verbs.options import RunsOptions

FORMATS = ("table", "markdown", "csv", "json")


COPIED = ("recipe",)
"""Columns whose cells are typed again, so that they are never broken into lines."""


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    output_format: str,
    title: str = "",
    right: Collection[str] = (),
) -> None:
    """Print rows as a table for reading, Markdown, CSV or JSON; raises UserError for another format.

    right: columns of texts that a table aligns to the right, as it does with numbers.
    """
    if output_format == "json":
        print(json.dumps([{column: row.get(column) for column in columns} for row in rows], default=str))  # noqa: T201
    elif output_format == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([csv_cell(column) for column in columns])
        writer.writerows([[csv_cell(_plain(row.get(column))) for column in columns] for row in rows])
        sys.stdout.write(stream.getvalue())
    elif output_format in ("table", "markdown"):
        table = _table(title, rows, columns, right)
        if output_format == "markdown":
            sys.stdout.write(markdown(table))
        else:
            print_tables([table])
    else:
        raise UserError(f"--format {output_format}: choose {', '.join(FORMATS)}.{did_you_mean(output_format, FORMATS)}")


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], right: Collection[str]) -> Table:
    return Table(
        title,
        "",
        tuple(
            Column(
                column,
                numeric=column in right or any(isinstance(row.get(column), int | float) for row in rows),
                whole=column in COPIED,
            )
            for column in columns
        ),
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


def print_together(
    results: Sequence[Mapping[str, Any]], invocation: Invocation, conditions: Mapping[str, str] | None = None
) -> None:
    """Print what needs all runs: one table of all results for a program, or the mean over seeds.

    conditions: the corruption of each split, if the keys of the results do not name it.
    """
    if invocation.output_format() == "json" or invocation.quiet:
        return
    if invocation.format == "markdown":
        columns = ["run", "rule", "seed", "status"]
        rows = [
            {**{key: result[key] for key in columns}, "result": metric.name, "value": metric.text(value)}
            for result in results
            for name, value in result["metrics"].items()
            for metric in [metric_of(_with_condition(name, conditions or {}), result["rule"])]
        ]
        print_rows(rows, [*columns, "result", "value"], "markdown", right=["value"])
    elif invocation.format == "csv":
        about = ["run", "rule", "seed", "status", "seconds"]
        rows = [
            {**{key: result[key] for key in about}, "metric": name, "value": value}
            for result in results
            for name, value in result["metrics"].items()
        ]
        print_rows(rows, [*about, "metric", "value"], "csv")
    elif len(results) > 1:
        _print_over_seeds(results)


def print_next(commands: Sequence[str], options: RunsOptions, console: Console) -> None:
    """Print, in one line on stderr, commands that make sense now; `options`: those of the command that ended."""
    # A folder of runs that was typed is needed again; PLASTIC_RUNS is still set.
    runs = [] if options.runs is None else ["--runs", str(options.runs)]
    shown = [f"`{' '.join([command, *map(shlex.quote, runs)])}`" for command in commands]
    listed = " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    console.message(f"next: {listed}")


def _print_metrics(result: Mapping[str, Any], run: Run) -> None:
    """Print metrics, times, speed and folder of one run."""
    print_metrics(
        result["metrics"], run, f"{result['rule']}, {run.stage}, seed {result['seed']}", float(result["seconds"])
    )
    status = "" if result["status"] == "completed" else f" ({result['status']})"
    print()  # noqa: T201
    print(printable_line(f"run {result['run']}{status} in {result['folder']}"))  # noqa: T201


def print_metrics(metrics: Mapping[str, float | None], run: Run, title: str, seconds: float) -> None:
    """Print metrics and times as a table."""
    rule = run.record.rule
    rows = [
        _metric_row(metric_of(_with_layer(_with_condition(key, run.conditions), run), rule), key, value, run)
        for key, value in metrics.items()
    ]
    rows += _time_rows(seconds, run)
    print_rows(rows, ["result", "value", ""], "table", title, right=["value"])


def _with_condition(key: str, conditions: Mapping[str, str]) -> str:
    """Return the key of a result with the corruption of its split: "test+rotation:30/accuracy"."""
    split, slash, name = key.partition("/")
    return f"{split}+{conditions[split]}/{name}" if slash and split in conditions else key


def _with_layer(key: str, run: Run) -> str:
    """Return the key of a result with the name of its layer, if the run knows it: "layer 3 (layer1.0.conv2)/angle"."""
    return re.sub(
        r"(?<![^\s/])layer (\d+)\b",
        lambda found: f"{found[0]} ({run.layers[int(found[1])]})" if int(found[1]) in run.layers else found[0],
        key,
    )


def _metric_row(metric: Metric, key: str, value: float | None, run: Run) -> dict[str, Any]:
    images = run.images.get(key.partition("/")[0].partition("+")[0])
    of_images = f"of {images:,} images" if images and key.endswith("/accuracy") else metric.unit_after
    return {"result": metric.name, "value": metric.number(value), "": of_images}


def _time_rows(seconds: float, run: Run) -> list[dict[str, Any]]:
    """Return the rows of the times: all of the command, and the part that `plastic report` shows."""
    words = {"train": "the run", "eval": "the evaluation", "analyze": "the analysis", "render": "the rendering"}
    rows = [{"result": f"time of {words.get(run.stage, run.stage)}", "value": f"{seconds:.2f}", "": "s"}]
    speed = run.record.speed
    if run.stage == "train" and speed.get("seconds"):
        rows.append({"result": "time of training, without evaluation", "value": f"{speed['seconds']:.2f}", "": "s"})
        per_second = f"{speed['samples'] / speed['seconds']:,.0f}"
        rows.append({"result": "training speed", "value": per_second, "": "samples per second"})
    return rows


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
        metric, interval = metric_of(name, completed[0]["rule"]), mean_interval(values)
        numbers = {key: metric.number(getattr(interval, key)) for key in ("mean", "low", "high")}
        rows.append({"result": metric.name, **numbers, "unit": metric.unit_after, "runs": interval.n})
    columns = ["result", "mean", "low", "high", "unit", "runs"]
    if not any(row["unit"] for row in rows):
        columns.remove("unit")
    title = f"over seeds, {interval_method()}"
    print_rows(rows, columns, "table", title, right=["mean", "low", "high"])


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return ""
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else value
