"""The figures of measured results in the documentation, from the reference that comes with plastic.

    python website/figures.py           # draw the figures whose numbers have changed
    python website/figures.py --all     # draw all of them

It writes pictures into `docs/images`, and `docs/images/numbers.toml`: for each picture a hash of the numbers that it
shows. A test compares the hashes with the reference, so that a picture is never older than its page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotnine import aes, geom_hline, ggplot, labs

import combinations
import frontier
import limits
from measured import stored_reference
from plastic_cli.figures.curves import ordered_styles
from plastic_cli.figures.files import save_figure
from plastic_cli.figures.finals import finals_figure
from plastic_cli.figures.theme import GRAY
from plastic_cli.figures.view import View
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.claims import PublishedFigures, read_claims
from plastic_cli.reports.content import training_models
from plastic_cli.reports.curves import plot_runs
from plastic_cli.reports.grouping import group_runs, settings_across
from plastic_cli.reports.plots import Figure, claims_figures, looks
from plastic_cli.reports.results import judge_claims, summarize
from plastic_cli.runs.reference import Reference
from plastic_eglp.analysis.figures import event_rates_figure
from plastic_grlu.analysis.figures import perturbations_figure
from reference_runs import chosen_runs, runs_of_recipes

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
NUMBERS = IMAGES / "numbers.toml"
HEAD = "# Hashes of the numbers in the figures. `python website/figures.py` writes this file and the figures.\n\n"
DIGITS = 6
"""Significant digits of a number in a hash: more cannot be seen in a picture, and differ between machines."""

GRLU_CLAIMS = ("GR-01", "GR-02", "GR-03", "GR-04", "GR-05", "GR-06")
RATES_RECIPE = "eglp-event-rates"
SAMPLED_RECIPE = "eglp-sampled-rates"


# ---------------------------------------------------------------------------------------------------------- the figures


def learning_curves(reference: Reference) -> dict[str, Figure]:
    """Return the figure of docs/comparing.md: grlu as published, with 1, 16 and 128 perturbations."""
    runs = runs_of_recipes(reference, ["grlu-position-of-noise"])
    own = runs[(runs["config.credit"] == "output") & (runs["config.update"] == "grlu")]
    own = own[own["config.noise_layers"] != "readout"]
    drawn = plot_runs(chosen_runs(reference, own), "test/accuracy", "perturbations", view=View())
    return {"comparing-curves": Figure(drawn.figure)}


def grlu_perturbations(reference: Reference) -> dict[str, Figure]:
    """Return the figure of the first page: accuracy over the number of perturbations, for each kind of network."""
    runs = runs_of_recipes(reference, ["grlu-position-of-noise", "grlu-gr-02", "grlu-gr-03"])
    one_layer = runs["config.hidden"].map(lambda hidden: list(hidden or ()) == [256])
    own = runs[(runs["rule"] == "grlu") & one_layer & (runs["config.perturbations"] <= 128)]
    figure = perturbations_figure(own)
    return {} if figure is None else {"grlu-perturbations": Figure(figure)}


def grlu_claims(reference: Reference) -> dict[str, Figure]:
    """Return the figure of docs/rules/grlu.md: published and measured accuracy."""
    every = read_claims("grlu", discover().rules["grlu"].claims_text() or "")
    published = PublishedFigures("grlu", tuple(claim for claim in every.claims if claim.id in GRLU_CLAIMS))
    runs = runs_of_recipes(reference, [f"grlu-{name.lower()}" for name in GRLU_CLAIMS])
    models = training_models(["grlu"])
    groups = group_runs(runs, models)
    figures = {"grlu": published}
    results = summarize(runs, groups, figures)
    look = looks(results, settings_across(groups, models))
    return {"grlu-claims": claims_figures(judge_claims(runs, groups, figures), look)["claims"]}


def eglp_event_rates(reference: Reference) -> dict[str, Figure]:
    """Return the figure of docs/rules/eglp.md: means over the seeds, by kind of events and event rate."""
    runs = runs_of_recipes(reference, [RATES_RECIPE])
    rows = [
        {
            "events by": kind, "rate": rate, "accuracy": own["test/accuracy"].mean(),
            "share": (own["train/event_images"] / own["samples"]).mean(),
            "synaptic_updates": own["train/synaptic_updates"].mean(),
        }
        for (kind, rate), own in runs.assign(samples=_samples(reference, runs)).groupby(
            ["config.events", "config.event_rate"], sort=False
        )
    ]  # fmt: skip
    none = {"rate": 0.0, "accuracy": runs["control/accuracy"].mean(), "share": 0.0, "synaptic_updates": 0.0}
    figure = event_rates_figure(pd.DataFrame([{"events by": "triggered", **none}, *rows]))
    return {"eglp-event-rates": Figure(figure + labs(caption=f"Means over {runs['seed'].nunique()} seeds."))}


def eglp_sampled_rates(reference: Reference) -> dict[str, Figure]:
    """Return the figure of docs/rules/eglp.md: accuracy over the fraction of images with an event, by their choice."""
    runs = runs_of_recipes(reference, [SAMPLED_RECIPE])
    names = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
    runs = runs.assign(
        panel=pd.Categorical(runs["dataset"].map(names), list(names.values())),
        value=runs["test/accuracy"],
    )
    drawn = (runs["config.events"] == "sampled") & (runs["config.event_strength"] == "normalized")
    by_error = drawn & (runs["config.event_signal"] == "error")
    uniform, every = runs["config.event_uniform"] == 1, runs["config.event_rate"] == 1
    by_loss = (runs["config.events"] == "triggered") & (runs["config.event_signal"] == "loss")
    kinds = {
        "drawn by error": by_error & ~uniform,
        "random images": by_error & uniform & ~every,
        "triggered by loss": by_loss,
    }
    parts = [
        runs[chosen].assign(label=label, x=runs["config.event_rate"].astype(float)) for label, chosen in kinds.items()
    ]
    table = pd.concat(parts)[["label", "panel", "x", "run", "value"]]
    table["label"] = pd.Categorical(table["label"], list(kinds))
    levels = {"zero events": runs["config.events"] == "never", "an event of every image": by_error & every}
    lines = pd.concat([runs[chosen].assign(level=level) for level, chosen in levels.items()])
    means = lines.groupby(["panel", "level"], observed=True)["value"].mean().reset_index()
    figure = finals_figure(
        table,
        Metric("test accuracy", "%"),
        View(log="x", width=8.4, height=4.0, title="Which images have events"),
        ordered_styles(list(kinds)),
        option="fraction of images with an event",
        about="upper dashed line: every image has an event; lower: zero events" if len(means) > 2 else "",
    )
    figure += geom_hline(aes(yintercept="value"), data=means, linetype="dashed", color=GRAY, size=0.5)
    return {"eglp-sampled-rates": Figure(figure)}


def _samples(reference: Reference, runs: pd.DataFrame) -> list[float]:
    return [reference.record(run).speed["samples"] for run in runs["run"]]


MAKERS: tuple[Callable[[Reference], dict[str, Figure]], ...] = (
    frontier.of_reference,
    combinations.of_reference,
    limits.of_reference,
    learning_curves,
    grlu_perturbations,
    grlu_claims,
    eglp_event_rates,
    eglp_sampled_rates,
)


def figures(reference: Reference) -> dict[str, Figure]:
    """Return all figures by file name."""
    return {name: figure for make in MAKERS for name, figure in make(reference).items()}


# ---------------------------------------------------------------------------------------------------------- the numbers


def hash_of(figure: ggplot) -> str:
    """Return a hash of the data and the texts of a figure."""
    # plotnine has no public name for the data of a layer.
    frames = [figure.data, *(layer._data for layer in figure.layers)]
    content: list[Any] = [_rows(frame) for frame in frames if isinstance(frame, pd.DataFrame)]
    content.append({key: str(text) for key, text in vars(figure.labels).items() if text is not None})
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _rows(frame: pd.DataFrame) -> list[list[Any]]:
    # Ids of runs are no numbers that a figure shows.
    columns = sorted(set(frame.columns) - {"run"}, key=str)
    return [[str(name), *map(_rounded, frame[name])] for name in columns]


def _rounded(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return f"{float(value):.{DIGITS}g}"
    return str(value)


def stored() -> dict[str, str]:
    """Return the stored hash of each figure."""
    return tomllib.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}


def draw(*, everything: bool = False) -> None:
    """Draw the figures whose numbers have changed, or everything."""
    known, found = stored(), {}
    for name, figure in figures(stored_reference()).items():
        found[name] = hash_of(figure.plot)
        if everything or found[name] != known.get(name):
            save_figure(figure.plot, IMAGES, name, ("png",), description=figure.description)
            sys.stderr.write(f"wrote {(IMAGES / name).relative_to(IMAGES.parents[1])}.png\n")
    lines = [f'{name} = "{value}"\n' for name, value in sorted(found.items())]
    NUMBERS.write_text(HEAD + "".join(lines), encoding="utf-8")


def main() -> None:
    """Draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also draw figures whose numbers have not changed")
    draw(everything=parser.parse_args().all)


if __name__ == "__main__":
    main()
