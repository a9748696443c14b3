"""The measures of comparison against plain implementations of their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from plastic_cli.statistics.aggregates import (
    interquartile_mean,
    interquartile_mean_interval,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_interval,
)
from plastic_cli.statistics.intervals import mean_interval


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
def test_performance_profile(scores, thresholds):
    profile = performance_profile(scores, thresholds)
    wanted = [sum(value > level for value in scores.ravel()) / scores.size for level in thresholds]
    assert profile.share.tolist() == pytest.approx(wanted)
    if len(scores) >= 3:
        assert ((profile.low <= profile.high) & (profile.low >= 0) & (profile.high <= 1)).all()
    else:
        assert np.isnan(profile.low).all()


def test_a_score_at_a_threshold_is_not_above_it():
    profile = performance_profile([[0.2], [0.5], [0.5], [0.9]], [0.2, 0.5, 0.9])
    assert profile.share.tolist() == [0.75, 0.25, 0.0]


def test_the_interval_of_a_few_scores_is_that_of_their_mean():
    scores = [0.2, 0.5, 0.9]
    found, mean = interquartile_mean_interval(np.array(scores)[:, None]), mean_interval(scores)
    assert (found.mean, found.low, found.high, found.n) == (mean.mean, mean.low, mean.high, 3)


def test_the_interval_is_that_of_scipys_trimmed_mean_over_resamples_within_tasks():
    scores = np.random.default_rng(1).random((6, 3))
    random = np.random.default_rng(5)
    every = [
        stats.trim_mean([scores[random.integers(6), task] for task in range(3) for _ in range(6)], 0.25)
        for _ in range(4000)
    ]
    variances = [np.var(scores[:, task], ddof=1) for task in range(3)]
    degrees = sum(variances) ** 2 / sum(variance**2 / 5 for variance in variances)
    margin = stats.t.ppf(0.975, degrees) * np.std(every) * math.sqrt(6 / 5)
    found = interquartile_mean_interval(scores)
    # Both bootstraps are random: their standard errors agree to a few percent.
    assert found.high - found.mean == pytest.approx(margin, rel=0.06)
    assert found.mean - found.low == pytest.approx(margin, rel=0.06)


def test_the_interquartile_mean_is_in_its_interval_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = [
        interval.low <= 0 <= interval.high
        for interval in (interquartile_mean_interval(random.normal(size=(5, 2))) for _ in range(400))
    ]
    # Three standard errors of .95 among 400; the percentile bootstrap has .90.
    assert np.mean(inside) > 0.917


def improvement_bounds_by_hand(estimate, n, m, tasks):
    """Where the estimate lies 1.96 standard errors away, found on a fine grid (Newcombe 2006, method 5)."""
    p = np.linspace(0, 1, 1_000_001)[1:-1]
    pairs = (n + m) / 2 - 1
    error = np.sqrt(p * (1 - p) * (1 + pairs * (1 - p) / (2 - p) + pairs * p / (1 + p)) / (n * m * tasks))
    allowed = p[np.abs(estimate - p) <= 1.959964 * error]
    return allowed.min(), allowed.max()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([[0.2], [0.5], [0.9]], [[0.1], [0.4], [0.5]]),
        ([[0.2], [0.5], [0.9]], [[0.0], [0.1], [0.15]]),
        ([[0.2, 3], [0.5, 4], [0.9, 5], [1, 6]], [[0.1, 7], [0.4, 8], [0.5, 9]]),
    ],
)
def test_the_interval_of_an_improvement_is_newcombes(x, y):
    found = probability_of_improvement_interval(x, y)
    wanted = improvement_bounds_by_hand(found.mean, len(x), len(y), len(x[0]))
    assert (found.low, found.high) == pytest.approx(wanted, abs=2e-6)
    turned = probability_of_improvement_interval(y, x)
    assert (1 - turned.high, 1 - turned.low) == pytest.approx((found.low, found.high))


def test_runs_that_do_not_overlap_leave_a_width():
    three = probability_of_improvement_interval([[1.0], [2.0], [3.0]], [[0.1], [0.2], [0.3]])
    assert three.mean == three.high == 1
    # Two equal rules come out so in one case of ten, either way.
    assert three.low < 0.51
    ten = probability_of_improvement_interval(np.arange(1.0, 11)[:, None], -np.arange(1.0, 11)[:, None])
    assert 0.7 < ten.low < 1


def test_the_interval_of_a_profile_is_wilsons():
    scores = np.random.default_rng(0).random((4, 3))
    profile = performance_profile(scores, [0.1, 0.5, 2.0])
    for index, level in enumerate((0.1, 0.5, 2.0)):
        wanted = stats.binomtest(int((scores > level).sum()), 12).proportion_ci(method="wilson")
        assert (profile.low[index], profile.high[index]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_runs_are_resampled_within_their_task():
    # The tasks are far apart and the runs of each equal: nothing is left to vary, and mixing tasks would show.
    scores = np.tile([0.1, 0.5, 0.9], (4, 1))
    found = interquartile_mean_interval(scores)
    assert found.low == found.high == pytest.approx(0.5)


@given(tables(least=3), st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_seeds_changes_nothing(scores, random):
    shuffled = scores.copy()
    for task in range(scores.shape[1]):
        column = shuffled[:, task].tolist()
        random.shuffle(column)
        shuffled[:, task] = column
    assert interquartile_mean_interval(shuffled) == interquartile_mean_interval(scores)
    assert probability_of_improvement_interval(shuffled, scores) == (
        probability_of_improvement_interval(scores, scores)
    )


def test_shifting_and_scaling_move_the_interval_along():
    scores = np.random.default_rng(0).random((5, 3))
    one, other = interquartile_mean_interval(scores), interquartile_mean_interval(10 * scores - 3)
    assert (other.mean, other.low, other.high) == pytest.approx([10 * v - 3 for v in (one.mean, one.low, one.high)])


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
    scores = np.zeros((3, 1))
    with pytest.raises(ValueError, match="confidence"):
        interquartile_mean_interval(scores, confidence=95)
    with pytest.raises(ValueError, match="confidence"):
        probability_of_improvement_interval(scores, scores, confidence=95)
    with pytest.raises(ValueError, match="confidence"):
        performance_profile(scores, [0.5], confidence=95)


def test_the_measures_are_those_of_rliable():
    theirs = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    random = np.random.default_rng(3)
    x, y = random.normal(size=(5, 4)), random.normal(0.2, size=(7, 4))
    assert interquartile_mean(x) == pytest.approx(theirs.aggregate_iqm(x))
    assert probability_of_improvement(x, y) == pytest.approx(theirs.probability_of_improvement(x, y))
