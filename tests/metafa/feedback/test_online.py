"""Learning one image at a time: the compiled path against the equations in float64, and the stream of measurements."""

from __future__ import annotations

import copy

import pytest
import torch

from plastic_cli.classifier.module import ModuleLearner
from plastic_metafa import rule
from plastic_metafa.adaptation import KERNEL_FEEDBACK, Plasticity, adapt_step
from plastic_metafa.credit import RandomFeedback
from plastic_metafa.feedback.network import SoftplusNetwork
from plastic_metafa.feedback.online import STRETCH, OnlineLearner
from plastic_metafa.feedback.stream import begins, stretches_of

SIZES = (7, 6, 5, 4)


def made(feedback, theta, rate=1.0, learner=OnlineLearner):
    generator = torch.Generator().manual_seed(3)
    network = SoftplusNetwork(SIZES, generator)
    credit = RandomFeedback(network, feedback, theta=theta, generator=generator)
    if learner is OnlineLearner:
        return OnlineLearner(network, credit, rate)
    return ModuleLearner(network, torch.optim.SGD(network.parameters(), lr=rate), credit=credit)


def feedback_of(learner):
    """B of each layer in the shape of its weights, or (classes, inputs) for direct feedback."""
    shapes = zip(learner.sizes[1:], learner.sizes, strict=False)
    if learner.kind == KERNEL_FEEDBACK["direct"]:
        shapes = ((SIZES[-1], inputs) for inputs in learner.sizes[:-1])
    parts, first = [], 0
    for out, into in shapes:
        parts.append(torch.from_numpy(learner.B[first : first + out * into].reshape(out, into)))
        first += out * into
    assert first == len(learner.B)
    return parts


@pytest.mark.parametrize("feedback", ["fixed", "direct", "sign", "symmetric"])
@pytest.mark.parametrize("theta", [{0: 0.05}, {0: 0.04, 2: -0.03, 9: 0.02}])
def test_the_compiled_path_learns_by_the_equations(feedback, theta):
    learner = made(feedback, theta, rate=0.5)
    B = feedback_of(learner)
    W = [layer.weight.detach().double() for layer in learner.network.layers]
    draw = torch.Generator().manual_seed(5)
    x, y = torch.rand(2 * STRETCH, SIZES[0], generator=draw), torch.randint(4, (2 * STRETCH,), generator=draw)
    order = torch.randperm(len(x), generator=draw)[: STRETCH + 20]
    seen = []
    learner.train_epoch(x, y, order, seen.append)
    assert seen == [STRETCH, STRETCH + 20]
    strengths = 0.5 * torch.tensor(list(theta.values()), dtype=torch.float64)
    plasticity = Plasticity(tuple(theta), feedback)
    for number in order.tolist():
        target = torch.nn.functional.one_hot(y[number], 4).double()
        W = adapt_step(W, [b.double() for b in B], x[number].double(), target, strengths, plasticity)
    for layer, expected in zip(learner.network.layers, W, strict=True):
        assert torch.allclose(layer.weight.double(), expected, atol=1e-4)
        assert not torch.allclose(layer.weight.double(), expected * 1.01, atol=1e-4)


@pytest.mark.parametrize("feedback", ["fixed", "direct", "sign", "symmetric"])
@pytest.mark.parametrize("theta", [{0: 0.05}, {0: 0.04, 2: -0.03, 9: 0.02}])
def test_the_compiled_path_and_any_module_learn_the_same(feedback, theta):
    compiled, module = made(feedback, theta, rate=0.5), made(feedback, theta, rate=0.5, learner=ModuleLearner)
    draw = torch.Generator().manual_seed(5)
    x, y = torch.rand(40, SIZES[0], generator=draw), torch.randint(4, (40,), generator=draw)
    before = compiled.network.layers[0].weight.clone()
    compiled.train_epoch(x, y, torch.arange(40), lambda _: None)
    for number in range(40):
        module.train_batch(x[number, None], y[number, None])
    for own, expected in zip(compiled.network.parameters(), module.network.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-5)
    assert (compiled.network.layers[0].weight - before).abs().max() > 1e-3


def test_the_network_gives_the_logits_and_the_activity_of_the_equations():
    network = SoftplusNetwork(SIZES, torch.Generator().manual_seed(0)).double()
    x = torch.rand(9, SIZES[0], dtype=torch.float64)
    W = [layer.weight for layer in network.layers]
    assert torch.allclose(network(x), rule.logits(W, x), atol=1e-12)
    for own, expected in zip(network.features(x), rule.forward(W, x)[1:-1], strict=True):
        assert torch.allclose(own, expected, atol=1e-12)


def test_a_restored_learner_goes_on_as_the_first_one():
    learner = made("fixed", {0: 0.05})
    draw = torch.Generator().manual_seed(1)
    x, y = torch.rand(60, SIZES[0], generator=draw), torch.randint(4, (60,), generator=draw)
    learner.train_epoch(x, y, torch.arange(30), lambda _: None)
    state = copy.deepcopy(learner.state_dict())
    learner.train_epoch(x, y, torch.arange(30, 60), lambda _: None)
    again = made("fixed", {0: 0.05})
    again.load_state_dict(state)
    again.train_epoch(x, y, torch.arange(30, 60), lambda _: None)
    assert torch.equal(again.predict(x), learner.predict(x))


def test_weights_that_diverge_are_an_error():
    learner = made("fixed", {0: 1e20})
    with pytest.raises(FloatingPointError, match="no longer finite"):
        learner.train_epoch(torch.rand(50, SIZES[0]), torch.randint(4, (50,)), torch.arange(50), lambda _: None)


@pytest.mark.parametrize(
    ("accuracies", "place"),
    [
        ([0.1, 0.1, 0.3, 0.3, 0.3], 2),
        ([0.1, 0.3, 0.3, 0.1, 0.3, 0.3, 0.3, 0.1], 4),
        ([0.1, 0.3, 0.3, 0.1, 0.3, 0.3], None),
        ([0.2, 0.2, 0.2], 0),
        ([0.199, 0.199, 0.199], None),
        ([0.9], None),
        ([], None),
    ],
)
def test_a_network_begins_to_learn_with_three_measurements_above_chance(accuracies, place):
    assert begins(accuracies, chance=0.1) == place


def test_stretches_cover_every_image_of_every_epoch_once():
    stretches = stretches_of(10, 2, 4)
    assert [(s.epoch, s.first, s.last) for s in stretches] == [
        (0, 0, 4),
        (0, 4, 8),
        (0, 8, 10),
        (1, 0, 4),
        (1, 4, 8),
        (1, 8, 10),
    ]
