"""From a configuration to its learner, and the training of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from plastic_cli import UserError
from plastic_cli.classifier.data import described_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.render import snapshot_weights
from plastic_eglp.config import Train
from plastic_eglp.cost import cost_of
from plastic_eglp.events import make_controller
from plastic_eglp.learner import EGLPLearner
from plastic_eglp.network import EGLPNetwork, TrainedNetwork

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset


def build(run: Run, data: Dataset, *, trained: bool = True) -> EGLPLearner:
    """Return the learner of a run: trained, or with its initial weights."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> TrainedNetwork:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features)."""
    trained = TrainedNetwork(build(run, described_data(run)).network)
    return trained.requires_grad_(True).eval()


def make_learner(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> EGLPLearner:
    """Return the learner that a configuration describes, its weights drawn from the run's seed.

    frozen: hidden layers, counted from 0, that never learn.
    Raises UserError if the images are too small for the number of convolutions.
    """
    most = _halvings(*data.image_shape[1:])
    if config.model == "cnn" and len(config.hidden) > most:
        named = ",".join(map(str, config.hidden))
        raise UserError(
            f"--hidden {named}: the images of {data.name} can be halved {most} times, once per convolution."
        )
    network = EGLPNetwork(
        data.image_shape,
        config.hidden,
        data.classes,
        model=config.model,
        lr=config.local_learning_rate,
        local_rule=config.local_rule,
        activation=config.activation,
        inverse_temperature=config.inverse_temperature,
        initial_weights=config.initial_weights,
        readout=config.readout,
        generator=run.generator("weights"),
    ).to(run.device)
    return EGLPLearner(
        network,
        make_controller(config, run.seed),
        batch_size=config.batch_size,
        feedback=config.feedback,
        signal=config.event_signal,
        gather=config.event_batch_size,
        readout_lr=config.learning_rate,
        update=config.update,
        anneal=config.anneal,
        frozen=frozen,
    )


def train_and_log(learner: EGLPLearner, data: Dataset, run: Run, config: Train) -> None:
    """Train `learner` for the run's epochs; log accuracy, events, updates and cost after each epoch."""
    cost = cost_of(learner)
    images = len(data.train)
    batches = config.epochs * -(-images // config.batch_size)
    if config.events in ("triggered", "fixed") and 10 * config.event_warmup > batches:
        first = "all" if config.event_warmup >= batches else f"the first {config.event_warmup} of"
        run.message(f"{first} {batches} batches are events (--event-warmup {config.event_warmup})")
    learner.had_event.clear()

    def after_epoch(epoch: int) -> None:
        seen = images * epoch
        learning = cost.readout * seen + cost.event * learner.event_stimuli
        run.log(
            "train",
            events=learner.events,
            event_images=learner.event_stimuli,
            synaptic_updates=learner.synaptic_updates,
            forward_flops=cost.forward * seen,
            learning_flops=learning,
            messages=cost.messages * learner.event_stimuli,
        )
        # Which batches of this epoch had an event, for the raster plot.
        run.save_tensors(f"events-{epoch:06d}", {"epoch": epoch, "events": torch.tensor(learner.had_event)})
        learner.had_event.clear()
        snapshot_weights(run, epoch, config.epochs, learner.first_weights)

    fit(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)
    if learner.events == 0 and config.events != "never":
        run.console.warning("there was no event: the hidden layers have their initial weights")


def _halvings(height: int, width: int) -> int:
    """Return how often images can be halved, so that more than one pixel is left for batch normalization."""
    times = 0
    while (height // 2) * (width // 2) > 1:
        height, width, times = height // 2, width // 2, times + 1
    return times
