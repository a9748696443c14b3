import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.numbers import NumberStyle, possible_ends
from plastic_cli.statistics.intervals import mean_interval
from plastic_cli.tables import NOTHING, cell_text

ACCURACY, SECONDS = metric_of("test/accuracy"), metric_of("training_seconds")


def shown(values, metric=ACCURACY, **style):
    return cell_text(NumberStyle(**style).estimate(mean_interval(values), metric))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ({}, "90.00 [87.52, 92.48]"),
        ({"percent": False}, "0.9000 [0.8752, 0.9248]"),
        ({"deviation": True}, "90.00 ± 1.00"),
        ({"deviation": True, "percent": False}, "0.9000 ± 0.0100"),
        ({"digits": 1}, "90.0 [87.5, 92.5]"),
        ({"digits": 0, "deviation": True}, "90 ± 1"),
    ],
)
def test_a_share_over_three_seeds(style, text):
    assert shown([0.89, 0.9, 0.91], **style) == text


def test_bounds_have_the_decimals_of_the_largest_number():
    assert shown([1.0, 1.1, 1.2], SECONDS) == "1.100 [0.852, 1.348]"
    assert shown([0.01, 0.02, 0.03], SECONDS) == "0.02000 [0.00000, 0.04484]"
    assert shown([100.0, 200.0, 300.0], SECONDS) == "200.0 [0.0, 448.4]"
    assert shown([1e12, 1e12, 1e12], SECONDS) == "1.000e+12 [1.000e+12, 1.000e+12]"


def test_an_interval_ends_where_no_value_is_possible_and_not_elsewhere():
    assert shown([0.8, 0.99, 1.0]) == "93.00 [65.01, 100.00]"
    assert shown([0.2, 0.01, 0.0], percent=False) == "0.0700 [0.0000, 0.3499]"
    assert shown([-1.0, 0.0, 1.0], metric_of("test/return")) == "0.000 [-2.484, 2.484]"
    assert shown([0.1, 0.2, 1.2], metric_of("test/loss")) == "0.500 [0.000, 2.011]"
    assert shown([0.1, 0.2, 1.2], metric_of("test/loss", "selective")) == "0.500 [0.000, 2.011]"
    assert shown([150.0, 170.0, 179.0], metric_of("test/angle")) == "166.3 [129.5, 180.0]"
    assert shown([0.99, 0.8, 1.0], metric_of("cka")) == "0.930 [0.650, 1.000]"
    # A loss of the user's own that is negative keeps its ends.
    assert shown([-1.0, -0.5, 0.0], metric_of("test/loss")) == "-0.500 [-1.742, 0.742]"
    assert shown([-0.1, 0.0, 0.1], Metric("difference", "%", signed=True)) == "0.00 [-24.84, 24.84]"
    # A share of a rule that is negative is a difference, whatever its name says.
    assert shown([-0.1, -0.2, 0.0], Metric("gain", "%")) == "-10.00 [-34.84, 14.84]"


@pytest.mark.parametrize(("mean", "scale"), [(0.93, 0.05), (0.05, 0.1), (0.5, 0.3)])
def test_shares_lie_in_the_cut_interval_exactly_if_they_lie_in_the_whole_one(mean, scale):
    generator = np.random.default_rng(4)
    for _ in range(200):
        whole = mean_interval(np.clip(generator.normal(mean, scale, size=4), 0, 1))
        low, high = possible_ends(whole, ACCURACY)
        assert 0 <= low <= whole.mean <= high <= 1
        for share in generator.uniform(size=5):
            assert (low <= share <= high) == (whole.low <= share <= whole.high)


def test_one_seed_has_no_interval_and_no_deviation():
    assert shown([0.9]) == shown([0.9], deviation=True) == "90.00"
    assert shown([0.8, 0.9]) == "85.00"
    assert shown([0.8, 0.9], deviation=True) == "85.00 ± 7.07"
    assert NumberStyle().estimate(mean_interval([]), ACCURACY) is None
    assert NumberStyle().estimate(None, ACCURACY) is None


def test_values_that_do_not_count_are_counted():
    assert shown([0.9, 0.9, 0.9, math.nan]) == "90.00 [90.00, 90.00] (n=3)"


def test_headings_name_the_unit():
    assert NumberStyle().heading(ACCURACY) == "test accuracy (%)"
    assert NumberStyle(percent=False).heading(ACCURACY) == "test accuracy"
    assert NumberStyle(percent=False).heading(SECONDS) == "time of training (s)"


@pytest.mark.parametrize(
    ("value", "margin", "metric", "style", "text"),
    [
        (0.9283, 0.005, ACCURACY, {}, "92.83 ± 0.5"),
        (0.871, 0.02, ACCURACY, {}, "87.1 ± 2"),
        (0.9283, 0.005, ACCURACY, {"percent": False}, "0.9283 ± 0.005"),
        (0.9283, 0.0, ACCURACY, {"digits": 1}, "92.8"),
        (0.9283, 0.005, ACCURACY, {"digits": 3}, "92.830 ± 0.500"),
        (475.0, 0.0, Metric("return"), {}, "475"),
    ],
)
def test_published_values_have_the_digits_of_the_publication(value, margin, metric, style, text):
    assert NumberStyle(**style).figure(value, margin, metric) == text


def test_captions_speak_of_intervals_only_if_there_are_any():
    style, spread = NumberStyle(), NumberStyle(deviation=True)
    one, two, three = (mean_interval(np.linspace(0.5, 0.9, count)) for count in (1, 2, 3))
    assert style.caption([one, one]) == spread.caption([one]) == "One seed each, so there is no interval."
    assert style.caption([one, two]) == "Mean over n seeds. An interval needs 3 seeds."
    assert "In brackets: 95% t interval" in style.caption([one, three])
    assert spread.caption([one, three]) == "Mean ± standard deviation over n seeds."
    assert style.caption([]) == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_the_deviation_is_that_of_a_sample(values):
    assert mean_interval(values).deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)


@given(st.floats(-1e300, 1e300), st.one_of(st.none(), st.integers(0, 6)), st.booleans())
def test_every_finite_number_is_shown(value, digits, percent):
    text = NumberStyle(percent=percent, digits=digits).text(value, SECONDS)
    assert text != NOTHING
    assert text != "-0"
    assert float(text) == pytest.approx(value, rel=6e-4, abs=0.0 if digits is None else 0.51 * 10.0**-digits)
