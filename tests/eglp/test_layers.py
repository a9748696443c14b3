"""Local layers: the update they make of what they stored, what they store and when, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from plastic_eglp import EGLPNetwork, LocalConv2d, LocalLinear
from plastic_eglp.layers import ACTIVATIONS, BCM_RATE, LOCAL_RULES

LR = 0.02


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(local_rule="oja", activation="linear", *, bias=True, inputs=4, units=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = LocalLinear(
        inputs,
        units,
        LR,
        bias,
        local_rule=local_rule,
        activation=activation,
        inverse_temperature=1.3,
        generator=generator,
    ).double()
    # Long enough to have an effect, short enough for the softmax not to be one-hot.
    layer.weight.copy_(0.7 * draw(units, inputs, seed=seed + 50))
    return layer


def convolution(local_rule="oja", activation="linear", *, padding=0, bias=True, kernel=3, units=4, seed=0):
    layer = LocalConv2d(
        2,
        units,
        kernel,
        LR,
        bias,
        padding=padding,
        local_rule=local_rule,
        activation=activation,
        inverse_temperature=1.3,
    ).double()
    layer.weight.copy_(0.3 * draw(units, 2, kernel, kernel, seed=seed + 50))
    if layer.bias is not None:
        layer.bias.copy_(0.2 * draw(units, seed=seed + 51))
    return layer


def activated(activation, z):
    """One stimulus' y and f', from its units' z."""
    mean = sum(z) / len(z)
    y = {
        "linear": lambda v: v,
        "relu": lambda v: max(0.0, v),
        "leaky-relu": lambda v: v if v > 0 else 0.01 * v,
        "tanh": math.tanh,
        "triangle": lambda v: max(0.0, v - mean),
    }[activation]
    slope = {
        "linear": lambda v: 1.0,
        "relu": lambda v: float(v > 0),
        "leaky-relu": lambda v: 1.0 if v > 0 else 0.01,
        "tanh": lambda v: 1 - math.tanh(v) ** 2,
        "triangle": lambda v: float(v > mean),
    }[activation]
    return [y(v) for v in z], [slope(v) for v in z]


def loop_update(layer, X, events, modulation=None):
    """New weights (units, inputs), bias and theta, for stimuli X (n, inputs), one synapse at a time."""
    W = layer.weight.flatten(1).tolist()
    b = [0.0] * len(W) if layer.bias is None else layer.bias.tolist()
    theta, n = layer.theta.tolist(), len(X)
    new_W, new_b, new_theta = [list(row) for row in W], list(b), list(theta)
    for s, x in enumerate(X.tolist()):
        z = [sum(w * v for w, v in zip(row, x, strict=True)) + b[k] for k, row in enumerate(W)]
        y, slope = activated(layer.activation, z)
        exponentials = [math.exp(1.3 * v) for v in z]
        for k, row in enumerate(W):
            length = sum(w * w for w in row)
            rate, p, d = LR, y[k], 0.0
            if modulation is not None:
                p = modulation[s][k] * slope[k]
                new_b[k] += LR * events[s] * p / n
            elif layer.local_rule == "oja":
                d = y[k] ** 2
            elif layer.local_rule == "anti-oja":
                p, d = -y[k], -(y[k] ** 2) / length
            elif layer.local_rule == "bcm":
                p = y[k] * (y[k] - theta[k])
                new_theta[k] += BCM_RATE * (y[k] ** 2 - theta[k]) / n if events[s] > 0 else 0.0
            elif layer.local_rule == "softhebb":
                share = exponentials[k] / sum(exponentials)
                p = share if z[k] == max(z) else -share
                d = p * z[k]
            for i, w in enumerate(row):
                new_W[k][i] += rate * events[s] * (p * x[i] - d * w) / n
    if modulation is None and layer.local_rule == "softhebb":
        changes = [[new - old for new, old in zip(*rows, strict=True)] for rows in zip(new_W, W, strict=True)]
        largest = max(abs(change) for row in changes for change in row)
        for k, row in enumerate(W):
            rate = LR * math.sqrt(abs(math.sqrt(sum(w * w for w in row)) - 1)) * sum(events) / n
            new_W[k] = [w + rate * c / largest for w, c in zip(row, changes[k], strict=True)]
    return new_W, new_b, new_theta


def assert_updated(layer, expected):
    W, b, theta = expected
    torch.testing.assert_close(layer.weight.flatten(1), torch.tensor(W, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.theta, torch.tensor(theta, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias, torch.tensor(b, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def state(layer):
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def assert_same(layer, before):
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def event_of(kind, n):
    if kind == "number":
        return 0.6, [0.6] * n
    if kind == "scalar":
        return torch.tensor(2.5, dtype=torch.float64), [2.5] * n
    event = torch.linspace(0, 2, n, dtype=torch.float64)
    return event, event.tolist()


local_rules = pytest.mark.parametrize("local_rule", LOCAL_RULES)
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
KINDS = ["number", "scalar", "each"]
kinds = pytest.mark.parametrize("kind", KINDS)


# ------------------------------------------------------------------------------------------------ updates


@local_rules
@activations
def test_a_linear_layer_follows_its_rule(local_rule, activation):
    for kind in KINDS:
        layer, x = linear(local_rule, activation), draw(5, 4)
        event, events = event_of(kind, 5)
        expected = loop_update(layer, x, events)
        layer(x)
        layer.local_update(event)
        assert_updated(layer, expected)


@activations
@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_a_modulated_linear_layer(activation, kind, bias):
    layer, x, modulation = linear("oja", activation, bias=bias), draw(5, 4), draw(5, 3, seed=9)
    event, events = event_of(kind, 5)
    expected = loop_update(layer, x, events, modulation.tolist())
    layer(x)
    layer.local_update(event, modulation)
    assert_updated(layer, expected)


def patches(layer, x):
    """Each position of each image as a stimulus (images * positions, inputs)."""
    unfolded = functional.unfold(x, layer.weight.shape[-1], padding=layer.padding)
    return unfolded.transpose(1, 2).flatten(0, 1)


@local_rules
@pytest.mark.parametrize(("padding", "activation"), [(0, "linear"), (1, "triangle"), (2, "relu"), (1, "tanh")])
def test_a_convolution_follows_its_rule_at_every_position(local_rule, padding, activation):
    for kind in KINDS:
        layer, x = convolution(local_rule, activation, padding=padding), draw(3, 2, 4, 5)
        event, events = event_of(kind, 3)
        X = patches(layer, x)
        positions = len(X) // 3
        expected = loop_update(layer, X, [e for e in events for _ in range(positions)])
        assert layer(x).shape == (3, 4, 2 + 2 * padding, 3 + 2 * padding)
        layer.local_update(event)
        assert_updated(layer, expected)


@kinds
@pytest.mark.parametrize(("padding", "activation"), [(0, "linear"), (1, "triangle"), (2, "tanh")])
def test_a_modulated_convolution(kind, padding, activation):
    layer, x, modulation = convolution("oja", activation, padding=padding), draw(3, 2, 4, 5), draw(3, 4, seed=9)
    event, events = event_of(kind, 3)
    X = patches(layer, x)
    positions = len(X) // 3
    each = [row for row in modulation.tolist() for _ in range(positions)]
    expected = loop_update(layer, X, [e for e in events for _ in range(positions)], each)
    layer(x)
    layer.local_update(event, modulation)
    assert_updated(layer, expected)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_does_not_depend_on_the_memory_layout(images, layout):
    layer, x = convolution("softhebb", padding=1), draw(images, 2, 4, 5)
    expected = loop_update(layer, patches(layer, x), [1.0] * (20 * images))
    layer(x.contiguous(memory_format=layout))
    layer.local_update(1.0)
    assert_updated(layer, expected)


def test_a_convolution_that_covers_the_image_is_a_linear_layer():
    x = draw(5, 2, 3, 3)
    layer, flat = convolution("softhebb"), linear("softhebb", inputs=18, units=4)
    flat.weight.copy_(layer.weight.flatten(1))
    flat.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x).flatten(1), flat(x.flatten(1)))
    layer.local_update(0.5)
    flat.local_update(0.5)
    torch.testing.assert_close(layer.weight.flatten(1), flat.weight)


def test_the_published_equation():
    """dW = lr event (mean y x^T - mean(y^2) W), with names as in the published program."""
    layer, x = LocalLinear(6, 4), draw(8, 6).float()
    assert layer.lr == 0.01
    before, y = layer.weight.clone(), layer(x)
    layer.local_update(0.5)
    expected = 0.01 * 0.5 * ((y[:, :, None] * x[:, None, :]).mean(0) - y.square().mean(0)[:, None] * before)
    torch.testing.assert_close(layer.weight - before, expected, rtol=1e-4, atol=1e-7)


def published_softhebb_step(W, x, inverse_temperature, lr):
    """One update of the published program (demo.py), in NumPy: weights W (units, inputs), stimuli x (n, inputs).

    The layer divides the change by its largest entry; the optimizer multiplies by the scheduler's rate of each unit.
    """
    u = x @ W.T
    s = -np.exp(inverse_temperature * (u - u.max(1, keepdims=True)))
    s /= -s.sum(1, keepdims=True)
    winners = (np.arange(len(x)), u.argmax(1))
    s[winners] *= -1
    change = s.T @ x - (s * u).sum(0)[:, None] * W
    change /= np.abs(change).max()
    rates = lr * np.abs(np.linalg.norm(W, axis=1) - 1) ** 0.5
    return rates[:, None] * change


@pytest.mark.parametrize("make", [LocalLinear, LocalConv2d])
def test_softhebb_has_the_steps_of_the_published_program_which_decrease_as_norms_approach_one(make):
    generator = torch.Generator().manual_seed(0)
    options = {"local_rule": "softhebb", "inverse_temperature": 1.0, "generator": generator}
    layer = (
        LocalLinear(9, 4, 0.08, bias=False, **options)
        if make is LocalLinear
        else LocalConv2d(1, 4, 3, 0.08, bias=False, **options)
    ).double()
    largest = {}
    for update in range(1, 1001):
        x = torch.randn(50, *((9,) if make is LocalLinear else (1, 3, 3)), generator=generator, dtype=torch.float64)
        before = layer.weight.flatten(1).numpy().copy()
        layer(x)
        layer.local_update(1.0)
        step = layer.weight.flatten(1).numpy() - before
        # Each step is compared on its own: over a thousand of them rounding would be amplified.
        np.testing.assert_allclose(
            step, published_softhebb_step(before, x.flatten(1).numpy(), 1.0, 0.08), rtol=1e-7, atol=1e-9
        )
        largest[update] = np.abs(step).max()
    assert largest[1] == pytest.approx(0.43, abs=0.06)
    assert largest[100] < largest[1] / 5
    assert largest[1000] < largest[1] / 100
    torch.testing.assert_close(
        layer.weight.flatten(1).norm(dim=1), torch.ones(4, dtype=torch.float64), rtol=0.01, atol=0
    )


def test_converged_units_of_softhebb_do_not_change_while_others_learn():
    layer, x = linear("softhebb"), draw(20, 4)
    layer.weight[0] /= layer.weight[0].norm()
    layer.weight[1] *= 5 / layer.weight[1].norm()
    layer.weight[2] *= 2 / layer.weight[2].norm()
    before = layer.weight.clone()
    layer(x)
    layer.local_update(1.0)
    moved = (layer.weight - before).abs().amax(1)
    assert moved[0] < 1e-7
    # No unit moves further than its own rate, whatever the others do.
    assert 0 < moved[1] <= LR * 2 + 1e-12
    assert 0 < moved[2] <= LR + 1e-12
    assert moved.max() > LR / 2


def test_updates_use_the_latest_stored_activity_and_can_be_repeated():
    layer, x = linear("hebb"), draw(5, 4)
    layer(draw(7, 4, seed=3))
    layer(x)
    first = loop_update(layer, x, [1.0] * 5)[0]
    change = torch.tensor(first, dtype=torch.float64) - layer.weight
    layer.local_update(1.0)
    layer.local_update(1.0)
    torch.testing.assert_close(layer.weight, torch.tensor(first, dtype=torch.float64) + change)


# ------------------------------------------------------------------------------------------------ properties


@local_rules
@pytest.mark.parametrize("make", [linear, convolution])
@pytest.mark.parametrize("modulated", [False, True])
def test_without_an_event_nothing_changes(local_rule, make, modulated):
    layer = make(local_rule, "relu").float()
    x = draw(3, *((4,) if make is linear else (2, 5, 5))).float()
    units = len(layer.weight)
    before = state(layer)
    layer(x)
    for nothing in (0, 0.0, torch.tensor(0.0), torch.zeros(3)):
        layer.local_update(nothing, draw(3, units).float() if modulated else None)
        assert_same(layer, before)


@local_rules
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
def test_the_order_of_a_batch_does_not_matter(local_rule, seed, order):
    x, event = draw(5, 4, seed=seed), draw(5, seed=seed + 1).abs()
    one, other = linear(local_rule, "tanh", seed=seed), linear(local_rule, "tanh", seed=seed)
    one(x)
    one.local_update(event)
    other(x[order])
    other.local_update(event[order])
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.theta, other.theta, rtol=1e-10, atol=1e-12)


@local_rules
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_permuted_filters_learn_permuted_changes(local_rule, seed, order):
    x = draw(3, 2, 4, 4, seed=seed)
    one, other = (convolution(local_rule, "triangle", padding=1, seed=seed) for _ in range(2))
    other.weight.copy_(one.weight[order])
    other.bias.copy_(one.bias[order])
    for layer in (one, other):
        layer(x)
        layer.local_update(1.0)
    torch.testing.assert_close(other.weight, one.weight[order], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other.theta, one.theta[order], rtol=1e-10, atol=1e-12)


@local_rules
@settings(max_examples=8, deadline=None)
@given(factor=st.floats(0, 50), each=st.booleans())
def test_the_change_is_proportional_to_the_event(local_rule, factor, each):
    x = draw(5, 4)
    event = torch.linspace(0.1, 1, 5, dtype=torch.float64) if each else 0.7
    changes = []
    for strength in (event, factor * event):
        layer = linear(local_rule)
        before = layer.weight.clone()
        layer(x)
        layer.local_update(strength)
        changes.append(layer.weight - before)
    torch.testing.assert_close(changes[1], factor * changes[0], rtol=1e-8, atol=1e-10)


def test_a_linear_layer_learns_the_first_principal_component():
    x = draw(300, 4) * torch.tensor([2.0, 1.0, 0.7, 0.2], dtype=torch.float64)
    first = torch.linalg.eigh(x.T @ x).eigenvectors[:, -1]
    layer = linear("oja", bias=False)
    for _ in range(2000):
        layer(x)
        layer.local_update(1.0)
    torch.testing.assert_close((layer.weight @ first).abs(), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0)


def test_a_bias_is_the_synapse_of_an_input_that_is_always_one():
    x, modulation = draw(5, 4), draw(5, 3, seed=9)
    with_bias = linear(activation="tanh")
    wider = linear(activation="tanh", bias=False, inputs=5)
    wider.weight.copy_(torch.cat([with_bias.weight, with_bias.bias[:, None]], 1))
    with_bias(x)
    wider(torch.cat([x, torch.ones(5, 1)], 1))
    with_bias.local_update(0.3, modulation)
    wider.local_update(0.3, modulation)
    torch.testing.assert_close(torch.cat([with_bias.weight, with_bias.bias[:, None]], 1), wider.weight)


@local_rules
@pytest.mark.parametrize("make", [linear, convolution])
def test_events_of_all_number_types_are_equal(local_rule, make):
    x, event = draw(3, *((4,) if make is linear else (2, 5, 5))).float(), torch.tensor([1.0, 0.0, 1.0])
    layers = [make(local_rule).float() for _ in range(4)]
    for layer, dtype in zip(layers, (torch.float32, torch.float64, torch.int64, torch.bool), strict=True):
        layer(x)
        layer.local_update(event.to(dtype))
        assert torch.equal(layer.weight, layers[0].weight)
        assert torch.equal(layer.theta, layers[0].theta)


@local_rules
def test_the_bias_does_not_change_without_modulation(local_rule):
    layer = linear(local_rule)
    bias = layer.bias.clone()
    layer(draw(5, 4))
    layer.local_update(1.0)
    assert torch.equal(layer.bias, bias)


# ------------------------------------------------------------------------------------------------ activations


@activations
def test_activation_functions_equal_loops(activation):
    layer, x = linear(activation=activation), draw(5, 4)
    z = (x @ layer.weight.T + layer.bias).tolist()
    expected = [activated(activation, row) for row in z]
    y = layer(x)
    torch.testing.assert_close(y, torch.tensor([row[0] for row in expected], dtype=torch.float64))
    torch.testing.assert_close(layer.derivative(y), torch.tensor([row[1] for row in expected], dtype=torch.float64))


def test_the_triangle_of_a_convolution_compares_channels_at_each_position():
    layer, x = convolution(activation="triangle"), draw(2, 2, 5, 5)
    z = functional.conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), (z - z.mean(1, keepdim=True)).clamp_min(0))


# ------------------------------------------------------------------------------------------------ no gradient


@local_rules
@pytest.mark.parametrize("make", [linear, convolution])
@pytest.mark.parametrize("training", [True, False])
def test_no_gradient_flows(local_rule, make, training):
    layer = make(local_rule, "tanh").train(training)
    assert [p.requires_grad for p in layer.parameters()] == [False, False]
    x = draw(3, *((4,) if make is linear else (2, 5, 5))).requires_grad_()
    y = layer(x)
    assert not y.requires_grad
    assert y.grad_fn is None
    if training:
        layer.local_update(1.0, draw(3, len(layer.weight)).requires_grad_())
    assert not layer.weight.requires_grad
    assert layer.weight.grad_fn is None
    assert x.grad is None
    with pytest.raises(RuntimeError, match="does not require grad"):
        y.sum().backward()


def test_no_gradient_flows_through_a_network():
    for model in ("mlp", "cnn"):
        network = EGLPNetwork((1, 8, 8), (5, 4), 3, model=model)
        x = torch.randn(6, 64, requires_grad=True)
        logits = network(x)
        # The readout has a gradient, and it ends there.
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        assert network.readout.weight.grad is not None
        assert x.grad is None
        assert all(p.grad is None and not p.requires_grad for layer in network.hidden for p in layer.parameters())
        assert not network.last_hidden.requires_grad


# ------------------------------------------------------------------------------------------------ what is stored


def test_an_update_needs_activity():
    for layer in (linear(), convolution()):
        with pytest.raises(RuntimeError, match="call the layer in training mode before local_update"):
            layer.local_update(1.0)
        with pytest.raises(RuntimeError, match="call the layer in training mode before local_update"):
            layer.local_update(0.0)


@pytest.mark.parametrize("make", [linear, convolution])
def test_evaluation_stores_nothing(make):
    x = draw(3, *((4,) if make is linear else (2, 5, 5)))
    layer = make().eval()
    layer(x)
    with pytest.raises(RuntimeError):
        layer.local_update(1.0)
    # What training stored stays what it was.
    layer, reference = make(), make()
    for one in (layer, reference):
        one.train()(x)
    layer.eval()(10 * x)
    layer.local_update(1.0)
    reference.local_update(1.0)
    assert torch.equal(layer.weight, reference.weight)


def test_stored_activity_can_be_discarded():
    layer = linear()
    layer(draw(3, 4))
    layer.forget()
    with pytest.raises(RuntimeError):
        layer.local_update(1.0)


def test_stored_activity_is_not_part_of_the_state():
    layer = linear()
    names = set(layer.state_dict())
    layer(draw(3, 4))
    assert set(layer.state_dict()) == names == {"weight", "bias", "theta"}


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("event", [torch.ones(2), torch.ones(4), torch.ones(3, 1), torch.ones(1)])
def test_an_event_of_the_wrong_shape(event):
    layer = linear()
    before = state(layer)
    layer(draw(3, 4))
    with pytest.raises(ValueError, match=r"event has shape .*\(3,\)"):
        layer.local_update(event)
    assert_same(layer, before)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 4), (1, 3), (3, 3, 1)])
def test_a_modulation_of_the_wrong_shape(shape):
    layer = linear()
    before = state(layer)
    layer(draw(3, 4))
    with pytest.raises(ValueError, match=r"modulation has shape .*\(3, 3\)"):
        layer.local_update(1.0, draw(*shape))
    assert_same(layer, before)


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4)])
def test_a_linear_input_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"x has shape .*\(batch, 4\)"):
        linear()(draw(*shape))


@pytest.mark.parametrize("shape", [(2, 5, 5), (3, 1, 5, 5), (3, 50)])
def test_a_convolutional_input_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"x has shape .*\(batch, 2, height, width\)"):
        convolution()(draw(*shape))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -0.1),
        ("lr", math.nan),
        ("lr", math.inf),
        ("local_rule", "stdp"),
        ("activation", "gelu"),
        ("initial_weights", "normal"),
        ("inverse_temperature", 0.0),
        ("inverse_temperature", -1.0),
        ("inverse_temperature", math.nan),
    ],
)
@pytest.mark.parametrize("make", [lambda **o: LocalLinear(4, 3, **o), lambda **o: LocalConv2d(1, 3, 3, **o)])
def test_bad_values_are_named(make, name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        make(**{name: value})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LocalLinear(0, 3), "in_features"),
        (lambda: LocalLinear(3, 0), "out_features"),
        (lambda: LocalConv2d(0, 3, 3), "in_channels"),
        (lambda: LocalConv2d(1, -1, 3), "out_channels"),
        (lambda: LocalConv2d(1, 3, 0), "kernel_size"),
        (lambda: LocalConv2d(1, 3, 3, padding=-1), "padding"),
        (lambda: EGLPNetwork((1, 8, 8), (), 3), "hidden"),
        (lambda: EGLPNetwork((1, 8, 8), (4,), 3, model="rnn"), "model"),
        (lambda: EGLPNetwork((1, 8, 8), (4,), 3, readout="none"), "readout"),
        (lambda: EGLPNetwork((1, 4, 4), (4, 4, 4), 3, model="cnn"), "hidden"),
    ],
)
def test_bad_sizes_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        make()


def test_zero_learning_rate_learns_nothing():
    layer = LocalLinear(4, 3, 0.0)
    before = state(layer)
    layer(draw(3, 4).float())
    layer.local_update(1.0)
    assert_same(layer, before)


def test_weights_come_from_the_generator_alone():
    for make in (lambda g: LocalLinear(9, 5, generator=g), lambda g: LocalConv2d(1, 5, 3, generator=g)):
        layers = []
        for noise in range(2):
            torch.manual_seed(noise)
            layers.append(make(torch.Generator().manual_seed(3)))
        assert torch.equal(layers[0].weight, layers[1].weight)
        assert torch.equal(layers[0].bias, layers[1].bias)
        assert layers[0].weight.abs().max() <= 1 / 3


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda **o: LocalLinear(60, 40, **o), (6 / 100) ** 0.5),
        (lambda **o: LocalConv2d(3, 40, 5, **o), (6 / (75 + 40 * 25)) ** 0.5),
    ],
)
def test_xavier_weights_are_uniform_within_their_limit_and_biases_zero(make, limit):
    generator = torch.Generator().manual_seed(0)
    layer = make(initial_weights="xavier", generator=generator)
    assert not layer.bias.any()
    assert 0.99 * limit < layer.weight.abs().max() <= limit
    # The standard deviation of a uniform distribution.
    assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    torch.testing.assert_close(
        layer.weight.std(), nn.init.xavier_uniform_(layer.weight.clone()).std(), rtol=0.05, atol=0
    )
    drawn = make(generator=torch.Generator().manual_seed(0))
    assert drawn.bias.abs().max() > 0
    torch.testing.assert_close(layer.weight / limit, drawn.weight * drawn.weight[0].numel() ** 0.5)


def test_a_network_passes_initial_weights_to_its_hidden_layers():
    for model in ("mlp", "cnn"):
        network = EGLPNetwork((1, 8, 8), (20, 30), 3, model=model, initial_weights="xavier", activation="relu")
        for layer in network.layers():
            fan_in, fan_out = layer.weight[0].numel(), layer.weight.shape[0] * layer.weight[0, 0].numel()
            assert layer.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5
            assert layer.bias is None or not layer.bias.any()


def test_softhebb_starts_far_from_norm_one():
    layer = LocalLinear(784, 200, local_rule="softhebb", generator=torch.Generator().manual_seed(0))
    assert layer.weight.norm(dim=1).mean().item() == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize("event", [math.nan, math.inf, -1.0])
def test_an_invalid_strength_is_refused(event):
    layer = LocalLinear(4, 3)
    layer(draw(2, 4).float())
    before = state(layer)
    with pytest.raises(ValueError, match=r"^event is "):
        layer.local_update(event)
    assert_same(layer, before)


def test_no_stimulus_no_change():
    layer = LocalLinear(4, 3)
    layer(torch.zeros(0, 4))
    before = state(layer)
    layer.local_update(1.0)
    assert_same(layer, before)
