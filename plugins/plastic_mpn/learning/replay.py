"""What an agent remembers: transitions with the state of the network before each, in tensors made once."""

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
    """Stretches of one environment's steps each: (time, batch, ...). `state` is the network's before the first."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    starts: Tensor
    state: Tensor

    def to(self, device: torch.device) -> Sequences:
        """Return the same on another device."""
        return Sequences(*(getattr(self, field.name).to(device) for field in fields(self)))


class Replay:
    """A ring of steps in the memory of the CPU; a slot holds one step of every environment.

    states (slots, count, *state_shape) are laid out with their last two axes exchanged, as the compiled kernels read
    them. Nothing is stored twice: the state behind a step is computed from the one before it.
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
        """Return how many transitions there are."""
        return self.filled * self.count

    def write(self, **parts: NDArray[Any]) -> None:
        """Write parts of the present slot, by name, (count, ...) each."""
        for name, values in parts.items():
            # An assignment in numpy costs a fraction of one in torch.
            self._views[name][self.position] = values

    def advance(self) -> None:
        """Go on to the next slot."""
        self.position = (self.position + 1) % self.slots
        self.filled = min(self.filled + 1, self.slots)

    def sample(self, batch: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return `batch` numbers of transitions, uniformly and with replacement; they index the flattened ring."""
        return generator.integers(len(self), size=batch)

    def sequences(self, batch: int, length: int, generator: np.random.Generator) -> Sequences:
        """Return `batch` stretches of `length` steps; raises PlasticError where there are too few steps yet."""
        if self.filled < length:
            raise PlasticError(f"the buffer holds {self.filled} steps of each environment, fewer than a sequence.")
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
        """Return the filled part and the position."""
        stored = {name: getattr(self, name)[: self.filled].clone() for name in self._TENSORS}
        return {**stored, "position": self.position, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.position, self.filled = int(state["position"]), int(state["filled"])
        for name in self._TENSORS:
            getattr(self, name)[: self.filled] = state[name]


def _swap(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else shape


def _exchanged(tensor: Tensor, axes: int) -> Tensor:
    return tensor.transpose(-1, -2) if axes >= 2 else tensor
