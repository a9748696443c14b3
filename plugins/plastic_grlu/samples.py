"""Which sample each entry of a node belongs to: the sample whose loss, and no other loss, depends on the entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import prod

import torch
from torch import Tensor

from plastic_grlu.nodes import Place


def sample_indices(losses: Tensor, entries: Mapping[Place, Tensor]) -> dict[Place, Tensor | None]:
    """Return the sample of each entry of each node, or None where an entry reaches the losses of several samples.

    losses (batch,), with a graph that starts at `entries`, the nodes by place. An index has as many dimensions as its
    node, those of size 1 broadcast. Dimensions that hold the samples are found by derivatives: if an entry reaches the
    loss of sample b alone, the derivative of sum(c * losses) is c_b times that of sum(losses), for any weights c. A
    node without any derivative gets None.
    """
    batch = len(losses)
    weights = torch.linspace(-1, 1, batch, dtype=losses.dtype)
    weights = weights[torch.randperm(batch, generator=torch.Generator().manual_seed(0))].to(losses.device)
    nodes = list(entries.values())
    plain = torch.autograd.grad(losses.sum(), nodes, retain_graph=True, allow_unused=True)
    weighted = torch.autograd.grad((weights * losses).sum(), nodes, allow_unused=True)
    return {
        place: None if one is None or other is None else _index(one, other, weights)
        for place, one, other in zip(entries, plain, weighted, strict=True)
    }


def _index(plain: Tensor, weighted: Tensor, weights: Tensor) -> Tensor | None:
    """Return the only arrangement of samples that explains both derivatives of a node."""
    largest = plain.abs().max() if plain.numel() else plain.sum()
    if not (torch.isfinite(largest) and torch.isfinite(weighted).all() and largest > 0):
        return None
    tolerance = largest * torch.finfo(plain.dtype).eps ** 0.5
    fitting = [
        index
        for index in arrangements(plain.shape, len(weights))
        if ((weighted - weights[index.to(weights.device)].to(plain.dtype) * plain).abs() <= tolerance).all()
    ]
    different = [
        index for index in fitting if not torch.equal(index.expand(plain.shape), fitting[0].expand(plain.shape))
    ]
    return fitting[0].to(plain.device) if fitting and not different else None


def arrangements(shape: tuple[int, ...], batch: int) -> Iterator[Tensor]:
    """Yield the ways in which neighboring dimensions of a tensor can hold the samples of a batch.

    Their product is a multiple of the batch: the samples follow each other one by one, or in blocks.
    """
    spans = sorted(combinations(range(len(shape) + 1), 2), key=lambda span: span[1] - span[0])
    for first, last in spans:
        size = prod(shape[first:last])
        if size == 0 or size % batch:
            continue
        positions = torch.arange(size)
        for index in (positions % batch, positions // (size // batch)):
            yield index.view(*[1] * first, *shape[first:last], *[1] * (len(shape) - last))
