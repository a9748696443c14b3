"""The counted cost of a step equals the operations counted by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.analysis.cost import step_cost
from plastic_cli.credit.gradient import Gradient

BATCH = 5


def losses(output):
    return functional.cross_entropy(output, torch.arange(BATCH) % 3, reduction="none")


def test_gradient_of_linear_layers_computes_weights_and_inputs_but_not_the_gradient_of_the_data():
    model = nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 13), nn.Tanh(), nn.Linear(13, 3))
    cost = step_cost(Gradient(model), model, torch.zeros(BATCH, 7), losses)
    first, second, third = 7 * 11, 11 * 13, 13 * 3
    assert cost.forward == 2 * BATCH * (first + second + third)
    # The gradients of the weights cost a forward pass; those of the inputs are needed in all layers but the first.
    assert cost.learning == 2 * BATCH * (first + second + third) + 2 * BATCH * (second + third)


def test_gradient_of_one_layer_computes_only_its_weights_and_what_is_above_it():
    model = nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 3))
    x = torch.zeros(BATCH, 7)
    assert step_cost(Gradient(model, "4"), model, x, losses).learning == 2 * BATCH * 13 * 3
    assert step_cost(Gradient(model, "2"), model, x, losses).learning == 2 * BATCH * (11 * 13 + 13 * 3)


def test_convolutions_count_each_position():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 9, 3)
    )
    cost = step_cost(Gradient(model), model, torch.zeros(BATCH, 2, 8, 8), losses)
    first, second, readout = 64 * 3 * 2 * 9, 9 * 4 * 3 * 9, 4 * 9 * 3
    assert cost.forward == 2 * BATCH * (first + second + readout)
    assert cost.learning == cost.forward + 2 * BATCH * (second + readout)


def test_attention_and_recurrence_count_every_product():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.attention(x, x, x)[0].mean(1))

    attention = Attention()
    tokens = 6
    projections, scores = 4 * tokens * 8 * 8, 2 * tokens * tokens * 8
    cost = step_cost(Gradient(attention), attention, torch.randn(BATCH, tokens, 8), losses)
    assert cost.forward == 2 * BATCH * (projections + scores + 8 * 3)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    recurrent = Recurrent()
    cost = step_cost(Gradient(recurrent), recurrent, torch.randn(BATCH, 7, 4), losses)
    assert cost.forward == 2 * BATCH * (7 * (4 * 18 + 6 * 18) + 6 * 3)


def test_the_step_leaves_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 11), nn.BatchNorm1d(11), nn.Dropout(), nn.Linear(11, 3)).train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = torch.rand(3, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(4)
    step_cost(Gradient(model), model, torch.randn(BATCH, 7, generator=torch.Generator()), losses)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3].weight.grad is None


@pytest.mark.parametrize("batch", [1, BATCH])
def test_the_cost_of_a_batch_is_that_of_its_samples(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    cost = step_cost(Gradient(model), model, torch.zeros(batch, 3, 4), lambda output: output.sum(1))
    assert (cost.forward, cost.learning) == (2 * batch * 36, 2 * batch * 36)


def test_what_is_computed_for_the_first_batch_only_does_not_count():
    class Curious(Gradient):
        looked = False

        def backward(self, inputs, loss):
            if not self.looked:
                self.model(inputs)
                self.looked = True
            return super().backward(inputs, loss)

    model = nn.Sequential(nn.Linear(12, 3))
    cost = step_cost(Curious(model), model, torch.zeros(4, 12), lambda output: output.sum(1))
    assert (cost.forward, cost.learning) == (2 * 4 * 36, 2 * 4 * 36)


def test_the_step_begins_in_the_present_state_of_the_rule():
    class Growing(Gradient):
        batches = 0

        def state_dict(self):
            return {"batches": self.batches}

        def load_state_dict(self, state):
            self.batches = state["batches"]

        def backward(self, inputs, loss):
            for _ in range(self.batches):
                self.model(inputs)
            self.batches += 1
            return super().backward(inputs, loss)

    model = nn.Sequential(nn.Linear(12, 3))
    credit = Growing(model)
    credit.batches = 2
    cost = step_cost(credit, model, torch.zeros(4, 12), lambda output: output.sum(1))
    assert (cost.forward, cost.learning) == (2 * 4 * 36, 3 * 2 * 4 * 36)
    assert credit.batches == 2
