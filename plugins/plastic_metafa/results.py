"""The results of training: the learned theta and its controls on test episodes, and numbers about the episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plastic_metafa.adaptation import Plasticity
from plastic_metafa.benchmark import CONTROLS, MIN_ACCURACY_DROP, TUNING_EPISODES, EpisodeBenchmark, best_rate
from plastic_metafa.history import WINDOW, history, keeps_its_sign, rises_from, settled_from, strengths
from plastic_metafa.own_terms import own_terms
from plastic_metafa.setting import measured_on

if TYPE_CHECKING:
    import pandas as pd

    from plastic_cli import Run
    from plastic_metafa.config import Train
    from plastic_metafa.setting import Setting
    from plastic_metafa.theta_file import TermKey

PUBLISHED_SELECTION = (0, 2, 9)
"""The terms that remain of the published pool."""
ABOVE_FEEDBACK_ALIGNMENT = 0.05
"""Meta-learning has passed feedback alignment if its accuracy is higher by more than this."""
BELOW_BACKPROP = 0.05
"""Meta-learning has reached backprop if its accuracy is lower by less than this."""


def log_results(config: Train, run: Run, setting: Setting, theta: Tensor, plasticity: Plasticity) -> None:
    """Log what fresh networks reach on test episodes with theta, with backprop and with feedback alignment.

    The rates of the controls are chosen on other episodes, of the classes that meta-learning saw.
    """
    bench = EpisodeBenchmark(setting, setting.test, config.test_episodes, run, "test")
    tuning = EpisodeBenchmark(setting, setting.train, TUNING_EPISODES, run, "tuning")
    accuracy, loss = (float(values.mean()) for values in bench.measure(theta, plasticity))
    reached = {}
    for split, feedback in CONTROLS.items():
        rate = best_rate(tuning, feedback)
        reached[split] = float(bench.measure_rate(rate, feedback)[0].mean())
        alone = torch.tensor([rate], dtype=torch.float64)
        angle, orthonormality_error = bench.layers(alone, Plasticity((0,), feedback))
        run.log(
            split,
            None,
            "test",
            accuracy=reached[split],
            rate=rate,
            angle=angle,
            log10_orthonormality_error=orthonormality_error,
        )
    angle, orthonormality_error = bench.layers(theta, plasticity)
    run.log(
        "test",
        None,
        accuracy=accuracy,
        above_feedback_alignment=accuracy - reached["control"],
        below_backprop=reached["backprop"] - accuracy,
        angle=angle,
        log10_orthonormality_error=orthonormality_error,
        # Chance for a network that only answers with classes of the episode.
        chance=1 / config.ways,
        chance_of_all_outputs=1 / setting.sizes[-1],
    )
    if math.isfinite(loss):
        run.log("test", None, loss=loss)
    episodes = history(run)
    _log_terms(run, config, episodes, bench, theta, plasticity)
    _log_milestones(run, config, episodes, reached)


def _log_terms(
    run: Run, config: Train, episodes: pd.DataFrame, bench: EpisodeBenchmark, theta: Tensor, plasticity: Plasticity
) -> None:
    """Log how many terms the accuracy on test episodes needs, and how many the L1 penalty leaves nonzero.

    If the terms are the published selection and others, also log the share of terms that agree with the publication.
    """
    needed = needed_terms(bench, theta, plasticity)
    curves = strengths(episodes)
    nonzero = [term for term in config.terms if keeps_its_sign(curves.loc[curves["term"] == term, "value"])]
    run.log("test", None, terms_needed=len(needed))
    run.log("train", None, measured_on(config), terms_nonzero=len(nonzero))
    if set(config.terms) > set(PUBLISHED_SELECTION) and not own_terms(config.terms):
        run.log("test", None, needed_as_published=share_as_published(config.terms, needed))
        share = share_as_published(config.terms, nonzero)
        run.log("train", None, measured_on(config), nonzero_as_published=share)


def needed_terms(bench: EpisodeBenchmark, theta: Tensor, plasticity: Plasticity) -> list[TermKey]:
    """Return the terms without which accuracy falls by at least MIN_ACCURACY_DROP."""
    whole = bench.measure(theta, plasticity)[0].mean()
    needed = []
    for place, term in enumerate(plasticity.terms):
        without = theta.clone()
        without[place] = 0
        if float(whole - bench.measure(without, plasticity)[0].mean()) >= MIN_ACCURACY_DROP:
            needed.append(term)
    return needed


def share_as_published(terms: Sequence[TermKey], left: Sequence[TermKey]) -> float:
    """Return the share of `terms` that agree with the publication: in `left` if they are in PUBLISHED_SELECTION."""
    return sum((term in left) == (term in PUBLISHED_SELECTION) for term in terms) / len(terms)


def _log_milestones(run: Run, config: Train, episodes: pd.DataFrame, reached: Mapping[str, float]) -> None:
    """Log the first episode at which accuracy passes feedback alignment and reaches backprop, and theta_0 settles.

    episodes: of `history`. reached: the accuracy of the controls on test episodes. A milestone that is not reached
    counts as one episode more than there are.
    """
    accuracy = episodes.loc[episodes["metric"] == "accuracy", "value"]
    milestones = {
        "passes_feedback_alignment": rises_from(accuracy, reached["control"] + ABOVE_FEEDBACK_ALIGNMENT),
        "reaches_backprop": rises_from(accuracy, reached["backprop"] - BELOW_BACKPROP, window=WINDOW),
    }
    run.log("test", None, **milestones)
    if 0 in config.terms:
        milestones["theta_0_settled"] = settled_from(episodes.loc[episodes["metric"] == "theta_0", "value"])
        run.log("train", None, measured_on(config), theta_0_settled=milestones["theta_0_settled"])
    never = [name for name, episode in milestones.items() if episode > config.episodes]
    if never:
        run.message(f"{' and '.join(never)}: not within {config.episodes} episodes, counted as {config.episodes + 1}")
