"""Measures of GRLU's updates: their angle to the gradient, and their signal-to-noise ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from plastic_cli.analysis.angles import angle_degrees, signal_to_noise
from plastic_cli.classifier.angles import FEWEST_IMAGES
from plastic_cli.classifier.data import trained_on
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.weight_snapshots import shape_of_units
from plastic_cli.figures import measures as figures
from plastic_cli.figures.weights import weights_picture
from plastic_cli.numerics.seeds import derived_seed
from plastic_grlu import rule

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.classifier.learner import Build
    from plastic_grlu.config import Analyze
    from plastic_grlu.learner import GRLULearner

PERTURBATIONS = (1, 16, 128)


def analyze_updates(config: Analyze, run: Run, build: Build) -> None:
    """Measure the angle of one update to the true gradient and its signal-to-noise ratio, by number of perturbations.

    Updates and gradients are those of single training images with the run's initial noise, as at batch size 1. The
    angle is the mean over images and noise samples. The signal-to-noise ratio is that of one update over noise samples,
    averaged over images. With learned feedback an update has no noise, and the angle of the feedback to the weights
    that it stands for is measured too.
    """
    data = trained_on(run)
    learner: GRLULearner = build(run, data, trained=True)  # type: ignore[assignment]
    untrained: GRLULearner = build(run, data, trained=False)  # type: ignore[assignment]
    sample = stratified_sample(data.train, config.images or FEWEST_IMAGES)
    rows = []
    for network, subject in (("trained", learner), ("untrained", untrained)):
        x = subject.encode(sample.x)
        counts = {learner.perturbations} if learner.feedback is not None else {*PERTURBATIONS, learner.perturbations}
        for perturbations in sorted(counts):
            rows += _measure(subject, network, x, sample.y, perturbations, config.samples, run.seed)
    frame = pd.DataFrame(rows)
    run.save_table("angles", frame)
    trained = frame[frame["network"] == "trained"]
    spread = {"low": trained["angle"] - trained["angle_sd"], "high": trained["angle"] + trained["angle_sd"]}
    names = ["1 perturbation" if count == 1 else f"{count} perturbations" for count in trained["perturbations"]]
    title = "Angle between one update and the gradient: mean and SD over images and noise"
    run.save_figure("angles", figures.angle_figure(trained.assign(label=names, **spread), title))
    own = frame[(frame["network"] == "trained") & (frame["perturbations"] == learner.perturbations)]
    for row in own.to_dict("records"):
        labels = {"layer": row["layer"], "perturbations": row["perturbations"]}
        run.log("train", labels, angle=row["angle"], signal_to_noise=row["signal_to_noise"])
        run.results[f"layer {row['layer']}/angle"] = row["angle"]
        run.results[f"layer {row['layer']}/signal_to_noise"] = row["signal_to_noise"]
    for layer, angle in enumerate(learner.feedback_angles(), 1):
        run.log("train", {"layer": layer}, feedback_angle=angle)
        run.results[f"layer {layer}/feedback_angle"] = angle


def show_weights(run: Run, build: Build) -> None:
    """Write the weights of the first layer as images."""
    data = trained_on(run)
    learner: GRLULearner | ModuleLearner = build(run, data, trained=True)  # type: ignore[assignment]
    first = learner.first_layer(data.test.x[:2]) if isinstance(learner, ModuleLearner) else learner.weights[0]
    shape = None if first is None else shape_of_units(run, first)
    if first is None or shape is None:
        run.message(
            "no figure of the weights: the inputs of a unit of the first layer are not an image of 1 or 3 channels"
        )
        return
    weights = first.detach().flatten(1).cpu()
    title = f"{run.record.rule} on {run.record.dataset}, seed {run.seed}"
    name = f"weights of the {len(weights)} units of the first layer, after training"
    run.save_image("weights_all", weights_picture({name: weights}, shape, title))


def _measure(
    learner: GRLULearner, network: str, x: Tensor, y: Tensor, perturbations: int, samples: int, seed: int
) -> list[dict[str, float | int | str]]:
    layers = range(len(learner.weights))
    angles: list[list[float]] = [[] for _ in layers]
    signals: list[list[float]] = [[] for _ in layers]
    for image in range(len(x)):
        one, label = x[image : image + 1], y[image : image + 1]
        updates, gradients = _draw_updates(
            learner, one, label, perturbations, samples, derived_seed(seed, f"{network} {perturbations} {image}")
        )
        for layer in layers:
            pairs = zip(updates[layer], gradients[layer], strict=True)
            angles[layer] += [angle_degrees(update, gradient) for update, gradient in pairs]
            signals[layer].append(signal_to_noise(torch.stack(updates[layer])))
    return [
        {
            "network": network,
            "layer": layer + 1,
            "perturbations": perturbations,
            "angle": float(torch.tensor(angles[layer]).nanmean()),
            "angle_sd": _spread(angles[layer]),
            "signal_to_noise": float(torch.tensor(signals[layer]).nanmean()),
        }
        for layer in layers
    ]


def _draw_updates(
    learner: GRLULearner, x: Tensor, y: Tensor, perturbations: int, samples: int, seed: int
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return, per layer, `samples` updates for one image x (1, d_0) and the gradient that each estimates."""
    # With learned feedback, an update needs no noise, and one mask.
    perturbations = perturbations if learner.feedback is None else 1
    noises, gumbels = learner.draw(perturbations * samples, seed)
    updates: list[list[Tensor]] = [[] for _ in learner.weights]
    gradients: list[list[Tensor]] = [[] for _ in learner.weights]
    gradient: list[Tensor] | None = None
    for draw in range(samples):
        rows = slice(draw * perturbations, (draw + 1) * perturbations)
        noise = [part[rows] for part in noises]
        form = learner.form._replace(turn=draw * perturbations)
        masks = None
        if gumbels is not None:
            # Masks and update are those of the noise that units get.
            noise = rule.noise_of_form(
                learner.weights, learner.biases, x, noise, form, credit=learner.credit, skip=learner.skip
            )
            masks = learner.masks(x, noise, [part[rows] for part in gumbels])
        update = _update(learner, x, y, noise, masks, form)
        # With ReLU there is one gradient. With masks it is that of the masked networks that this update perturbed.
        if gradient is None or masks is not None:
            copies = 1 if masks is None else perturbations
            gradient, _, _ = rule.gradient_update(
                learner.effective_weights(),
                learner.biases,
                x.expand(copies, -1),
                y.expand(copies),
                masks,
                skip=learner.skip,
            )
            if learner.decorrelation is not None:
                gradient = rule.decorrelated_updates(gradient, learner.decorrelation.matrices)
        for layer in range(len(updates)):
            updates[layer].append(update[layer])
            gradients[layer].append(gradient[layer])
    return updates, gradients


def _update(
    learner: GRLULearner,
    x: Tensor,
    y: Tensor,
    noise: list[Tensor],
    masks: list[Tensor] | None,
    form: rule.NoiseForm,
) -> list[Tensor]:
    """Return the update of the weights of each layer; zero where the form of the noise gives the layer none.

    With masks, noise has its form already.
    """
    weights, biases = learner.weights, learner.biases
    if learner.feedback is not None:
        matrices, path = learner.feedback.matrices, learner.feedback.path
        return rule.signals(weights, biases, matrices, x, y, masks, path=path, skip=learner.skip).updates()[0]
    if learner.groups > 1:
        return rule.update_of_groups(
            weights, biases, x, y, noise, learner.groups, credit=learner.credit, skip=learner.skip
        )[0]
    if masks is not None:
        updates = rule.grlu_update(weights, biases, x, y, noise, masks, credit=learner.credit, skip=learner.skip)
        return rule.scaled_by_form(updates, form)[0]
    weights = learner.effective_weights()
    updates = rule.update_of_form(weights, biases, x, y, noise, form, credit=learner.credit, skip=learner.skip)
    if learner.decorrelation is None:
        return updates[0]
    return rule.decorrelated_updates(updates[0], learner.decorrelation.matrices)


def _spread(values: list[float]) -> float:
    finite = torch.tensor(values, dtype=torch.float64)
    finite = finite[~finite.isnan()]
    return float(finite.std()) if len(finite) > 1 else float("nan")
