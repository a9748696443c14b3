"""Deep supervision: each layer has the gradient of the loss of its own readout, and no error of another layer."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from credit.networks import EVERY, NETWORKS, losses_of
from plastic_backprop.credit import DeepSupervision
from plastic_cli.errors import UserError
from plastic_cli.runs.checkpoint import read_checkpoint


def updates(credit, x, y):
    for parameter in credit.parameters.values():
        parameter.grad = None
    credit.backward(x, losses_of(y))
    return {name: parameter.grad for name, parameter in credit.parameters.items()}


def test_each_layer_has_the_gradient_of_its_own_readout():
    model, x, y = NETWORKS["mlp"].draw()
    credit = DeepSupervision(model)
    credit.backward(x, losses_of(y))
    readouts = [readout.detach().clone() for readout in credit.readouts]
    found = updates(credit, x, y)

    first, second, last = model[0], model[2], model[4]
    h1 = torch.tanh(x @ first.weight.T + first.bias)
    h2 = torch.relu(h1.detach() @ second.weight.T + second.bias)
    output = h2.detach() @ last.weight.T + last.bias
    logits = [h1 @ readouts[0].T, h2 @ readouts[1].T, output]
    for place, (layer, own) in enumerate(zip((first, second, last), logits, strict=True)):
        exact = torch.autograd.grad(functional.cross_entropy(own, y), [layer.weight, layer.bias])
        torch.testing.assert_close(found[f"{2 * place}.weight"], exact[0])
        torch.testing.assert_close(found[f"{2 * place}.bias"], exact[1])


def test_the_readout_of_a_convolution_over_time_sees_its_channels():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    )
    x, y = torch.randn(5, 2, 20), torch.tensor([0, 1, 2, 0, 1])
    credit = DeepSupervision(model)
    updates(credit, x, y)
    assert [tuple(readout.shape) for readout in credit.readouts] == [(3, 6 * 18), (3, 4 * 16)]
    found = updates(credit, x, y)["0.weight"]
    assert all(not torch.allclose(found[0], found[channel]) for channel in range(1, 6))


def test_the_readout_of_many_positions_sees_means_of_their_parts():
    model = nn.Sequential(nn.Conv3d(1, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8 * 6 * 2, 3))
    x, y = torch.randn(2, 1, 8, 6, 2), torch.tensor([0, 1])
    credit = DeepSupervision(model)
    updates(credit, x, y)
    # The largest cube with at most 2048 / 16 = 128 positions has the side 5.
    assert [tuple(readout.shape) for readout in credit.readouts] == [(3, 16 * 5 * 5 * 2)]


def test_readouts_learn_by_adam():
    model, x, y = NETWORKS["mlp"].draw()
    credit = DeepSupervision(model, learning_rate=0.01)
    credit.backward(x, losses_of(y))
    before = credit.readouts[0].detach().clone()
    h = torch.tanh(model[0](x)).detach()
    weight = before.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.01)
    optimizer.load_state_dict(
        {"state": {0: credit.state_dict()["optimizer"]["state"][0]},
         "param_groups": [{**optimizer.state_dict()["param_groups"][0]}]}
    )  # fmt: skip
    functional.cross_entropy(h @ weight.T, y).backward()
    optimizer.step()
    credit.backward(x, losses_of(y))
    torch.testing.assert_close(credit.readouts[0].detach(), weight.detach())


def test_no_error_passes_a_skip_connection():
    model, x, y = NETWORKS["resnet18"].draw()
    first = updates(DeepSupervision(model, generator=torch.Generator().manual_seed(1)), x, y)
    changed = DeepSupervision(model, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.fc.weight.mul_(3)
        model.layer3[0].downsample[0].weight.mul_(-2)
    second = updates(changed, x, y)
    for name, value in first.items():
        below = name.startswith(("conv1", "bn1", "layer1", "layer2", "layer3.0.conv1", "layer3.0.bn1"))
        assert torch.equal(value, second[name]) == below, name


def test_the_readout_of_a_convolution_sees_at_most_2048_numbers():
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 100, 3))
    credit = DeepSupervision(model)
    credit.backward(torch.randn(2, 1, 10, 10), losses_of(torch.tensor([0, 2])))
    assert credit.readouts[0].shape == (3, 64 * 5 * 5)


@pytest.mark.parametrize("name", EVERY)
def test_every_network_learns_in_every_parameter_that_influences_a_nonlinearity_or_the_output(name):
    model, x, y = EVERY[name].draw()
    before = copy.deepcopy(model.state_dict())
    found = updates(DeepSupervision(model), x, y)
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in found.values())
    assert [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])] == [
        key for key in before if "running" in key or "num_batches" in key
    ]


def test_a_restored_rule_goes_on_as_the_one_that_was_stored():
    model, x, y = NETWORKS["lenet"].draw()
    credit = DeepSupervision(model, generator=torch.Generator().manual_seed(5))
    untouched = credit.state_dict()
    updates(credit, x, y)
    state = copy.deepcopy(credit.state_dict())
    expected = updates(credit, x, y)
    other = DeepSupervision(model)
    other.load_state_dict(state)
    again = updates(other, x, y)
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    credit.load_state_dict(untouched)
    assert credit.readouts == []


def test_the_generator_decides_the_readouts():
    model, x, y = NETWORKS["mlp"].draw()
    one, same, other = (DeepSupervision(model, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    first, second, third = (updates(credit, x, y)["0.weight"] for credit in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_modules_and_the_rest():
    model, x, y = NETWORKS["mlp"].draw()
    credit = DeepSupervision(model, modules="0", rest="gradient")
    credit.backward(x, losses_of(y))
    exact = torch.autograd.grad(functional.cross_entropy(model(x), y), [model[2].weight, model[4].weight])
    torch.testing.assert_close([model[2].weight.grad, model[4].weight.grad], list(exact))


def test_statistics_and_random_numbers_change_once_with_a_rule_for_the_rest():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5)).double()
    x, y = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(3)
    credit = DeepSupervision(model, modules="0", rest="gradient")
    losses = credit.backward(x, losses_of(y))
    assert model[1].num_batches_tracked == 1
    exact = model[4].weight.grad.clone()
    torch.manual_seed(3)
    again = losses_of(y)(model(x))
    torch.testing.assert_close(again.detach(), losses)
    torch.testing.assert_close(torch.autograd.grad(again.mean(), model[4].weight)[0], exact)


def test_a_run_learns_by_deep_supervision_with_readouts_in_its_checkpoint(train):
    folder = train("--trained", "deep-supervision", "--optimizer", "sgd", epochs=2)
    stopped = train("--trained", "deep-supervision", "--optimizer", "sgd", "--epochs", 2)
    rows = [(folder / "metrics.jsonl").read_text().count(name) for name in ('"angle"', "learning_flops")]
    assert rows == [3 * 3, 3]
    assert read_checkpoint(folder).tracked["learner"]["credit"]["readouts"][0].shape == (3, 4)
    first, second = (read_checkpoint(each).tracked["learner"]["network"] for each in (folder, stopped))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_it_cannot_teach_is_said_in_one_line():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(torch.relu(self.inside(x).sum(0, keepdim=True)).expand(len(x), -1))

    with pytest.raises(UserError, match="without the dimension of the 2 samples first"):
        DeepSupervision(Tokens()).backward(torch.randn(2, 4), losses_of(torch.tensor([0, 1])))
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(UserError, match=r"logits \(batch, classes\)"):
        DeepSupervision(model).backward(torch.randn(2, 4), lambda output: output**2)
    credit = DeepSupervision(NETWORKS["mlp"].draw()[0])
    credit.detach()
    with pytest.raises(UserError, match="detached"):
        credit.backward(torch.randn(2, 6), lambda output: output.sum(1))
