"""rule.py against loops over single numbers, and against properties of the equations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_grlu import rule

CREDITS = ["output", "preactivation"]


def network(sizes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    weights, biases = rule.initial_parameters(sizes, generator, dtype)
    return weights, [0.3 * torch.randn(bias.shape, generator=generator, dtype=dtype) for bias in biases]


def problem(sizes, batch, perturbations, seed=0, sigma=0.3, masked=False):
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.rand(batch, sizes[0], generator=generator, dtype=torch.float64)
    y = torch.randint(sizes[-1], (batch,), generator=generator)
    rows = batch * perturbations
    noises = [sigma * torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in sizes[1:]]
    masks = None
    if masked:
        masks = [(torch.rand(rows, width, generator=generator) < 0.5) for width in sizes[1:-1]]
    return x, y, noises, masks


def loop_forward(weights, biases, x, noises, masks, credit, skip):
    """The network for one sample with one noise vector per layer. Returns the logits and the normed inputs."""
    h = [float(value) for value in x]
    normed = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        mean = sum(h) / len(h)
        variance = sum((value - mean) ** 2 for value in h) / len(h)
        xhat = [(value - mean) / math.sqrt(variance + 1e-5) for value in h]
        hidden = layer < len(weights) - 1
        out = []
        for j in range(len(bias)):
            z = sum(float(weight[j, i]) * xhat[i] for i in range(len(xhat))) + float(bias[j])
            n = float(noises[layer][j])
            if credit == "preactivation":
                z += n
            a = z
            if hidden and masks is not None:
                a = z if masks[layer][j] else 0.0
            elif hidden:
                a = z if z > 0 else 0.0
            if skip and hidden and layer > 0 and len(h) == len(bias):
                a += h[j]
            if credit == "output":
                a += n
            out.append(a)
        normed.append(xhat)
        h = out
    return h, normed


def loop_update(weights, biases, x, y, noises, masks, credit, skip):
    batch, perturbations = len(x), len(noises[0]) // len(x)
    weight_updates = [np.zeros(weight.shape) for weight in weights]
    bias_updates = [np.zeros(bias.shape) for bias in biases]
    rewards = []
    for p in range(perturbations):
        for b in range(batch):
            row = p * batch + b
            n = [noise[row] for noise in noises]
            m = None if masks is None else [mask[row] for mask in masks]
            reward, inputs = {}, {}
            for sign in (1, -1):
                logits, inputs[sign] = loop_forward(weights, biases, x[b], [sign * v for v in n], m, credit, skip)
                reward[sign] = logits[y[b]] - math.log(sum(math.exp(value) for value in logits))
            d = (reward[1] - reward[-1]) / 2
            rewards.append((reward[1] + reward[-1]) / 2)
            for layer in range(len(weights)):
                for j in range(len(biases[layer])):
                    u = float(n[layer][j]) * d / perturbations
                    bias_updates[layer][j] += u
                    for i, (plus, minus) in enumerate(zip(inputs[1][layer], inputs[-1][layer], strict=True)):
                        weight_updates[layer][j, i] += u * (plus + minus) / 2
    return weight_updates, bias_updates, sum(rewards) / len(rewards)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.one_of(
        st.lists(st.integers(2, 5), min_size=2, max_size=4),
        st.just([4, 5, 5, 3]),
        st.just([5, 5, 5, 5, 3]),
    ),
    batch=st.integers(1, 3),
    perturbations=st.integers(1, 3),
    masked=st.booleans(),
    skip=st.booleans(),
    credit=st.sampled_from(CREDITS),
    seed=st.integers(0, 1000),
)
def test_update_equals_loops(sizes, batch, perturbations, masked, skip, credit, seed):
    weights, biases = network(sizes, seed)
    x, y, noises, masks = problem(sizes, batch, perturbations, seed, masked=masked)
    weight_updates, bias_updates, reward = rule.grlu_update(
        weights, biases, x, y, noises, masks, credit=credit, skip=skip
    )
    expected = loop_update(weights, biases, x, y.tolist(), noises, masks, credit, skip)
    for update, wanted in zip((*weight_updates, *bias_updates), (*expected[0], *expected[1]), strict=True):
        np.testing.assert_allclose(update.numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert reward.shape == ()
    assert reward.item() == pytest.approx(expected[2], rel=1e-12)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("skip", [False, True])
def test_forward_is_perturbation_major_and_accepts_missing_masks(credit, skip):
    sizes = [4, 5, 5, 3]
    weights, biases = network(sizes)
    x, _, noises, masks = problem(sizes, batch=2, perturbations=3, masked=True)
    masks = [masks[0], None]
    logits = rule.forward(weights, biases, x, noises, masks, credit=credit, skip=skip)
    assert logits.shape == (6, 3)
    for row in range(6):
        # A mask of the positive z equals ReLU; the second layer has None, which means ReLU.
        alone = rule.forward(
            weights,
            biases,
            x[row % 2, None],
            [n[row, None] for n in noises],
            [masks[0][row, None], None],
            credit=credit,
            skip=skip,
        )
        torch.testing.assert_close(logits[row], alone[0])
    zero = [torch.zeros_like(noise[:2]) for noise in noises]
    torch.testing.assert_close(
        rule.forward(weights, biases, x, skip=skip), rule.forward(weights, biases, x, zero, credit=credit, skip=skip)
    )


def test_masks_equal_to_the_positive_part_are_relu():
    sizes = [4, 6, 3]
    weights, biases = network(sizes)
    x, _, _, _ = problem(sizes, 5, 1)
    z = rule.layer_norm(x) @ weights[0].T + biases[0]
    torch.testing.assert_close(rule.forward(weights, biases, x), rule.forward(weights, biases, x, masks=[z > 0]))


def test_layer_norm_standardizes_and_ignores_scale_and_shift():
    x = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normed = rule.layer_norm(x)
    torch.testing.assert_close(normed.mean(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(normed.var(1, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(rule.layer_norm(7 * x + 3), normed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("masked", [False, True])
def test_updates_have_the_symmetries_of_the_equations(credit, masked):
    sizes, batch, perturbations = [5, 6, 6, 4], 3, 4
    weights, biases = network(sizes)
    x, y, noises, masks = problem(sizes, batch, perturbations, masked=masked)

    def update(noises, masks=masks, x=x, y=y):
        weight_updates, bias_updates, reward = rule.grlu_update(
            weights, biases, x, y, noises, masks, credit=credit, skip=True
        )
        return [*weight_updates, *bias_updates, reward]

    reference = update(noises)
    assert all(part.abs().max() > 0 for part in reference)
    # The sign of the noise does not matter, because both signs are used.
    for a, b in zip(reference, update([-noise for noise in noises]), strict=True):
        torch.testing.assert_close(a, b)
    # Nor does the order of the perturbations.
    order = torch.tensor([2, 0, 3, 1])

    def permuted(rows):
        return rows.view(perturbations, batch, -1)[order].reshape(rows.shape)

    moved = update([permuted(noise) for noise in noises], None if masks is None else [permuted(mask) for mask in masks])
    for a, b in zip(reference, moved, strict=True):
        torch.testing.assert_close(a, b)
    # The update of a batch is the sum over its samples, and the reward the mean.
    singles = [
        update(
            [noise[b::batch] for noise in noises],
            None if masks is None else [mask[b::batch] for mask in masks],
            x[b, None],
            y[b, None],
        )
        for b in range(batch)
    ]
    for part, single_parts in zip(reference[:-1], zip(*singles, strict=True), strict=False):
        torch.testing.assert_close(part, sum(single_parts))
    torch.testing.assert_close(reference[-1], sum(single[-1] for single in singles) / batch)


@pytest.mark.parametrize("credit", CREDITS)
def test_without_noise_there_is_no_update(credit):
    sizes = [5, 6, 4]
    weights, biases = network(sizes)
    x, y, noises, _ = problem(sizes, 3, 2)
    weight_updates, bias_updates, reward = rule.grlu_update(
        weights, biases, x, y, [0 * noise for noise in noises], credit=credit
    )
    assert all(not update.any() for update in (*weight_updates, *bias_updates))
    expected = torch.log_softmax(rule.forward(weights, biases, x), 1)[torch.arange(3), y].mean()
    torch.testing.assert_close(reward, expected)


def one_unit_at_a_time(sizes, batch, sigma):
    """Noise on one unit per perturbation: their mean is a finite difference, without sampling error."""
    units = sum(sizes[1:])
    return list(
        (sigma * torch.eye(units, dtype=torch.float64)).repeat_interleave(batch, 0).split(sizes[1:], dim=1)
    ), units


@pytest.mark.parametrize("sizes", [[6, 4], [6, 7, 4], [6, 7, 7, 4]])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_preactivation_credit_is_the_gradient_for_small_sigma(sizes, masked, skip):
    weights, biases = network(sizes, seed=3)
    x, y, _, _ = problem(sizes, 2, 1)
    noises, units = one_unit_at_a_time(sizes, 2, 1e-4)
    masks = row_masks = None
    if masked:
        masks = [torch.rand(2, width, generator=torch.Generator().manual_seed(width)) < 0.6 for width in sizes[1:-1]]
        row_masks = [mask.repeat(units, 1) for mask in masks]
    updates = rule.grlu_update(weights, biases, x, y, noises, row_masks, credit="preactivation", skip=skip)
    gradients = rule.gradient_update(weights, biases, x, y, masks, skip=skip)
    for update, gradient in zip((*updates[0], *updates[1]), (*gradients[0], *gradients[1]), strict=True):
        torch.testing.assert_close(update * units / 1e-4**2, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sizes", [[6, 4], [6, 7, 4], [6, 7, 7, 4]])
def test_output_credit_is_the_gradient_of_the_outputs_times_the_normed_inputs(sizes):
    weights, biases = network(sizes, seed=3)
    x, y, _, _ = problem(sizes, 1, 1)
    noises, units = one_unit_at_a_time(sizes, 1, 1e-4)
    weight_updates, bias_updates, _ = rule.grlu_update(weights, biases, x, y, noises, credit="output")
    # Zeros are added where noise is added; their gradients are the gradients of the outputs.
    probes = [torch.zeros(1, width, dtype=torch.float64, requires_grad=True) for width in sizes[1:]]
    h, inputs = x, []
    for layer, (weight, bias, probe) in enumerate(zip(weights, biases, probes, strict=True)):
        inputs.append((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt())
        z = inputs[-1] @ weight.T + bias
        h = (z if layer == len(weights) - 1 else z.clamp(min=0)) + probe
    torch.log_softmax(h, 1)[0, y[0]].backward()
    for layer, probe in enumerate(probes):
        scale = units / 1e-4**2
        torch.testing.assert_close(bias_updates[layer] * scale, probe.grad[0], rtol=1e-5, atol=1e-7)
        expected = probe.grad[0, :, None] * inputs[layer].detach()
        torch.testing.assert_close(weight_updates[layer] * scale, expected, rtol=1e-5, atol=1e-7)


def test_random_noise_averages_to_the_gradient():
    sizes, perturbations, sigma = [6, 7, 4], 40_000, 1e-3
    weights, biases = network(sizes, seed=5)
    x, y, noises, _ = problem(sizes, 1, perturbations, sigma=sigma)
    updates, _, _ = rule.grlu_update(weights, biases, x, y, noises, credit="preactivation")
    gradients, _, _ = rule.gradient_update(weights, biases, x, y)
    for update, gradient in zip(updates, gradients, strict=True):
        # The relative error of a mean over P perturbations of N units is about sqrt(N / P), 1.7% here.
        assert (update / sigma**2 - gradient).norm() < 0.08 * gradient.norm()


def test_both_kinds_of_credit_are_equal_in_a_linear_network():
    sizes = [5, 4]
    weights, biases = network(sizes)
    x, y, noises, _ = problem(sizes, 3, 4)
    for a, b in zip(
        rule.grlu_update(weights, biases, x, y, noises, credit="output")[0],
        rule.grlu_update(weights, biases, x, y, noises, credit="preactivation")[0],
        strict=True,
    ):
        assert torch.equal(a, b)


def test_silent_units_learn_only_by_output_credit():
    sizes = [5, 6, 4]
    weights, biases = network(sizes)
    biases[0][2] = -100
    x, y, _, _ = problem(sizes, 1, 1)
    noises, _ = one_unit_at_a_time(sizes, 1, 0.1)
    output = rule.grlu_update(weights, biases, x, y, noises, credit="output")[1][0]
    preactivation = rule.grlu_update(weights, biases, x, y, noises, credit="preactivation")[1][0]
    assert output[2] != 0
    assert preactivation[2] == 0


def test_gradient_update_equals_finite_differences_and_leaves_no_graph():
    sizes = [4, 5, 5, 3]
    weights, biases = network(sizes, seed=7)
    x, y, _, _ = problem(sizes, 3, 1)
    weight_updates, bias_updates, reward = rule.gradient_update(weights, biases, x, y, skip=True)

    def total():
        return torch.log_softmax(rule.forward(weights, biases, x, skip=True), 1)[torch.arange(3), y].sum().item()

    assert reward.item() == pytest.approx(total() / 3)
    for parameter, update in zip((*weights, *biases), (*weight_updates, *bias_updates), strict=True):
        assert not parameter.requires_grad
        assert not update.requires_grad
        flat = parameter.view(-1)
        for i in range(0, len(flat), 3):
            value = flat[i].item()
            flat[i] = value + 1e-6
            upper = total()
            flat[i] = value - 1e-6
            lower = total()
            flat[i] = value
            assert update.view(-1)[i].item() == pytest.approx((upper - lower) / 2e-6, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 40), k=st.floats(0.001, 1), seed=st.integers(0, 1000))
def test_top_k_masks_keep_the_largest(width, k, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(4, width, generator=generator, dtype=torch.float64)
    kept = rule.kept_units(width, k)
    assert 1 <= kept <= width
    assert abs(kept - k * width) <= 0.5 or kept == 1
    for mask, key in (
        (rule.top_k_mask(z, k), z),
        (rule.gumbel_top_k_mask(z, k, gumbel=z.flip(0)), z + z.flip(0)),
    ):
        assert mask.dtype == z.dtype
        assert (mask.sum(1) == kept).all()
        chosen = torch.where(mask == 1, key, math.inf).min(1).values
        others = torch.where(mask == 0, key, -math.inf).max(1).values
        assert (chosen > others).all()
    assert (rule.gumbel_top_k_mask(z, k, generator).sum(1) == kept).all()


def test_gumbel_top_one_draws_with_softmax_probabilities():
    z = torch.tensor([0.3, -1.0, 1.2])
    draws = rule.gumbel_top_k_mask(z.repeat(40_000, 1), 0.1, torch.Generator().manual_seed(0)).mean(0)
    torch.testing.assert_close(draws, torch.softmax(z, 0), atol=0.01, rtol=0)


@pytest.mark.parametrize("credit", CREDITS)
def test_pair_masks_are_shared_and_follow_the_mean_of_the_pair(credit):
    sizes, k = [5, 8, 8, 3], 0.25
    weights, biases = network(sizes)
    x, _, noises, _ = problem(sizes, 2, 3)
    generator = torch.Generator().manual_seed(9)
    gumbels = [-torch.empty(6, 8, dtype=torch.float64).exponential_(generator=generator).log() for _ in range(2)]
    masks = rule.pair_masks(weights, biases, x, noises, gumbels, k, credit=credit, skip=True)
    swapped = rule.pair_masks(weights, biases, x, [-noise for noise in noises], gumbels, k, credit=credit, skip=True)
    assert all(torch.equal(a, b) for a, b in zip(masks, swapped, strict=True))
    z = (rule.layer_norm(x) @ weights[0].T + biases[0]).repeat(3, 1)
    assert torch.equal(masks[0], rule.top_k_mask(z + gumbels[0], k))
    pre = []
    for sign in (1, -1):
        n = sign * noises[0]
        h = (z + n) * masks[0] if credit == "preactivation" else z * masks[0] + n
        pre.append(rule.layer_norm(h) @ weights[1].T + biases[1])
    assert torch.equal(masks[1], rule.top_k_mask(sum(pre) / 2 + gumbels[1], k))


@pytest.mark.parametrize("top_k", [None, 0.5])
def test_predictions_follow_from_features(top_k):
    sizes = [5, 8, 8, 3]
    weights, biases = network(sizes)
    x, _, _, _ = problem(sizes, 4, 1)
    hidden = rule.features(weights, biases, x, top_k=top_k, skip=True)
    assert [tuple(h.shape) for h in hidden] == [(4, 8), (4, 8)]
    logits = rule.layer_norm(hidden[-1]) @ weights[-1].T + biases[-1]
    torch.testing.assert_close(rule.predict(weights, biases, x, top_k=top_k, skip=True), logits)
    if top_k is None:
        assert (hidden[0] >= 0).all()
        torch.testing.assert_close(logits, rule.forward(weights, biases, x, skip=True))
    else:
        assert ((hidden[0] != 0).sum(1) == 4).all()
        added = hidden[1] - hidden[0]  # the skip connection adds the output of the first layer
        assert ((added != 0).sum(1) == 4).all()


def test_schedule_and_initial_parameters():
    assert rule.cosine(0.1, 0.02, 0) == pytest.approx(0.1)
    assert rule.cosine(0.1, 0.02, 0.5) == pytest.approx(0.06)
    assert rule.cosine(0.1, 0.02, 1) == pytest.approx(0.02)
    weights, biases = rule.initial_parameters([400, 300, 10], torch.Generator().manual_seed(0))
    assert [tuple(weight.shape) for weight in weights] == [(300, 400), (10, 300)]
    assert weights[0].dtype == torch.float32
    assert weights[0].std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.01)
    assert all(not bias.any() for bias in biases)
    again, _ = rule.initial_parameters([400, 300, 10], torch.Generator().manual_seed(0))
    assert torch.equal(weights[1], again[1])


def test_wrong_arguments_are_refused():
    sizes = [5, 4]
    weights, biases = network(sizes)
    x, _, _, _ = problem(sizes, 2, 1)
    with pytest.raises(ValueError, match="credit"):
        rule.forward(weights, biases, x, credit="input")
    with pytest.raises(ValueError, match="3 rows"):
        rule.forward(weights, biases, x, [torch.zeros(3, 4, dtype=torch.float64)])
