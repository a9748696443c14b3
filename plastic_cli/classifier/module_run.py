"""Runs that train any network: from a configuration to its learner, the training, and the trained network."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from plastic_cli.classifier.credit_metrics import CreditMetrics
from plastic_cli.classifier.data import described_data, load_training_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.module import ImageShape, ModuleLearner, single_images_refused
from plastic_cli.classifier.networks import BuiltNetwork, build_network, seeded
from plastic_cli.classifier.optimizers import SeveralOptimizers, make_optimizer
from plastic_cli.classifier.weight_snapshots import snapshot_weights
from plastic_cli.config.classifier import MODELS, ModuleTrainConfig
from plastic_cli.data.datasets import Dataset
from plastic_cli.numerics.seeds import derived_seed
from plastic_cli.runs.own_modules import module_version, note_versions

if TYPE_CHECKING:
    import torch

    from plastic_cli.credit.protocol import Credit
    from plastic_cli.runs.run import Run

MakeCredit = Callable[[Any, nn.Module, "Run"], "Credit | None"]
"""`credit(config, model, run)` of a rule: its credit rule for a module; None for the gradient."""


def make_module_learner(
    config: ModuleTrainConfig,
    data: Dataset,
    run: Run,
    credit: MakeCredit | None = None,
    own: BuiltNetwork | None = None,
) -> ModuleLearner:
    """Return the learner that a configuration describes, its weights drawn from the run's seed.

    credit: makes the credit rule of the network; None for the gradient. own: the rule's own network, in place of the
    one that `--model` names.
    """
    built = own or build_network(config.model, data, config.hidden, run.generator("weights"))
    network = built.module.to(run.device)
    return ModuleLearner(
        network,
        make_optimizer(config, network.parameters()),
        image_shape=built.image_shape,
        credit=None if credit is None else credit(config, network, run),
    )


def train_module(
    config: ModuleTrainConfig,
    run: Run,
    make: Callable[[Dataset], ModuleLearner],
    data: Dataset | None = None,
    *,
    after_epoch: Callable[[int, ModuleLearner], None] | None = None,
    loop: Callable[..., None] = fit,
) -> None:
    """Train the network of a run, and store the weights of its first layer for `render`.

    make: builds the learner. data: the data set, if it is loaded already. after_epoch: called with the number of
    completed epochs, 0 before the first. loop: trains, with the arguments of `fit`. The global random numbers, from
    which dropout draws, get a seed of the run and are restored at the end.
    """
    data = data or load_training_data(config, run)
    with seeded(derived_seed(run.seed, "global")):
        learner = make(data)
        note_own_module(run, config.model, learner.image_shape, data)
        first = learner.first_layer(data.train.x[:2])
        metrics = CreditMetrics(learner, run, data, config.batch_size)

        def finish_epoch(epoch: int) -> None:
            if first is not None:
                snapshot_weights(run, epoch, config.epochs, first)
            with single_images_refused():
                metrics.log(epoch)
            if after_epoch is not None:
                after_epoch(epoch, learner)

        loop(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=finish_epoch)


def note_own_module(run: Run, model: str, image_shape: ImageShape | None, data: Dataset) -> None:
    """Store the version of a module of the user's own, and say what it receives. Other networks need neither.

    image_shape: of the images that the module takes; None for rows of pixels.
    """
    if model in MODELS:
        return
    note_versions(run, module_version(model.partition(":")[0]))
    if image_shape is None:
        run.message(f"{model} receives rows of {prod(data.image_shape)} pixels")
        return
    repeated = ": the gray channel is repeated" if image_shape[0] != data.image_shape[0] else ""
    run.message(f"{model} receives images {' x '.join(map(str, image_shape))}{repeated}")


def trained_module(run: Run, build: Callable[[Run, Dataset], ModuleLearner]) -> nn.Module:
    """Return the trained module of a run in evaluation mode, on the device of the run. build: that of the rule."""
    network: nn.Module = build(run, described_data(run)).network
    return network.requires_grad_(True).eval()


def scheduled_rates(
    optimizer: torch.optim.Optimizer | SeveralOptimizers, factor: Callable[[float], float]
) -> Callable[[float], None]:
    """Return a schedule that sets each learning rate to its present value times `factor(share of epochs done)`."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]

    def set_rates(progress: float) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(progress)

    return set_rates


def dropped_rate(drops: tuple[float, ...]) -> Callable[[float], float]:
    """Return the factor of the learning rate that is divided by 10 after each of these shares of the epochs."""
    return lambda progress: 0.1 ** sum(progress >= share for share in drops)
