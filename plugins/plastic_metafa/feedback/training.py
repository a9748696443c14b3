"""From a configuration to its learner, and from a run to its trained network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from plastic_cli import UserError
from plastic_cli.classifier.data import described_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.render import snapshot_weights
from plastic_cli.data.datasets import Split, load_dataset
from plastic_cli.runs.own_modules import note_versions
from plastic_metafa.adaptation import draw_network
from plastic_metafa.feedback.config import Train
from plastic_metafa.feedback.network import SoftplusNetwork
from plastic_metafa.feedback.online import OnlineLearner
from plastic_metafa.feedback.stream import fit_stream
from plastic_metafa.feedback.strengths import strengths
from plastic_metafa.network import Pixels
from plastic_metafa.own_terms import load_terms

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset


def train_network(config: Train, run: Run) -> None:
    """Train the network of a configuration, and store the weights of its first layer for `render`."""
    note_versions(run, load_terms(config.terms or ()))
    data = training_data(config, run)
    learner = make_learner(config, data, run)

    def after_epoch(epoch: int) -> None:
        snapshot_weights(run, epoch, config.epochs, learner.first_weights)

    if config.measure_every:
        fit_stream(
            learner,
            data,
            run,
            epochs=config.epochs,
            batch_size=config.batch_size,
            every=config.measure_every,
            after_epoch=after_epoch,
        )
    else:
        fit(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)


def training_data(config: Train, run: Run) -> Dataset:
    """Return the data set with the training images that a run learns from; raises UserError if it has too few."""
    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    if not config.images:
        return data
    if config.images > len(data.train):
        raise UserError(f"--images {config.images}: {data.name} has {len(data.train)} training images.")
    order = torch.randperm(len(data.train), generator=run.generator("images"))
    chosen = order[: config.images].to(data.train.x.device)
    return replace(data, train=Split(data.train.x[chosen], data.train.y[chosen]))


def build(run: Run, data: Dataset, *, trained: bool = True) -> OnlineLearner:
    """Return the learner of a run: trained, or with its initial weights."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> SoftplusNetwork:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features)."""
    trained = build(run, described_data(run)).network
    return trained.requires_grad_(True).eval()


def make_learner(config: Train, data: Dataset, run: Run) -> OnlineLearner:
    """Return the learner that a configuration describes, its weights drawn from the seed of the run."""
    theta = strengths(config, run)
    sizes = [data.train.x.shape[1], *config.hidden, data.classes]
    made = SoftplusNetwork(sizes, run.generator("weights"), Pixels(data, 0))
    B = draw_network(sizes, config.feedback, run.generator("feedback")).B
    return OnlineLearner(made, B, config.feedback, theta, config.learning_rate)
