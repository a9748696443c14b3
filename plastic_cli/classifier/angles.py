"""Angles of the updates of a credit rule to the gradient, for the layers of a trained and an untrained module."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import pandas as pd
import torch
from torch import nn

from plastic_cli.analysis.activity import layer_name
from plastic_cli.analysis.gradient_angles import WHOLE, GradientAngle, gradient_angles
from plastic_cli.analysis.without_effect import generators_of, without_effect
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.credit.parameters import named_parameters
from plastic_cli.data.datasets import Split
from plastic_cli.errors import UserError
from plastic_cli.figures.measures import layer_angles_figure
from plastic_cli.numerics.seeds import derived_seed
from plastic_cli.plugins.discovery import discover

if TYPE_CHECKING:
    from plastic_cli.classifier.learner import Learner
    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run

ALL = "all"
"""The name of the whole update in the table."""
FEWEST_IMAGES = 20
BATCHES = 4
"""Number of images, at least, and of batches on which angles are measured by default."""


def has_credit_rule(learner: Learner) -> TypeGuard[ModuleLearner]:
    """Return whether a learner is a module with a credit rule."""
    return isinstance(learner, ModuleLearner) and learner.credit is not None


def no_credit_rule(run: Run, learner: Learner) -> UserError:
    """Return the error of `--angles` for a learner without a credit rule."""
    if isinstance(learner, ModuleLearner) and run.record.rule not in discover().rules:
        return UserError(
            f"--angles: there is no credit rule. If run {run.id} learned by one, pass it, built as for training:"
            " analyze(run, learner=(module, optimizer, credit))."
        )
    if isinstance(learner, ModuleLearner):
        return UserError(f"--angles: run {run.id} learned by the gradient itself, so there is no angle to measure.")
    offered = [name for name, rule in discover().rules.items() if rule.credit is not None]
    return UserError(
        f"--angles: run {run.id} has no credit rule whose update could be compared with the gradient. Rules that have"
        f" one for any module of --model: {', '.join(offered)}."
    )


def analyze_angles(
    run: Run, data: Dataset, networks: Mapping[str, ModuleLearner], *, images: int | None, samples: int
) -> None:
    """Measure the angle of one update to the gradient of the same batch, for each parameter that the rule teaches.

    networks: "trained" and others, with a credit rule. images: number of training images, in batches of the run's size;
    by default 4 batches, and at least 20 images. samples: updates per batch of a rule with noise.

    Batch normalization uses the batch, as in training. Dropout is off. The table has the mean and the standard
    deviation over batches and updates, and the signal-to-noise ratio of one update, averaged over batches.
    """
    batch_size = int(run.config.get("batch_size", 1))
    chosen = min(images or max(FEWEST_IMAGES, BATCHES * batch_size), len(data.train))
    batches = _batches(data.train, chosen, batch_size, run.generator("angles"))
    rows = []
    for network, learner in networks.items():
        seeds = [derived_seed(run.seed, f"angles {network} {number}") for number in range(len(batches))]
        rows += _measure(network, learner, batches, seeds, samples)
    frame = pd.DataFrame(rows).astype({"layer": "Int64"})
    run.save_table("angles", frame)
    for row in rows:
        if row["network"] == "trained":
            _log(run, row)
    layers = frame[frame["layer"].notna()].sort_values("layer", kind="stable")
    if len(layers):
        draws = int(frame["draws"].max())
        title = f"Angle of one update to the gradient: mean and SD over {_counted(len(batches), 'batch', 'batches')}"
        title += f" and {draws} updates of each" if draws > 1 else ""
        run.save_figure("angles", layer_angles_figure(layers.assign(name=layers["name"].map(layer_name)), title))


def _batches(train: Split, images: int, batch_size: int, generator: torch.Generator) -> list[Split]:
    """Return images of all classes in random order, in batches."""
    sample = stratified_sample(train, images)
    order = torch.randperm(len(sample), generator=generator).to(sample.y.device)
    return [Split(sample.x[batch], sample.y[batch]) for batch in order.split(batch_size)]


def _measure(
    network: str, learner: ModuleLearner, batches: Sequence[Split], seeds: Sequence[int], samples: int
) -> list[dict[str, Any]]:
    """Return the rows of one network, one for each parameter and one for all together. seeds: one for each batch."""
    credit = learner.credit
    assert credit is not None
    numbers = learner.layer_numbers(batches[0].x[:2])
    _use_batch_statistics(learner.network)
    problems = [(learner.as_input(batch.x), learner.losses(batch.y)) for batch in batches]
    measured = []
    with without_effect(learner.network, credit) as begin_again:
        # What a rule draws once, such as feedback weights, comes from its own generator as in training.
        credit.backward(*problems[0])
        begin_again()
        for (inputs, losses), seed in zip(problems, seeds, strict=True):
            for generator in generators_of(credit):
                generator.manual_seed(seed)
            measured.append(gradient_angles(credit, learner.network, inputs, losses, draws=samples))
    parameters, rows = named_parameters(learner.network), []
    for name in measured[0]:
        of_parameter = [angles[name] for angles in measured]
        weight = name != WHOLE and parameters[name].ndim > 1
        labels = {"network": network, "layer": numbers.get(layer_name(name)) if weight else None, "name": name or ALL}
        rows.append({**labels, **_summary(of_parameter)})
    return rows


def _summary(of_batches: Sequence[GradientAngle]) -> dict[str, float | int]:
    """Return mean and deviation of the angles of all updates, and the ratio of batches, of those that are defined."""
    angles = [angle for batch in of_batches for angle in batch.angles if not math.isnan(angle)]
    ratios = [batch.signal_to_noise for batch in of_batches if math.isfinite(batch.signal_to_noise)]
    return {
        "angle": statistics.fmean(angles) if angles else math.nan,
        "angle_sd": statistics.stdev(angles) if len(angles) > 1 else math.nan,
        "signal_to_noise": statistics.fmean(ratios) if ratios else math.nan,
        "draws": max(batch.draws for batch in of_batches),
        "batches": len(of_batches),
    }


def _use_batch_statistics(network: nn.Module) -> None:
    """Put batch normalization into training mode and all else, such as dropout, into evaluation mode."""
    network.eval()
    for module in network.modules():
        # The class of all batch and instance normalization; torch has no public name for it.
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.train()


def _log(run: Run, row: Mapping[str, Any]) -> None:
    """Log the angle of a layer, or of the whole update, and the ratio if there is one."""
    values = {name: row[name] for name in ("angle", "signal_to_noise") if not math.isnan(row[name])}
    if row["name"] == ALL:
        run.log("train", None, **values)
    elif row["layer"] is not None and values:
        name = layer_name(row["name"])
        run.layers[row["layer"]] = name
        run.log("train", {"layer": row["layer"], "name": name}, **values)
        run.results |= {f"layer {row['layer']}/{measure}": value for measure, value in values.items()}


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
