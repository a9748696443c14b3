"""Rewards per group: equations (11) to (13) against loops over single units, in expectation, in variance, compiled."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grlu.drawn import noise_of_steps
from plastic_grlu import rule
from plastic_grlu.epoch import NoiseState, Settings, train_epoch
from plastic_grlu.kernels.learn import Draws, Options, Samples, learn


def problem(sizes, batch=2, perturbations=2, seed=0, sigma=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    weights, biases = rule.initial_parameters(sizes, generator, dtype)
    biases = [0.3 * torch.randn(bias.shape, generator=generator, dtype=dtype) for bias in biases]
    x = torch.rand(batch, sizes[0], generator=generator, dtype=dtype)
    y = torch.randint(sizes[-1], (batch,), generator=generator)
    rows = batch * perturbations
    noises = [sigma * torch.randn(rows, width, generator=generator, dtype=dtype) for width in sizes[1:]]
    return weights, biases, x, y, noises


def flat(updates):
    return torch.cat([part.flatten() for part in (*updates[0], *updates[1])])


def passed(W, b, x, noise, credit):
    """One pass of one image in NumPy; returns the normed inputs of all layers and the logits."""
    h, inputs = x, []
    for layer in range(len(W)):
        xhat = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
        z = W[layer] @ xhat + b[layer]
        if credit == "preactivation":
            z = z + noise[layer]
        h = z if layer == len(W) - 1 else np.maximum(z, 0)
        if credit == "output":
            h = h + noise[layer]
        inputs.append(xhat)
    return inputs, h


def group_by_group(weights, biases, x, y, noises, groups, credit):
    """Equations (11) to (13), one image, perturbation and group after the other, in float64 NumPy."""
    W, b = [part.numpy() for part in weights], [part.numpy() for part in biases]
    widths, batch = [len(part) for part in b], len(x)
    perturbations = len(noises[0]) // batch
    dW, db = [np.zeros_like(part) for part in W], [np.zeros_like(part) for part in b]
    of_unit = np.array([math.floor(unit * groups / sum(widths)) for unit in range(sum(widths))])
    for row in range(batch * perturbations):
        image, label = x[row % batch].numpy(), int(y[row % batch])
        whole = np.concatenate([noise[row].numpy() for noise in noises])
        for group in range(groups):
            alone = np.split(np.where(of_unit == group, whole, 0), np.cumsum(widths)[:-1])
            rewards, inputs = [], []
            for sign in (1, -1):
                normed, logits = passed(W, b, image, [sign * part for part in alone], credit)
                rewards.append(logits[label] - np.log(np.exp(logits).sum()))
                inputs.append(normed)
            d = (rewards[0] - rewards[1]) / 2
            for layer, part in enumerate(alone):
                db[layer] += part * d / perturbations
                dW[layer] += np.outer(part * d, (inputs[0][layer] + inputs[1][layer]) / 2) / perturbations
    return torch.from_numpy(np.concatenate([part.ravel() for part in (*dW, *db)]))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    batch=st.integers(1, 3),
    perturbations=st.integers(1, 3),
    credit=st.sampled_from(["output", "preactivation"]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_update_equals_loops_over_groups(sizes, batch, perturbations, credit, seed, data):
    groups = data.draw(st.integers(1, sum(sizes[1:])))
    weights, biases, x, y, noises = problem(sizes, batch, perturbations, seed)
    updates = rule.update_of_groups(weights, biases, x, y, noises, groups, credit=credit)
    # A difference of two nearly equal logits loses digits, so the update is compared with its largest entry.
    expected = group_by_group(weights, biases, x, y, noises, groups, credit)
    torch.testing.assert_close(flat(updates), expected, rtol=1e-8, atol=1e-10)


@given(widths=st.lists(st.integers(1, 30), min_size=1, max_size=4), data=st.data())
def test_groups_are_neighbors_of_equal_size(widths, data):
    groups = data.draw(st.integers(1, sum(widths)))
    members = torch.cat(rule.group_of_units(widths, groups))
    sizes = members.bincount(minlength=groups)
    assert [len(part) for part in rule.group_of_units(widths, groups)] == widths
    assert bool((members.diff() >= 0).all())
    assert len(sizes) == groups
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= 1


@pytest.mark.parametrize("groups", [0, 10])
def test_more_groups_than_units_are_refused(groups):
    with pytest.raises(ValueError, match="between 1 and the number of units, 9"):
        rule.group_of_units([6, 3], groups)
    weights, biases, x, y, _ = problem([4, 6, 3], dtype=torch.float32)
    with pytest.raises(ValueError, match="between 1 and the number of units, 9"):
        train_epoch(weights, biases, x, y, torch.arange(2), Settings(1, 0.1, 0.1, groups=groups), NoiseState(1))


def test_a_group_for_each_unit_is_the_gradient_times_the_squared_noise():
    """With k = N each reward is n_i G_i, so db_i = n_i^2 G_i: the gradient with a positive factor for each unit."""
    weights, biases, x, y, noises = problem([5, 6, 4], batch=1, perturbations=1, sigma=1e-4)
    of_biases = rule.update_of_groups(weights, biases, x, y, noises, 10, credit="preactivation")[1]
    gradient = rule.gradient_update(weights, biases, x, y)[1]
    for db, noise, part in zip(of_biases, noises, gradient, strict=True):
        torch.testing.assert_close(db, noise[0] ** 2 * part, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("groups", [1, 2, 5, 10])
def test_expectation_is_the_gradient_and_variance_falls_as_predicted(groups):
    """The mean over noise is sigma^2 G; the variance of db_i is sigma^4 / P (|G_g|^2 + G_i^2)."""
    sizes, sigma, draws, perturbations = [6, 6, 4], 1e-3, 2000, 2
    weights, biases, x, y, _ = problem(sizes, batch=1, seed=3)
    gradient = torch.cat(rule.gradient_update(weights, biases, x, y)[1])
    generator = torch.Generator().manual_seed(groups)
    found = []
    for _ in range(draws):
        noises = [
            sigma * torch.randn(perturbations, width, generator=generator, dtype=torch.float64) for width in sizes[1:]
        ]
        found.append(torch.cat(rule.update_of_groups(weights, biases, x, y, noises, groups, credit="preactivation")[1]))
    estimates = torch.stack(found) / sigma**2
    members = torch.cat(rule.group_of_units(sizes[1:], groups))
    of_group = torch.zeros(groups, dtype=torch.float64).index_add(0, members, gradient**2)
    # Var(n_i times the sum over the group of n_j G_j) / sigma^4 = |G_g|^2 + G_i^2.
    variances = (of_group[members] + gradient**2) / perturbations
    error = (estimates.mean(0) - gradient).norm()
    assert error < 4 * math.sqrt(float(variances.sum()) / draws)
    # The standard error of a variance of 2000 products of normal numbers is about 8%.
    torch.testing.assert_close(estimates.var(0), variances, rtol=0.3, atol=1e-3 * float(variances.sum()))


@pytest.mark.parametrize("sizes", [[20, 10], [20, 16, 10], [20, 16, 13, 10]])
@pytest.mark.parametrize("credit", ["output", "preactivation"])
@pytest.mark.parametrize(("batch", "perturbations", "groups"), [(1, 1, 4), (3, 2, 7), (2, 1, 10)])
def test_kernel_equals_loops_over_groups(sizes, credit, batch, perturbations, groups):
    """One step of the kernel with given noise, in float64."""
    weights, biases, x, y, noises = problem(sizes, batch, perturbations)
    before = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair])
    parameters = before.clone().numpy()
    learn(
        parameters,
        np.array(sizes),
        Samples(x.numpy(), y.numpy(), np.arange(batch)),
        Options(
            batch, perturbations, math.nan, 0.5, credit == "preactivation", False,
            np.zeros(len(sizes) - 2, np.int64), groups,
        ),
        Draws(
            np.uint64(0), np.uint64(0), torch.cat([noise.flatten() for noise in noises])[None].numpy(), np.empty((1, 0))
        ),
        np.empty(1),
    )  # fmt: skip
    expected = group_by_group(weights, biases, x, y, noises, groups, credit)
    parts = expected.split([part.numel() for part in (*weights, *biases)])
    by_layer = torch.cat(
        [part for pair in zip(parts[: len(weights)], parts[len(weights) :], strict=True) for part in pair]
    )
    torch.testing.assert_close((torch.from_numpy(parameters) - before) / 0.5, by_layer, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (1, 5), (4, 5), (4, 26)])
def test_a_compiled_epoch_equals_the_rule_with_the_same_noise(batch, groups):
    sizes, count = [20, 16, 10], 40
    weights, biases, x, y, _ = problem(sizes, batch=count, dtype=torch.float32)
    mine = [part.double() for part in weights], [part.double() for part in biases]
    options = Settings(2, 0.1, 0.2, batch, "preactivation", groups=groups)
    noises, _ = noise_of_steps(NoiseState(9), count // batch, sizes, rows=2 * batch, sigma=0.1, top_k=None)
    reward = train_epoch(weights, biases, x, y, torch.arange(count), options, NoiseState(9))
    rewards = []
    for step, noise in enumerate(noises):
        images = slice(step * batch, (step + 1) * batch)
        *updates, mean = rule.update_of_groups(
            *mine, x[images].double(), y[images], [part.double() for part in noise], groups, credit="preactivation"
        )  # fmt: skip
        rewards.append(float(mean))
        for parameter, update in zip((*mine[0], *mine[1]), (*updates[0], *updates[1]), strict=True):
            parameter += 0.2 * update
    for one, other in zip((*weights, *biases), (*mine[0], *mine[1]), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-5)
    assert reward == pytest.approx(sum(rewards) / len(rewards), abs=1e-5)


def test_the_eager_path_learns_with_groups():
    """In float64 the epoch runs PyTorch; it descends as far as the compiled one does with the same settings."""
    gains = []
    for dtype in (torch.float32, torch.float64):
        weights, biases, x, y, _ = problem([10, 16, 4], batch=60, dtype=dtype)
        options, state = Settings(4, 0.05, 8.0, 5, "preactivation", groups=6), NoiseState(3)
        first = train_epoch(weights, biases, x, y, torch.arange(60), options, state)
        for _ in range(8):
            last = train_epoch(weights, biases, x, y, torch.arange(60), options, state)
        gains.append(last - first)
    assert gains[0] == pytest.approx(gains[1], rel=0.2)
    assert gains[0] > 0.1
