"""The cost of learning: floating-point operations, counted from the shapes of layers, and messages between layers."""

from __future__ import annotations

from dataclasses import dataclass

from plastic_eglp.layers import LocalConv2d, LocalLinear
from plastic_eglp.learner import EGLPLearner
from plastic_eglp.network import EGLPNetwork


@dataclass(frozen=True)
class Cost:
    """The cost of one stimulus.

    forward: floating-point operations of a prediction. readout: of an update of a supervised readout. event: of an
    update of all hidden layers, and of a local readout, from one stimulus of an event; a collected stimulus needs a
    second forward pass, which is included. messages: numbers that reach the hidden layers from other layers for the
    update. Only matrix products and convolutions count, a multiplication and an addition as two operations; operations
    on single units do not.
    """

    forward: int
    readout: int
    event: int
    messages: int


def cost_of(learner: EGLPLearner) -> Cost:
    """Count the cost of one stimulus for `learner`, from shapes alone.

    A message is a number that a layer cannot compute itself: for each hidden layer the event's strength and, with
    direct feedback, the error of each class; with backpropagation the errors of all units of the layer above.
    """
    network = learner.network
    layers = network.layers()
    of_layers = products(network)
    classes, of_readout = network.readout.weight.shape[0], 2 * network.readout.weight.numel()
    forward = sum(of_layers) + of_readout
    learned = [number for number in range(len(layers)) if number not in learner.frozen]
    if learner.update == "backprop":
        # The gradient of the weights costs as much as the forward pass of the layer, and so does the gradient of its
        # input, which is needed in the layers above the lowest one that learns.
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
    """Return the operations of each hidden layer's linear response to one stimulus; an update costs the same."""
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
