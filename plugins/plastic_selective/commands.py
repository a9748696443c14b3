"""The four verbs of selective plasticity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_selective.config import Analyze, Evaluate, Render, Train

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train on the stream of tasks. The main result is `test/accuracy`, the mean over all tasks at the end."""
    from plastic_selective.continual.training import train_on_stream

    train_on_stream(config, run)


def evaluate(config: Evaluate, run: Run) -> None:
    """Measure the accuracy on all tasks after training on each task."""
    from plastic_selective.continual.evaluation import evaluate_on_stream

    evaluate_on_stream(config, run)


def analyze(config: Analyze, run: Run) -> None:
    """Analyze forgetting, eligibility, gates and shared synapses of a trained run."""
    from plastic_selective.analysis.measures import analyze_run

    analyze_run(config, run)


def render(config: Render, run: Run) -> None:
    """Render the eligibility and the gates of a layer as a film."""
    from plastic_selective.analysis.film import render_plasticity

    render_plasticity(config, run)
