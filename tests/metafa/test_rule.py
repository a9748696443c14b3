"""The ten terms, activity and errors, compared with loops over indices in double precision, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from plastic_metafa import rule

LEADING = [(), (3,), (2, 3)]
PUBLISHED = list(range(10))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(leading=(), out=4, into=3, seed=0):
    """W, y_pre, y_post, e_pre, e_post of a layer, all independent of each other."""
    sizes = ((out, into), (into,), (out,), (into,), (out,))
    return [draw(*leading, *size, seed=seed + number) for number, size in enumerate(sizes)]


def term_by_loops(number, W, y_pre, y_post, e_pre, e_post):
    """Equations 14 to 23, index by index, for one sample as NumPy arrays."""
    out, into = W.shape
    rows, columns = range(out), range(into)
    F = np.zeros((out, into))
    for i in rows:
        for j in columns:
            if number == 0:
                F[i, j] = -e_post[i] * y_pre[j]
            elif number == 1:
                F[i, j] = -y_post[i] * e_pre[j]
            elif number == 2:
                F[i, j] = -e_post[i] * e_pre[j]
            elif number == 3:
                F[i, j] = -W[i, j]
            elif number == 4:
                F[i, j] = -e_pre[j]
            elif number == 5:
                F[i, j] = -e_post[i] * sum(y_post[k] for k in rows) * y_pre[j]
            elif number == 6:
                F[i, j] = -sum(y_post[i] * y_post[k] * W[k, m] * e_pre[m] * e_pre[j] for k in rows for m in columns)
            elif number == 7:
                F[i, j] = -sum(e_post[i] * y_post[k] * W[k, m] * e_pre[m] * y_pre[j] for k in rows for m in columns)
            elif number == 8:
                F[i, j] = -sum(y_post[i] * y_pre[m] * W[k, m] * e_post[k] * e_pre[j] for k in rows for m in columns)
            else:
                F[i, j] = y_post[i] * y_pre[j] - sum(y_post[i] * y_post[k] * W[k, j] for k in rows)
    return F


def each_sample(leading, tensors):
    for index in np.ndindex(*leading):
        yield index, [tensor[index].numpy() for tensor in tensors]


# ------------------------------------------------------------------------------------------------------- the terms


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("number", PUBLISHED)
def test_a_term_is_its_equation(number, leading):
    given_layer = layer(leading)
    found = rule.TERMS[number].expression(*given_layer)
    assert found.shape == (*leading, 4, 3)
    for index, sample in each_sample(leading, given_layer):
        np.testing.assert_allclose(found[index].numpy(), term_by_loops(number, *sample), rtol=1e-12, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(out=st.integers(1, 5), into=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_term_of_any_size_is_its_equation(out, into, seed):
    given_layer = layer((), out, into, seed)
    sample = [tensor.numpy() for tensor in given_layer]
    for number in PUBLISHED:
        found = rule.TERMS[number].expression(*given_layer).numpy()
        np.testing.assert_allclose(found, term_by_loops(number, *sample), rtol=1e-11, atol=1e-12)


def test_no_term_is_the_sum_of_others():
    # For one sample some are proportional: 0, 5 and 7.
    found = torch.stack([rule.TERMS[number].expression(*layer((5,))).flatten() for number in PUBLISHED])
    assert torch.linalg.matrix_rank(found) == 10


@pytest.mark.parametrize("number", PUBLISHED)
def test_uses_e_pre_agrees_with_the_expression(number):
    W, y_pre, y_post, e_pre, e_post = layer()
    before = rule.TERMS[number].expression(W, y_pre, y_post, e_pre, e_post)
    after = rule.TERMS[number].expression(W, y_pre, y_post, draw(3, seed=77), e_post)
    assert (not torch.equal(before, after)) == rule.TERMS[number].uses_e_pre


def test_names_are_unique_and_those_of_the_paper():
    names = [term.name for term in rule.TERMS.values()]
    assert list(rule.TERMS) == PUBLISHED
    assert len(set(names)) == 10
    assert (names[0], names[2], names[9]) == ("pseudo-gradient", "ehebb", "oja")


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("terms", [(0,), (0, 2, 9), (9, 0, 2), tuple(PUBLISHED), tuple(reversed(PUBLISHED)), ()])
def test_an_update_is_the_sum_of_its_terms_in_their_order(terms, leading):
    theta = draw(len(terms), seed=5)
    given_layer = layer(leading)
    found = rule.plasticity_update(*given_layer, theta, terms)
    for index, sample in each_sample(leading, given_layer):
        expected = sum(
            (float(strength) * term_by_loops(number, *sample) for strength, number in zip(theta, terms, strict=True)),
            np.zeros((4, 3)),
        )
        np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-11, atol=1e-12)


def test_an_update_is_linear_in_theta():
    one, other = draw(10, seed=6), draw(10, seed=7)
    whole = rule.plasticity_update(*layer(), 2 * one - other, PUBLISHED)
    parts = 2 * rule.plasticity_update(*layer(), one, PUBLISHED) - rule.plasticity_update(*layer(), other, PUBLISHED)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_theta_of_another_length_is_an_error(length):
    for theta in (torch.ones(length), torch.ones(2, length)):
        with pytest.raises(ValueError, match="for 2 terms: its last dimension has one for each"):
            rule.plasticity_update(*layer(), theta, (0, 2))
    with pytest.raises(ValueError, match="for 2 terms"):
        rule.plasticity_update(*layer(), torch.tensor(1.0), (0, 2))


def test_an_unknown_term_is_named():
    with pytest.raises(ValueError, match="there is no term 17; the terms are 0, 1, 2"):
        rule.plasticity_update(*layer(), torch.ones(2), (0, 17))


@pytest.mark.parametrize(
    ("leading", "of_theta"), [((2,), (2,)), ((3, 2), (3, 2)), ((3, 2), (3, 1)), ((3, 2), (2,)), ((), (4,))]
)
def test_theta_may_have_leading_dimensions(leading, of_theta):
    theta, given_layer = draw(*of_theta, 10, seed=5), layer(leading)
    found = rule.plasticity_update(*given_layer, theta, PUBLISHED)
    whole = torch.broadcast_shapes(leading, of_theta)
    assert found.shape == (*whole, 4, 3)
    wide = [part.expand(*whole, *part.shape[len(leading) :]) for part in given_layer]
    for index in np.ndindex(*whole):
        own = rule.plasticity_update(*(part[index] for part in wide), theta.expand(*whole, 10)[index], PUBLISHED)
        torch.testing.assert_close(found[index], own, rtol=1e-12, atol=1e-12)


def test_the_registry_accepts_an_eleventh_term(monkeypatch):
    hebb = rule.Term("hebb", lambda W, y_pre, y_post, e_pre, e_post: rule.outer(y_post, y_pre), uses_e_pre=False)
    monkeypatch.setitem(rule.TERMS, 10, hebb)
    W, y_pre, y_post, e_pre, e_post = layer()
    found = rule.plasticity_update(W, y_pre, y_post, e_pre, e_post, torch.tensor([0.5, 2.0]), (0, 10))
    expected = [[-0.5 * e_post[i] * y_pre[j] + 2 * y_post[i] * y_pre[j] for j in range(3)] for i in range(4)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


# --------------------------------------------------------------------------------------------- activity and errors


def forward_by_loops(W, x):
    y = [list(x)]
    for number, weights in enumerate(W):
        z = [sum(weights[i, j] * y[-1][j] for j in range(weights.shape[1])) for i in range(weights.shape[0])]
        if number < len(W) - 1:
            y.append([np.logaddexp(0, 10 * value) / 10 for value in z])
        else:
            parts = [math.exp(value) for value in z]
            y.append([part / sum(parts) for part in parts])
    return [np.array(values) for values in y]


def errors_by_loops(B, y, target):
    """B: in the shapes of W; sigma'(z) = 1 - exp(-beta y), also at the input (24)."""
    e = [y[-1] - target]
    for feedback, below in zip(reversed(B), reversed(y[:-1]), strict=True):
        above = e[0]
        e.insert(
            0,
            np.array(
                [
                    sum(feedback[i, j] * above[i] for i in range(len(above))) * (1 - math.exp(-10 * below[j]))
                    for j in range(len(below))
                ]
            ),
        )
    return e


SIZES = (5, 4, 6, 3)


def network(leading=(), seed=0):
    """W and B of a network with drawn weights, an input from 0 to 1, and a one-hot target."""
    pairs = list(zip(SIZES[1:], SIZES, strict=False))
    W = [0.5 * draw(*leading, *pair, seed=seed + number) for number, pair in enumerate(pairs)]
    B = [0.5 * draw(*leading, *pair, seed=seed + 10 + number) for number, pair in enumerate(pairs)]
    x = draw(*leading, SIZES[0], seed=seed + 20).abs()
    labels = torch.randint(SIZES[-1], leading, generator=torch.Generator().manual_seed(seed))
    return W, B, x, functional.one_hot(labels, SIZES[-1]).double()


@pytest.mark.parametrize("leading", LEADING)
def test_activity_and_errors_are_equations_1_to_3_and_24(leading):
    W, B, x, target = network(leading)
    y = rule.forward(W, x)
    e = rule.errors(B, y, target)
    assert [part.shape for part in y] == [part.shape for part in e] == [(*leading, units) for units in SIZES]
    for index in np.ndindex(*leading):
        by_hand = forward_by_loops([weights[index].numpy() for weights in W], x[index].numpy())
        back = errors_by_loops([feedback[index].numpy() for feedback in B], by_hand, target[index].numpy())
        for found, expected in zip([*y, *e], [*by_hand, *back], strict=True):
            np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-11, atol=1e-13)


def test_many_inputs_give_the_same_as_single_inputs():
    W, B, _, _ = network()
    x, target = draw(7, SIZES[0]).abs(), torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2, 0]]
    together = rule.forward(W, x)
    back = rule.errors(B, together, target)
    for number in range(7):
        y = rule.forward(W, x[number])
        for found, expected in zip([*together, *back], [*y, *rule.errors(B, y, target[number])], strict=True):
            torch.testing.assert_close(found[number], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.softmax(rule.logits(W, x), -1), together[-1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("leading", LEADING)
def test_the_pseudo_gradient_with_symmetric_feedback_is_the_gradient(leading):
    W, _, x, target = network(leading)
    W = [weights.requires_grad_() for weights in W]
    loss = -(target * rule.logits(W, x).log_softmax(-1)).sum()
    gradients = torch.autograd.grad(loss, W)
    y = rule.forward(W, x)
    e = rule.errors(W, y, target)
    for number, gradient in enumerate(gradients):
        update = rule.pseudo_gradient(W[number], y[number], y[number + 1], e[number], e[number + 1])
        torch.testing.assert_close(update, -gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("leading", LEADING)
def test_direct_errors_come_from_the_output_only(leading):
    W, _, x, target = network(leading)
    B = [draw(*leading, SIZES[-1], units, seed=40 + units) for units in SIZES[:-1]]
    y = rule.forward(W, x)
    found = rule.direct_errors(B, y, target)
    assert [part.shape for part in found] == [(*leading, units) for units in SIZES]
    for index in np.ndindex(*leading):
        last = (y[-1] - target)[index].numpy()
        np.testing.assert_array_equal(found[-1][index].numpy(), last)
        for place, feedback in enumerate(B):
            below = y[place][index].numpy()
            by_hand = [
                sum(float(feedback[index][i, j]) * last[i] for i in range(3)) * (1 - math.exp(-10 * below[j]))
                for j in range(SIZES[place])
            ]
            np.testing.assert_allclose(found[place][index].numpy(), by_hand, rtol=1e-11, atol=1e-13)


def test_sign_concordant_feedback_has_the_magnitude_of_B_and_the_sign_of_W():
    W, B, _, _ = network()
    for mixed, weights, feedback in zip(rule.sign_concordant(B, W), W, B, strict=True):
        torch.testing.assert_close(mixed.abs(), feedback.abs(), rtol=0, atol=0)
        assert ((mixed > 0) == (weights > 0)).all()
        assert (mixed != feedback).any()
    torch.testing.assert_close(rule.sign_concordant(W, W), W, rtol=0, atol=0)


@given(st.floats(-50, 50))
def test_softplus_and_its_slope_from_its_value(z):
    at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    y = rule.softplus(at)
    assert float(y.detach()) == pytest.approx(float(np.logaddexp(0, 10 * z)) / 10, rel=1e-12, abs=1e-300)
    (slope,) = torch.autograd.grad(y, at, create_graph=True)
    expected = 1 / (1 + math.exp(-10 * z))
    assert float(slope.detach()) == pytest.approx(expected, rel=1e-11)
    assert float(rule.derivative(y.detach())) == pytest.approx(expected, rel=1e-11)
    # The meta-gradient differentiates the slope.
    (bend,) = torch.autograd.grad(rule.derivative(rule.softplus(at)), at)
    assert float(bend) == pytest.approx(10 * expected * (1 - expected), rel=1e-6, abs=1e-11)


# ----------------------------------------------------------------------------------- orthonormality and Oja's rule


@pytest.mark.parametrize("leading", LEADING)
def test_orthonormality_is_equations_11_and_12(leading):
    W, y_pre, y_post = draw(4, 6), draw(*leading, 6, seed=1), draw(*leading, 4, seed=2)
    found = rule.orthonormality(W, y_pre, y_post)
    assert found.shape == leading
    w = W.numpy()
    for index, (below, above) in each_sample(leading, [y_pre, y_post]):
        recalled = [sum(w[i, j] * above[i] for i in range(4)) for j in range(6)]
        by_hand = sum(sum(w[i, j] * (below[j] - recalled[j]) for j in range(6)) ** 2 for i in range(4))
        assert float(found[index]) == pytest.approx(by_hand, rel=1e-11)


def test_orthonormality_is_0_for_orthonormal_rows_of_a_linear_layer_and_no_others():
    W = torch.linalg.qr(draw(6, 4)).Q.T
    x = draw(20, 6, seed=3)
    assert rule.orthonormality(W, x, x @ W.T).max() < 1e-24
    for other in (2 * W, W + 0.1 * draw(4, 6, seed=4), torch.cat([W[:1], W[:1], W[2:]])):
        assert rule.orthonormality(other, x, x @ other.T).min() > 1e-6
    # For orthonormal rows it is the distance of the activity from the linear response.
    y = rule.softplus(x @ W.T)
    torch.testing.assert_close(rule.orthonormality(W, x, y), (x @ W.T - y).square().sum(-1))


def test_orthonormality_is_0_at_the_fixed_point_of_ojas_rule():
    W, y_post = draw(4, 6), draw(4, seed=1)
    y_pre = W.T @ y_post
    nothing = torch.zeros(4, 6, dtype=torch.float64)
    torch.testing.assert_close(
        rule.oja(W, y_pre, y_post, torch.zeros_like(y_pre), torch.zeros_like(y_post)), nothing, rtol=0, atol=1e-12
    )
    assert rule.orthonormality(W, y_pre, y_post) < 1e-22


def test_ojas_rule_converges_to_the_principal_subspace():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(draw(6, 6, seed=9)).Q
    x = torch.randn(400, 6, dtype=torch.float64, generator=generator) * torch.tensor([3.0, 2.5, 2.0, 0.5, 0.4, 0.3])
    x = x @ axes.T
    W = 0.3 * draw(3, 6, seed=8)
    above, below = torch.zeros(400, 3, dtype=torch.float64), torch.zeros_like(x)
    for _ in range(400):
        W = W + 0.03 * rule.oja(W.expand(400, 3, 6), x, x @ W.T, below, above).mean(0)
    torch.testing.assert_close(W @ W.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
    principal = torch.linalg.eigh(x.T @ x).eigenvectors[:, -3:]
    torch.testing.assert_close(W.T @ W, principal @ principal.T, rtol=0, atol=1e-6)
