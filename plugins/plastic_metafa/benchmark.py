"""The same networks and episodes for every rule that is compared, the controls, and what is measured of a network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from plastic_metafa import rule
from plastic_metafa.adaptation import (
    Adapted,
    Network,
    Plasticity,
    adapt_to,
    draw_network,
    feedback_errors,
    in_threads,
)

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_cli.data.episodes import Episode, Episodes
    from plastic_metafa.setting import Setting
    from plastic_metafa.theta_file import Feedback

RATES = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
"""Learning rates to choose from for backprop and feedback alignment."""
TUNING_EPISODES = 20
"""Episodes on which the rate of a control is chosen."""
CONTROLS: dict[str, Feedback] = {"control": "fixed", "backprop": "symmetric"}
"""The controls, feedback alignment and backprop: the split under which each is logged, and its feedback."""
MIN_ACCURACY_DROP = 0.02
"""A term counts as needed if the accuracy without it is lower by at least this much."""


class EpisodeBenchmark:
    """A fixed list of episodes, each with its network, for all rules that are compared.

    Weights and feedback are drawn from the same seeds for every rule; the episodes come from `episodes`.
    """

    def __init__(self, setting: Setting, episodes: Episodes, count: int, run: Run, purpose: str) -> None:
        self.setting, self.device = setting, run.device
        draws = run.generator(f"{purpose} episodes")
        self.episodes = [setting.draw(episodes, draws) for _ in range(count)]
        states = run.generator(f"{purpose} networks")
        self.seeds = torch.randint(2**62, (count,), generator=states).tolist()

    def network(self, number: int, feedback: Feedback) -> Network:
        """Draw the network of one episode."""
        generator = torch.Generator().manual_seed(self.seeds[number])
        return draw_network(self.setting.sizes, feedback, generator, device=self.device)

    def adapted(self, theta: Tensor, plasticity: Plasticity) -> list[Adapted]:
        """Adapt each network to its episode with theta (terms,)."""

        def adapt_one(number: int) -> Adapted:
            network = self.network(number, plasticity.feedback)
            return adapt_to(network, self.episodes[number], theta, plasticity)

        return in_threads(adapt_one, len(self.episodes))

    def measure(self, theta: Tensor, plasticity: Plasticity) -> tuple[Tensor, Tensor]:
        """Adapt with theta (terms,); return accuracy and loss on the queries, (episodes,) each."""
        found = self.adapted(theta, plasticity)
        return torch.stack([each.accuracy for each in found]), torch.stack([each.loss for each in found])

    def measure_rate(self, rate: float, feedback: Feedback) -> tuple[Tensor, Tensor]:
        """Adapt with the pseudo-gradient only, at learning rate `rate`; return what `measure` does."""
        return self.measure(torch.tensor([rate], dtype=torch.float64), Plasticity((0,), feedback))

    def layers(self, theta: Tensor, plasticity: Plasticity) -> tuple[float, float]:
        """Adapt with theta (terms,); return the angle and log10 E_W, means over hidden layers and episodes."""
        angles, log_errors = [], []
        for number, adapted in enumerate(self.adapted(theta, plasticity)):
            network = Network(adapted.W, self.network(number, plasticity.feedback).B)
            measured = layer_measures(network, self.episodes[number], plasticity.feedback)
            hidden = [values for values in measured.values() if "angle" in values]
            angles += [values["angle"] for values in hidden]
            log_errors += [math.log10(max(values["orthonormality"], 1e-30)) for values in hidden]
        return sum(angles) / len(angles), sum(log_errors) / len(log_errors)


def best_rate(bench: EpisodeBenchmark, feedback: Feedback) -> float:
    """Return the rate in RATES at which the pseudo-gradient alone reaches the highest mean accuracy."""
    accuracies = [float(bench.measure_rate(rate, feedback)[0].mean()) for rate in RATES]
    return RATES[max(range(len(RATES)), key=accuracies.__getitem__)]


@torch.no_grad()
def layer_measures(network: Network, episode: Episode, feedback: Feedback) -> dict[int, dict[str, float]]:
    """Return measures of an adapted network for each layer of weights, numbered from 1.

    angle: in degrees, between the mean error over queries by `feedback` and the one by backprop (published).
    angle_by_sample: the angle of each query, then the mean. Both are of hidden layers only. orthonormality: E_W (11,
    12), mean over queries.
    """
    W, B = network
    y = rule.forward(W, episode.query_x)
    target = functional.one_hot(episode.query_y, W[-1].shape[0]).to(y[-1].dtype)
    e = feedback_errors(W, B, feedback, y, target)
    by_backprop = rule.errors(W, y, target)
    measures: dict[int, dict[str, float]] = {}
    for layer in range(1, len(W) + 1):
        found = {"orthonormality": rule.orthonormality(W[layer - 1], y[layer - 1], y[layer]).mean()}
        if layer < len(W):
            found["angle"] = degrees(e[layer].mean(0), by_backprop[layer].mean(0))
            found["angle_by_sample"] = degrees(e[layer], by_backprop[layer]).mean()
        measures[layer] = {name: float(value) for name, value in found.items()}
    return measures


def degrees(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between a and b (..., n) in degrees, (...,)."""
    return torch.rad2deg(torch.acos(functional.cosine_similarity(a.double(), b.double(), -1).clamp(-1, 1)))
