import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.analysis.intervals import MINIMUM_VALUES, mean_interval, mean_intervals

values = st.lists(st.floats(-1e6, 1e6), min_size=MINIMUM_VALUES, max_size=8)


def bootstrap_by_hand(sample, resamples, seed):
    """Percentile bootstrap of the mean, one resample at a time."""
    random = np.random.Generator(np.random.PCG64(seed))
    means = sorted(sum(sample[index] for index in random.integers(0, len(sample), len(sample))) / len(sample)
                   for _ in range(resamples))  # fmt: skip
    position_low, position_high = 0.025 * (resamples - 1), 0.975 * (resamples - 1)

    def at(position):
        below = math.floor(position)
        return means[below] + (position - below) * (means[below + 1] - means[below])

    return at(position_low), at(position_high)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_agrees_with_a_bootstrap_written_as_a_loop(n):
    sample = np.random.default_rng(n).normal(size=n)
    interval = mean_interval(sample, resamples=9999)
    low, high = bootstrap_by_hand(list(sample), 9999, seed=123)
    # Another random stream: the ends agree to a few per cent of the interval's width.
    assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.05 * (high - low))
    assert interval.mean == pytest.approx(sum(sample) / n)


@given(values)
def test_the_interval_lies_within_the_values_and_around_the_mean(sample):
    interval = mean_interval(sample, resamples=200)
    slack = 1e-9 * max(map(abs, sample), default=0)
    assert min(sample) - slack <= interval.low <= interval.high <= max(sample) + slack
    assert min(sample) <= interval.mean <= max(sample)
    assert interval.n == len(sample)


@given(values, st.floats(0.1, 10), st.floats(-100, 100))
def test_shift_and_scale_carry_over(sample, scale, shift):
    plain = mean_interval(sample, resamples=200)
    moved = mean_interval([scale * value + shift for value in sample], resamples=200)
    tolerance = 1e-9 * (1 + abs(shift) + scale * max(map(abs, sample)))
    for end in ("mean", "low", "high"):
        assert getattr(moved, end) == pytest.approx(scale * getattr(plain, end) + shift, abs=tolerance)


@given(values.flatmap(lambda sample: st.tuples(st.just(sample), st.permutations(sample))))
def test_the_order_of_the_values_does_not_matter(pair):
    assert mean_interval(pair[0], resamples=50) == mean_interval(pair[1], resamples=50)


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


def test_more_samples_than_fit_at_once_change_nothing(monkeypatch):
    sample = np.random.default_rng(0).normal(size=(7, 4))
    whole = mean_intervals(list(sample), resamples=999)
    monkeypatch.setattr("plastic_cli.analysis.intervals._ELEMENTS_AT_ONCE", 4 * 999 * 2)
    assert mean_intervals(list(sample), resamples=999) == whole


def test_the_same_values_give_the_same_interval_and_another_seed_another():
    sample = np.random.default_rng(0).normal(size=6)
    assert mean_interval(sample) == mean_interval(sample)
    assert mean_interval(sample, seed=1) != mean_interval(sample, seed=2)


def test_more_confidence_is_a_wider_interval():
    sample = np.random.default_rng(0).normal(size=10)
    narrow, wide = mean_interval(sample, confidence=0.5), mean_interval(sample, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert "99%" in wide.method
    with pytest.raises(ValueError, match="confidence"):
        mean_interval(sample, confidence=95)
