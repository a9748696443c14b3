"""From the activity of a layer to the change of its weights, by each local rule: what layers and credit share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from plastic_eglp import rule

LocalRule = Literal["oja", "hebb", "anti-oja", "bcm", "softhebb"]
LOCAL_RULES: tuple[LocalRule, ...] = ("oja", "hebb", "anti-oja", "bcm", "softhebb")
LocalLoss = Literal["predsim", "pred", "sim"]
LOCAL_LOSSES: tuple[LocalLoss, ...] = ("predsim", "pred", "sim")
Feedback = Literal["none", "direct"]

BCM_RATE = 0.1
"""Rate of the sliding threshold of BCM, per update."""

AddProducts = Callable[[Tensor, Tensor, float], None]
"""Adds to its first argument, shaped like the weights, scale times the sum over stimuli of post x^T.

The second argument is post (n, out), the third is the scale.
"""


def factors_of(
    local_rule: LocalRule,
    z: Tensor,
    y: Tensor,
    W: Tensor,
    *,
    theta: Tensor,
    inverse_temperature: float,
    event: rule.Event = 1.0,
) -> rule.Factors:
    """Return the factors of a local rule in equation (1) of rule.py.

    z (n, out): linear responses. y (n, out): activities. W: weights, units along dimension 0. theta (out,): thresholds
    of BCM.
    """
    if local_rule == "hebb":
        return rule.hebb(y, event)
    if local_rule == "oja":
        return rule.oja(y, event)
    if local_rule == "anti-oja":
        return rule.anti_oja(y, W.flatten(1), event)
    if local_rule == "softhebb":
        return rule.softhebb(z, inverse_temperature, event)
    return rule.bcm(y, theta, event)


def add_change(target: Tensor, W: Tensor, factors: rule.Factors, rate: float, add_products: AddProducts) -> None:
    """Add `rate` times the change of equation (1) to `target`: the weights W themselves, or a tensor of their shape."""
    itself = target is W
    if itself and factors.decay is not None:
        W.mul_(_by_unit(1 - rate * factors.decay, W))
    add_products(target, factors.post, rate / len(factors.post))
    if not itself and factors.decay is not None:
        target.sub_(W * _by_unit(rate * factors.decay, W))


def softhebb_step(W: Tensor, change: Tensor, strength: Tensor | float, power: float = 0.5) -> Tensor:
    """Return SoftHebb's step: the change of equation (1) with largest entry 1, then each unit's own rate.

    strength: the mean strength of the event, times the learning rate. power: of `rule.softhebb_rate`. In this order the
    steps of a unit decrease as its norm approaches 1. In the opposite order the largest step would never decrease.
    """
    unit_rates = rule.softhebb_rate(W.flatten(1), power)
    return rule.largest_entry_one(change) * _by_unit(unit_rates * strength, W)


def _by_unit(values: Tensor, W: Tensor) -> Tensor:
    """Return values (out,) in a shape that broadcasts over the weights."""
    return values.view(-1, *[1] * (W.ndim - 1))
