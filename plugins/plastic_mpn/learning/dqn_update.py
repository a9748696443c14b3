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
    """Settings of Q-learning.

    epsilon_decay: factor per episode. tau: soft update of the target network per gradient step; if it is 0, the network
    is copied to the target network every `target_every` episodes. train_every: number of transitions per gradient step.
    A batch of sequences holds about batch_size transitions.
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
        """Return the probability of a random action after a number of episodes."""
        return max(self.epsilon_end, self.epsilon_start * self.epsilon_decay**episodes)


class Update(Protocol):
    """How a network acts and learns, in torch or in compiled kernels."""

    def act(
        self, observations: NDArray[np.float32], states: Tensor, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions (count,) and the new states. States (count, ...) are set to 0 in place at starts."""

    def learn(self, generator: np.random.Generator) -> float | Tensor:
        """Take one gradient step and return the loss."""

    def move_target(self, share: float) -> None:
        """Move the target network toward the network by the fraction `share`; 1 copies it."""

    def synchronize(self) -> None:
        """Write the learned parameters into the network."""

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""


class TorchUpdate:
    """Acting and learning in torch, for every core, device and kind of replay."""

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
        """Return the mean Huber loss of the chosen transitions, each from its stored state."""
        replay, device = self.replay, self.device
        rows = torch.from_numpy(chosen)
        states = replay.states.flatten(0, 1)[rows].to(device)
        q, states = self.network(replay.observations.flatten(0, 1)[rows].to(device), states)
        chosen_q = q.gather(1, replay.actions.flatten()[rows, None].to(device)).squeeze(1)
        with torch.no_grad():
            next_observations = replay.next_observations.flatten(0, 1)[rows].to(device)
            target_q = self.target(next_observations, states)[0]
            best = self.network(next_observations, states)[0] if self.settings.double_q else target_q
            value = target_q.gather(1, best.argmax(dim=1, keepdim=True)).squeeze(1)
            discount = self.settings.gamma * ~replay.terminated.flatten()[rows]
            targets = replay.rewards.flatten()[rows].to(device) + discount.to(device) * value
        return functional.huber_loss(chosen_q, targets)

    def loss_of_sequences(self, generator: np.random.Generator) -> Tensor:
        """Return the mean Huber loss over sequences of steps, which begin with a stored state and a burn-in.

        The last step of an episode that was truncated by a step limit has no loss, because the sequence does not hold
        the observation that followed it.
        """
        settings = self.settings
        length, burn_in = settings.sequence_length, settings.burn_in
        count = max(1, settings.batch_size // length)
        batch = self.replay.sequences(count, burn_in + length + 1, generator).to(self.device)
        state = target_state = batch.state
        if burn_in:
            before = batch.observations[:burn_in], batch.state, batch.starts[:burn_in]
            with torch.no_grad():
                state, target_state = self.network(*before)[1], self.target(*before)[1]
        q = self.network(batch.observations[burn_in:], state, batch.starts[burn_in:])[0]
        learned = slice(burn_in, burn_in + length)
        with torch.no_grad():
            target_q = self.target(batch.observations[burn_in:], target_state, batch.starts[burn_in:])[0]
            best = (q if settings.double_q else target_q)[1:].argmax(dim=-1, keepdim=True)
            value = target_q[1:].gather(-1, best).squeeze(-1)
            targets = batch.rewards[learned] + settings.gamma * value * ~batch.terminated[learned]
            has_next = (~batch.truncated[learned] | batch.terminated[learned]).to(q.dtype)
        chosen_q = q[:-1].gather(-1, batch.actions[learned].unsqueeze(-1)).squeeze(-1)
        losses = functional.huber_loss(chosen_q, targets, reduction="none")
        return (losses * has_next).sum() / has_next.sum().clamp(min=1)

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target network."""
        for target, learned in zip(self.target.parameters(), self.network.parameters(), strict=True):
            target.lerp_(learned, share) if share < 1 else target.copy_(learned)

    def synchronize(self) -> None:
        """No effect: the parameters of the network are those that learn."""

    def state_dict(self) -> dict[str, Any]:
        """Return network, target and optimizer."""
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
