"""rule.py, compared with loops over single numbers, and consequences of the equations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plastic_selective import rule

EPS = 1e-8
shapes = st.sampled_from([(), (1,), (5,), (3, 4), (2, 3, 2)])
magnitudes = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1e6)))
gradients = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-1e6, 1e6)))
shares = st.floats(0, 1)
strengths = st.floats(0, 1e6)
float64 = {"dtype": torch.float64}


def scalar(value):
    return torch.tensor(value, **float64)


def loop_gate(busy, surprise, k):
    """The gate of one synapse."""
    return min(1.0, max(0.1, 1 - (k / 10) * busy * (1 - surprise)))


# ------------------------------------------------------------------------------------------------ eligibility


@given(gradients, st.floats(0, 0.999))
def test_eligibility_number_by_number(g, beta):
    e = np.asarray(np.abs(np.roll(g, 1)))
    expected = [beta * before + (1 - beta) * abs(now) for before, now in zip(e.ravel(), g.ravel(), strict=True)]
    found = rule.updated_eligibility(torch.from_numpy(e), torch.from_numpy(g), beta)
    assert found.shape == g.shape
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-14)


def test_eligibility_of_a_steady_gradient_is_its_magnitude():
    e = torch.zeros(2, **float64)
    for _ in range(400):
        e = rule.updated_eligibility(e, torch.tensor([-3.0, 0.5], **float64), 0.9)
    torch.testing.assert_close(e, torch.tensor([3.0, 0.5], **float64))


# ------------------------------------------------------------------------------------------------ shares


@given(magnitudes)
def test_the_share_is_of_the_largest(x):
    found = rule.share_of_largest(torch.from_numpy(x), EPS).numpy()
    largest = max(x.max(), EPS)
    np.testing.assert_allclose(found, x / largest, rtol=1e-15)
    assert ((found >= 0) & (found <= 1)).all()
    if x.max() >= EPS:
        assert found.max() == 1


@given(magnitudes, st.integers(-10, 60))
def test_the_share_does_not_depend_on_the_unit(x, power):
    x = np.asarray(x + 1.0)  # far from eps in any of these units
    found = rule.share_of_largest(torch.from_numpy(x), EPS)
    assert torch.equal(rule.share_of_largest(torch.from_numpy(np.asarray(np.ldexp(x, power))), EPS), found)
    torch.testing.assert_close(
        rule.share_of_largest(torch.from_numpy(np.asarray(x * 0.3)), EPS), found, rtol=1e-14, atol=0
    )


def test_tiny_magnitudes_have_small_shares():
    assert torch.equal(rule.share_of_largest(torch.zeros(3), EPS), torch.zeros(3))
    torch.testing.assert_close(rule.share_of_largest(torch.tensor([1e-10, 0.0]), EPS), torch.tensor([1e-2, 0.0]))


@pytest.mark.parametrize("eps", [0.0, 5e-324, 1e-45])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_have_no_share_however_small_eps_is(eps, dtype):
    assert torch.equal(rule.share_of_largest(torch.zeros(3, dtype=dtype), eps), torch.zeros(3, dtype=dtype))


# ------------------------------------------------------------------------------------------------ percentiles


@given(arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 6)), st.integers(0, 100))
def test_the_percentile_is_the_smallest_entry_that_covers_the_percentage(x, percentage):
    """There are ties, because there are few different numbers."""
    enough = [y for y in x if 100 * np.sum(x <= y) >= percentage * len(x)]
    found = rule.percentile(torch.from_numpy(x), percentage)
    assert found.shape == ()
    assert found.item() == min(enough)


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 10)), st.floats(0, 100))
def test_no_larger_share_than_the_rest_is_above_the_percentile(x, percentage):
    v = torch.from_numpy(x)
    busy = rule.above_threshold(v, rule.percentile(v, percentage))
    assert set(busy.tolist()) <= {0.0, 1.0}
    assert busy.mean().item() <= 1 - percentage / 100 + 1e-12


@pytest.mark.parametrize(("percentage", "busy"), [(0, 39), (25, 30), (50, 20), (75, 10), (97.5, 1), (100, 0)])
def test_the_share_of_different_numbers_above_the_percentile(percentage, busy):
    v = torch.randperm(40, generator=torch.Generator().manual_seed(0)).double().view(5, 8)
    assert rule.above_threshold(v, rule.percentile(v, percentage)).sum() == busy


def test_of_equal_numbers_none_is_above():
    v = torch.full((7,), 0.3)
    for percentage in (0, 50, 100):
        assert rule.above_threshold(v, rule.percentile(v, percentage)).sum() == 0


def test_bias_growth_is_that_of_a_second_moment_of_constant_gradients():
    v, history = 0.0, []
    for _ in range(50):
        v = 0.99 * v + 0.01 * 4.0
        history.append(v)
    for then, now in ((1, 1), (1, 2), (3, 50), (20, 21)):
        expected = history[now - 1] / history[then - 1]
        assert rule.bias_growth(0.99, then, now) == pytest.approx(expected, rel=1e-12)
        assert rule.bias_growth(0.99, scalar(then), scalar(now)).item() == pytest.approx(expected, rel=1e-12)
    assert rule.bias_growth(0.99, 7, 7) == 1


# ------------------------------------------------------------------------------------------------ gates


@given(shares, shares, strengths)
def test_the_gate_number_by_number(busy, surprise, k):
    found = rule.gate(scalar(busy), scalar(surprise), k).item()
    assert found == pytest.approx(loop_gate(busy, surprise, k), rel=1e-12, abs=1e-12)
    assert 0.1 <= found <= 1


@given(shares, shares, strengths)
@settings(max_examples=30)
def test_the_gate_in_single_precision_stays_within_its_bounds(busy, surprise, k):
    found = rule.gate(torch.tensor(busy), torch.tensor(surprise), k)
    assert torch.tensor(0.1) <= found <= 1


@given(shares, shares, shares, st.floats(0, 30))
def test_the_gate_closes_with_how_busy_a_synapse_is_and_opens_with_surprise(one, other, fixed, k):
    low, high = min(one, other), max(one, other)
    assert rule.gate(scalar(high), scalar(fixed), k) <= rule.gate(scalar(low), scalar(fixed), k)
    assert rule.gate(scalar(fixed), scalar(high), k) >= rule.gate(scalar(fixed), scalar(low), k)
    assert rule.gate(scalar(low), scalar(fixed), k) >= rule.gate(scalar(low), scalar(fixed), 2 * k)


@given(shares, st.floats(0, 1e6))
def test_when_the_gate_is_open(share, k):
    assert rule.gate(scalar(share), scalar(share), 0.0) == 1
    assert rule.gate(scalar(share), scalar(1.0), k) == 1
    assert rule.gate(scalar(0.0), scalar(share), k) == 1


def test_when_the_gate_is_lowest():
    assert rule.gate(scalar(1.0), scalar(0.0), rule.STRENGTH_UNIT).item() == rule.LOWEST_GATE == 0.1
    assert rule.gate(scalar(1.0), scalar(0.0), 9.0).item() == pytest.approx(0.1)
    assert rule.gate(scalar(1.0), scalar(0.0), 5.0).item() == pytest.approx(0.5)


@given(st.floats(0.1, 1), st.integers(1, 50), st.integers(0, 40))
def test_the_warm_up_is_linear(gate, step, warmup):
    found = rule.warmed_up(scalar(gate), float(step), warmup).item()
    force = 1.0 if warmup == 0 else min(1.0, step / warmup)
    assert found == pytest.approx(1 - force * (1 - gate), rel=1e-12)
    assert rule.warmed_up(scalar(gate), scalar(float(step)), warmup).item() == pytest.approx(found, rel=1e-12)
    if step >= warmup:
        assert found == pytest.approx(gate, rel=1e-12)


# ------------------------------------------------------------------------------------------------ all of it together


def whole_gate(e, g, k=7.0):
    return rule.gate(rule.share_of_largest(e, EPS), rule.share_of_largest(g.abs(), EPS), k)


@given(st.randoms(use_true_random=False), st.integers(2, 20))
def test_permuting_synapses_permutes_gates(random, synapses):
    generator = torch.Generator().manual_seed(random.randrange(1 << 30))
    e, g = torch.rand(synapses, generator=generator), torch.randn(synapses, generator=generator)
    order = torch.randperm(synapses, generator=generator)
    assert torch.equal(whole_gate(e[order], g[order]), whole_gate(e, g)[order])
    v = e.square()
    assert torch.equal(rule.percentile(v[order], 75), rule.percentile(v, 75))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_not_hidden(bad):
    e, g = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, bad, 2.0])
    found = whole_gate(rule.updated_eligibility(e, g, 0.9), g)
    if math.isnan(bad):
        assert found.isnan().all()
    else:
        assert found.isnan().tolist() == [False, True, False]
        assert found[[0, 2]].tolist() == [1.0, 1.0]  # with an infinite trace no other synapse is busy
        busy = rule.gate(torch.ones(3), rule.share_of_largest(g.abs(), EPS), 5.0)
        assert busy[[0, 2]].tolist() == [0.5, 0.5]  # with an infinite gradient no other gradient is a surprise


def test_nothing_is_changed_in_place():
    e, g, v, threshold = torch.rand(5), torch.randn(5), torch.rand(5), torch.tensor(0.5)
    before = [x.clone() for x in (e, g, v, threshold)]
    rule.warmed_up(whole_gate(e, g), 3.0, 10)
    rule.updated_eligibility(e, g, 0.9)
    rule.above_threshold(v, threshold)
    rule.percentile(v, 75)
    assert all(torch.equal(x, y) for x, y in zip((e, g, v, threshold), before, strict=True))
