"""A credit rule carried out without any effect on its model, itself and the random numbers that follow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli.credit.protocol import Credit
from plastic_cli.numerics.random_states import RandomStates


@contextmanager
def without_effect(model: nn.Module, credit: Credit) -> Iterator[Callable[[], None]]:
    """Restore at the end what a rule changes: parameters, buffers and `.grad`, its own state, the random states.

    Yields a function that restores model and rule within the block. The random generators of the rule go on, so that
    the next update has new random numbers.
    """
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    gradients = [parameter.grad for parameter in model.parameters()]
    state = copy.deepcopy(credit.state_dict())
    states = RandomStates.now()

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                # A tensor that did not change keeps its version, on which graphs of the caller may depend.
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        credit.load_state_dict(copy.deepcopy(state))

    def begin_again() -> None:
        generators = generators_of(credit)
        positions = [generator.get_state() for generator in generators]
        restore()
        for generator, position in zip(generators, positions, strict=True):
            generator.set_state(position)

    try:
        yield begin_again
    finally:
        restore()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        states.restore()


def generators_of(credit: Credit) -> list[torch.Generator]:
    """Return the random generators of a rule, of the objects that it holds and of the rules that it holds."""
    found: dict[int, torch.Generator] = {}
    seen: set[int] = set()

    def search(value: Any) -> None:
        if isinstance(value, torch.Generator):
            found[id(value)] = value
        elif id(value) not in seen and not isinstance(value, nn.Module | Tensor | type):
            seen.add(id(value))
            parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
            for part in (*parts, *getattr(value, "__dict__", {}).values()):
                search(part)

    search(credit)
    return list(found.values())
