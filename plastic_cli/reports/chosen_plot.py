"""The figure that the options of `plastic plot` describe."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from plastic_cli.errors import PlasticError, UserError
from plastic_cli.reports.combinations import plot_combinations
from plastic_cli.reports.curves import ChosenRuns, RunsPlot, plot_runs
from plastic_cli.reports.pareto import plot_pareto
from plastic_cli.reports.plot_options import PlotOptions
from plastic_cli.reports.with_reference import PREFIX, joined, reference_metrics, reference_runs
from plastic_cli.runs.reference import Reference, read_reference


def plot_chosen(chosen: ChosenRuns, options: PlotOptions) -> RunsPlot:
    """Draw some runs; raises UserError for a metric or option that no run has, or for a range that cannot be read.

    Raises PlasticError if the reference is wanted and cannot be read.
    """
    view = options.view()
    if options.reference:
        if options.combinations:
            raise UserError("--reference does nothing with --combinations. Leave it out.")
        both = with_same_settings(chosen, read_reference())
        drawn = plot_chosen(both, options.model_copy(update={"reference": False}))
        missing = "the reference has no run of these settings"
        return replace(drawn, messages=(*drawn.messages, *([missing] if len(both.runs) == len(chosen.runs) else [])))
    if options.pareto is not None:
        for name in ("by", "final", "combinations"):
            if getattr(options, name):
                raise UserError(f"--{name} does nothing with --pareto. Leave it out.")
        return plot_pareto(chosen, options.metric, options.pareto, view)
    if options.combinations:
        return plot_combinations(chosen, options.metric, options.by, view)
    return plot_runs(chosen, options.metric, options.by, final=options.final, smooth=options.smooth, view=view)


def with_same_settings(chosen: ChosenRuns, reference: Reference) -> ChosenRuns:
    """Return runs and those of the reference with the same settings; raises PlasticError if it cannot be read."""
    if reference.problem is not None:
        raise PlasticError(reference.problem)
    rows = [row for each in chosen.records.values() for row in reference.with_setting(each.rule, each.config)]
    ids = {f"{PREFIX}{row['run']}" for row in rows if row["status"] == "completed"}
    if not ids:
        return chosen
    shipped = reference_runs(reference, (), None)
    runs = joined(chosen.runs, shipped[shipped["run"].isin(ids)])
    metrics = pd.concat([chosen.metrics, reference_metrics(reference, sorted(ids), "train")], ignore_index=True)
    return replace(chosen, runs=runs, metrics=metrics)
