"""rule.py against loops over single numbers, and what follows from the equations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plastic_eglp import rule

LR = 0.03
THRESHOLDS = [0.7, 0.1, 1.3, 0.4]
TEMPERATURE = 1.7
RULES = ["hebb", "oja", "anti-oja", "bcm", "softhebb", "direct"]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(n=5, units=4, inputs=3, seed=0):
    """Presynaptic activity, weights, a modulation and f'."""
    x, W = draw(n, inputs, seed=seed), 0.6 * draw(units, inputs, seed=seed + 1)
    return x, W, draw(n, units, seed=seed + 2), draw(n, units, seed=seed + 3).abs()


def changed(name, x, W, modulation, derivative, event):
    """The change of W that the module makes of it, with unit learning rate."""
    y = x @ W.T
    theta = torch.tensor(THRESHOLDS[: len(W)], dtype=torch.float64)
    factors = {
        "hebb": lambda: rule.hebb(y, event),
        "oja": lambda: rule.oja(y, event),
        "anti-oja": lambda: rule.anti_oja(y, W, event),
        "bcm": lambda: rule.bcm(y, theta, event),
        "softhebb": lambda: rule.softhebb(y, TEMPERATURE, event),
        "direct": lambda: rule.direct(modulation, derivative, event),
    }[name]()
    change = rule.weight_change(W, x, factors)
    return change * rule.softhebb_rate(W)[:, None] if name == "softhebb" else change


def loop(name, x, W, modulation, derivative, event):
    """The same from the equations, one synapse at a time."""
    x, W, modulation, derivative = x.numpy(), W.numpy(), modulation.numpy(), derivative.numpy()
    n, units, inputs = len(x), len(W), W.shape[1]
    events = [float(event)] * n if not (isinstance(event, torch.Tensor) and event.ndim) else event.tolist()
    total = np.zeros(W.shape)
    for s in range(n):
        y = [sum(W[k, i] * x[s, i] for i in range(inputs)) for k in range(units)]
        exponentials = [math.exp(TEMPERATURE * value) for value in y]
        winner = max(range(units), key=lambda k: y[k])
        for k in range(units):
            length = sum(W[k, i] ** 2 for i in range(inputs))
            for i in range(inputs):
                if name == "hebb":
                    change = y[k] * x[s, i]
                elif name == "oja":
                    change = y[k] * x[s, i] - y[k] ** 2 * W[k, i]
                elif name == "anti-oja":
                    change = -y[k] * x[s, i] + y[k] ** 2 * W[k, i] / length
                elif name == "bcm":
                    change = y[k] * (y[k] - THRESHOLDS[k]) * x[s, i]
                elif name == "softhebb":
                    share = exponentials[k] / sum(exponentials) * (1 if k == winner else -1)
                    change = math.sqrt(abs(math.sqrt(length) - 1)) * share * (x[s, i] - y[k] * W[k, i])
                else:
                    change = modulation[s, k] * derivative[s, k] * x[s, i]
                total[k, i] += events[s] * change / n
    return total


def event_of(kind, n):
    return {"one": 1.0, "number": 0.4, "scalar": torch.tensor(2.5, dtype=torch.float64)}.get(
        kind, torch.linspace(0, 2, n, dtype=torch.float64)
    )


events = pytest.mark.parametrize("kind", ["one", "number", "scalar", "each"])
rules = pytest.mark.parametrize("name", RULES)


# ------------------------------------------------------------------------------------------------ equations


@rules
@events
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 6), units=st.integers(1, 4), inputs=st.integers(1, 4), seed=st.integers(0, 1000))
def test_every_rule_equals_loops(name, kind, n, units, inputs, seed):
    given_ = problem(n, units, inputs, seed)
    event = event_of(kind, n)
    np.testing.assert_allclose(changed(name, *given_, event).numpy(), loop(name, *given_, event), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.floats(0, 1), st.integers(0, 100))
def test_the_threshold_of_bcm_slides_to_the_mean_square(n, rate, seed):
    y, theta = draw(n, 3, seed=seed), draw(3, seed=seed + 1)
    expected = [(1 - rate) * float(theta[k]) + rate * sum(float(y[s, k]) ** 2 for s in range(n)) / n for k in range(3)]
    np.testing.assert_allclose(rule.bcm_threshold(theta, y, rate).numpy(), expected, rtol=1e-12, atol=1e-15)


def test_the_threshold_of_bcm_depends_on_stimuli_with_an_event_only():
    y, theta = draw(4, 3), draw(3, seed=1)
    event = torch.tensor([0.0, 0.3, 0.0, 2.0], dtype=torch.float64)
    moves = [sum(float(y[s, k]) ** 2 - float(theta[k]) for s in (1, 3)) / 4 for k in range(3)]
    found = rule.bcm_threshold(theta, y, 0.1, event)
    np.testing.assert_allclose(found.numpy(), theta.numpy() + 0.1 * np.array(moves), rtol=1e-12)
    for nothing in (0.0, torch.tensor(0.0), torch.zeros(4)):
        assert torch.equal(rule.bcm_threshold(theta, y, 0.1, nothing), theta)
    assert torch.equal(rule.bcm_threshold(theta, y, 0.1, 0.2), rule.bcm_threshold(theta, y, 0.1))


def test_direct_feedback_by_loops():
    error, B = draw(5, 3), draw(4, 3, seed=1)
    expected = [[-sum(error[s, c] * B[k, c] for c in range(3)).item() for k in range(4)] for s in range(5)]
    np.testing.assert_allclose(rule.direct_feedback(error, B).numpy(), expected, rtol=1e-12)


@given(arrays(np.float64, (2, 4, 3), elements=st.floats(-5, 5)), st.sampled_from([0.7, 1.0, 1.4]))
def test_the_triangle_is_the_positive_part_of_the_difference_from_the_mean(u, power):
    found = rule.triangle(torch.from_numpy(u), power).numpy()
    for s in range(2):
        for position in range(3):
            mean = sum(u[s, :, position]) / 4
            expected = [max(0.0, value - mean) ** power for value in u[s, :, position]]
            np.testing.assert_allclose(found[s, :, position], expected, rtol=1e-9, atol=1e-9)


@given(st.floats(-10, 10), st.floats(-5, 5), st.floats(0.01, 5))
def test_surprise_is_the_number_of_standard_deviations_above_the_mean(signal, mean, deviation):
    tensors = (torch.tensor(value, dtype=torch.float64) for value in (signal, mean, deviation))
    expected = min(3.0, max(0.0, (signal - mean) / deviation))
    assert rule.surprise(*tensors).item() == pytest.approx(expected, abs=1e-12)


def test_without_variance_a_signal_above_the_mean_has_the_largest_surprise():
    found = rule.surprise(torch.tensor([0.9, 1.0, 1.1]), torch.tensor(1.0), torch.tensor(0.0))
    assert found.tolist() == [0.0, 0.0, 3.0]


# ------------------------------------------------------------------------------------------------ symmetries


@rules
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(6)), st.booleans())
def test_the_order_of_stimuli_does_not_matter(name, seed, order, each):
    x, W, modulation, derivative = problem(6, 4, 3, seed)
    event = event_of("each", 6) if each else 0.7
    found = changed(name, x[order], W, modulation[order], derivative[order], event[order] if each else event)
    torch.testing.assert_close(found, changed(name, x, W, modulation, derivative, event), rtol=1e-10, atol=1e-12)


@rules
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(4)))
def test_units_are_interchangeable(name, seed, order):
    x, W, modulation, derivative = problem(6, 4, 3, seed)
    if name == "bcm":  # Its thresholds are the units' own, and go with them.
        y, theta = x @ W.T, torch.tensor(THRESHOLDS, dtype=torch.float64)
        expected = rule.weight_change(W, x, rule.bcm(y, theta))[order]
        found = rule.weight_change(W[order], x, rule.bcm(y[:, order], theta[order]))
    else:
        expected = changed(name, x, W, modulation, derivative, 1.0)[order]
        found = changed(name, x, W[order], modulation[:, order], derivative[:, order], 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@rules
@settings(max_examples=10, deadline=None)
@given(st.floats(0, 100), st.integers(0, 1000), st.booleans())
def test_the_change_is_proportional_to_the_event(name, factor, seed, each):
    given_ = problem(6, 4, 3, seed)
    event = event_of("each", 6) if each else 0.7
    expected = factor * changed(name, *given_, event)
    torch.testing.assert_close(changed(name, *given_, factor * event), expected, rtol=1e-9, atol=1e-9)


@rules
def test_a_stimulus_without_an_event_only_enlarges_the_mean(name):
    x, W, modulation, derivative = problem(6)
    event = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    alone = changed(name, x[:3], W, modulation[:3], derivative[:3], 1.0)
    torch.testing.assert_close(changed(name, x, W, modulation, derivative, event), alone / 2)


# ------------------------------------------------------------------------------------------------ where it leads


@pytest.fixture(scope="module")
def elongated():
    """Stimuli with a known longest and shortest axis, and the two axes."""
    axes, _ = torch.linalg.qr(draw(4, 4))
    x = draw(400, 4, seed=1) * torch.tensor([2.0, 1.0, 0.7, 0.2], dtype=torch.float64)
    x = x @ axes.T
    vectors = torch.linalg.eigh(x.T @ x / len(x)).eigenvectors
    return x, vectors[:, -1], vectors[:, 0]


def follow(x, W, factors, steps, lr=LR):
    for _ in range(steps):
        W = W + lr * rule.weight_change(W, x, factors(x @ W.T, W))
    return W


def test_oja_finds_the_first_principal_component_with_norm_one(elongated):
    x, first, _ = elongated
    W = follow(x, 0.3 * draw(3, 4, seed=5), lambda y, _: rule.oja(y), 1500)
    torch.testing.assert_close(W.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close((W @ first).abs(), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)


def test_anti_oja_finds_the_last_component_and_keeps_its_norm(elongated):
    x, _, last = elongated
    W = draw(3, 4, seed=5)
    before = W.norm(dim=1)
    after = follow(x, W, lambda y, W: rule.anti_oja(y, W), 3000)
    torch.testing.assert_close((after @ last).abs() / after.norm(dim=1), torch.ones_like(before), rtol=1e-5, atol=0)
    # What the finite steps add to the norm is far from growth without bound.
    assert ((after.norm(dim=1) / before - 1).abs() < 0.2).all()


def test_anti_oja_changes_the_norm_in_second_order_only(elongated):
    x, _, _ = elongated
    W = draw(3, 4, seed=5)
    change = rule.weight_change(W, x, rule.anti_oja(x @ W.T, W))
    torch.testing.assert_close((change * W).sum(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    for lr in (1e-2, 1e-3):
        grown = (W + lr * change).norm(dim=1) / W.norm(dim=1) - 1
        assert (grown >= 0).all()
        torch.testing.assert_close(grown, lr**2 * change.square().sum(1) / W.square().sum(1) / 2, rtol=0.01, atol=0)


def test_anti_oja_without_weights_stays_finite():
    x, W = draw(5, 3), torch.zeros(2, 3, dtype=torch.float64)
    assert torch.equal(rule.weight_change(W, x, rule.anti_oja(x @ W.T, W)), W)


def test_hebb_grows_without_bound(elongated):
    x, first, _ = elongated
    W = follow(x, 0.3 * draw(3, 4, seed=5), lambda y, _: rule.hebb(y), 300)
    assert (W.norm(dim=1) > 1e6).all()
    torch.testing.assert_close((W @ first).abs() / W.norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("start", [0.4, 3.0])
def test_winners_of_softhebb_converge_to_their_stimuli_with_norm_one(start):
    """Two clusters, two units: each takes one of them, however long its weights were."""
    centers = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.2, 1.0]], dtype=torch.float64)
    x = torch.cat([center + 0.02 * draw(50, 3, seed=n) for n, center in enumerate(centers)])
    W = start * torch.tensor([[0.9, 0.3, 0.1], [0.1, 0.3, 0.9]], dtype=torch.float64)
    W = W / W.norm(dim=1, keepdim=True) * start
    for _ in range(3000):
        change = rule.weight_change(W, x, rule.softhebb(x @ W.T, 30.0))
        W = W + 0.1 * rule.softhebb_rate(W)[:, None] * change
    torch.testing.assert_close(W.norm(dim=1), torch.ones(2, dtype=torch.float64), rtol=0.01, atol=0)
    aligned = (W * centers).sum(1) / W.norm(dim=1) / centers.norm(dim=1)
    assert (aligned > 0.999).all()


def test_losers_of_softhebb_move_away_from_the_stimulus():
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    W = torch.tensor([[0.9, 0.0], [0.3, 0.0]], dtype=torch.float64)
    change = rule.weight_change(W, x, rule.softhebb(x @ W.T, 1.0))
    assert change[0, 0] > 0 > change[1, 0]


def test_softhebb_does_not_change_converged_weights():
    W = draw(4, 3)
    W = W / W.norm(dim=1, keepdim=True)
    assert (rule.softhebb_rate(W) < 1e-7).all()
    torch.testing.assert_close(rule.softhebb_rate(10 * W), torch.full((4,), 3.0, dtype=torch.float64))


def test_bcm_strengthens_above_its_threshold_and_weakens_below():
    y = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    post = rule.bcm(y, torch.ones(2, dtype=torch.float64)).post
    assert post[0, 0] < 0 < post[0, 1]
