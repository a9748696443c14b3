"""Adaptation and meta-gradient, compiled and in PyTorch, compared with automatic differentiation of the equations.

The equations are written here a second time, as matrix products of column vectors in double precision, without code of
the package.
"""

from __future__ import annotations

import functools
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from plastic_cli.data.episodes import Episode
from plastic_metafa import adaptation, kernels, rule
from plastic_metafa.adaptation import (
    KERNEL_FEEDBACK,
    SEGMENT,
    Network,
    Plasticity,
    adapt,
    adapt_to,
    draw_network,
    has_kernels,
    in_threads,
)

POOL = tuple(range(10))
KINDS = ["fixed", "symmetric", "direct", "sign"]
SIZES = (7, 6, 5, 4)
SINGLE = [(number,) for number in POOL]
SEVERAL = [(0, 2), (0, 9), (0, 2, 9), (0, 3), (0, 4), (0, 6, 7), (3, 8, 9), POOL]


# ------------------------------------------------------------------------------------------------ the equations


def change(number, W, y0, y1, e0, e1):
    """Equations 14 to 23 for columns y0, e0 (in, 1) and y1, e1 (out, 1)."""
    return {
        0: lambda: -e1 @ y0.T,
        1: lambda: -y1 @ e0.T,
        2: lambda: -e1 @ e0.T,
        3: lambda: -W,
        4: lambda: -torch.ones_like(y1) @ e0.T,
        5: lambda: -e1 @ (torch.ones_like(y1).T @ y1) @ y0.T,
        6: lambda: -y1 @ y1.T @ W @ e0 @ e0.T,
        7: lambda: -e1 @ y1.T @ W @ e0 @ y0.T,
        8: lambda: -y1 @ y0.T @ W.T @ e1 @ e0.T,
        9: lambda: y1 @ y0.T - (y1 @ y1.T) @ W,
        10: lambda: y1 @ y0.T,
    }[number]()


def respond(W, x):
    z, y = [], [x[:, None]]
    for number, weights in enumerate(W):
        z.append(weights @ y[-1])
        y.append(
            torch.logaddexp(10 * z[-1], torch.zeros_like(z[-1])) / 10
            if number < len(W) - 1
            else torch.softmax(z[-1], 0)
        )
    return z, y


def learn(network, x, labels, theta, terms, feedback):
    """Return the weights after the stream; sigma' is the logistic function of beta z, and (24) at the input."""
    W = list(network.W)
    for sample, label in zip(x, labels.tolist(), strict=True):
        z, y = respond(W, sample)
        e = [y[-1] - torch.eye(len(y[-1]), dtype=x.dtype)[:, label : label + 1]]
        for layer in reversed(range(len(W))):
            slope = torch.sigmoid(10 * z[layer - 1]) if layer else 1 - torch.exp(-10 * y[0])
            if feedback == "direct":
                back = network.B[layer].T @ e[-1]
            else:
                B = {
                    "fixed": network.B[layer],
                    "symmetric": W[layer],
                    "sign": network.B[layer].abs() * W[layer].sign(),
                }[feedback]
                back = B.T @ e[0]
            e.insert(0, back * slope)
        W = [
            weights
            + sum(
                strength * change(number, weights, y[layer], y[layer + 1], e[layer], e[layer + 1])
                for strength, number in zip(theta, terms, strict=True)
            )
            for layer, weights in enumerate(W)
        ]
    return W


def expected(network, episode, theta, terms, feedback):
    """Return weights, loss, accuracy and the gradients of the loss with respect to theta and to the first weights."""
    first = [weights.double().clone().requires_grad_() for weights in network.W]
    B = [weights.double() for weights in network.B]
    leaf = theta.double().clone().requires_grad_()
    x, query_x = episode.x.double(), episode.query_x.double()
    W = learn(Network(first, B), x, episode.y, leaf, terms, feedback)
    z = torch.stack([respond(W, query)[0][-1][:, 0] for query in query_x])
    loss = functional.cross_entropy(z, episode.query_y)
    found = torch.autograd.grad(loss, [leaf, *first], allow_unused=True)
    accuracy = (z.argmax(1) == episode.query_y).double().mean()
    return [weights.detach() for weights in W], loss.detach(), accuracy, found[0], found[1:]


def problem(sizes=SIZES, feedback="fixed", samples=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    network = draw_network(sizes, feedback, generator, dtype=torch.float64)
    x, query_x = (torch.rand(number, sizes[0], dtype=torch.float64, generator=generator) for number in (samples, 9))
    y, query_y = (torch.randint(sizes[-1], (number,), generator=generator) for number in (samples, 9))
    network = Network(*[[weights.to(dtype) for weights in part] for part in network])
    return network, Episode(torch.arange(sizes[-1]), x.to(dtype), y, query_x.to(dtype), query_y)


def strengths(terms, seed=0, size=0.05):
    return size * torch.randn(len(terms), dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 100))


@functools.cache
def solved(feedback, terms):
    """Return a network, its episode, theta, and the result of the equations."""
    network, episode = problem(feedback=feedback)
    theta = strengths(terms)
    return network, episode, theta, expected(network, episode, theta, terms, feedback)


def assert_near(found, wanted, relative=1e-9):
    """Compare gradients relative to their largest entry: small entries can be differences of large numbers."""
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=relative, atol=relative * scale + 1e-14)


def in_tensors(monkeypatch):
    monkeypatch.setattr(adaptation, "has_kernels", lambda network, plasticity: False)


# ------------------------------------------------------------------------------------------------- both ways


@pytest.mark.parametrize(
    ("way", "terms"),
    [
        *[("compiled", terms) for terms in [*SINGLE, *SEVERAL]],
        *[("tensors", terms) for terms in [(0, 2, 9), (0, 6, 7), (3, 8, 9), POOL]],
    ],
    ids=str,
)
@pytest.mark.parametrize("feedback", KINDS)
def test_adaptation_and_meta_gradient_agree_with_the_equations(way, feedback, terms, monkeypatch):
    if way == "tensors":
        in_tensors(monkeypatch)
    network, episode, theta, (W, loss, accuracy, gradient, _) = solved(feedback, terms)
    before = [weights.clone() for part in network for weights in part]
    plasticity = Plasticity(terms, feedback)
    found = adapt_to(network, episode, theta, plasticity, gradient=True)
    for layer, wanted in zip(found.W, W, strict=True):
        assert_near(layer, wanted)
        assert not layer.requires_grad
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-10)
    assert float(found.accuracy) == float(accuracy)
    assert gradient.abs().min() > 0
    assert_near(found.gradient, gradient)
    without = adapt_to(network, episode, theta, plasticity)
    assert without.gradient is None
    assert torch.equal(without.loss, found.loss)
    assert all(torch.equal(one, other) for one, other in zip(without.W, found.W, strict=True))
    # The inputs are not changed.
    assert all(torch.equal(*pair) for pair in zip(before, [*network.W, *network.B], strict=True))


@settings(max_examples=25, deadline=None)
@given(
    terms=st.sets(st.sampled_from(POOL), min_size=1).map(sorted).map(tuple),
    feedback=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    samples=st.integers(1, 8),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_network_with_any_theta(terms, feedback, sizes, samples, seed, data):
    network, episode = problem(sizes, feedback, samples, seed)
    theta = torch.tensor(data.draw(st.tuples(*[st.floats(-0.1, 0.1)] * len(terms))), dtype=torch.float64)
    W, loss, _, gradient, _ = expected(network, episode, theta, terms, feedback)
    found = adapt_to(network, episode, theta, Plasticity(terms, feedback), gradient=True)
    for layer, wanted in zip(found.W, W, strict=True):
        assert_near(layer, wanted)
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-9, abs=1e-13)
    assert_near(found.gradient, gradient)


@pytest.mark.parametrize("feedback", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(theta=st.tuples(*[st.floats(-0.1, 0.1)] * 10))
def test_the_whole_pool_with_any_theta(feedback, theta):
    network, episode = problem(feedback=feedback, samples=6)
    strength = torch.tensor(theta, dtype=torch.float64)
    _, loss, _, gradient, _ = expected(network, episode, strength, POOL, feedback)
    found = adapt_to(network, episode, strength, Plasticity(POOL, feedback), gradient=True)
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-10)
    assert_near(found.gradient, gradient)


@pytest.mark.parametrize("feedback", KINDS)
def test_a_term_of_strength_0_has_a_gradient(feedback):
    network, episode = problem(feedback=feedback)
    theta = torch.zeros(10, dtype=torch.float64)
    theta[0] = 0.03
    gradient = expected(network, episode, theta, POOL, feedback)[3]
    found = adapt_to(network, episode, theta, Plasticity(POOL, feedback), gradient=True).gradient
    assert found.abs().min() > 0
    assert_near(found, gradient)
    # Finite differences of the loss agree.
    for place in range(10):
        step = torch.zeros(10, dtype=torch.float64)
        step[place] = 1e-6
        up, down = (
            adapt_to(network, episode, theta + sign * step, Plasticity(POOL, feedback)).loss for sign in (1, -1)
        )
        assert float((up - down) / 2e-6) == pytest.approx(float(found[place]), rel=1e-4, abs=1e-6)


def test_theta_is_in_the_order_of_the_terms():
    network, episode = problem()
    theta = strengths((0, 2, 9))
    one = adapt_to(network, episode, theta, Plasticity((0, 2, 9)), gradient=True)
    other = adapt_to(network, episode, theta.flip(0), Plasticity((9, 2, 0)), gradient=True)
    assert torch.equal(one.loss, other.loss)
    assert torch.equal(one.gradient, other.gradient.flip(0))


def test_a_stream_without_samples_changes_nothing():
    network, episode = problem(samples=0)
    found = adapt_to(network, episode, strengths(POOL), Plasticity(POOL), gradient=True)
    assert all(torch.equal(*pair) for pair in zip(found.W, network.W, strict=True))
    assert torch.equal(found.gradient, torch.zeros(10, dtype=torch.float64))


def test_with_theta_of_0_nothing_is_learned():
    network, episode = problem()
    found = adapt_to(network, episode, torch.zeros(10, dtype=torch.float64), Plasticity(POOL))
    assert all(torch.equal(*pair) for pair in zip(found.W, network.W, strict=True))


def test_symmetric_feedback_is_stochastic_gradient_descent():
    network, episode = problem(feedback="symmetric")
    W = [weights.clone().requires_grad_() for weights in network.W]
    optimizer = torch.optim.SGD(W, lr=0.05)
    for x, label in zip(episode.x, episode.y, strict=True):
        optimizer.zero_grad()
        functional.cross_entropy(rule.logits(W, x[None]), label[None]).backward()
        optimizer.step()
    found = adapt_to(
        network, episode, torch.tensor([0.05], dtype=torch.float64), Plasticity((0,), "symmetric"), gradient=False
    )
    for layer, wanted in zip(found.W, W, strict=True):
        torch.testing.assert_close(layer, wanted.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("feedback", KINDS)
@pytest.mark.parametrize("terms", [(0, 2, 9), POOL])
def test_single_precision_is_near_double(feedback, terms):
    theta = strengths(terms, size=0.002)
    network, episode = problem((20, 12, 10, 5), feedback, 100)
    exact = adapt_to(network, episode, theta, Plasticity(terms, feedback), gradient=True)
    network, episode = problem((20, 12, 10, 5), feedback, 100, dtype=torch.float32)
    found = adapt_to(network, episode, theta, Plasticity(terms, feedback), gradient=True)
    assert found.W[0].dtype == found.loss.dtype == torch.float32
    assert found.gradient.dtype == torch.float64
    assert float(found.loss) == pytest.approx(float(exact.loss), rel=1e-5)
    assert_near(found.gradient, exact.gradient, 1e-4)
    assert not torch.equal(found.gradient, exact.gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.2, 0.6, 1.5])
def test_the_gradient_with_a_strong_decay(decay, dtype):
    """The backward kernel undoes the decay sample by sample; rounding errors must not grow."""
    terms = (0, 2, 3, 9)
    theta = torch.tensor([0.01, -0.01, decay, 0.003], dtype=torch.float64)
    network, episode = problem((8, 6, 4), samples=100)
    gradient = expected(network, episode, theta, terms, "fixed")[3]
    network, episode = problem((8, 6, 4), samples=100, dtype=dtype)
    found = adapt_to(network, episode, theta, Plasticity(terms), gradient=True)
    assert_near(found.gradient, gradient, 1e-3 if dtype == torch.float32 else 1e-9)


def test_the_gradient_through_two_hundred_samples():
    network, episode = problem((8, 6, 5, 4), samples=200)
    theta = torch.tensor([0.02, -0.01, 0.004], dtype=torch.float64)
    gradient = expected(network, episode, theta, (0, 2, 9), "fixed")[3]
    found = adapt_to(network, episode, theta, Plasticity((0, 2, 9)), gradient=True)
    assert_near(found.gradient, gradient, 1e-8)


# ---------------------------------------------------------------------------------------------- whole tensors


@pytest.mark.parametrize("samples", [1, SEGMENT, SEGMENT + 1, 2 * SEGMENT])
@pytest.mark.parametrize("feedback", KINDS)
def test_checkpointed_segments_do_not_change_the_gradient(samples, feedback):
    network, episode = problem(feedback=feedback, samples=samples)
    theta = strengths((0, 2, 9)).requires_grad_()
    plasticity = Plasticity((0, 2, 9), feedback)
    W = adapt(network, episode.x, episode.y, theta, plasticity)
    loss = functional.cross_entropy(rule.logits(W, episode.query_x), episode.query_y)
    (gradient,) = torch.autograd.grad(loss, theta)
    found = adapt_to(network, episode, theta, plasticity, gradient=True)
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-10)
    assert_near(found.gradient, gradient)
    with torch.no_grad():
        again = adapt(network, episode.x, episode.y, theta, plasticity)
    assert not again[0].requires_grad
    for one, other in zip(again, W, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("leading", [(3,), (2, 1)])
@pytest.mark.parametrize("feedback", KINDS)
def test_networks_in_one_tensor_learn_like_single_networks(feedback, leading):
    count = math.prod(leading)
    alone = [problem(feedback=feedback, samples=10, seed=seed) for seed in range(count)]

    def stacked(parts):
        return torch.stack(parts).unflatten(0, leading)

    W, B = ([stacked([network[part][layer] for network, _ in alone]) for layer in range(3)] for part in (0, 1))
    x, y = (stacked([getattr(episode, name) for _, episode in alone]) for name in ("x", "y"))
    theta = strengths(POOL, size=0.02).requires_grad_()
    found = adapt(Network(W, B), x, y, theta, Plasticity(POOL, feedback))
    loss = 0.0
    gradient = torch.zeros(10, dtype=torch.float64)
    for number, (network, episode) in enumerate(alone):
        one = adapt_to(network, episode, theta, Plasticity(POOL, feedback), gradient=True)
        weights = [layer.flatten(0, len(leading) - 1)[number] for layer in found]
        for layer, wanted in zip(weights, one.W, strict=True):
            assert_near(layer.detach(), wanted)
        loss = loss + functional.cross_entropy(rule.logits(weights, episode.query_x), episode.query_y)
        gradient += one.gradient
    assert_near(torch.autograd.grad(loss, theta)[0], gradient)


def test_an_eleventh_term_does_not_use_the_kernels(monkeypatch):
    monkeypatch.setitem(
        rule.TERMS, 10, rule.Term("hebb", lambda W, y_pre, y_post, e_pre, e_post: rule.outer(y_post, y_pre))
    )
    network, episode = problem()
    terms = (0, 10)
    assert has_kernels(network, Plasticity((0, 9)))
    assert not has_kernels(network, Plasticity(terms))
    theta = torch.tensor([0.05, -0.01], dtype=torch.float64)
    W, loss, _, gradient, _ = expected(network, episode, theta, terms, "fixed")
    found = adapt_to(network, episode, theta, Plasticity(terms), gradient=True)
    for layer, wanted in zip(found.W, W, strict=True):
        assert_near(layer, wanted)
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-10)
    assert_near(found.gradient, gradient)


# ------------------------------------------------------------------------------------------------- the kernels


@pytest.mark.parametrize("terms", [*SINGLE, *SEVERAL], ids=lambda terms: "".join(map(str, terms)))
@pytest.mark.parametrize("feedback", KINDS)
def test_the_backward_kernel_restores_the_first_weights_and_gives_their_gradient(feedback, terms):
    network, episode, theta, (_, _, _, gradient, of_first) = solved(feedback, terms)
    sizes = np.array(SIZES)
    W, B = (np.concatenate([weights.numpy().ravel() for weights in part]) for part in network)
    first = W.copy()
    values, active = np.zeros(10), np.zeros(10, np.bool_)
    values[list(terms)], active[list(terms)] = theta.numpy(), True
    kept = [np.zeros((8, sizes.sum())) for _ in range(5)]
    kind = KERNEL_FEEDBACK[feedback]
    kernels.adapt(sizes, W, B, episode.x.numpy(), episode.y.numpy(), values, active, kind, *kept)
    assert np.abs(W - first).max() > 1e-3
    ends = np.cumsum(sizes[1:] * sizes[:-1])
    last = [
        torch.from_numpy(part.copy()).view(out, into).requires_grad_()
        for part, out, into in zip(np.split(W, ends[:-1]), SIZES[1:], SIZES, strict=False)
    ]
    loss = functional.cross_entropy(rule.logits(last, episode.query_x), episode.query_y)
    G = np.concatenate([part.numpy().ravel() for part in torch.autograd.grad(loss, last)])
    found = np.full(10, np.nan)
    kernels.meta_gradient(sizes, W, B, values, active, kind, *kept, G, found)
    # The lowest layer is restored only if a term, or the error at the input, uses its weights.
    needed = set(terms) & {3, 6, 7, 9} or (feedback in ("symmetric", "sign") and set(terms) & {1, 2, 4, 8})
    begin = 0 if needed else ends[0]
    np.testing.assert_allclose(W[begin:], first[begin:], rtol=0, atol=1e-14)
    assert_near(torch.from_numpy(found[list(terms)]), gradient)
    assert_near(torch.from_numpy(G), torch.cat([part.flatten() for part in of_first]))


# ------------------------------------------------------------------------------------------ networks and threads


@pytest.mark.parametrize("feedback", KINDS)
def test_weights_and_feedback_are_independent_xavier_draws(feedback):
    sizes = (60, 50, 40, 30)
    W, B = draw_network(sizes, feedback, torch.Generator().manual_seed(1))
    assert [tuple(weights.shape) for weights in W] == [(50, 60), (40, 50), (30, 40)]
    direct = [(30, 60), (30, 50), (30, 40)]
    assert [tuple(weights.shape) for weights in B] == (
        direct if feedback == "direct" else [(50, 60), (40, 50), (30, 40)]
    )
    for drawn in [*W, *B]:
        bound = math.sqrt(6 / sum(drawn.shape))
        assert 0.98 * bound < drawn.abs().max() <= bound
        # The variance of a uniform distribution, within five standard deviations of its estimate.
        assert float(drawn.var()) == pytest.approx(bound**2 / 3, rel=5 * math.sqrt(0.8 / drawn.numel()))
        assert abs(float(drawn.mean())) < 5 * bound / math.sqrt(3 * drawn.numel())
    if feedback != "direct":
        for weights, back in zip(W, B, strict=True):
            pair = torch.stack([weights.flatten(), back.flatten()])
            assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / math.sqrt(weights.numel())


def test_networks_of_one_seed_have_the_same_weights_for_every_feedback():
    drawn = {kind: draw_network(SIZES, kind, torch.Generator().manual_seed(3)) for kind in KINDS}
    for kind in KINDS:
        assert all(torch.equal(*pair) for pair in zip(drawn[kind].W, drawn["fixed"].W, strict=True))
    assert all(torch.equal(*pair) for pair in zip(drawn["sign"].B, drawn["fixed"].B, strict=True))
    other = draw_network(SIZES, "fixed", torch.Generator().manual_seed(4))
    assert not torch.equal(other.W[0], drawn["fixed"].W[0])


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_return_the_results_of_one_thread_in_order(two_threads):
    problems = [problem(samples=5, seed=seed) for seed in range(6)]
    theta = strengths(POOL)

    def one(number):
        return adapt_to(*problems[number], theta, Plasticity(POOL), gradient=True)

    for found, wanted in zip(in_threads(one, 6), map(one, range(6)), strict=True):
        assert torch.equal(found.loss, wanted.loss)
        assert torch.equal(found.gradient, wanted.gradient)
    meeting = threading.Barrier(2)
    assert in_threads(lambda number: meeting.wait(10) * 0 + number, 4) == [0, 1, 2, 3]
    assert in_threads(one, 0) == []


def test_an_error_in_a_thread_is_raised(two_threads):
    def fail(number):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_threads(fail, 3)


@pytest.mark.parametrize("label", [-1, SIZES[-1]])
def test_a_label_without_an_output_is_an_error(label):
    network, episode = problem()
    wrong = Episode(episode.classes, episode.x, episode.y.clone(), episode.query_x, episode.query_y)
    wrong.y[3] = label
    with pytest.raises(ValueError, match="labels must be from 0 to 3"):
        adapt_to(network, wrong, strengths((0,)), Plasticity((0,)))
