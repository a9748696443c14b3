"""The four commands of backpropagation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_backprop.config import Render, Train
from plastic_cli import ClassifierAnalyzeConfig, ClassifierEvaluateConfig

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train the network."""
    from plastic_backprop.training import train_run

    train_run(config, run)


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Evaluate a trained network."""
    from plastic_backprop.training import build
    from plastic_cli.classifier.evaluate import evaluate_classifier

    evaluate_classifier(config, run, build)


def analyze(config: ClassifierAnalyzeConfig, run: Run) -> None:
    """Analyze a trained network."""
    from plastic_backprop.training import build
    from plastic_cli.classifier.analyze import analyze_classifier

    analyze_classifier(config, run, build)


def render(config: Render, run: Run) -> None:
    """Render the weights of the first layer over training."""
    from plastic_cli.classifier.render import render_weights

    render_weights(run, config, config.units)
