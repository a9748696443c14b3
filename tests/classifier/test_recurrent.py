"""The recurrent network that reads images row by row."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from plastic_cli.classifier.networks import (
    build_network,
    recurrent,
    recurrent_2_rows,
    recurrent_4_rows,
    recurrent_28_rows,
)
from plastic_cli.data.datasets import load_dataset


@pytest.mark.parametrize(
    ("make", "rows"), [(recurrent, 1), (recurrent_2_rows, 2), (recurrent_4_rows, 4), (recurrent_28_rows, 28)]
)
def test_its_states_follow_the_equation_from_the_top_rows_to_the_last(make, rows):
    torch.manual_seed(0)
    network = make(num_classes=4).double()
    images = torch.randn(3, 2, 28, 7, dtype=torch.float64)
    logits = network(images).detach().numpy()
    parameters = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    weights = parameters["cell.weight"]
    read = 2 * 7 * rows
    assert weights.shape == (128, read + 128)
    for image, found in zip(images.numpy(), logits, strict=True):
        h = np.zeros(128)
        for first in range(0, 28, rows):
            x = np.concatenate([image[channel, row] for row in range(first, first + rows) for channel in range(2)])
            h = np.tanh(weights[:, :read] @ x + weights[:, read:] @ h + parameters["cell.bias"])
        assert np.allclose(found, parameters["readout.weight"] @ h + parameters["readout.bias"], atol=1e-12)


def test_every_row_uses_the_same_weights_so_their_gradient_is_a_sum_over_rows():
    torch.manual_seed(1)
    network = recurrent(num_classes=3).double()
    images = torch.randn(4, 1, 6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0])
    network(images)
    weight = network.cell.weight
    loss = cross_entropy(network(images), labels)
    (whole,) = torch.autograd.grad(loss, weight)
    # One copy of the weights for each row, so that the gradient of each row is seen alone.
    copies = [weight.detach().clone().requires_grad_() for _ in range(6)]
    h = images.new_zeros(4, 128)
    for x, copy in zip(images.transpose(1, 2).flatten(2).unbind(1), copies, strict=True):
        h = torch.tanh(torch.cat([x, h], dim=1) @ copy.T + network.cell.bias)
    parts = torch.autograd.grad(cross_entropy(network.readout(h), labels), copies)
    assert torch.allclose(whole, torch.stack(parts).sum(0), atol=1e-12)
    assert min(float(part.abs().max()) for part in parts) > 0


def test_it_is_a_network_of_the_command_line_and_the_order_of_rows_matters():
    data = load_dataset("digits")
    name = "plastic_cli.classifier.networks:recurrent"
    network, image_shape = build_network(name, data, (), torch.Generator().manual_seed(0))
    assert image_shape == data.image_shape
    images = data.test.x[:5].unflatten(1, data.image_shape)
    assert network(images).shape == (5, data.classes)
    assert not torch.allclose(network(images), network(images.flip(2)))
