"""One gradient step of Q-learning in compiled kernels.

Without it, `plastic train mpn` takes 6.5 times the CPU time for training (6.3 to 6.7, five pairs of runs on one
thread). It therefore stays next to the readable update in `dqn_update.py`, which the tests compare it with.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_mpn.kernels import dqn as compiled_dqn
from plastic_mpn.learning.dqn_update import DQNSettings
from plastic_mpn.learning.replay import Replay
from plastic_mpn.networks.agents import MPNDQN
from plastic_mpn.networks.cores import MPN
from plastic_mpn.networks.sequence import activate_in_place, association_scale
from plastic_mpn.rule import Activation, Plasticity


def can_be_compiled(network: MPNDQN, settings: DQNSettings) -> bool:
    """Return whether the kernels apply: one MPN layer with fixed eta and lambda, stored states, and the CPU."""
    core = network.core
    return (
        type(core) is MPN
        and not core.eta.requires_grad
        and not core.lambda_.requires_grad
        and core.b.requires_grad
        and settings.replay == "states"
        and core.W.device.type == "cpu"
        and core.W.dtype == torch.float32
    )


class Rows(NamedTuple):
    """The replay buffer in the form that the kernels take: one row for each transition."""

    x: NDArray[np.float32]
    next_x: NDArray[np.float32]
    M: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]


class CompiledUpdate:
    """Acting and learning in compiled kernels. Results equal those of TorchUpdate up to rounding.

    One flat array holds the parameters: W transposed, b, and the weights and biases of the head. `synchronize` writes
    them into the network.
    """

    def __init__(self, network: MPNDQN, replay: Replay, settings: DQNSettings) -> None:
        core = network.core
        assert isinstance(core, MPN)
        self.network, self._core = network, core
        self.settings = settings
        units, inputs = core.W.shape
        actions = network.head.out_features
        self._shapes = [(inputs, units), (units,), (actions, units), (actions,)]
        self._values = np.zeros(sum(int(np.prod(shape)) for shape in self._shapes), np.float32)
        self._target = np.zeros_like(self._values)
        self._gradient = np.zeros_like(self._values)
        self._first, self._second = np.zeros_like(self._values), np.zeros_like(self._values)
        self._parameters, self._target_parameters = self._parts(self._values), self._parts(self._target)
        self._parameter_gradients = self._parts(self._gradient)
        self._updates = 0
        self._gain = np.float32(float(core.eta) * association_scale(core.variant.plasticity, units, inputs))
        self._decay = np.float32(float(core.lambda_))
        self._association = get_args(Plasticity).index(core.variant.plasticity)
        self._bound = np.float32(core.variant.bound)
        self._activation = get_args(Activation).index(core.variant.activation)
        self._additive = core.variant.interaction == "additive"
        self._replay = replay
        self._rows = Rows(
            *(_rows(part) for part in (replay.observations, replay.next_observations, replay.states.transpose(2, 3))),
            *(_rows(part) for part in (replay.actions, replay.rewards, replay.terminated)),
        )
        batch = settings.batch_size
        self._h = torch.zeros(batch, units)
        self._next_h = torch.zeros(2, batch, units)
        self._scratch = np.zeros((inputs, units), np.float32)
        self._drive = np.zeros(units, np.float32)
        self._read()
        self.move_target(1.0)

    def act(
        self, observations: NDArray[np.float32], states: Tensor, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions and the new states."""
        count, units, inputs = states.shape
        # States returned by this method have the layout of the kernels. Initial and loaded states are copied to it.
        modulations = states.transpose(1, 2).contiguous().numpy()
        new = np.empty((count, inputs, units), np.float32)
        best = np.empty(count, np.int64)
        W, b, A, c = self._parameters
        compiled_dqn.act(
            observations, modulations, starts, W, b, A, c, self._gain, self._decay, self._association, self._bound,
            self._activation, self._additive, np.empty((count, units), np.float32), new, best,
        )  # fmt: skip
        if starts.any():
            states.transpose(1, 2).numpy()[starts] = 0
        return best, torch.from_numpy(new).transpose(1, 2)

    def learn(self, generator: np.random.Generator) -> float:
        """Take one gradient step on a batch of transitions."""
        loss = self.loss_and_gradient(self._replay.sample(self.settings.batch_size, generator))
        self._descend()
        return loss

    def loss_and_gradient(self, chosen: NDArray[np.int64]) -> float:
        """Return the mean Huber loss of the chosen transitions, and store its gradient."""
        W, b, A, c = self._parameters
        target_W, target_b, target_A, target_c = self._target_parameters
        rows = self._rows
        h, next_h = self._h.numpy(), self._next_h.numpy()
        compiled_dqn.present_sums(rows.x, rows.M, chosen, W, b, self._additive, h)
        activate_in_place(self._h, self._core.variant.activation)
        compiled_dqn.next_sums(
            rows.x, rows.next_x, rows.M, chosen, h, W, b, target_W, target_b, self._gain, self._decay,
            self._association, self._bound, self._additive, self._scratch, next_h,
        )  # fmt: skip
        activate_in_place(self._next_h, self._core.variant.activation)
        loss: float = compiled_dqn.gradient(
            rows.x, rows.M, chosen, rows.actions, rows.rewards, rows.terminated, h, next_h, A, c,
            target_A, target_c, self.settings.gamma, self.settings.double_q, self._activation, self._additive,
            self._drive, *self._parameter_gradients,
        )  # fmt: skip
        return loss

    def _descend(self) -> None:
        self._updates += 1
        compiled_dqn.clipped_adam(
            self._values, self._gradient, self._first, self._second, self._updates,
            self.settings.learning_rate, self.settings.gradient_clip, 0.9, 0.999, 1e-8,
        )  # fmt: skip

    def move_target(self, share: float) -> None:
        """Move the target network."""
        if share == 1:
            self._target[:] = self._values
        else:
            self._target += np.float32(share) * (self._values - self._target)

    def synchronize(self) -> None:
        """Write the parameters into the network."""
        self._exchange(self._values, into_network=True)

    def _read(self) -> None:
        self._exchange(self._values, into_network=False)

    @torch.no_grad()
    def _exchange(self, values: NDArray[np.float32], *, into_network: bool) -> None:
        W, b, A, c = (torch.from_numpy(part) for part in self._parts(values))
        core, head = self._core, self.network.head
        for ours, theirs in ((W.t(), core.W), (b, core.b), (A, head.weight), (c, head.bias)):
            theirs.copy_(ours) if into_network else ours.copy_(theirs)

    def _parts(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        parts, first = [], 0
        for shape in self._shapes:
            end = first + int(np.prod(shape))
            parts.append(values[first:end].reshape(shape))
            first = end
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Return the network's state, and the flat arrays of target and optimizer."""
        self.synchronize()
        arrays = {"target": self._target, "first": self._first, "second": self._second}
        return {
            "network": self.network.state_dict(),
            "updates": self._updates,
            **{name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._read()
        self._updates = int(state["updates"])
        self._target[:] = state["target"].numpy()
        self._first[:] = state["first"].numpy()
        self._second[:] = state["second"].numpy()


def _rows(ring: Tensor) -> NDArray[Any]:
    """Return the buffer as an array with one row for each transition, without a copy."""
    return ring.view(-1, *ring.shape[2:]).numpy()
