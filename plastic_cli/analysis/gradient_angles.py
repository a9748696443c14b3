"""Angle between what a credit rule adds to `.grad` and the exact gradient, for each parameter of any module."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli.analysis.angles import SignalToNoise, angle_degrees
from plastic_cli.analysis.without_effect import without_effect
from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Credit, Loss
from plastic_cli.numerics.random_states import RandomStates

WHOLE = ""
"""The key of all parameters together."""


@dataclass(frozen=True)
class GradientAngle:
    """The angles between updates of one parameter and the gradient, in degrees, 0 to 180; nan if one is all zeros.

    angles: one for each draw. signal_to_noise: |E u|^2 / tr(Cov u) of one update u; nan with one draw, inf for a
    deterministic rule, which has one draw.
    """

    angles: tuple[float, ...]
    signal_to_noise: float

    @property
    def angle(self) -> float:
        """The mean over draws."""
        return statistics.fmean(self.angles)

    @property
    def angle_sd(self) -> float:
        """The standard deviation over draws; nan with one draw of a stochastic rule, 0 for a deterministic rule."""
        if self.draws > 1:
            return statistics.stdev(self.angles)
        return 0.0 if self.deterministic else math.nan

    @property
    def draws(self) -> int:
        """The number of draws."""
        return len(self.angles)

    @property
    def deterministic(self) -> bool:
        """Whether the second update was equal to the first one, bit by bit."""
        return self.signal_to_noise == math.inf


def gradient_angles(
    credit: Credit, model: nn.Module, inputs: Any, loss: Loss, *, draws: int = 1
) -> dict[str, GradientAngle]:
    """Return the angle of each parameter that a credit rule teaches, by name, and that of all together as `WHOLE`.

    inputs, loss: as for `credit.backward`. draws: number of updates for the same inputs. Each draw starts from the
    present state of the rule, with new random numbers. The gradient that it is compared with starts from the same
    global random state, so that both have the same dropout masks in the first call of the model. If the second update
    is equal to the first one bit by bit, the rule is deterministic, and no more updates are drawn.

    The model is called in its present mode. Afterwards the parameters, `.grad` and buffers of the model, the state of
    the rule and the global random states are what they were. Of the gradients of several draws, only one is in memory.

    Raises UserError if the rule cannot teach the model, as `credit.backward` does.
    """
    exact = Gradient(model)
    angles: dict[str, list[float]] = {}
    ratios: dict[str, SignalToNoise] = {}
    first: dict[str, Tensor] = {}
    parameters: dict[str, nn.Parameter] = {}
    deterministic = False
    with without_effect(model, credit) as begin_again:
        for draw in range(draws):
            begin_again()
            states = RandomStates.now()
            gradients = _gradients(exact, model, inputs, loss)
            states.restore()
            updates = _gradients(credit, model, inputs, loss)
            # A rule may find out in its first update which parameters it teaches.
            parameters = parameters or dict(credit.parameters)
            gradient, update = _by_name(gradients, parameters), _by_name(updates, parameters)
            if draw == 0:
                first = update
            elif draw == 1 and all(torch.equal(value, first[name]) for name, value in update.items()):
                deterministic = True
                break
            for name in update:
                angles.setdefault(name, []).append(angle_degrees(update[name], gradient[name]))
                ratios.setdefault(name, SignalToNoise()).add(update[name])
    return {
        name: GradientAngle(
            tuple(of_draws),
            math.inf if deterministic else ratios[name].value() if draws > 1 else math.nan,
        )
        for name, of_draws in angles.items()
    }


def _gradients(credit: Credit, model: nn.Module, inputs: Any, loss: Loss) -> dict[int, Tensor]:
    """Return what a rule adds to `.grad`, by the id of the parameter."""
    model.zero_grad(set_to_none=True)
    credit.backward(inputs, loss)
    return {id(parameter): parameter.grad for parameter in model.parameters() if parameter.grad is not None}


def _by_name(gradients: Mapping[int, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the gradient of each parameter, zeros for none, and the whole as one vector."""
    named = {
        name: gradients[id(parameter)] if id(parameter) in gradients else torch.zeros_like(parameter)
        for name, parameter in parameters.items()
    }
    return {**named, WHOLE: torch.cat([part.flatten() for part in named.values()])}
