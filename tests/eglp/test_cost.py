"""What learning costs, against formulas; counting leaves no trace."""

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plastic_eglp import AlwaysOnController, EGLPLearner, EGLPNetwork, NeverController, ThresholdController
from plastic_eglp.cost import cost_of
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
    cost = cost_of(learner(hidden, local_rule=local_rule, feedback="none"))
    assert cost.forward == sum(layers) + readout
    assert cost.readout == readout
    assert cost.event == sum(layers)
    assert cost.messages == len(hidden)


@hiddens
def test_an_mlp_with_direct_feedback(hidden):
    layers, readout = products(hidden)
    cost = cost_of(learner(hidden))
    assert cost.forward == sum(layers) + readout
    assert cost.readout == readout
    assert cost.event == sum(layers) + 2 * CLASSES * sum(hidden)
    assert cost.messages == len(hidden) * (1 + CLASSES)


def test_a_collected_stimulus_is_presented_twice():
    once = cost_of(learner())
    twice = cost_of(learner(controller=ThresholdController(per_stimulus=True)))
    assert twice.event == once.event + once.forward
    assert (twice.forward, twice.readout, twice.messages) == (once.forward, once.readout, once.messages)


def test_a_frozen_layer_costs_no_learning():
    layers, _ = products((7, 5))
    for frozen in (0, 1):
        cost = cost_of(learner(feedback="none", frozen=(frozen,)))
        assert cost.event == sum(layers) - layers[frozen]
        assert cost.messages == 1


def test_a_local_readout_learns_at_events():
    layers, readout = products((7, 5))
    cost = cost_of(learner(readout="local", feedback="none"))
    assert cost.readout == 0
    assert cost.event == sum(layers) + readout


def test_the_cost_of_one_event_does_not_depend_on_the_controller():
    assert cost_of(learner(controller=NeverController())) == cost_of(learner())


@hiddens
def test_backpropagation(hidden):
    """The gradient of every weight, and of every layer's input but the first's."""
    layers, readout = products(hidden)
    cost = cost_of(learner(hidden, update="backprop"))
    assert cost.forward == sum(layers) + readout
    assert cost.event == 2 * (sum(layers) + readout) - layers[0]
    assert cost.readout == 0
    assert cost.messages == sum(hidden[1:]) + CLASSES


@pytest.mark.parametrize("feedback", ["none", "direct"])
@pytest.mark.parametrize("local_rule", ["softhebb", "oja"])
def test_a_convolutional_network(feedback, local_rule):
    first, second = 2 * (8 * 6) * 4 * (2 * 25), 2 * (4 * 3) * 6 * (4 * 9)
    readout = 2 * (6 * 2 * 1) * CLASSES
    cost = cost_of(learner((4, 6), model="cnn", feedback=feedback, local_rule=local_rule))
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
    cost = cost_of(one)
    assert counter.get_total_flops() == 8 * (cost.forward + cost.readout + cost.event)


def test_the_count_does_not_depend_on_the_activation_function():
    one = EGLPLearner(EGLPNetwork((1, 28, 28), (256, 128), 10), AlwaysOnController(), batch_size=8)
    assert one.network.layers()[0].activation == "tanh"
    assert cost_of(one).event == 474_624
    assert cost_of(learner(activation="tanh")) == cost_of(learner(activation="relu"))


def everything(one):
    """All that learning could change or look at."""
    net = one.network
    found = {f"state {name}": tensor for name, tensor in net.state_dict().items()}
    for number, layer in enumerate(net.layers()):
        for name in ("_pre", "_response", "_post"):
            found[f"{number} {name}"] = getattr(layer, name)
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
    cost_of(one)
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
