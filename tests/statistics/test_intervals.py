import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from plastic_cli.statistics.intervals import (
    MINIMUM_VALUES,
    difference_interval,
    half_width,
    mean_interval,
    mean_intervals,
    prediction_interval,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=MINIMUM_VALUES, max_size=8)

QUANTILES = {3: 4.30265272991, 4: 3.18244630528, 5: 2.7764451052, 10: 2.26215716280, 20: 2.09302405441}
"""97.5% quantiles of Student's t with n - 1 degrees of freedom, from a printed table."""


@pytest.mark.parametrize("n", sorted(QUANTILES))
def test_agrees_with_the_textbook_formula(n):
    sample = np.random.default_rng(n).normal(0.9, 0.01, size=n)
    mean = sum(sample) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in sample) / (n - 1))
    margin = QUANTILES[n] * deviation / math.sqrt(n)
    interval = mean_interval(sample)
    assert interval.mean == pytest.approx(mean)
    assert interval.low == pytest.approx(mean - margin, rel=1e-9)
    assert interval.high == pytest.approx(mean + margin, rel=1e-9)
    assert half_width(deviation, n) == pytest.approx(margin, rel=1e-9)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_contains_the_true_mean_of_normal_values_as_often_as_it_says(n):
    samples = np.random.default_rng(0).normal(2.0, 3.0, size=(20_000, n))
    inside = [interval.low <= 2.0 <= interval.high for interval in mean_intervals(list(samples))]
    # Three standard errors of a share of .95 among 20 000.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.0047)


@given(values)
def test_the_interval_lies_around_the_mean(sample):
    interval = mean_interval(sample)
    slack = 1e-9 * max(map(abs, sample), default=0)
    assert interval.low - slack <= interval.mean <= interval.high + slack
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low, abs=slack + 1e-300)
    assert min(sample) <= interval.mean <= max(sample)
    assert interval.n == len(sample)


@given(values, st.floats(0.1, 10), st.floats(-100, 100))
def test_shift_and_scale_carry_over(sample, scale, shift):
    plain = mean_interval(sample)
    moved = mean_interval([scale * value + shift for value in sample])
    tolerance = 1e-8 * (1 + abs(shift) + scale * max(map(abs, sample)))
    for end in ("mean", "low", "high"):
        assert getattr(moved, end) == pytest.approx(scale * getattr(plain, end) + shift, abs=tolerance)


@given(values.flatmap(lambda sample: st.tuples(st.just(sample), st.permutations(sample))))
def test_the_order_of_the_values_does_not_matter(pair):
    assert mean_interval(pair[0]) == mean_interval(pair[1])


def test_values_near_the_largest_number_do_not_overflow():
    interval = mean_interval([1e300, 1.1e300, 1.2e300])
    assert 0 < interval.low < interval.mean < interval.high < math.inf


def test_equal_values_have_no_width():
    interval = mean_interval([0.1] * 7)
    assert (interval.mean, interval.low, interval.high) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("sample", [[], [0.5], [0.5, 0.7]])
def test_too_few_values_give_no_interval(sample):
    interval = mean_interval(sample)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.known
    assert interval.n == len(sample)
    assert math.isnan(interval.mean) if not sample else interval.mean == pytest.approx(sum(sample) / len(sample))


def test_what_is_not_finite_is_left_out_and_counted():
    with_gaps = mean_interval([1.0, math.nan, 2.0, math.inf, 4.0])
    assert (with_gaps.n, with_gaps.dropped) == (3, 2)
    clean = mean_interval([1.0, 2.0, 4.0])
    assert (with_gaps.mean, with_gaps.low, with_gaps.high) == (clean.mean, clean.low, clean.high)


def test_many_at_once_are_the_same_numbers_as_one_at_a_time():
    random = np.random.default_rng(0)
    samples = [random.normal(size=size) for size in (3, 5, 1, 3, 8, 0, 5, 5)]
    together = mean_intervals(samples)
    for sample, interval in zip(samples, together, strict=True):
        alone = mean_interval(sample)
        assert [alone.mean, alone.low, alone.high] == pytest.approx(
            [interval.mean, interval.low, interval.high], nan_ok=True
        )
        assert repr(alone) == repr(interval)


def test_more_confidence_is_a_wider_interval():
    sample = np.random.default_rng(0).normal(size=10)
    narrow, wide = mean_interval(sample, confidence=0.5), mean_interval(sample, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert "99%" in wide.method
    with pytest.raises(ValueError, match="confidence"):
        mean_interval(sample, confidence=95)


def test_a_difference_has_the_interval_of_welch():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, size=4), rng.normal(2, 3, size=9)
    interval = difference_interval([*first, math.nan], second)
    bounds = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert interval.mean == pytest.approx(second.mean() - first.mean())
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high))
    assert (interval.n, interval.dropped) == (4, 1)


def test_a_difference_of_few_values_has_no_interval_and_of_equal_values_one_without_width():
    assert difference_interval([1.0], [3.0]).mean == 2
    assert math.isnan(difference_interval([1.0, 2.0], [3.0, 4.0, 5.0]).low)
    equal = difference_interval([1.0] * 3, [1.5] * 3)
    assert (equal.low, equal.mean, equal.high) == (0.5, 0.5, 0.5)
    assert math.isnan(difference_interval([], [1.0]).mean)


@pytest.mark.parametrize(("n", "of"), [(3, 1), (5, 1), (10, 1), (5, 3)])
def test_a_prediction_interval_contains_the_mean_of_further_values_as_often_as_it_says(n, of):
    draws = np.random.default_rng(1).normal(2.0, 3.0, size=(4000, n + of))
    intervals = [prediction_interval(sample[:n], of=of) for sample in draws]
    inside = [found.low <= sample[n:].mean() <= found.high for found, sample in zip(intervals, draws, strict=True)]
    # Three standard errors of a share of .95 among 4 000.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.0104)


@given(values)
def test_a_prediction_interval_is_wider_than_that_of_the_mean_by_the_textbook_factor(sample):
    mean, one_more = mean_interval(sample), prediction_interval(sample)
    scale = max(map(abs, sample), default=0)
    assert one_more.mean == mean.mean
    expected = (mean.high - mean.mean) * math.sqrt(len(sample) + 1)
    assert one_more.high - one_more.mean == pytest.approx(expected, rel=1e-6, abs=1e-9 * scale)


def test_there_is_no_prediction_from_two_values():
    found = prediction_interval([1.0, 2.0])
    assert not found.known
    assert math.isnan(found.low)
