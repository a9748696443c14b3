"""The verbs train, eval, analyze and render of MPN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_mpn.config import Analyze, Evaluate, Render, Train

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train an agent. The main result is `test/return`, or `test/accuracy` for supervised tasks."""
    from plastic_mpn import training

    {"dqn": training.by_dqn, "a2c": training.by_a2c, "supervised": training.by_supervised}[config.algorithm](
        config, run
    )


def evaluate(config: Evaluate, run: Run) -> None:
    """Measure the return of a trained agent on greedy episodes."""
    from plastic_mpn import trained

    trained.evaluate(config, run)


def analyze(config: Analyze, run: Run) -> None:
    """Analyze the states of a trained agent."""
    from plastic_mpn.analysis.measures import analyze_network
    from plastic_mpn.trained import open_trained

    analyze_network(config, run, open_trained(config, run))


def render(config: Render, run: Run) -> None:
    """Render an episode of a trained agent."""
    from plastic_mpn.analysis.film import render_episode
    from plastic_mpn.trained import open_trained

    render_episode(config, run, open_trained(config, run))
