"""What one step of a credit rule costs: floating-point operations, counted by torch while it computes the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plastic_cli.analysis.without_effect import without_effect
from plastic_cli.credit.protocol import Credit, Loss, call


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one step. forward: of one prediction of the batch. learning: of all the rest.

    events: number of events in the step, of a rule that counts them.

    Matrix products, convolutions and attention count, and their gradients: a multiplication and an addition are two
    operations. Operations on single numbers, such as activation functions, normalization, noise and the step of the
    optimizer, do not count. torch counts: it does not see what other programs compute, such as kernels of Numba.
    """

    forward: int
    learning: int
    events: int = 0


def step_cost(credit: Credit, model: nn.Module, inputs: Any, loss: Loss) -> StepCost:
    """Count the operations of one step of a credit rule for a batch, in the present mode of the model.

    What a rule computes for its first batch only, such as which samples a layer mixes, does not count.

    inputs, loss: as for `credit.backward`. A rule may count its events as `events`. The step has no effect on the
    model, the rule and torch's random states.
    """
    with without_effect(model, credit) as begin_again:
        with torch.no_grad(), FlopCounterMode(display=False) as prediction:
            call(model, inputs)
        for parameter in model.parameters():
            parameter.grad = None
        # The counter calls functions of its own, so a rule that looks at the functions looks again.
        with FlopCounterMode(display=False):
            credit.backward(inputs, loss)
        begin_again()
        before = _events(credit)
        with FlopCounterMode(display=False) as step:
            credit.backward(inputs, loss)
        events = _events(credit) - before
    forward = int(prediction.get_total_flops())
    return StepCost(forward, int(step.get_total_flops()) - forward, events)


def _events(credit: Credit) -> int:
    events = getattr(credit, "events", 0)
    return events if isinstance(events, int) else 0
