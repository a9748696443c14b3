"""Which synapses two tasks share: the busiest quarter of one beside the busiest quarter of the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

BUSIEST = 0.25
"""The share of a layer's synapses that counts as busy."""


def busiest(eligibility: Tensor, share: float = BUSIEST) -> Tensor:
    """Return how much each synapse belongs to the busiest `share` of all: 1, 0, or between where it is tied.

    Of synapses with the same eligibility at the border each belongs with the same probability, so that the sum is
    exactly share * synapses. float64, in the shape of `eligibility`.
    """
    values = eligibility.double()
    wanted = share * values.numel()
    border = values.flatten().kthvalue(values.numel() - math.ceil(wanted) + 1).values
    above, tied = values > border, values == border
    return above.double() + tied * ((wanted - above.sum()) / tied.sum())


def shared_share(first: Tensor, second: Tensor, share: float = BUSIEST) -> float:
    """Return which share of the busiest synapses of one task is among the busiest of the other, 0 to 1.

    Where ties leave open who is among them, the mean over all ways to break the ties, independently for both tasks. By
    chance it is `share`.
    """
    wanted = share * first.numel()
    return float((busiest(first, share) * busiest(second, share)).sum() / wanted)


def chance_among_active(first: Tensor, second: Tensor, share: float = BUSIEST) -> float:
    """Return what chance gives where only synapses with some eligibility in a task can be among its busiest.

    An input that is never on or a unit that is never active silences all its synapses in both tasks, and what is left
    then overlaps without any of it being shared by choice. Where fewer than `share` are active the silent ones fill up.
    """
    probabilities = [_drawn_among_active(eligibility, share) for eligibility in (first, second)]
    return float((probabilities[0] * probabilities[1]).sum() / (share * first.numel()))


def _drawn_among_active(eligibility: Tensor, share: float) -> Tensor:
    active = eligibility > 0
    count, wanted = int(active.sum()), share * eligibility.numel()
    if count <= wanted:
        silent = eligibility.numel() - count
        return active.double() + ~active * ((wanted - count) / silent if silent else 0.0)
    return active.double() * (wanted / count)


def carried_over(decay: float, steps: Sequence[int], earlier: int, later: int) -> float:
    """Return which share of the eligibility after task `later` comes from steps up to the end of task `earlier`.

    decay: of the running mean per step. steps: of each task, in order. Tasks count from 1. A running mean of decay beta
    gives a gradient t steps ago the weight beta^t: with S_j steps up to the end of task j, the share of what task i and
    those before it have left of all weight is (beta^(S_j - S_i) - beta^S_j) / (1 - beta^S_j).
    """
    since, all_steps = sum(steps[earlier:later]), sum(steps[:later])
    return (decay**since - decay**all_steps) / (1 - decay**all_steps)
