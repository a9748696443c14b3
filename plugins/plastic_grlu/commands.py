"""The four commands of GRLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import ClassifierEvaluateConfig
from plastic_grlu.config import Analyze, Render, Train
from plastic_grlu.training import build, make_learner

if TYPE_CHECKING:
    from plastic_cli import Run

COMPILING = "compiling the kernels of grlu: about 10 seconds, once for each version"


def train(config: Train, run: Run) -> None:
    """Train a network. The main result of a run is `test/accuracy`."""
    from plastic_cli.classifier.fit import fit
    from plastic_cli.classifier.render import snapshot_weights
    from plastic_cli.data.datasets import load_dataset
    from plastic_cli.numerics.clock import while_compiling
    from plastic_grlu.backbone import train_autoencoder

    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    learner, autoencoder = make_learner(config, data, run)
    if autoencoder is not None:
        train_autoencoder(autoencoder, data, run, config.backbone_epochs)
    with while_compiling(lambda: run.console.working(COMPILING)):
        learner.prepare(data.train.x, data.train.y)
    fit(
        learner,
        data,
        run,
        epochs=config.epochs,
        batch_size=config.batch_size,
        after_epoch=lambda epoch: snapshot_weights(run, epoch, config.epochs, learner.weights[0]),
    )


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Evaluate a trained network on a data set, split and corruption."""
    from plastic_cli.classifier.evaluate import evaluate_classifier

    evaluate_classifier(config, run, build)


def analyze(config: Analyze, run: Run) -> None:
    """Analyze a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_grlu.analysis.measures import analyze_updates, show_weights

    nothing_chosen = analyze_classifier(config, run, build, others_chosen=config.angles or config.weights)
    if config.angles or nothing_chosen:
        analyze_updates(config, run, build)
    if config.weights:
        show_weights(run, build)


def render(config: Render, run: Run) -> None:
    """Show the weights of hidden units over training."""
    from plastic_cli.classifier.render import render_weights

    render_weights(run, config, config.units)
