"""Meta-learning: Adam on theta, along the gradient through whole adaptations of fresh networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plastic_cli import RunFailed
from plastic_cli.data.datasets import load_dataset
from plastic_cli.data.episodes import Episode
from plastic_cli.files import write_atomically
from plastic_cli.numerics.clock import training_clock
from plastic_cli.runs.own_modules import note_versions
from plastic_metafa.adaptation import Adapted, Network, Plasticity, adapt_to, draw_network, in_threads
from plastic_metafa.benchmark import layer_measures
from plastic_metafa.own_terms import load_terms
from plastic_metafa.results import log_results
from plastic_metafa.setting import measured_on, training_setting
from plastic_metafa.theta_file import THETA_FILE, read_theta, theta_toml

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_metafa.config import Train
    from plastic_metafa.theta_file import TermKey

MAX_GRADIENT_NORM = 1e4
"""Networks count as diverged if the gradient is larger. Hundreds are usual, and Adam would remember it for long."""
BACKOFF = 0.9
"""Factor on theta for each diverged episode in a row."""
MAX_DIVERGED = 10
"""Diverged episodes in a row after which a run fails."""


@dataclass
class Divergence:
    """The number of episodes in a row, up to the last one, in which the networks diverged."""

    episodes: int = 0


def meta_learn(config: Train, run: Run) -> None:
    """Learn theta and test it. Raises RunFailed if the networks diverge in MAX_DIVERGED episodes in a row."""
    note_versions(run, load_terms(config.terms))
    data = load_dataset(config.dataset, run.data_folder, device=run.device)
    run.describe_data(**data.description())
    if data.note:
        run.message(data.note)
    setting = training_setting(config, data, run)
    plasticity = Plasticity(config.terms, config.feedback)
    theta = nn.Parameter(torch.zeros(len(config.terms), dtype=torch.float64))
    optimizer = torch.optim.Adam([theta], lr=config.learning_rate)
    learned = nn.ParameterDict({"theta": theta})
    networks, draws = run.generator("networks"), run.generator("episodes")
    if run.begins("episode"):
        _initialize(theta, config)
    # The last theta with which the networks did not diverge.
    learned["last"] = nn.Parameter(theta.detach().clone(), requires_grad=False)
    last = learned["last"]
    series = Divergence()
    run.track(theta=learned, optimizer=optimizer, networks=networks, episodes=draws, divergence=series)
    for _ in run.steps(config.episodes, "episode"):
        began = training_clock()
        drawn = [
            (
                draw_network(setting.sizes, config.feedback, networks, device=run.device),
                setting.draw(setting.train, draws),
            )
            for _ in range(config.batch_size)
        ]
        adapted = _adapt_all(drawn, theta, plasticity)
        gradient = torch.stack([one.gradient for one in adapted if one.gradient is not None]).mean(0)
        before = theta.detach().clone()
        # Also false if the norm is NaN.
        if gradient.norm() < MAX_GRADIENT_NORM:
            series.episodes = 0
            last.copy_(theta.detach())
            theta.grad = gradient + config.l1 * theta.detach().sign()
            optimizer.step()
        else:
            series.episodes += 1
            with torch.no_grad():
                theta.copy_(BACKOFF**series.episodes * last)
        if series.episodes == MAX_DIVERGED:
            raise RunFailed(
                f"the networks diverged in {MAX_DIVERGED} episodes in a row. Try a smaller --learning-rate, or"
                " other terms."
            )
        run.count_samples(config.batch_size * config.ways * config.shots, training_clock() - began)
        _log_episode(run, config, before, adapted, drawn)
    values = dict(zip(config.terms, theta.detach().tolist(), strict=True))
    heading = f"learned by run {run.id}: {config.episodes} episodes of {data.name}, seed {run.seed}"
    _save_theta(run, theta_toml(values, config.feedback, heading))
    log_results(config, run, setting, theta.detach(), plasticity)


def _initialize(theta: nn.Parameter, config: Train) -> None:
    """Set theta to its first values: those of --theta, or --initial-theta for the pseudo-gradient and 0 for others."""
    given: Mapping[TermKey, float] = {0: config.initial_theta}
    if config.theta is not None:
        given = read_theta(config.theta).theta
    with torch.no_grad():
        for place, term in enumerate(config.terms):
            theta[place] = given.get(term, 0.0)


def _adapt_all(drawn: Sequence[tuple[Network, Episode]], theta: Tensor, plasticity: Plasticity) -> list[Adapted]:
    return in_threads(lambda number: adapt_to(*drawn[number], theta, plasticity, gradient=True), len(drawn))


def _log_episode(
    run: Run, config: Train, theta: Tensor, adapted: Sequence[Adapted], drawn: Sequence[tuple[Network, Episode]]
) -> None:
    """Log accuracy and loss of an episode's networks, the theta that they used, and the layers of the first one."""
    loss = torch.stack([one.loss for one in adapted]).mean()
    accuracy = torch.stack([one.accuracy for one in adapted]).mean()
    measured = {f"theta_{term}": value for term, value in zip(config.terms, theta.tolist(), strict=True)}
    if loss.isfinite():
        measured["loss"] = float(loss)
    run.log("train", None, measured_on(config), accuracy=accuracy, **measured)
    network, episode = drawn[0]
    for layer, values in layer_measures(Network(adapted[0].W, network.B), episode, config.feedback).items():
        run.log("train", {"layer": layer}, **values)


def _save_theta(run: Run, text: str) -> None:
    path = run.folder / "artifacts" / THETA_FILE
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text.encode())
