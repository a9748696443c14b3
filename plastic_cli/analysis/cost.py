"""What one step of a credit rule costs: floating-point operations, counted by torch while it computes the step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plastic_cli.credit.protocol import Credit, Loss, call


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one step. forward: of one prediction of the batch. learning: of all the rest.

    The products of weights and activity count, which are matrix products, convolutions, attention and their gradients:
    a multiplication and an addition as two operations. Operations on single numbers, such as activation functions,
    normalization, noise and the step of the optimizer, do not count. What torch does not compute, such as a kernel
    compiled by Numba, is not seen.
    """

    forward: int
    learning: int


def step_cost(model: nn.Module, credit: Credit, inputs: Any, loss: Loss) -> StepCost:
    """Count the operations of one step of `credit` for a batch. The step has no effect: see `without_effect`."""
    with without_effect(model, credit):
        with torch.no_grad(), FlopCounterMode(display=False) as prediction:
            call(model, inputs)
        with FlopCounterMode(display=False) as step:
            credit.backward(inputs, loss)
    forward = int(prediction.get_total_flops())
    return StepCost(forward, int(step.get_total_flops()) - forward)


@contextmanager
def without_effect(model: nn.Module, credit: Credit) -> Iterator[None]:
    """Restore all that a step of `credit` changes: gradients, statistics, the rule's state, global random numbers.

    Inside, no parameter has a gradient. A GPU of the model has its random numbers restored too.
    """
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = copy.deepcopy(credit.state_dict())
    devices = sorted({parameter.device.index or 0 for parameter in gradients if parameter.device.type == "cuda"})
    for parameter in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        credit.load_state_dict(state)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
