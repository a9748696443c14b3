"""Hebbian associative memories: they learn classes from single examples, in one pass, without an error.

Features x of a frozen network are the input, and a one-hot code e of the class is the target. Both memories only add up
what they receive, so learning is local, has batch size 1, and does not depend on the order of the examples.

| equation | meaning |
|---|---|
| (1) u = x / norm(x) | divisive inhibition between the units |
| (2) dM = e u^T | Hebb's rule, the outer product of target and input |
| (3) s_c = M_c . u / norm(M_c) | recall; the synapses of a class have a fixed total strength, as under Oja's rule |
| (4) dA = u u^T | lateral inhibition, which grows between units that are active together (anti-Hebbian) |
| (5) dv/dt = u - lambda v - A v, so v = (lambda I + A)^-1 u | activity under lateral inhibition, in its steady state |
| (6) s = M v | recall of the decorrelated memory |

Equations (2) and (3) are the correlation matrix memory of Kohonen 1972 and Anderson 1972. The normalization of the rows
is the one that Oja 1982 derives from a local rule. Equations (4) to (6) are the optimal linear associative memory of
Kohonen 1984 ("Self-organization and associative memory") with a ridge lambda; Foeldiak 1990 learns such lateral
inhibition. Its recall is that of ridge regression on the codes. For lambda to infinity it is M u / lambda.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12
"""Inputs and memories of a smaller norm count as silent: nothing is divided by such a norm."""


class Memory(NamedTuple):
    """The synapses of a memory. associations: M, (classes, units). inhibition: A, (units, units)."""

    associations: Tensor
    inhibition: Tensor


def normalized(x: Tensor) -> Tensor:
    """Return features x (n, units) after divisive inhibition, equation (1); a silent row remains 0."""
    return _unit_rows(x)


def empty_memory(classes: int, like: Tensor) -> Memory:
    """Return a memory without associations, for normalized features with the units, type and device of `like`."""
    units = like.shape[1]
    return Memory(like.new_zeros(classes, units), like.new_zeros(units, units))


def learn_example(memory: Memory, u: Tensor, label: int) -> None:
    """Store one example u (units,) in place, by equations (2) and (4)."""
    memory.associations[label] += u
    memory.inhibition.addr_(u, u)


def learned(memory: Memory, u: Tensor, y: Tensor) -> Memory:
    """Return the memory after the examples u (n, units) with labels y (n,), one after another in any order."""
    codes = torch.nn.functional.one_hot(y, len(memory.associations)).to(u.dtype)
    return Memory(memory.associations + codes.T @ u, memory.inhibition + u.T @ u)


def recall(memory: Memory, u: Tensor) -> Tensor:
    """Return scores (n, classes) of normalized features u (n, units) by equation (3); 0 for a class without example."""
    return u @ _unit_rows(memory.associations).T


def decorrelated_recall(memory: Memory, u: Tensor, ridge: float) -> Tensor:
    """Return scores (n, classes) of normalized features u (n, units) by equations (5) and (6); ridge: lambda > 0."""
    identity = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    # The inverse is applied to M, because there are fewer classes than inputs.
    readout: Tensor = torch.linalg.solve(ridge * identity + memory.inhibition, memory.associations.T)
    return u @ readout


def decorrelated_scores(u: Tensor, y: Tensor, queries: Tensor, classes: int, ridge: float) -> Tensor:
    """Return `decorrelated_recall` of the memory of u (n, units) and y (n,), computed from n x n products.

    It is the same function by (lambda I + u^T u)^-1 u^T = u^T (lambda I + u u^T)^-1, and faster for few examples.
    """
    codes = torch.nn.functional.one_hot(y, classes).to(u.dtype)
    identity = torch.eye(len(u), dtype=u.dtype, device=u.device)
    strengths: Tensor = torch.linalg.solve(ridge * identity + u @ u.T, codes)
    return queries @ u.T @ strengths


def nearest_mean_scores(x: Tensor, y: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Return minus the squared distances (n, classes) of queries to the class means of x (n, units), for comparison."""
    codes = torch.nn.functional.one_hot(y, classes).to(x.dtype)
    means = codes.T @ x / codes.sum(0)[:, None]
    return -(torch.cdist(queries, means) ** 2)


def _unit_rows(x: Tensor) -> Tensor:
    norms = x.norm(dim=1, keepdim=True)
    return torch.where(norms > SMALLEST_NORM, x / norms.clamp_min(SMALLEST_NORM), 0.0)
