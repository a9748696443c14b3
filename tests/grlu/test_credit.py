"""Node perturbation of any torch module against autograd, torch.func.jvp and the equations of rule.py."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import CLASSES, EVERY, Case, Recurrent, gradient_of, losses_of
from plastic_grlu import NodePerturbation, rule
from plastic_grlu import credit as credit_module
from plastic_grlu.learner import GRLUNetwork


class TimeFirst(nn.Module):
    """A recurrent layer on (time, batch, features); the sequences arrive as (batch, time, features)."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(3, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.fc(self.rnn(x.transpose(0, 1))[0][-1])


class Tokens(nn.Module):
    """A class token, learned positions and scales; tokens of all samples pass through one matrix of rows."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.fc = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 4)), nn.Embedding(5, 4)
        self.scale = nn.Parameter(torch.full((4,), 0.3))

    def forward(self, x):
        h = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1)
        h += self.position(torch.arange(5))
        rows = h.flatten(0, 1)
        rows = rows + self.scale * torch.tanh(self.mix(rows))
        return self.fc(rows.unflatten(0, h.shape[:2])[:, 0] + h.mean(1))


class Handmade(nn.Module):
    """Products with parameters that no layer holds, and functions that work in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 4) / 2), nn.Parameter(torch.randn(4) / 2)
        self.c = nn.Parameter(torch.randn(5, 4) / 2)

    def forward(self, x):
        h = x @ self.a
        h += self.b
        h = functional.relu(h, inplace=True)
        board = torch.zeros(len(x), 2, 4, dtype=x.dtype)
        board[:, 0] = h
        board[:, 1] = self.b
        return torch.einsum("bkj,cj->bc", board, self.c)


def two_normalizations() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
        *(nn.Conv2d(3, 2, 2, stride=2), nn.BatchNorm2d(2), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(8, CLASSES)),
    )


def weight_norm() -> nn.Module:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(4, CLASSES))


def attention() -> nn.Module:
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, CLASSES)

        def forward(self, x):
            x = x.transpose(0, 1)
            return self.fc(self.attention(x, x, x)[0].mean(0))

    return Attention()


OWN = {
    "time-first": Case(TimeFirst, (4, 3)),
    "square": Case(lambda: Recurrent(nn.GRU(3, 4, batch_first=True), 4), (4, 3)),
    "tokens": Case(Tokens, (4, 3), batch=3),
    "handmade": Case(Handmade, (6,), batch=3),
    "two-normalizations": Case(two_normalizations, (1, 6, 6)),
    "weight-norm": Case(weight_norm, (6,)),
    "attention": Case(attention, (3, 4)),
}
SMALL = {name: case for name, case in {**EVERY, **OWN}.items() if name != "resnet18"}


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def noise_size(credit, x, loss):
    """The numbers of noise of one pass."""
    sizes = []
    draw = credit_module.Noise.draw

    def measure(noise, rows, sigma):
        sizes.append(noise.size)
        return draw(noise, rows, sigma)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit_module.Noise, "draw", measure)
        copy.deepcopy(credit).backward(x, loss)
    return sizes[0]


@pytest.fixture
def orthogonal(monkeypatch):
    """Noise of perturbation p: only number p of all N, sqrt(N) sigma. The mean of n n^T over N is sigma^2 exactly."""

    def draw(noise, rows, sigma):
        drawn = torch.zeros(rows, noise.size, dtype=noise.dtype)
        numbers = torch.arange(rows)
        drawn[numbers, numbers + noise._drawn] = sigma * noise.size**0.5
        noise._drawn += rows
        return drawn

    def use():
        monkeypatch.setattr(credit_module.Noise, "draw", draw)

    return use


def estimate(case, orthogonal, **options):
    """The estimate of every gradient from a complete set of orthogonal noises, and the true gradients."""
    model, x, y = case.draw()
    expected = gradient_of(model, x, y)
    size = noise_size(NodePerturbation(model, 1, **options), x, losses_of(y))
    model.zero_grad()
    orthogonal()
    credit = NodePerturbation(model, size, 1e-7, normalize=True, **options)
    losses = credit.backward(x, losses_of(y))
    return model, losses, expected, credit


@pytest.mark.parametrize("name", SMALL)
def test_complete_orthogonal_noise_gives_the_gradient(name, orthogonal):
    model, losses, expected, _ = estimate(SMALL[name], orthogonal)
    scale = max(gradient.abs().max() for gradient in expected.values())
    for parameter, gradient in gradients(model).items():
        assert (gradient - expected[parameter]).abs().max() < 1e-6 * scale, parameter
    assert losses.shape == (SMALL[name].batch,) and not losses.requires_grad


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("two-normalizations", "lstm")])
def test_every_entry_belongs_to_a_sample(name):
    model, x, y = SMALL[name].draw()
    credit = NodePerturbation(model, 1)
    credit.backward(x, losses_of(y))
    (indices,) = credit._indices.values()
    for place, index in indices.items():
        assert index is not None, place


def test_batch_statistics_mix_samples_unless_they_are_fixed():
    model, x, y = OWN["two-normalizations"].draw()
    for across, expected in ((True, [False, True, True]), (False, [True, True, True])):
        credit = NodePerturbation(model, 1, across_samples=across)
        credit.backward(x, losses_of(y))
        (indices,) = credit._indices.values()
        assert [index is not None for index in indices.values()] == expected
    model.eval()
    credit.backward(x, losses_of(y))
    assert all(index is not None for index in list(credit._indices.values())[1].values())


def mean_and_error(model, credit, x, loss, draws):
    """Mean and standard error of `.grad` over draws, all parameters in one vector."""
    found = []
    for _ in range(draws):
        model.zero_grad()
        credit.backward(x, loss)
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    found = torch.stack(found)
    return found.mean(0), found.std(0) / math.sqrt(draws)


@pytest.mark.parametrize("name", ["mlp", "two-normalizations"])
@pytest.mark.parametrize("credit", ["preactivation", "output"])
def test_expectation_is_the_variance_times_the_gradient(name, credit):
    """Within 4.5 standard errors for each parameter: 1 of 1000 such tests fails by chance; here the seed is fixed."""
    case = {**SMALL, "mlp": Case(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, CLASSES)), (4,))}[name]
    model, x, y = case.draw()
    rule_ = NodePerturbation(model, 256, 0.05, credit, generator=torch.Generator().manual_seed(5))
    mean, error = mean_and_error(model, rule_, x, losses_of(y), 60)
    expected = gradient_of(model, x, y) if credit == "preactivation" else without_slopes(model, x, y)
    expected = 0.05**2 * torch.cat([gradient.flatten() for gradient in expected.values()])
    assert ((mean - expected).abs() < 4.5 * error + 1e-12).all()
    # The test can fail: most of the gradient is far larger than its error.
    assert (expected.norm() / error.norm()) > 3


def without_slopes(model, x, y):
    """The published rule's expectation over sigma^2: derivatives after each nonlinearity, without its slope."""
    groups = []
    for layer in copy.deepcopy(model):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            groups.append([])
        groups[-1].append(layer)

    def respond(group, h):
        for layer in group:
            h = layer(h) if isinstance(layer, nn.Linear | nn.Conv2d | nn.BatchNorm2d) else h
        return h

    h, received, active = x, [], []
    for group in groups:
        received.append(h)
        h = respond(group, h)
        for layer in group:
            h = layer(h) if isinstance(layer, nn.ReLU | nn.Tanh) else h
        active.append(h)
        h = h.flatten(1) if isinstance(group[-1], nn.Flatten) else h
    errors = torch.autograd.grad(losses_of(y)(h).mean(), active)
    found = []
    for group, x_, error in zip(groups, received, errors, strict=True):
        parameters = [parameter for layer in group for parameter in layer.parameters()]
        found += torch.autograd.grad(respond(group, x_.detach()), parameters, error)
    return dict(zip(dict(model.named_parameters()), found, strict=True))


@pytest.mark.parametrize("name", ["mlp", "two-normalizations"])
def test_output_credit_leaves_out_the_slope(name, orthogonal):
    model = estimate(SMALL[name], orthogonal, credit="output")[0]
    fresh, x, y = SMALL[name].draw()
    for (parameter, found), expected in zip(
        gradients(model).items(), without_slopes(fresh, x, y).values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7, msg=parameter)


def grlu_network(skip):
    generator = torch.Generator().manual_seed(3)
    weights, biases = rule.initial_parameters([6, 5, 5, CLASSES], generator, torch.float64)
    biases = [0.1 * torch.randn(bias.shape, generator=generator, dtype=torch.float64) for bias in biases]
    return GRLUNetwork(weights, biases, skip=skip).requires_grad_(True)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("credit", ["preactivation", "output"])
def test_equals_grlu_update_up_to_sigma_squared(credit, skip, monkeypatch):
    """The inputs of (6) are the mean over the pair, those of (10) are without noise: they differ by order sigma^2."""
    model = grlu_network(skip)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (7,), generator=generator)
    plain = [torch.randn(3, 7, len(layer.bias), generator=generator, dtype=torch.float64) for layer in model.layers]

    def draw(noise, rows, sigma):
        flat = sigma * torch.cat([part[noise._drawn : noise._drawn + rows].flatten(1) for part in plain], 1)
        noise._drawn += rows
        return functional.pad(flat, (0, noise.size - flat.shape[1]))

    monkeypatch.setattr(credit_module.Noise, "draw", draw)
    differences = []
    for sigma in (1e-4, 5e-5):
        model.zero_grad()
        NodePerturbation(model, 3, sigma, credit, normalize=True).backward(x, losses_of(y))
        weights = [layer.weight.detach() for layer in model.layers]
        biases = [layer.bias.detach() for layer in model.layers]
        noises = [sigma * part.reshape(-1, part.shape[-1]) for part in plain]
        updates = rule.grlu_update(weights, biases, x, y, noises, credit=credit, skip=skip)
        expected = [-update / len(x) / sigma**2 for update in (*updates[0], *updates[1])]
        found = [layer.weight.grad for layer in model.layers] + [layer.bias.grad for layer in model.layers]
        size = max(part.abs().max() for part in expected)
        differences.append(max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) / size)
    assert differences[0] < 1e-4
    assert 3 < differences[0] / differences[1] < 5


def test_small_noise_gives_the_directional_derivative():
    """One pair with fixed noise: (10) with d = <dl_b/dz, n> of torch.func.jvp, for two layers and a loss."""
    model, x, y = SMALL["mlp"].draw()
    first, second, third = model[0], model[2], model[4]
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(4, width, generator=generator, dtype=torch.float64) for width in (8, 7, CLASSES)]

    def losses(*noises):
        h = torch.tanh(first(x) + noises[0])
        h = torch.relu(second(h) + noises[1])
        return losses_of(y)(third(h) + noises[2])

    zeros = tuple(torch.zeros_like(part) for part in drawn)
    _, difference = torch.func.jvp(losses, zeros, tuple(drawn))
    inputs = [x, torch.tanh(first(x)), torch.relu(second(torch.tanh(first(x))))]

    def draw(noise, rows, sigma):
        flat = sigma * torch.cat([part.flatten() for part in drawn])
        return functional.pad(flat, (0, noise.size - len(flat)))[None]

    errors = []
    for sigma in (1e-3, 5e-4):
        model.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(credit_module.Noise, "draw", draw)
            NodePerturbation(model, 1, sigma, normalize=True).backward(x, losses_of(y))
        error = 0.0
        for layer, part, x_ in zip((first, second, third), drawn, inputs, strict=True):
            postsynaptic = part * difference[:, None] / len(x)
            error = max(error, (layer.weight.grad - postsynaptic.T @ x_).abs().max().item())
            error = max(error, (layer.bias.grad - postsynaptic.sum(0)).abs().max().item())
        errors.append(error)
    assert errors[0] < 1e-4
    assert 3 < errors[0] / errors[1] < 5
