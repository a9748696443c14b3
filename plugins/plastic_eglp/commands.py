"""The four commands of EGLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_eglp.config import Analyze, Evaluate, Render, Train

if TYPE_CHECKING:
    from plastic_cli import Run


def train(config: Train, run: Run) -> None:
    """Train a network, then its zero-event control."""
    from plastic_eglp.control import has_control, train_control
    from plastic_eglp.training import train_run

    data = train_run(config, run)
    if has_control(config):
        train_control(config, data, run)


def evaluate(config: Evaluate, run: Run) -> None:
    """Evaluate a trained network and its zero-event control."""
    from plastic_cli.classifier.data import trained_on
    from plastic_cli.classifier.evaluate import evaluate_classifier
    from plastic_eglp.control import load_control
    from plastic_eglp.training import build

    evaluate_classifier(config, run, build, controls=lambda: load_control(run, trained_on(run)))


def analyze(config: Analyze, run: Run) -> None:
    """Analyze a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_cli.classifier.data import trained_on
    from plastic_eglp.analysis import measures
    from plastic_eglp.control import backprop_baseline, load_control
    from plastic_eglp.training import build

    trained = Train.from_values(run.config, source=f"run {run.id}")
    own_analyses = [config.sensitivity, config.event_rates, config.features, config.events, config.event_images]
    nothing_chosen = analyze_classifier(
        config,
        run,
        build,
        others_chosen=any(own_analyses),
        controls=lambda: load_control(run, trained_on(run)),
        baselines=lambda: backprop_baseline(trained, trained_on(run), run),
    )
    if nothing_chosen:
        measures.measure_control(run)
    if config.features or nothing_chosen:
        measures.save_features(run)
    if config.events or nothing_chosen:
        measures.save_events(run)
    if config.sensitivity:
        measures.measure_sensitivity(trained, run)
    if config.event_rates:
        measures.measure_event_rates(trained, run, config.rates)
    if config.event_images:
        measures.measure_event_images(trained, run)


def render(config: Render, run: Run) -> None:
    """Render receptive fields, events and accuracy over training."""
    from plastic_eglp.analysis.film import render_learning

    render_learning(config, run)
