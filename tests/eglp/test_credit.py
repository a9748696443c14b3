"""LocalPlasticity on any module: the layers of plastic_eglp are its reference, and formulas in float64."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import EVERY, NETWORKS, gradient_of, losses_of
from plastic_cli import UserError
from plastic_cli.credit.gradient import Gradient
from plastic_eglp import (
    AlwaysOnController,
    EGLPLearner,
    EGLPNetwork,
    FixedRateController,
    LocalPlasticity,
    NeverController,
    ThresholdController,
    rule,
)
from plastic_eglp.events import Controller
from plastic_eglp.layers import LOCAL_RULES
from plastic_eglp.samples import assignments

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


# ------------------------------------------------------------------------------------------- any other layer


def changes(model, x, y, local_rule="oja", **options):
    """Minus `.grad` of each parameter after one event: the changes for learning rate 1."""
    model.zero_grad()
    credit = LocalPlasticity(model, local_rule, **{"events": AlwaysOnController(), **options})
    credit.backward(x, losses_of(y))
    return {name: None if p.grad is None else -p.grad for name, p in model.named_parameters()}


def oja_by_loops(stimuli, W, activation=math.tanh):
    """Mean of y x^T - y^2 W over stimuli (n, inputs), with y = f(W x), one synapse at a time."""
    change = [[0.0] * len(W[0]) for _ in W]
    for x in stimuli:
        for k, row in enumerate(W):
            y = activation(sum(w * v for w, v in zip(row, x, strict=True)))
            for i, w in enumerate(row):
                change[k][i] += y * (x[i] - y * w) / len(stimuli)
    return torch.tensor(change, dtype=torch.float64)


def test_each_position_of_a_strided_convolution_in_time_is_a_stimulus():
    layer = nn.Conv1d(2, 3, 2, stride=2, dilation=2, padding=1, bias=False).double()
    model = nn.Sequential(layer, nn.BatchNorm1d(3).double().eval(), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3).double())
    x, y = draw(4, 2, 8), labels(4)
    padded = functional.pad(x, (1, 1)).tolist()
    stimuli = [
        [padded[s][c][2 * at + 2 * tap] for c in range(2) for tap in range(2)] for s in range(4) for at in range(4)
    ]
    # The activity passes through normalization: with these running statistics it only divides by a constant.
    scale = 1 / math.sqrt(1 + model[1].eps)
    expected = oja_by_loops(stimuli, layer.weight.flatten(1).tolist(), lambda z: math.tanh(scale * z))
    torch.testing.assert_close(changes(model, x, y)["0.weight"].flatten(1), expected, rtol=1e-10, atol=1e-12)


def test_a_position_of_a_transposed_convolution_receives_all_inputs_that_reach_it():
    layer = nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2, bias=False).double()
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(30, 3).double())
    x, y = draw(2, 4, 3), labels(2)
    W = layer.weight.detach()
    units = []
    for unit in range(6):
        group, own = divmod(unit, 3)
        stimuli = []
        for s in range(2):
            for at in range(5):
                # Input position p and tap t reach output position 2 p + t - 1.
                reached = [[0.0] * 3 for _ in range(2)]
                for c in range(2):
                    for p in range(3):
                        for tap in range(3):
                            if 2 * p + tap - 1 == at:
                                reached[c][tap] = float(x[s, 2 * group + c, p])
                stimuli.append(reached[0] + reached[1])
        units.append(oja_by_loops(stimuli, [W[2 * group : 2 * group + 2, own].flatten().tolist()])[0])
    found = changes(model, x, y)["0.weight"]
    for unit, expected in enumerate(units):
        group, own = divmod(unit, 3)
        torch.testing.assert_close(found[2 * group : 2 * group + 2, own].flatten(), expected, rtol=1e-10, atol=1e-12)


def test_every_use_of_a_shared_weight_has_its_stimuli_in_the_mean():
    model, x, y = EVERY["shared"].draw()
    W, b = model.inside.weight.detach(), model.inside.bias.detach()
    first = torch.tanh(x @ W.T + b)
    second = torch.tanh(first @ W.T + b)
    post, pre = torch.cat([first, second]), torch.cat([x, first])
    expected = (post.T @ pre - post.square().sum(0)[:, None] * W) / len(pre)
    torch.testing.assert_close(changes(model, x, y)["inside.weight"], expected, rtol=1e-12, atol=1e-14)


class InTwoCalls(nn.Module):
    """Gives a layer its batch in two parts."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return torch.cat([self.layer(x[:2]), self.layer(x[2:])])


@pytest.mark.parametrize("local_rule", LOCAL_RULES)
def test_the_change_does_not_depend_on_how_stimuli_are_divided_into_calls(local_rule):
    layer, readout, x, y = nn.Linear(4, 3).double(), nn.Linear(3, 3).double(), draw(6, 4), labels(6)
    at_once = changes(nn.Sequential(layer, readout), x, y, local_rule)
    divided = changes(nn.Sequential(InTwoCalls(layer), readout), x, y, local_rule)
    torch.testing.assert_close(divided["0.layer.weight"], at_once["0.weight"], rtol=1e-12, atol=1e-14)


def test_an_embedding_learns_as_the_linear_map_of_its_entries():
    embedding, hidden = nn.Embedding(5, 3), nn.Linear(5, 3, bias=False)
    hidden.weight.data = embedding.weight.detach().T.clone()
    readout, tokens, y = nn.Linear(3, 3), torch.tensor([0, 3, 3, 1]), labels(4)
    one_hot = functional.one_hot(tokens, 5).double()
    for local_rule in LOCAL_RULES:
        of_embedding = changes(nn.Sequential(embedding, readout).double(), tokens, y, local_rule)["0.weight"]
        of_linear = changes(nn.Sequential(hidden, readout).double(), one_hot, y, local_rule)["0.weight"]
        torch.testing.assert_close(of_embedding, of_linear.T, rtol=1e-12, atol=1e-14)


def test_the_parts_of_attention_learn_on_their_own_inputs():
    """Queries, keys and values are three maps in one parameter, with two different inputs."""

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.fc(self.attention(x[:, :2], x[:, 2:], x[:, 2:])[0].mean(1))

    model, x, y = Cross().double(), draw(5, 5, 4), labels(5)
    found = changes(model, x, y)["attention.in_proj_weight"]
    for number, part in enumerate((x[:, :2], x[:, 2:], x[:, 2:])):
        W = model.attention.in_proj_weight.detach()[4 * number : 4 * number + 4]
        inputs = part.reshape(-1, 4)
        z = inputs @ W.T
        expected = (z.T @ inputs - z.square().sum(0)[:, None] * W) / len(inputs)
        torch.testing.assert_close(found[4 * number : 4 * number + 4], expected, rtol=1e-11, atol=1e-13)


def test_a_gated_recurrent_unit_has_the_activity_of_its_gates():
    model, x, y = EVERY["gru"].draw()
    rnn = model.rnn
    W, U = rnn.weight_ih_l0.detach(), rnn.weight_hh_l0.detach()
    h, posts, steps, states = x.new_zeros(4, 6), [], [], []
    for t in range(x.shape[1]):
        of_input, of_state = (x[:, t] @ W.T + rnn.bias_ih_l0).detach(), (h @ U.T + rnn.bias_hh_l0).detach()
        gates = torch.sigmoid((of_input + of_state)[:, :12])
        candidate = torch.tanh(of_input[:, 12:] + gates[:, :6] * of_state[:, 12:])
        posts.append(torch.cat([gates, candidate], 1))
        steps.append(x[:, t])
        states.append((torch.cat([gates, of_state[:, 12:]], 1), h))
        h = (1 - gates[:, 6:]) * candidate + gates[:, 6:] * h
    found = changes(model, x, y)
    for name, weight, post, pre in (
        ("rnn.weight_ih_l0", W, torch.cat(posts), torch.cat(steps)),
        ("rnn.weight_hh_l0", U, torch.cat([post for post, _ in states]), torch.cat([state for _, state in states])),
    ):
        expected = (post.T @ pre - post.square().sum(0)[:, None] * weight) / len(pre)
        torch.testing.assert_close(found[name], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_readout_has_the_exact_gradient_and_a_name_changes_nothing(network):
    model, x, y = EVERY[network].draw()
    exact = gradient_of(model, x, y)
    first = changes(copy.deepcopy(model), x, y, "softhebb")
    name = [key for key in exact if key.endswith("weight")][-1].removesuffix(".weight")
    named = changes(model, x, y, "softhebb", readout=name)
    for key in (f"{name}.weight", f"{name}.bias"):
        torch.testing.assert_close(-first[key], exact[key], rtol=1e-10, atol=1e-14)
    assert first.keys() == named.keys()
    for key, change in first.items():
        assert (change is None) == (named[key] is None), key
        if change is not None:
            assert torch.isfinite(change).all(), key
            torch.testing.assert_close(named[key], change, rtol=1e-12, atol=1e-14)
    of_products = {key for key, value in exact.items() if value.ndim > 1 and key != "position"}
    assert {key for key, value in first.items() if value is not None} == of_products | {f"{name}.bias"}


# ------------------------------------------------------------------------------------------- no error goes down


def test_without_feedback_hidden_layers_do_not_depend_on_labels():
    model, x, _ = EVERY["lenet"].draw()
    first, second = (changes(model, x, torch.full((4,), label)) for label in (0, 1))
    for name, change in first.items():
        if name.startswith("9."):
            assert not torch.equal(change, second[name])
        elif change is not None:
            assert torch.equal(change, second[name])


class Tied(nn.Module):
    """A readout that shares its weights with the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.inside = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.inside(self.embedding(tokens))))


@pytest.mark.parametrize("readout", [None, "head"])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_readout_that_shares_its_weights_learns_by_its_own_gradient_only(readout, calls):
    torch.manual_seed(0)
    model = Tied().double()
    tokens, y = torch.tensor([0, 5, 2, 2]), torch.tensor([1, 6, 0, 3])
    credit = LocalPlasticity(model, "oja", readout=readout, events=NeverController())
    for _ in range(calls):
        model.zero_grad()
        credit.backward(tokens, losses_of(y))
    h = torch.tanh(model.inside(model.embedding(tokens))).detach()
    weight = model.head.weight.detach().requires_grad_()
    (expected,) = torch.autograd.grad(functional.cross_entropy(h @ weight.T, y), weight)
    torch.testing.assert_close(model.head.weight.grad, expected, rtol=1e-12, atol=1e-14)
    assert model.inside.weight.grad is None


# ------------------------------------------------------------------------------------------- events


def optimizers(model):
    return {
        "sgd": lambda: torch.optim.SGD(model.parameters(), 0.1),
        "momentum": lambda: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
        "adam": lambda: torch.optim.AdamW(model.parameters(), 0.01),
    }


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("feedback", ["none", "direct"])
def test_without_an_event_hidden_layers_stay_and_the_readout_learns(name, feedback):
    """The control, from the first batch, and after an event that gave the optimizer its moments."""
    model, x, y = EVERY["lenet"].draw()
    credit = LocalPlasticity(model, "oja", events=Scripted(0.0, 1.0, 0.0, 0.0), feedback=feedback)
    optimizer = optimizers(model)[name]()
    for happens in (False, True, False, False):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        step(credit, optimizer, x, y)
        moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        hidden = {key for key in moved if not key.startswith("9.")}
        assert {"9.weight", "9.bias"} <= moved
        assert bool(hidden) is happens
        if happens and feedback == "none":
            assert hidden == {"0.weight", "3.weight", "7.weight"}
    assert credit.had_event == [False, True, False, False]
    assert (credit.events, credit.event_stimuli) == (1, 4)


def test_a_change_is_added_to_what_grad_holds():
    model, x, y = EVERY["mlp"].draw()
    once = changes(model, x, y)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    LocalPlasticity(model, "oja", events=Scripted(0.0)).backward(x, losses_of(y))
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    LocalPlasticity(model, "oja", events=Scripted(2.0)).backward(x, losses_of(y))
    torch.testing.assert_close(model[0].weight.grad, 1 - 2 * once["0.weight"])
    assert torch.equal(model[0].bias.grad, torch.ones_like(model[0].bias))


def test_a_budget_is_used_by_single_stimuli_in_their_order():
    model, x, y = EVERY["mlp"].draw()
    strengths = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    credit = LocalPlasticity(model, "hebb", events=Scripted(strengths, strengths, strengths, budget=1.25))
    found = []
    for _ in range(3):
        model.zero_grad()
        credit.backward(x, losses_of(y))
        found.append(model[0].weight.grad)
    # Three stimuli, then the two that are left of five, then none.
    for gradient, allowed in zip(found[:2], (strengths, torch.tensor([0.0, 1.0, 2.0, 0.0]).double()), strict=True):
        h = torch.tanh(model[0](x)).detach()
        torch.testing.assert_close(-gradient, (h * allowed[:, None]).T @ x / 4)
    assert found[2] is None
    assert credit.had_event == [True, True, False]
    assert (credit.events, credit.event_stimuli, credit.controller.used) == (2, 5, 1.25)


# ------------------------------------------------------------------------------------------- samples and stimuli


class OverTime(nn.Module):
    """A map of each time step, with time before samples, folded into rows, or after samples."""

    def __init__(self, order):
        super().__init__()
        self.order, self.inside, self.fc = order, nn.Linear(3, 4), nn.Linear(4, CLASSES)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        samples, times, _ = x.shape
        if self.order == "samples first":
            h = self.inside(x)
        elif self.order == "time first":
            h = self.inside(x.transpose(0, 1)).transpose(0, 1)
        elif self.order == "samples folded":
            h = self.inside(x.flatten(0, 1)).unflatten(0, (samples, times))
        else:
            h = self.inside(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (times, samples)).transpose(0, 1)
        return self.fc(self.drop(self.norm(h.mean(1))))


@pytest.mark.parametrize("order", ["samples first", "time first", "samples folded", "time folded"])
@pytest.mark.parametrize("times", [4, 5, 8])
def test_events_of_samples_reach_their_own_time_steps(order, times):
    """Also where there are as many time steps as samples: then a second pass finds out, and leaves no trace."""
    torch.manual_seed(0)
    model, x, y = OverTime(order).double(), draw(4, times, 3), labels(4)
    strengths = torch.tensor([0.0, 3.0, 1.0, 0.5], dtype=torch.float64)
    twin = copy.deepcopy(model)
    state = torch.get_rng_state()
    found = changes(model, x, y, "hebb", events=Scripted(strengths))["inside.weight"]
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    twin(x)
    assert torch.equal(after, torch.get_rng_state())
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))
    z = model.inside(x).detach()
    expected = torch.einsum("s,sto,sti->oi", strengths, z, x) / (4 * times)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_possible_assignments_of_stimuli_to_samples():
    assert [a.tolist() for a in assignments((2, 3), 2)] == [[0, 0, 0, 1, 1, 1]]
    assert [a.tolist() for a in assignments((3, 2), 2)] == [[0, 1, 0, 1, 0, 1]]
    assert [a.tolist() for a in assignments((4,), 2)] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert [a.tolist() for a in assignments((2, 2), 2)] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert [a.tolist() for a in assignments((3,), 1)] == [[0, 0, 0]]
    assert assignments((3, 5), 2) == []


def test_stimuli_that_belong_to_no_sample_are_refused():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.fc = nn.Linear(3, 4), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.fc(x[:, :4] * 0 + self.inside(x[:3, :3]).mean(0))

    model, x, y = Pooled().double(), draw(4, 4), labels(4)
    changes(model, x, y)
    with pytest.raises(UserError, match=r"'inside.weight' has responses of shape.*for 4 samples.*modules="):
        changes(model, x, y, events=Scripted([1.0, 0.0, 1.0, 1.0]))


# ------------------------------------------------------------------------------------------- any loss


@pytest.mark.parametrize("each", [False, True], ids=["batch", "samples"])
def test_direct_feedback_follows_the_gradient_of_any_loss_with_respect_to_the_output(each):
    model, x, _ = EVERY["mlp"].draw()
    target = draw(4, 5, seed=4)
    strengths = torch.linspace(0, 2, 4, dtype=torch.float64) if each else torch.tensor(0.5, dtype=torch.float64)
    credit = LocalPlasticity(model, events=Scripted(strengths), feedback="direct")
    credit.backward(x, lambda output: (output - target).square().sum(1))
    h1 = torch.tanh(model[0](x)).detach()
    z2 = model[2](h1).detach()
    error = 2 * (model[4](torch.relu(z2)).detach() - target)
    first, second = credit.state_dict()["feedback"].values()
    for layer, B, pre, slope in ((model[0], first, x, 1 - h1**2), (model[2], second, h1, (z2 > 0).double())):
        post = strengths.expand(4)[:, None] * (-error @ B.double().T) * slope
        torch.testing.assert_close(layer.weight.grad, -post.T @ pre / 4, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(layer.bias.grad, -post.mean(0), rtol=1e-11, atol=1e-13)


def test_labels_are_read_from_the_gradient_of_a_cross_entropy_also_if_it_is_zero():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, CLASSES)).float()
    nn.init.zeros_(model[1].weight)
    for bias, label, expected in (([0.0, 500.0, 0.0], 1, -500.0), ([0.0, 500.0, 0.0], 2, 500.0)):
        model[1].bias.data = torch.tensor(bias)
        events = Scripted(0.0)
        credit = LocalPlasticity(model, events=events, signal="margin")
        credit.backward(torch.ones(1, 2), losses_of(torch.tensor([label])))
        assert float(events.signals[0]) == expected


# ------------------------------------------------------------------------------------------- which parameters


def test_modules_learn_locally_and_the_rest_by_the_gradient_in_one_pass():
    model, x, y = EVERY["normalized"].draw()
    twin = copy.deepcopy(model)
    exact = gradient_of(model, x, y)
    local = changes(copy.deepcopy(model), x, y)
    found = changes(model, x, y, modules="0", rest="gradient")
    for name, gradient in exact.items():
        expected = -local[name] if name == "0.weight" else gradient
        torch.testing.assert_close(-found[name], expected, rtol=1e-9, atol=1e-13)
    # One pass: running statistics are updated once.
    twin(x)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


def test_parameters_without_a_local_rule_are_left_to_the_rest():
    model, x, y = EVERY["normalized"].draw()
    exact = gradient_of(model, x, y)
    alone = changes(copy.deepcopy(model), x, y)
    learning = {"0.weight", "3.weight", "8.weight", "8.bias"}
    assert {name for name, change in alone.items() if change is not None} == learning
    found = changes(model, x, y, rest="gradient")
    for name, gradient in exact.items():
        expected = alone[name] if name in learning else -gradient
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-13)


def test_another_credit_rule_teaches_the_rest():
    model, x, y = EVERY["mlp"].draw()
    exact = gradient_of(model, x, y)
    found = changes(model, x, y, modules="0", rest=Gradient(model, ["2", "4"]))
    assert found["0.weight"] is not None
    assert found["0.bias"] is None
    for name in ("2.weight", "2.bias", "4.weight", "4.bias"):
        torch.testing.assert_close(-found[name], exact[name])
    with pytest.raises(UserError, match=r"both rules teach '2.weight'"):
        LocalPlasticity(model, "oja", rest=Gradient(model, "2"))


def test_another_rule_sees_the_same_pass():
    """Dropout masks are the same, and running statistics change once."""

    class Recorded(Gradient):
        def backward(self, inputs, loss):
            return losses.setdefault("rest", super().backward(inputs, loss))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES)).double()
    losses = {}
    credit = LocalPlasticity(model, "oja", modules=["0", "3"], rest=Recorded(model, "1"))
    own = credit.backward(draw(6, 4), losses_of(labels(6)))
    assert torch.equal(own, losses["rest"])
    assert int(model[1].num_batches_tracked) == 1


class LowRank(nn.Module):
    """Weights that are a matrix plus a product of two small ones."""

    def __init__(self):
        super().__init__()
        self.W, self.A, self.B = (nn.Parameter(draw(*shape)) for shape in ((4, 4), (4, 2), (2, 4)))

    def forward(self, x):
        return functional.linear(x, self.W + self.A @ self.B)


def test_a_product_of_parameters_is_no_layer():
    model, x, y = nn.Sequential(LowRank(), nn.Tanh(), nn.Linear(4, CLASSES).double()), draw(6, 4), labels(6)
    exact = gradient_of(model, x, y)
    for _ in range(2):
        found = changes(model, x, y)
        assert [name for name, change in found.items() if change is not None] == ["2.weight", "2.bias"]
    found = changes(model, x, y, rest="gradient")
    for name in "WAB":
        torch.testing.assert_close(-found[f"0.{name}"], exact[f"0.{name}"])


@pytest.mark.parametrize("feedback", ["none", "direct"])
def test_a_layer_that_is_frozen_later_does_not_learn_until_it_is_free(feedback):
    model, x, y = EVERY["mlp"].draw()
    credit = LocalPlasticity(model, "oja", events=AlwaysOnController(), feedback=feedback)
    credit.backward(x, losses_of(y))
    for layer, free in ((model[0], False), (model[4], False), (model[0], True), (model[4], True)):
        layer.requires_grad_(free)
        model.zero_grad()
        credit.backward(x, losses_of(y))
        learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert learned == set(credit.parameters)
        assert bool({"0.weight", "0.bias"} & learned) is model[0].weight.requires_grad
        assert ({"4.weight", "4.bias"} <= learned) is model[4].weight.requires_grad
        assert "2.weight" in learned


def test_parameters_are_those_that_learn():
    for network in ("transformer", "encoder-layer", "normalized"):
        for feedback in ("none", "direct"):
            model, x, y = EVERY[network].draw()
            credit = LocalPlasticity(model, "oja", events=AlwaysOnController(), feedback=feedback)
            hidden = set(credit.parameters)
            credit.backward(x, losses_of(y))
            learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
            assert set(credit.parameters) == learned
            assert hidden <= learned
            assert learned - hidden <= {"fc.bias", "8.bias"}


def test_a_readout_of_several_layers_learns_inside_and_passes_no_error_on():
    model, x, y = EVERY["lenet"].draw()
    named = nn.Sequential(model[:7], model[7:]).double()
    exact = gradient_of(named, x, y)
    credit = LocalPlasticity(named, readout="1", events=NeverController())
    credit.backward(x, losses_of(y))
    for name, parameter in named.named_parameters():
        if name.startswith("1."):
            torch.testing.assert_close(parameter.grad, exact[name])
        else:
            assert parameter.grad is None


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("options", [{"local_rule": "bcm", "signal": "novelty"}, {"feedback": "direct"}], ids=str)
@pytest.mark.parametrize("each", [False, True], ids=["batch", "samples"])
def test_a_resumed_rule_continues_bit_for_bit(options, each):
    def rule_of(model):
        events = ThresholdController(rate=0.5, warmup=2, window=12, per_stimulus=each, budget=6)
        return LocalPlasticity(model, events=events, generator=torch.Generator().manual_seed(3), **options)

    def train(credit, model, optimizer, first, last):
        for number in range(first, last):
            x = draw(4, 6, seed=number)
            step(credit, optimizer, x, labels(4, seed=number))
        return {name: value.clone() for name, value in model.state_dict().items()}

    model = EVERY["mlp"].draw()[0]
    other = copy.deepcopy(model)
    credit = rule_of(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    halfway = train(credit, model, optimizer, 0, 8)
    stored = io.BytesIO()
    torch.save(credit.state_dict(), stored)
    expected = train(credit, model, optimizer, 8, 16)
    other.load_state_dict(halfway)
    resumed = rule_of(other)
    stored.seek(0)
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    assert set(resumed.parameters) == set(credit.parameters) > {"4.bias"}
    found = train(resumed, other, torch.optim.SGD(other.parameters(), 0.01), 8, 16)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert resumed.had_event == credit.had_event
    assert 2 < sum(credit.had_event) < 16
    for count in ("events", "event_stimuli", "synaptic_updates"):
        assert getattr(resumed, count) == getattr(credit, count)


# ------------------------------------------------------------------------------------------- number types, errors


def test_learning_in_bfloat16_follows_learning_in_float32():
    model, x, y = EVERY["lenet"].draw(dtype=torch.float32)
    exact = changes(model, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        rough = changes(model, x, y)
    for name, change in exact.items():
        if change is not None:
            assert rough[name].dtype == torch.float32
            assert float((rough[name] - change).norm() / change.norm()) < 0.05, name


def test_wrong_arguments_are_refused_in_one_line():
    model = EVERY["resnet18"].draw()[0]
    for options, message in (
        ({"local_rule": "ojas"}, "local_rule is 'ojas': it must be one of .*Did you mean 'oja'"),
        ({"feedback": "indirect"}, "feedback is 'indirect': it must be one of none, direct"),
        ({"signal": "los"}, "signal is 'los'.*Did you mean 'loss'"),
        ({"readout": "fcc"}, "readout: there is no module 'fcc' with parameters. Did you mean 'fc'"),
        ({"readout": "relu"}, "readout: there is no module 'relu' with parameters"),
        ({"modules": "layr1"}, "layr1.*Did you mean 'layer1'"),
        ({"inverse_temperature": 0.0}, "inverse_temperature is 0.0: it must be a finite number above 0"),
        ({"events": "always"}, "events is 'always': give a controller"),
        ({"rest": "grad"}, "rest is 'grad'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            LocalPlasticity(model, **options)
        assert "\n" not in str(caught.value)
    model.fc.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter of 'fc' requires a gradient"):
        LocalPlasticity(model, readout="fc")


class Pair(nn.Module):
    """Returns a tuple, and has a layer that is never used."""

    def __init__(self):
        super().__init__()
        self.inside, self.fc, self.unused = nn.Linear(3, 4), nn.Linear(4, CLASSES), nn.Linear(2, 2)

    def forward(self, x):
        h = self.inside(x)
        return self.fc(h), h


def test_what_cannot_be_taught_is_named_in_one_line():
    x, y = draw(4, 3), labels(4)
    model = Pair().double()

    def first(outputs):
        return losses_of(y)(outputs[0])

    LocalPlasticity(model, readout="fc", events=AlwaysOnController()).backward(x, first)
    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, CLASSES)).double()
    for credit, loss, message in (
        (LocalPlasticity(model, feedback="direct"), first, "feedback='direct'.*returns a tuple"),
        (LocalPlasticity(model, signal="error"), first, "signal='error'.*returns a tuple"),
        (LocalPlasticity(model, readout="unused"), first, "the losses do not depend on 'unused.weight'"),
        (LocalPlasticity(plain, modules="1"), losses_of(y), "modules='1': no linear map or convolution.*rest="),
        (LocalPlasticity(nn.LayerNorm(3).double()), losses_of(y), "calls no linear map or convolution"),
        (
            LocalPlasticity(plain, signal="margin"),
            lambda output: (output - 1).square().sum(1),
            "signal='margin' needs labels",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            credit.backward(x, loss)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("normalize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed_are_refused_in_hidden_layers_and_learn_in_the_readout(normalize):
    def model(number):
        layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()
        normalize(layers[number])
        return layers

    x, y = draw(4, 3), labels(4)
    for options in ({}, {"readout": "2"}, {"modules": ["0"]}):
        with pytest.raises(UserError, match="'0' computes its weights from other parameters"):
            LocalPlasticity(model(0), **options)
    with pytest.raises(UserError, match=r"'2' computes its weights.*name it as readout="):
        LocalPlasticity(model(2))
    LocalPlasticity(model(0), modules="2")
    named = model(2).eval()
    exact = gradient_of(named, x, y)
    found = changes(named, x, y, readout="2")
    assert found["0.weight"] is not None
    learned = [name for name in exact if name.startswith("2.")]
    assert len(learned) > 1
    for name in learned:
        torch.testing.assert_close(-found[name], exact[name])
