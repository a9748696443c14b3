"""What node perturbation costs, counted by hand on small networks."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from plastic_cli.analysis.cost import cost_of, step_cost
from plastic_cli.analysis.shapes import fully_connected
from plastic_cli.runs.record import RunRecord
from plastic_grlu import NodePerturbation
from plastic_grlu.cost import groups_of_layers
from plastic_grlu.rule import group_of_units

# Images of 2 x 3 pixels, 6 numbers, in 3 classes. The network 6-5-4-3 has 30 + 20 + 12 = 62 weights and 12 biases.
DATA = {"image_shape": [1, 2, 3], "classes": 3}


def price(**options):
    """Of 2 epochs of 14 images."""
    config = {"hidden": [5, 4], "epochs": 2, "perturbations": 7, **options}
    run = RunRecord("run", "grlu", 0, config, status="completed", data=DATA, speed={"samples": 28})
    found = cost_of(run)
    assert found is not None
    return found


def test_the_published_rule():
    cost = price()
    assert cost.inference_flops == 28 * 2 * 62
    # 7 pairs of passes through layers 2 and 3; the response of layer 1 is that of the prediction. An outer product for
    # each pair in layers 2 and 3, and one in layer 1, whose input has no noise.
    assert cost.learning_flops == 28 * (7 * 2 * 2 * 32 + 7 * 2 * 32 + 2 * 30)
    # Two hidden layers get the difference of the rewards of each pair.
    assert cost.messages == 28 * 2 * 7
    # One image for each step.
    assert cost.updates == 28 * 62
    assert cost.state_bytes == 4 * 74
    # Inputs of 6, 5 and 4 numbers of both passes, noise of 5, 4 and 3 units, and the change of each parameter.
    assert cost.step_bytes == 4 * (2 * 15 + 12 + 74)


def test_a_batch_shares_a_step_and_top_k_holds_a_mask():
    cost, masked = price(batch_size=4), price(batch_size=4, k=0.5)
    assert cost.updates == 2 * 4 * 62
    assert cost.step_bytes == 4 * (4 * (2 * 15 + 12) + 74)
    assert masked.step_bytes == cost.step_bytes + 4 * 4 * 9
    assert (masked.learning_flops, masked.messages) == (cost.learning_flops, cost.messages)


def test_any_optimizer_takes_one_product_for_the_weights():
    cost = price(optimizer="adam", batch_size=4)
    assert cost.learning_flops == 28 * (7 * 2 * 2 * 32 + 2 * 62)
    assert cost.messages == 28 * 2 * 7
    assert cost.state_bytes == 4 * 3 * 74
    # Inputs of a pass without noise, the noise of a pair, and the sum over pairs.
    assert cost.step_bytes == 4 * (4 * (15 + 2 * 12) + 74)


@pytest.mark.parametrize("pairs", [1, 7])
def test_learned_feedback_of_any_network(pairs):
    """Noise enters at the inputs of layers 2 and 3, 5 and 4 numbers."""
    options = {"optimizer": "adam", "batch_size": 4, "credit": "learned", "perturbations": pairs}
    direct, layer, fixed = price(**options), price(**options, feedback="layer"), price(**options, feedback_rate=0.0)
    noisy_passes = pairs * (2 * 2 * 32 + 3 * 2 * 9)
    assert direct.learning_flops == 28 * (noisy_passes + 2 * 62 + 3 * 2 * 27)
    assert layer.learning_flops == 28 * (noisy_passes + 2 * 62 + 3 * 2 * 32)
    assert fixed.learning_flops == 28 * (2 * 62 + 2 * 27)
    # Both hidden layers get 3 errors of the classes, or those of the next layer, and what each pair leaves unexplained.
    assert direct.messages == 28 * (2 * 3 + 2 * pairs)
    assert layer.messages == 28 * (4 + 3 + 2 * pairs)
    assert (direct.updates, layer.updates, fixed.updates) == (8 * (62 + 27), 8 * (62 + 32), 8 * 62)
    assert direct.state_bytes == fixed.state_bytes == 4 * (3 * 74 + 27)
    assert direct.step_bytes == fixed.step_bytes + 4 * 27 == 4 * (4 * (15 + 2 * 12) + 74 + 27)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_direct_feedback_costs_what_torch_counts(rate):
    """In all: what the formula says, the prediction in the passes with noise that is not shared, and a first look."""
    layers = [nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    model = nn.Sequential(*layers)
    x, y = torch.randn(14, 6), torch.arange(14) % 3
    credit = NodePerturbation(model, 7, credit="learned", feedback_rate=rate)

    def loss(output):
        return functional.cross_entropy(output, y, reduction="none")

    credit.backward(x, loss)
    found = step_cost(credit, model, x, loss)
    expected = price(optimizer="adam", batch_size=14, credit="learned", feedback_rate=rate)
    shared = 2 * 30 if rate else 0
    assert found.learning == 14 * (expected.learning_flops // 28 + shared)


def test_the_control_is_the_gradient():
    cost = price(update="backprop")
    assert cost.learning_flops == 28 * 2 * (62 + 32)
    assert cost.messages == 28 * (4 + 3)
    assert cost.updates == 28 * 62


def test_an_autoencoder_learns_first_and_encodes_each_image():
    cost, alone = price(backbone="autoencoder", latent=8, backbone_epochs=3), price(hidden=[5, 4])
    encoder, decoder = 6 * 256 + 256 * 8, 8 * 256 + 256 * 6
    first, others = 8 * 5, 32
    assert cost.inference_flops == 28 * 2 * (encoder + first + others)
    # Three epochs of 14 images: a prediction and the gradient.
    trained = 3 * 14 * 2 * (encoder + decoder + encoder + decoder + 256 * 8 + decoder)
    assert cost.learning_flops == 28 * (7 * 3 * 2 * others + 2 * first) + trained
    assert cost.messages == alone.messages + 3 * 14 * (8 + 256 + 6)
    assert cost.updates == 28 * (first + others) + 3 * (encoder + decoder)
    parameters = encoder + 256 + 8 + decoder + 256 + 6
    # The memory of the autoencoder with the moments of Adam, which is more than what follows.
    assert cost.state_bytes == 4 * 3 * parameters
    assert cost.step_bytes == 4 * (128 * (6 + 256 + 256 + 8 + 8 + 256 + 256 + 6) + parameters)


def test_each_group_of_units_takes_a_pair_of_passes_and_has_a_reward():
    # 5 + 4 + 3 units in 4 groups of 3: two groups begin in the first layer, one in the second, one is the readout.
    cost, one = price(reward_groups=4), price()
    through = 2 * 32 + 12 + 0
    assert cost.learning_flops == 28 * (7 * 2 * 2 * through + 7 * 2 * 32 + 2 * 30)
    # Groups 0 and 1 have units in the first hidden layer, groups 1 and 2 in the second.
    assert cost.messages == 28 * 7 * (2 + 2)
    for name in ("inference_flops", "updates", "state_bytes", "step_bytes"):
        assert getattr(cost, name) == getattr(one, name)


def test_a_group_for_each_unit_passes_the_layers_above_it():
    one, three, twelve = (price(reward_groups=groups) for groups in (1, 3, 12))
    assert one == price()
    # Groups of four units: 0, 0, 0, 0, 1 are in layer 1, and 1, 1, 1, 2 in layer 2. The layers get 2 and 2 rewards.
    assert three.learning_flops == 28 * (7 * 2 * 2 * (32 + 32 + 12) + 7 * 2 * 32 + 2 * 30)
    assert three.messages == 28 * 7 * 4
    # 5 units below layers 2 and 3, 4 units below layer 3, and the outputs.
    assert twelve.learning_flops == 28 * (7 * 2 * 2 * (5 * 32 + 4 * 12) + 7 * 2 * 32 + 2 * 30)
    assert twelve.messages == 28 * 7 * 9


def test_the_form_of_the_noise_has_a_price():
    plain, common, turns, active = (
        price(**options)
        for options in ({}, {"noise_sources": "readout"}, {"noise_layers": "one"}, {"noise_units": "active"})
    )
    assert active == price(readout_noise=0.5) == plain
    # The noise of 3 classes goes to 5 + 4 hidden units through fixed weights, and counts in both hidden layers.
    assert common.learning_flops == plain.learning_flops + 28 * 7 * 2 * 27
    assert common.messages == 28 * 7 * 2 * (1 + 3)
    assert (common.updates, common.state_bytes) == (plain.updates, 4 * (74 + 27))
    # A third of 7 perturbations: pairs of passes above layers 1, 2 and 3. Each layer has a turn, and one outer product.
    assert turns.learning_flops == 28 * (7 * 2 * 2 * (32 + 12 + 0) // 3 + 2 * (30 + 20 + 12))
    assert turns.messages == 28 * 7 * 2 // 3
    # With one perturbation, a third of the images teach a layer.
    rare = price(noise_layers="one", perturbations=1)
    assert rare.learning_flops == 28 * (2 * 2 * (32 + 12 + 0) // 3 + 2 * (30 + 20 + 12) // 3)
    both = price(noise_layers="one", noise_sources="readout")
    assert both.learning_flops == turns.learning_flops + 28 * 7 * 2 * 27 // 3
    for name in ("inference_flops", "updates", "state_bytes", "step_bytes"):
        assert getattr(turns, name) == getattr(plain, name)


def test_noise_in_the_readout_alone_teaches_it_alone():
    plain, cost, masked = price(), price(noise_layers="readout"), price(noise_layers="readout", k=0.5)
    assert (cost.inference_flops, cost.messages) == (plain.inference_flops, 0)
    # The 4 * 3 weights of the readout learn from what the prediction computed.
    assert cost.learning_flops == 28 * 2 * 12
    assert cost.updates == 28 * 12
    # Six further masks: the layers that do not read the data, and the outer product of the readout.
    assert masked.learning_flops == cost.learning_flops + 28 * 6 * (2 * 32 + 2 * 12)
    assert masked.step_bytes == cost.step_bytes + 4 * (5 + 4)


@pytest.mark.parametrize(("batch", "blocks"), [(1, 2), (7, 2), (5, 4)])
def test_decorrelated_inputs_have_a_price(batch, blocks):
    plain, cost = price(batch_size=batch), price(batch_size=batch, decorrelation=0.01)
    squares = 36 + 25 + 16
    assert cost.inference_flops == plain.inference_flops + 28 * 2 * squares
    # Layers 2 and 3 see both passes of 7 pairs; two products for each image teach the matrices.
    assert cost.learning_flops == plain.learning_flops + 28 * (7 * 2 * 2 * (25 + 16) + 2 * 2 * squares)
    # Two epochs of 14 images are less than a block of 64 each. Of 5 images, the last batch is a block of its own.
    assert cost.updates == plain.updates + blocks * squares
    assert cost.state_bytes == plain.state_bytes + 4 * squares
    assert cost.step_bytes == plain.step_bytes + 4 * squares
    assert cost.messages == plain.messages


def test_more_groups_than_units_have_no_price():
    config = {"hidden": [5, 4], "reward_groups": 10**12, "epochs": 2}
    assert cost_of(RunRecord("run", "grlu", 0, config, status="completed", data=DATA, speed={"samples": 28})) is None


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
@settings(max_examples=30, deadline=None)
def test_a_layer_gets_the_rewards_of_the_groups_with_a_unit_in_it(hidden, data):
    groups = data.draw(st.integers(1, sum(hidden) + 3))
    members = group_of_units([*hidden, 3], groups)
    found = groups_of_layers(fully_connected([6, *hidden, 3]), groups)
    assert [set(numbers) for numbers in found] == [set(part.tolist()) for part in members]
    messages = price(hidden=hidden, perturbations=1, reward_groups=groups).messages
    assert messages == 28 * sum(len(part.unique()) for part in members[:-1])


@settings(max_examples=20)
@given(pairs=st.integers(1, 200), optimizer=st.sampled_from(["sgd", "adam"]))
def test_operations_and_messages_of_learning_are_linear_in_the_perturbations(pairs, optimizer):
    one, two, many = (price(perturbations=number, optimizer=optimizer, batch_size=4) for number in (1, 2, pairs))
    for name in ("learning_flops", "messages"):
        slope = getattr(two, name) - getattr(one, name)
        assert getattr(many, name) == getattr(one, name) + (pairs - 1) * slope
    assert many.messages == pairs * one.messages
    for name in ("inference_flops", "updates", "state_bytes", "step_bytes"):
        assert getattr(many, name) == getattr(one, name)


@pytest.mark.parametrize("perturbations", [1, 5])
def test_torch_counts_the_same_and_the_response_to_the_data_once_more(perturbations):
    sizes, batch = (6, 5, 4, 3), 4
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    y = torch.arange(batch) % 3
    counted = step_cost(
        NodePerturbation(model, perturbations),
        model,
        torch.randn(batch, 6),
        lambda output: functional.cross_entropy(output, y, reduction="none"),
    )
    cost = price(optimizer="adam", perturbations=perturbations)
    assert counted.forward * 28 == cost.inference_flops * batch
    again = counted.learning * 28 - cost.learning_flops * batch
    assert again == 28 * batch * 2 * next(a * b for a, b in pairwise(sizes))
