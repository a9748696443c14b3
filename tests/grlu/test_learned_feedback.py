"""Learned feedback: the rule against an implementation of its own, its limits, its kernel, and runs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grlu.drawn import noise_of_steps
from plastic_cli.analysis.cost import cost_of
from plastic_cli.errors import UserError
from plastic_cli.resolve import resolve
from plastic_cli.runs.record import RunRecord
from plastic_cli.testing import plastic
from plastic_grlu import epoch, rule
from plastic_grlu.analysis import measures
from plastic_grlu.config import Train
from plastic_grlu.epoch import Feedback, NoiseState, Settings, train_epoch
from plastic_grlu.kernels.blocks import Samples
from plastic_grlu.kernels.feedback import FeedbackDraws, FeedbackOptions, learn_with_feedback
from plastic_grlu.learner import GRLULearner

PATHS = ("direct", "layer")
NETWORKS = [([20, 10], False), ([20, 16, 10], False), ([20, 16, 12, 10], False), ([16, 16, 16, 16, 5], True)]


def network(sizes, path, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    weights, biases = rule.initial_parameters(sizes, generator, dtype)
    biases = [0.1 * torch.randn(bias.shape, generator=generator, dtype=dtype) for bias in biases]
    feedback = [part.to(dtype) for part in rule.initial_feedback(sizes, path, generator)]
    return weights, biases, feedback


def images(sizes, count, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, sizes[0], generator=generator, dtype=dtype), torch.arange(count) % sizes[-1]


def noise(sizes, rows, sigma=0.1, seed=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [sigma * torch.randn(rows, width, generator=generator, dtype=dtype) for width in sizes[1:-1]]


# An implementation of its own, image by image with NumPy. The derivative of layer norm is a matrix here.


def standardized(h):
    return (h - h.mean()) / math.sqrt(h.var() + 1e-5)


def derivative_of_norm(h):
    n, xhat = len(h), standardized(h)
    return (np.eye(n) - 1 / n - np.outer(xhat, xhat) / n) / math.sqrt(h.var() + 1e-5)


def respond(weights, biases, x, added, skip):
    """The inputs of the norms, and z of each layer."""
    h, norms, zs = x, [], []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        norms.append(h)
        zs.append(weight @ standardized(h) + bias)
        last = layer == len(weights) - 1
        below, h = h, zs[-1] if last else np.maximum(zs[-1] + added[layer], 0)
        if skip and not last and layer > 0 and len(h) == len(below):
            h = h + below
    return norms, zs


def log_softmax(z):
    return z - z.max() - math.log(np.exp(z - z.max()).sum())


def by_hand(weights, biases, feedback, x, y, noises, path, skip):
    """The updates for a batch; `noises[l]` (batch * perturbations, width)."""
    weights, biases, feedback = ([part.numpy() for part in parts] for parts in (weights, biases, feedback))
    hidden, batch = len(feedback), len(x)
    rows = len(noises[0]) if hidden else batch
    weight_updates, bias_updates = [np.zeros_like(w) for w in weights], [np.zeros_like(b) for b in biases]
    directions = [np.zeros_like(part) for part in feedback]
    taught, reward = [], 0.0
    for row in range(rows):
        image, label = x[row % batch].numpy(), int(y[row % batch])
        none = [np.zeros(len(b)) for b in biases]
        norms, zs = respond(weights, biases, image, none, skip)
        delta = [np.eye(len(zs[-1]))[label] - np.exp(log_softmax(zs[-1]))]
        arrived = None
        for layer in reversed(range(hidden)):
            signal = delta[-1] if path == "direct" else delta[0]
            through = derivative_of_norm(norms[layer + 1]).T @ feedback[layer] @ signal
            has_skip = skip and layer + 1 < hidden and len(zs[layer]) == len(zs[layer + 1])
            arrived = through + arrived if has_skip and path == "layer" else through
            delta.insert(0, (zs[layer] > 0) * arrived)
        if row < batch:
            for layer in range(len(weights)):
                weight_updates[layer] += np.outer(delta[layer], standardized(norms[layer]))
                bias_updates[layer] += delta[layer]
        n = [noises[layer][row].numpy() for layer in range(hidden)]
        rewards = [
            log_softmax(respond(weights, biases, image, [sign * part for part in n] + none[-1:], skip)[1][-1])[label]
            for sign in (1, -1)
        ]
        reward += sum(rewards) / 2 / rows
        heard = [(zs[layer] > 0) * n[layer] for layer in range(hidden)]
        wrong = (rewards[0] - rewards[1]) / 2 - sum(n[layer] @ delta[layer] for layer in range(hidden))
        power = sum(part @ part for part in heard)
        derivatives = [derivative_of_norm(norms[layer + 1]) for layer in range(hidden)]
        signals = [delta[-1] if path == "direct" else delta[layer + 1] for layer in range(hidden)]
        for layer in range(hidden):
            variance = norms[layer + 1].var() + 1e-5
            step = wrong / power * variance / (signals[layer] @ signals[layer] + 1e-6)
            directions[layer] += step * np.outer(derivatives[layer] @ heard[layer], signals[layer])
        taught.append((wrong, heard, derivatives, signals))
    predicted = [
        sum(heard[k] @ derivatives[k] @ directions[k] @ signals[k] for k in range(hidden))
        for _, heard, derivatives, signals in taught
    ]
    square = sum(c * c for c in predicted)
    line = sum(one[0] * c for one, c in zip(taught, predicted, strict=True)) / square if square else 0
    line = min(max(line, 0), 1)
    return weight_updates, bias_updates, [line * direction for direction in directions], reward


@pytest.mark.parametrize(("sizes", "skip"), NETWORKS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("batch", "perturbations"), [(1, 1), (1, 4), (5, 2)])
def test_the_rule_equals_an_implementation_image_by_image(sizes, skip, path, batch, perturbations):
    weights, biases, feedback = network(sizes, path)
    x, y = images(sizes, batch)
    noises = noise(sizes, batch * perturbations)
    found = rule.learned_update(weights, biases, feedback, x, y, rule.Draws(noises), path=path, skip=skip)
    expected = by_hand(weights, biases, feedback, x, y, noises, path, skip)
    for mine, other in zip(found[:3], expected[:3], strict=True):
        for left, right in zip(mine, other, strict=True):
            np.testing.assert_allclose(left.numpy(), right, rtol=0, atol=1e-12)
    if len(sizes) > 2:
        assert found[3].item() == pytest.approx(expected[3], abs=1e-12)


# Limits


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(2, 9), max_size=4),
    skip=st.booleans(),
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
)
def test_with_transposed_weights_from_layer_to_layer_it_is_the_gradient(hidden, skip, seed, count):
    sizes = [7, *hidden, 4]
    weights, biases, _ = network(sizes, "layer", seed)
    x, y = images(sizes, count, seed)
    transposed = rule.transposed_weights(weights, "layer")
    dw, db = rule.signals(weights, biases, transposed, x, y, path="layer", skip=skip).updates()
    gradient_w, gradient_b, _ = rule.gradient_update(weights, biases, x, y, skip=skip)
    for mine, other in zip((*dw, *db), (*gradient_w, *gradient_b), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


def test_with_one_hidden_layer_both_paths_are_the_same():
    sizes = [9, 8, 4]
    weights, biases, feedback = network(sizes, "direct")
    x, y = images(sizes, 3)
    direct, layer = (
        rule.learned_update(weights, biases, feedback, x, y, rule.Draws(noise(sizes, 6)), path=path) for path in PATHS
    )
    for mine, other in zip(direct[2], layer[2], strict=True):
        assert torch.equal(mine, other)
    for mine, other in zip(rule.transposed_weights(weights, "direct"), [weights[1].T], strict=True):
        assert torch.equal(mine, other)


def test_direct_feedback_stands_for_the_product_of_the_weights_above():
    weights, _, _ = network([5, 4, 3, 6, 2], "direct")
    _, second, third, readout = weights
    expected = [(readout @ third @ second).T, (readout @ third).T, readout.T]
    for mine, other in zip(rule.transposed_weights(weights, "direct"), expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("path", PATHS)
def test_one_pair_removes_the_error_of_its_prediction_but_for_what_the_norm_removes(path):
    # With wide layers the norm removes little.
    sizes = [30, 600, 500, 10]
    weights, biases, feedback = network(sizes, path)
    x, y = images(sizes, 1)
    noises = noise(sizes, 1)
    before = rule.signals(weights, biases, feedback, x, y, path=path)
    change = torch.tensor([0.7], dtype=torch.float64)
    update = rule.feedback_update(before, noises, change, path=path)
    moved = [part + step for part, step in zip(feedback, update, strict=True)]

    def error(found):
        return change.item() - sum(float((n * d).sum()) for n, d in zip(noises, found.deltas, strict=False))

    after = rule.signals(weights, biases, moved, x, y, path="direct") if path == "direct" else None
    if after is not None:
        assert abs(error(after)) < 0.02 * abs(error(before))
    half = rule.feedback_update(before, noises, change / 2 + (change - error(before)) / 2, path=path)
    for one, other in zip(update, half, strict=True):
        torch.testing.assert_close(other, one / 2)


@pytest.mark.parametrize("path", PATHS)
def test_the_expected_update_leads_to_the_feedback_that_gives_the_gradient(path):
    # Many draws of small noise for one image: the mean update of B s, through the layer, points to the gradient.
    sizes, draws = [12, 10, 9, 5], 40_000
    weights, biases, feedback = network(sizes, path)
    x, y = images(sizes, 1)
    found = rule.signals(weights, biases, feedback, x, y, path=path)
    gradient = rule.gradient_update(weights, biases, x, y)[1]
    # d of small noise is n . gradient, whatever the sizes of the two.
    noises = noise(sizes, draws, 1e-3)
    change = sum((n * g).sum(1) for n, g in zip(noises, gradient, strict=False))
    exact = rule.learned_update(weights, biases, feedback, x, y, rule.Draws([n[:50] for n in noises]), path=path)[2]
    for mine, other in zip(
        exact, rule.feedback_update(found, [n[:50] for n in noises], change[:50], path=path), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    update = rule.feedback_update(found, noises, change, path=path)
    for layer in range(2):
        signal = found.deltas[2] if path == "direct" else found.deltas[layer + 1]
        through = rule._project(signal @ update[layer].T, found.normed[layer + 1]) / found.deviations[layer]
        step = found.active[layer] * through
        missing = gradient[layer] - found.deltas[layer]
        assert torch.nn.functional.cosine_similarity(step, missing).item() > 0.9


@pytest.mark.parametrize("path", PATHS)
def test_without_noise_the_feedback_does_not_change(path):
    sizes = [9, 8, 7, 4]
    weights, biases, feedback = network(sizes, path)
    x, y = images(sizes, 3)
    dw, _, update, reward = rule.learned_update(
        weights, biases, feedback, x, y, rule.Draws(noise(sizes, 6, 0.0)), path=path
    )
    assert not any(part.any() for part in update)
    assert all(part.any() for part in dw)
    assert reward.item() == pytest.approx(rule.gradient_update(weights, biases, x, y)[2].item())


def test_the_feedback_learns_the_transposed_weights_of_a_network_that_does_not_learn():
    # From layer to layer and without learning of weights, B has a fixed point.
    weights, biases, feedback = network([20, 30, 10], "layer")
    start = feedback[0].clone()
    before = torch.cosine_similarity(start.flatten(), weights[1].T.flatten(), dim=0).abs().item()
    generator = torch.Generator().manual_seed(3)
    for step in range(600):
        x = torch.randn(4, 20, generator=generator, dtype=torch.float64)
        y = torch.randint(10, (4,), generator=generator)
        for part, update in zip(
            feedback,
            rule.learned_update(
                weights, biases, feedback, x, y, rule.Draws(noise([20, 30, 10], 4, 0.01, step)), path="layer"
            )[2],
            strict=True,
        ):
            part += update
    target = rule.without_unused(weights[1].T, of_error=True)
    after = rule.without_unused(feedback[0], of_error=True)
    assert before < 0.3
    assert (after - target).norm() < 0.15 * target.norm()
    # What has no effect stays.
    unused = [part - rule.without_unused(part, of_error=True) for part in (feedback[0], start)]
    torch.testing.assert_close(*unused, rtol=0, atol=0.03)


def test_what_the_feedback_cannot_learn_has_no_effect():
    sizes = [9, 8, 7, 4]
    x, y = images(sizes, 3)
    for path in PATHS:
        weights, biases, feedback = network(sizes, path)
        used = [
            rule.without_unused(part, of_error=path == "direct" or layer == 1) for layer, part in enumerate(feedback)
        ]
        assert not torch.allclose(used[1], feedback[1])
        one, other = (rule.signals(weights, biases, part, x, y, path=path).deltas for part in (feedback, used))
        for mine, same in zip(one, other, strict=True):
            torch.testing.assert_close(mine, same)


# Top-k masks, and no feedback


def draw_gumbels(sizes, rows, seed=2):
    generator = torch.Generator().manual_seed(100 + seed)
    uniform = [torch.rand(rows, width, generator=generator, dtype=torch.float64) for width in sizes[1:-1]]
    return [-(-part.log()).log() for part in uniform]


def masks_of(weights, biases, x, gumbels, top_k, skip=False):
    """The masks of the pass without noise."""
    no_noise = [torch.zeros(len(x), len(bias), dtype=x.dtype) for bias in biases]
    return rule.pair_masks(weights, biases, x, no_noise, gumbels, top_k, skip=skip)


@pytest.mark.parametrize("skip", [False, True])
def test_with_masks_and_transposed_weights_it_is_the_gradient_of_the_masked_network(skip):
    sizes = [20, 12, 12, 5]
    weights, biases, _ = network(sizes, "transposed")
    x, y = images(sizes, 6)
    masks = masks_of(weights, biases, x, draw_gumbels(sizes, 6), 0.3, skip)
    dw, db = rule.signals(weights, biases, [], x, y, masks, path="transposed", skip=skip).updates()
    gradients = rule.gradient_update(weights, biases, x, y, masks, skip=skip)
    for mine, other in zip([*dw, *db], [*gradients[0], *gradients[1]], strict=True):
        torch.testing.assert_close(mine, other)


def test_masked_units_teach_no_feedback_and_learn_nothing():
    sizes = [20, 12, 5]
    weights, biases, feedback = network(sizes, "direct")
    x, y = images(sizes, 1)
    masks = masks_of(weights, biases, x, draw_gumbels(sizes, 1), 0.25)
    dw, _, _, _ = rule.learned_update(weights, biases, feedback, x, y, rule.Draws(noise(sizes, 1), masks))
    assert masks[0].sum() == 3
    assert torch.equal(dw[0].abs().sum(1) > 0, masks[0][0] > 0)
    # Noise at masked units alone changes no reward, so it teaches nothing.
    at_masked = rule.Draws([noise(sizes, 1)[0] * (1 - masks[0])], masks)
    _, _, dfb, _ = rule.learned_update(weights, biases, feedback, x, y, at_masked)
    assert dfb[0].abs().max() == 0


def test_without_feedback_the_readout_alone_learns_and_follows_its_gradient():
    sizes = [20, 12, 9, 5]
    weights, biases, _ = network(sizes, "none")
    x, y = images(sizes, 6)
    dw, db, dfb, reward = rule.learned_update(weights, biases, [], x, y, rule.Draws([]), path="none")
    gradients = rule.gradient_update(weights, biases, x, y)
    assert dfb == []
    assert all(part.abs().max() == 0 for part in (*dw[:-1], *db[:-1]))
    torch.testing.assert_close((dw[-1], db[-1], reward), (gradients[0][-1], gradients[1][-1], gradients[2]))


# The kernel


@pytest.mark.parametrize(("sizes", "skip"), NETWORKS)
@pytest.mark.parametrize("path", [*PATHS, "transposed", "none"])
@pytest.mark.parametrize(("batch", "perturbations", "top_k"), [(1, 1, None), (1, 3, None), (3, 2, None), (2, 2, 0.4)])
def test_the_kernel_equals_the_rule_in_float64(sizes, skip, path, batch, perturbations, top_k):
    steps = 2 * 64 // batch + 3
    weights, biases, feedback = network(sizes, path)
    x, y = images(sizes, 50)
    order = torch.randint(50, (steps * batch,), generator=torch.Generator().manual_seed(5))
    drawn = [noise(sizes, batch * perturbations, seed=step) for step in range(steps)]
    parameters = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    flat = torch.cat([torch.empty(0, dtype=torch.float64), *(part.flatten() for part in feedback)]).numpy()
    given_noise = np.stack(
        [torch.cat([torch.empty(0, dtype=torch.float64), *(n.flatten() for n in one)]).numpy() for one in drawn]
    )
    rewards, fixed = np.empty(steps), path in ("transposed", "none")
    gumbels = None if top_k is None else [draw_gumbels(sizes, batch, seed=step) for step in range(steps)]
    given_gumbels = np.empty((0, 0))
    if gumbels is not None:
        empty = torch.empty(0, dtype=torch.float64)
        given_gumbels = np.stack([torch.cat([empty, *(part.flatten() for part in one)]).numpy() for one in gumbels])
    learn_with_feedback(
        parameters,
        flat,
        np.array(sizes),
        Samples(x.numpy(), y.numpy(), order.numpy()),
        FeedbackOptions(
            batch,
            0 if fixed else perturbations,
            math.nan,
            0.02,
            0.5,
            path == "direct",
            path == "transposed",
            skip,
            np.array([0 if top_k is None else rule.kept_units(width, top_k) for width in sizes[1:-1]], np.int64),
            path == "none",
        ),
        FeedbackDraws(np.uint64(0), np.uint64(0), np.empty((0, 0)) if fixed else given_noise, given_gumbels),
        rewards,
    )
    expected = []
    for step, (one, chosen) in enumerate(zip(drawn, order.split(batch), strict=True)):
        masks = None if gumbels is None else masks_of(weights, biases, x[chosen], gumbels[step], top_k, skip)
        dw, db, dfb, reward = rule.learned_update(
            weights, biases, feedback, x[chosen], y[chosen], rule.Draws(one, masks), path=path, skip=skip
        )
        for part, update in zip((*weights, *biases), (*dw, *db), strict=True):
            part += 0.02 * update
        for part, update in zip(feedback, dfb, strict=True):
            part += 0.5 * update
        expected.append(reward.item())
    learned = torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair]).numpy()
    np.testing.assert_allclose(parameters, learned, rtol=0, atol=1e-8)
    if feedback:
        np.testing.assert_allclose(flat, torch.cat([part.flatten() for part in feedback]).numpy(), rtol=0, atol=1e-7)
        np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-8)


def trained(count, *, start=0, tensors=None, state=None, **changes):
    """Train [12, 9, 8, 4] on samples start to start + count."""
    sizes = [12, 9, 8, 4]
    options = {"perturbations": 2, "sigma": 0.1, "learning_rate": 1.0, "credit": "learned", **changes}
    path, rate = options.pop("path", "direct"), options.pop("feedback_rate", 1.0)
    weights, biases, feedback = tensors or network(sizes, path, dtype=torch.float32)
    x, y = images(sizes, 400, dtype=torch.float32)
    state = state or NoiseState(5)
    order = torch.arange(start, start + count)
    train_epoch(weights, biases, x, y, order, Settings(**options, feedback=Feedback(feedback, path, rate)), state)
    return (weights, biases, feedback), state


def flattened(tensors):
    return torch.cat([part.flatten() for parts in tensors for part in parts])


@pytest.mark.parametrize("changes", [{}, {"path": "layer", "batch_size": 5}, {"perturbations": 1}])
def test_the_same_key_gives_the_same_numbers_and_an_epoch_can_be_continued(changes, monkeypatch):
    whole, end = trained(320, **changes)
    assert not torch.equal(flattened(whole), flattened(trained(320, state=NoiseState(6), **changes)[0]))
    monkeypatch.setattr(epoch, "_CHUNK_SECONDS", 0.0)
    assert torch.equal(flattened(whole), flattened(trained(320, **changes)[0]))
    blocks = 2 * (64 // changes.get("batch_size", 1)) * changes.get("batch_size", 1)
    part, state = trained(blocks, **changes)
    part, state = trained(320 - blocks, start=blocks, tensors=part, state=NoiseState(5, state.counter), **changes)
    assert torch.equal(flattened(whole), flattened(part))
    assert state == end


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("top_k", [None, 0.4])
def test_an_epoch_equals_the_rule_with_the_same_noise(path, top_k):
    sizes = [12, 9, 8, 4]
    mine, _ = trained(90, path=path, batch_size=4, learning_rate=3.0, feedback_rate=0.7, top_k=top_k)
    weights, biases, feedback = network(sizes, path, dtype=torch.float32)
    x, y = images(sizes, 400, dtype=torch.float32)
    for step, chosen in enumerate(torch.arange(90).split(4)):
        # The noise of the hidden layers alone.
        drawn = noise_of_steps(NoiseState(5, step), 1, sizes[:-1], rows=2 * len(chosen), sigma=0.1, top_k=None)[0][0]
        masks = None
        if top_k is not None:
            gumbels = noise_of_steps(NoiseState(5, step), 1, sizes, rows=len(chosen), sigma=0.1, top_k=top_k)[1][0]
            masks = masks_of(weights, biases, x[chosen], gumbels, top_k)
        draws = rule.Draws(drawn, masks)
        dw, db, dfb, _ = rule.learned_update(weights, biases, feedback, x[chosen], y[chosen], draws, path=path)
        for part, update in zip((*weights, *biases), (*dw, *db), strict=True):
            part += 3.0 * 0.1**2 * update
        for part, update in zip(feedback, dfb, strict=True):
            part += 0.7 * update
    # Rounding errors of single precision grow over the steps, with some vector instructions more than with others.
    torch.testing.assert_close(flattened(mine), flattened((weights, biases, feedback)), rtol=0, atol=5e-4)


@pytest.mark.parametrize("path", PATHS)
def test_plain_torch_and_the_kernel_learn_equally_well(path):
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(8, 30, generator=generator)
    y = torch.randint(8, (1200,), generator=generator)
    x = centers[y] + 0.3 * torch.randn(1200, 30, generator=generator)
    accuracy = []
    for dtype in (torch.float32, torch.float64):
        weights, biases, feedback = network([30, 32, 16, 8], path, dtype=dtype)
        learned = Settings(1, 0.1, 3.0, credit="learned", feedback=Feedback(feedback, path, 0.5))
        train_epoch(weights, biases, x, y, torch.arange(1000), learned, NoiseState(3))
        accuracy.append(
            (rule.predict(weights, biases, x[1000:].to(dtype)).argmax(1) == y[1000:]).double().mean().item()
        )
    assert min(accuracy) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 2}, "one group"),
        ({"path": "layer"}, "path 'layer' needs"),
        ({"credit": "output"}, "feedback needs credit 'learned'"),
    ],
)
def test_what_the_kernel_cannot_take_is_refused(changes, message):
    tensors = network([12, 9, 8, 4], "direct", dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        trained(3, tensors=tensors, **changes)


# The learner and its runs


def learner(**changes):
    return GRLULearner(
        [12, 9, 4],
        torch.Generator().manual_seed(1),
        np.random.SeedSequence(2),
        **{"perturbations": 1, "credit": "learned", **changes},
    )


def test_the_learner_begins_as_with_every_other_credit_and_keeps_its_feedback():
    one, plain, control = learner(), learner(credit="output"), learner(update="backprop")
    assert all(torch.equal(a, b) for a, b in zip(one.weights, plain.weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.weights, control.weights, strict=True))
    assert (len(one.feedback.matrices), plain.feedback, control.feedback) == (1, None, None)
    assert "feedback" not in plain.state_dict()
    x, y = images([12, 9, 4], 64, dtype=torch.float32)
    one.prepare(x, y)
    one.train_batch(x, y)
    again = learner()
    again.load_state_dict(one.state_dict())
    assert torch.equal(again.feedback.matrices[0], one.feedback.matrices[0])
    assert not torch.equal(one.feedback.matrices[0], learner().feedback.matrices[0])
    for part in (one, again):
        part.train_batch(x, y)
    assert torch.equal(again.feedback.matrices[0], one.feedback.matrices[0])
    assert torch.equal(again.weights[0], one.weights[0])


@pytest.mark.parametrize("skip", [False, True])
def test_the_transposed_weights_are_the_control_that_follows_the_gradient(skip):
    x, y = images([12, 9, 4], 150, dtype=torch.float32)
    sizes, states = [12, 9, 9, 9, 4], []
    for options in ({"credit": "learned", "path": "transposed"}, {"update": "backprop"}):
        one = GRLULearner(
            sizes,
            torch.Generator().manual_seed(1),
            np.random.SeedSequence(2),
            perturbations=1,
            skip=skip,
            **options,
            learning_rate=(2.0, 0.0),
        )
        start = [weight.clone() for weight in one.weights]
        one.train_epoch(x, y, torch.arange(150), lambda _: None)
        assert one.feedback_angles() == []
        states.append(flattened((one.weights, one.biases)))
    assert (flattened((start,)) - flattened((one.weights,))).abs().max() > 0.1
    torch.testing.assert_close(*states, rtol=0, atol=5e-4)


def test_feedback_that_does_not_learn_needs_no_perturbations():
    x, y = images([12, 9, 4], 64, dtype=torch.float32)
    one, more = learner(feedback_rate=0.0), learner(feedback_rate=0.0, perturbations=5)
    for part in (one, more):
        part.train_batch(x, y)
    assert torch.equal(one.weights[0], more.weights[0])


@pytest.mark.parametrize("top_k", [None, 0.5])
def test_the_measured_update_is_the_gradient_under_the_same_mask(top_k):
    subject = learner(path="transposed", top_k=top_k, perturbations=3)
    rows = measures._measure(subject, "trained", *images([12, 9, 4], 2, dtype=torch.float32), 3, 2, 0)
    assert [row["angle"] for row in rows] == pytest.approx([0, 0], abs=0.1)


def test_without_feedback_hidden_layers_stay_as_they_began():
    one = learner(path="none", top_k=0.5, learning_rate=(2.0, 0.0))
    first, last = one.weights[0].clone(), one.weights[1].clone()
    one.train_batch(*images([12, 9, 4], 64, dtype=torch.float32))
    assert one.feedback_angles() == []
    assert torch.equal(one.weights[0], first)
    assert not torch.equal(one.weights[1], last)


def test_random_feedback_does_not_learn_and_the_weights_do():
    one = learner(feedback_rate=0.0)
    feedback, first = one.feedback.matrices[0].clone(), one.weights[0].clone()
    one.train_batch(*images([12, 9, 4], 64, dtype=torch.float32))
    assert torch.equal(one.feedback.matrices[0], feedback)
    assert not torch.equal(one.weights[0], first)


def test_angles_of_the_feedback():
    one = learner()
    used = [rule.without_unused(part, of_error=True).flatten() for part in (one.feedback.matrices[0], one.weights[1].T)]
    expected = torch.rad2deg(torch.acos(torch.cosine_similarity(*used, 0)))
    assert one.feedback_angles() == [pytest.approx(expected.item(), abs=1e-2)]
    one.feedback.matrices[0].copy_(one.weights[1].T)
    assert one.feedback_angles() == [pytest.approx(0, abs=1e-4)]
    assert learner(credit="output").feedback_angles() == []


def test_a_run_learns_and_every_stage_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--hidden",
        "16,12",
        "--epochs",
        "3",
        "--perturbations",
        "1",
        "--credit",
        "learned",
    ]
    outcome = plastic("train", "grlu", "--json", *options)
    assert outcome.code == 0, outcome.err
    (result,) = outcome.results
    assert result["metrics"]["test/accuracy"] > 0.8
    for stage in (["eval", "grlu"], ["analyze", "grlu", "--angles", "--images", "10", "--samples", "2"]):
        outcome = plastic(*stage, "--json")
        assert outcome.code == 0, outcome.err
    (result,) = outcome.results
    angles = [result["metrics"][f"layer {layer}/{name}"] for layer in (1, 2) for name in ("angle", "feedback_angle")]
    assert all(0 < angle < 90 for angle in angles)
    assert result["metrics"]["layer 3/angle"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (["--reward-groups", "2"], "--reward-groups"),
        (["--feedback", "none", "--feedback-rate", "0"], "--feedback-rate"),
        (["--feedback", "none", "--model", "lenet"], "--trained readout"),
        (["--update", "backprop"], "--credit"),
        (["--feedback-rate", "2"], "--feedback-rate"),
    ],
)
def test_options_that_learned_feedback_does_not_have_are_refused(typed, problem):
    outcome = plastic("train", "grlu", "--credit", "learned", *typed)
    assert outcome.code == 2
    assert problem in outcome.err


def test_options_of_feedback_need_it():
    for typed in (["--feedback", "layer"], ["--feedback-rate", ".5"]):
        outcome = plastic("train", "grlu", *typed)
        assert outcome.code == 2
        assert typed[0] in outcome.err


def test_learned_feedback_implies_a_rate_and_noise_that_does_not_decrease():
    def chosen(**typed):
        config = resolve(Train, {"credit": "learned", **typed})
        return config.learning_rate, config.noise, config.final_noise

    assert chosen() == (0.4, 0.1, 0.1)
    assert chosen(noise=0.05) == (0.4, 0.05, 0.05)
    assert chosen(learning_rate=0.2, final_noise=0.0) == (0.2, 0.1, 0.0)
    assert chosen(model="lenet") == (0.001, 0.1, 0.0)
    assert chosen(credit="output") == (0.1, 0.1, 0.0)


def test_random_feedback_is_a_control_and_stored_runs_are_what_they_were():
    config = Train.from_values({"credit": "learned", "feedback_rate": 0.0})
    assert Train.control_of(config.model_dump()) == "random feedback"
    transposed = Train.from_values({"credit": "learned", "feedback": "transposed"})
    assert Train.control_of(transposed.model_dump()) == "the gradient by transposed weights"
    features = Train.from_values({"credit": "learned", "feedback": "none"})
    assert Train.control_of(features.model_dump()) == "random features"
    assert Train.control_of(Train.from_values({"credit": "learned"}).model_dump()) is None
    assert {"feedback", "feedback_rate"} <= set(Train.added)
    assert Train.from_values({}).feedback_rate == Train.added["feedback_rate"]
    with pytest.raises(UserError, match="feedback"):
        Train.from_values({"credit": "learned", "feedback": "both"})


# Images of 2 x 3 pixels, 6 numbers, in 3 classes. The network 6-5-4-3 has 62 weights and 12 biases.
DATA = {"image_shape": [1, 2, 3], "classes": 3}


def price(**options):
    """Of 2 epochs of 14 images."""
    config = {"hidden": [5, 4], "epochs": 2, "perturbations": 1, "credit": "learned", **options}
    found = cost_of(RunRecord("run", "grlu", 0, config, status="completed", data=DATA, speed={"samples": 28}))
    assert found is not None
    return found


def test_the_cost_counts_both_passes_the_feedback_and_what_it_carries():
    direct, layer, pairs, fixed = price(), price(feedback="layer"), price(perturbations=7), price(feedback_rate=0.0)
    numbers, between = 5 * 3 + 4 * 3, 5 * 4 + 4 * 3
    # Two passes through layers 2 and 3, an outer product for each layer, the feedback and its update.
    assert direct.learning_flops == 28 * (2 * 2 * 32 + 2 * 62 + 2 * 2 * numbers)
    assert layer.learning_flops == 28 * (2 * 2 * 32 + 2 * 62 + 2 * 2 * between)
    assert pairs.learning_flops == 28 * (7 * 2 * 2 * 32 + 2 * 62 + 3 * 2 * numbers)
    assert fixed.learning_flops == 28 * (2 * 62 + 2 * numbers)
    # The gradient: as by backpropagation, with the products through the weights.
    tied, gradient = price(feedback="transposed", perturbations=16), price(update="backprop", credit="output")
    for name in ("inference_flops", "learning_flops", "messages", "updates", "state_bytes"):
        assert getattr(tied, name) == getattr(gradient, name)
    # The error of three outputs in both hidden layers, or of the units above; and a number for each pair.
    assert direct.messages == 28 * (2 * 3 + 2)
    assert layer.messages == 28 * (4 + 3 + 2)
    assert pairs.messages == 28 * (2 * 3 + 2 * 7)
    assert fixed.messages == 28 * 2 * 3
    assert direct.inference_flops == 28 * 2 * 62
    assert direct.updates == 28 * (62 + numbers)
    assert fixed.updates == 28 * 62
    assert direct.state_bytes == 4 * (74 + numbers)
    # Inputs of 6, 5 and 4 numbers, signals of 5, 4 and 3 units, noise of 5 and 4 units, and the changes.
    assert direct.step_bytes == 4 * (15 + 12 + 9 + 74 + numbers)
    assert price(update="backprop", credit="output").messages == 28 * (4 + 3)
    masked, features = price(k=0.5, activation="top-k"), price(feedback="none")
    assert masked.step_bytes == direct.step_bytes + 4 * 9
    assert (features.messages, features.updates, features.learning_flops) == (0, 28 * 12, 28 * 2 * 12)
