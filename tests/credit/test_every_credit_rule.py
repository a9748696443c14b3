"""What holds for every credit rule on every network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from credit.networks import EVERY, NETWORKS, gradient_of, losses_of
from plastic_cli import UserError
from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Credit, call
from plastic_eglp import AlwaysOnController, LocalPlasticity
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

Make = Callable[..., Any]

FEEDBACKS = (
    *("fixed", "direct", "sign", "uniform-sign", "batchwise-sign", "kolen-pollack", "weight-mirror", "symmetric"),
)


def node_perturbation(credit: str) -> Make:
    return lambda model, **options: NodePerturbation(model, perturbations=2, noise=0.05, credit=credit, **options)


def learned_feedback(kind: str) -> Make:
    return lambda model, **options: NodePerturbation(model, 2, 0.05, "learned", feedback=kind, **options)


def feedback(kind: str, **fixed: Any) -> Make:
    return lambda model, **options: RandomFeedback(model, feedback=kind, **fixed, **options)


def local(local_rule: str, **fixed: Any) -> Make:
    return lambda model, **options: LocalPlasticity(
        model, local_rule=local_rule, events=AlwaysOnController(), **fixed, **options
    )


RULES: dict[str, Make] = {
    "node perturbation": node_perturbation("preactivation"),
    "node perturbation, noise at the output": node_perturbation("output"),
    "learned direct feedback": learned_feedback("direct"),
    "learned feedback between layers": learned_feedback("layer"),
    **{f"{kind} feedback": feedback(kind) for kind in FEEDBACKS},
    "learned terms": feedback("fixed", terms=(0, 2, 9), theta=(1.0, -0.1, 0.01)),
    "softhebb": local("softhebb"),
    "oja": local("oja"),
    "direct feedback with events": local("oja", feedback="direct"),
}
LOCAL = ("softhebb", "oja")
TWINS = [
    pytest.param(rule, network, id=f"{rule}-{network}")
    for rule in RULES
    for network in EVERY
    # One rule of each kind is enough for the large network.
    if network != "resnet18" or rule in ("node perturbation", "fixed feedback", "direct feedback", "softhebb")
]


def make(rule: str, model: nn.Module, seed: int = 1, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RULES[rule](model, generator=torch.Generator().manual_seed(seed), **options)


def gradients(credit: Credit) -> dict[str, torch.Tensor | None]:
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in credit.parameters.items()
    }


def clear(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


@pytest.mark.parametrize(("rule", "network"), TWINS)
def test_a_rule_teaches_a_network_and_leaves_it_as_it_was(rule, network):
    """Finite changes for all layers of weights; losses of the clean network; nothing of the module edited."""
    model, x, y = EVERY[network].draw()
    twin = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    credit = make(rule, model)
    assert isinstance(credit, Credit)
    generator_state = torch.get_rng_state()
    losses = credit.backward(x, losses_of(y))
    after = torch.get_rng_state()
    torch.set_rng_state(generator_state)
    expected = losses_of(y)(call(twin, x))
    # Random numbers such as dropout masks are drawn once, and running statistics are updated once.
    assert torch.equal(after, torch.get_rng_state())
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-9, atol=1e-12)
    assert not losses.requires_grad
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-9, atol=1e-12)
    assert list(model.state_dict()) == list(before)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    matrices = [name for name, parameter in model.named_parameters() if parameter.ndim > 1 and name != "position"]
    for name in matrices:
        gradient = credit.parameters[name].grad
        assert gradient is not None, name
        assert gradient.shape == credit.parameters[name].shape
        assert torch.isfinite(gradient).all(), name
    assert sum(float(credit.parameters[name].grad.abs().sum()) > 0 for name in matrices) >= len(matrices) - 1


@pytest.mark.parametrize("network", NETWORKS)
def test_symmetric_feedback_is_the_gradient(network):
    """The claim of all feedback rules: with the transposed weights they are backpropagation."""
    model, x, y = EVERY[network].draw()
    expected = gradient_of(model, x, y)
    RandomFeedback(model, feedback="symmetric").backward(x, losses_of(y))
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().clamp_min(1e-12)
        assert float((parameter.grad - expected[name]).abs().max() / scale) < 1e-6, name


@pytest.mark.parametrize("rule", RULES)
def test_a_state_restores_what_comes_next(rule):
    model, x, y = EVERY["mlp"].draw()
    credit = make(rule, model)
    credit.backward(x, losses_of(y))
    state = copy.deepcopy(credit.state_dict())
    clear(model)
    credit.backward(x, losses_of(y))
    expected = gradients(credit)
    clear(model)
    other = make(rule, model, seed=2)
    other.load_state_dict(state)
    other.backward(x, losses_of(y))
    for name, gradient in gradients(other).items():
        if expected[name] is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_accumulate(rule):
    model, x, y = EVERY["lenet"].draw()
    model.eval()
    first, second = make(rule, model), make(rule, model)
    first.backward(x, losses_of(y))
    once = gradients(first)
    second.backward(x, losses_of(y))
    for name, gradient in gradients(second).items():
        if once[name] is not None:
            torch.testing.assert_close(gradient, 2 * once[name])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wrap", ["data parallel", "own wrapper"])
def test_a_wrapped_network_learns_as_the_network_itself(rule, wrap):
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    model, x, y = EVERY["lenet"].draw()
    make(rule, model).backward(x, losses_of(y))
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    clear(model)
    wrapped = nn.DataParallel(model) if wrap == "data parallel" else Wrapper(model)
    credit = make(rule, wrapped)
    assert set(credit.parameters) <= set(expected)
    credit.backward(x, losses_of(y))
    for name, parameter in model.named_parameters():
        if expected[name] is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("rule", RULES)
def test_only_the_chosen_modules_learn_and_the_rest_by_the_gradient(rule):
    model, x, y = EVERY["mlp"].draw()
    expected = gradient_of(model, x, y)
    make(rule, model, modules=["0", "2"], rest="none").backward(x, losses_of(y))
    assert model[4].weight.grad is None
    assert model[0].weight.grad is not None
    clear(model)
    make(rule, model, modules=["0", "2"], rest="gradient").backward(x, losses_of(y))
    torch.testing.assert_close(model[4].weight.grad, expected["4.weight"])
    torch.testing.assert_close(model[4].bias.grad, expected["4.bias"])
    clear(model)
    other = Gradient(model, modules="4")
    make(rule, model, modules=["0", "2"], rest=other).backward(x, losses_of(y))
    torch.testing.assert_close(model[4].weight.grad, expected["4.weight"])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_have_the_type_of_the_parameters_also_under_autocast(rule, dtype):
    model, x, y = EVERY["normalized"].draw(dtype=dtype)
    make(rule, model).backward(x, losses_of(y))
    if dtype == torch.float32:
        with torch.autocast("cpu", torch.bfloat16):
            make(rule, model).backward(x, losses_of(y))
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == dtype
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", ["lenet", "transformer", "gru"])
def test_a_gpu_gives_the_numbers_of_the_cpu(rule, network):
    if "perturbation" in rule or "learned" in rule:
        pytest.skip("the noise of a GPU is another sample; its expectation is tested on the CPU")
    model, x, y = EVERY[network].draw(dtype=torch.float32)
    make(rule, model).backward(x, losses_of(y))
    on_gpu, x, y = EVERY[network].draw(dtype=torch.float32)
    on_gpu.cuda()
    make(rule, on_gpu).backward(x.cuda(), losses_of(y.cuda()))
    for mine, theirs in zip(model.parameters(), on_gpu.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(theirs.grad.cpu(), mine.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_lowers_the_loss(rule):
    """Few inputs, many steps. A local rule changes the inputs of its readout, so it lowers the loss least."""
    model, x, y = EVERY["mlp"].draw(seed=3)
    credit = make(rule, model, **({"normalize": True} if "perturbation" in rule else {}))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    first = credit.backward(x, losses_of(y)).mean()
    for _ in range(60):
        optimizer.zero_grad()
        last = credit.backward(x, losses_of(y)).mean()
        optimizer.step()
    assert float(last) < (0.8 if rule in LOCAL else 0.6) * float(first)


@pytest.mark.parametrize("rule", RULES)
def test_a_detached_rule_says_so(rule):
    model, x, y = EVERY["mlp"].draw()
    credit = make(rule, model)
    credit.detach()
    with pytest.raises(UserError, match="detached"):
        credit.backward(x, losses_of(y))


@pytest.mark.parametrize("rule", ["node perturbation", "fixed feedback", "direct feedback", "softhebb"])
def test_a_compiled_network_learns_as_the_network_itself(rule):
    model, x, y = EVERY["mlp"].draw()
    make(rule, model).backward(x, losses_of(y))
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    clear(model)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    make(rule, compiled).backward(x, losses_of(y))
    for name, parameter in model.named_parameters():
        if expected[name] is not None:
            torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_that_is_frozen_later_learns_no_more(rule):
    model, x, y = EVERY["mlp"].draw()
    credit = make(rule, model)
    model[0].requires_grad_(False)
    credit.backward(x, losses_of(y))
    assert model[0].weight.grad is None
    assert model[0].bias.grad is None
    assert model[2].weight.grad is not None


@pytest.mark.parametrize("rule", RULES)
def test_parameters_that_were_replaced_are_named(rule):
    model, x, y = EVERY["mlp"].draw()
    credit = make(rule, model)
    model.load_state_dict(EVERY["mlp"].draw(seed=1)[0].state_dict(), assign=True)
    with pytest.raises(UserError, match=r"weight' of the module was replaced"):
        credit.backward(x, losses_of(y))


@pytest.mark.parametrize("rule", RULES)
def test_another_rule_for_the_rest_sees_the_same_pass(rule):
    """The same dropout masks for both rules, and one change of the running statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 5)).double()
    x, y = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    twin = copy.deepcopy(model)
    credit = make(rule, model, modules=["0"], rest=Gradient(model, ["1", "4"]))
    torch.manual_seed(1)
    credit.backward(x, losses_of(y))
    after = torch.get_rng_state()
    torch.manual_seed(1)
    losses_of(y)(twin(x)).mean().backward()
    assert torch.equal(after, torch.get_rng_state())
    assert int(model[1].num_batches_tracked) == 1
    torch.testing.assert_close(model[1].running_var, twin[1].running_var)
    torch.testing.assert_close(model[4].weight.grad, twin[4].weight.grad)


@pytest.mark.parametrize("rule", RULES)
def test_a_reduced_loss_is_refused_in_one_line(rule):
    model, x, y = EVERY["mlp"].draw()
    with pytest.raises(UserError, match='reduction="none"'):
        make(rule, model).backward(x, lambda output: nn.functional.cross_entropy(output, y))


@pytest.mark.parametrize("rule", RULES)
def test_an_unknown_module_is_refused_in_one_line(rule):
    model, _, _ = EVERY["transformer"].draw()
    with pytest.raises(UserError, match=r"blokks.*Did you mean.*blocks"):
        make(rule, model, modules=["blokks"])
