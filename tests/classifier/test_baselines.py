"""The network of the control against gradients computed by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from plastic_cli.classifier.baselines import BackpropLearner
from plastic_cli.classifier.learner import EpochLearner, Learner, ScheduledLearner


def learner_of(sizes=(5, 4, 3), seed=0, **options):
    options = {"learning_rate": 0.1, "optimizer": "sgd", **options}
    return BackpropLearner(sizes, torch.Generator().manual_seed(seed), **options)


def batch(rows=7, inputs=5, classes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, inputs, generator=generator), torch.randint(classes, (rows,), generator=generator)


def parameters_of(learner):
    return [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in learner.layers]


def gradients(parameters, x, y):
    """The chain rule by hand in float64: mean cross-entropy of a ReLU network."""
    activities = [x.double().numpy()]
    for number, (weights, biases) in enumerate(parameters):
        z = activities[-1] @ weights.double().numpy().T + biases.double().numpy()
        activities.append(z if number == len(parameters) - 1 else np.maximum(z, 0))
    logits = activities[-1]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    delta = shares / shares.sum(1, keepdims=True)
    delta[np.arange(len(y)), y.numpy()] -= 1
    delta /= len(y)
    found = []
    for number in reversed(range(len(parameters))):
        found.insert(0, (delta.T @ activities[number], delta.sum(0)))
        delta = (delta @ parameters[number][0].double().numpy()) * (activities[number] > 0)
    return found


@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3), (5, 6, 4, 3)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_the_gradient_computed_by_hand(sizes, momentum):
    learner = learner_of(sizes, momentum=momentum)
    velocity = [(0.0, 0.0)] * (len(sizes) - 1)
    for step in range(3):
        x, y = batch(seed=step)
        before = parameters_of(learner)
        expected = gradients(before, x, y)
        velocity = [
            tuple(momentum * old + new for old, new in zip(one, two, strict=True))
            for one, two in zip(velocity, expected, strict=True)
        ]
        learner.train_batch(x, y)
        for old, new, change in zip(before, parameters_of(learner), velocity, strict=True):
            for part in (0, 1):
                np.testing.assert_allclose(
                    new[part].double().numpy(), old[part].double().numpy() - 0.1 * change[part], rtol=1e-5, atol=1e-6
                )


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate():
    learner = learner_of(optimizer="adam", learning_rate=0.01)
    x, y = batch()
    before = parameters_of(learner)
    expected = gradients(before, x, y)
    learner.train_batch(x, y)
    for old, new, gradient in zip(before, parameters_of(learner), expected, strict=True):
        moved = (new[0] - old[0]).double().numpy()
        active = np.abs(gradient[0]) > 1e-5
        np.testing.assert_allclose(moved[active], -0.01 * np.sign(gradient[0])[active], rtol=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_trained_readout_does_not_change_the_other_layers(optimizer):
    learner = learner_of((5, 6, 4, 3), trained="readout", optimizer=optimizer)
    before = parameters_of(learner)
    for step in range(5):
        learner.train_batch(*batch(seed=step))
    after = parameters_of(learner)
    for old, new in zip(before[:-1], after[:-1], strict=True):
        assert torch.equal(old[0], new[0])
        assert torch.equal(old[1], new[1])
    assert not torch.equal(before[-1][0], after[-1][0])
    assert not torch.equal(before[-1][1], after[-1][1])


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(5)
    one = parameters_of(learner_of(seed=3))
    torch.manual_seed(6)
    two, other = parameters_of(learner_of(seed=3)), parameters_of(learner_of(seed=4))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0][0], other[0][0])
    assert all((biases == 0).all() for _, biases in one)


def test_hidden_weights_keep_the_size_of_activity():
    weights = learner_of((2000, 500, 3)).first_weights
    assert weights.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.01)


def test_prediction_and_features_agree_and_do_not_change_the_learner():
    learner = learner_of((5, 6, 4, 3))
    x, _ = batch()
    before = copy.deepcopy(learner.state_dict())
    hidden = learner.features(x)
    assert [layer.shape[1] for layer in hidden] == [6, 4]
    assert all((layer >= 0).all() for layer in hidden)
    assert torch.equal(learner.layers[-1](hidden[-1]), learner.predict(x))
    for name, value in learner.state_dict()["layers"].items():
        assert torch.equal(value, before["layers"][name])
    assert learner_of((5, 3)).features(x) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_restored_learner_continues_identically(optimizer):
    one, two = learner_of(optimizer=optimizer, momentum=0.5), learner_of(optimizer=optimizer, momentum=0.5, seed=8)
    one.train_batch(*batch(seed=1))
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, two):
        learner.train_batch(*batch(seed=2))
    for mine, its in zip(parameters_of(one), parameters_of(two), strict=True):
        assert torch.equal(mine[0], its[0])


def test_backprop_is_a_learner_without_optional_methods():
    learner = learner_of()
    assert isinstance(learner, Learner)
    assert not isinstance(learner, EpochLearner)
    assert not isinstance(learner, ScheduledLearner)
