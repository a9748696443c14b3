"""The same forward pass for two rules: with the same random numbers, and one change of buffers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plastic_cli.numerics.random_states import RandomStates


@dataclass(frozen=True)
class BeforePass:
    """What a forward pass changes: the buffers of a module, with their values, and the global random states."""

    buffers: tuple[tuple[Tensor, Tensor], ...]
    random: RandomStates

    @classmethod
    def of(cls, model: nn.Module) -> BeforePass:
        """Return the present values."""
        return cls(tuple((buffer, buffer.clone()) for buffer in model.buffers()), RandomStates.now())

    @torch.no_grad()
    def restore(self) -> None:
        """Set the values, so that the next pass repeats the last one."""
        self.random.restore()
        for buffer, value in self.buffers:
            # A buffer that did not change keeps its version, on which graphs may depend.
            if not torch.equal(buffer, value):
                buffer.copy_(value)
