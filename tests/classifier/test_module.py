"""The learner of a module: with a credit rule, with a schedule, and what it says of batches that it cannot learn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.module_run import dropped_rate, scheduled_rates
from plastic_cli.classifier.optimizers import SeveralOptimizers
from plastic_cli.credit.gradient import Gradient
from plastic_cli.errors import UserError


class Scaled(Gradient):
    """The gradient times a number that grows with each call: a credit rule with a state."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = 0

    def backward(self, inputs, loss):
        self.calls += 1
        losses = super().backward(inputs, loss)
        for parameter in self.parameters.values():
            parameter.grad *= self.calls
        return losses

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batch(images=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, 6, generator=generator), torch.randint(3, (images,), generator=generator)


def learned(module, credit=None, steps=3, **options):
    learner = ModuleLearner(module, torch.optim.SGD(module.parameters(), lr=0.1), credit=credit, **options)
    losses = [learner.train_batch(*batch()) for _ in range(steps)]
    return learner, losses


def test_the_gradient_as_credit_rule_learns_as_without_one():
    plain, with_credit = network(), network()
    _, losses = learned(plain)
    _, same = learned(with_credit, Gradient(with_credit))
    assert torch.allclose(torch.stack(losses), torch.stack(same), rtol=1e-12)
    for left, right in zip(plain.parameters(), with_credit.parameters(), strict=True):
        assert torch.allclose(left, right, rtol=1e-12)


def test_each_step_is_that_of_the_credit_rule():
    module, expected = network(), network()
    learned(module, Scaled(module), steps=2)
    x, y = batch()
    for call in (1, 2):
        expected.zero_grad()
        functional.cross_entropy(expected(x.double()), y).backward()
        with torch.no_grad():
            for parameter in expected.parameters():
                parameter -= 0.1 * call * parameter.grad
    for left, right in zip(module.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(left, right, rtol=1e-12)


def test_the_state_of_the_credit_rule_is_part_of_the_state():
    module = network()
    learner, _ = learned(module, Scaled(module), steps=2)
    other = network()
    again = ModuleLearner(other, torch.optim.SGD(other.parameters(), lr=0.1), credit=Scaled(other))
    again.load_state_dict(learner.state_dict())
    assert again.credit.calls == 2
    assert torch.equal(again.train_batch(*batch()), learner.train_batch(*batch()))
    # A learner without the rule, for evaluation, takes the network from the same state.
    ModuleLearner(network()).load_state_dict(learner.state_dict())


def test_a_loss_of_your_own_gives_one_number_for_each_sample_to_a_credit_rule():
    def squares(logits, y):
        return (logits - functional.one_hot(y, 3)).square().sum(1)

    module = network()
    _, losses = learned(module, Gradient(module), steps=1, loss=squares)
    x, y = batch()
    assert torch.allclose(losses[0], squares(network()(x.double()), y).mean())
    with pytest.raises(UserError, match="one for each sample"):
        learned(module, Gradient(module), loss=functional.cross_entropy)


def test_a_schedule_is_called_with_the_share_of_the_epochs():
    module = network()
    shares = []
    learner, _ = learned(module, schedule=shares.append)
    for epoch in range(4):
        learner.begin_epoch(epoch, 4)
    assert shares == [0, 0.25, 0.5, 0.75]


def test_the_rate_drops_after_shares_of_the_epochs():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 2.0}], lr=1.0)
    schedule = scheduled_rates(optimizer, dropped_rate((0.5, 0.75)))
    rates = []
    for progress in (0, 0.49, 0.5, 0.74, 0.75, 0.99, 0):
        schedule(progress)
        rates.append([group["lr"] for group in optimizer.param_groups])
    factors = [1, 1, 0.1, 0.1, 0.01, 0.01, 1]
    assert rates == [pytest.approx([factor, 2 * factor]) for factor in factors]


def test_only_the_readout_learns():
    module = network()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    learner = ModuleLearner(module, torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1))
    learner.train_only_readout(batch(2)[0])
    learner.train_batch(*batch())
    changed = [not torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True)]
    assert changed == [False, False, True, True]
    with pytest.raises(UserError, match="no layer of weights"):
        ModuleLearner(nn.BatchNorm1d(6)).train_only_readout(batch(2)[0])


def test_the_first_layer_is_the_one_that_is_called_first():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.readout, self.first = nn.Linear(5, 3), nn.Linear(6, 5)

        def forward(self, x):
            return self.readout(self.first(x).relu())

    module = Backwards()
    learner = ModuleLearner(module)
    assert learner.first_layer(batch(2)[0]) is module.first.weight
    (hidden,) = learner.features(batch()[0])
    assert torch.equal(hidden, module.first(batch()[0]).relu())
    assert ModuleLearner(nn.BatchNorm1d(6)).first_layer(batch(2)[0]) is None


def test_batch_normalization_of_one_image_is_an_error_of_one_line():
    module = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    learner = ModuleLearner(module, torch.optim.SGD(module.parameters(), lr=0.1))
    with pytest.raises(UserError, match="batch normalization cannot learn from a batch of 1 image"):
        learner.train_batch(*batch(1))


def test_two_optimizers_step_their_own_parameters_and_continue_from_their_state():
    def learner():
        module = network()
        first, second = list(module.parameters())[:2], list(module.parameters())[2:]
        both = SeveralOptimizers([torch.optim.SGD(first, lr=0.1, momentum=0.9), torch.optim.Adam(second, lr=0.01)])
        return ModuleLearner(module, both)

    def alone(optimizer, chosen):
        module = network()
        chosen = list(module.parameters())[chosen]
        ModuleLearner(module, optimizer(chosen)).train_batch(*batch())
        return chosen

    both = learner()
    both.train_batch(*batch())
    expected = [
        *alone(lambda chosen: torch.optim.SGD(chosen, lr=0.1), slice(2)),
        *alone(lambda chosen: torch.optim.Adam(chosen, lr=0.01), slice(2, 4)),
    ]
    for left, right in zip(both.network.parameters(), expected, strict=True):
        assert torch.equal(left, right)
    again = learner()
    # torch's optimizers take the tensors of a state, not copies.
    again.load_state_dict(copy.deepcopy(both.state_dict()))
    scheduled_rates(again.optimizer, lambda progress: 1 - progress)(0.5)
    assert [group["lr"] for group in again.optimizer.param_groups] == [0.05, 0.005]
    scheduled_rates(both.optimizer, lambda _: 0.5)(0.0)
    for part in (both, again):
        part.train_batch(*batch())
    for left, right in zip(both.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(left, right)
