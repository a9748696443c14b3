"""The figure that the options of `plastic plot` describe."""

from __future__ import annotations

from plastic_cli.errors import UserError
from plastic_cli.reports.combinations import plot_combinations
from plastic_cli.reports.curves import ChosenRuns, RunsPlot, plot_runs
from plastic_cli.reports.pareto import plot_pareto
from plastic_cli.reports.plot_options import PlotOptions


def plot_chosen(chosen: ChosenRuns, options: PlotOptions) -> RunsPlot:
    """Draw some runs; raises UserError for a metric or option that no run has, or for a range that cannot be read."""
    view = options.view()
    if options.pareto is not None:
        for name in ("by", "final", "combinations"):
            if getattr(options, name):
                raise UserError(f"--{name} does nothing with --pareto. Leave it out.")
        return plot_pareto(chosen, options.metric, options.pareto, view)
    if options.combinations:
        return plot_combinations(chosen, options.metric, options.by, view)
    return plot_runs(chosen, options.metric, options.by, final=options.final, smooth=options.smooth, view=view)
