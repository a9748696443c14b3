"""The shapes of networks on the meta device, compared with the operations that torch counts on the CPU."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from credit.networks import EVERY
from plastic_cli.analysis.cost import step_cost
from plastic_cli.analysis.shapes import SAMPLES, fully_connected, shape_of
from plastic_cli.credit.gradient import Gradient

UNCOUNTED = ("encoder-layer", "normalized")
"""On the CPU attention is one function, whose operations torch does not count. Gradients of groups count repeatedly."""


def meta_shape(case):
    with torch.device("meta"):
        x = torch.zeros(SAMPLES, *case.shape, dtype=torch.int64 if case.tokens else torch.float64)
        return shape_of(case.make().double().train(), x)


@pytest.mark.parametrize("name", list(EVERY))
def test_every_network_has_the_operations_that_torch_counts(name):
    case = EVERY[name]
    shape = meta_shape(case)
    model, x, y = case.draw()
    counted = step_cost(
        Gradient(model), model, x, lambda output: nn.functional.cross_entropy(output, y, reduction="none")
    )
    of_layers = sum(layer.flops for layer in shape.layers)
    # Products without weights, and their derivatives.
    assert shape.gradient_flops - of_layers - shape.error_flops == 2 * (shape.forward_flops - of_layers)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.number_bytes == 8
    if name not in UNCOUNTED:
        assert counted.forward == case.batch * shape.forward_flops
        assert counted.learning == case.batch * shape.gradient_flops


@pytest.mark.parametrize(
    "name", ["mlp", "lenet", "resnet18", "gru", "lstm", "gru-cell", "shared", "conv3d", "transposed"]
)
def test_shared_weights_count_once(name):
    case = EVERY[name]
    model, _, _ = case.draw()
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    assert meta_shape(case).weights == matrices


def test_a_layer_that_is_used_twice_has_two_uses_and_one_name():
    shape = meta_shape(EVERY["shared"])
    assert [layer.name for layer in shape.layers] == ["inside.weight", "inside.weight", "fc.weight"]
    assert [layer.reads_data for layer in shape.layers] == [True, False, False]
    assert shape.hidden_names == {"inside.weight"}


def test_an_embedding_multiplies_nothing():
    shape = meta_shape(EVERY["transformer"])
    assert shape.layers[0].flops == 0
    assert shape.layers[0].weights == 7 * 8


def test_a_group_of_channels_is_connected_to_itself_alone():
    with torch.device("meta"):
        shape = shape_of(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten()), torch.zeros(SAMPLES, 4, 5, 5))
    assert shape.forward_flops == shape.gradient_flops == 2 * 9 * (6 * 2 * 9)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.booleans())
def test_sizes_say_the_same_as_the_module(sizes, biases):
    layers = []
    with torch.device("meta"):
        for inputs, units in pairwise(sizes):
            layers += [nn.Linear(inputs, units, bias=biases), nn.Tanh()]
        found = shape_of(nn.Sequential(*layers[:-1]), torch.zeros(SAMPLES, sizes[0]))
    expected = fully_connected(sizes, biases=biases)
    for name in ("forward_flops", "gradient_flops", "parameters", "buffers", "weights", "activity", "error_flops"):
        assert getattr(found, name) == getattr(expected, name), name
    for one, other in zip(found.layers, expected.layers, strict=True):
        for name in ("weights", "biases", "inputs", "units", "positions", "features", "channels", "reads_data"):
            assert getattr(one, name) == getattr(other, name), name
