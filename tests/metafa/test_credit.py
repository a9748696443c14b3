"""Random feedback on any module, compared with autograd, with equations written out, and with `adapt_step`."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from credit.networks import EVERY, gradient_of, losses_of
from plastic_cli import UserError
from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Credit
from plastic_metafa import RandomFeedback, rule
from plastic_metafa.adaptation import Network, Plasticity, adapt_step
from plastic_metafa.feedback_weights import MODULE_FEEDBACKS, FeedbackWeights, fan_of

SIZES = (6, 8, 7, 5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


class Softplus(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return rule.softplus(z)


def mlp(nonlinearity=Softplus, *, bias: bool = False, sizes=SIZES) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for into, out in pairwise(sizes):
        layers += [nn.Linear(into, out, bias=bias), nonlinearity()]
    return nn.Sequential(*layers[:-1]).double()


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def taught_by(model: nn.Module, x, loss, **options) -> tuple[RandomFeedback, dict[str, Tensor | None]]:
    """Return a rule after one call, and the gradients that it gave."""
    model.zero_grad()
    credit = RandomFeedback(model, **{"generator": seeded(), **options})
    credit.backward(x, loss)
    return credit, gradients(model)


def assert_same(found, wanted, tolerance: float = 1e-10) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", EVERY)
def test_symmetric_feedback_is_the_gradient(name):
    model, x, y = EVERY[name].draw()
    wanted = gradient_of(model, x, y)
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric")
    assert_same(found, wanted)


@pytest.mark.parametrize("name", ["mlp", "transformer", "gru", "normalized"])
def test_symmetric_feedback_with_term_0_by_terms_is_the_gradient_times_theta_0(name):
    model, x, y = EVERY[name].draw()
    wanted = {key: 0.3 * gradient for key, gradient in gradient_of(model, x, y).items()}
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric", theta={0: 0.3})
    assert_same(found, wanted)
    # The same through the code of the terms: term 3 has no strength.
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric", theta={0: 0.3, 3: 0.0})
    assert_same(found, wanted)


@pytest.mark.parametrize("feedback", ["fixed", "sign", "uniform-sign", "direct"])
def test_an_mlp_learns_as_the_equations_say(feedback):
    model = mlp(nn.Tanh, bias=True)
    x, y = draw(9, SIZES[0]), torch.arange(9) % SIZES[-1]
    credit, found = taught_by(model, x, losses_of(y), feedback=feedback)
    W = [model[number].weight.detach() for number in (0, 2, 4)]
    b = [model[number].bias.detach() for number in (0, 2, 4)]
    stored = credit.state_dict()["feedback"]
    B = [stored.get(f"{number}.weight") for number in (0, 2, 4)]
    if feedback == "sign":
        B = [magnitudes.abs() * weights.sign() for magnitudes, weights in zip(B, W, strict=True)]
    if feedback == "uniform-sign":
        B = [math.sqrt(2 / sum(weights.shape)) * weights.sign() for weights in W]
    h0 = torch.tanh(x @ W[0].T + b[0])
    h1 = torch.tanh(h0 @ W[1].T + b[1])
    z2 = h1 @ W[2].T + b[2]
    e2 = (torch.softmax(z2, 1) - functional.one_hot(y, SIZES[-1])) / 9
    e1 = (e2 @ B[2]) * (1 - h1**2)
    e0 = ((e2 if feedback == "direct" else e1) @ B[1]) * (1 - h0**2)
    wanted = {}
    for number, e, below in ((0, e0, x), (2, e1, h0), (4, e2, h1)):
        wanted[f"{number}.weight"], wanted[f"{number}.bias"] = e.T @ below, e.sum(0)
    assert_same(found, wanted)
    if feedback == "direct":
        assert stored["2.weight"].shape == (SIZES[-1], SIZES[1])
        assert "0.weight" not in stored, "nothing needs an error at the input of the module"


@pytest.mark.parametrize("feedback", ["fixed", "sign", "direct"])
def test_a_convolutional_network_learns_as_the_equations_say(feedback):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(16, 5)).double()
    x, y = draw(4, 2, 8, 8), torch.arange(4)
    credit, found = taught_by(model, x, losses_of(y), feedback=feedback)
    conv1, _, conv2, _, _, fc = model
    stored = credit.state_dict()["feedback"]
    B2, B_fc = stored["2.weight"], stored["5.weight"]
    if feedback == "sign":
        B2, B_fc = B2.abs() * conv2.weight.sign(), B_fc.abs() * fc.weight.sign()
    with torch.no_grad():
        h1 = torch.relu(conv1(x))
        h2 = torch.relu(conv2(h1))
        e = (torch.softmax(fc(h2.flatten(1)), 1) - functional.one_hot(y, 5)) / 4
        e2 = (e @ B_fc).view_as(h2) * (h2 > 0)
        if feedback == "direct":
            assert B2.shape == (5, 3, 4, 4)
            e1 = torch.einsum("nk,kchw->nchw", e, B2) * (h1 > 0)
        else:
            e1 = functional.conv_transpose2d(e2, B2) * (h1 > 0)
    wanted = {
        "0.weight": nn.grad.conv2d_weight(x, conv1.weight.shape, e1, stride=2, padding=1),
        "0.bias": e1.sum((0, 2, 3)),
        "2.weight": nn.grad.conv2d_weight(h1, conv2.weight.shape, e2),
        "2.bias": e2.sum((0, 2, 3)),
        "5.weight": e.T @ h2.flatten(1),
        "5.bias": e.sum(0),
    }
    assert_same(found, wanted)


THETA = (0.9, -0.2, -0.3, 0.05, 0.07, 0.11, -0.13, 0.17, -0.19, 0.23)


@pytest.mark.parametrize("feedback", ["fixed", "symmetric", "direct", "sign"])
@pytest.mark.parametrize("terms", [tuple(range(10)), (0, 2, 9), (9, 3), (0, 5), (1, 6, 7, 8)])
def test_the_terms_make_the_step_of_the_published_rule(feedback, terms):
    model = mlp()
    x, y = draw(1, SIZES[0]).abs(), torch.tensor([2])
    theta = [THETA[term] for term in terms]
    credit, found = taught_by(model, x, losses_of(y), feedback=feedback, terms=terms, theta=theta)
    W = [parameter.detach() for parameter in model.parameters()]
    stored = credit.state_dict()["feedback"]
    names = [name for name, _ in model.named_parameters()]
    units = (SIZES[-1] if feedback == "direct" else None, *SIZES[1:])
    B = [
        stored.get(name, torch.zeros(units[0] or out, into, dtype=torch.float64))
        for name, into, out in zip(names, SIZES, SIZES[1:], strict=False)
    ]
    if feedback == "symmetric":
        assert not stored
    target = functional.one_hot(y[0], SIZES[-1]).double()
    stepped = adapt_step(W, B, x[0], target, torch.tensor(theta, dtype=torch.float64), Plasticity(terms, feedback))
    assert_same(found, {name: old - new for name, old, new in zip(names, W, stepped, strict=True)})


@pytest.mark.parametrize("feedback", ["fixed", "direct"])
def test_a_batch_is_the_mean_of_its_samples(feedback):
    model = mlp(bias=True)
    x, y = draw(5, SIZES[0]), torch.arange(5)
    options = {"feedback": feedback, "terms": range(10), "theta": THETA}
    credit, found = taught_by(model, x, losses_of(y), **options)
    single: dict[str, Tensor] = {}
    for number in range(5):
        model.zero_grad()
        credit.backward(x[number : number + 1], losses_of(y[number : number + 1]))
        for name, gradient in gradients(model).items():
            single[name] = single.get(name, 0) + gradient / 5
    assert_same(found, single)


class OnPatches(nn.Module):
    """A convolution written as a linear layer on patches, for each group."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.options = {"kernel_size": conv.kernel_size, "stride": conv.stride, "dilation": conv.dilation}
        self.groups = nn.ModuleList()
        for part in conv.weight.detach().chunk(conv.groups):
            self.groups.append(nn.Linear(part[0].numel(), len(part), bias=False).double())
            self.groups[-1].weight.data = part.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for part, layer in zip(x.chunk(len(self.groups), 1), self.groups, strict=True):
            maps.append(rule.softplus(layer(functional.unfold(part, **self.options).transpose(1, 2))))
        return torch.cat(maps, -1).transpose(1, 2)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "dilation": 2}, {"groups": 2}])
def test_a_convolution_learns_as_a_linear_layer_on_its_patches(options):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, bias=False, **options).double()
    x, y = draw(3, 2, 7, 7).abs(), torch.tensor([0, 1, 2])

    def loss(output: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(2).mean(2), y, reduction="none")

    theta = dict(enumerate(THETA))
    # Convolution and linear layer see the same B: that of the convolution, in its groups.
    credit = RandomFeedback(nn.Sequential(conv, Softplus()), theta=theta, generator=seeded())
    credit.backward(x, loss)
    patches = OnPatches(conv)
    other = RandomFeedback(patches, theta=theta, generator=seeded())
    B = credit.feedback_weights()["0.weight"].chunk(conv.groups)
    state = other.state_dict()
    state["feedback"] = {f"groups.{number}.weight": part.flatten(1) for number, part in enumerate(B)}
    other.load_state_dict(state)
    other.backward(x, loss)
    wanted = torch.cat([layer.weight.grad for layer in patches.groups]).view_as(conv.weight)
    torch.testing.assert_close(conv.weight.grad, wanted, rtol=1e-10, atol=1e-10)


def test_a_transposed_convolution_learns_as_a_linear_layer_to_the_patches_it_reaches():
    """Patches do not overlap and biases are 0: the patch is then the response of a linear layer at each position."""
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False).double()
    x = draw(4, 3, 3, 3).abs()
    weighting = draw(2, 6, 6, seed=1)
    theta = {key: value for key, value in enumerate(THETA) if key != 3}
    credit = RandomFeedback(nn.Sequential(conv, Softplus()), theta=theta, output="linear", generator=seeded())
    credit.backward(x, lambda output: (weighting * output).sum((1, 2, 3)))
    linear = nn.Linear(3, 8, bias=False).double()
    linear.weight.data = conv.weight.detach().flatten(1).T.contiguous()
    patches = functional.unfold(weighting[None], 2, stride=2)[0].T
    other = RandomFeedback(nn.Sequential(linear, Softplus()), theta=theta, output="linear", generator=seeded())
    state = other.state_dict()
    state["feedback"] = {"0.weight": credit.feedback_weights()["0.weight"].flatten(1).T.contiguous()}
    other.load_state_dict(state)
    other.backward(x.flatten(2).transpose(1, 2), lambda output: (patches * output).sum((1, 2)))
    torch.testing.assert_close(conv.weight.grad.flatten(1).T, linear.weight.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["normalized", "conv1d", "conv3d", "transposed", "encoder-layer", "lstm", "shared"])
def test_term_0_by_the_code_of_the_terms_is_feedback_alignment(name):
    model, x, y = EVERY[name].draw()
    _, wanted = taught_by(model, x, losses_of(y), terms=(0,), theta=(0.7,))
    wanted = {key: gradient.clone() for key, gradient in wanted.items()}
    _, found = taught_by(model, x, losses_of(y), terms=(0, 5, 6), theta=(0.7, 0.0, 0.0))
    assert_same(found, wanted)


def test_time_steps_count_as_samples_of_their_own():
    """A linear layer on 4 time steps changes by the sum of the changes of the steps, except for the decay."""
    model = mlp()
    x = draw(1, 4, SIZES[0]).abs()
    theta = {key: value for key, value in enumerate(THETA) if key != 3}
    credit, found = taught_by(model, x, lambda output: output.square().sum((1, 2)), theta=theta, output="linear")
    total: dict[str, Tensor] = {}
    for step in x[0]:
        model.zero_grad()
        credit.backward(step[None], lambda output: output.square().sum(1))
        for name, gradient in gradients(model).items():
            total[name] = total.get(name, 0) + gradient
    assert_same(found, total)


@pytest.mark.parametrize("chosen", [*[(number,) for number in range(10) if number != 3], tuple({*range(10)} - {3})])
@pytest.mark.parametrize("leading", [(), (2,)])
def test_the_sum_over_samples_is_the_sum_of_the_changes_of_single_samples(chosen, leading):
    W = draw(*leading, 4, 3)
    y_pre, e_pre = draw(*leading, 6, 3, seed=1), draw(*leading, 6, 3, seed=2)
    y_post, e_post = draw(*leading, 6, 4, seed=3), draw(*leading, 6, 4, seed=4)
    theta = {number: THETA[number] for number in chosen}
    uses = any(rule.TERMS[number].uses_e_pre for number in chosen)
    W_e_pre = e_pre @ W.transpose(-1, -2) if uses else None
    of_y, of_e = rule.factors_above(y_post, e_post, theta, y_pre @ W.transpose(-1, -2), W_e_pre)
    found = of_y.transpose(-1, -2) @ y_pre + rule.second_factor_of_oja(W, y_post, theta)
    if uses:
        found = found + of_e.transpose(-1, -2) @ e_pre
    strengths = torch.tensor(list(theta.values()), dtype=torch.float64)
    wanted = sum(
        rule.plasticity_update(W, *(part[..., n, :] for part in (y_pre, y_post, e_pre, e_post)), strengths, chosen)
        for n in range(6)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    ],
)
def test_kolen_pollack_is_two_sets_of_weights_with_the_same_changes(optimizer):
    """Both sets are simulated with an optimizer each, and decay after each step."""
    decay = 0.05
    model = mlp(nn.Tanh)
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]
    credit = RandomFeedback(model, "kolen-pollack", decay=decay, generator=seeded())
    steps = optimizer(model.parameters())
    simulated = None
    for _ in range(12):
        model.zero_grad()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        credit.backward(x, losses_of(y))
        if simulated is None:
            simulated = [nn.Parameter(B.clone()) for B in credit.feedback_weights().values()]
            steps_of_B = optimizer(simulated)
        assert_same(dict(enumerate(credit.feedback_weights().values())), dict(enumerate(simulated)), 1e-8)
        for B, parameter in zip(simulated, model.parameters(), strict=True):
            B.grad = parameter.grad.clone()
        steps.step()
        steps_of_B.step()
        with torch.no_grad():
            # W and B decay by the same share of their values before the step.
            for B, W, old in zip(simulated, model.parameters(), before, strict=True):
                old_B = credit.feedback_weights()[next(n for n, p in model.named_parameters() if p is W)]
                B -= decay * old_B
                W -= decay * old


def test_kolen_pollack_makes_feedback_equal_to_the_weights():
    model = mlp(nn.Tanh)
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]
    credit = RandomFeedback(model, "kolen-pollack", decay=0.1, generator=seeded())
    for number in range(200):
        credit.backward(x, losses_of(y))
        if number == 0:
            assert not torch.allclose(credit.feedback_weights()["2.weight"], model[2].weight, atol=0.1)
    torch.testing.assert_close(credit.feedback_weights()["2.weight"], model[2].weight.detach(), rtol=0, atol=1e-8)


def test_the_weight_mirror_approaches_the_weights():
    W, B = draw(7, 9), draw(7, 9, seed=1)
    generator = seeded(2)
    for _ in range(3000):
        B = rule.weight_mirror(B, W, torch.randn(16, 9, dtype=torch.float64, generator=generator), 0.003)
    # The noise of the estimate: each entry has the variance (|W row|^2 + w^2) / samples, averaged over 2 / rate steps.
    error = ((W.square().sum(1, keepdim=True) + W.square()) / 16 * 0.003 / 2).sqrt()
    assert ((B - W) / error).square().mean() == pytest.approx(1, abs=0.6)
    model = mlp(nn.Tanh)
    credit = RandomFeedback(model, "weight-mirror", mirror_rate=0.05, generator=seeded())
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]

    def cosine() -> float:
        B = credit.feedback_weights()["2.weight"]
        return float(functional.cosine_similarity(B.flatten(), model[2].weight.detach().flatten(), 0))

    credit.backward(x, losses_of(y))
    assert cosine() < 0.5
    for _ in range(150):
        credit.backward(x, losses_of(y))
    assert cosine() > 0.95


def test_magnitudes_are_drawn_once_or_for_each_call():
    model = mlp(nn.Tanh)
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]
    drawn = {}
    for feedback in ("sign", "batchwise-sign", "uniform-sign"):
        credit = RandomFeedback(model, feedback, generator=seeded())
        for _ in range(2):
            credit.backward(x, losses_of(y))
            B = credit.feedback_weights()["2.weight"]
            assert torch.equal(B.sign(), model[2].weight.sign())
            drawn.setdefault(feedback, []).append(B.abs())
    assert torch.equal(*drawn["sign"])
    assert not torch.equal(*drawn["batchwise-sign"])
    assert drawn["uniform-sign"][0].unique().numel() == 1


@pytest.mark.parametrize("scale", ["xavier", "kaiming"])
@pytest.mark.parametrize("kind", ["fixed", "batchwise-sign"])
def test_random_feedback_has_the_scale_of_its_distribution(kind, scale):
    weights = FeedbackWeights(kind, scale=scale, generator=seeded())
    W = torch.randn(41, 30, 3, 3, generator=seeded(1))
    B = weights.of("W", W, fan_of(W))
    reference = torch.empty_like(W)
    if scale == "xavier":
        nn.init.xavier_uniform_(reference)
    else:
        nn.init.kaiming_uniform_(reference, a=math.sqrt(5))
    bound = float(reference.abs().max())
    assert float(B.abs().max()) == pytest.approx(bound, rel=1e-3)
    assert float(B.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(float(B.mean())) < 4 * bound / math.sqrt(3 * B.numel())
    # Uniform: as many magnitudes in each tenth of the range, within five standard deviations.
    counts = torch.histc(B.abs() / bound, 10, 0, 1)
    assert float((counts - B.numel() / 10).abs().max()) < 5 * math.sqrt(0.09 * B.numel())


@pytest.mark.parametrize("feedback", MODULE_FEEDBACKS)
def test_a_restored_rule_goes_on_as_if_it_was_never_stopped(feedback):
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]
    model = mlp(nn.Tanh)
    credit = RandomFeedback(model, feedback, generator=seeded())
    for _ in range(2):
        credit.backward(x, losses_of(y))
    state = copy.deepcopy(credit.state_dict())
    other = RandomFeedback(model, feedback, generator=seeded(9))
    other.load_state_dict(state)
    found = []
    for rule_of_both in (credit, other):
        model.zero_grad()
        for _ in range(2):
            rule_of_both.backward(x, losses_of(y))
        found.append({name: gradient.clone() for name, gradient in gradients(model).items()})
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])
    with pytest.raises(UserError, match="the state is that of feedback="):
        RandomFeedback(model, "fixed" if feedback != "fixed" else "sign").load_state_dict(state)


def test_training_by_fixed_feedback_aligns_the_weights_with_it():
    """Lillicrap et al. 2016: B^T e comes within 90 degrees of W^T e. Initial weights are small, as there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 5)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    centers = draw(5, 10)
    y = torch.arange(100) % 5
    x = centers[y] + 0.3 * draw(100, 10, seed=1)
    credit = RandomFeedback(model, "fixed", generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    cosines, losses = [], []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(float(credit.backward(x, losses_of(y)).mean()))
        with torch.no_grad():
            e = torch.softmax(model(x), 1) - functional.one_hot(y, 5)
            B, W = credit.feedback_weights()["2.weight"], model[2].weight
            cosines.append(float(functional.cosine_similarity(e @ B, e @ W, 1).mean()))
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    assert abs(cosines[0]) < 0.35
    assert cosines[-1] > 0.5


def test_the_module_stays_as_it_is():
    model, x, y = EVERY["normalized"].draw()
    before, keys, kinds = model(x).detach(), list(model.state_dict()), [type(part) for part in model.modules()]
    model.train()
    running = copy.deepcopy(model)
    running(x)
    credit = RandomFeedback(model, terms=range(10), theta=THETA, generator=seeded())
    assert isinstance(credit, Credit)
    credit.backward(x, losses_of(y))
    assert list(model.state_dict()) == keys
    assert [type(part) for part in model.modules()] == kinds
    assert all(not part._forward_hooks and not part._backward_hooks for part in model.modules())
    assert all(not parameter._backward_hooks for parameter in model.parameters())
    # Running statistics are those of one more forward pass.
    for name, buffer in running.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer, msg=name)
    torch.testing.assert_close(model(x), before)
    credit.detach()
    with pytest.raises(UserError, match="detached"):
        credit.backward(x, losses_of(y))


def test_gradients_accumulate():
    model = mlp(nn.Tanh, bias=True)
    x, y = draw(8, SIZES[0]), torch.arange(8) % SIZES[-1]
    credit, found = taught_by(model, x, losses_of(y), theta={0: 0.5, 2: -0.1, 3: 0.1})
    once = {name: gradient.clone() for name, gradient in found.items()}
    credit.backward(x, losses_of(y))
    assert_same(gradients(model), {name: 2 * gradient for name, gradient in once.items()})


def test_the_rest_learns_by_the_gradient_or_not_at_all_or_by_another_rule():
    model, x, y = EVERY["lenet"].draw()
    exact = gradient_of(model, x, y)
    every = dict(model.named_parameters())
    below, above = ("0.", "3."), ("7.", "9.")
    _, found = taught_by(model, x, losses_of(y), modules=["7", "9"])
    assert all((found[name] is None) == name.startswith(below) for name in every)
    # Below the taught layers, errors have passed through their B; what is above them has the exact gradient.
    _, found = taught_by(model, x, losses_of(y), modules=["0", "3"], rest="gradient")
    assert_same(
        {name: found[name] for name in exact if name.startswith(above)},
        {name: exact[name] for name in exact if name.startswith(above)},
    )
    credit, found = taught_by(model, x, losses_of(y), modules=["7", "9"], rest="gradient")
    assert not torch.allclose(found["0.weight"], exact["0.weight"])
    _, found = taught_by(model, x, losses_of(y), modules=["7", "9"], rest=Gradient(model, ["0", "3"]))
    assert_same(
        {name: found[name] for name in exact if name.startswith(below)},
        {name: exact[name] for name in exact if name.startswith(below)},
    )
    assert set(credit.parameters) == {name for name in every if name.startswith(above)}


class Tied(nn.Module):
    """Embedding and readout share their weights; the readout uses a transposed view."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(5, 6), nn.Parameter(torch.randn(6, 6))

    def forward(self, tokens: Tensor) -> Tensor:
        h = torch.tanh(self.words(tokens).mean(1) @ self.mix)
        return h @ self.words.weight.t()


@pytest.mark.parametrize("theta", [{0: 1.0}, {0: 0.4}, {0: 0.4, 3: 0.0}])
def test_tied_and_transposed_weights(theta):
    torch.manual_seed(0)
    model = Tied().double()
    x, y = torch.arange(12).view(4, 3) % 5, torch.arange(4)
    wanted = {name: theta[0] * gradient for name, gradient in gradient_of(model, x, y).items()}
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric", theta=theta)
    assert_same(found, wanted)
    credit, found = taught_by(model, x, losses_of(y), theta=theta)
    B = credit.feedback_weights()
    with torch.no_grad():
        below = model.words(x).mean(1)
        h = torch.tanh(below @ model.mix)
        e = (torch.softmax(h @ model.words.weight.T, 1) - functional.one_hot(y, 5)) / 4
        e_h = (e @ B["words.weight"]) * (1 - h**2)
        table = e.T @ h
        for sample, tokens in enumerate(x):
            for token in tokens:
                table[token] += (e_h[sample] @ B["mix"].T) / 3
    assert_same(found, {"words.weight": theta[0] * table, "mix": theta[0] * below.T @ e_h})


class Einsum(nn.Module):
    """Weights in einsum, on the left of a product, and in nn.Bilinear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 7)), nn.Parameter(torch.randn(5, 7))
        self.bilinear, self.fc = nn.Bilinear(5, 3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(torch.einsum("ni,ij->nj", x, self.first))
        z = (self.second @ h.T).T
        return self.fc(torch.tanh(self.bilinear(torch.tanh(z), x[:, :3])))


def test_other_bilinear_functions():
    torch.manual_seed(0)
    model = Einsum().double()
    x, y = draw(4, 6), torch.arange(4)
    wanted = gradient_of(model, x, y)
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric")
    assert_same(found, wanted)
    credit, found = taught_by(model, x, losses_of(y))
    B = credit.feedback_weights()
    assert set(B) == {"second", "bilinear.weight", "fc.weight"}
    with torch.no_grad():
        h = torch.tanh(torch.einsum("ni,ij->nj", x, model.first))
        a = torch.tanh((model.second @ h.T).T)
        c = torch.tanh(model.bilinear(a, x[:, :3]))
        e = (torch.softmax(model.fc(c), 1) - functional.one_hot(y, 5)) / 4
        e_c = (e @ B["fc.weight"]) * (1 - c**2)
        e_a = torch.einsum("no,oij,nj->ni", e_c, B["bilinear.weight"], x[:, :3]) * (1 - a**2)
        e_h = (e_a @ B["second"]) * (1 - h**2)
    torch.testing.assert_close(found["bilinear.weight"], torch.einsum("no,ni,nj->oij", e_c, a, x[:, :3]))
    torch.testing.assert_close(found["second"], e_a.T @ h)
    torch.testing.assert_close(found["first"], x.T @ e_h)
    with pytest.raises(UserError, match=r"'second' is used in .*matmul.*: the terms beyond 0"):
        taught_by(model, x, losses_of(y), theta={0: 1, 9: 0.1})
    with pytest.raises(UserError, match=r"'second' is used in .*matmul.*: direct feedback"):
        taught_by(model, x, losses_of(y), feedback="direct")


@pytest.mark.parametrize(
    "parametrize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_weights_that_are_computed_from_parameters(parametrize):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), parametrize(nn.Linear(8, 7)), nn.Tanh(), nn.Linear(7, 5)).double()
    model.eval()
    x, y = draw(4, 6), torch.arange(4)
    wanted = gradient_of(model, x, y)
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric")
    assert_same(found, wanted)
    credit, found = taught_by(model, x, losses_of(y))
    (B,) = (B for name, B in credit.feedback_weights().items() if name.startswith("2."))
    with torch.no_grad():
        h0 = torch.tanh(model[0](x))
        h1 = torch.tanh(model[2](h0))
        e = (torch.softmax(model[4](h1), 1) - functional.one_hot(y, 5)) / 4
        e1 = (e @ credit.feedback_weights()["4.weight"]) * (1 - h1**2)
        e0 = (e1 @ B) * (1 - h0**2)
    torch.testing.assert_close(found["0.weight"], e0.T @ x)
    torch.testing.assert_close(found["2.bias"], e1.sum(0))


class LowRank(nn.Module):
    """Low-rank adaptation: the second layer has the weight W + 2 A B, with W fixed or learning.

    A and B have names in the order of the alphabet, as joined names have.
    """

    def __init__(self, use: str, learning: bool) -> None:
        super().__init__()
        self.use, self.first, self.fc = use, nn.Linear(6, 8), nn.Linear(7, 5)
        self.a, self.b = nn.Parameter(torch.randn(7, 2)), nn.Parameter(torch.randn(2, 8))
        self.w = nn.Parameter(torch.randn(7, 8), requires_grad=learning)

    def second(self, h: Tensor) -> Tensor:
        if self.use == "linear":
            return functional.linear(h, self.w + 2 * (self.a @ self.b))
        if self.use == "einsum":
            return functional.linear(h, self.w + torch.einsum("or,ri->oi", self.a, 2 * self.b))
        if self.use == "linear in linear":
            return functional.linear(h, self.w + functional.linear(2 * self.a, self.b.T))
        if self.use == "right":
            return h @ (self.w + 2 * (self.a @ self.b)).T
        return ((self.w + 2 * (self.a @ self.b)) @ h.T).T

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.second(torch.tanh(self.first(x)))))


USES = ("linear", "einsum", "linear in linear", "right")


@pytest.mark.parametrize(("use", "learning"), [*((use, learning) for use in USES for learning in (0, 1)), ("left", 1)])
def test_a_product_of_parameters_is_part_of_a_weight_and_no_layer(use, learning):
    torch.manual_seed(0)
    model = LowRank(use, bool(learning)).double()
    x, y = draw(4, 6), torch.arange(4)
    Gradient(model).backward(x, losses_of(y))
    wanted = gradients(model)
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric")
    torch.testing.assert_close(found, wanted)
    credit, found = taught_by(model, x, losses_of(y))
    B = credit.feedback_weights()
    name = "a+b+w" if learning else "a+b"
    assert set(B) == {"first.weight", name, "fc.weight"} == set(credit.state_dict()["feedback"])
    with torch.no_grad():
        h0 = torch.tanh(model.first(x))
        h1 = torch.tanh(model.second(h0))
        e = (torch.softmax(model.fc(h1), 1) - functional.one_hot(y, 5)) / 4
        e1 = (e @ B["fc.weight"]) * (1 - h1**2)
        e0 = (e1 @ B[name].view_as(model.w) if use != "right" else e1 @ B[name].T) * (1 - h0**2)
        change = e1.T @ h0
    torch.testing.assert_close(found["first.weight"], e0.T @ x)
    torch.testing.assert_close(found["a"], 2 * change @ model.b.T)
    torch.testing.assert_close(found["b"], 2 * model.a.T @ change)
    if learning:
        torch.testing.assert_close(found["w"], change)
    if use == "left":
        return
    credit, found = taught_by(model, x, losses_of(y), feedback="direct")
    B = credit.feedback_weights()
    assert set(B) == {name, "fc.weight"}
    with torch.no_grad():
        e1, e0 = (e @ B["fc.weight"]) * (1 - h1**2), (e @ B[name]) * (1 - h0**2)
        change = e1.T @ h0
    torch.testing.assert_close(found["first.weight"], e0.T @ x)
    torch.testing.assert_close(found["b"], 2 * model.a.T @ change)


@pytest.mark.parametrize("use", ["linear", "linear in linear", "right"])
def test_the_terms_change_a_product_of_parameters_by_the_chain_rule(use):
    """The change of the whole weight is that of a layer with this weight and the same feedback."""
    torch.manual_seed(0)
    model = LowRank(use, learning=True).double()
    plain = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7, bias=False), nn.Tanh(), nn.Linear(7, 5)).double()
    with torch.no_grad():
        for layer, other in ((plain[0], model.first), (plain[4], model.fc)):
            layer.load_state_dict(other.state_dict())
        plain[2].weight.copy_(model.w + 2 * model.a @ model.b)
    x, y = draw(4, 6), torch.arange(4)
    theta = {key: value for key, value in enumerate(THETA) if key != 3}
    credit, found = taught_by(model, x, losses_of(y), theta=theta)
    B = credit.feedback_weights()
    other = RandomFeedback(plain, theta=theta, generator=seeded())
    state = other.state_dict()
    whole = B["a+b+w"].T if use == "right" else B["a+b+w"]
    state["feedback"] = {"2.weight": whole.clone(), "4.weight": B["fc.weight"], "0.weight": B["first.weight"]}
    other.load_state_dict(state)
    other.backward(x, losses_of(y))
    change = plain[2].weight.grad
    torch.testing.assert_close(found["w"], change)
    torch.testing.assert_close(found["a"], 2 * change @ model.b.detach().T)
    torch.testing.assert_close(found["b"], 2 * model.a.detach().T @ change)
    torch.testing.assert_close(found["first.weight"], plain[0].weight.grad)
    torch.testing.assert_close(found["first.bias"], plain[0].bias.grad)


class LowRankWords(nn.Module):
    """An embedding with the table W + A B."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(9, 2)), nn.Parameter(torch.randn(2, 6))
        self.w, self.fc = nn.Parameter(torch.randn(9, 6)), nn.Linear(6, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(torch.tanh(functional.embedding(tokens, self.w + self.a @ self.b).sum(1)))


@pytest.mark.parametrize("theta", [{0: 1.0}, {0: 0.4, 9: 0.0}])
def test_a_product_of_parameters_as_an_embedding_has_no_feedback(theta):
    torch.manual_seed(0)
    model = LowRankWords().double()
    x, y = torch.arange(12).view(4, 3) % 9, torch.arange(4)
    credit, found = taught_by(model, x, losses_of(y), theta=theta)
    B = credit.feedback_weights()
    assert set(B) == {"fc.weight"}
    with torch.no_grad():
        h = torch.tanh(functional.embedding(x, model.w + model.a @ model.b).sum(1))
        e = (torch.softmax(model.fc(h), 1) - functional.one_hot(y, 5)) / 4
        e_h = theta[0] * (e @ B["fc.weight"]) * (1 - h**2)
        change = torch.zeros_like(model.w)
        for sample, tokens in enumerate(x):
            for token in tokens:
                change[token] += e_h[sample]
    assert_same({key: found[key] for key in "abw"}, {"w": change, "a": change @ model.b.T, "b": model.a.T @ change})


class Queries(nn.Module):
    """Attention of learned queries: layers of parameters alone, whose responses are activity."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 6))
        self.query, self.key, self.fc = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.queries).expand(len(x), 3, 4)
        return self.fc((torch.softmax(query @ self.key(x).mT, -1) @ x).mean(1))


def test_a_layer_of_parameters_alone_has_feedback_if_its_response_is_activity():
    torch.manual_seed(0)
    model = Queries().double()
    x, y = draw(4, 7, 5), torch.arange(4)
    wanted = gradient_of(model, x, y)
    _, found = taught_by(model, x, losses_of(y), feedback="symmetric")
    assert_same(found, wanted)
    credit, found = taught_by(model, x, losses_of(y))
    B = credit.feedback_weights()
    assert set(B) == {"query.weight", "key.weight", "fc.weight"}
    # The error at the response of the layer of queries is that at its bias, in each row.
    query = model.query(model.queries).detach().requires_grad_()
    attended = (torch.softmax(query @ model.key(x).mT, -1) @ x).mean(1)
    e = (torch.softmax(model.fc(attended), 1).detach() - functional.one_hot(y, 5)) / 4
    (e_query,) = torch.autograd.grad(attended, query, e @ B["fc.weight"])
    torch.testing.assert_close(found["queries"], e_query @ B["query.weight"])


@dataclass
class Output:
    """What a module returns that names its outputs."""

    logits: Tensor
    stimuli: Tensor
    hidden: Tensor | None = None


@pytest.mark.parametrize(
    "pack",
    [
        Output,
        lambda logits, x: (logits, x),
        lambda logits, x: {"logits": logits, "more": [x]},
        lambda logits, x: Output(logits, x, logits),
    ],
)
@pytest.mark.parametrize("options", [{"theta": {0: 1.0, 9: 0.1}}, {"feedback": "direct"}])
def test_a_module_may_return_a_dataclass_a_tuple_or_a_dictionary(pack, options):
    """The last layer has its softmax, as if the module returned one tensor."""
    model = mlp()
    x, y = draw(4, SIZES[0]), torch.arange(4)
    _, wanted = taught_by(model, x, losses_of(y), **options)
    wanted = {name: gradient.clone() for name, gradient in wanted.items()}
    packed = nn.Module()
    packed.inside = model
    packed.forward = lambda x: pack(model(x), x)

    def loss(output) -> Tensor:
        logits = output[0] if isinstance(output, tuple) else output["logits"] if isinstance(output, dict) else None
        return losses_of(y)(output.logits if logits is None else logits)

    packed.zero_grad()
    # The names of the weights, and with them their feedback, are those inside.
    credit = RandomFeedback(packed, generator=seeded(), **options)
    other = RandomFeedback(model, generator=seeded(), **options)
    other.backward(x, losses_of(y))
    packed.zero_grad()
    state = other.state_dict()
    state["feedback"] = {f"inside.{name}": B for name, B in state["feedback"].items()}
    credit.load_state_dict(state)
    credit.backward(x, loss)
    assert_same(gradients(model), wanted)


def test_the_softmax_of_several_outputs_is_not_known():
    model = nn.Module()
    model.left, model.right = nn.Linear(6, 5).double(), nn.Linear(6, 5).double()
    model.forward = lambda x: (model.left(x), model.right(x))
    x, y = draw(4, 6), torch.arange(4)
    options = {"theta": {0: 1.0, 9: 0.1}, "feedback": "symmetric"}
    with pytest.raises(UserError, match=r"returned a tuple with the responses of 2 layers.*Use output='linear'"):
        taught_by(model, x, lambda output: losses_of(y)(output[0] + output[1]), **options)
    taught_by(model, x, lambda output: losses_of(y)(output[0] + output[1]), output="linear", **options)


def test_the_rule_of_the_rest_repeats_the_forward_pass():
    """Running statistics are updated once, and the masks of dropout are those of the rule itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 5)).double()
    x, y = draw(9, 6), torch.arange(9) % 5
    found = []
    for rest in ("gradient", Gradient(model, ["0", "1"])):
        model.zero_grad()
        torch.manual_seed(1)
        # Symmetric feedback, so that both rules carry the same errors.
        RandomFeedback(model, "symmetric", modules="4", rest=rest).backward(x, losses_of(y))
        found.append(gradients(model))
    assert int(model[1].num_batches_tracked) == 2
    assert_same(found[0], found[1])


def test_a_layer_that_is_frozen_later_carries_errors_by_its_own_weights():
    model = mlp(nn.Tanh, bias=True)
    x, y = draw(4, SIZES[0]), torch.arange(4)
    credit = RandomFeedback(model, generator=seeded())
    model[2].requires_grad_(False)
    model.zero_grad()
    credit.backward(x, losses_of(y))
    found = gradients(model)
    assert found["2.weight"] is None
    assert set(credit.feedback_weights()) == {"0.weight", "4.weight"}
    with torch.no_grad():
        h0 = torch.tanh(model[0](x))
        h1 = torch.tanh(model[2](h0))
        e = (torch.softmax(model[4](h1), 1) - functional.one_hot(y, SIZES[-1])) / 4
        e1 = (e @ credit.feedback_weights()["4.weight"]) * (1 - h1**2)
        e0 = (e1 @ model[2].weight) * (1 - h0**2)
    torch.testing.assert_close(found["0.weight"], e0.T @ x)
    model.requires_grad_(False)
    credit.backward(x, losses_of(y))


class OwnProduct(torch.autograd.Function):
    """A linear map with its own backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx, e: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return e @ w, e.T @ x


def test_a_weight_in_a_function_with_its_own_derivative_is_named():
    model = nn.Module()
    model.first, model.fc, model.w = nn.Linear(6, 8), nn.Linear(7, 5), nn.Parameter(draw(7, 8))
    model.position = nn.Parameter(draw(4, 8))
    model.forward = lambda x: model.fc(
        torch.tanh(OwnProduct.apply(torch.tanh(model.first(x) + model.position), model.w))
    )
    model.double()
    x, y = draw(4, 6), torch.arange(4)
    with pytest.raises(UserError, match=r"'w' is used in .*torch.autograd.Function.*modules="):
        taught_by(model, x, losses_of(y))
    credit, _ = taught_by(model, x, losses_of(y), modules=["first", "fc", "position"], rest="gradient")
    assert set(credit.feedback_weights()) == {"first.weight", "fc.weight"}


def test_a_scripted_part_is_named():
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Linear(8, 7))
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), scripted, nn.Tanh(), nn.Linear(7, 5)).double()
    x, y = draw(4, 6), torch.arange(4)
    with pytest.raises(UserError, match=r"'2.weight' is used in a scripted module .*modules="):
        taught_by(model, x, losses_of(y))
    taught_by(model, x, losses_of(y), modules=["0", "4"], rest="gradient")


@pytest.mark.parametrize("time_first", [True, False])
def test_direct_feedback_from_an_output_with_time_is_that_of_its_sum(time_first):
    """The input of the first layers has no time steps: each sample has one error, the sum over the steps."""
    torch.manual_seed(0)
    batch, time = 4, 3
    model = nn.Module()
    model.first, model.second, model.fc = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 5)

    def forward(x: Tensor) -> Tensor:
        h = torch.tanh(model.second(torch.tanh(model.first(x))))
        shape = (time, batch, 5) if time_first else (batch, time, 5)
        return model.fc(h)[None if time_first else slice(None), None if not time_first else slice(None)].expand(shape)

    model.forward = forward
    model.double()
    x, y = draw(batch, 6), torch.arange(batch)

    def loss(output: Tensor) -> Tensor:
        steps = output if time_first else output.transpose(0, 1)
        return sum((number + 1) * losses_of(y)(step) for number, step in enumerate(steps))

    credit, found = taught_by(model, x, loss, feedback="direct")
    B = credit.feedback_weights()
    with torch.no_grad():
        h0 = torch.tanh(model.first(x))
        e = 6 * (torch.softmax(model(x)[0] if time_first else model(x)[:, 0], 1) - functional.one_hot(y, 5)) / batch
        e0 = (e @ B["second.weight"]) * (1 - h0**2)
    torch.testing.assert_close(found["first.weight"], e0.T @ x)


class Sequences(nn.Module):
    """Logits for each position of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_direct_feedback_of_sequences_is_position_by_position():
    torch.manual_seed(0)
    model = Sequences().double()
    x, y = draw(4, 3, 3), torch.arange(12).view(4, 3) % 5

    def loss(output: Tensor) -> Tensor:
        return functional.cross_entropy(output.transpose(1, 2), y, reduction="none").sum(1)

    credit, found = taught_by(model, x, loss, feedback="direct")
    B = credit.feedback_weights()
    with torch.no_grad():
        h0 = torch.tanh(model.layers[0](x))
        h1 = torch.tanh(model.layers[2](h0))
        e = (torch.softmax(model.layers[4](h1), -1) - functional.one_hot(y, 5)) / 4
        e1, e0 = (e @ B["layers.4.weight"]) * (1 - h1**2), (e @ B["layers.2.weight"]) * (1 - h0**2)
    torch.testing.assert_close(found["layers.2.weight"], torch.einsum("nti,ntj->ij", e1, h0))
    torch.testing.assert_close(found["layers.0.weight"], torch.einsum("nti,ntj->ij", e0, x))


def test_direct_feedback_of_a_recurrent_layer_reaches_each_time_step():
    """Elman network: every use of a weight gives its input the same error of the sample, and h_t sums what it gets."""
    torch.manual_seed(0)
    batch = time = 3
    model = nn.Module()
    model.rnn, model.fc = nn.RNN(2, 4, batch_first=True), nn.Linear(4, 5)
    model.forward = lambda x: model.fc(model.rnn(x)[0][:, -1])
    model = model.double()
    x, y = draw(batch, time, 2), torch.arange(batch)
    credit, found = taught_by(model, x, losses_of(y), feedback="direct")
    B = credit.feedback_weights()
    with torch.no_grad():
        h = model.rnn(x)[0]
        e = (torch.softmax(model.fc(h[:, -1]), 1) - functional.one_hot(y, 5)) / batch
        e_z = [(e @ B["rnn.weight_hh_l0"]) * (1 - h[:, t] ** 2) for t in range(time - 1)]
        e_z.append((e @ B["fc.weight"]) * (1 - h[:, -1] ** 2))
    torch.testing.assert_close(found["rnn.weight_ih_l0"], sum(e_z[t].T @ x[:, t] for t in range(time)))
    torch.testing.assert_close(found["rnn.bias_hh_l0"], sum(e_z).sum(0))


def test_direct_feedback_reaches_the_layer_below_of_a_recurrent_stack():
    """As many time steps as samples: the input of the upper layer is (time, batch, features) inside nn.RNN."""
    torch.manual_seed(0)
    batch = time = 3
    model = nn.Module()
    model.rnn, model.fc = nn.RNN(2, 4, num_layers=2, batch_first=True), nn.Linear(4, 5)
    model.forward = lambda x: model.fc(model.rnn(x)[0][:, -1])
    model = model.double()
    x, y = draw(batch, time, 2), torch.arange(batch)
    credit, found = taught_by(model, x, losses_of(y), feedback="direct")
    B = credit.feedback_weights()
    with torch.no_grad():
        below = nn.RNN(2, 4, batch_first=True).double()
        below.load_state_dict({name: model.rnn.get_parameter(name) for name, _ in below.named_parameters()})
        h = below(x)[0]
        e = (torch.softmax(model(x), 1) - functional.one_hot(y, 5)) / batch
        e_h = [e @ B["rnn.weight_ih_l1"] + (e @ B["rnn.weight_hh_l0"] if t < time - 1 else 0) for t in range(time)]
        wanted = sum((e_h[t] * (1 - h[:, t] ** 2)).T @ x[:, t] for t in range(time))
    torch.testing.assert_close(found["rnn.weight_ih_l0"], wanted)


NONLINEARITIES = {
    "relu": nn.ReLU(),
    "relu-in-place": nn.ReLU(inplace=True),
    "softplus": nn.Softplus(beta=3),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "leaky-relu": nn.LeakyReLU(0.2),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.5),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(),
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
}
BETWEEN = {
    "nothing": lambda: nn.Identity(),
    "a normalization": lambda: nn.LayerNorm(8),
    "a view and a normalization": lambda: nn.Sequential(nn.Unflatten(1, (4, 2)), nn.GroupNorm(2, 4), nn.Flatten()),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_the_error_of_the_layer_below_has_the_slope_of_its_nonlinearity(nonlinearity, between):
    """The last layer changes by term 2 alone, e_post e_pre^T; the slope is compared with that of autograd."""
    torch.manual_seed(0)
    function = NONLINEARITIES[nonlinearity]
    model = nn.Sequential(nn.Linear(6, 8), function, BETWEEN[between](), nn.Linear(8, 5)).double()
    x, y = 3 * draw(7, 6), torch.arange(7) % 5
    credit, found = taught_by(model, x, losses_of(y), theta={2: 1.0})
    z = model[0](x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(z.clone()).sum(), z)
    e = torch.softmax(model(x), 1).detach() - functional.one_hot(y, 5)
    wanted = e.T @ ((e @ credit.feedback_weights()["3.weight"]) * slope) / 7
    torch.testing.assert_close(found["3.weight"], wanted, rtol=1e-10, atol=1e-10)


class Gated(nn.Module):
    """An activity that is a product has no nonlinearity of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value, self.fc = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.sigmoid(self.gate(x)) * torch.tanh(self.value(x)))


def test_the_error_below_has_no_slope_after_a_product_and_the_pooled_one_after_pooling():
    torch.manual_seed(0)
    x, y = draw(7, 6), torch.arange(7) % 5
    model = Gated().double()
    credit, found = taught_by(model, x, losses_of(y), theta={2: 1.0})
    e = torch.softmax(model(x), 1).detach() - functional.one_hot(y, 5)
    torch.testing.assert_close(found["fc.weight"], e.T @ (e @ credit.feedback_weights()["fc.weight"]) / 7)
    pooled = [nn.Linear(6, 8), nn.Tanh(), nn.Unflatten(1, (2, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 5)]
    model = nn.Sequential(*pooled).double()
    credit, found = taught_by(model, x, losses_of(y), theta={2: 1.0})
    e = torch.softmax(model(x), 1).detach() - functional.one_hot(y, 5)
    below = model[:5](x).detach()
    wanted = e.T @ ((e @ credit.feedback_weights()["5.weight"]) * (1 - below**2)) / 7
    torch.testing.assert_close(found["5.weight"], wanted)


def test_direct_feedback_of_images_is_pixel_by_pixel_where_the_output_is_an_image():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 3, padding=1)).double()
    x, y = draw(2, 1, 5, 5), torch.arange(50).view(2, 5, 5) % 4

    def loss(output: Tensor) -> Tensor:
        return functional.cross_entropy(output, y, reduction="none").sum((1, 2))

    credit, found = taught_by(model, x, loss, feedback="direct")
    B = credit.feedback_weights()["2.weight"]
    assert B.shape == (4, 3)
    with torch.no_grad():
        h = torch.tanh(model[0](x))
        e = (torch.softmax(model[2](h), 1) - functional.one_hot(y, 4).permute(0, 3, 1, 2)) / 2
        e0 = (e.permute(0, 2, 3, 1) @ B).permute(0, 3, 1, 2) * (1 - h**2)
    torch.testing.assert_close(found["0.weight"], nn.grad.conv2d_weight(x, model[0].weight.shape, e0, padding=1))
    # One error for each sample: the sum over the pixels of the output, with feedback to each pixel of the layer.
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2, stride=3)).double()
    y = y[:, 0, 0]
    credit, found = taught_by(model, x, lambda output: losses_of(y)(output[:, :, 0, 0]), feedback="direct")
    B = credit.feedback_weights()["2.weight"]
    assert B.shape == (4, 3, 3, 3)
    with torch.no_grad():
        h = torch.tanh(model[0](x))
        e = (torch.softmax(model[2](h)[:, :, 0, 0], 1) - functional.one_hot(y, 4)) / 2
        e0 = torch.einsum("nk,kchw->nchw", e, B) * (1 - h**2)
    torch.testing.assert_close(found["0.weight"], nn.grad.conv2d_weight(x, model[0].weight.shape, e0))


def test_direct_feedback_says_what_it_cannot_teach():
    model, x, y = EVERY["mlp"].draw()
    two = nn.Module()
    two.inside = model
    two.forward = lambda x: (two.inside(x), two.inside(2 * x))
    with pytest.raises(UserError, match="needs a module that returns one tensor; it returned a tuple with 2 tensors"):
        taught_by(two, x, lambda output: losses_of(y)(output[0]), feedback="direct")
    conv = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    credit, _ = taught_by(conv, draw(2, 1, 8, 8), losses_of(torch.tensor([0, 1])), feedback="direct")
    folded = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Unflatten(0, (2, 3)), nn.Flatten()).double()
    with pytest.raises(UserError, match=r"the input of '2\.weight' has 6 samples, and there are 2 losses"):
        taught_by(folded, draw(6, 3), losses_of(torch.tensor([0, 1])), feedback="direct")
    with pytest.raises(UserError, match="was drawn for an output of 3 units and inputs"):
        credit.backward(draw(2, 1, 9, 9), losses_of(torch.tensor([0, 1])))


def test_under_autocast_gradients_have_the_type_of_the_parameters():
    model = mlp(nn.Tanh, bias=True).float()
    x, y = draw(16, SIZES[0]).float(), torch.arange(16) % SIZES[-1]
    for theta in ({0: 1.0}, {0: 1.0, 2: -0.1, 9: 0.01}):
        _, wanted = taught_by(model, x, losses_of(y), theta=theta)
        exact = {name: gradient.clone() for name, gradient in wanted.items()}
        with torch.autocast("cpu", torch.bfloat16):
            _, found = taught_by(model, x, losses_of(y), theta=theta)
        for name, gradient in exact.items():
            assert found[name].dtype == torch.float32
            assert (found[name] - gradient).norm() < 0.02 * gradient.norm(), name
            assert not torch.equal(found[name], gradient), "autocast has no effect"


def test_wrappers_keep_the_names_and_the_gradients():
    model, x, y = EVERY["lenet"].draw()
    credit, found = taught_by(model, x, losses_of(y))
    wrapped = nn.DataParallel(model)
    other, same = taught_by(wrapped, x, losses_of(y))
    assert list(other.parameters) == list(credit.parameters)
    assert_same({name.removeprefix("module."): gradient for name, gradient in same.items()}, found)


def test_terms_of_the_users_own_and_of_a_theta_file(tmp_path):
    model = mlp()
    x, y = draw(4, SIZES[0]).abs(), torch.arange(4)
    _, wanted = taught_by(model, x, losses_of(y), terms=(0, 2), theta=(0.3, -0.1))
    wanted = {name: gradient.clone() for name, gradient in wanted.items()}
    (tmp_path / "artifacts").mkdir()
    file = tmp_path / "artifacts" / "theta.toml"
    file.write_text('feedback = "fixed"\n[theta]\npseudo-gradient = 0.3\nehebb = -0.1\noja = 5.0\n')
    for theta in (file, str(tmp_path)):
        _, found = taught_by(model, x, losses_of(y), terms=("ehebb", "pseudo-gradient"), theta=theta)
        assert_same(found, wanted)
    own = "plastic_metafa.rule:ehebb"
    try:
        _, found = taught_by(model, x, losses_of(y), theta={0: 0.3, own: -0.1})
    finally:
        rule.TERMS.pop(own, None)
    assert_same(found, wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "fixd"}, "feedback is 'fixd': it must be one of fixed, direct, .*Did you mean 'fixed'"),
        ({"scale": "he"}, "scale is 'he'"),
        ({"output": "relu"}, "output is 'relu'"),
        ({"decay": 2}, "decay is 2"),
        ({"mirror_samples": 0}, "mirror_samples is 0"),
        ({"terms": (0, 2, 9)}, "terms has 2 and there is no theta"),
        ({"terms": (0, 2), "theta": (1.0,)}, "theta has 1 numbers for 2 terms"),
        ({"terms": (0, 9), "theta": {0: 1.0}}, "theta has no strength for the term 9"),
        ({"terms": (), "theta": ()}, "terms names no term"),
        ({"theta": "nowhere.toml"}, "there is no file nowhere.toml"),
        ({"terms": ("hebb",)}, "there is no term 'hebb'"),
        ({"modules": "9"}, "there is no module '9'"),
        ({"rest": "all"}, "rest is 'all'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        RandomFeedback(mlp(), **options)


def test_what_cannot_be_taught_is_named():
    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.centers = nn.Linear(6, 4), nn.Parameter(torch.randn(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(self.first(x), self.centers)

    x, y = draw(4, 6), torch.arange(4)
    model = Distances().double()
    with pytest.raises(UserError, match=r"'centers' is used in cdist: .*modules="):
        taught_by(model, x, losses_of(y))
    taught_by(model, x, losses_of(y), modules="first", rest="gradient")
    model = nn.Sequential(
        nn.Linear(6, 4), nn.GELU(), nn.Unflatten(1, (1, 4)), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(2, 5)
    )
    with pytest.raises(UserError, match="the slope of gelu is not known"):
        taught_by(model.double(), draw(4, 6), losses_of(torch.arange(4)), theta={0: 1, 2: 0.1})
    model = mlp()
    model.forward = lambda x: model[4](checkpoint(model[:4], x, use_reentrant=False))
    with pytest.raises(UserError, match="Switch activation checkpointing off"):
        taught_by(model, draw(4, 6), losses_of(torch.arange(4)))
    with pytest.raises(UserError, match="losses of shape"):
        taught_by(mlp(), draw(4, 6), lambda output: output.sum())


def test_the_network_of_the_publication_learns_the_same_by_both_interfaces():
    """Ten samples one after the other, by SGD with learning rate 1."""
    model = mlp()
    x, y = draw(10, SIZES[0]).abs(), torch.arange(10) % SIZES[-1]
    theta = {0: 0.05, 2: -0.02, 9: 0.004}
    credit = RandomFeedback(model, "fixed", theta=theta, generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    W = [parameter.detach().clone() for parameter in model.parameters()]
    network = None
    for number in range(10):
        optimizer.zero_grad()
        credit.backward(x[number : number + 1], losses_of(y[number : number + 1]))
        network = network or Network(W, list(credit.feedback_weights().values()))
        target = functional.one_hot(y[number], SIZES[-1]).double()
        W = adapt_step(
            W,
            network.B,
            x[number],
            target,
            torch.tensor(list(theta.values()), dtype=torch.float64),
            Plasticity((0, 2, 9)),
        )
        optimizer.step()
    assert_same(dict(enumerate(model.parameters())), dict(enumerate(W)), 1e-9)
