"""Which sample each entry of a node belongs to: the sample whose loss, and no other loss, depends on the entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from math import prod

import torch
from torch import Tensor

from plastic_grlu.nodes import Place


def from_derivatives(losses: Tensor, entries: Mapping[Place, Tensor]) -> dict[Place, Tensor | None]:
    """Return the sample of each entry of each node, or None where an entry reaches the losses of several samples.

    losses (batch,), with a graph that starts at `entries`, the nodes by place. An index has as many dimensions as its
    node, those of size 1 broadcast. If an entry reaches the loss of sample b alone, the derivative of sum(c * losses)
    is c_b times that of sum(losses), for any weights c. Nodes without any derivative are left out.
    """
    batch = len(losses)
    weights = torch.linspace(-1, 1, batch, dtype=losses.dtype)
    weights = weights[torch.randperm(batch, generator=torch.Generator().manual_seed(0))].to(losses.device)
    nodes = list(entries.values())
    if not losses.requires_grad:
        return {}
    plain = torch.autograd.grad(losses.sum(), nodes, retain_graph=True, allow_unused=True)
    weighted = torch.autograd.grad((weights * losses).sum(), nodes, allow_unused=True)
    found = {}
    for place, one, other in zip(entries, plain, weighted, strict=True):
        if one is not None and other is not None and one.any() and torch.isfinite(one).all():
            found[place] = _explaining(one, other, weights)
    return found


def _explaining(plain: Tensor, weighted: Tensor, weights: Tensor) -> Tensor | None:
    """Return the only arrangement of samples that explains both derivatives of a node."""
    tolerance = plain.abs().max() * torch.finfo(plain.dtype).eps ** 0.5
    return _only(
        index
        for index in arrangements(plain.shape, len(weights))
        if ((weighted - weights[index.to(weights.device)].to(plain) * plain).abs() <= tolerance).all()
    )


def from_responses(losses_with: Callable[[Tensor], Tensor], z: Tensor) -> Tensor | None:
    """Return the sample of each entry of a node, or None; for modules without derivatives, such as those with steps.

    losses_with: the losses (batch,) with noise in the shape of z. The noise of half of the samples must change losses,
    and no loss of the other half.
    """
    plain = losses_with(torch.zeros_like(z))
    random = torch.Generator().manual_seed(0)
    half = torch.randperm(len(plain), generator=random) < len(plain) // 2
    noise = torch.randn(z.shape, generator=random) * (z.detach().float().std(correction=0).item() or 1.0)

    def fits(index: Tensor) -> bool:
        here = half[index].expand(z.shape)
        changed = (losses_with(torch.where(here, noise, 0).to(z.device, z.dtype)) - plain).abs().cpu()
        moved = changed > plain.abs().max().cpu() * torch.finfo(plain.dtype).eps ** 0.5
        return bool(moved[half].any() and not moved[~half].any())

    return _only(index for index in arrangements(z.shape, len(plain)) if fits(index))


def _only(fitting: Iterable[Tensor]) -> Tensor | None:
    """Return the arrangement that fits; None if none does, or if several do that differ."""
    found: Tensor | None = None
    for index in fitting:
        if found is not None and not torch.equal(*torch.broadcast_tensors(index, found)):
            return None
        found = index if found is None else found
    return found


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
