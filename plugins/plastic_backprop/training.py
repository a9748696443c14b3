"""From a configuration to its network, and from a run to its trained network."""

from __future__ import annotations

from plastic_backprop.config import Train
from plastic_cli import Run
from plastic_cli.classifier.baselines import BackpropLearner, ReluNetwork
from plastic_cli.classifier.data import described_data
from plastic_cli.data.datasets import Dataset


def build(run: Run, data: Dataset, *, trained: bool = True) -> BackpropLearner:
    """Return the network of a run: trained, or with its initial weights."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> ReluNetwork:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features)."""
    trained = ReluNetwork(build(run, described_data(run)).layers)
    return trained.requires_grad_(True).eval()


def make_learner(config: Train, data: Dataset, run: Run) -> BackpropLearner:
    """Return the network that a configuration describes, its weights drawn from the run's seed."""
    return BackpropLearner(
        [data.train.x.shape[1], *config.hidden, data.classes],
        run.generator("weights"),
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        momentum=config.momentum,
        trained=config.trained,
        device=run.device,
    )
