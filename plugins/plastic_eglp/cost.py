"""What learning costs: floating-point operations, counted by torch, and the numbers that layers are sent."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from plastic_eglp.layers import LocalLinear
from plastic_eglp.learner import EGLPLearner

COUNTED = 8
"""Stimuli in the batch that is counted; matrix products and convolutions are proportional to it."""


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
    """Count what one stimulus costs `learner`, which is left as it is.

    A message is a number that a layer cannot know by itself: the event's strength for each hidden layer and, with
    direct feedback, the error of each class for each hidden layer; with backpropagation the errors of all units that
    each hidden layer sends its output to.
    """
    network = copy.deepcopy(learner.network).train()
    x = torch.zeros(COUNTED, math.prod(network.image_shape), device=network.readout.weight.device)
    layers = network.layers()
    with _counter() as forward, torch.no_grad():
        logits = network(x)
    learned = [layer for number, layer in enumerate(layers) if number not in learner.frozen]
    classes = logits.shape[1]
    if learner.update == "backprop":
        with _counter() as both:
            network.readout(network.activity(x, graph=True)[-1].flatten(1)).sum().backward()
        event = both.get_total_flops() - forward.get_total_flops()
        messages = sum(layer.weight.shape[0] for layer in layers[1:]) + classes if learned else 0
        readout = 0
    else:
        error = torch.zeros_like(logits)
        with _counter() as learning, torch.no_grad():
            network.local_update(error, 1.0, feedback=learner.feedback, frozen=learner.frozen)
        event = learning.get_total_flops()
        if learner.controller.per_stimulus:
            event += forward.get_total_flops()
        messages = len(learned) * (1 + (classes if learner.feedback == "direct" else 0))
        readout = 0 if isinstance(network.readout, LocalLinear) else 2 * COUNTED * network.readout.weight.numel()
    return Cost(forward.get_total_flops() // COUNTED, readout // COUNTED, event // COUNTED, messages)


def _counter() -> FlopCounterMode:
    """Return torch's counter, which by itself passes over the product in place that changes a layer's weights."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _product_flops})


def _product_flops(_: torch.Size, left: torch.Size, right: torch.Size, **_others: object) -> int:
    return 2 * left[0] * left[1] * right[1]
