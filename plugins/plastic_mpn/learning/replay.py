"""The replay buffer: transitions, each with the state of the network before it, in preallocated tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.errors import PlasticError


@dataclass(frozen=True)
class Sequences:
    """Sequences of steps, each from one environment: (time, batch, ...). state (batch, ...): before the first step."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    starts: Tensor
    state: Tensor

    def to(self, device: torch.device) -> Sequences:
        """Return the sequences on another device."""
        return Sequences(*(getattr(self, field.name).to(device) for field in fields(self)))


class Replay:
    """A ring buffer of steps in CPU memory. A slot holds one step of every environment.

    The memory layout of states (slots, count, *state_shape) has the last two axes exchanged, which is the order that
    the compiled kernels read. The state after a step is not stored: it is computed from the state before it.
    """

    def __init__(self, capacity: int, count: int, observation_dim: int, state_shape: tuple[int, ...]) -> None:
        self.slots = max(1, capacity // count)
        self.count = count
        self.position = 0
        self.filled = 0
        shape = (self.slots, count)
        self.observations = torch.zeros(*shape, observation_dim)
        self.next_observations = torch.zeros(*shape, observation_dim)
        self.states = _exchanged(torch.zeros(*shape, *_swap(state_shape)), len(state_shape))
        self.actions = torch.zeros(shape, dtype=torch.long)
        self.rewards = torch.zeros(shape)
        self.terminated = torch.zeros(shape, dtype=torch.bool)
        self.truncated = torch.zeros(shape, dtype=torch.bool)
        self.starts = torch.zeros(shape, dtype=torch.bool)
        self._views: dict[str, NDArray[Any]] = {name: getattr(self, name).numpy() for name in self._TENSORS}

    def __len__(self) -> int:
        """Return the number of transitions."""
        return self.filled * self.count

    def write(self, **values_by_name: NDArray[Any]) -> None:
        """Write fields (count, ...) of the present slot, by name."""
        for name, values in values_by_name.items():
            # An assignment in numpy is much faster than in torch.
            self._views[name][self.position] = values

    def advance(self) -> None:
        """Move to the next slot."""
        self.position = (self.position + 1) % self.slots
        self.filled = min(self.filled + 1, self.slots)

    def sample(self, batch: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw the indices of `batch` transitions in the flattened buffer, uniformly and with replacement."""
        return generator.integers(len(self), size=batch)

    def sequences(self, batch: int, length: int, generator: np.random.Generator) -> Sequences:
        """Draw `batch` sequences of `length` steps. Raises PlasticError if the buffer holds fewer steps."""
        if self.filled < length:
            raise PlasticError(f"the buffer holds {self.filled} steps of each environment, less than one sequence.")
        first = torch.from_numpy(generator.integers(self.filled - length + 1, size=batch))
        environment = torch.from_numpy(generator.integers(self.count, size=batch))
        oldest = self.position if self.filled == self.slots else 0
        slots = (oldest + first[None, :] + torch.arange(length)[:, None]) % self.slots
        return Sequences(
            self.observations[slots, environment],
            self.actions[slots, environment],
            self.rewards[slots, environment],
            self.terminated[slots, environment],
            self.truncated[slots, environment],
            self.starts[slots, environment],
            self.states[slots[0], environment],
        )

    _TENSORS = (
        "observations",
        "next_observations",
        "states",
        "actions",
        "rewards",
        "terminated",
        "truncated",
        "starts",
    )

    def state_dict(self) -> dict[str, Any]:
        """Return the filled slots and the position."""
        stored = {name: getattr(self, name)[: self.filled].clone() for name in self._TENSORS}
        return {**stored, "position": self.position, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.position, self.filled = int(state["position"]), int(state["filled"])
        for name in self._TENSORS:
            getattr(self, name)[: self.filled] = state[name]


def _swap(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else shape


def _exchanged(tensor: Tensor, axes: int) -> Tensor:
    return tensor.transpose(-1, -2) if axes >= 2 else tensor
