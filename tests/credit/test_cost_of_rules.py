"""What each credit rule costs, compared with the operations counted by hand."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_backprop.credit import DeepSupervision
from plastic_cli.analysis.cost import step_cost
from plastic_eglp import LocalPlasticity
from plastic_eglp.events import AlwaysOnController, NeverController
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

BATCH, INPUTS, CLASSES = 6, 7, 3
SIZES = (INPUTS, 11, 13, CLASSES)
WEIGHTS = [first * second for first, second in pairwise(SIZES)]
FORWARD = 2 * BATCH * sum(WEIGHTS)


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 3))


def cost_of(credit, model):
    x, y = torch.randn(BATCH, INPUTS), torch.arange(BATCH) % CLASSES
    return step_cost(credit, model, x, lambda output: functional.cross_entropy(output, y, reduction="none"))


@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("perturbations", [1, 7])
@pytest.mark.parametrize("place", ["output", "preactivation"])
def test_node_perturbation_costs_two_passes_a_perturbation_and_the_products_of_the_weights(
    perturbations, place, chunk_size
):
    """In all, 2P + 1 passes and the products of the weights; the passes may share what precedes the noise."""
    model = make()
    cost = cost_of(NodePerturbation(model, perturbations, credit=place, chunk_size=chunk_size), model)
    assert cost.forward == FORWARD
    before_the_noise = 2 * BATCH * WEIGHTS[0]
    after_the_noise = FORWARD - before_the_noise
    passes = cost.learning - FORWARD - 2 * perturbations * after_the_noise
    assert passes % before_the_noise == 0
    assert 1 <= passes // before_the_noise <= 2 * perturbations


@pytest.mark.parametrize(
    ("kind", "errors"), [("fixed", WEIGHTS[1:]), ("sign", WEIGHTS[1:]), ("symmetric", WEIGHTS[1:])]
)
def test_feedback_costs_as_much_as_the_gradient(kind, errors):
    model = make()
    cost = cost_of(RandomFeedback(model, feedback=kind), model)
    assert cost.learning == FORWARD + 2 * BATCH * sum(errors)


def test_direct_feedback_projects_the_error_of_the_output_to_each_hidden_layer():
    model = make()
    cost = cost_of(RandomFeedback(model, feedback="direct"), model)
    assert cost.learning == FORWARD + 2 * BATCH * CLASSES * (SIZES[1] + SIZES[2])


def test_deep_supervision_adds_a_readout_for_each_hidden_layer():
    model = make()
    cost = cost_of(DeepSupervision(model), model)
    readouts = 2 * BATCH * CLASSES * (SIZES[1] + SIZES[2])
    # A readout costs its product and the gradients of its weights and of its input.
    assert cost.learning == FORWARD + 3 * readouts


def test_local_plasticity_costs_nothing_in_hidden_layers_without_an_event():
    model = make()
    without = cost_of(LocalPlasticity(model, events=NeverController()), model)
    having = cost_of(LocalPlasticity(model, events=AlwaysOnController()), model)
    assert (without.events, having.events) == (0, 1)
    assert without.forward == having.forward == FORWARD
    assert without.learning == 2 * BATCH * WEIGHTS[-1]
    # The update of a hidden layer is one product of activity and input.
    assert having.learning == without.learning + 2 * BATCH * sum(WEIGHTS[:-1])
