"""The share of busiest synapses that two tasks have in common: the busiest quarter of each, compared with chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

BUSIEST = 0.25
"""The share of a layer's synapses that counts as busiest."""


def busiest(eligibility: Tensor, share: float = BUSIEST) -> Tensor:
    """Return the probability that each synapse is among the busiest `share` of all: 1, 0, or between for ties.

    Synapses with the same eligibility at the border have the same probability, so that the sum is exactly
    share * synapses. float64, in the shape of `eligibility`.
    """
    values = eligibility.double()
    wanted = share * values.numel()
    border = values.flatten().kthvalue(values.numel() - math.ceil(wanted) + 1).values
    above, tied = values > border, values == border
    return above.double() + tied * ((wanted - above.sum()) / tied.sum())


def shared_share(first: Tensor, second: Tensor, share: float = BUSIEST) -> float:
    """Return the share of the busiest synapses of one task that is among the busiest of the other, 0 to 1.

    With ties it is the mean over all ways to break the ties, independently for both tasks. By chance it is `share`.
    """
    wanted = share * first.numel()
    return float((busiest(first, share) * busiest(second, share)).sum() / wanted)


def chance_among_active(first: Tensor, second: Tensor, share: float = BUSIEST) -> float:
    """Return the overlap by chance if only synapses with an eligibility above 0 can be among the busiest.

    An input that is always 0, or a unit that is never active, silences all its synapses in both tasks. The remaining
    synapses then overlap more by chance. If fewer than `share` are active, silent synapses fill up the rest.
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
    """Return the share of the eligibility after task `later` that comes from steps up to the end of task `earlier`.

    decay: beta of the running mean. steps: number of steps of each task, in order. Tasks count from 1. The running mean
    gives a gradient t steps ago the weight beta^t. With S_j steps up to the end of task j, the share of the weight of
    task i and the tasks before it is (beta^(S_j - S_i) - beta^S_j) / (1 - beta^S_j).
    """
    since, all_steps = sum(steps[earlier:later]), sum(steps[:later])
    return (decay**since - decay**all_steps) / (1 - decay**all_steps)
