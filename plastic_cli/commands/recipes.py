"""`plastic recipes`: the recipes that come with plastic, how much of each is done, and its result in the reference."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from plastic_cli.commands.invocation import OutputOptions, RuleName
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_rows
from plastic_cli.config.model import field
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console
from plastic_cli.runs.record import NOTES_BETWEEN
from plastic_cli.sweeps.overview import NOT_MEASURED, ReferenceResult, recipe_row, reference_result
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.tables import NOTE_MARK, Cell, Column, Table, markdown
from plastic_cli.terminal_tables import print_tables
from plastic_cli.verbs.options import DataOptions, RunsOptions

if TYPE_CHECKING:
    from plastic_cli.runs.reference import Reference

COLUMNS = [
    *("recipe", "rule", "runs", "done", "steps", "steps_done", "time", "reference", "reference_metric"),
    *(
        "reference_mean",
        "reference_low",
        "reference_high",
        "reference_settings",
        "reference_runs",
        "reference_data_notes",
        "reproduces",
        "title",
    ),
]
SHOWN = (
    Column("recipe", names_row=True, whole=True),
    Column("done", numeric=True),
    Column("time", numeric=True),
    Column("reference", lines=2),
    Column("title", optional=True, lines=3),
    Column("rule", optional=True),
)
"""Columns of a table for a reader. A narrow terminal leaves out the last ones."""
CAPTION = (
    "Done: how many of the runs and steps your folder of runs holds. Reference: the mean test accuracy, or the metric"
    " that is named, of the runs that come with plastic; of several settings the lowest and the highest mean. n: the"
    " number of these runs; all seeds of the settings count, which can be more than those of the recipe. Missing: runs"
    " of the recipe that the reference does not hold yet."
)
MOST_SETTINGS = 40
"""Up to this number of settings, the results of a recipe are shown one by one."""


class Options(DataOptions, RunsOptions, OutputOptions):
    """Options of `plastic recipes`."""

    panel: ClassVar[str] = "Recipes"

    recipe: str | None = field(
        None, "name of a recipe or a TOML file to show (default: list all)", argument="RECIPE", complete="recipe"
    )
    rule: RuleName | None = field(None, "only recipes of this rule", complete="rule")


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, recipes)


def recipes(options: Options) -> None:
    """List all recipes, or show one."""
    if options.recipe is not None:
        show_recipe(options.recipe)
    else:
        list_recipes(options)


def list_recipes(options: Options) -> None:
    """Print every recipe with the numbers of its runs and of those that are done, the time of all, and its result."""
    rule, output_format = options.rule, options.output_format()
    reference = _reference()
    rows = []
    for name in recipe_names():
        try:
            row = recipe_row(read_recipe(name), options.runs_folder(), options.data, reference)
        except UserError as error:
            # A recipe of a plugin that is missing or broken does not hide the others.
            Console().warning(str(error))
            continue
        if rule is None or rule in row["rule"].split(", "):
            rows.append(row)
    if rule is not None and not rows:
        raise UserError(f"--rule {rule}: there is no recipe of it. Installed rules: {', '.join(discover().rules)}.")
    if output_format in ("table", "markdown"):
        table = listed_table(rows)
        if output_format == "table":
            print_tables([table])
        else:
            sys.stdout.write(markdown(table))
        noted = [row["reference_data_notes"].split(NOTES_BETWEEN) for row in rows if row["reference_data_notes"]]
        for note in dict.fromkeys(note for notes in noted for note in notes):
            Console().message(f"{NOTE_MARK} {note}")
    else:
        print_rows(rows, COLUMNS, output_format)
    if output_format == "table":
        Console().message("`plastic recipes NAME` shows one, `plastic sweep NAME` runs the rest of it")


def listed_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of recipes for a reader."""
    return Table("", CAPTION, SHOWN, tuple(map(_cells, rows)), wrap=None)


def _cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return the cells of a recipe in the columns `SHOWN`."""
    done = f"{row['done'] + row['steps_done']} of {row['runs'] + row['steps']}"
    return (row["recipe"], done, row["time"], row["reference"], row["title"], row["rule"])


def show_recipe(text: str) -> None:
    """Print the text of one recipe, and its result in the reference on stderr."""
    file = read_recipe(text)
    print(file.text, end="" if file.text.endswith("\n") else "\n")  # noqa: T201
    reference = _reference()
    if not reference.problem:
        result = reference_result(plan_recipe(file), reference)
        if 1 < len(result.settings) <= MOST_SETTINGS:
            print_tables([settings_table(result)], sys.stderr)
        Console().message(f"reference: {result.text}")
        for note in result.data_notes:
            Console().message(f"{NOTE_MARK} {note}")


def settings_table(result: ReferenceResult) -> Table:
    """Return the table of the settings of a recipe with their results in the reference."""
    from plastic_cli.plugins.metrics import metric_of
    from plastic_cli.reports.numbers import NumberStyle
    from plastic_cli.statistics.intervals import mean_interval
    from plastic_cli.verbs.verify import settings_of

    style = NumberStyle()
    metric = metric_of(result.metric or "", result.rule)
    rules = len({planned.rule for planned, _ in result.settings}) > 1
    intervals = [mean_interval(values) for _, values in result.settings]
    rows = [
        (
            ": ".join([*([planned.rule] if rules else []), settings_of(planned) or planned.rule]),
            style.estimate(interval, metric) or NOT_MEASURED,
            str(len(values)),
        )
        for (planned, values), interval in zip(result.settings, intervals, strict=True)
    ]
    columns = (
        Column("setting", names_row=True),
        Column(style.heading(metric), numeric=True),
        Column("n", numeric=True),
    )
    return Table("Results in the reference", style.caption(intervals), columns, tuple(rows), wrap=60)


def _reference() -> Reference:
    """Return the reference; one that cannot be read costs a warning."""
    from plastic_cli.runs.reference import read_reference

    reference = read_reference()
    if reference.problem:
        Console().warning(reference.problem)
    return reference
