"""The states of the global random numbers of torch, CUDA, NumPy and Python."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomStates:
    """The states of all global random numbers that a module may use.

    cuda: one state for each GPU; empty if CUDA is not in use, because reading a state occupies the GPU.
    """

    cpu: Tensor
    cuda: list[Tensor]
    python: Any
    numpy: Any

    @classmethod
    def now(cls) -> RandomStates:
        """Return the present states."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state(legacy=False))  # noqa: NPY002

    def same(self, other: RandomStates) -> bool:
        """Return whether both are equal."""
        return (
            torch.equal(self.cpu, other.cpu)
            and all(map(torch.equal, self.cuda, other.cuda))
            and self.python == other.python
            and self.numpy["state"]["pos"] == other.numpy["state"]["pos"]
            and np.array_equal(self.numpy["state"]["key"], other.numpy["state"]["key"])
        )

    def restore(self) -> None:
        """Set the states."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
