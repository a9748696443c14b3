"""Weights that a module computes from its parameters, as in low-rank adaptation: W + A B. Read from torch's graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MULTIPLY = "_MultiplyBackward"
"""The node of a product with a taught weight. `layer.of_parameters` says whether parameters alone are multiplied."""
PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Addmv", "Dot", "Convolution")
"""Nodes of products without feedback."""
LOOKUPS = ("Embedding", "Index", "Gather", "Take", "Where", "Masked")
"""Nodes whose result depends on integers or conditions, which have no derivative and may come from the input."""
MOST_NODES = 500
"""How many operations are followed back."""


@dataclass(frozen=True)
class Origin:
    """What a weight was computed from: the names of the parameters that are taught, and the products on the way."""

    names: tuple[str, ...]
    products: tuple[Any, ...]


def of_parameters_alone(tensor: Tensor) -> bool:
    """Return whether a tensor is a parameter, or computed from parameters and numbers alone.

    A tensor without a derivative may be an input, so that its presence means no.
    """
    if isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter):
        return True
    if tensor.grad_fn is None:
        return False
    for count, node in enumerate(_nodes(tensor)):
        kind = type(node).__name__
        if kind == "AccumulateGrad":
            known = isinstance(node.variable, nn.Parameter)
        elif kind == MULTIPLY:
            known = node.layer.of_parameters
        else:
            known = not kind.startswith(LOOKUPS) and (_of_known(node) or _times_number(node, kind))
        if not known or count > MOST_NODES:
            return False
    return True


def origin(factor: Tensor, names: Mapping[int, str], *, maybe_activity: bool) -> Origin | None:
    """Return the origin of a factor of a product; None if it is activity. names: of the parameters taught, by id.

    A weight is what was computed without activity: a product on the way multiplies parameters alone. maybe_activity:
    the factor may also be activity, as in a matrix product; products without feedback then show that it is.
    """
    activity = ("Embedding", *(PRODUCTS if maybe_activity and not of_parameters_alone(factor) else ()))
    found, products = set(), []
    for count, node in enumerate(_nodes(factor)):
        kind = type(node).__name__
        if count > MOST_NODES or kind.startswith(activity):
            return None
        if kind == MULTIPLY:
            if not node.layer.of_parameters:
                return None
            products.append(node.layer)
        if kind == "AccumulateGrad" and id(node.variable) in names:
            found.add(names[id(node.variable)])
    return Origin(tuple(sorted(found)), tuple(products)) if found else None


def hidden_weight(model: nn.Module, result: Tensor, names: Mapping[int, str]) -> str | None:
    """Return the name of a parameter that a scripted module or a torch.autograd.Function uses; None if there is none.

    result: of a forward pass. names: of the parameters in question, by id.
    """
    for module in model.modules():
        inside = module.parameters() if isinstance(module, torch.jit.ScriptModule) else ()
        for parameter in inside:
            if id(parameter) in names:
                return names[id(parameter)]
    for node in _nodes(result) if result.grad_fn is not None else ():
        if isinstance(node, torch.autograd.function.BackwardCFunction) and type(node).__name__ != MULTIPLY:
            for child, _ in node.next_functions:
                if type(child).__name__ == "AccumulateGrad" and id(child.variable) in names:
                    return names[id(child.variable)]
    return None


def _nodes(tensor: Tensor) -> Iterator[Any]:
    """Yield the operations that made a tensor, the last one first."""
    waiting, seen = [tensor.grad_fn], {tensor.grad_fn}
    while waiting:
        node: Any = waiting.pop()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)


def _of_known(node: Any) -> bool:
    return all(child is not None for child, _ in node.next_functions)


def _times_number(node: Any, kind: str) -> bool:
    """Return whether a node multiplies or divides by one number, which has no node of its own."""
    other = node._saved_other if kind.startswith(("Mul", "Div")) else None
    return other is not None and other.numel() == 1
