"""`plastic.plot`: the command `plastic plot` as a function."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.api.chosen import AnyRun, named_run
from plastic_cli.api.console import PythonConsole
from plastic_cli.errors import OptionError, UserError, did_you_mean
from plastic_cli.reports.plot_options import PlotOptions
from plastic_cli.runs.record import RECORD_FILE
from plastic_cli.runs.selection import find_rows
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plotnine import ggplot

AnyRuns = AnyRun | RunStore | Iterable[AnyRun]
"""Runs: those of `plastic.train`, ids or folders of runs, names, which can mean several seeds, or a store with all its
completed runs."""


def plot(runs: AnyRuns, metric: str | None = None, by: str | None = None, **options: Any) -> ggplot:
    """Draw learning curves or final values of runs: the mean over the seeds of each setting, with its interval.

    runs: a run or several; a run is a StoredRun, an id, a name or a folder. A store, or the folder of one, means
    all its completed runs. metric: "split/name" such as "test/accuracy", or "name" for all splits; None: the main
    metric. by: an option, or "rule", "dataset", "seed" or "run", or a label of the metric such as "layer": there is one
    color for each of its values. options: those of `plastic plot --help`, with underscores: `final`, `combinations`,
    `pareto`, `smooth`, `log`, `x_range=(0, 10)`, `y_range`, `width`, `height`, `title`.

    Returns a plotnine figure, to which you can add layers. Raises UserError, a ValueError, for a run, metric or option
    that does not exist.
    """
    from plastic_cli.reports.chosen_plot import plot_chosen
    from plastic_cli.reports.curves import read_runs

    for name in options:
        if name not in PlotOptions.model_fields:
            raise OptionError(f"there is no option '{name}'.{did_you_mean(name, PlotOptions.model_fields)}", name)
    chosen = PlotOptions.from_values({**options, "metric": metric, "by": by})
    drawn = plot_chosen(read_runs(folders_of(runs)), chosen)
    for message in drawn.messages:
        PythonConsole().warning(message)
    return drawn.figure


def folders_of(runs: AnyRuns) -> list[Path]:
    """Return the folders of runs; raises UserError for a run that does not exist."""
    if isinstance(runs, RunStore):
        return [Path(row["folder"]) for row in runs.rows() if row["status"] == "completed"]
    if isinstance(runs, Iterable) and not isinstance(runs, str | Path):
        return [folder for run in runs for folder in folders_of(run)]
    if isinstance(runs, str | Path) and Path(runs).is_dir() and not (Path(runs) / RECORD_FILE).is_file():
        return folders_of(RunStore(runs))
    if isinstance(runs, str) and not (Path(runs) / RECORD_FILE).is_file():
        # A name can mean runs of several seeds. Rows have no damaged run, which is then an error of its own.
        with suppress(UserError):
            return [Path(row["folder"]) for row in find_rows(RunStore().rows(), runs)]
    return [named_run(runs).folder]
