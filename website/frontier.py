"""The figures of docs/frontier.md: accuracy against the price of learning, from the runs of the recipe `frontier`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.options import PriceName
from plastic_cli.reports.pareto import pareto_figures, priced_results
from plastic_cli.reports.plots import Figure
from plastic_cli.reports.results import summarize
from plastic_cli.runs.reference import Reference
from reference_runs import runs_of_recipes

RECIPE = "frontier"
PRICES: tuple[PriceName, ...] = ("messages", "flops")

FEEDBACK = {
    "direct": "10 errors, direct feedback",
    "fixed": "errors, fixed random weights",
    "sign": "errors, signs of the weights",
    "kolen-pollack": "errors, learned weights",
}
LEARNED = {
    "direct": "1 scalar and 10 errors, direct feedback that learns",
    "layer": "1 scalar and errors, feedback that learns",
}
EVENTS = {
    "triggered": "errors for surprising images",
    "fixed": "errors for random batches",
    "never": "no events",
}


def name_of(rule: str, config: Mapping[str, Any]) -> str:
    """Return the name of a setting of the recipe, as the table of the page has it."""
    if rule == "backprop":
        return "the gradient" if config["trained"] == "all" else "random features"
    if rule == "feedback":
        return FEEDBACK[config["feedback"]]
    if rule == "eglp":
        return EVENTS[config["events"]]
    if config.get("noise_layers") == "readout":
        return "random features, 1 scalar for the readout"
    if config.get("noise_sources") == "readout":
        return "1 scalar, noise from 10 sources"
    if config.get("credit") == "learned":
        return LEARNED[config["feedback"]]
    groups, perturbations = config.get("reward_groups") or 1, config["perturbations"]
    if groups > 1:
        return f"{groups:.0f} scalars, {groups:.0f} groups"
    return "1 scalar" if perturbations == 1 else f"{perturbations} scalars, {perturbations} perturbations"


def figures(runs: pd.DataFrame) -> dict[str, Figure]:
    """Return the figure for each price by file name. runs: those of the recipe."""
    groups = group_runs(runs, training_models(runs["rule"].unique()))
    results = summarize(runs, groups)
    drawn = {}
    for kind in PRICES:
        (figure,) = pareto_figures(priced_results(runs, results, kind), name_of).values()
        drawn[f"frontier-{kind}"] = figure
    return drawn


def of_reference(reference: Reference) -> dict[str, Figure]:
    """Return the figures of the runs of the reference."""
    return figures(runs_of_recipes(reference, [RECIPE]))
