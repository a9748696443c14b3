"""From a configuration to its learner, and the training of a run.

The published rule on its own networks is an EGLPLearner. Any other network or optimizer is a ModuleLearner with the
credit rule LocalPlasticity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from plastic_cli import UserError
from plastic_cli.classifier.data import described_data, load_training_data
from plastic_cli.classifier.fit import fit, fit_unlogged
from plastic_cli.classifier.module import ModuleLearner, as_input
from plastic_cli.classifier.module_run import scheduled_rates, train_module
from plastic_cli.classifier.networks import BuiltNetwork, build_network, seeded
from plastic_cli.classifier.optimizers import SeveralOptimizers, make_optimizer
from plastic_cli.classifier.weight_snapshots import snapshot_weights
from plastic_cli.credit.recording import record
from plastic_cli.data.datasets import Split
from plastic_cli.numerics.seeds import derived_seed
from plastic_eglp.augmentation import Augmentation, AugmentedLearner
from plastic_eglp.change import LOCAL_LOSSES, LocalRule
from plastic_eglp.config import OWN_MODELS, RATE_FACTOR, SOFTHEBB, SOFTHEBB_MODELS, Train
from plastic_eglp.cost import cost_of_stimulus
from plastic_eglp.credit import LocalPlasticity, make_credit
from plastic_eglp.events import make_controller
from plastic_eglp.learner import EGLPLearner
from plastic_eglp.network import EGLPNetwork, NormalizedNetwork, TrainedNetwork
from plastic_eglp.softhebb import (
    FEATURE_BATCH,
    HiddenLearner,
    Pixels,
    ReadoutLearner,
    SoftHebbLearner,
    SoftHebbNetwork,
    SoftHebbPerceptron,
    begin_with_patches,
    descent_of_network,
)

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset


Learner = EGLPLearner | ModuleLearner | SoftHebbLearner


def train_run(config: Train, run: Run) -> Dataset:
    """Train the network of a run, and return its data set."""
    data = load_training_data(config, run)
    if config.model in SOFTHEBB_MODELS:
        # Dropout draws from the global random state.
        with seeded(derived_seed(run.seed, "global")):
            train_softhebb_and_log(config, data, run)
    elif config.is_plain:
        train_and_log(make_plain_learner(config, data, run), data, run, config)
    else:
        train_module_and_log(config, data, run)
    return data


def build(run: Run, data: Dataset, *, trained: bool = True) -> Learner:
    """Return the learner of a run: trained, or with its initial weights."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained and isinstance(learner, SoftHebbLearner) and learner.backprop is None:
        run.restore("hidden", learner.hidden)
        run.restore("learner", learner.readout)
    elif trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> nn.Module:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features).

    A module of the user's own takes what it takes, as in training.
    """
    learner = build(run, described_data(run))
    trained = TrainedNetwork(learner.network) if isinstance(learner, EGLPLearner) else learner.network
    return trained.requires_grad_(True).eval()


def make_learner(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> Learner:
    """Return the learner that a configuration describes, its weights drawn from the run's seed.

    frozen: hidden layers, counted from 0, that never learn.
    Raises UserError if the images are too small for the network.
    """
    if config.model in SOFTHEBB_MODELS:
        return make_softhebb(config, data, run, frozen)
    if config.is_plain:
        return make_plain_learner(config, data, run, frozen)
    return make_learner_of_module(config, data, run, frozen)


def make_plain_learner(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> EGLPLearner:
    """Return the learner that a configuration describes, its weights drawn from the run's seed.

    frozen: hidden layers, counted from 0, that never learn.
    Raises UserError if the images are too small for the number of convolutions.
    """
    return EGLPLearner(
        make_network(config, data, run).to(run.device),
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


def make_network(config: Train, data: Dataset, run: Run) -> EGLPNetwork:
    """Return the rule's own network, with its initial weights; raises UserError for too many convolutions."""
    most = _halvings(*data.image_shape[1:])
    if config.model == "cnn" and len(config.hidden) > most:
        named = ",".join(map(str, config.hidden))
        raise UserError(
            f"--hidden {named}: the images of {data.name} can be halved {most} times, once per convolution."
        )
    return EGLPNetwork(
        data.image_shape,
        config.hidden,
        data.classes,
        model="cnn" if config.model == "cnn" else "mlp",
        lr=config.local_learning_rate,
        # A local loss needs nothing of the layers.
        local_rule="oja" if config.local_rule in LOCAL_LOSSES else cast("LocalRule", config.local_rule),
        activation=config.activation,
        inverse_temperature=config.inverse_temperature,
        initial_weights=config.initial_weights,
        readout=config.readout,
        generator=run.generator("weights"),
    )


def make_learner_of_module(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> ModuleLearner:
    """Return the learner of any network and any optimizer; the hidden layers and the readout have one optimizer each.

    With `--update backprop` the gradient and one optimizer teach all layers.
    """
    built = _built(config, data, run)
    module = built.module.to(run.device)
    if config.shift >= min(data.image_shape[1:]):
        height, width = data.image_shape[1:]
        raise UserError(
            f"--shift {config.shift}: the images of {data.name} have {height} x {width} pixels, and this shift can move"
            f" all of an image out of sight. Choose {min(height, width) - 1} or fewer."
        )
    if config.shift or config.flip:
        learner: ModuleLearner = AugmentedLearner(module, image_shape=built.image_shape)
        learner.augmentation = Augmentation(  # type: ignore[attr-defined]
            data.image_shape, data.black, run.generator("augmentation"), shift=config.shift, flip=config.flip
        )
    else:
        learner = ModuleLearner(module, image_shape=built.image_shape)
    layers = hidden_layers(learner, data)
    for number in frozen:
        learner.network.get_submodule(layers[number]).requires_grad_(False)
    learner.credit = make_credit(config, learner.network, run)
    readout = list(learner.readout(data.train.x[:2]).values())
    hidden = [value for value in learner.network.parameters() if not any(value is other for other in readout)]
    # The fused step takes a third of the time. Older networks keep the other one, so that stored runs can be repeated.
    fused = True if isinstance(module, NormalizedNetwork) else None
    adam = torch.optim.Adam(readout, lr=config.learning_rate, fused=fused)
    if config.update == "backprop":
        adam.add_param_group({"params": hidden})
        learner.optimizer = adam
    else:
        of_hidden = make_optimizer(config, hidden, learning_rate=config.local_learning_rate)
        if fused and config.optimizer == "adam":
            of_hidden = torch.optim.Adam(
                hidden, lr=config.local_learning_rate, weight_decay=config.weight_decay, fused=fused
            )
        learner.optimizer = SeveralOptimizers([of_hidden, adam])
    if config.anneal or config.rate_drops:
        learner.schedule = _schedule(config, learner)
    return learner


def _built(config: Train, data: Dataset, run: Run) -> BuiltNetwork:
    """Return the network of a run, with its initial weights."""
    if config.model not in OWN_MODELS:
        return build_network(config.model, data, config.hidden, run.generator("weights"))
    if not (config.batch_norm or config.dropout):
        return BuiltNetwork(TrainedNetwork(make_network(config, data, run)).requires_grad_(True), None)
    normalized = NormalizedNetwork(
        data.image_shape,
        config.hidden,
        data.classes,
        activation=config.activation,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
        generator=run.generator("weights"),
    )
    return BuiltNetwork(normalized, None)


def _schedule(config: Train, learner: ModuleLearner) -> Callable[[float], None]:
    """Return the schedule of the learning rates, also of the heads of local losses."""

    def factor(progress: float) -> float:
        linear = 1 - progress if config.anneal else 1.0
        return linear * RATE_FACTOR ** sum(progress >= share for share in config.rate_drops)

    assert learner.optimizer is not None
    set_rates = scheduled_rates(learner.optimizer, factor)
    losses = learner.credit.local_losses if isinstance(learner.credit, LocalPlasticity) else None
    head_rate = 0.0 if losses is None else losses.rate

    def set_all(progress: float) -> None:
        set_rates(progress)
        if losses is not None:
            losses.rate = head_rate * factor(progress)

    return set_all


def make_softhebb_network(config: Train, data: Dataset, run: Run) -> SoftHebbNetwork | SoftHebbPerceptron:
    """Return the network of `--model softhebb` or `softhebb-mlp`; raises UserError if the images are too small."""

    def each(numbers: Sequence[float]) -> list[float]:
        return [numbers[min(layer, len(numbers) - 1)] for layer in range(len(config.hidden))]

    common: dict[str, Any] = {
        "rates": each(config.layer_rates),
        "inverse_temperatures": each(config.layer_inverse_temperatures),
        "radius": config.initial_radius,
        "dropout": config.readout_dropout,
        "generator": run.generator("weights"),
    }
    if config.model != SOFTHEBB:
        pixels = Pixels(data.mean, data.std)
        return SoftHebbPerceptron(data.image_shape, config.hidden, data.classes, pixels=pixels, **common)
    try:
        powers = each(config.layer_powers)
        return SoftHebbNetwork(data.image_shape, config.hidden, data.classes, powers=powers, **common)
    except ValueError as error:
        named = ",".join(map(str, config.hidden))
        raise UserError(f"--hidden {named}: {error} ({data.name}). Use fewer layers.") from None


def make_softhebb(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> SoftHebbLearner:
    """Return the learner of `--model softhebb` or `softhebb-mlp`, its weights drawn from the run's seed.

    With `--update backprop` the gradient teaches all layers. Raises UserError if the images are too small.
    """
    network = make_softhebb_network(config, data, run).to(run.device)
    hidden = HiddenLearner(network, learns=config.events != "never", frozen=frozen)
    rate, anneal = config.learning_rate, config.anneal
    readout = ReadoutLearner(network.readout, network.dropout, rate=rate, anneal=anneal)
    if config.update == "backprop":
        of_all = descent_of_network(network, rate=rate, anneal=anneal, frozen=frozen)
        return SoftHebbLearner(network, hidden, readout, of_all)
    if isinstance(network, SoftHebbNetwork) and config.initial_filters == "patches":
        x = data.train.x
        drawn = torch.randperm(len(x), generator=run.generator("patches"))[:FEATURE_BATCH]
        begin_with_patches(network, x[drawn.to(x.device)], run.generator("patches"))
    return SoftHebbLearner(network, hidden, readout)


def learn_without_labels(
    hidden: HiddenLearner, data: Dataset, batches: Sequence[Tensor], steps: Iterable[int] | None = None
) -> None:
    """Let the hidden layers learn from batches of images. steps: the numbers of those that are left."""
    for number in range(len(batches)) if steps is None else steps:
        hidden.learn(data.train.x[batches[number].to(data.train.x.device)])


def unsupervised_batches(config: Train, data: Dataset, run: Run) -> list[Tensor]:
    """Return the numbers of the images of each batch from which the hidden layers learn without labels."""
    images, generator = len(data.train), run.generator("unsupervised")
    many = config.unsupervised_images or images
    return [
        batch
        for _ in range(config.unsupervised_epochs)
        for batch in torch.randperm(images, generator=generator)[:many].split(config.unsupervised_batch_size)
    ]


def with_labels(config: Train, data: Dataset, run: Run) -> Dataset:
    """Return the data set with the training images whose labels a run with `--labeled-images` uses."""
    if not config.labeled_images or config.labeled_images >= len(data.train):
        return data
    drawn = torch.randperm(len(data.train), generator=run.generator("labels"))[: config.labeled_images]
    drawn = drawn.to(data.train.y.device)
    return replace(data, train=Split(data.train.x[drawn], data.train.y[drawn]))


def hidden_layers(learner: Learner, data: Dataset) -> list[str]:
    """Return the names of the hidden layers of weights, in the order of use."""
    if not isinstance(learner, ModuleLearner):
        return [f"layer {number + 1}" for number in range(len(learner.network.hidden))]
    x = as_input(data.train.x[:2], learner.network, learner.image_shape)
    readout = learner.readout(data.train.x[:2])
    _, uses = record(learner.network.eval(), x)
    modules = [use.name.rpartition(".")[0] for use in uses if use.name not in readout]
    # Not the module itself, which may hold weights of its own.
    return [name for name in dict.fromkeys(modules) if name]


def train_unlogged(config: Train, data: Dataset, run: Run, frozen: Sequence[int] = ()) -> Learner:
    """Return the learner of a configuration, trained with the random numbers of the run; the run stays unchanged."""
    own_numbers = nullcontext() if config.is_plain else seeded(derived_seed(run.seed, "global"))
    with own_numbers:
        learner = make_learner(config, data, run, frozen)
        if isinstance(learner, SoftHebbLearner):
            labeled = with_labels(config, data, run)
            taught: SoftHebbLearner | ReadoutLearner = learner
            if learner.backprop is None:
                learn_without_labels(learner.hidden, data, unsupervised_batches(config, data, run))
                labeled, taught = learner.training_features(labeled), learner.readout
            fit_unlogged(taught, labeled, run, epochs=config.epochs, batch_size=config.batch_size)
        else:
            fit_unlogged(learner, data, run, epochs=config.epochs, batch_size=config.batch_size)
    return learner


def counts_of(learner: Learner) -> EGLPLearner | LocalPlasticity | HiddenLearner | None:
    """Return what counts the events of a learner; None for the gradient on a module, which has none."""
    if isinstance(learner, EGLPLearner):
        return learner
    if isinstance(learner, SoftHebbLearner):
        return learner.hidden
    return learner.credit if isinstance(learner.credit, LocalPlasticity) else None


def train_and_log(learner: EGLPLearner, data: Dataset, run: Run, config: Train) -> None:
    """Train `learner` for the run's epochs; log accuracy, events, updates and cost after each epoch."""
    cost = cost_of_stimulus(learner)
    images = len(data.train)
    announce_warmup(config, images, run)
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
        store_events(run, epoch, learner)
        snapshot_weights(run, epoch, config.epochs, learner.first_weights)

    fit(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)
    warn_without_events(learner, run, config)


def train_softhebb_and_log(config: Train, data: Dataset, run: Run) -> None:
    """Train hidden layers without labels, then a readout of their stored features.

    Weights of the first layer are stored before and after the hidden layers learn, and after each later epoch of
    backpropagation.
    """
    learner = make_softhebb(config, data, run)
    hidden, labeled = learner.hidden, with_labels(config, data, run)
    taught: SoftHebbLearner | ReadoutLearner = learner
    first = learner.first_weights.clone()
    batches: list[Tensor] = []
    if learner.backprop is None:
        batches = unsupervised_batches(config, data, run)
        run.track(hidden=hidden)
        learn_without_labels(hidden, data, batches, run.steps(len(batches), "unsupervised batch"))
        run.message("computing the features of all images, from which the readout learns")
        labeled, taught = learner.stored_features(labeled), learner.readout

    steps = -(-len(labeled.train) // config.batch_size)

    def after_epoch(epoch: int) -> None:
        run.log(
            "train",
            events=hidden.events,
            event_images=hidden.event_stimuli,
            synaptic_updates=hidden.synaptic_updates,
            **({"messages": hidden.messages} if learner.backprop is None else {}),
        )
        # All events without labels are before the first epoch of the readout, and are shown in it.
        had_event = [hidden.learns and epoch == 1] * len(batches) if learner.backprop is None else [True] * steps
        run.save_tensors(f"events-{epoch:06d}", {"epoch": epoch, "events": torch.tensor(had_event if epoch else [])})
        snapshot_weights(run, epoch, config.epochs, learner.first_weights if epoch else first)

    fit(taught, labeled, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)


def train_module_and_log(config: Train, data: Dataset, run: Run) -> None:
    """Train any network; log events and updates after each epoch, in addition to what all rules log."""

    def make(data: Dataset) -> ModuleLearner:
        learner = make_learner_of_module(config, data, run)
        if config.update == "local":
            announce_warmup(config, len(data.train), run)
        return learner

    def after_epoch(epoch: int, learner: ModuleLearner) -> None:
        credit = learner.credit
        if not isinstance(credit, LocalPlasticity):
            return
        run.log(
            "train",
            events=credit.events,
            event_images=credit.event_stimuli,
            synaptic_updates=credit.synaptic_updates,
            messages=credit.messages,
        )
        store_events(run, epoch, credit)
        if epoch == config.epochs:
            warn_without_events(credit, run, config)

    train_module(config, run, make, data, after_epoch=after_epoch)


def announce_warmup(config: Train, images: int, run: Run) -> None:
    """Tell the person at the terminal if more than a tenth of the batches are events of the warm-up."""
    batches = config.epochs * -(-images // config.batch_size)
    if config.events in ("triggered", "fixed") and 10 * config.event_warmup > batches:
        first = "all" if config.event_warmup >= batches else f"the first {config.event_warmup} of"
        run.message(f"{first} {batches} batches are events (--event-warmup {config.event_warmup})")


def store_events(run: Run, epoch: int, counts: EGLPLearner | LocalPlasticity) -> None:
    """Store which batches of an epoch had an event, for the raster plot."""
    run.save_tensors(f"events-{epoch:06d}", {"epoch": epoch, "events": torch.tensor(counts.had_event)})
    counts.had_event.clear()


def warn_without_events(counts: EGLPLearner | LocalPlasticity, run: Run, config: Train) -> None:
    """Warn of a run whose hidden layers did not learn, unless that was the wish."""
    if counts.events == 0 and config.events != "never":
        run.console.warning("there was no event: the hidden layers have their initial weights")


def _halvings(height: int, width: int) -> int:
    """Return how often images can be halved, so that more than one pixel is left for batch normalization."""
    times = 0
    while (height // 2) * (width // 2) > 1:
        height, width, times = height // 2, width // 2, times + 1
    return times
