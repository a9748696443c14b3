"""From a configuration to its learner, the training of a run, and its trained network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from plastic_cli import UserError
from plastic_cli.classifier.data import load_training_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.module_run import (
    dropped_rate,
    make_module_learner,
    scheduled_rates,
    train_module,
    trained_module,
)
from plastic_cli.classifier.optimizers import make_optimizer
from plastic_cli.data.datasets import Split
from plastic_cli.runs.own_modules import note_versions
from plastic_metafa.credit import RandomFeedback
from plastic_metafa.feedback.config import FEEDBACK_DECAY, MIRROR_SAMPLES, Train
from plastic_metafa.feedback.network import SoftplusNetwork
from plastic_metafa.feedback.online import OnlineLearner, has_kernel
from plastic_metafa.feedback.stream import fit_stream, log_best
from plastic_metafa.feedback.strengths import strengths
from plastic_metafa.network import Pixels
from plastic_metafa.own_terms import load_terms

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset


def train_network(config: Train, run: Run) -> None:
    """Train the network of a run."""
    note_versions(run, load_terms(strengths(config, run)))
    loop = partial(fit_stream, every=config.measure_every) if config.measure_every else fit
    train_module(config, run, lambda data: make_learner(config, data, run), training_data(config, run), loop=loop)
    log_best(run)


def training_data(config: Train, run: Run) -> Dataset:
    """Return the data set with the training images that a run learns from; raises UserError if it has too few."""
    data = load_training_data(config, run)
    if not config.images:
        return data
    if config.images > len(data.train):
        raise UserError(f"--images {config.images}: {data.name} has {len(data.train)} training images.")
    order = torch.randperm(len(data.train), generator=run.generator("images"))
    chosen = order[: config.images].to(data.train.x.device)
    return replace(data, train=Split(data.train.x[chosen], data.train.y[chosen]))


def build(run: Run, data: Dataset, *, trained: bool = True) -> ModuleLearner:
    """Return the learner of a run: trained, or with its initial weights."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> nn.Module:
    """Return the trained network of a run as a module: logits (batch, classes) of images as the data set gives them."""
    return trained_module(run, build)


def make_learner(config: Train, data: Dataset, run: Run) -> ModuleLearner:
    """Return the learner that a configuration describes, its weights drawn from the seed of the run."""
    if config.activation == "softplus":
        learner = _softplus_learner(config, data, run)
    else:
        learner = make_module_learner(config, data, run, make_credit)
    if config.rate_drops and learner.optimizer is not None:
        learner.schedule = rates_of_weights_and_feedback(config, learner)
    return learner


def rates_of_weights_and_feedback(config: Train, learner: ModuleLearner) -> Callable[[float], None]:
    """Return the schedule of the learning rate, and of the decay of W - B where it is a part of the learning rate."""
    factor = dropped_rate(config.rate_drops)
    assert learner.optimizer is not None
    set_rates = scheduled_rates(learner.optimizer, factor)
    follows = config.feedback_decay is None and config.weight_decay > 0

    def set_both(progress: float) -> None:
        set_rates(progress)
        if follows and isinstance(learner.credit, RandomFeedback):
            learner.credit.weights.decay = feedback_decay(config) * factor(progress)

    return set_both


def make_credit(config: Train, model: nn.Module, run: Run) -> RandomFeedback:
    """Return the credit rule of a run for its network; draws the initial weights if the configuration asks for it."""
    if config.initial_weights == "xavier":
        draw_xavier(model, run.generator("xavier weights"))
    theta = strengths(config, run)
    load_terms(theta)
    return RandomFeedback(
        model,
        config.feedback,
        theta=theta,
        decay=feedback_decay(config),
        mirror_rate=config.mirror_rate,
        mirror_samples=MIRROR_SAMPLES,
        generator=run.generator("feedback"),
    )


def feedback_decay(config: Train) -> float:
    """Return the decay of W - B for kolen-pollack, per step. The published one is learning rate times weight decay."""
    if config.feedback_decay is not None:
        return config.feedback_decay
    return config.learning_rate * config.weight_decay or FEEDBACK_DECAY


@torch.no_grad()
def draw_xavier(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear layers and convolutions within +-sqrt(6 / (in + out)), and set their biases to 0."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for layer in model.modules():
        if isinstance(layer, layers):
            field = prod(layer.weight.shape[2:])
            bound = (6 / (field * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            drawn = torch.rand(layer.weight.shape, generator=generator)
            layer.weight.copy_(bound * (2 * drawn - 1))
            if layer.bias is not None:
                layer.bias.zero_()


def _softplus_learner(config: Train, data: Dataset, run: Run) -> ModuleLearner:
    """Return the learner of the network of metafa; it runs in compiled code where that computes the same."""
    sizes = [prod(data.image_shape), *config.hidden, data.classes]
    model = SoftplusNetwork(sizes, run.generator("weights"), Pixels(data, 0)).to(run.device)
    credit = make_credit(config, model, run)
    plain = config.optimizer == "sgd" and not config.momentum and not config.weight_decay
    if plain and config.batch_size == 1 and has_kernel(credit, run.device):
        return OnlineLearner(model, credit, config.learning_rate)
    return ModuleLearner(model, make_optimizer(config, model.parameters()), credit=credit)
