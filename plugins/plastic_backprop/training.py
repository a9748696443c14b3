"""From a configuration to its network, the training of a run, and its trained network."""

from __future__ import annotations

from torch import nn

from plastic_backprop.config import Train
from plastic_backprop.credit import DeepSupervision
from plastic_cli import Run
from plastic_cli.classifier.baselines import BackpropLearner, ReluNetwork
from plastic_cli.classifier.data import described_data, load_training_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.module_run import (
    dropped_rate,
    make_module_learner,
    scheduled_rates,
    train_module,
)
from plastic_cli.classifier.weight_snapshots import snapshot_weights
from plastic_cli.data.datasets import Dataset


def train_run(config: Train, run: Run) -> None:
    """Train the network of a run."""
    if not is_plain(config):
        train_module(config, run, lambda data: make_learner_of_module(config, data, run))
        return
    data = load_training_data(config, run)
    learner = make_learner(config, data, run)
    fit(
        learner,
        data,
        run,
        epochs=config.epochs,
        batch_size=config.batch_size,
        after_epoch=lambda epoch: snapshot_weights(run, epoch, config.epochs, learner.first_weights),
    )


def build(run: Run, data: Dataset, *, trained: bool = True) -> BackpropLearner | ModuleLearner:
    """Return the network of a run: trained, or with its initial weights."""
    config = Train.from_values(run.config, source=f"run {run.id}")
    learner = make_learner(config, data, run) if is_plain(config) else make_learner_of_module(config, data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> nn.Module:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features).

    A module of the user's own takes what it takes, as in training.
    """
    learner = build(run, described_data(run))
    module = learner.network if isinstance(learner, ModuleLearner) else ReluNetwork(learner.layers)
    return module.requires_grad_(True).eval()


def is_plain(config: Train) -> bool:
    """Return whether `BackpropLearner` can do the run. Runs of earlier versions used it."""
    return (
        config.model == "mlp"
        and config.trained != "deep-supervision"
        and config.optimizer in ("adam", "sgd")
        and not config.weight_decay
        and not config.rate_drops
    )


def make_learner(config: Train, data: Dataset, run: Run) -> BackpropLearner:
    """Return the network that a configuration describes, its weights drawn from the run's seed."""
    return BackpropLearner(
        [data.train.x.shape[1], *config.hidden, data.classes],
        run.generator("weights"),
        learning_rate=config.learning_rate,
        optimizer="adam" if config.optimizer == "adam" else "sgd",
        momentum=config.momentum,
        trained="readout" if config.trained == "readout" else "all",
        device=run.device,
    )


def make_learner_of_module(config: Train, data: Dataset, run: Run) -> ModuleLearner:
    """Return the learner of any network with any optimizer."""
    learner = make_module_learner(config, data, run, make_credit)
    if config.trained == "readout":
        learner.train_only_readout(data.train.x[:2])
    if config.rate_drops and learner.optimizer is not None:
        learner.schedule = scheduled_rates(learner.optimizer, dropped_rate(config.rate_drops))
    return learner


def make_credit(config: Train, model: nn.Module, run: Run) -> DeepSupervision | None:
    """Return the credit rule of `--trained deep-supervision`; None for the gradient."""
    if config.trained != "deep-supervision":
        return None
    return DeepSupervision(model, generator=run.generator("readouts"))
