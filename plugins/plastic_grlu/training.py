"""Makes the learner of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_grlu.config import Train

if TYPE_CHECKING:
    from torch import nn

    from plastic_cli import Run
    from plastic_cli.data.datasets import Dataset
    from plastic_grlu.learner import GRLULearner, GRLUNetwork


def build(run: Run, data: Dataset, *, trained: bool = True) -> GRLULearner:
    """Return the network of a run: after training, or before it with `trained=False`."""
    learner, autoencoder = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if autoencoder is not None:
        # The untrained network has the trained autoencoder: only what GRLU learns differs.
        run.restore("autoencoder", autoencoder)
        autoencoder.requires_grad_(False)
    if trained:
        run.restore("learner", learner)
    return learner


def network(run: Run) -> GRLUNetwork:
    """Return the trained network of a run as a module: logits (batch, classes) of images (batch, features)."""
    from plastic_cli.classifier.data import described_data
    from plastic_grlu.learner import GRLUNetwork

    learner = build(run, described_data(run))
    trained = GRLUNetwork(
        learner.weights, learner.biases, top_k=learner.top_k, skip=learner.skip, encoder=learner.encoder
    )
    return trained.requires_grad_(True).eval()


def make_learner(config: Train, data: Dataset, run: Run) -> tuple[GRLULearner, nn.Module | None]:
    """Return the untrained learner and its untrained autoencoder, or None without one."""
    from plastic_cli.numerics.seeds import seed_sequence
    from plastic_grlu.backbone import make_autoencoder
    from plastic_grlu.learner import GRLULearner

    inputs = data.train.x.shape[1]
    autoencoder = None
    if config.backbone == "autoencoder":
        autoencoder = make_autoencoder(inputs, config.latent, run.generator("backbone"), run.device)
        inputs = config.latent
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
        encoder=None if autoencoder is None else dict(autoencoder.named_children())["encoder"],
        device=run.device,
    )
    return learner, autoencoder
