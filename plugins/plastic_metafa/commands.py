"""The commands `train`, `eval`, `analyze` and `render` of metafa."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_metafa.config import Analyze, Evaluate, Render, Train

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Meta-learn theta. The main result is `test/accuracy`: fresh networks, on the queries of fresh episodes."""
    from plastic_metafa.meta_learning import meta_learn

    meta_learn(config, run)


def evaluate(config: Evaluate, run: Run) -> None:
    """Adapt fresh networks with the learned rule."""
    from plastic_metafa.evaluation import evaluate_rule

    evaluate_rule(config, run)


def analyze(config: Analyze, run: Run) -> None:
    """Analyze a meta-learned rule."""
    from plastic_metafa.analysis.measures import analyze_rule

    analyze_rule(config, run)


def render(config: Render, run: Run) -> None:
    """Show how theta, accuracy and angles develop."""
    from plastic_metafa.analysis.film import render_learning

    render_learning(config, run)
