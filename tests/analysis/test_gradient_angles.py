"""Angles of credit rules to the gradient, against angles computed by hand in NumPy."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.analysis.angles import angle_degrees, signal_to_noise
from plastic_cli.analysis.gradient_angles import WHOLE, gradient_angles
from plastic_cli.analysis.without_effect import generators_of
from plastic_cli.credit.gradient import Gradient


class Changed:
    """The gradient, changed by a function of (name, gradient, generator): a rule whose angles are known."""

    def __init__(self, model, change, seed=0):
        self.model, self.change = model, change
        self.exact = Gradient(model)
        self.parameters = self.exact.parameters
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0

    def backward(self, inputs, loss):
        before = {name: parameter.grad for name, parameter in self.parameters.items()}
        for parameter in self.parameters.values():
            parameter.grad = None
        losses = self.exact.backward(inputs, loss)
        self.calls += 1
        for name, parameter in self.parameters.items():
            added = self.change(name, parameter.grad, self.generator)
            parameter.grad = added if before[name] is None else before[name] + added
        return losses

    def state_dict(self):
        return {"generator": self.generator.get_state(), "calls": self.calls}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
        self.calls = state["calls"]

    def detach(self):
        self.model = None


def problem(*layers, inputs=6, classes=3, batch=8, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(*(layer() for layer in layers)).to(dtype)
    x = torch.randn(batch, inputs, dtype=dtype)
    y = torch.arange(batch) % classes
    return model, x, lambda output: functional.cross_entropy(output, y, reduction="none")


def mlp(**options):
    return problem(lambda: nn.Linear(6, 5), nn.Tanh, lambda: nn.Linear(5, 3), **options)


def noisy(scale):
    return lambda name, gradient, generator: (
        gradient + scale * torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
    )


def test_feedback_alignment_has_the_angle_of_its_update_computed_by_hand():
    model, x, loss = mlp()
    feedback = torch.randn(3, 5, dtype=torch.float64)
    first, _, last = model

    class FixedFeedback(Changed):
        def backward(self, inputs, loss):
            hidden = first(inputs).tanh()
            losses = loss(last(hidden))
            output = last(hidden).detach().requires_grad_()
            (error,) = torch.autograd.grad(loss(output).mean(), output)
            with torch.no_grad():
                delta = (error @ feedback) * (1 - hidden**2)
                for layer, received, signal in ((first, inputs, delta), (last, hidden, error)):
                    layer.weight.grad = signal.T @ received
                    layer.bias.grad = signal.sum(0)
            return losses.detach()

    measured = gradient_angles(FixedFeedback(model, None), model, x, loss)

    # The same network, its gradient and the angle once more in NumPy, with the arc cosine.
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
    y = np.arange(8) % 3
    h = np.tanh(x.numpy() @ w1.T + b1)
    logits = h @ w2.T + b2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    e = (p - np.eye(3)[y]) / 8
    true, fixed = ((e @ back) * (1 - h**2) for back in (w2, feedback.numpy()))
    gradient = {"0.weight": true.T @ x.numpy(), "0.bias": true.sum(0), "2.weight": e.T @ h, "2.bias": e.sum(0)}
    update = {**gradient, "0.weight": fixed.T @ x.numpy(), "0.bias": fixed.sum(0)}
    whole = [np.concatenate([part.ravel() for part in parts.values()]) for parts in (update, gradient)]
    expected = {name: degrees(update[name], gradient[name]) for name in gradient} | {WHOLE: degrees(*whole)}
    assert list(measured) == list(expected)
    for name, angle in expected.items():
        assert measured[name].angle == pytest.approx(angle, abs=1e-5), name
    assert measured["2.weight"].angle == pytest.approx(0, abs=1e-5)
    assert 5 < measured["0.weight"].angle < 175


def degrees(a, b):
    cosine = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    return math.degrees(math.acos(min(1.0, cosine)))


@pytest.mark.parametrize(("sign", "angle"), [(1.0, 0.0), (-2.5, 180.0)])
def test_the_gradient_has_angle_0_and_its_opposite_180(sign, angle):
    model, x, loss = mlp()
    measured = gradient_angles(Changed(model, lambda name, gradient, _: sign * gradient), model, x, loss, draws=5)
    for name, part in measured.items():
        assert part.angle == pytest.approx(angle, abs=1e-6), name
        assert (part.angle_sd, part.signal_to_noise, part.draws) == (0.0, math.inf, 1), "the rule is deterministic"
    exact = gradient_angles(Gradient(model), model, x, loss)
    assert [part.angle for part in exact.values()] == [0.0] * 5


def test_a_stochastic_rule_has_mean_deviation_and_signal_to_noise_over_draws():
    model, x, loss = mlp()
    draws = 6
    rule = Changed(model, noisy(0.05), seed=3)
    measured = gradient_angles(rule, model, x, loss, draws=draws)
    again = Changed(model, noisy(0.05), seed=3)
    exact, updates = {}, []
    Gradient(model).backward(x, loss)
    exact = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for _ in range(draws):
        model.zero_grad()
        again.backward(x, loss)
        updates.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in exact.items():
        angles = [degrees(update[name].numpy(), gradient.numpy()) for update in updates]
        assert measured[name].angle == pytest.approx(np.mean(angles), abs=1e-5)
        assert measured[name].angle_sd == pytest.approx(np.std(angles, ddof=1), abs=1e-5)
        ratio = signal_to_noise([update[name] for update in updates])
        assert measured[name].signal_to_noise == pytest.approx(ratio, rel=1e-9)
        assert measured[name].draws == draws
    assert measured[WHOLE].angle_sd > 0


def test_one_draw_of_a_stochastic_rule_has_no_deviation():
    model, x, loss = mlp()
    part = gradient_angles(Changed(model, noisy(0.1)), model, x, loss)["0.weight"]
    assert math.isnan(part.angle_sd)
    assert math.isnan(part.signal_to_noise)
    assert part.draws == 1


def test_an_update_of_zeros_has_no_angle():
    model, x, loss = mlp()
    rule = Changed(model, lambda name, gradient, _: 0 * gradient if name == "0.bias" else gradient)
    measured = gradient_angles(rule, model, x, loss)
    assert math.isnan(measured["0.bias"].angle)
    assert measured["0.weight"].angle == 0


def test_model_rule_and_random_states_are_what_they_were():
    model, x, loss = problem(
        lambda: nn.Linear(6, 5), lambda: nn.BatchNorm1d(5), nn.ReLU, lambda: nn.Dropout(0.3), lambda: nn.Linear(5, 3)
    )

    class Meddling(Changed):
        def backward(self, inputs, loss):
            losses = super().backward(inputs, loss)
            with torch.no_grad():
                self.model[4].bias.add_(torch.randn(()))
            return losses

    rule = Meddling(model, noisy(0.1), seed=4)
    model[0].weight.grad = kept = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    versions = [parameter._version for parameter in model[0].parameters()]
    state, random = rule.state_dict(), torch.get_rng_state()
    gradient_angles(rule, model, x, loss, draws=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [parameter._version for parameter in model[0].parameters()] == versions
    assert model[0].weight.grad is kept
    assert model[4].weight.grad is None
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    after = rule.state_dict()
    assert torch.equal(after["generator"], state["generator"])
    assert after["calls"] == state["calls"]


def test_a_state_that_changes_with_every_update_is_the_present_one_in_each_draw():
    model, x, loss = mlp()
    rule = Changed(model, lambda name, gradient, _: gradient)
    rule.change = lambda name, gradient, _: gradient if rule.calls == 1 else -gradient
    assert gradient_angles(rule, model, x, loss, draws=4)["0.weight"].angle == pytest.approx(0, abs=1e-6)


def test_dropout_has_the_same_mask_in_update_and_gradient():
    model, x, loss = problem(lambda: nn.Linear(6, 40), nn.ReLU, lambda: nn.Dropout(0.5), lambda: nn.Linear(40, 3))
    measured = gradient_angles(Changed(model, lambda name, gradient, _: gradient), model, x, loss, draws=3)
    for part in measured.values():
        assert part.angle == pytest.approx(0, abs=1e-6)
        assert part.draws == 3, "masks are drawn in every draw"
        assert 0 < part.signal_to_noise < math.inf


def test_a_rule_that_a_rule_holds_gets_new_noise_in_every_draw():
    model, x, loss = mlp()

    class Holding(Changed):
        def __init__(self, model):
            super().__init__(model, None)
            self.rest = Changed(model, noisy(0.1))

        def backward(self, inputs, loss):
            return self.rest.backward(inputs, loss)

        def state_dict(self):
            return self.rest.state_dict()

        def load_state_dict(self, state):
            self.rest.load_state_dict(state)

    assert gradient_angles(Holding(model), model, x, loss, draws=4)["0.weight"].angle_sd > 0


def test_the_parameters_are_those_that_a_rule_finds_in_its_first_update():
    model, x, loss = mlp()

    class Finding(Changed):
        def __init__(self, model):
            super().__init__(model, lambda name, gradient, _: -gradient)
            self.parameters = {"0.weight": model[0].weight}

        def backward(self, inputs, loss):
            self.parameters = self.exact.parameters
            return super().backward(inputs, loss)

    measured = gradient_angles(Finding(model), model, x, loss, draws=3)
    assert list(measured) == ["0.weight", "0.bias", "2.weight", "2.bias", WHOLE]
    assert measured[WHOLE].angle == pytest.approx(180)


def test_a_generator_inside_a_part_of_a_rule_goes_on():
    model, x, loss = mlp()

    class Part:
        def __init__(self):
            self.inner = [{"noise": torch.Generator().manual_seed(0)}]

    class Nested(Changed):
        def __init__(self, model):
            super().__init__(model, None)
            self.part = Part()
            self.change = lambda name, gradient, _: noisy(0.1)(name, gradient, self.part.inner[0]["noise"])

        def state_dict(self):
            return {"noise": self.part.inner[0]["noise"].get_state()}

        def load_state_dict(self, state):
            self.part.inner[0]["noise"].set_state(state["noise"])

    rule = Nested(model)
    assert generators_of(rule) == [rule.generator, rule.part.inner[0]["noise"]]
    before = rule.state_dict()["noise"]
    measured = gradient_angles(rule, model, x, loss, draws=4)["0.weight"]
    assert measured.draws == 4
    assert measured.angle_sd > 0
    assert torch.equal(rule.state_dict()["noise"], before)


def test_the_angle_of_the_whole_update_is_that_of_one_long_vector():
    model, x, loss = mlp(dtype=torch.float32)
    signs = {"0.weight": 1.0, "0.bias": -1.0, "2.weight": 1.0, "2.bias": 3.0}
    measured = gradient_angles(Changed(model, lambda name, gradient, _: signs[name] * gradient), model, x, loss)
    Gradient(model).backward(x, loss)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()])
    update = torch.cat([signs[name] * gradient.flatten() for name, gradient in gradients.items()])
    assert measured[WHOLE].angle == pytest.approx(angle_degrees(update, whole), abs=1e-4)
    assert [round(measured[name].angle) for name in signs] == [0, 180, 0, 0]
