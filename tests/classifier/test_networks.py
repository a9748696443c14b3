"""The networks of --model: their shapes, their initial weights, and what is said of a module that does not fit."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.classifier.baselines import BackpropLearner
from plastic_cli.classifier.module import ModuleLearner, as_input
from plastic_cli.classifier.networks import build_network, multilayer_perceptron, seeded
from plastic_cli.config.classifier import MODELS
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError
from plastic_cli.testing import write_tiny_dataset


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def mine(monkeypatch):
    """A module of the user's own, to which a test adds functions."""
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def built(name, data, seed=0, hidden=(12, 9)):
    return build_network(name, data, hidden, torch.Generator().manual_seed(seed))


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_a_network_takes_rows_and_images_and_gives_logits(name, digits):
    network, image_shape = built(name, digits)
    x = digits.test.x[:5]
    network.eval()
    logits = network(x)
    assert image_shape is None
    assert logits.shape == (5, 10)
    assert torch.equal(network(x.unflatten(1, digits.image_shape)), logits)
    # Each row has logits of its own.
    assert torch.allclose(network(x.flip(0)), logits.flip(0), atol=1e-5)


@pytest.mark.parametrize("name", [*MODELS, "torchvision.models:resnet18"])
def test_initial_weights_come_from_the_seed_and_the_global_random_numbers_stay(name, digits):
    before = torch.get_rng_state()
    first, again, other = (weights(built(name, digits, seed).module) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_mlp_is_the_network_of_backprop(digits):
    sizes = [64, 12, 9, 10]
    mine = multilayer_perceptron(sizes, torch.Generator().manual_seed(3))
    its = BackpropLearner(sizes, torch.Generator().manual_seed(3), learning_rate=0.1)
    for left, right in zip(mine.parameters(), its.layers.parameters(), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(mine(digits.test.x), its.predict(digits.test.x))


def test_lenet_has_the_layers_and_the_resizing_of_its_source(digits):
    network, _ = built("lenet", digits)
    shapes = [tuple(parameter.shape) for parameter in network.parameters() if parameter.ndim > 1]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 5, 5), (84, 120), (10, 84)]
    x = digits.test.x[:3].unflatten(1, (1, 8, 8))
    resized = functional.interpolate(x, size=32, mode="bilinear", align_corners=False)
    assert torch.allclose(network(resized), network(x), atol=1e-5)
    # An image of 28 x 28 pixels is resized too, as by torchvision's Resize of tensors.
    from torchvision.transforms.v2.functional import resize

    gray = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(resize(gray, [32, 32], antialias=True)), network(gray), atol=1e-5)


def test_resnet18_is_that_of_torchvision_with_another_beginning(digits):
    from torchvision.models import resnet18

    network, _ = built("resnet18", digits)
    theirs = resnet18(num_classes=10)
    mine = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    published = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert mine.pop("conv1.weight") == (64, 1, 3, 3)
    assert published.pop("conv1.weight") == (64, 3, 7, 7)
    assert mine == published
    assert network.layer1(network.conv1(digits.test.x[:2].unflatten(1, (1, 8, 8)))).shape == (2, 64, 8, 8)


def test_a_convolutional_network_halves_the_image_after_each_convolution(digits):
    network, _ = built("cnn", digits, hidden=(5, 7))
    assert network.readout.in_features == 7 * 2 * 2
    with pytest.raises(UserError, match="images of 8 x 8 pixels cannot be halved 4 times"):
        built("cnn", digits, hidden=(3, 3, 3, 3))


def test_networks_have_the_channels_of_the_data(digits):
    color = replace(digits, image_shape=(3, 8, 8))
    for name in MODELS:
        network, _ = built(name, color)
        assert network.eval()(torch.zeros(2, 192)).shape == (2, 10)


def test_networks_learn_images_of_six_by_six(tmp_path):
    data = load_dataset(str(write_tiny_dataset(tmp_path / "data")))
    for name in MODELS:
        network, _ = built(name, data, hidden=(6,))
        learner = ModuleLearner(network, torch.optim.Adam(network.parameters(), lr=0.003))
        losses = [float(learner.train_batch(data.train.x, data.train.y)) for _ in range(12)]
        assert losses[-1] < losses[0]


# ------------------------------------------------------------------------------------------- networks of the user's own


def test_torchvision_gets_the_classes_and_the_gray_channel_three_times(digits):
    network, image_shape = built("torchvision.models:resnet18", digits)
    assert image_shape == (3, 8, 8)
    assert network.fc.out_features == 10
    x = digits.test.x[:4]
    repeated = torch.stack([x.view(-1, 8, 8)] * 3, 1)
    learner = ModuleLearner(network, image_shape=image_shape)
    assert torch.equal(learner.predict(x), network(repeated))


def test_a_module_gets_images_or_rows_as_it_takes_them(mine, digits):
    mine.rows = lambda: nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    mine.images = lambda num_classes: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, num_classes))
    # A row of an image has as many pixels as this module takes, but the result is no row of logits.
    mine.misleading = lambda: nn.Linear(8, 10)
    mine.lazy = lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    mine.many = lambda: nn.Linear(64, 1000)
    assert built("mine:rows", digits).image_shape is None
    assert built("mine:many", digits).image_shape is None
    assert built("mine:images", digits).image_shape == (1, 8, 8)
    lazy, image_shape = built("mine:lazy", digits)
    assert image_shape == (1, 8, 8)
    assert lazy[1].weight.shape == (10, 64)
    with pytest.raises(
        UserError, match=r"with images of 1 x 8 x 8 it returned \(2, 1, 8, 10\) for 2 images, not logits \(2, 10\);"
    ):
        built("mine:misleading", digits)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: (_ for _ in ()).throw(RuntimeError("no weights\nsecond line")),
            "making the module failed with Runtime",
        ),
        (lambda: 3, "it returned an int, not a torch module"),
        (lambda: nn.Flatten(), "it has no parameters, so there is nothing to train"),
        (lambda: nn.Linear(64, 3), r"returned \(2, 3\) for 2 images, not logits \(2, 10\)"),
        (lambda: nn.GRU(64, 10), "returned a tuple, not logits"),
        (lambda: nn.Linear(7, 10), "with images of 1 x 8 x 8 it failed with RuntimeError: mat1 and mat2"),
        (nn.Linear(64, 10), "it is a Linear. Name a function or class that makes a torch module"),
        (17, "it is an int. Name a function or class"),
    ],
)
def test_a_module_that_cannot_be_trained_is_an_error_of_one_line(make, problem, mine, digits):
    mine.net = make
    with pytest.raises(UserError, match=f"--model mine:net: .*{problem}") as raised:
        built("mine:net", digits)
    assert "\n" not in str(raised.value)


def test_a_function_of_any_keywords_may_refuse_the_number_of_classes(mine, digits):
    def layers(**options):
        if "num_classes" in options:
            raise TypeError("got an unexpected keyword argument 'num_classes'")
        return nn.Linear(64, 10)

    mine.net = layers
    assert isinstance(built("mine:net", digits).module, nn.Linear)


def test_trying_a_module_changes_nothing_in_it(mine, digits):
    def net():
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))

    mine.net = net
    network, _ = built("mine:net", digits, seed=5)
    assert network.training
    with seeded(torch.Generator().manual_seed(5).initial_seed()):
        fresh = net()
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match="images of 12 pixels do not fit a module for images of"):
        as_input(torch.zeros(2, 12), nn.Linear(3, 3), (3, 8, 8))
