"""Learned feedback on any torch module: against autograd, and against the equations written with numpy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import CLASSES, EVERY, Case, gradient_of, losses_of
from grlu.test_credit import OWN
from plastic_cli import UserError
from plastic_cli.analysis.angles import angle_degrees
from plastic_grlu import NodePerturbation
from plastic_grlu import credit as credit_module
from plastic_grlu.learned_feedback import DAMPING, Rows

FEEDBACKS = ("direct", "layer")


class SkipToOutput(nn.Module):
    """Its hidden layer reaches the output past the last weights as well."""

    def __init__(self):
        super().__init__()
        self.hidden, self.fc = nn.Linear(6, CLASSES), nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        return h + self.fc(h)


class InPlace(nn.Module):
    """As ResNet: a sum that a nonlinearity changes in place, and dropout without effect."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        h = functional.relu(self.a(x), inplace=True)
        h = functional.dropout(self.b(h), 0.5, training=False) + h
        functional.relu_(h)
        return self.fc(h)


class Scaled(nn.Module):
    """Attention of torch in one function, which has second derivatives in one of its forms only."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.fc(functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)).mean(1))


MORE = {
    "skip-to-output": Case(SkipToOutput, (6,)),
    "in-place": Case(InPlace, (6,)),
    "attention-function": Case(Scaled, (3, 4)),
}
NETWORKS = {name: case for name, case in {**EVERY, **OWN, **MORE}.items() if name not in ("resnet18", "checkpointed")}


def learned(model, perturbations=1, noise=0.01, seed=3, **options):
    generator = torch.Generator().manual_seed(seed)
    return NodePerturbation(model, perturbations, noise, "learned", generator=generator, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_the_weights_themselves_feedback_between_layers_is_the_gradient(name, monkeypatch):
    """Biases, normalization, skip connections, attention, time and weight sharing have their exact derivatives."""
    case = NETWORKS[name]
    if name in ("normalized", "two-normalizations"):
        # Batch statistics that depend on other samples are left out of the errors.
        case = Case(lambda: NETWORKS[name].make().eval(), case.shape, batch=case.batch)
    model, x, y = case.draw()
    expected = gradient_of(model, x, y)
    credit = learned(model, feedback="layer", feedback_rate=0.0)
    monkeypatch.setattr(credit.feedback, "of_weight", lambda _, weight: weight)
    losses = credit.backward(x, losses_of(y))
    scale = max(gradient.abs().max() for gradient in expected.values())
    for parameter, gradient in expected.items():
        found = model.get_parameter(parameter).grad
        assert found is not None, parameter
        assert (found - gradient).abs().max() < 1e-12 * scale, parameter
    torch.testing.assert_close(losses, losses_of(y)(model(x)).detach())


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("name", [*MORE, "tokens", "handmade", "time-first"])
def test_the_layer_of_the_output_learns_from_its_exact_error(name, feedback):
    """It has no noise. In a network with a skip connection to the output, its part of the error is exact too."""
    model, x, y = NETWORKS[name].draw()
    expected = gradient_of(model, x, y)
    credit = learned(model, feedback=feedback)
    credit.backward(x, losses_of(y))
    last = "c" if name == "handmade" else "fc.weight"
    torch.testing.assert_close(model.get_parameter(last).grad, expected[last])
    (structure,) = credit._structures.values()
    outputs = set(structure.names.values()) - {structure.names[place] for place in structure.hidden}
    assert outputs == {last}


def test_the_error_past_the_weights_is_a_part_of_the_credit():
    """h + W h + w: the error of the output reaches h as it is, and B brings the rest."""
    model, x, y = MORE["skip-to-output"].draw()
    credit = learned(model)
    credit.backward(x, losses_of(y))
    B = credit.feedback_weights()["hidden.weight"]
    credit.feedback_rate = 0.0
    model.zero_grad()
    credit.backward(x, losses_of(y))
    h, output = torch.tanh(model.hidden(x)).detach(), model(x).detach().requires_grad_()
    (e,) = torch.autograd.grad(losses_of(y)(output).sum(), output)
    delta = (e + e @ B.T) * (1 - h**2)
    torch.testing.assert_close(model.hidden.weight.grad, delta.T @ x / len(x))


class TwoLayers:
    """tanh(x A^T + a) W^T + w with cross-entropy, by hand in float64; direct feedback B of the hidden layer."""

    def __init__(self, model):
        (self.A, self.a), (self.W, self.w) = (
            (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (model[0], model[2])
        )

    def hidden(self, x):
        return np.tanh(x @ self.A.T + self.a)

    def losses(self, h, y):
        z = h @ self.W.T + self.w
        return np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]

    def step(self, x, y, B, noise, rate):
        """Return the gradients of A, a, W, w, and B after a step. noise (pairs, batch, hidden)."""
        h = self.hidden(x)
        z = h @ self.W.T + self.w
        e = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        e[np.arange(len(y)), y] -= 1
        c = e @ B.T
        delta = c * (1 - h**2)
        gradients = delta.T @ x / len(x), delta.mean(0), e.T @ h / len(x), e.mean(0)
        r = np.array([(self.losses(h + n, y) - self.losses(h - n, y)) / 2 - (n * c).sum(1) for n in noise])
        D = sum(np.outer(r[p, b] * noise[p, b], e[b]) for p in range(len(noise)) for b in range(len(x)))
        q = np.array([[noise[p, b] @ D @ e[b] for b in range(len(x))] for p in range(len(noise))])
        share = (e**2).sum() / len(x) / ((e**2).sum() / len(x) + DAMPING)
        return gradients, B + rate * share * (r * q).sum() / (q**2).sum() * D


@pytest.mark.parametrize("chunk_size", [1, None])
@pytest.mark.parametrize(("batch", "pairs"), [(1, 1), (5, 3)])
def test_a_network_of_two_layers_follows_the_equations(batch, pairs, chunk_size, monkeypatch):
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = random.normal(size=(batch, 4)), random.integers(3, size=batch)
    noise = 0.3 * random.normal(size=(2, pairs, batch, 6))
    credit = learned(model, pairs, feedback_rate=0.7, chunk_size=chunk_size)
    steps = iter((0, 1))

    def draw(own, rows, _):
        own.step = getattr(own, "step", number[0])
        drawn = torch.from_numpy(noise[own.step, own._drawn : own._drawn + rows].reshape(rows, -1))
        own._drawn += rows
        return functional.pad(drawn, (0, own.size - drawn.shape[1]))

    monkeypatch.setattr(credit_module.Noise, "draw", draw)
    number, B = [next(steps)], None
    for step in range(2):
        number[0] = step
        model.zero_grad()
        if B is None:
            # B is drawn in the first step, and restored to follow it by hand.
            copy.deepcopy(credit).backward(torch.from_numpy(x), losses_of(torch.from_numpy(y)))
            probe = copy.deepcopy(credit)
            probe.feedback_rate = 0.0
            probe.backward(torch.from_numpy(x), losses_of(torch.from_numpy(y)))
            B = probe.feedback_weights()["0.weight"].numpy()
            assert B.shape == (6, 3)
            model.zero_grad()
            credit.load_state_dict({**credit.state_dict(), "feedback": probe.state_dict()["feedback"]})
        losses = credit.backward(torch.from_numpy(x), losses_of(torch.from_numpy(y)))
        by_hand = TwoLayers(model)
        gradients, B = by_hand.step(x, y, B, noise[step], 0.7)
        found = [parameter.grad for parameter in model.parameters()]
        for mine, expected in zip(found, (gradients[0], gradients[1], gradients[2], gradients[3]), strict=True):
            np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(credit.feedback_weights()["0.weight"].numpy(), B, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(losses.numpy(), by_hand.losses(by_hand.hidden(x), y), rtol=1e-12)


def test_one_pair_of_one_sample_is_explained_after_a_step():
    """The same noise again: with rate 1, nothing is left of what B did not explain."""
    model, x, y = Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)), (6,), batch=1).draw()
    for feedback in FEEDBACKS:
        credit = learned(model, noise=1e-4, feedback=feedback)
        credit.backward(x, losses_of(y))
        steps, before = [], credit.generator.get_state()
        for _ in range(2):
            credit.generator.set_state(before)
            former = credit.feedback_weights()
            credit.backward(x, losses_of(y))
            steps.append(sum(float((B - former[name]).norm()) for name, B in credit.feedback_weights().items()))
        assert steps[1] < 1e-4 * steps[0]


def linear_network():
    torch.manual_seed(0)
    # No layer is wider than the output, so that errors of all directions arrive.
    layers = [nn.Linear(6, 3), nn.Linear(3, 4), nn.Linear(4, CLASSES)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_feedback_of_a_linear_network_becomes_that_of_backpropagation(feedback):
    """Its angle falls to 0, and that of the change of the weights as well."""
    model = linear_network()
    _, second, third = (layer.weight.detach() for layer in model)
    true = {"0.weight": second.T @ third.T, "1.weight": third.T}
    if feedback == "layer":
        true = {"1.weight": second, "2.weight": third}
    credit = learned(model, 4, feedback=feedback)
    generator = torch.Generator().manual_seed(1)
    angles = []
    for _ in range(60):
        x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        y = torch.randn(16, CLASSES, generator=generator, dtype=torch.float64)
        model.zero_grad()
        credit.backward(x, lambda output, y=y: (output - y).square().sum(1))
        angles.append([angle_degrees(credit.feedback_weights()[name], weight) for name, weight in true.items()])
    assert min(angles[0]) > 45
    assert max(angles[-1]) < 3
    expected = torch.autograd.grad((model(x) - y).square().sum(1).mean(), first_parameter := model[0].weight)[0]
    assert angle_degrees(first_parameter.grad, expected) < 3


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_all_pairs_in_one_batch_equal_one_pass_after_the_other(feedback):
    found = []
    for chunk_size in (1, 3):
        model, x, y = EVERY["lenet"].draw()
        credit = learned(model, 5, 0.1, feedback=feedback, chunk_size=chunk_size)
        for _ in range(2):
            credit.backward(x, losses_of(y))
        found.append((credit.feedback_weights(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_rate_0_is_random_feedback_and_takes_no_noisy_pass(feedback, monkeypatch):
    model, x, y = EVERY["lenet"].draw()
    credit = learned(model, feedback=feedback, feedback_rate=0.0)
    monkeypatch.setattr(credit_module._LearnedStep, "_pairs", None)
    credit.backward(x, losses_of(y))
    before, state = credit.feedback_weights(), credit.generator.get_state()
    credit.backward(x, losses_of(y))
    torch.testing.assert_close(credit.feedback_weights(), before, rtol=0, atol=0)
    assert torch.equal(credit.generator.get_state(), state)


def test_shapes_of_feedback():
    """Direct: what the next layer receives, for each sample, by the number of outputs. Layer: that of the weight."""
    model, x, y = EVERY["lenet"].draw()
    direct, layer = learned(model), learned(model, feedback="layer")
    for credit in (direct, layer):
        credit.backward(x, losses_of(y))
    shapes = {name: tuple(B.shape) for name, B in direct.feedback_weights().items()}
    # After pooling: 3 channels of 6 x 6, 4 channels of 2 x 2, 10 units.
    assert shapes == {"0.weight": (108, CLASSES), "3.weight": (16, CLASSES), "7.weight": (10, CLASSES)}
    assert {name: B.shape for name, B in layer.feedback_weights().items()} == {
        name: model.get_parameter(name).shape for name in ("3.weight", "7.weight", "9.weight")
    }


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_rows_hold_the_entries_of_their_sample(order):
    z = torch.arange(24.0).view(2, 3, 4)
    samples = z.permute(order)
    index = torch.arange(2).view(2, 1, 1).permute(order)
    rows = Rows.of("layer", samples, index, 2)
    assert torch.equal(rows.split(samples).sort(1).values, z.flatten(1))
    assert torch.equal(rows.join(rows.split(samples)), samples)
    both = torch.stack([samples, -samples])
    assert torch.equal(rows.split(both)[1], rows.split(-samples))


def test_dropout_masks_belong_to_the_layer():
    """A unit that dropout silences passes no credit to its weights, and all passes have the same masks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Dropout(0.5), nn.Linear(40, CLASSES)).double()
    x, y = torch.randn(1, 6, dtype=torch.float64), torch.tensor([1])
    credit = learned(model)
    state = torch.get_rng_state()
    credit.backward(x, losses_of(y))
    torch.set_rng_state(state)
    kept = functional.dropout(torch.ones(1, 40, dtype=torch.float64), 0.5) > 0
    assert torch.equal(model[0].bias.grad != 0, kept[0])


def test_running_statistics_change_once():
    model, x, y = EVERY["normalized"].draw()
    twin = copy.deepcopy(model)
    twin(x)
    for feedback in FEEDBACKS:
        own = copy.deepcopy(model)
        learned(own, 2, feedback=feedback).backward(x, losses_of(y))
        torch.testing.assert_close(own.state_dict(), twin.state_dict(), rtol=1e-9, atol=1e-12)


def test_lengths_may_differ_with_feedback_between_layers():
    model, _, y = Case(Averaged, (4, 3)).draw()
    layer, direct = learned(model, feedback="layer"), learned(model)
    for length in (4, 6, 4):
        layer.backward(torch.randn(4, length, 3, dtype=torch.float64), losses_of(y))
    direct.backward(torch.randn(4, 4, 3, dtype=torch.float64), losses_of(y))
    with pytest.raises(UserError, match=r'direct feedback to .* use feedback="layer"'):
        direct.backward(torch.randn(4, 6, 3, dtype=torch.float64), losses_of(y))


class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs, self.step, self.fc = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.inputs(x))
        return self.fc(torch.tanh(self.step(h)).mean(1))


def test_several_outputs_and_a_loss_without_derivative():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, CLASSES), nn.Linear(8, 2)

        def forward(self, x):
            h = torch.tanh(self.hidden(x))
            return {"classes": self.a(h), "values": self.b(h)}

    model, x, y = Case(TwoHeads, (6,)).draw()

    def loss(output):
        return losses_of(y)(output["classes"]) + output["values"].square().sum(1)

    expected = torch.autograd.grad(loss(model(x)).mean(), [model.a.weight, model.b.weight])
    for feedback in FEEDBACKS:
        model.zero_grad()
        credit = learned(model, feedback=feedback)
        credit.backward(x, loss)
        torch.testing.assert_close([model.a.weight.grad, model.b.weight.grad], list(expected))
        assert model.hidden.weight.grad.any()
        with pytest.raises(UserError, match="the loss has no derivative"):
            credit.backward(x, lambda output: (output["values"] > 0).to(torch.float64).sum(1))


def test_feedback_through_a_layer_that_does_not_learn():
    """No noise is between the last two products; the B of both learn, so that their product is that of the weights."""
    model = linear_network()
    credit = learned(model, 4, feedback="layer", modules=["0", "2"])
    generator = torch.Generator().manual_seed(1)
    angles = []
    for _ in range(80):
        x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        y = torch.randn(16, CLASSES, generator=generator, dtype=torch.float64)
        credit.backward(x, lambda output, y=y: (output - y).square().sum(1))
        B = credit.feedback_weights()
        angles.append(angle_degrees(B["2.weight"] @ B["1.weight"], model[2].weight @ model[1].weight))
    assert angles[0] > 45
    assert angles[-1] < 3


class Once(torch.autograd.Function):
    """The square, whose derivative has no derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, error):
        return 2 * ctx.saved_tensors[0] * error


def test_a_function_without_second_derivative_gets_one_line():
    class Squares(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    model = nn.Sequential(nn.Linear(6, 8), Squares(), nn.Linear(8, CLASSES)).double()
    x, y = torch.randn(4, 6, dtype=torch.float64), torch.arange(4)
    learned(model).backward(x, losses_of(y))
    learned(model, feedback="layer", feedback_rate=0.0).backward(x, losses_of(y))
    with pytest.raises(UserError, match=r'one of them has none. Use feedback="direct"'):
        learned(model, feedback="layer").backward(x, losses_of(y))


def test_wrong_use_gets_one_line():
    model, x, y = EVERY["mlp"].draw()
    with pytest.raises(UserError, match="feedback is 'random': it must be 'direct' or 'layer'"):
        learned(model, feedback="random")
    with pytest.raises(UserError, match="feedback_rate is 2: it must be 0 or more and below 2"):
        learned(model, feedback_rate=2)
    plain, direct, layer = NodePerturbation(model), learned(model), learned(model, feedback="layer")
    with pytest.raises(UserError, match="one of the two learns feedback"):
        direct.load_state_dict(plain.state_dict())
    with pytest.raises(UserError, match="feedback='layer', and this rule has 'direct'"):
        direct.load_state_dict(layer.state_dict())
    with pytest.raises(UserError, match=r"shape \(5, 4\) for 4 samples.*feedback=\"layer\""):
        transposed = Case(Transposed, (6,)).draw()[0]
        learned(transposed).backward(x, lambda output: losses_of(y)(output.T))
    mixing = nn.Sequential(nn.Linear(6, 6), Mix(), nn.Linear(6, CLASSES)).double()
    with pytest.raises(UserError, match=r"cannot tell which sample.*'0.weight'.*modules="):
        learned(mixing).backward(torch.randn(3, 4, 6, dtype=torch.float64), losses_of(y))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Linear(6, 7), nn.Linear(7, CLASSES)

    def forward(self, x):
        return self.fc(torch.relu(self.a(x))).T


class Mix(nn.Module):
    """(time, batch, features) to the mean over time and samples, added to each sample."""

    def forward(self, h):
        return h.mean(0) + h.mean((0, 1))
