"""`plastic compare`: chosen runs side by side, or one run and the reference."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from plastic_cli.commands.chosen import PICTURES, ChosenOptions, check_output, refuse_typed, write_figure
from plastic_cli.commands.invocation import DebugOptions, FileOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_next
from plastic_cli.config.model import field
from plastic_cli.errors import PlasticError, UserError
from plastic_cli.escapes import csv_text
from plastic_cli.figures.view_options import ViewOptions
from plastic_cli.runs.console import Console
from plastic_cli.tables import Table, markdown

if TYPE_CHECKING:
    import pandas as pd

    from plastic_cli.reports.side_by_side import Comparison
    from plastic_cli.reports.standing import Standing


TableName = Literal["all", "settings", "options", "results", "circumstances", "nearest", "controls", "published"]


class Options(ViewOptions, ChosenOptions, FileOptions, DebugOptions):
    """Options of `plastic compare`. Of all tables, CSV holds the results and JSON everything."""

    baseline: str | None = field(
        None,
        "run, or name of runs, whose setting is A: differences are taken from it (default: the first run that is"
        " named, else the oldest)",
        panel="Which runs",
        complete="run",
    )
    table: Literal["all", "settings", "options", "results", "circumstances", "nearest", "controls", "published"] = (
        field(
            "all",
            "print one table alone; nearest, controls and published belong to a comparison with the reference",
            panel="Output",
        )
    )
    format: Literal["table", "markdown", "latex", "csv", "json"] = field(
        "table", "format of the results", panel="Output"
    )
    json_lines: bool = field(False, "the same as --format json", panel="Output", option="--json")
    output: Path | None = field(
        None,
        "also write this file: the whole comparison as .html, or the curves as .png, .svg or .pdf",
        panel="Output",
    )

    def output_format(self) -> str:
        """Return the format: JSON with --json."""
        return "json" if self.json_lines else self.format


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, compare)


def compare(options: Options) -> None:
    """Print the comparison of the chosen runs, or where runs of one setting stand in the reference."""
    if options.output is not None:
        check_output(options.output, (".html", *PICTURES))
    if options.output is None or options.output.suffix.lower() == ".html":
        refuse_typed(options, ViewOptions.model_fields, "without --output FILE.png, .svg or .pdf")
    view, rows = options.view(), options.rows(first=options.baseline)
    if len(rows) == 1:
        if options.baseline is not None:
            raise UserError(f"--baseline {options.baseline}: no other run is chosen. Choose runs to compare it with.")
        _compare_with_reference(rows[0], options)
        return

    from plastic_cli.reports.curves import read_runs
    from plastic_cli.reports.side_by_side import Comparison

    comparison = Comparison(read_runs(row["folder"] for row in rows))
    _print(comparison, _standing(comparison), options)
    if options.output is not None:
        if options.output.suffix.lower() == ".html":
            from plastic_cli.reports.side_tables import comparison_page

            _write_page(comparison_page(comparison), options.output)
        else:
            write_figure(comparison.figure(options.metric, smooth=options.smooth, view=view), options.output)
        Console().message(f"wrote {options.output}")
    if options.output_format() == "table":
        print_next(["plastic plot", "plastic report"], options, Console())


def _compare_with_reference(row: Mapping[str, Any], options: Options) -> None:
    """Print where one run stands in the reference, and write the page."""
    from plastic_cli.reports.standing import Standing
    from plastic_cli.reports.standing_tables import as_json, frames_of, standing_page, tables_of
    from plastic_cli.runs.reference import read_reference

    if options.output is not None and options.output.suffix.lower() != ".html":
        raise UserError(
            f"--output {options.output}: one run has no curves to compare. Draw them with: plastic plot {row['run']}"
        )
    standing = Standing([Path(row["folder"])], read_reference())
    tables = tables_of(standing)
    if options.table != "all":
        _print_one(tables, frames_of(standing), "reference", options)
    elif options.output_format() == "csv":
        sys.stdout.write(csv_text(standing.results))
    elif options.output_format() == "json":
        sys.stdout.write(as_json(standing))
    elif options.output_format() in ("markdown", "latex"):
        _print_text(tables.values(), "reference", options.output_format())
    else:
        from plastic_cli.terminal_tables import print_tables

        print_tables([*tables.values()])
    if options.output is not None:
        _write_page(standing_page(standing), options.output)
        Console().message(f"wrote {options.output}")
    if options.output_format() == "table":
        print_next(["plastic report --reference"], options, Console())


def _standing(comparison: Comparison) -> Standing | None:
    """Return where the runs stand in the reference; a reference that cannot be read does not stop the comparison."""
    try:
        return comparison.standing
    except PlasticError as error:
        Console().warning(str(error))
        return None


def _print(comparison: Comparison, standing: Standing | None, options: Options) -> None:
    from plastic_cli.reports import standing_tables
    from plastic_cli.reports.side_tables import (
        SideTableName,
        as_json,
        equal_text,
        frames_of,
        table_alone,
        tables_of,
    )
    from plastic_cli.terminal_tables import print_tables

    own, shipped = tables_of(comparison), standing_tables.tables_of(standing) if standing else {}
    if options.table in get_args(SideTableName):
        table = table_alone(comparison, options.table)  # type: ignore[arg-type]
        _print_one({} if table is None else {options.table: table}, frames_of(comparison), "compare", options)
    elif options.table != "all":
        frames = standing_tables.frames_of(standing) if standing else {}
        _print_one(shipped, {**frames_of(comparison), **frames}, "reference", options)
    elif options.output_format() == "csv":
        sys.stdout.write(csv_text(comparison.results))
    elif options.output_format() == "json":
        sys.stdout.write(as_json(comparison, standing))
    elif options.output_format() in ("markdown", "latex"):
        _print_text(own.values(), "compare", options.output_format())
        _print_text(shipped.values(), "reference", options.output_format(), follows=bool(own))
    else:
        print_tables([*own.values()])
        if same := equal_text(comparison):
            print(f"\n{same}")  # noqa: T201
        if shipped:
            print()  # noqa: T201
            print_tables([*shipped.values()])


def _print_one(tables: Mapping[str, Table], frames: Mapping[str, pd.DataFrame], part: str, options: Options) -> None:
    """Print the table that was chosen; frames: its values, and what else could be chosen."""
    from plastic_cli.reports.content import json_text
    from plastic_cli.terminal_tables import print_tables

    name: str = options.table
    if name not in frames:
        known = [each for each in get_args(TableName) if each in frames]
        raise UserError(f"--table {name}: this comparison has no such table. It has {', '.join(known)}.")
    if options.output_format() == "csv":
        # A cell holds one text: runs and seeds are separated by spaces.
        sys.stdout.write(
            csv_text(frames[name].map(lambda cell: " ".join(map(str, cell)) if type(cell) is list else cell))
        )
    elif options.output_format() == "json":
        sys.stdout.write(json_text(**{name: frames[name]}))
    elif name not in tables:
        Console().message(f"the table {name} is empty")
    elif options.output_format() in ("markdown", "latex"):
        _print_text([tables[name]], part, options.output_format())
    else:
        print_tables([tables[name]])


def _print_text(tables: Iterable[Table], part: str, output_format: str, *, follows: bool = False) -> None:
    """Print tables as text. part: a word in the labels of LaTeX. follows: other tables were printed before."""
    if output_format == "latex":
        from plastic_cli.reports.latex import latex
        from plastic_cli.reports.side_tables import label_of

        texts = [latex(table, label_of(part, table)) for table in tables]
    else:
        texts = [markdown(table) for table in tables]
    if texts:
        sys.stdout.write("\n" * follows + "\n".join(texts))


def _write_page(text: str, path: Path) -> None:
    from plastic_cli.files import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise PlasticError(f"cannot write {path}: {error.strerror or error}. Choose another --output.") from None
