"""What learning costs, against formulas; counting leaves no trace."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from plastic_cli.analysis.cost import cost_of
from plastic_cli.runs.record import RunRecord
from plastic_eglp import AlwaysOnController, EGLPLearner, EGLPNetwork, NeverController, ThresholdController
from plastic_eglp.cost import cost_of_stimulus
from plastic_eglp.layers import LOCAL_RULES

CLASSES = 3


def learner(
    hidden=(7, 5),
    *,
    model="mlp",
    readout="supervised",
    local_rule="oja",
    activation="relu",
    controller=None,
    **options,
):
    net = EGLPNetwork(
        (2, 8, 6),
        hidden,
        CLASSES,
        model=model,
        readout=readout,
        local_rule=local_rule,
        activation=activation,
        generator=torch.Generator().manual_seed(0),
    )
    return EGLPLearner(net, controller or AlwaysOnController(), batch_size=8, **options)


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 96, generator=generator), torch.randint(CLASSES, (n,), generator=generator)


def products(hidden):
    """Operations of W x in each hidden layer, and in the readout."""
    sizes = [96, *hidden, CLASSES]
    found = [2 * a * b for a, b in pairwise(sizes)]
    return found[:-1], found[-1]


hiddens = pytest.mark.parametrize("hidden", [(7,), (7, 5), (4, 11, 3)])


@hiddens
@pytest.mark.parametrize("local_rule", LOCAL_RULES)
def test_an_mlp_without_feedback(hidden, local_rule):
    layers, readout = products(hidden)
    cost = cost_of_stimulus(learner(hidden, local_rule=local_rule, feedback="none"))
    assert cost.forward == sum(layers) + readout
    assert cost.readout == readout
    assert cost.event == sum(layers)
    assert cost.messages == len(hidden)


@hiddens
def test_an_mlp_with_direct_feedback(hidden):
    layers, readout = products(hidden)
    cost = cost_of_stimulus(learner(hidden))
    assert cost.forward == sum(layers) + readout
    assert cost.readout == readout
    assert cost.event == sum(layers) + 2 * CLASSES * sum(hidden)
    assert cost.messages == len(hidden) * (1 + CLASSES)


def test_a_collected_stimulus_is_presented_twice():
    once = cost_of_stimulus(learner())
    twice = cost_of_stimulus(learner(controller=ThresholdController(per_stimulus=True)))
    assert twice.event == once.event + once.forward
    assert (twice.forward, twice.readout, twice.messages) == (once.forward, once.readout, once.messages)


def test_a_frozen_layer_costs_no_learning():
    layers, _ = products((7, 5))
    for frozen in (0, 1):
        cost = cost_of_stimulus(learner(feedback="none", frozen=(frozen,)))
        assert cost.event == sum(layers) - layers[frozen]
        assert cost.messages == 1


def test_a_local_readout_learns_at_events():
    layers, readout = products((7, 5))
    cost = cost_of_stimulus(learner(readout="local", feedback="none"))
    assert cost.readout == 0
    assert cost.event == sum(layers) + readout


def test_the_cost_of_one_event_does_not_depend_on_the_controller():
    assert cost_of_stimulus(learner(controller=NeverController())) == cost_of_stimulus(learner())


@hiddens
def test_backpropagation(hidden):
    """The gradient of every weight, and of every layer's input but the first's."""
    layers, readout = products(hidden)
    cost = cost_of_stimulus(learner(hidden, update="backprop"))
    assert cost.forward == sum(layers) + readout
    assert cost.event == 2 * (sum(layers) + readout) - layers[0]
    assert cost.readout == 0
    assert cost.messages == sum(hidden[1:]) + CLASSES


@pytest.mark.parametrize("feedback", ["none", "direct"])
@pytest.mark.parametrize("local_rule", ["softhebb", "oja"])
def test_a_convolutional_network(feedback, local_rule):
    first, second = 2 * (8 * 6) * 4 * (2 * 25), 2 * (4 * 3) * 6 * (4 * 9)
    readout = 2 * (6 * 2 * 1) * CLASSES
    cost = cost_of_stimulus(learner((4, 6), model="cnn", feedback=feedback, local_rule=local_rule))
    assert cost.forward == first + second + readout
    assert cost.readout == readout
    assert cost.event == first + second + (2 * CLASSES * 10 if feedback == "direct" else 0)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mlp", {"feedback": "direct"}),
        ("mlp", {"feedback": "none"}),
        ("mlp", {"feedback": "none", "readout": "local"}),
        ("mlp", {"feedback": "direct", "readout": "local"}),
        ("mlp", {"update": "backprop"}),
        ("cnn", {"feedback": "direct"}),
        ("cnn", {"feedback": "none", "local_rule": "softhebb"}),
        ("cnn", {"update": "backprop"}),
    ],
)
def test_the_count_from_shapes_equals_the_operations_of_torch(model, options, frozen, activation):
    one = learner(model=model, activation=activation, frozen=frozen, **options)
    one.network.double()
    x, y = batch()
    in_place = {torch.ops.aten.addmm_: lambda _, left, right, **others: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        one.train_batch(x.double(), y)
    cost = cost_of_stimulus(one)
    assert counter.get_total_flops() == 8 * (cost.forward + cost.readout + cost.event)


def test_the_count_does_not_depend_on_the_activation_function():
    one = EGLPLearner(EGLPNetwork((1, 28, 28), (256, 128), 10), AlwaysOnController(), batch_size=8)
    assert one.network.layers()[0].activation == "tanh"
    assert cost_of_stimulus(one).event == 474_624
    assert cost_of_stimulus(learner(activation="tanh")) == cost_of_stimulus(learner(activation="relu"))


def everything(one):
    """All that learning could change or look at."""
    net = one.network
    found = {f"state {name}": tensor for name, tensor in net.state_dict().items()}
    for number, layer in enumerate(net.layers()):
        for activity in layer._stored:
            found |= {f"{number} {name}": tensor for name, tensor in activity._asdict().items()}
    for name, parameter in net.named_parameters():
        found[f"gradient {name}"] = parameter.grad
    found["last hidden"] = getattr(net, "last_hidden", None)
    if one.optimizer is not None:
        for number, state in one.optimizer.state_dict()["state"].items():
            found |= {f"adam {number} {name}": tensor for name, tensor in state.items()}
    found["random state"] = torch.get_rng_state()
    return {name: None if tensor is None else tensor.detach().clone() for name, tensor in found.items()}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("local_rule", ["bcm", "softhebb"])
@pytest.mark.parametrize(
    "options",
    [
        {"feedback": "none"},
        {"feedback": "direct", "controller": ThresholdController(per_stimulus=True)},
        {"update": "backprop"},
        {"readout": "local"},
    ],
)
@pytest.mark.parametrize(("batches", "training"), [(0, True), (3, False)])
def test_counting_does_not_change_the_learner(model, local_rule, training, options, batches):
    one = learner(model=model, local_rule=local_rule, **options)
    for seed in range(batches):
        one.train_batch(*batch(seed=seed))
    one.network.train(training)
    flags = [(p.requires_grad, id(p)) for p in one.network.parameters()]
    counters = (one.events, one.event_stimuli, one.synaptic_updates, one.controller.used, list(one.had_event))
    before = everything(one)
    cost_of_stimulus(one)
    after = everything(one)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if tensor is None:
            assert after[name] is None, name
        else:
            assert torch.equal(after[name], tensor), name
    assert [(p.requires_grad, id(p)) for p in one.network.parameters()] == flags
    assert all(module.training is training for module in one.network.modules())
    assert (one.events, one.event_stimuli, one.synaptic_updates, one.controller.used, list(one.had_event)) == counters


# ------------------------------------------------------------------------------------------------- a whole training

DATA = {"image_shape": [1, 2, 3], "classes": 3}


def record(count=3, event_images=11, samples=28, **options):
    """A run of the network 6-5-4-3, which has 30 + 20 + 12 weights; 2 epochs of 14 images in batches of 4."""
    config = {"hidden": [5, 4], "epochs": 2, "batch_size": 4, **options}
    summary = {
        "train/events": float(count),
        "train/event_images": float(event_images),
        "train/synaptic_updates": float(count * 50),
    }
    return RunRecord(
        *("run", "eglp", 0, config), status="completed", data=DATA, summary=summary, speed={"samples": samples}
    )


def test_events_of_batches_with_direct_feedback():
    cost = price(record(event_scope="batch"))
    assert cost.samples == 28
    assert cost.inference_flops == 28 * 2 * 62
    # The readout learns from each image; at events the hidden layers, which get 3 errors through 5 + 4 units.
    assert cost.learning_flops == 28 * 2 * 12 + 11 * (2 * 50 + 2 * 3 * 9)
    # Two layers get the event and 3 errors.
    assert cost.messages == 11 * 2 * (1 + 3)
    # 8 steps of the readout, 3 events.
    assert cost.updates == 8 * 12 + 3 * 50
    # 74 parameters, two moments of 15 numbers of the readout, feedback weights 5 x 3 and 4 x 3.
    assert cost.state_bytes == 4 * (74 + 2 * 15 + 27)
    # Inputs and responses of all layers for 4 images, and the change of the readout.
    assert cost.step_bytes == 4 * (4 * (11 + 9 + 7) + 15)


def test_collected_stimuli_are_stored_and_seen_again():
    once, collected = price(record(event_scope="batch")), price(record(event_batch_size=6))
    assert collected.learning_flops == once.learning_flops + 11 * 2 * 62
    assert collected.messages == once.messages
    assert collected.state_bytes == once.state_bytes + 4 * 6 * 6
    assert collected.step_bytes == 4 * (6 * (11 + 9 + 7) + 15)


def test_no_event_is_the_price_of_the_readout():
    cost = price(record(0, 0, events="never"))
    assert cost.learning_flops == 28 * 2 * 12
    assert cost.messages == 0
    assert cost.updates == 8 * 12
    assert cost.state_bytes == 4 * (74 + 2 * 15)
    assert cost.step_bytes == 4 * (4 * 7 + 15)


def test_a_local_rule_needs_the_event_alone_and_bcm_a_threshold_of_each_unit():
    oja, bcm = (price(record(event_scope="batch", feedback="none", local_rule=rule)) for rule in ("oja", "bcm"))
    assert oja.learning_flops == bcm.learning_flops == 28 * 2 * 12 + 11 * 2 * 50
    assert oja.messages == 11 * 2
    assert (oja.state_bytes, bcm.state_bytes) == (4 * 104, 4 * 113)


@pytest.mark.parametrize(
    ("local_rule", "heads"), [("pred", 5 * 3 + 4 * 3), ("sim", 5 * 5 + 4 * 4), ("predsim", 15 + 12 + 25 + 16)]
)
def test_the_heads_of_local_losses_change_at_each_event(local_rule, heads):
    cost = price(record(feedback="none", local_rule=local_rule, events="always"))
    # 8 steps of the readout, and 3 events of the 50 hidden weights and of the heads without their biases.
    assert cost.updates == 8 * 12 + 3 * (50 + heads)
    assert price(record(0, 0, feedback="none", local_rule=local_rule, events="always")).updates == 8 * 12


def test_a_readout_that_learns_locally_has_no_optimizer():
    cost = price(record(event_scope="batch", feedback="none", readout="local"))
    assert cost.learning_flops == 11 * 2 * 62
    assert cost.updates == 3 * 62
    assert cost.state_bytes == 4 * 74
    assert cost.step_bytes == 4 * 4 * 27


def test_another_optimizer_stores_moments_and_waits_with_the_changes():
    cost = price(record(event_scope="batch", optimizer="adam"))
    plain = price(record(event_scope="batch"))
    # 50 weights and 9 biases of hidden units learn.
    assert cost.state_bytes == plain.state_bytes + 4 * 2 * 59
    assert cost.step_bytes == plain.step_bytes + 4 * 59
    assert (cost.learning_flops, cost.messages) == (plain.learning_flops, plain.messages)


def test_backpropagation_is_priced_as_such():
    cost = price(record(update="backprop"))
    assert cost.learning_flops == 28 * (2 * 62 + 2 * 32)
    assert cost.messages == 28 * (4 + 3)
    assert cost.updates == 8 * 62
    assert cost.state_bytes == 4 * 3 * 74


def test_convolutions_have_statistics_and_an_event_for_all_positions():
    # 8 x 8 pixels, kernels 5 and 3, pooling after both: 64 and 16 positions, 3 * 2 * 2 numbers are read.
    run = record(model="cnn", hidden=[2, 3])
    run.data = {"image_shape": [1, 8, 8], "classes": 3}
    cost = price(run)
    first, second, readout = 64 * 2 * 25, 16 * 3 * 2 * 9, 12 * 3
    assert cost.inference_flops == 28 * 2 * (first + second + readout)
    assert cost.learning_flops == 28 * 2 * readout + 11 * 2 * (first + second)
    assert cost.messages == 11 * 2
    parameters = 50 + 54 + 36 + 3
    assert cost.state_bytes == 4 * (parameters + 2 * 5 + 2 * 39)


@settings(max_examples=20)
@given(
    event_images=st.integers(0, 100),
    feedback=st.sampled_from(["none", "direct"]),
    scope=st.sampled_from(["batch", "stimulus"]),
)
def test_the_price_of_the_hidden_layers_is_proportional_to_the_images_of_events(event_images, feedback, scope):
    without, one, many = (
        price(record(0, images, feedback=feedback, event_scope=scope)) for images in (0, 1, event_images)
    )
    for name in ("learning_flops", "messages"):
        zero = getattr(without, name)
        assert getattr(many, name) - zero == event_images * (getattr(one, name) - zero)
    assert without.messages == 0
    assert without.updates == 8 * 12


def price(run):
    found = cost_of(run)
    assert found is not None
    return found
