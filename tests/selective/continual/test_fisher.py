"""fisher.py, compared with the definition of the Fisher information in float64 for one image at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from plastic_cli.errors import UserError
from plastic_selective.continual.fisher import diagonal_fisher
from selective.continual.models import (
    Unused,
    assert_same,
    fisher_by_definition,
    frozen,
    images,
    masked,
    mlp,
    network,
)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_fisher_of_softmax_regression_is_its_closed_form():
    """E_y (1[y = k] - p_k)^2 = p_k (1 - p_k), times the input squared."""
    model, x = nn.Linear(5, 4).double(), images(30)
    p = model(x).softmax(1).detach().numpy()
    variance = p * (1 - p)
    expected = {"weight": np.einsum("nk,ni->ki", variance, x.numpy() ** 2) / 30, "bias": variance.mean(axis=0)}
    assert_same(diagonal_fisher(model, x, model), expected)


def test_images_do_not_cancel():
    """The gradient of these two images together is zero, but their Fisher information is not."""
    model = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    (batch,) = torch.autograd.grad(model(x).log_softmax(1)[:, 0].mean(), [model.weight])
    assert torch.equal(batch, torch.zeros_like(batch))
    assert_same(diagonal_fisher(model, x, model), {"weight": np.full((2, 1), 0.25)})


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Rows(nn.Module):
    """A linear layer over several rows of an image."""

    def __init__(self):
        super().__init__()
        self.row, self.out = nn.Linear(3, 2), nn.Linear(6, 4)

    def forward(self, x):
        rows = torch.stack([x[:, :3], x[:, 1:4], x[:, 2:]], dim=1)
        return self.out(torch.tanh(self.row(rows)).flatten(1))


def frozen_layer():
    model = mlp()
    model[0].requires_grad_(False)
    return model


MODELS = {
    "linear layers": mlp,
    "ReLU in place": lambda: network(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)),
    "no bias": lambda: network(nn.Linear(5, 6, bias=False), nn.ELU(inplace=True), nn.Linear(6, 4)),
    "frozen": frozen,
    "frozen layer": frozen_layer,
    "unused": lambda: Unused().double(),
    "batch normalization": lambda: network(
        nn.Linear(5, 6), nn.BatchNorm1d(6, affine=False), nn.Tanh(), nn.Linear(6, 4)
    ),
}
OTHER_MODELS = {
    "called twice": lambda: Twice().double(),
    "tied": lambda: Tied().double(),
    "several rows": lambda: Rows().double(),
    "convolution": lambda: network(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 4)
    ),
    "batch normalization that learns": lambda: network(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mask", [False, True])
def test_fisher_is_its_definition_for_linear_layers(name, mask):
    model = MODELS[name]()
    x, logits = images(12), masked(model) if mask else model
    model(images(20, seed=2))  # batch normalization then has a mean that is not zero
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = diagonal_fisher(model, x, logits)
    model.eval()
    assert_same(found, fisher_by_definition(model, x, logits))
    assert any(values.any() for values in found.values())
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_models_with_other_layers_are_an_error(name):
    model = OTHER_MODELS[name]()
    with pytest.raises(UserError, match="linear layer"):
        diagonal_fisher(model, images(12), model)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_confident_model_has_fisher_information():
    """The expectation also includes unlikely labels, which random labels would rarely be."""
    model = nn.Linear(5, 4).double()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([12.0, 0, 0, 0]))
    p = model(images(20)).softmax(1).detach()
    expected = diagonal_fisher(model, images(20), model)["bias"]
    np.testing.assert_allclose(expected.numpy(), (p * (1 - p)).mean(0).numpy(), rtol=1e-10)


@pytest.mark.parametrize("between", [nn.ReLU, lambda: nn.BatchNorm1d(6, affine=False)])
def test_nothing_of_the_model_is_changed(between):
    model = network(nn.Linear(5, 6), nn.Dropout(0.5), between(), nn.Linear(6, 4))
    model[2].eval()
    parameters, flags = list(model.parameters()), [module.training for module in model.modules()]
    first, again = (diagonal_fisher(model, images(8), model) for _ in range(2))
    assert_same(first, {name: values.numpy() for name, values in again.items()}, rtol=0)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [module.training for module in model.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_logits_that_do_not_depend_on_the_model_are_an_error():
    model, other = mlp(), mlp()
    for logits in (torch.no_grad()(lambda x: model(x)), lambda x: model(x).detach(), lambda x: x[:, :4], other):
        with pytest.raises(UserError, match="logits"):
            diagonal_fisher(model, images(4), logits)


def test_the_fisher_information_is_found_where_gradients_are_off():
    model = mlp()
    expected = fisher_by_definition(model, images(4), model)
    with torch.no_grad():
        assert_same(diagonal_fisher(model, images(4), model), expected)
