"""The same forward pass for two rules: with the same random numbers, and one change of buffers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BeforePass:
    """What a forward pass changes: the buffers of a module, with their values, and torch's random states."""

    buffers: tuple[tuple[Tensor, Tensor], ...]
    random: Tensor
    random_of_gpus: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module) -> BeforePass:
        """Return the present values."""
        return cls(
            tuple((buffer, buffer.clone()) for buffer in model.buffers()),
            torch.get_rng_state(),
            tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else (),
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Set the values, so that the next pass repeats the last one."""
        torch.set_rng_state(self.random)
        if self.random_of_gpus:
            torch.cuda.set_rng_state_all(self.random_of_gpus)
        for buffer, value in self.buffers:
            # A buffer that did not change keeps its version, on which graphs may depend.
            if not torch.equal(buffer, value):
                buffer.copy_(value)
