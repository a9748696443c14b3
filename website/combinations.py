"""Credit x update x network in the documentation: figures and tables, from the runs of two recipes of the reference.

`python website/measurements.py` writes `docs/measurements/combinations.toml` and the tables of the page, and
`python website/figures.py` the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotnine import ggplot

from measured import stored_reference
from plastic_cli.figures.curves import ordered_styles
from plastic_cli.figures.finals import finals_figure
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.combinations import (
    ANGLE,
    LEARNING_COST,
    SECONDS,
    combinations,
    compared,
    final_values,
    plot_combinations,
)
from plastic_cli.reports.plots import Figure
from plastic_cli.runs.reference import Reference
from plastic_cli.statistics.intervals import mean_interval
from reference_runs import chosen_runs, runs_of_recipes

RECIPES = ("combinations", "grlu-depth-and-width")
MEASUREMENTS = Path(__file__).resolve().parents[1] / "docs/measurements/combinations.toml"
ACCURACY, FORWARD_COST = "test/accuracy", "train/forward_flops"
SHARE, DIFFERENCE, HALF_TURN = (0.0, 100.0), (-100.0, 100.0), (0.0, 180.0)
"""What percentages, their differences and angles can be; intervals end there."""
UPDATES = ("sgd", "adam", "selective")

COMMANDS = {
    "combinations": "plastic sweep combinations",
    "depth-and-width": "plastic sweep grlu-depth-and-width",
}


class Measured:
    """The values of one table: they are shown by their keys."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, float]] = {}

    def interval(self, key: str, values: Iterable[float], ends: tuple[float, float], scale: float = 1.0) -> str:
        """Store the mean of some values and its interval within `ends`, and return how a row shows it; "" for none."""
        found = mean_interval([scale * value for value in values])
        if not found.n:
            return ""
        bounds = {"low": max(found.low, ends[0]), "high": min(found.high, ends[1])} if found.known else {}
        numbers = {"mean": found.mean, **bounds}
        self.stored[key] = {**{name: round(number, 4) for name, number in numbers.items()}, "n": found.n}
        return f"{{{key}}}"

    def number(self, key: str, value: float, digits: int) -> str:
        """Store one number, and return how a row shows it."""
        self.stored[key] = {"mean": float(f"{value:.4g}")}
        return f"{{{key}:{digits}}}"


def combinations_table(runs: pd.DataFrame, metrics: pd.DataFrame, dataset: str) -> tuple[list[list[str]], Measured]:
    """Return a row for each network and credit rule: accuracy of each update, angle, cost and time."""
    table = compared(combinations(runs))
    table = table[table["dataset"] == dataset]
    of = {
        key: final_values(table, runs, metrics, key) for key in (ACCURACY, ANGLE, LEARNING_COST, FORWARD_COST, SECONDS)
    }
    measured, rows = Measured(), []
    for (network, credit), own in table.groupby(["network", "credit"], observed=True):
        # A colon in a key would begin a format.
        name = f"{network} / {credit}".replace(":", ",")
        values = {key: frame[frame["run"].isin(own["run"])] for key, frame in of.items()}

        def with_update(key: str, update: str, values: dict[str, pd.DataFrame] = values) -> Any:
            return values[key].loc[values[key]["update"] == update, "value"]

        accuracy = [
            measured.interval(f"{name} / {update}", with_update(ACCURACY, update), SHARE, 100) for update in UPDATES
        ]
        angle = measured.interval(f"{name} / angle", with_update(ANGLE, "adam"), HALF_TURN)
        cost = values[LEARNING_COST]["value"].mean() / values[FORWARD_COST]["value"].mean()
        seconds = values[SECONDS]["value"].min()
        rows.append(
            [str(network), str(credit), *accuracy, angle, measured.number(f"{name} / cost", cost, 1),
             measured.number(f"{name} / seconds", seconds, 1)]
        )  # fmt: skip
    return rows, measured


def depth_table(runs: pd.DataFrame) -> tuple[list[list[str]], Measured]:
    """Return a row for each width and depth: accuracy and angle of node perturbation, and accuracy of the gradient."""
    runs = runs[runs["rule"] == "grlu"].dropna(subset=["config.hidden"])
    measured, rows = Measured(), []
    sizes = runs["config.hidden"].apply(tuple)
    for hidden in sorted(set(sizes), key=lambda units: (units[0], len(units))):
        own = runs[sizes == hidden]
        node, gradient = (own[own["config.update"] == update] for update in ("grlu", "backprop"))
        name = f"{hidden[0]} x {len(hidden)}"
        seeds = node.merge(gradient, on="seed", suffixes=("", "_gradient"))
        difference = seeds[f"{ACCURACY}_gradient"] - seeds[ACCURACY]
        rows.append(
            [str(hidden[0]), str(len(hidden)), measured.interval(f"{name} / node", node[ACCURACY], SHARE, 100),
             measured.interval(f"{name} / gradient", gradient[ACCURACY], SHARE, 100),
             measured.interval(f"{name} / difference", difference, DIFFERENCE, 100),
             measured.interval(f"{name} / angle", node[ANGLE], HALF_TURN)]
        )  # fmt: skip
    return rows, measured


def loss_per_layer(runs: pd.DataFrame) -> tuple[list[list[str]], Measured]:
    """Return a row for each width: the slope of the accuracy lost over the number of hidden layers, of each seed."""
    measured, rows = Measured(), []
    pairs = with_gradient(runs)
    for width, own in pairs.groupby("width"):
        slopes = [
            np.polyfit(seed["depth"], 100 * seed["lost"], 1)[0]
            for _, seed in own.groupby("seed")
            if len(seed) == own["depth"].nunique() > 2
        ]
        if slopes:
            rows.append([str(width), str(len(slopes)), measured.interval(f"{width} / slope", slopes, DIFFERENCE)])
    return rows, measured


def with_gradient(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of node perturbation with depth, width, and the accuracy lost against the gradient of a seed."""
    shaped = runs.assign(
        depth=runs["config.hidden"].apply(len),
        width=runs["config.hidden"].apply(lambda units: units[0]),
    )
    node, gradient = (shaped[shaped["config.update"] == update] for update in ("grlu", "backprop"))
    pairs = node.merge(
        gradient[["depth", "width", "seed", ACCURACY]], on=["depth", "width", "seed"], suffixes=("", "_gradient")
    )
    return pairs.assign(lost=pairs[f"{ACCURACY}_gradient"] - pairs[ACCURACY])


def toml_table(name: str, columns: list[str], rows: list[list[str]], measured: Measured, command: str) -> str:
    """Return one table of a file of measurements."""
    quoted = [", ".join(f'"{cell}"' for cell in row) for row in (columns, *rows)]
    lines = [
        f"[{name}]",
        f'command = "{command}"',
        "generated = true",
        "digits = 1",
        f'align = "{"ll" + "r" * (len(columns) - 2)}"',
        f"columns = [{quoted[0]}]",
        "rows = [",
        *(f"    [{row}]," for row in quoted[1:]),
        "]",
        "",
        f"[{name}.values]",
    ]
    for key, value in measured.stored.items():
        parts = ", ".join(f"{part} = {number!r}" for part, number in value.items())
        lines.append(f'"{key}" = {{ {parts} }}')
    return "\n".join(lines) + "\n"


def tables_text(reference: Reference) -> str:
    """Return the text of `docs/measurements/combinations.toml`: the tables of the runs of the reference."""
    matrix, depths = (runs_of_recipes(reference, [name]) for name in RECIPES)
    metrics = reference.metrics(list(matrix["run"]), stage="train")
    texts = ["# The measured numbers of docs/any-network.md. `python website/measurements.py` writes this file.\n"]
    columns = ["network", "credit", *UPDATES, "angle (adam)", "cost of learning", "seconds"]
    for dataset in dict.fromkeys(matrix["dataset"]):
        rows, measured = combinations_table(matrix, metrics, dataset)
        texts.append(
            toml_table(dataset, columns, rows, measured, f"{COMMANDS['combinations']} --only dataset={dataset}")
        )
    rows, measured = depth_table(depths)
    columns = ["width", "depth", "node perturbation", "gradient", "difference", "angle"]
    texts.append(toml_table("depth-and-width", columns, rows, measured, COMMANDS["depth-and-width"]))
    rows, measured = loss_per_layer(depths)
    columns = ["width", "seeds", "accuracy lost with each hidden layer"]
    texts.append(toml_table("loss-per-layer", columns, rows, measured, COMMANDS["depth-and-width"]))
    return "\n".join(texts)


def write() -> None:
    """Write the tables from the reference that comes with plastic."""
    MEASUREMENTS.write_text(tables_text(stored_reference()), encoding="utf-8")


def of_reference(reference: Reference) -> dict[str, Figure]:
    """Return the figures of the page by file name, from the runs of the reference."""
    matrix, depths = (runs_of_recipes(reference, [name]) for name in RECIPES)
    digits = chosen_runs(reference, matrix[matrix["dataset"] == "digits"])
    drawn = {
        "combinations-accuracy": plot_combinations(digits, None, None, View()),
        "combinations-angles": plot_combinations(digits, None, "layer", View()),
        "combinations-cost": plot_combinations(digits, LEARNING_COST, None, View(log="x")),
    }
    plots = {name: each.figure for name, each in drawn.items()} | depth_figures(depths)
    return {name: Figure(plot) for name, plot in plots.items()}


def depth_figures(runs: pd.DataFrame) -> dict[str, ggplot]:
    """Return what node perturbation loses against the gradient, and its angle, over the depth for each width."""
    node, pairs = runs[runs["config.update"] == "grlu"], with_gradient(runs)
    lost = Metric("accuracy lost", "%")
    return {
        "depth-and-width-accuracy": _over_depth(pairs, pairs["lost"], lost, "Accuracy lost against the gradient"),
        "depth-and-width-angle": _over_depth(node, node[ANGLE], Metric("angle", "degrees"), "Angle to the gradient"),
    }


def _over_depth(runs: pd.DataFrame, values: pd.Series[float], metric: Metric, title: str) -> ggplot:
    depth, width = (runs["config.hidden"].apply(size).tolist() for size in (len, lambda units: units[0]))
    labels = [f"width {units}" for units in sorted(set(width))]
    label = pd.Categorical([f"width {units}" for units in width], labels)
    x = [float(layers) for layers in depth]
    frame = pd.DataFrame({"label": label, "panel": "", "x": x, "run": runs["run"].tolist(), "value": values.tolist()})
    about = "node perturbation with 16 perturbations on digits"
    view = View(width=6.7, height=3.2, title=title)
    return finals_figure(frame, metric, view, ordered_styles(labels), option="hidden layers", about=about)
