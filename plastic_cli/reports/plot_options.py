"""The options of `plastic plot`: what is drawn, and how."""

from __future__ import annotations

from plastic_cli.config.model import field
from plastic_cli.figures.view_options import ViewOptions
from plastic_cli.reports.options import PriceName


class PlotOptions(ViewOptions):
    """What is drawn of which metric, and how."""

    by: str | None = field(
        None,
        "one color for each value of an option, of rule, dataset, seed or run, of depth or width of the hidden layers,"
        " or of a label such as layer",
        panel="Figure",
    )
    final: bool = field(
        False, "draw final values instead of curves, with the values of --by on the horizontal axis", panel="Figure"
    )
    reference: bool = field(
        False,
        "also draw the runs of the reference that comes with plastic, of the same settings",
        panel="Figure",
    )
    combinations: bool = field(
        False,
        "draw final values of every combination of credit rule, network and update, or with --by layer of every layer",
        panel="Figure",
    )
    pareto: PriceName | None = field(
        None,
        "draw results against a price of learning, with the frontier: messages, flops, updates, seconds or bytes",
        panel="Figure",
    )
