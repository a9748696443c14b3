"""Node perturbation of any torch module against autograd, torch.func.jvp and the equations of rule.py."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import CLASSES, EVERY, Case, Recurrent, gradient_of, losses_of
from plastic_cli import UserError
from plastic_grlu import NodePerturbation, rule
from plastic_grlu import credit as credit_module
from plastic_grlu.learner import GRLUNetwork
from plastic_grlu.nodes import CleanPass, PerturbedPass


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


class Checkpointed(nn.Module):
    """Computes a part again in torch's backward pass to save memory."""

    def __init__(self, reentrant=False):
        super().__init__()
        self.reentrant = reentrant
        self.part, self.fc = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.fc(torch.utils.checkpoint.checkpoint(self.part, x, use_reentrant=self.reentrant))


OWN["checkpointed"] = Case(Checkpointed, (6,))
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


def test_exact_errors_at_the_nodes_of_resnet18_give_its_gradient():
    """Equation (10) alone, with the true derivatives in place of (9)."""
    model, x, y = EVERY["resnet18"].draw()
    expected = gradient_of(model, x, y)
    clean = CleanPass(dict(model.named_parameters()), after_nonlinearity=False)
    inputs = clean.enter(x)
    with torch.enable_grad(), clean:
        output = model(inputs)
    _, trace = clean.finish(output)
    noises = {place: torch.zeros_like(z, requires_grad=True) for place, z in trace.places.items()}
    # Each of the 20 convolutions and its normalization are one node.
    assert len(noises) == 21
    with PerturbedPass(trace.functions, noises):
        output = model(x)
    losses = losses_of(y)(output)
    trace.learn(dict(zip(noises, torch.autograd.grad(losses.mean(), list(noises.values())), strict=True)))
    torch.testing.assert_close(gradients(model), expected)


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


class Steps(nn.Module):
    """Units that are silent or active: no derivative of the loss reaches the first layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x):
        h = (self.a(x) > 0).to(x.dtype)
        return self.fc(torch.tanh(self.b(h)))


def test_samples_are_found_without_derivatives():
    """Also where the batch is as large as the number of units."""
    model, x, y = Case(Steps, (6,)).draw()
    credit = NodePerturbation(model, 1, across_samples=True)
    credit.backward(x, losses_of(y))
    (indices,) = credit._indices.values()
    for index in indices.values():
        torch.testing.assert_close(index, torch.arange(4)[:, None])


def test_a_step_function_learns_the_slope_of_the_expected_loss():
    """With noise of SD sigma, E[n d] is sigma^2 times the derivative of the loss that noise makes smooth."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.3)
    sigma = 0.5
    credit = NodePerturbation(model, 40000, sigma, generator=generator)
    credit.backward(x, lambda z: (z > 0).to(z.dtype).squeeze(1))
    # P(z + n > 0) = Phi(z / sigma), of which the derivative is phi(z / sigma) / sigma.
    z = model(x).detach()
    slope = torch.exp(-((z / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    expected = sigma**2 * (slope * x).mean(0, keepdim=True)
    # |n d| is at most |n| / 2, so that the standard error is below sigma |x| / (2 sqrt(P B)).
    error = sigma * x.abs().max() / (2 * math.sqrt(40000 * 3))
    assert (model.weight.grad - expected).abs().max() < 4 * error < expected.abs().max() / 5


class Kept(nn.Module):
    """A layer's output is put into a tensor, and goes through a nonlinearity as well."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Linear(6, 4), nn.Linear(8, CLASSES)

    def forward(self, x):
        z = self.a(x)
        board = x.new_zeros(len(x), 8)
        board[:, :4] = z
        board[:, 4:] = torch.relu(z)
        return self.fc(board)


def test_noise_reaches_every_receiver(orthogonal):
    """Of an output that two functions receive, no nonlinearity has the noise to itself."""
    model, x, y = Case(Kept, (6,)).draw()
    expected = gradient_of(model, x, y)
    size = noise_size(NodePerturbation(model, 1), x, losses_of(y))
    model.zero_grad()
    orthogonal()
    NodePerturbation(model, size, 1e-7, "output", normalize=True).backward(x, losses_of(y))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


class HiddenMixing(nn.Module):
    """Adds the mean over samples with a weight that is still zero."""

    def __init__(self):
        super().__init__()
        self.a, self.fc, self.weight = nn.Linear(6, 3), nn.Linear(3, CLASSES), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.fc(h + self.weight * h.mean(0))


def test_a_dependence_on_other_samples_is_found_where_its_weight_is_zero():
    model, x, y = Case(HiddenMixing, (6,)).draw()
    credit = NodePerturbation(model, 1)
    credit.backward(x, losses_of(y))
    (indices,) = credit._indices.values()
    first, *_, last = indices.values()
    assert first is None and last is not None


@pytest.mark.parametrize("credit", ["preactivation", "output"])
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_a_nonlinearity_in_place_changes_nothing(chunk_size, credit):
    found = []
    for inplace in (False, True):
        model, x, y = Case(
            lambda inplace=inplace: nn.Sequential(
                *(nn.Linear(6, 8), nn.ReLU(inplace), nn.Linear(8, 7), nn.ReLU(inplace), nn.Linear(7, CLASSES))
            ),
            (6,),
        ).draw()
        seeded(model, 5, 0.3, credit, chunk_size=chunk_size).backward(x, losses_of(y))
        found.append(list(gradients(model).values()))
    torch.testing.assert_close(found[0], found[1])


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


def seeded(model, *args, seed=11, **options):
    return NodePerturbation(model, *args, generator=torch.Generator().manual_seed(seed), **options)


class Dropped(nn.Module):
    """Dropout before the first noise and after it, and batch normalization."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.fc = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(functional.dropout(x, 0.4, self.training))))
        return self.fc(functional.dropout(h, 0.5, self.training))


MANY = {**SMALL, "dropped": Case(Dropped, (6,))}


@pytest.mark.parametrize("credit", ["preactivation", "output"])
@pytest.mark.parametrize("name", MANY)
def test_one_pass_after_the_other_equals_all_in_one_batch(name, credit):
    found = []
    for chunk_size in (1, 3):
        model, x, y = MANY[name].draw()
        torch.manual_seed(7)
        rule_ = seeded(model, 5, 0.1, credit, chunk_size=chunk_size)
        losses = rule_.backward(x, losses_of(y))
        found.append([losses, *gradients(model).values(), torch.rand(1)])
        # torch.vmap does not support a function that puts activity into a plain tensor.
        assert rule_._loops == (chunk_size == 3 and name == "handmade")
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_all_passes_share_the_dropout_masks(orthogonal):
    """With one mask for all passes the estimate is the gradient under this mask."""
    model, x, y = MANY["dropped"].draw()
    size = noise_size(NodePerturbation(model, 1), x, losses_of(y))
    torch.manual_seed(3)
    expected = gradient_of(model, x, y)
    orthogonal()
    for chunk_size in (1, 50):
        model.zero_grad()
        credit = NodePerturbation(model, size, 1e-7, normalize=True, chunk_size=chunk_size)
        torch.manual_seed(3)
        credit.backward(x, losses_of(y))
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rest", ["none", "gradient"])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_buffers_and_random_states_change_as_in_one_forward_pass(chunk_size, rest):
    model, x, y = MANY["dropped"].draw()
    other = copy.deepcopy(model)
    credit = seeded(model, 4, modules=["first", "norm"], rest=rest, chunk_size=chunk_size)
    torch.manual_seed(2)
    losses = credit.backward(x, losses_of(y))
    follows = torch.rand(3)
    torch.manual_seed(2)
    with torch.no_grad():
        expected = losses_of(y)(other(x))
    torch.testing.assert_close(torch.rand(3), follows, rtol=0, atol=0)
    torch.testing.assert_close(losses, expected)
    for (name, buffer), expected in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, msg=name)
    assert model.norm.num_batches_tracked == 1 and model.norm.running_mean.abs().max() > 0
    assert (model.fc.weight.grad is not None) == (rest == "gradient")


def test_evaluation_mode_is_respected(orthogonal):
    model, x, y = MANY["dropped"].draw()
    with torch.no_grad():
        model(x)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    expected = gradient_of(model, x, y)
    size = noise_size(NodePerturbation(model, 1), x, losses_of(y))
    model.zero_grad()
    orthogonal()
    losses = NodePerturbation(model, size, 1e-7, normalize=True).backward(x, losses_of(y))
    torch.testing.assert_close(losses, losses_of(y)(model(x)).detach())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["normalized", "gru", "weight-norm"])
def test_the_module_is_left_as_it_was(name):
    model, x, y = MANY[name].draw()
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    objects = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    attributes = [set(vars(module)) for module in model.modules()]
    seeded(model, 4).backward(x, losses_of(y))
    assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == kinds
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == objects
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert not x.requires_grad


def test_a_hook_can_keep_activity():
    """All passes are seen, and none of them is a batch of passes."""
    model, x, y = SMALL["mlp"].draw()
    kept = []
    model[0].register_forward_hook(lambda module, args, output: kept.append(output))
    seeded(model, 5, chunk_size=5).backward(x, losses_of(y))
    # Without noise, with both signs, and once to find the samples.
    assert len(kept) == 1 + 2 * 5 + 1
    assert all(torch.isfinite(output.detach().clone()).all() and output.shape == (4, 8) for output in kept)


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def inside(module):
    """The module with one layer that is compiled."""
    module[0] = torch.compile(module[0], backend="aot_eager")
    return module


@pytest.mark.parametrize("wrap", [nn.DataParallel, Wrapped])
def test_wrappers_change_nothing(wrap):
    model, x, y = SMALL["normalized"].draw()
    same = copy.deepcopy(model)
    seeded(model, 4).backward(x, losses_of(y))
    credit = seeded(wrap(same), 4, modules=["0", "1", "3", "4", "7", "8"])
    credit.backward(x, losses_of(y))
    assert list(credit.parameters) == list(dict(model.named_parameters()))
    torch.testing.assert_close(gradients(same), gradients(model))


def test_a_compiled_layer_changes_nothing():
    model, x, y = SMALL["normalized"].draw()
    same = copy.deepcopy(model)
    seeded(model, 4).backward(x, losses_of(y))
    seeded(inside(same), 4).backward(x, losses_of(y))
    torch.testing.assert_close(list(gradients(same).values()), list(gradients(model).values()))


def test_inputs_are_a_tensor_positional_arguments_or_keywords():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, x, *, z):
            return {"logits": [self.a(x) + self.b(z)]}

    class Positional(Two):
        def forward(self, x, z):
            return super().forward(x, z=z)

    torch.manual_seed(0)
    keyword, x, z = Two(), torch.randn(5, 3), torch.randn(5, 2)
    positional = Positional()
    positional.load_state_dict(keyword.state_dict())
    loss = lambda output: output["logits"][0].square().sum(1)  # noqa: E731
    seeded(keyword, 4).backward({"x": x, "z": z}, loss)
    seeded(positional, 4).backward((x, z), loss)
    torch.testing.assert_close(gradients(keyword), gradients(positional))
    assert keyword.b.weight.grad.abs().max() > 0


def test_autocast():
    """Under autocast the noise has the type of the activity, and gradients that of the parameters."""
    model, x, y = SMALL["mlp"].draw(dtype=torch.float32)
    types = set()
    draw = credit_module.Noise.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit_module.Noise, "draw", lambda *args: types.add(args[0].dtype) or draw(*args))
        expected = gradient_of(model, x, y)
        for chunk_size in (1, 500):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                seeded(model, 500, 0.2, normalize=True, chunk_size=chunk_size).backward(x, losses_of(y))
            found = torch.cat([gradient.flatten() for gradient in gradients(model).values()])
            true = torch.cat([gradient.flatten() for gradient in expected.values()])
            assert torch.cosine_similarity(found, true, 0) > 0.9
            assert all(gradient.dtype == torch.float32 for gradient in gradients(model).values())
    assert types == {torch.bfloat16}


def test_gradients_accumulate_and_normalize_divides_by_the_variance():
    model, x, y = SMALL["mlp"].draw()
    seeded(model, 4, 0.2).backward(x, losses_of(y))
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    seeded(model, 4, 0.2, normalize=True).backward(x, losses_of(y))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, once[name] * (1 + 1 / 0.04))


def test_modules_choose_what_learns_and_where_noise_is():
    model, x, y = SMALL["mlp"].draw()
    credit = seeded(model, 4, modules="2", rest=seeded(model, 2, modules=["4"], seed=12))
    credit.backward(x, losses_of(y))
    (indices,) = credit._indices.values()
    assert len(indices) == 1 and list(credit.parameters) == ["2.weight", "2.bias"]
    assert [gradient is not None for gradient in gradients(model).values()] == [False, False, True, True, True, True]


def test_resume_continues_the_noise():
    model, x, y = SMALL["gru"].draw()
    credit = seeded(model, 3)
    credit.backward(x, losses_of(y))
    state = copy.deepcopy(credit.state_dict())
    found = []
    for rule_ in (credit, seeded(model, 3, seed=99)):
        rule_.load_state_dict(state)
        model.zero_grad()
        rule_.backward(x, losses_of(y))
        found.append(gradients(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_noise_differs_from_step_to_step_and_is_normal():
    model, x, y = Case(lambda: nn.Linear(6, 2000), (6,), batch=50).draw(dtype=torch.float32)
    drawn = []
    draw = credit_module.Noise.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit_module.Noise, "draw", lambda *args: drawn.append(draw(*args).clone()) or drawn[-1])
        credit = seeded(model, 2, 0.3)
        for _ in range(2):
            credit.backward(x, losses_of(y % 5))
    rows = torch.cat(drawn)
    assert len(rows) == 4
    assert ((rows.std(1) / 0.3 - 1).abs() < 0.015).all() and (rows.mean(1).abs() < 0.005).all()
    correlations = torch.corrcoef(rows) - torch.eye(4)
    assert correlations.abs().max() < 0.02


class Branch(nn.Module):
    """The sign of activity decides what is called."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Linear(6, 4), nn.Linear(4, CLASSES)
        nn.init.zeros_(self.a.weight)
        nn.init.zeros_(self.a.bias)

    def forward(self, x):
        h = self.a(x)
        return self.fc(torch.tanh(h) if h.sum() > 0 else h)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(6, CLASSES, dtype=torch.complex128))

    def forward(self, x):
        return (x.to(self.a.dtype) @ self.a).abs()


class Caching(nn.Module):
    """Computes a table in its first call."""

    def __init__(self):
        super().__init__()
        self.fc, self.tables = nn.Linear(6, CLASSES), {}

    def forward(self, x):
        if not self.tables:
            self.tables["cosine"] = torch.arange(6, dtype=x.dtype).cos()
        return self.fc(x * self.tables["cosine"])


def test_a_table_that_the_first_call_computes_does_not_disturb(orthogonal):
    model, x, y = Case(Caching, (6,)).draw()
    expected = gradient_of(copy.deepcopy(model), x, y)
    orthogonal()
    # 4 samples of 5 units, in a row of 32 numbers.
    credit = NodePerturbation(model, 32, 1e-7, normalize=True)
    credit.backward(x, losses_of(y))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


class ChangesLater(nn.Module):
    """Changes the output of the first layer in place, after the second layer was called."""

    def __init__(self, harmful=False):
        super().__init__()
        self.first, self.second, self.harmful = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES), harmful

    def forward(self, x):
        h = torch.tanh(self.first(x))
        z = self.second(functional.pad(h, (0, 1)) if not self.harmful else x.mul_(1))
        h += 1
        if self.harmful:
            x += 1
        return h * torch.tanh(z)


def test_calls_before_the_first_noise_are_made_again_if_their_results_change(orthogonal):
    model, x, y = Case(ChangesLater, (6,)).draw()
    parameters = list(model.second.parameters())
    h = torch.tanh(model.first(x)).detach()
    losses = losses_of(y)((h + 1) * torch.tanh(model.second(functional.pad(h, (0, 1)))))
    expected = torch.autograd.grad(losses.mean(), parameters)
    orthogonal()
    NodePerturbation(model, 32, 1e-7, normalize=True, modules="second", chunk_size=1).backward(x, losses_of(y))
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


class Stateful(nn.Module):
    """Keeps its activity from call to call in an attribute, and counts the calls."""

    def __init__(self):
        super().__init__()
        self.a, self.fc, self.h, self.calls = nn.Linear(6, 3), nn.Linear(3, CLASSES), None, 0

    def forward(self, x):
        self.h = torch.tanh(self.a(x) + (0 if self.h is None else self.h.detach()))
        self.calls += 1
        return self.fc(self.h)


@pytest.mark.parametrize("chunk_size", [1, 8])
def test_attributes_change_as_in_one_forward_pass(chunk_size, orthogonal):
    model, x, y = Case(Stateful, (6,)).draw()
    other = copy.deepcopy(model)
    orthogonal()
    for calls in (1, 2):
        model.zero_grad()
        NodePerturbation(model, 32, 1e-7, normalize=True, chunk_size=chunk_size).backward(x, losses_of(y))
        other.zero_grad()
        losses_of(y)(other(x)).mean().backward()
        assert model.calls == calls
        torch.testing.assert_close(model.h, other.h.detach())
        for (name, found), expected in zip(gradients(model).items(), gradients(other).values(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7, msg=name)


class ChangesInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.fc(x.mul_(2))


@pytest.mark.parametrize("chunk_size", [1, 8])
def test_a_module_may_change_its_inputs_in_place(chunk_size, orthogonal):
    """They change once, as in a forward pass."""
    model, x, y = Case(ChangesInputs, (6,)).draw()
    expected = gradient_of(model, x.clone(), y)
    changed = 2 * x
    orthogonal()
    NodePerturbation(model, 32, 1e-7, normalize=True, chunk_size=chunk_size).backward(x, losses_of(y))
    torch.testing.assert_close(x, changed)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


def test_an_input_that_changes_after_its_layer_is_an_error_as_in_torch():
    model, x, y = Case(lambda: ChangesLater(harmful=True), (6,)).draw()
    with pytest.raises(RuntimeError, match="inplace"):
        losses_of(y)(model(x.clone())).mean().backward()
    with pytest.raises(UserError, match="in place after a layer received it"):
        NodePerturbation(model, 1).backward(x.clone(), losses_of(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_does_not_depend_on_how_many_passes_are_in_a_batch(dtype):
    found = []
    for chunk_size in (1, 2, 5):
        model, x, y = SMALL["mlp"].draw(dtype=dtype)
        seeded(model, 5, 0.3, chunk_size=chunk_size).backward(x, losses_of(y))
        found.append(torch.cat([gradient.flatten() for gradient in gradients(model).values()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)
    assert found[0].norm() > 0.01


def test_every_length_and_batch_has_its_own_arrangement(monkeypatch):
    """Batches as large as the time, and more shapes than are remembered."""
    monkeypatch.setattr(credit_module, "_REMEMBERED", 8)
    model = TimeFirst()
    credit = seeded(model, 1)
    for batch in (2, 3, 5, 8):
        for time in (1, 2, 3, 8):
            x, y = torch.randn(batch, time, 3), torch.randint(CLASSES, (batch,))
            credit.backward(x, losses_of(y))
            indices = list(credit._indices.values())[-1]
            for index in indices.values():
                assert index is not None and index.numel() == batch
    assert len(credit._indices) == 8


class Skipping(nn.Module):
    """A hidden layer that is used only if its mean response is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.fc = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        if self.hidden(x).mean() > 0:
            x = self.hidden(x)
        return self.fc(x)


def test_wrong_use_gets_one_line():
    model, x, y = SMALL["mlp"].draw()
    for options, words in [
        ({"perturbations": 0}, "perturbations"),
        ({"perturbations": 2.5}, "perturbations"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"credit": "weights"}, "credit"),
        ({"noise": 0.0}, "noise"),
        ({"modules": ["7"]}, "module '7'"),
        ({"rest": "some"}, "rest"),
    ]:
        with pytest.raises(UserError, match=words):
            NodePerturbation(model, **options).backward(x, losses_of(y))
    with pytest.raises(UserError, match="one for each sample"):
        NodePerturbation(model).backward(x, lambda output: output.sum())
    branch, x, y = Case(Branch, (6,)).draw()
    with pytest.raises(UserError, match="control flow"):
        seeded(branch, 4).backward(x, losses_of(y))
    # The other branch calls the same function for another layer.
    skipping, x, y = Case(Skipping, (6,)).draw()
    with pytest.raises(UserError, match="control flow"):
        NodePerturbation(skipping, perturbations=64, noise=1.0, chunk_size=1).backward(x, losses_of(y))
    hidden, x, y = Case(lambda: Checkpointed(reentrant=True), (6,)).draw()
    with pytest.raises(UserError, match=r"'part\.0\.weight' is used where torch computes no derivatives"):
        NodePerturbation(hidden).backward(x, losses_of(y))
    NodePerturbation(hidden, modules="fc").backward(x, losses_of(y))
    with pytest.raises(UserError, match="complex"):
        NodePerturbation(Complex()).backward(x, losses_of(y))
    unused = nn.ModuleDict({"used": nn.Linear(6, 5), "unused": nn.Linear(6, 5)})
    unused.forward = lambda x: unused["used"](x)
    with pytest.raises(UserError, match="takes part"):
        NodePerturbation(unused, modules="unused").backward(x.float(), losses_of(y))
    credit = NodePerturbation(model)
    credit.detach()
    with pytest.raises(UserError, match="detached"):
        credit.backward(x, losses_of(y))
