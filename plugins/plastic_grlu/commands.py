"""The four commands of GRLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import ClassifierEvaluateConfig
from plastic_grlu.config import Analyze, Render, Train
from plastic_grlu.training import build, train_run

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train a network. The main result of a run is `test/accuracy`."""
    train_run(config, run)


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Evaluate a trained network on a data set, split and corruption."""
    from plastic_cli.classifier.evaluate import evaluate_classifier

    evaluate_classifier(config, run, build)


def analyze(config: Analyze, run: Run) -> None:
    """Analyze a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_grlu.analysis.measures import analyze_updates, show_weights

    analyze_classifier(
        config, run, build, others_chosen=config.weights, own_angles=lambda: analyze_updates(config, run, build)
    )
    if config.weights:
        show_weights(run, build)


def render(config: Render, run: Run) -> None:
    """Show the weights of hidden units over training."""
    from plastic_cli.classifier.render import render_weights

    render_weights(run, config, config.units)
