"""LocalPlasticity on any module: the layers of plastic_eglp are its reference, and formulas in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import losses_of
from plastic_eglp import (
    EGLPLearner,
    EGLPNetwork,
    FixedRateController,
    LocalPlasticity,
    ThresholdController,
    rule,
)
from plastic_eglp.events import Controller
from plastic_eglp.layers import LOCAL_RULES

CLASSES = 3
LR = 0.02


class Scripted(Controller):
    """Returns given strengths, one number for each batch or one for each sample; records its signals."""

    def __init__(self, *script, budget=None):
        super().__init__(budget)
        self.script = [torch.as_tensor(entry, dtype=torch.float64) for entry in script]
        self.per_stimulus = self.script[0].ndim == 1
        self.signals = []

    def gate(self, signals):
        self.signals.append(signals)
        return self.script[len(self.signals) - 1].clone()

    def _strength(self, loss):
        self.signals.append(loss)
        return float(self.script[len(self.signals) - 1])


class Triangle(nn.Module):
    def forward(self, z):
        return rule.triangle(z)


ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity, "triangle": Triangle}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n, seed=0):
    return torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(seed))


def as_module(network):
    """The weights of an EGLPNetwork in ordinary layers."""
    parts = [nn.Unflatten(1, network.image_shape)] if network.model == "cnn" else []
    for number, layer in enumerate(network.layers()):
        out, into, *kernel = layer.weight.shape
        bias = layer.bias is not None
        if kernel:
            plain = nn.Conv2d(into, out, kernel[0], padding=layer.padding, bias=bias)
        else:
            plain = nn.Linear(into, out, bias=bias)
        parts += [plain, ACTIVATIONS[layer.activation]()]
        if kernel:
            parts += [nn.MaxPool2d(2), copy.deepcopy(network.norms[number])]
        plain.load_state_dict(layer.state_dict(), strict=False)
    readout = nn.Linear(network.readout.in_features, network.readout.out_features)
    readout.load_state_dict(network.readout.state_dict())
    return nn.Sequential(*parts, nn.Flatten(), readout).double()


def twins(model="mlp", hidden=(6, 5), local_rule="oja", activation="tanh", **options):
    """An EGLPNetwork, and the same weights in ordinary layers."""
    network = EGLPNetwork(
        (1, 4, 4),
        hidden,
        CLASSES,
        model=model,
        lr=LR,
        local_rule=local_rule,
        activation=activation,
        generator=torch.Generator().manual_seed(1),
        **options,
    ).double()
    return network, as_module(network)


def layers_of_weights(module):
    return [layer for layer in module if hasattr(layer, "weight") and layer.weight is not None]


def assert_same_weights(network, module, tolerance=1e-12):
    pairs = zip([*network.layers(), network.readout], layers_of_weights(module), strict=True)
    for reference, layer in pairs:
        torch.testing.assert_close(layer.weight, reference.weight, rtol=tolerance, atol=tolerance)
        if reference.bias is not None:
            torch.testing.assert_close(layer.bias, reference.bias, rtol=tolerance, atol=tolerance)


def hidden_parameters(module):
    return [parameter for layer in layers_of_weights(module)[:-1] for parameter in layer.parameters()]


def optimizer_of(module, readout_lr):
    """SGD on the hidden layers with the layers' own rate, and on the readout."""
    readout = layers_of_weights(module)[-1]
    groups = [
        {"params": hidden_parameters(module), "lr": LR},
        {"params": list(readout.parameters()), "lr": readout_lr},
    ]
    return torch.optim.SGD(groups)


def step(credit, optimizer, x, y):
    optimizer.zero_grad()
    losses = credit.backward(x, losses_of(y))
    optimizer.step()
    return losses


def copy_feedback(credit, network):
    """Give the feedback weights of a network to a rule that has drawn its own."""
    state = credit.state_dict()
    for number, name in enumerate(state["feedback"]):
        state["feedback"][name] = network.get_buffer(f"feedback_{number}")
    credit.load_state_dict(state)


# ------------------------------------------------------------------------------- the layers of plastic_eglp


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("local_rule", LOCAL_RULES)
@pytest.mark.parametrize("each", [False, True], ids=["batch", "stimuli"])
def test_steps_of_sgd_are_steps_of_the_layers(model, local_rule, each):
    """Four batches with events of different strength, one of them without: all weights, for every local rule."""
    activation = "triangle" if model == "cnn" else "tanh"
    network, module = twins(model, local_rule=local_rule, activation=activation)
    strengths = [
        torch.tensor([0.0, 2.0, 0.5, 0.0, 1.0, 1.5], dtype=torch.float64) * factor if each else factor
        for factor in (1.0, 0.0, 0.7, 2.5)
    ]
    credit = LocalPlasticity(module, local_rule, events=Scripted(*strengths))
    optimizer = optimizer_of(module, 0.3)
    network.train()
    for number, strength in enumerate(strengths):
        x, y = draw(6, 16, seed=number), labels(6, seed=number)
        with torch.no_grad():
            logits = network(x)
            error = torch.softmax(logits, 1) - functional.one_hot(y, CLASSES)
            h = network.last_hidden
            network.local_update(error, strength, feedback="none")
            network.readout.weight -= 0.3 * error.T @ h / 6
            network.readout.bias -= 0.3 * error.mean(0)
        losses = step(credit, optimizer, x, y)
        torch.testing.assert_close(losses, functional.cross_entropy(logits, y, reduction="none"))
        assert_same_weights(network, module)
    thresholds = credit.state_dict()["thresholds"]
    if local_rule == "bcm":
        for layer, theta in zip(network.layers(), thresholds.values(), strict=True):
            torch.testing.assert_close(theta, layer.theta, rtol=1e-12, atol=1e-12)
    else:
        assert thresholds == {}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("each", [False, True], ids=["batch", "stimuli"])
def test_direct_feedback_is_that_of_the_layers(model, activation, each):
    network, module = twins(model, activation=activation)
    strength = torch.linspace(0, 2, 6, dtype=torch.float64) if each else 0.6
    script = [torch.zeros(6) if each else 0.0, strength, strength, strength]
    credit = LocalPlasticity(module, "softhebb", events=Scripted(*script), feedback="direct")
    optimizer = optimizer_of(module, 0.3)
    for number, event in enumerate(script):
        x, y = draw(6, 16, seed=number), labels(6, seed=number)
        with torch.no_grad():
            logits = network(x)
            error = torch.softmax(logits, 1) - functional.one_hot(y, CLASSES)
            h = network.last_hidden
            network.local_update(error, event, feedback="direct")
            network.readout.weight -= 0.3 * error.T @ h / 6
            network.readout.bias -= 0.3 * error.mean(0)
        step(credit, optimizer, x, y)
        assert_same_weights(network, module)
        copy_feedback(credit, network)


@pytest.mark.parametrize("signal", ["loss", "error", "margin", "novelty"])
@pytest.mark.parametrize("controller", ["threshold", "fixed"])
def test_it_is_the_learner_of_plastic_eglp(signal, controller):
    """The same controllers, signals and counts as EGLPLearner, with Adam on the readout."""

    def events():
        if controller == "fixed":
            return FixedRateController(0.4, generator=torch.Generator().manual_seed(7))
        return ThresholdController(rate=0.3, warmup=2, window=8, strength="surprise", budget=9)

    network, module = twins(local_rule="oja")
    learner = EGLPLearner(
        network, events(), batch_size=6, feedback="none", signal=signal, readout_lr=0.01, anneal=False
    )
    credit = LocalPlasticity(module, "oja", events=events(), signal=signal)
    hidden = torch.optim.SGD(hidden_parameters(module), LR)
    readout = torch.optim.Adam(layers_of_weights(module)[-1].parameters(), 0.01)
    for number in range(30):
        x, y = draw(6, 16, seed=number), labels(6, seed=number)
        expected = learner.train_batch(x, y)
        hidden.zero_grad()
        readout.zero_grad()
        losses = credit.backward(x, losses_of(y))
        hidden.step()
        readout.step()
        torch.testing.assert_close(losses.mean(), expected, rtol=1e-9, atol=1e-9)
    assert_same_weights(network, module, tolerance=1e-9)
    assert credit.had_event == learner.had_event
    assert 0 < sum(credit.had_event) < 30
    for count in ("events", "event_stimuli", "synaptic_updates"):
        assert getattr(credit, count) == getattr(learner, count), count
    assert credit.controller.used == learner.controller.used


@pytest.mark.parametrize("signal", ["loss", "error", "margin", "novelty"])
def test_a_controller_that_selects_stimuli_receives_the_signal_of_each(signal):
    network, module = twins()
    learner = EGLPLearner(network, Scripted([0.0] * 6), batch_size=6, signal=signal)
    credit = LocalPlasticity(module, "oja", events=Scripted([0.0] * 6), signal=signal)
    x, y = draw(6, 16), labels(6)
    learner.train_batch(x, y)
    credit.backward(x, losses_of(y))
    torch.testing.assert_close(credit.controller.signals[0], learner.controller.signals[0], rtol=1e-12, atol=1e-12)
    assert len(credit.controller.signals[0]) == 6
