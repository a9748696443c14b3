"""The measures of comparison against plain implementations of their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from plastic_cli.analysis.comparisons import (
    interquartile_mean,
    interquartile_mean_interval,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_interval,
)


def tables(tasks=None, least=1):
    shapes = st.tuples(st.integers(least, 6), st.integers(1, 4) if tasks is None else st.just(tasks))
    # Few values, so that ties are common.
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.integers(-3, 3).map(lambda n: n / 4)))


def middle_by_hand(values):
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def improvement_by_hand(x, y):
    total = 0.0
    for task in range(x.shape[1]):
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in x[:, task] for b in y[:, task]]
        total += sum(wins) / len(wins)
    return total / x.shape[1]


@given(tables())
def test_interquartile_mean(scores):
    assert interquartile_mean(scores) == pytest.approx(middle_by_hand(scores.ravel().tolist()), abs=1e-12)


def test_interquartile_mean_of_a_few_is_the_mean():
    assert interquartile_mean([[1.0], [2.0], [6.0]]) == 3.0
    assert interquartile_mean([[0.0], [1.0], [2.0], [100.0]]) == 1.5


@given(tables(tasks=2), tables(tasks=2))
def test_probability_of_improvement(first, second):
    found = probability_of_improvement(first, second)
    assert found == pytest.approx(improvement_by_hand(first, second), abs=1e-12)
    assert found + probability_of_improvement(second, first) == pytest.approx(1.0, abs=1e-12)


@given(tables(), st.lists(st.integers(-4, 4).map(lambda n: n / 4 + 0.1), min_size=1, max_size=5))
@settings(max_examples=30)
def test_performance_profile(scores, thresholds):
    profile = performance_profile(scores, thresholds, resamples=50)
    wanted = [sum(value > level for value in scores.ravel()) / scores.size for level in thresholds]
    assert profile.share.tolist() == pytest.approx(wanted)
    if len(scores) >= 3:
        assert ((profile.low <= profile.high) & (profile.low >= 0) & (profile.high <= 1)).all()
    else:
        assert np.isnan(profile.low).all()


def exact_bounds(estimates, tail=0.025):
    """The quantiles of a distribution of equally likely estimates."""
    ordered = sorted(estimates)
    return tuple(ordered[math.ceil(q * len(ordered)) - 1] for q in (tail, 1 - tail))


def test_the_interval_of_the_interquartile_mean_is_that_of_all_resamples():
    # Three runs of one task: all 27 resamples can be written down, and their interquartile mean is the mean.
    scores = [0.2, 0.5, 0.9]
    every = [sum(drawn) / 3 for drawn in itertools.product(scores, repeat=3)]
    found = interquartile_mean_interval(np.array(scores)[:, None])
    assert (found.low, found.high) == pytest.approx(exact_bounds(every))
    assert (found.n, found.mean) == (3, pytest.approx(1.6 / 3))


def test_the_interval_is_that_of_scipys_trimmed_mean_over_the_same_resamples():
    scores = np.random.default_rng(1).random((6, 3))
    table = np.sort(scores, axis=0)
    drawn = np.random.default_rng(5).integers(6, size=(400, 6, 3))
    every = [stats.trim_mean(table[rows, np.arange(3)], 0.25, axis=None) for rows in drawn]
    found = interquartile_mean_interval(scores, resamples=400, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(every, [2.5, 97.5])))


def test_the_interval_of_an_improvement_is_that_of_all_pairs_of_resamples():
    x, y = [0.2, 0.5, 0.9], [0.1, 0.4, 0.5]
    every = [
        improvement_by_hand(np.array(a)[:, None], np.array(b)[:, None])
        for a in itertools.product(x, repeat=3)
        for b in itertools.product(y, repeat=3)
    ]
    found = probability_of_improvement_interval(np.array(x)[:, None], np.array(y)[:, None])
    assert (found.low, found.high) == pytest.approx(exact_bounds(every))


def test_the_interval_of_a_profile_is_that_of_all_resamples():
    scores = [0.2, 0.5, 0.9]
    profile = performance_profile(np.array(scores)[:, None], [0.1, 0.3, 0.6], resamples=20_000)
    for index, level in enumerate((0.1, 0.3, 0.6)):
        every = [sum(value > level for value in drawn) / 3 for drawn in itertools.product(scores, repeat=3)]
        assert (profile.low[index], profile.high[index]) == pytest.approx(exact_bounds(every))


def test_runs_are_resampled_within_their_task():
    # The tasks are far apart and the runs of each equal: nothing is left to vary, and mixing tasks would show.
    scores = np.tile([0.1, 0.5, 0.9], (4, 1))
    found = interquartile_mean_interval(scores)
    assert found.low == found.high == pytest.approx(0.5)
    worse = scores - 0.05
    probability = probability_of_improvement_interval(scores, worse)
    assert (probability.mean, probability.low, probability.high) == (1, 1, 1)


@given(tables(least=3), st.randoms())
@settings(max_examples=20)
def test_the_order_of_the_seeds_changes_nothing(scores, random):
    shuffled = scores.copy()
    for task in range(scores.shape[1]):
        column = shuffled[:, task].tolist()
        random.shuffle(column)
        shuffled[:, task] = column
    assert interquartile_mean_interval(shuffled, resamples=200) == interquartile_mean_interval(scores, resamples=200)
    assert probability_of_improvement_interval(shuffled, scores, resamples=200) == (
        probability_of_improvement_interval(scores, scores, resamples=200)
    )


def test_shifting_and_scaling_move_the_interval_along():
    scores = np.random.default_rng(0).random((5, 3))
    one, other = interquartile_mean_interval(scores), interquartile_mean_interval(10 * scores - 3)
    assert (other.mean, other.low, other.high) == pytest.approx([10 * v - 3 for v in (one.mean, one.low, one.high)])


def test_two_independent_samples_are_resampled_independently():
    # With one stream for both, equal samples would be drawn alike and the probability could not leave a half.
    scores = np.arange(5.0)[:, None]
    found = probability_of_improvement_interval(scores, scores)
    assert found.low < 0.3 < 0.7 < found.high


@pytest.mark.parametrize("runs", [1, 2])
def test_fewer_than_three_runs_have_no_interval(runs):
    scores = np.random.default_rng(0).random((runs, 2))
    for found in (
        interquartile_mean_interval(scores),
        probability_of_improvement_interval(scores, np.ones((9, 2))),
        probability_of_improvement_interval(np.ones((9, 2)), scores),
    ):
        assert (found.n, found.known) == (runs, False)
        assert math.isnan(found.low)
        assert math.isfinite(found.mean)


@pytest.mark.parametrize("scores", [[], [1.0, 2.0], [[np.nan]], [[np.inf, 1.0]], np.zeros((0, 2))])
def test_scores_must_be_a_finite_table(scores):
    with pytest.raises(ValueError, match="scores"):
        interquartile_mean(scores)


def test_two_rules_must_have_the_same_tasks():
    with pytest.raises(ValueError, match="1 and 2 tasks"):
        probability_of_improvement(np.zeros((3, 1)), np.zeros((3, 2)))


def test_the_confidence_must_be_a_share():
    with pytest.raises(ValueError, match="confidence"):
        interquartile_mean_interval(np.zeros((3, 1)), confidence=95)


def test_the_measures_are_those_of_rliable():
    theirs = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    random = np.random.default_rng(3)
    x, y = random.normal(size=(5, 4)), random.normal(0.2, size=(7, 4))
    assert interquartile_mean(x) == pytest.approx(theirs.aggregate_iqm(x))
    assert probability_of_improvement(x, y) == pytest.approx(theirs.probability_of_improvement(x, y))
