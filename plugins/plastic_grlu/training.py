"""Makes the learner of a run, and trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import UserError
from plastic_grlu.config import Train

if TYPE_CHECKING:
    from torch import nn

    from plastic_cli import Run
    from plastic_cli.classifier.module import ModuleLearner
    from plastic_cli.data.datasets import Dataset
    from plastic_grlu.learner import GRLULearner

COMPILING = "compiling the kernels of grlu: about 10 seconds, once for each version"


def train_run(config: Train, run: Run) -> None:
    """Train the network of a run: with compiled kernels where they apply, else by the credit rule of any module."""
    if config.is_plain:
        train_plain(config, run)
        return
    from plastic_cli.classifier.module_run import train_module

    train_module(config, run, lambda data: make_learner_of_module(config, data, run))


def train_plain(config: Train, run: Run) -> None:
    """Train the rule's own network by the published rule."""
    from plastic_cli.classifier.data import load_training_data
    from plastic_cli.classifier.fit import fit
    from plastic_cli.classifier.weight_snapshots import snapshot_weights
    from plastic_cli.numerics.clock import while_compiling
    from plastic_grlu.backbone import train_autoencoder

    data = load_training_data(config, run)
    learner, autoencoder = make_learner(config, data, run)
    if autoencoder is not None:
        train_autoencoder(autoencoder, data, run, config.backbone_epochs)
    with while_compiling(lambda: run.console.working(COMPILING)):
        learner.prepare(data.train.x, data.train.y)

    def after_epoch(epoch: int) -> None:
        snapshot_weights(run, epoch, config.epochs, learner.weights[0])
        for layer, angle in enumerate(learner.feedback_angles(), 1):
            run.log("train", {"layer": layer}, feedback_angle=angle)

    fit(learner, data, run, epochs=config.epochs, batch_size=config.batch_size, after_epoch=after_epoch)


def build(run: Run, data: Dataset, *, trained: bool = True) -> GRLULearner | ModuleLearner:
    """Return the network of a run: after training, or before it with `trained=False`."""
    config = Train.from_values(run.config, source=f"run {run.id}")
    if not config.is_plain:
        of_module = make_learner_of_module(config, data, run)
        if trained:
            run.restore("learner", of_module)
        return of_module
    learner, autoencoder = make_learner(config, data, run)
    if autoencoder is not None:
        # The untrained network has the trained autoencoder: only what GRLU learns differs.
        run.restore("autoencoder", autoencoder)
        autoencoder.requires_grad_(False)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> nn.Module:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features).

    A module of the user's own takes what it takes, as in training.
    """
    from plastic_cli.classifier.data import described_data
    from plastic_cli.classifier.module import ModuleLearner
    from plastic_grlu.learner import GRLUNetwork

    learner = build(run, described_data(run))
    trained: nn.Module
    if isinstance(learner, ModuleLearner):
        trained = learner.network
    else:
        trained = GRLUNetwork(
            learner.effective_weights(), learner.biases, top_k=learner.top_k, skip=learner.skip, encoder=learner.encoder
        )
    return trained.requires_grad_(True).eval()


def make_learner_of_module(config: Train, data: Dataset, run: Run) -> ModuleLearner:
    """Return the untrained learner of any network with any optimizer; `mlp` is the rule's own network."""
    from plastic_cli.classifier.module_run import make_module_learner
    from plastic_cli.classifier.networks import BuiltNetwork
    from plastic_grlu import rule
    from plastic_grlu.credit import NodePerturbation, make_credit
    from plastic_grlu.learner import GRLUNetwork

    own = None
    if config.model == "mlp":
        sizes = [data.train.x.shape[1], *config.hidden, data.classes]
        parameters = rule.initial_parameters(sizes, run.generator("weights"))
        own = BuiltNetwork(GRLUNetwork(*parameters, skip=config.skip), None)
    learner = make_module_learner(config, data, run, own=own)
    if config.noise_layers == "readout":
        # Noise enters where parameters learn.
        learner.train_only_readout(data.train.x[:2])
    learner.credit = make_credit(config, learner.network, run)
    optimizer, credit = learner.optimizer, learner.credit

    def schedule(progress: float) -> None:
        assert optimizer is not None
        for group in optimizer.param_groups:
            group["lr"] = rule.cosine(config.learning_rate, config.final_learning_rate, progress)
        if isinstance(credit, NodePerturbation):
            credit.noise = rule.cosine(config.noise, config.final_noise, progress)

    learner.schedule = schedule
    return learner


def make_learner(config: Train, data: Dataset, run: Run) -> tuple[GRLULearner, nn.Module | None]:
    """Return the untrained learner and its untrained autoencoder, or None without one."""
    from plastic_cli.numerics.seeds import seed_sequence
    from plastic_grlu import rule
    from plastic_grlu.backbone import make_autoencoder
    from plastic_grlu.learner import GRLULearner

    inputs = data.train.x.shape[1]
    autoencoder = None
    if config.backbone == "autoencoder":
        autoencoder = make_autoencoder(inputs, config.latent, run.generator("backbone"), run.device)
        inputs = config.latent
    units = sum(config.hidden) + data.classes
    if config.reward_groups > units:
        raise UserError(
            f"--reward-groups {config.reward_groups}: the network has {units} units. Choose {units} or fewer."
        )
    learner = GRLULearner(
        [inputs, *config.hidden, data.classes],
        run.generator("weights"),
        seed_sequence(run.seed, "noise"),
        perturbations=config.perturbations,
        top_k=config.k,
        skip=config.skip,
        credit=config.credit,
        update=config.update,
        batch_size=config.batch_size,
        noise=(config.noise, config.final_noise),
        learning_rate=(config.learning_rate, config.final_learning_rate),
        groups=config.reward_groups,
        path=config.feedback,
        feedback_rate=config.feedback_rate,
        form=rule.NoiseForm(
            active_only=config.noise_units == "active",
            one_layer=config.noise_layers == "one",
            only_readout=config.noise_layers == "readout",
            readout=config.readout_noise,
        ),
        common_noise=config.noise_sources == "readout",
        decorrelation=config.decorrelation,
        encoder=None if autoencoder is None else dict(autoencoder.named_children())["encoder"],
        device=run.device,
    )
    return learner, autoencoder
