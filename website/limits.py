"""The figures of docs/grlu-limits.md: accuracy against depth, width, share of active units, and steps in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from plastic_cli.figures.finals import finals_figure
from plastic_cli.figures.theme import SeriesStyle, series_styles
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.plots import Figure
from plastic_cli.runs.reference import Reference
from reference_runs import runs_of_recipes

GRADIENT, LEARNED, BEFORE, PUBLISHED, FEATURES, SCALAR = (
    "the gradient",
    "learned feedback",
    "noise before the activation",
    "published rule",
    "random features",
    "random features, one scalar",
)
RULES = (GRADIENT, LEARNED, BEFORE, PUBLISHED, FEATURES, SCALAR)
"""From the control that shows what the network can learn to the one that shows what it does without learning."""

STEPS = {"recurrent_28_rows": 1, "recurrent_4_rows": 7, "recurrent_2_rows": 14, "recurrent": 28}
"""The steps in time of the recurrent networks, for an image of 28 rows."""


@dataclass(frozen=True)
class Limit:
    """A figure: the recipe that it shows, its title, and the number over which the accuracy is drawn."""

    recipe: str
    title: str
    option: str
    x: Callable[[Mapping[str, Any]], float]
    about: str
    log: bool = False


LIMITS = {
    "limits-depth": Limit(
        "grlu-limits-depth",
        "Accuracy against depth",
        "hidden layers",
        lambda config: len(config["config.hidden"]),
        "MNIST, layers of 256 units, one perturbation, batch size 1, two passes",
    ),
    "limits-width": Limit(
        "grlu-limits-width",
        "Accuracy against width",
        "units of the hidden layer",
        lambda config: config["config.hidden"][0],
        "MNIST, one hidden layer, one perturbation, batch size 1, two passes",
        log=True,
    ),
    "limits-k": Limit(
        "grlu-limits-k",
        "Accuracy against the share of active units",
        "share k of the hidden units that are active",
        lambda config: config["config.k"],
        "MNIST, 256 units, top-k, one perturbation, batch size 1, two passes",
        log=True,
    ),
    "limits-time": Limit(
        "grlu-limits-time",
        "Accuracy against steps in time",
        "steps in time with the same weights",
        lambda config: STEPS[str(config["config.model"]).rpartition(":")[2]],
        "MNIST, 128 units, one perturbation, batch size 64, Adam, one pass",
    ),
}


def rule_of(row: Mapping[str, Any]) -> str:
    """Return the name of the rule of a run of the recipes."""
    if row["rule"] == "backprop":
        return FEATURES
    if row["config.update"] == "backprop" or row["config.feedback"] == "transposed":
        return GRADIENT
    if row["config.credit"] == "learned":
        return FEATURES if row["config.feedback"] == "none" else LEARNED
    if row["config.noise_layers"] == "readout":
        return SCALAR
    return PUBLISHED if row["config.credit"] == "output" else BEFORE


def figure(runs: pd.DataFrame, limit: Limit) -> Figure:
    """Return the figure of a limit, from the runs of its recipe."""
    rows = runs.to_dict("records")
    found = [rule_of({str(name): value for name, value in row.items()}) for row in rows]
    names = [name for name in RULES if name in found]
    values = pd.DataFrame(
        {
            "label": pd.Categorical(found, names),
            "panel": "",
            "x": [float(limit.x({str(name): value for name, value in row.items()})) for row in rows],
            "run": runs["run"].tolist(),
            "value": runs["test/accuracy"].tolist(),
        }
    )
    styles: dict[str, SeriesStyle] = {name: style for name, style in series_styles(RULES).items() if name in names}
    view = View(log="x" if limit.log else None, width=7.4, height=3.8, title=limit.title)
    drawn = finals_figure(values, Metric("test accuracy", "%"), view, styles, option=limit.option, about=limit.about)
    return Figure(drawn)


def of_reference(reference: Reference) -> dict[str, Figure]:
    """Return the figures whose runs the reference holds, by file name."""
    drawn = {}
    for name, limit in LIMITS.items():
        runs = runs_of_recipes(reference, [limit.recipe])
        if len(runs):
            drawn[name] = figure(runs, limit)
    return drawn
