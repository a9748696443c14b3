"""What learning costs: floating-point operations, counted from the shapes of layers, and the numbers they are sent."""

from __future__ import annotations

from dataclasses import dataclass

from plastic_eglp.layers import LocalConv2d, LocalLinear
from plastic_eglp.learner import EGLPLearner
from plastic_eglp.network import EGLPNetwork


@dataclass(frozen=True)
class Cost:
    """What one stimulus costs.

    forward: floating-point operations of an answer. readout: of teaching a supervised readout. event: of learning from
    one stimulus of an event, in all hidden layers and a local readout; a gathered one is looked at a second time, which
    is counted here. messages: numbers that reach the hidden layers from elsewhere to learn from one stimulus of an
    event. Matrix products and convolutions count, a multiplication and an addition as two; what is done once for each
    unit does not.
    """

    forward: int
    readout: int
    event: int
    messages: int


def cost_of(learner: EGLPLearner) -> Cost:
    """Count what one stimulus costs `learner`, from shapes alone: no matter how its products are computed.

    A message is a number that a layer cannot know by itself: the event's strength for each hidden layer and, with
    direct feedback, the error of each class for each hidden layer; with backpropagation the errors of all units that
    each hidden layer sends its output to.
    """
    network = learner.network
    layers = network.layers()
    of_layers = products(network)
    classes, of_readout = network.readout.weight.shape[0], 2 * network.readout.weight.numel()
    forward = sum(of_layers) + of_readout
    learned = [number for number in range(len(layers)) if number not in learner.frozen]
    if learner.update == "backprop":
        # A weight's gradient is as many products as its layer's answer, and so is that of a layer's input, which is
        # needed above the lowest layer that learns.
        of_inputs = sum([*of_layers, of_readout][min(learned) + 1 :]) if learned else 0
        event = sum(of_layers[number] for number in learned) + of_readout + of_inputs
        messages = sum(layer.weight.shape[0] for layer in layers[1:]) + classes if learned else 0
        return Cost(forward, 0, event, messages)
    event = sum(of_layers[number] for number in learned)
    if learner.feedback == "direct":
        event += sum(2 * classes * layers[number].weight.shape[0] for number in learned)
    local_readout = isinstance(network.readout, LocalLinear)
    if local_readout:
        event += of_readout
    if learner.controller.per_stimulus:
        event += forward
    messages = len(learned) * (1 + (classes if learner.feedback == "direct" else 0))
    return Cost(forward, 0 if local_readout else of_readout, event, messages)


def products(network: EGLPNetwork) -> list[int]:
    """Return the operations of each hidden layer's linear response to one stimulus; an update has as many."""
    _, height, width = network.image_shape
    found = []
    for layer in network.layers():
        positions = 1
        if isinstance(layer, LocalConv2d):
            kernel = layer.weight.shape[-1]
            height, width = (size + 2 * layer.padding - kernel + 1 for size in (height, width))
            positions = height * width
            height, width = height // 2, width // 2
        found.append(2 * layer.weight.numel() * positions)
    return found
