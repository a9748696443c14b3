"""What each term adds to the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from plastic_metafa import rule
from plastic_metafa.adaptation import Plasticity, adapt_step, feedback_errors

if TYPE_CHECKING:
    from plastic_metafa.meta_learning import Bench
    from plastic_metafa.theta_file import LearnedRule

SHARE_EPISODES = 3
"""Episodes whose changes of weights are taken apart by term: step by step, in whole tensors."""


@torch.no_grad()
def change_by_term(bench: Bench, learned: LearnedRule) -> dict[int, float]:
    """Return for each term the mean size of what it adds at a sample, |theta_r F_r|, summed over layers."""
    plasticity = Plasticity(tuple(learned.theta), learned.feedback)
    theta = torch.tensor(list(learned.theta.values()), dtype=torch.float32, device=bench.device)
    found = dict.fromkeys(learned.theta, 0.0)
    for number in range(min(SHARE_EPISODES, len(bench.episodes))):
        W, B = bench.network(number, plasticity.feedback)
        episode = bench.episodes[number]
        targets = functional.one_hot(episode.y, W[-1].shape[0]).to(episode.x.dtype)
        sizes = torch.zeros(len(theta))
        for x, target in zip(episode.x, targets, strict=True):
            sizes += _sizes_of_terms(W, B, x, target, learned)
            W = adapt_step(W, B, x, target, theta, plasticity)
        for place, (term, strength) in enumerate(learned.theta.items()):
            found[term] += abs(strength) * float(sizes[place]) / len(episode.y)
    return found


def _sizes_of_terms(W: list[Tensor], B: list[Tensor], x: Tensor, target: Tensor, learned: LearnedRule) -> Tensor:
    """Return the norm of each term, summed over layers, (terms,)."""
    y = rule.forward(W, x)
    e = feedback_errors(W, B, learned.feedback, y, target)
    layers = range(len(W))
    norms = [
        torch.stack([rule.TERMS[term].expression(W[n], y[n], y[n + 1], e[n], e[n + 1]).norm() for n in layers]).sum()
        for term in learned.theta
    ]
    return torch.stack(norms).cpu()
