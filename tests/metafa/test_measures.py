"""The measures of meta-learning, compared with the same numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.data.datasets import Split
from plastic_cli.data.episodes import Episode, Episodes
from plastic_metafa import benchmark
from plastic_metafa.adaptation import Network, Plasticity, adapt_to, draw_network
from plastic_metafa.benchmark import (
    RATES,
    EpisodeBenchmark,
    best_rate,
    layer_measures,
)
from plastic_metafa.history import keeps_its_sign, moving_average, rises_from, settled_from, strengths
from plastic_metafa.results import needed_terms, share_as_published
from plastic_metafa.setting import Setting

# --------------------------------------------------------------------------------------------------------- milestones


def series(*parts):
    """Return a series of episodes; each part is (number of episodes, value)."""
    return pd.Series(np.concatenate([np.full(number, float(value)) for number, value in parts]))


def test_a_rise_is_the_first_of_ten_episodes_whose_mean_is_above_the_level():
    accuracy = series((20, 0.2), (80, 0.6))
    # Ten episodes from the 17th: four at .2 and six at .6, mean .44.
    assert rises_from(accuracy, 0.43) == 17
    assert rises_from(accuracy, 0.45) == 18
    assert rises_from(accuracy, 0.59) == 21
    assert rises_from(accuracy, 0.1) == 1


def test_a_rise_counts_from_its_first_episode():
    # A short rise counts too, also if accuracy falls later.
    assert rises_from(series((30, 0.2), (10, 0.6), (60, 0.2)), 0.59) == 31
    assert rises_from(series((30, 0.2), (9, 0.6), (61, 0.2)), 0.59) == 101


def test_a_level_must_be_exceeded_and_otherwise_the_result_is_one_episode_more():
    flat = series((50, 0.5))
    assert rises_from(flat, 0.5) == 51
    assert rises_from(flat, 0.7) == 51
    assert rises_from(flat, 0.499) == 1
    assert rises_from(series((5, 0.9)), 0.1) == 6, "fewer episodes than the mean is taken over"


def test_a_longer_mean_needs_a_longer_rise():
    accuracy = series((30, 0.2), (15, 0.6), (55, 0.2))
    assert rises_from(accuracy, 0.59, window=15) == 31
    assert rises_from(accuracy, 0.59, window=30) == 101


def test_the_index_of_a_series_does_not_matter():
    accuracy, theta = series((20, 0.2), (80, 0.6)), series((20, 0.0), (80, 1.0))
    assert rises_from(accuracy.set_axis(range(7, 707, 7)), 0.59) == 21
    assert settled_from(theta.set_axis(range(7, 707, 7))) == settled_from(theta)


def by_hand_settled(theta):
    """Return the first episode whose average of 30, and every later one, is within a fifth of the last tenth."""
    goal = np.mean(theta[-round(len(theta) / 10) :])
    averages = [np.mean(theta[max(0, end - 30) : end]) for end in range(1, len(theta) + 1)]
    near = [abs(value - goal) <= 0.2 * abs(goal) for value in averages]
    return next(episode for episode in range(1, len(theta) + 2) if all(near[episode - 1 :]))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(4))
def test_a_strength_has_settled_once_its_average_stays_near_its_final_value(sign, seed):
    noise = 0.02 * np.random.default_rng(seed).normal(size=200)
    theta = sign * (1 - np.exp(-np.arange(200) / 25)) + noise
    found = settled_from(pd.Series(theta))
    assert found == by_hand_settled(theta)
    assert 30 < found < 120


def test_a_strength_that_leaves_its_final_value_has_not_settled():
    # Episodes 61 to 70 differ by twice the value: the average of 30 is off while it includes them.
    theta = series((60, 1.0), (10, 3.0), (130, 1.0))
    assert settled_from(theta) == by_hand_settled(theta.to_numpy())
    assert 71 < settled_from(theta) <= 100
    assert settled_from(series((200, 1.0))) == 1
    assert settled_from(series((100, -1.0), (100, 1.0))) > 100


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        ([0.1, 0.2, 0.3], True),
        ([-0.1, -0.2, -0.3], True),
        ([0.1, -0.1, 0.3], False),
        ([-0.1, 0.1, -0.3], False),
        ([0.1, 0.0, 0.1], False),
        ([0.0, 0.0, 0.0], False),
    ],
)
def test_a_strength_is_nonzero_if_it_keeps_its_sign_in_the_last_tenth(last, kept):
    # Earlier values and the magnitude do not matter.
    before = [-1.0, 1.0, 0.0] * 9
    assert keeps_its_sign(pd.Series([*before, *last])) is kept
    assert keeps_its_sign(pd.Series([*before, *(1e-9 * value for value in last)])) is kept


def test_with_few_episodes_the_last_decides_the_sign():
    assert keeps_its_sign(pd.Series([-1.0, 1.0]))
    assert not keeps_its_sign(pd.Series([1.0, 0.0]))


def test_a_moving_average_is_the_mean_of_the_last_episodes_of_each_curve():
    curves = pd.DataFrame(
        {"step": [3, 1, 2, 1, 2, 3], "metric": [*"aaabbb"], "value": [9.0, 1.0, 5.0, 10.0, 30.0, 20.0]}
    )
    found = moving_average(curves, 2, ["metric"]).sort_values(["metric", "step"])
    assert found["value"].tolist() == [1.0, 3.0, 7.0, 10.0, 20.0, 25.0]


def test_strengths_are_the_rows_of_theta_with_their_term():
    names = ["theta_0", "theta_12", "theta_0_settled", "accuracy", "theta_"]
    found = strengths(pd.DataFrame({"metric": names, "value": range(5)}))
    assert found[["term", "value"]].to_numpy().tolist() == [[0, 0], [12, 1]]


# ------------------------------------------------------------------------------------------- terms that are needed


class FixedBench:
    """A benchmark whose accuracy is a sum of values of the nonzero terms."""

    def __init__(self, worth):
        self.worth = torch.tensor(worth)

    def measure(self, theta, plasticity):
        accuracy = 0.2 + float((self.worth * (theta != 0)).sum())
        return torch.tensor([accuracy - 0.1, accuracy + 0.1]), torch.zeros(2)


def test_a_term_is_needed_if_the_accuracy_without_it_is_lower_by_two_points():
    bench = FixedBench([0.3, 0.0, 0.025, 0.015, -0.1])
    theta = torch.tensor([0.1, -0.2, -0.3, 0.4, 0.5])
    assert needed_terms(bench, theta, Plasticity((0, 1, 2, 5, 9))) == [0, 2]
    assert theta.tolist() == pytest.approx([0.1, -0.2, -0.3, 0.4, 0.5]), "each is tried by itself"


@pytest.mark.parametrize(
    ("left", "share"),
    [((0, 2, 9), 1.0), ((0, 2), 0.8), ((0, 2, 3, 9), 0.8), ((1, 3), 0.0), ((), 0.4), ((0, 1, 2, 3, 9), 0.6)],
)
def test_the_share_as_published_counts_terms_that_agree(left, share):
    assert share_as_published((0, 1, 2, 3, 9), left) == pytest.approx(share)


# --------------------------------------------------------------------------------------------- the rates of controls


class RatesBench:
    """A benchmark whose accuracy is a function of the rate; its loss has the opposite order."""

    def __init__(self, accuracy):
        self.accuracy, self.asked = accuracy, []

    def measure_rate(self, rate, feedback):
        self.asked.append((rate, feedback))
        value = self.accuracy(rate)
        return torch.tensor([value - 0.3, value + 0.3]), torch.tensor([-value, -value])


@pytest.mark.parametrize("best", RATES)
@pytest.mark.parametrize("feedback", ["fixed", "symmetric"])
def test_the_rate_of_a_control_is_the_one_with_the_highest_mean_accuracy(best, feedback):
    bench = RatesBench(lambda rate: 0.7 if rate == best else 0.6 - rate)
    assert best_rate(bench, feedback) == best
    assert bench.asked == [(rate, feedback) for rate in RATES]


# --------------------------------------------------------------------------------------------- angles and E_W


def by_hand(network, episode, feedback):
    """Return for each layer the angle between mean errors, the mean angle, and E_W, computed query by query."""
    W, B = ([layer.double().numpy() for layer in part] for part in network)
    layers = len(W)
    mine, backprop = [[[] for _ in range(layers)] for _ in range(2)]
    error = [[] for _ in range(layers)]
    for x, label in zip(episode.query_x.double().numpy(), episode.query_y.tolist(), strict=True):
        y = [x]
        for weights in W[:-1]:
            y.append(np.logaddexp(0, 10 * weights @ y[-1]) / 10)
        z = np.exp(W[-1] @ y[-1])
        y.append(z / z.sum())
        last = y[-1] - np.eye(len(z))[label]
        for kind, found in (("symmetric", backprop), (feedback, mine)):
            e = last
            for layer in range(layers - 1, 0, -1):
                if kind == "direct":
                    e = B[layer].T @ last
                elif kind == "sign":
                    e = (np.abs(B[layer]) * np.sign(W[layer])).T @ e
                else:
                    e = (W if kind == "symmetric" else B)[layer].T @ e
                e = e * (1 - np.exp(-10 * y[layer]))
                found[layer].append(e)
        for layer in range(layers):
            distance = W[layer] @ y[layer] - W[layer] @ (W[layer].T @ y[layer + 1])
            error[layer].append(distance @ distance)

    def angle(a, b):
        return math.degrees(math.acos(a @ b / math.sqrt((a @ a) * (b @ b))))

    measured = {}
    for layer in range(1, layers + 1):
        measured[layer] = {"orthonormality": np.mean(error[layer - 1])}
        if layer < layers:
            a, b = mine[layer], backprop[layer]
            measured[layer]["angle"] = angle(np.mean(a, 0), np.mean(b, 0))
            measured[layer]["angle_by_sample"] = np.mean([angle(*pair) for pair in zip(a, b, strict=True)])
    return measured


def problem(feedback, seed=0, sizes=(6, 5, 4, 3)):
    generator = torch.Generator().manual_seed(seed)
    network = draw_network(sizes, feedback, generator, dtype=torch.float64)
    x, queries = (torch.rand(number, sizes[0], dtype=torch.float64, generator=generator) for number in (8, 7))
    y, labels = (torch.randint(sizes[-1], (number,), generator=generator) for number in (8, 7))
    return network, Episode(torch.arange(3), x, y, queries, labels)


@pytest.mark.parametrize("feedback", ["fixed", "direct", "sign"])
@pytest.mark.parametrize("seed", range(3))
def test_angles_and_orthonormality_agree_with_their_definitions(feedback, seed):
    network, episode = problem(feedback, seed)
    found, wanted = layer_measures(network, episode, feedback), by_hand(network, episode, feedback)
    assert found.keys() == wanted.keys() == {1, 2, 3}
    for layer, values in wanted.items():
        assert found[layer] == pytest.approx(values, rel=1e-5), layer
    assert any(abs(values["angle"] - 90) > 5 for values in wanted.values() if "angle" in values)


def test_angles_distinguish_the_same_and_the_opposite_direction():
    network, episode = problem("fixed")
    same = layer_measures(Network(network.W, network.W), episode, "fixed")
    # The sign changes at every layer on the way down.
    opposite = layer_measures(Network(network.W, [-layer for layer in network.W]), episode, "fixed")
    for name in ("angle", "angle_by_sample"):
        assert [same[layer][name] for layer in (1, 2)] == pytest.approx([0, 0], abs=1e-4)
        assert [opposite[layer][name] for layer in (1, 2)] == pytest.approx([0, 180], abs=1e-4)


class FakeRun:
    """The part of a run that a benchmark uses."""

    seed, device = 3, torch.device("cpu")

    def generator(self, purpose):
        return torch.Generator().manual_seed(sum(purpose.encode()) + self.seed)


def bench_of(own_labels=False):
    generator = torch.Generator().manual_seed(1)
    split = Split(torch.rand(60, 6, generator=generator), torch.arange(60) % 5)
    episodes = Episodes(split, ways=3, shots=4, queries=2)
    setting = Setting(episodes, episodes, (6, 5, 4, 5), own_labels)
    return EpisodeBenchmark(setting, episodes, 3, FakeRun(), "trial")


@pytest.mark.parametrize("feedback", ["fixed", "direct"])
def test_a_bench_averages_angles_and_the_logarithm_of_orthonormality_over_hidden_layers_and_episodes(feedback):
    bench, plasticity = bench_of(), Plasticity((0, 9), feedback)
    theta = torch.tensor([0.02, 0.004], dtype=torch.float64)
    angles, errors = [], []
    for number, episode in enumerate(bench.episodes):
        network = bench.network(number, feedback)
        adapted = Network(adapt_to(network, episode, theta, plasticity).W, network.B)
        measured = by_hand(adapted, episode, feedback)
        angles += [measured[layer]["angle"] for layer in (1, 2)]
        errors += [math.log10(measured[layer]["orthonormality"]) for layer in (1, 2)]
    angle, error = bench.layers(theta, plasticity)
    assert angle == pytest.approx(np.mean(angles), rel=1e-3)
    assert error == pytest.approx(np.mean(errors), rel=1e-3)


def test_a_bench_gives_every_rule_the_same_episodes_and_networks():
    one, other = bench_of(), bench_of()
    assert len(one.episodes) == 3
    for number in range(3):
        assert torch.equal(one.episodes[number].x, other.episodes[number].x)
        fixed, symmetric = one.network(number, "fixed"), other.network(number, "symmetric")
        assert all(torch.equal(a, b) for a, b in zip(fixed.W + fixed.B, symmetric.W + symmetric.B, strict=True))
        again = one.network(number, "fixed")
        assert all(torch.equal(a, b) for a, b in zip(fixed.W, again.W, strict=True))
    assert not torch.equal(one.network(0, "fixed").W[0], one.network(1, "fixed").W[0])
    assert not torch.equal(one.episodes[0].x, one.episodes[1].x)


def test_a_bench_measures_accuracy_and_loss_of_each_episode():
    bench, theta, plasticity = bench_of(), torch.tensor([0.05], dtype=torch.float64), Plasticity((0,), "symmetric")
    accuracies, losses = bench.measure(theta, plasticity)
    for number, episode in enumerate(bench.episodes):
        alone = adapt_to(bench.network(number, "symmetric"), episode, theta, plasticity)
        assert (accuracies[number], losses[number]) == (alone.accuracy, alone.loss)
    for rate in (0.05, 0.001):
        wanted = bench.measure(torch.tensor([rate], dtype=torch.float64), plasticity)
        assert torch.equal(bench.measure_rate(rate, "symmetric")[1], wanted[1])
    other = bench.measure_rate(0.05, "fixed")[1]
    assert not torch.equal(other, losses)


def test_own_labels_are_those_of_the_episode():
    assert {int(label) for episode in bench_of(own_labels=True).episodes for label in episode.y} == {0, 1, 2}
    assert {int(label) for episode in bench_of().episodes for label in episode.y} > {0, 1, 2}
    assert benchmark.CONTROLS == {"control": "fixed", "backprop": "symmetric"}
