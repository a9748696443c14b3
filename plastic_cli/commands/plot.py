"""`plastic plot`: learning curves, or final values over an option, of chosen runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plastic_cli.commands.chosen import ChosenOptions, check_output, default_name, refuse_typed, write_figure
from plastic_cli.commands.invocation import DebugOptions, FileOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_next
from plastic_cli.config.model import field
from plastic_cli.escapes import printable_line
from plastic_cli.reports.plot_options import PlotOptions
from plastic_cli.runs.console import Console


class Options(PlotOptions, ChosenOptions, FileOptions, DebugOptions):
    """Options of `plastic plot`."""

    output: Path | None = field(
        None,
        "write this file: .png, .svg or .pdf (default: a .png in this folder, named after the metric)",
        panel="Output",
    )


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, plot)


def plot(options: Options) -> None:
    """Draw the chosen runs, write the figure and print its path."""
    if options.output is not None:
        check_output(options.output)
    if options.final:
        refuse_typed(options, ["smooth"], "with --final")
    if options.combinations:
        refuse_typed(options, ["smooth", "final"], "with --combinations")
    if options.pareto is not None:
        refuse_typed(options, ["smooth", "final", "combinations", "by", "log", "x_range"], "with --pareto")
    # A range that cannot be read is said before any run is.
    options.view()
    rows = options.rows()

    from plastic_cli.reports.chosen_plot import plot_chosen
    from plastic_cli.reports.curves import read_runs

    drawn = plot_chosen(read_runs(row["folder"] for row in rows), options)
    kind = "combinations" if options.combinations else "final" if options.final else options.pareto
    name = default_name(drawn.metric, f"by {options.by}" if options.by else None, kind)
    path = options.output or Path(f"{name}.png")
    write_figure(drawn.figure, path)
    for message in drawn.messages:
        Console().message(message)
    print(printable_line(str(path)))  # noqa: T201
    print_next(["plastic compare", "plastic report"], options, Console())
