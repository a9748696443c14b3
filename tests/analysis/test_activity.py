"""Activity of hidden layers by name, against hooks and closed forms."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from credit.networks import EVERY, NETWORKS, mlp
from plastic_cli.analysis import activity as rooms
from plastic_cli.analysis.activity import hidden_activity, in_batches, pooled
from plastic_cli.credit.recording import record


def test_an_mlp_has_the_activity_of_its_hidden_units():
    model, x, _ = NETWORKS["mlp"].draw()
    found = hidden_activity(model, x)
    assert list(found) == ["0", "2"]
    first = torch.tanh(x @ model[0].weight.T + model[0].bias)
    assert torch.equal(found["0"], model[1](model[0](x)).detach())
    torch.testing.assert_close(found["0"], first.detach())
    torch.testing.assert_close(found["2"], torch.relu(first @ model[2].weight.T + model[2].bias).detach())


def test_a_convolution_has_units_and_positions_before_pooling():
    model, x, _ = NETWORKS["lenet"].draw()
    found = hidden_activity(model, x)
    assert {name: tuple(part.shape[1:]) for name, part in found.items()} == {
        "0": (3, 12, 12),
        "3": (4, 4, 4),
        "7": (10,),
    }
    torch.testing.assert_close(found["3"], torch.relu(model[3](model[2](torch.relu(model[0](x))))).detach())


def test_resnet_has_the_output_of_every_block_by_name():
    model, x, _ = NETWORKS["resnet18"].draw()
    model.eval()
    outputs = {}
    for name, module in model.named_modules():
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output.detach()}))
    found = hidden_activity(model, x)
    assert list(found) == [
        "conv1",
        *(f"layer{group}.{block}.conv{layer}" for group in range(1, 5) for block in range(2) for layer in (1, 2)),
    ], "a shortcut with weights has the activity of its block"
    assert len(outputs) == 8
    for name, output in outputs.items():
        assert torch.equal(found[f"{name}.conv2"], output), name
    # The last block is what the readout receives, averaged over positions.
    expected = found["layer4.1.conv2"].mean((2, 3)) @ model.fc.weight.T + model.fc.bias
    torch.testing.assert_close(expected, model(x))


def test_tokens_and_time_steps_are_positions():
    model, x, _ = NETWORKS["transformer"].draw()
    found = hidden_activity(model, x)
    assert found["blocks.0.up"].shape == (4, 16, 4)
    received = []
    handle = model.blocks[0].down.register_forward_pre_hook(lambda _, given: received.append(given[0].detach()))
    model(x)
    handle.remove()
    assert torch.equal(found["blocks.0.up"], received[0].transpose(1, 2))
    model, x, _ = EVERY["shared"].draw()
    once = torch.tanh(model.inside(x))
    twice = torch.stack([once, torch.tanh(model.inside(once))], -1).detach()
    torch.testing.assert_close(hidden_activity(model, x)["inside"], twice)


class TimeFirst(nn.Module):
    """Time before samples, and positions that are the same for all samples."""

    def __init__(self):
        super().__init__()
        self.first, self.fc = nn.Linear(3, 6), nn.Linear(6, 2)
        self.position = nn.Embedding(5, 3)

    def forward(self, x):
        x = x.transpose(0, 1) + self.position(torch.arange(5))[:, None]
        return self.fc(torch.relu(self.first(x)).mean(0))


def test_the_samples_are_found_in_any_dimension():
    torch.manual_seed(0)
    model, x = TimeFirst(), torch.randn(4, 5, 3)
    found = hidden_activity(model, x)
    assert list(found) == ["first"], "a position has no sample"
    expected = torch.relu(model.first(x + model.position.weight)).detach()
    torch.testing.assert_close(found["first"], expected.transpose(1, 2))


@pytest.mark.parametrize("name", EVERY)
def test_batches_have_the_activity_of_the_whole(name, monkeypatch):
    model, x, _ = EVERY[name].draw()
    model.eval()
    x = torch.cat([x] * 4)[:7]
    whole = hidden_activity(model, x)
    monkeypatch.setattr(rooms, "_NUMBERS_AT_ONCE", 2 * sum(part[0].numel() for part in whole.values()))
    parts = list(in_batches(lambda inputs: hidden_activity(model, inputs), x))
    assert [len(next(iter(part.values()))) for part in parts] == [2, 2, 2, 1]
    assert whole.keys() == parts[0].keys()
    assert len(whole) >= 1
    for layer, expected in whole.items():
        torch.testing.assert_close(torch.cat([part[layer] for part in parts]), expected, rtol=1e-10, atol=1e-10)


def test_positions_of_the_size_of_a_batch_are_no_samples():
    model, x = TimeFirst(), torch.randn(5, 5, 3)
    model.position = nn.Embedding(5, 3)
    assert list(next(in_batches(lambda inputs: hidden_activity(model, inputs), x))) == ["first"]


def test_pooling_averages_positions_and_keeps_units():
    few = torch.randn(3, 8, 4, 4)
    assert torch.equal(pooled(few, 128), few.flatten(1))
    halved = pooled(few, 32)
    expected = few.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)).flatten(1)
    torch.testing.assert_close(halved, expected)
    torch.testing.assert_close(pooled(few, 8), few.mean((2, 3)))
    torch.testing.assert_close(pooled(few, 3), few.mean((2, 3)), msg="units are never averaged")
    assert torch.equal(pooled(torch.ones(2, 2000)), torch.ones(2, 2000))
    assert pooled(torch.randn(2, 4, 9, 3, 3, 3), 16).shape == (2, 16)
    tokens = torch.randn(2, 6, 10)
    torch.testing.assert_close(pooled(tokens, 30), functional.adaptive_avg_pool1d(tokens, 5).flatten(1))


def test_a_model_without_hidden_layers_has_no_activity():
    assert hidden_activity(nn.Linear(3, 2), torch.randn(4, 3)) == {}
    assert hidden_activity(nn.ReLU(), torch.randn(4, 3)) == {}
    assert list(hidden_activity(nn.DataParallel(mlp()), torch.randn(4, 6))) == ["0", "2"], "names without wrappers"


class Viewed(nn.Module):
    """A convolution whose response is viewed, permuted and copied before its nonlinearity."""

    def __init__(self, view):
        super().__init__()
        self.convolution, self.readout, self.view = nn.Conv2d(1, 3, 3), nn.Linear(3 * 36, 4), view

    def forward(self, x):
        return self.readout(torch.relu(self.view(self.convolution(x))))


@pytest.mark.parametrize(
    "view",
    [
        lambda z: z.flatten(1),
        lambda z: z.permute(0, 2, 3, 1).flatten(1),
        lambda z: z.transpose(1, 2).reshape(len(z), -1),
    ],
)
def test_activity_after_a_view_that_copies_has_the_places_of_the_response(view):
    torch.manual_seed(0)
    model, x = Viewed(view), torch.randn(4, 1, 8, 8)
    expected = torch.relu(model.convolution(x)).detach()
    torch.testing.assert_close(hidden_activity(model, x)["convolution"], expected)
    _, (use, _) = record(model, x)
    torch.testing.assert_close(use.y, expected)
    torch.testing.assert_close(use.slope, (expected > 0).float())
