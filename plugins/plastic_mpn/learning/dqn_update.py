"""One gradient step of Q-learning in torch, for every core, device and kind of replay."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plastic_mpn.learning.replay import Replay
from plastic_mpn.networks.agents import MPNDQN


@dataclass(frozen=True)
class DQNSettings:
    """How a network learns by Q-learning.

    epsilon_decay is a factor per episode. tau: share by which the target follows the network at every gradient step; if
    it is 0, the network is copied into its target every `target_every` episodes. train_every: transitions for each
    gradient step. A batch of sequences holds about as many transitions as batch_size says.
    """

    gamma: float = 0.99
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    epsilon_decay: float = 0.995
    learning_rate: float = 1e-3
    batch_size: int = 64
    buffer_size: int = 10_000
    learning_starts: int = 64
    train_every: int = 1
    tau: float = 0.005
    target_every: int = 10
    gradient_clip: float = 10.0
    double_q: bool = True
    replay: Literal["states", "sequences"] = "states"
    burn_in: int = 8
    sequence_length: int = 16

    def epsilon(self, episodes: int) -> float:
        """Return the probability of a random action when `episodes` have ended."""
        return max(self.epsilon_end, self.epsilon_start * self.epsilon_decay**episodes)


class Update(Protocol):
    """How a network acts and learns: step by step in torch, or compiled."""

    def act(
        self, observations: NDArray[np.float32], states: Tensor, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions (count,) and the new states; states (count, ...) are zeroed in place at starts."""

    def learn(self, generator: np.random.Generator) -> float | Tensor:
        """Take one gradient step and return the loss."""

    def move_target(self, share: float) -> None:
        """Move the target network towards the network by `share`; 1 copies it."""

    def synchronise(self) -> None:
        """Write what was learned into the network's own parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


class TorchUpdate:
    """Acting and learning in plain torch, for every core, device and kind of replay."""

    def __init__(self, network: MPNDQN, replay: Replay, settings: DQNSettings) -> None:
        self.network = network
        self.replay = replay
        self.settings = settings
        self.device = next(network.parameters()).device
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.trained = [weights for weights in network.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.Adam(self.trained, lr=settings.learning_rate, fused=True)

    @torch.no_grad()
    def act(
        self, observations: NDArray[np.float32], states: Tensor, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions and the new states."""
        if starts.any():
            states[torch.from_numpy(starts)] = 0
        q, states = self.network(torch.from_numpy(observations).to(self.device), states)
        return q.argmax(dim=-1).numpy(force=True), states

    def learn(self, generator: np.random.Generator) -> Tensor:
        """Take one gradient step on a batch of stored states or of sequences."""
        if self.settings.replay == "states":
            loss = self.loss_of_states(self.replay.sample(self.settings.batch_size, generator))
        else:
            loss = self.loss_of_sequences(generator)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.settings.gradient_clip)
        self.optimizer.step()
        self.network.core.constrain()
        return loss.detach()

    def loss_of_states(self, chosen: NDArray[np.int64]) -> Tensor:
        """Return the mean Huber loss of the chosen transitions, each from the state that was stored with it."""
        replay, device = self.replay, self.device
        rows = torch.from_numpy(chosen)
        states = replay.states.flatten(0, 1)[rows].to(device)
        q, states = self.network(replay.observations.flatten(0, 1)[rows].to(device), states)
        taken = q.gather(1, replay.actions.flatten()[rows, None].to(device)).squeeze(1)
        with torch.no_grad():
            behind = replay.next_observations.flatten(0, 1)[rows].to(device)
            target_q = self.target(behind, states)[0]
            preferred = self.network(behind, states)[0] if self.settings.double_q else target_q
            value = target_q.gather(1, preferred.argmax(dim=1, keepdim=True)).squeeze(1)
            goes_on = self.settings.gamma * ~replay.terminated.flatten()[rows]
            wanted = replay.rewards.flatten()[rows].to(device) + goes_on.to(device) * value
        return functional.huber_loss(taken, wanted)

    def loss_of_sequences(self, generator: np.random.Generator) -> Tensor:
        """Return the mean Huber loss over stretches of steps, from a stored state and behind a burn-in.

        The last step of an episode that was cut off by a limit of time is left out: what would have followed it is not
        part of the stretch.
        """
        settings = self.settings
        length, burn_in = settings.sequence_length, settings.burn_in
        count = max(1, settings.batch_size // length)
        seen = self.replay.sequences(count, burn_in + length + 1, generator).to(self.device)
        state = target_state = seen.state
        if burn_in:
            before = seen.observations[:burn_in], seen.state, seen.starts[:burn_in]
            with torch.no_grad():
                state, target_state = self.network(*before)[1], self.target(*before)[1]
        q = self.network(seen.observations[burn_in:], state, seen.starts[burn_in:])[0]
        learned = slice(burn_in, burn_in + length)
        with torch.no_grad():
            target_q = self.target(seen.observations[burn_in:], target_state, seen.starts[burn_in:])[0]
            preferred = (q if settings.double_q else target_q)[1:].argmax(dim=-1, keepdim=True)
            value = target_q[1:].gather(-1, preferred).squeeze(-1)
            wanted = seen.rewards[learned] + settings.gamma * value * ~seen.terminated[learned]
            counts = (~seen.truncated[learned] | seen.terminated[learned]).to(q.dtype)
        taken = q[:-1].gather(-1, seen.actions[learned].unsqueeze(-1)).squeeze(-1)
        losses = functional.huber_loss(taken, wanted, reduction="none")
        return (losses * counts).sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target network."""
        for kept, learned in zip(self.target.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(learned, share) if share < 1 else kept.copy_(learned)

    def synchronise(self) -> None:
        """Do nothing: the network's own parameters are those that learn."""

    def state_dict(self) -> dict[str, Any]:
        """Return network, target and optimizer."""
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
