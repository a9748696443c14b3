"""The learner: schedules, the step of the control, predictions, and the state in a checkpoint."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from plastic_cli.classifier.fit import fit
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import create_run
from plastic_grlu import GRLULearner, rule
from plastic_grlu.epoch import NoiseState, Settings, train_epoch

SIZES = [12, 9, 4]
NOISE, RATE = (0.4, 0.1), (0.2, 0.02)


def learner_of(sizes=SIZES, **options):
    options = {"perturbations": 3, "noise": NOISE, "learning_rate": RATE, **options}
    return GRLULearner(sizes, torch.Generator().manual_seed(0), np.random.SeedSequence(5), **options)


def samples(count=20, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, SIZES[0], generator=generator), torch.randint(SIZES[-1], (count,), generator=generator)


def parameters_of(learner):
    return [part.clone() for part in (*learner.weights, *learner.biases)]


def half_cosine(ends, epoch, epochs):
    first, last = ends
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def gradient_of_log_probability(weights, biases, x, y, activity=torch.relu):
    """The gradients of weights and biases, summed over the batch, without rule.py."""
    parts = [part.clone().requires_grad_() for part in (*weights, *biases)]
    h = x
    for layer in range(len(weights)):
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        h = h @ parts[layer].T + parts[len(weights) + layer]
        h = activity(h) if layer < len(weights) - 1 else h
    (-functional.cross_entropy(h, y, reduction="sum")).backward()
    return [part.grad for part in parts]


# ------------------------------------------------------------------------------------------------ schedules


def test_noise_and_learning_rate_follow_half_cosines():
    learner = learner_of()
    assert (learner.sigma, learner.learning_rate) == (NOISE[0], RATE[0])
    seen = []
    for epoch in range(8):
        learner.begin_epoch(epoch, 8)
        assert learner.sigma == pytest.approx(half_cosine(NOISE, epoch, 8))
        assert learner.learning_rate == pytest.approx(half_cosine(RATE, epoch, 8))
        seen.append((learner.sigma, learner.learning_rate))
    for before, after in pairwise(seen):
        assert before[0] > after[0] > NOISE[1]
        assert before[1] > after[1] > RATE[1]


def test_each_epoch_of_a_run_has_its_own_noise_and_learning_rate(tiny_data, runs_folder):
    seen = []

    class Records(GRLULearner):
        def train_epoch(self, *arguments):
            seen.append((self.sigma, self.learning_rate))
            super().train_epoch(*arguments)

    data = load_dataset(str(tiny_data), None)
    learner = Records(
        [36, 5, 3],
        torch.Generator().manual_seed(0),
        np.random.SeedSequence(5),
        perturbations=1,
        noise=(0.1, 0.0),
        learning_rate=(0.3, 0.0),
    )
    run = create_run(runs_folder, rule="grlu", config={"seed": 0})
    with run.locked():
        fit(learner, data, run, epochs=4, batch_size=1)
    expected = [(half_cosine((0.1, 0), epoch, 4), half_cosine((0.3, 0), epoch, 4)) for epoch in range(4)]
    np.testing.assert_allclose(seen, expected)


@pytest.mark.parametrize("options", [{}, {"top_k": 0.5, "credit": "preactivation", "batch_size": 3}])
def test_the_learner_trains_an_epoch_with_the_noise_and_rate_of_that_epoch(options):
    learner = learner_of(**options)
    x, y = samples()
    order = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    weights, biases = copy.deepcopy((learner.weights, learner.biases))
    state = NoiseState(learner.state.key, learner.state.counter)
    learner.begin_epoch(2, 4)
    learner.train_epoch(x, y, order, lambda _: None)
    train_epoch(
        weights,
        biases,
        x,
        y,
        order,
        Settings(3, half_cosine(NOISE, 2, 4), half_cosine(RATE, 2, 4), **options),
        state,
    )
    for mine, expected in zip(parameters_of(learner), (*weights, *biases), strict=True):
        assert torch.equal(mine, expected)
    assert learner.state == state


def test_compiling_in_advance_changes_nothing():
    learner, untouched = learner_of(), learner_of()
    learner.prepare(*samples())
    assert learner.state == untouched.state
    for mine, expected in zip(parameters_of(learner), parameters_of(untouched), strict=True):
        assert torch.equal(mine, expected)


# ------------------------------------------------------------------------------------------------ the control


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_step_of_the_control_is_the_learning_rate_times_the_noise_variance(epoch):
    learner = learner_of(update="backprop", batch_size=3)
    learner.begin_epoch(epoch, 4)
    x, y = samples()
    order = torch.tensor([3, 1, 4, 1, 5, 9, 2])  # the last batch has one image
    weights, biases = copy.deepcopy((learner.weights, learner.biases))
    step = half_cosine(RATE, epoch, 4) * half_cosine(NOISE, epoch, 4) ** 2
    for batch in order.split(3):
        gradients = gradient_of_log_probability(weights, biases, x[batch], y[batch])
        for part, gradient in zip((*weights, *biases), gradients, strict=True):
            part += step * gradient
    learner.train_epoch(x, y, order, lambda _: None)
    for mine, expected in zip(parameters_of(learner), (*weights, *biases), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    assert learner.state.counter == 3


def test_the_control_equals_many_perturbations_before_the_nonlinearity():
    sigma, rate = 0.01, 5.0
    options = {"noise": (sigma, 0.0), "learning_rate": (rate, 0.0)}
    control = learner_of(update="backprop", **options)
    perturbed = learner_of(perturbations=20_000, credit="preactivation", **options)
    before = parameters_of(control)
    x, y = samples(1)
    for learner in (control, perturbed):
        learner.begin_epoch(0, 10)
        learner.train_epoch(x, y, torch.tensor([0]), lambda _: None)
    for start, one, other in zip(before, parameters_of(control), parameters_of(perturbed), strict=True):
        # Sampling and rounding cause small differences; another power of sigma would be wrong by a factor of 100.
        assert (other - one).norm() < 0.25 * (one - start).norm()


def test_the_control_with_top_k_uses_masks_like_the_rule():
    """With all units kept, the network is linear. With half of them, the weights of half of the units change."""
    x, y = samples(1)
    order = torch.tensor([0])
    linear = learner_of(update="backprop", top_k=1.0)
    before = parameters_of(linear)
    gradients = gradient_of_log_probability(linear.weights, linear.biases, x, y, activity=lambda z: z)
    linear.train_epoch(x, y, order, lambda _: None)
    for start, part, gradient in zip(before, parameters_of(linear), gradients, strict=True):
        torch.testing.assert_close(part, start + RATE[0] * NOISE[0] ** 2 * gradient, rtol=1e-5, atol=1e-6)
    half = learner_of(update="backprop", top_k=0.5)
    start = half.weights[0].clone()
    half.train_epoch(x, y, order, lambda _: None)
    assert ((half.weights[0] - start).abs().sum(1) > 0).sum() == rule.kept_units(9, 0.5)


def test_a_control_that_diverges_is_reported_with_its_step():
    learner = learner_of(update="backprop")
    learner.state.counter = 100
    x, y = samples()
    x[4] = math.nan
    with pytest.raises(FloatingPointError, match="step 104"):
        learner.train_epoch(x, y, torch.arange(8), lambda _: None)


# ------------------------------------------------------------------------------------------------ predictions and state


@pytest.mark.parametrize("top_k", [None, 0.5])
def test_predictions_have_no_noise_and_change_nothing(top_k):
    learner = learner_of(top_k=top_k)
    x, _ = samples()
    before, state = parameters_of(learner), NoiseState(learner.state.key, learner.state.counter)
    expected = rule.predict(learner.weights, learner.biases, x, top_k=top_k)
    assert torch.equal(learner.predict(x), expected)
    (hidden,) = learner.features(x)
    assert torch.equal(hidden, rule.features(learner.weights, learner.biases, x, top_k=top_k)[0])
    assert learner.state == state
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(learner), strict=True))


@pytest.mark.parametrize("update", ["grlu", "backprop"])
def test_a_restored_learner_continues_identically(update):
    x, y = samples()
    whole, before = (learner_of(update=update, top_k=0.5) for _ in range(2))
    after = learner_of(update=update, top_k=0.5)
    whole.train_epoch(x, y, torch.arange(6), lambda _: None)
    before.train_epoch(x, y, torch.arange(6), lambda _: None)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for learner in (whole, after):
        learner.train_epoch(x, y, torch.arange(6, 12), lambda _: None)
    assert after.state == whole.state == NoiseState(whole.state.key, 12)
    for mine, expected in zip(parameters_of(after), parameters_of(whole), strict=True):
        assert torch.equal(mine, expected)
