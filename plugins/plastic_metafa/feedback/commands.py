"""The four commands of feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import ClassifierAnalyzeConfig, ClassifierEvaluateConfig
from plastic_metafa.feedback.config import Render, Train

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train a network. The main result of a run is `test/accuracy`."""
    from plastic_metafa.feedback.training import train_network

    train_network(config, run)


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Evaluate a trained network on a data set, split and corruption."""
    from plastic_cli.classifier.evaluate import evaluate_classifier
    from plastic_metafa.feedback.training import build

    evaluate_classifier(config, run, build)


def analyze(config: ClassifierAnalyzeConfig, run: Run) -> None:
    """Analyze a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_metafa.feedback.training import build

    analyze_classifier(config, run, build)


def render(config: Render, run: Run) -> None:
    """Show the weights of the first layer over training."""
    from plastic_cli.classifier.render import render_weights
    from plastic_metafa.feedback.config import Train
    from plastic_metafa.feedback.stream import stretches_of
    from plastic_metafa.feedback.training import training_data

    trained = Train.from_values(run.config, source=f"run {run.id}")
    every = trained.measure_every
    steps_per_epoch = len(stretches_of(len(training_data(trained, run).train), 1, every)) if every else 1
    render_weights(run, config, config.units, steps_per_epoch)
