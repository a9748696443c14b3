"""The list of runs that `plastic runs` prints: which runs, in which order, with which columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal

from plastic_cli.commands.invocation import DatasetName, OutputOptions, RuleName
from plastic_cli.commands.show import print_rows, text_of
from plastic_cli.config.model import field
from plastic_cli.errors import UserError
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.runs.console import Console
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.selection import Selection, known_name, option_value, select
from plastic_cli.runs.store import RunStore
from plastic_cli.tables import Cell, Column, Detailed, Table, cell_text, duration, markdown
from plastic_cli.terminal_tables import print_tables
from plastic_cli.verbs.options import RunsOptions

NEWEST = 50
"""Number of runs that a person is shown by default."""

OPTIONS_WIDTH = 24
"""Characters of the column that holds all options, if there is no room for a column for each."""

Row = Mapping[str, Any]


class ListOptions(RunsOptions, OutputOptions):
    """Options of `plastic runs`."""

    panel: ClassVar[str] = "Which runs"
    renamed: ClassVar[Mapping[str, str]] = {"last": "limit"}

    rule: list[RuleName] = field([], "only runs of this rule (can be repeated)", complete="rule", repeat=True)
    dataset: DatasetName | None = field(None, "only runs on this data set", complete="dataset")
    status: Literal["completed", "created", "running", "failed", "interrupted", "crashed"] | None = field(
        None, "only runs with this status"
    )
    name: str | None = field(None, "only runs whose name or id begins with this text")
    where: list[str] = field(
        [],
        'only runs with this option or result, such as perturbations=16 or "test/accuracy>0.9" (can be repeated)',
        repeat=True,
    )
    sort: str | None = field(
        None, "sort by an option, a result or a column; -NAME sorts from largest to smallest (default: the newest last)"
    )
    limit: int | None = field(
        None,
        "maximum number of runs: the newest, or with --sort the first"
        f" (default: {NEWEST} in a table, all in csv and json)",
        ge=1,
    )
    everything: bool = field(False, "list all runs, without a limit", option="--all")


def list_runs(options: ListOptions) -> None:
    """Print the runs of a folder that fit, one per row, the newest last unless `sort` says another order."""
    folder, output_format = options.existing_runs_folder(), options.output_format()
    if options.limit is not None and options.everything:
        raise UserError(f"--limit {options.limit}: it does not go with --all. Leave one of them out.")
    store = RunStore(folder)
    present = store.rows()
    fitting = _fitting(present, options)
    for_programs = output_format in ("csv", "json")
    no_limit = options.everything or (for_programs and options.limit is None)
    limit = len(fitting) if no_limit else (options.limit or NEWEST)
    shown = fitting[:limit] if options.sort else fitting[max(0, len(fitting) - limit) :]
    if for_programs:
        _print_for_programs(shown, output_format)
    elif not shown and output_format == "table":
        what = "no run yet" if not present else "no such run"
        Console().message(f"{what} in {folder}. Create one with: plastic train RULE")
    else:
        _print_for_readers(shown, output_format)
    left_out = len(fitting) - len(shown)
    if left_out and not for_programs:
        which = "more" if options.sort else "older"
        runs = "run is" if left_out == 1 else "runs are"
        Console().message(f"{left_out} {which} {runs} not shown. Show more with --limit N, or all with --all.")
    for error in store.errors:
        Console().warning(f"{error.folder}: {error.message}")


def _fitting(present: Sequence[Row], options: ListOptions) -> list[Row]:
    begin = options.name
    named = [
        row for row in present if begin is None or row["run"].startswith(begin) or (row["name"] or "").startswith(begin)
    ]
    which = Selection(
        rules=tuple(options.rule), dataset=options.dataset, status=options.status, where=tuple(options.where)
    )
    fitting = list(select(named, which))
    if options.sort and fitting:
        descending = options.sort.startswith("-")
        typed = options.sort.removeprefix("-")
        name = known_name(fitting, typed, f"--sort {options.sort}")
        known = [row for row in fitting if option_value(row, name) is not None]
        unknown = [row for row in fitting if option_value(row, name) is None]
        fitting = sorted(known, key=lambda row: _order(option_value(row, name)), reverse=descending) + unknown
    return fitting


def _order(value: Any) -> tuple[Any, ...]:
    """Return what sorts values of any type: numbers, then texts, then lists."""
    if isinstance(value, list | tuple):
        return 2, tuple(map(_order, value))
    return (1, value.casefold()) if isinstance(value, str) else (0, value)


def varied_options(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Return the options that differ between runs of one rule, each with the rules, as they are in configurations."""
    varied: dict[str, set[str]] = {}
    firsts: dict[tuple[str, str], Any] = {}
    for row in rows:
        rule, dataset = row["rule"], row["dataset"]
        for name, value in row["config"].items():
            # The seed and the data set have columns of their own.
            if name == "seed" or (value == dataset and dataset is not None):
                continue
            if firsts.setdefault((rule, name), value) != value:
                varied.setdefault(name, set()).add(rule)
    order = dict.fromkeys(name for row in rows for name in row["config"]) if varied else {}
    return {name: varied[name] for name in order if name in varied}


def headline(row: Row) -> str | None:
    """Return the main metric of a run, None if it has no metric."""
    summary = row["summary"]
    for wanted in MAIN_METRICS:
        if wanted in summary:
            return wanted
    on_test = (key for key in summary if key.startswith("test/"))
    return next(on_test, None) or next(iter(summary), None)


# -------------------------------------------------------------------------------------------------------- programs


def _print_for_programs(rows: Sequence[Row], output_format: str) -> None:
    """Print rows with keys and unchanged values; options that differ have columns `config.NAME`."""
    columns = ["run", "name", "rule", "dataset", "status", "seed", "created", "seconds", "metric", "value", "folder"]
    options = varied_options(rows)
    flat = []
    for row in rows:
        metric = headline(row)
        values = {f"config.{name}": row["config"].get(name) for name in options}
        flat.append({**row, "metric": metric, "value": row["summary"][metric] if metric else None, **values})
    print_rows(flat, [*columns, *(f"config.{name}" for name in options)], output_format)


# --------------------------------------------------------------------------------------------------------- readers


def _print_for_readers(rows: Sequence[Row], output_format: str) -> None:
    if output_format == "markdown":
        sys.stdout.write(markdown(table_of(rows)))
        return
    width = None
    if sys.stdout.isatty():
        from rich.console import Console as RichConsole

        width = RichConsole().width
    print_tables([table_of(rows, width)])


def table_of(rows: Sequence[Row], width: int | None = None) -> Table:
    """Return the table of runs for a terminal of `width` columns; None: with all columns.

    In a narrow terminal, what all runs share becomes the title, the time is left out, the options share a column, and
    a name is below its id, in this order and only as far as needed.
    """
    layouts: list[Callable[[], Table]] = [
        lambda: _table(rows, shared=False),
        lambda: _table(rows),
        lambda: _table(rows, time=False),
        lambda: _table(rows, time=False, together=True),
        lambda: _table(rows, time=False, together=True, names_below=True),
    ]
    for layout in layouts:
        table = layout()
        if width is None or _width(table) <= width:
            break
    if table.wrap is not None and width is not None:
        # The options take the room that is left.
        return replace(table, wrap=table.wrap + max(0, width - _width(table)))
    return table


def _table(
    rows: Sequence[Row],
    *,
    shared: bool = True,
    time: bool = True,
    together: bool = False,
    names_below: bool = False,
) -> Table:
    """shared: what all runs share is the title, and not a column. together: all options in one column."""
    columns: list[tuple[Column, list[Cell]]] = []
    facts = {"rule": "rule", "dataset": "data set", "status": "status"}
    common = {key for key in (*facts, "seed") if shared and len({row[key] for row in rows}) == 1}
    named = any(row["name"] for row in rows)
    ids: list[Cell] = [Detailed(row["run"], row["name"] or "") if names_below else row["run"] for row in rows]
    columns.append((Column("run", whole=not names_below, names_row=True), ids))
    if named and not names_below:
        columns.append((Column("name"), [row["name"] for row in rows]))
    columns += [(Column(word), [row[key] for row in rows]) for key, word in facts.items() if key not in common]
    columns += _option_columns(rows, together=together)
    if "seed" not in common:
        columns.append((Column("seed", numeric=True), [row["seed"] for row in rows]))
    columns += _result_columns(rows)
    if time:
        columns.append((Column("time", numeric=True), [duration(row["seconds"]) for row in rows]))
    title = _title(rows[0], len(rows), common) if common else ""
    cells = tuple(zip(*(cells for _, cells in columns), strict=True))
    return Table(title, "", tuple(column for column, _ in columns), cells, wrap=OPTIONS_WIDTH if together else None)


def _title(row: Row, count: int, common: set[str]) -> str:
    """Return what all runs share: "12 runs of grlu on digits, completed, seed 0"."""
    parts = ["1 run" if count == 1 else f"{count} runs"]
    parts += [f"of {row['rule']}"] * ("rule" in common)
    parts += [f"on {row['dataset']}"] * ("dataset" in common and bool(row["dataset"]))
    details = [row["status"]] * ("status" in common) + [f"seed {row['seed']}"] * ("seed" in common)
    return ", ".join([" ".join(parts), *details])


def _option_columns(rows: Sequence[Row], *, together: bool) -> list[tuple[Column, list[Cell]]]:
    varied = varied_options(rows)
    if together and len(varied) > 1:
        named = [[name for name in row["config"] if row["rule"] in varied.get(name, ())] for row in rows]
        texts: list[Cell] = [
            ", ".join(_assignment(name, row["config"][name]) for name in names) or None
            for row, names in zip(rows, named, strict=True)
        ]
        return [(Column("options"), texts)]
    columns: list[tuple[Column, list[Cell]]] = []
    for name in varied:
        values = [row["config"].get(name) for row in rows]
        cells: list[Cell] = [text_of(value) or None for value in values]
        columns.append((Column(name.replace("_", "-"), numeric=all(map(_is_number_or_none, values))), cells))
    return columns


def _is_number_or_none(value: Any) -> bool:
    return isinstance(value, int | float | None) and not isinstance(value, bool)


def _assignment(name: str, value: Any) -> str:
    words = name.replace("_", "-")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} = {'none' if value is None else text_of(value)}"


def _result_columns(rows: Sequence[Row]) -> list[tuple[Column, list[Cell]]]:
    """Return the main result of each run: one column, or a second one with the metric if the runs have several."""
    found = [(row, key, _metric(key, row["rule"])) for row in rows for key in [headline(row)]]
    values: list[Cell] = [metric.number(row["summary"][key]) if key else None for row, key, metric in found]
    names: list[Cell] = [metric.name if key else None for _, key, metric in found]
    different = set(names) - {None}
    if len(different) > 1:
        return [(Column("result", numeric=True), values), (Column("metric"), names)]
    return [(Column(str(name), numeric=True), values) for name in different]


@cache
def _metric(key: str | None, rule: str) -> Metric:
    """Return a metric under the name that all rules share, if there is one."""
    shared = metric_of(key or "")
    return metric_of(key, rule) if key and shared.name == key else shared


def _width(table: Table) -> int:
    """Return the characters that the table needs: cells of text may break at spaces only if `wrap` limits them."""
    total = 0
    for index, column in enumerate(table.columns):
        texts = [line for row in table.rows for line in _lines(row[index])]
        widest = max([*map(len, column.heading.split()), *map(len, texts)], default=0)
        total += min(widest, table.wrap) if table.wrap and not column.numeric else widest
    return total + 2 * len(table.columns)


def _lines(cell: Cell) -> list[str]:
    return [cell.text, cell.detail] if isinstance(cell, Detailed) else [cell_text(cell)]
