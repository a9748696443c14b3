"""`plastic plot`: learning curves, or final values over an option, of chosen runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from plastic_cli.commands.chosen import ChosenOptions, ViewOptions, check_output, default_name, write_figure
from plastic_cli.commands.invocation import DebugOptions, FileOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.config.model import Config, field
from plastic_cli.escapes import printable_line
from plastic_cli.runs.console import Console


class Drawing(Config):
    """What is drawn."""

    panel: ClassVar[str] = "Figure"

    metric: str | None = field(
        None, "SPLIT/METRIC, or METRIC for all splits (default: the main metric, such as test/accuracy)"
    )
    by: str | None = field(
        None, "a color for each value of this option, or of rule, dataset, seed or run, or of a label such as layer"
    )
    final: bool = field(False, "final values instead of curves, with --by on the horizontal axis")
    smooth: int = field(1, "each point of a curve is the mean of this number of steps", ge=1)
    output: Path | None = field(
        None, "write this file: .png, .svg or .pdf (default: a .png in this folder, named after the metric)"
    )


class Options(ViewOptions, Drawing, ChosenOptions, FileOptions, DebugOptions):
    """Options of `plastic plot`."""

    panel: ClassVar[str] = "Figure"


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, plot)


def plot(options: Options) -> None:
    """Draw the chosen runs, write the figure and print its path."""
    if options.output is not None:
        check_output(options.output)
    view, rows = options.view(), options.rows()

    from plastic_cli.reports.curves import plot_runs, read_runs

    drawn = plot_runs(
        read_runs(row["folder"] for row in rows),
        options.metric,
        options.by,
        final=options.final,
        smooth=options.smooth,
        view=view,
    )
    name = default_name(drawn.metric, f"by {options.by}" if options.by else None, "final" if options.final else None)
    path = options.output or Path(f"{name}.png")
    write_figure(drawn.figure, path)
    for message in drawn.messages:
        Console().message(message)
    print(printable_line(str(path)))  # noqa: T201
