"""The figures of docs/frontier.md: accuracy against the price of learning, from the runs of the recipe `frontier`.

    python website/frontier.py           # from the reference that comes with plastic
    python website/frontier.py FOLDER    # from the runs of a store

It writes pictures into `docs/images`. `python website/measurements.py` writes the tables of the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import plastic_cli as plastic
from measured import stored_reference
from plastic_cli.figures.files import save_figure
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.options import PriceName
from plastic_cli.reports.pareto import pareto_figures, priced_results
from plastic_cli.reports.plots import Figure
from plastic_cli.reports.results import summarize
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe

RECIPE = "frontier"
IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
PRICES: tuple[PriceName, ...] = ("messages", "flops")

FEEDBACK = {
    "direct": "10 errors, direct feedback",
    "fixed": "errors, fixed random weights",
    "sign": "errors, signs of the weights",
    "kolen-pollack": "errors, learned weights",
}
EVENTS = {"triggered": "errors for surprising images", "fixed": "errors for random batches"}


def name_of(rule: str, config: Mapping[str, Any]) -> str:
    """Return the name of a setting of the recipe, as the table of the page has it."""
    if rule == "backprop":
        return "the gradient" if config["trained"] == "all" else "random features"
    if rule == "feedback":
        return FEEDBACK[config["feedback"]]
    if rule == "eglp":
        return EVENTS[config["events"]]
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


def runs_of_store(folder: Path) -> pd.DataFrame:
    """Return the completed runs of the recipe in a store."""
    store = plastic.RunStore(folder).refresh()
    wanted = {
        row["run"]
        for planned in plan_recipe(read_recipe(RECIPE))
        for row in store.with_settings(planned.rule, planned.config)
    }
    runs = store.runs()
    return runs[runs["run"].isin(wanted) & (runs["status"] == "completed")]


def runs_of_reference() -> pd.DataFrame:
    """Return the completed runs of the recipe in the reference."""
    runs = stored_reference().runs()
    own = runs[runs["recipes"].map(lambda names: RECIPE in names) & (runs["status"] == "completed")]
    # The reference has one run of a setting and seed: runs of two versions are no two settings.
    return own.assign(version=None, rule_version=None)


def main() -> None:
    """Draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the store of the runs (default: the reference)")
    folder = parser.parse_args().folder
    runs = runs_of_reference() if folder is None else runs_of_store(folder)
    for name, figure in figures(runs).items():
        save_figure(figure.plot, IMAGES, name, ("png",), description=figure.description)


if __name__ == "__main__":
    main()
