"""Advantage actor-critic (A2C) with truncated backpropagation through time, on several environments in parallel.

Sources: Mnih et al., "Asynchronous methods for deep reinforcement learning", ICML 2016 (n-step advantage actor-critic
with an entropy bonus), here synchronous; Schulman et al., "High-dimensional continuous control using
generalized advantage estimation", ICLR 2016 (the estimator with lambda).

A rollout is `rollout` steps of every environment. Acting runs without autograd. The update then runs the network once
over the whole rollout as a sequence, from the recurrent state at the start of the rollout. This state is zero at the
start of an episode. It is passed from rollout to rollout without gradients, so gradients reach back to the start of the
rollout or of the episode, whichever is later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.numerics.clock import training_clock
from plastic_mpn.environments.vector import Environments
from plastic_mpn.networks.agents import ActorCritic

if TYPE_CHECKING:
    from plastic_cli.runs.run import Run


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float = 1.0,
) -> Tensor:
    """Return the generalized advantage estimates A (time, environments).

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t = delta_t + gamma lambda A_{t+1}

    V(s_{t+1}) is 0 if s_{t+1} is terminal. A_{t+1} is 0 after the end of an episode, terminated or truncated, and after
    the last step. With lambda = 1, A_t + V(s_t) is the n-step return: the discounted sum of the rewards up to the end
    of the episode or of the rollout, plus the discounted value of the next state unless that is terminal. With lambda =
    0, A_t = delta_t.

    All arguments have the shape (time, environments); terminated and truncated are bool. next_values: the values of the
    next states before a reset. Source: Schulman et al. 2016, Eq 16.
    """
    deltas = rewards + gamma * next_values.masked_fill(terminated, 0.0) - values
    carried = (gamma * gae_lambda) * (~(terminated | truncated)).to(deltas.dtype)
    advantages = torch.empty_like(deltas)
    next_advantage = torch.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        next_advantage = torch.addcmul(deltas[step], carried[step], next_advantage)
        advantages[step] = next_advantage
    return advantages


class A2CLoss(NamedTuple):
    """The loss and its parts, scalar tensors."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor


def a2c_loss(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    advantages: Tensor,
    returns: Tensor,
    entropy_coefficient: float,
    value_coefficient: float,
) -> A2CLoss:
    """Return the loss of A2C, averaged over all steps of all environments.

        policy = -mean(A log pi(a|s))     value = mean((R - V(s))^2)     entropy = -mean(sum_a pi(a|s) log pi(a|s))
        total = policy + value_coefficient * value - entropy_coefficient * entropy

    logits (..., actions), the others (...); actions: indices of the chosen actions. Compute the advantages A and the
    returns R without gradients. Source: Mnih et al. 2016, section 4.
    """
    log_probabilities = functional.log_softmax(logits, dim=-1)
    chosen = log_probabilities.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    policy = -(advantages * chosen).mean()
    value = functional.mse_loss(values, returns)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1).mean()
    return A2CLoss(policy + value_coefficient * value - entropy_coefficient * entropy, policy, value, entropy)


@dataclass(frozen=True)
class A2CSettings:
    """Settings of A2C.

    rollout: steps of each environment per update, and the range of backpropagation through time. gradient_clip: the
    maximum L2 norm of the gradient of all parameters together. gae_lambda: 1 for n-step returns. normalize_advantages:
    to mean 0 and standard deviation 1 over the rollout.
    """

    learning_rate: float = 1e-4
    gamma: float = 0.98
    entropy_coefficient: float = 0.01
    value_coefficient: float = 1.0
    rollout: int = 50
    gradient_clip: float = 10.0
    gae_lambda: float = 1.0
    normalize_advantages: bool = False


@dataclass(frozen=True)
class Rollout:
    """Steps of all environments, (time, environments) each.

    observations (time, environments, observation) and starts: the inputs of the network. state (environments, ...): the
    recurrent state before the first step. bootstrap_values: the values of the next states of truncated steps and of the
    last step; 0 elsewhere.
    """

    state: Tensor
    observations: Tensor
    starts: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    bootstrap_values: Tensor

    def next_values(self, values: Tensor) -> Tensor:
        """Return the value of the next state of each step before a reset, from the values (time, environments)."""
        within = torch.cat([values[1:], self.bootstrap_values[-1:]])
        return torch.where(self.truncated, self.bootstrap_values, within)


class A2C:
    """An actor-critic that acts in environments and learns from them.

    generator: a CPU generator that samples the actions; its state is part of the checkpoint.
    state: the recurrent state (environments, ...) before the next step. updates: number of updates.
    episodes: number of episodes that have ended.
    """

    def __init__(
        self, network: ActorCritic, environments: Environments, generator: torch.Generator, settings: A2CSettings
    ) -> None:
        self.network, self.environments, self.generator, self.settings = network, environments, generator, settings
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.learning_rate)
        self.device = self.parameters[0].device
        self.state = network.init_state(environments.count).detach()
        self.updates = 0
        self.episodes = 0
        self._unreported = _Unreported()

    def rollout_and_update(self) -> dict[str, Tensor]:
        """Collect one rollout and learn from it.

        Returns loss, policy_loss, value_loss, entropy and gradient_norm (before clipping), scalar tensors.
        """
        statistics = self.update(self.collect())
        self._unreported.add(statistics)
        return statistics

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Act for one rollout, with actions sampled from the policy."""
        environments, time_steps = self.environments, self.settings.rollout
        shape = (time_steps, environments.count)
        observations = np.empty((*shape, environments.observation_dim), np.float32)
        actions = np.empty(shape, np.int64)
        rewards = np.empty(shape, np.float32)
        starts, terminated, truncated = (np.empty(shape, np.bool_) for _ in range(3))
        observed = torch.from_numpy(observations)
        # The argmax of logits plus Gumbel noise is a sample of the policy.
        gumbel = -torch.empty(*shape, environments.action_count).exponential_(generator=self.generator).log_()
        gumbel = gumbel.to(self.device)
        before, state = self.state, self.state
        cuts: list[tuple[int, Any, Any, Tensor]] = []
        for step in range(time_steps):
            observations[step], starts[step] = environments.observations, environments.starts
            # Clearing copies the whole state, so it is skipped if no episode begins.
            begins = torch.from_numpy(starts[step]).to(self.device) if starts[step].any() else None
            (logits, _), state = self.network(observed[step].to(self.device), state, begins)
            actions[step] = (logits + gumbel[step]).argmax(-1).cpu().numpy()
            transition = environments.step(actions[step])
            rewards[step] = transition.rewards
            terminated[step], truncated[step] = transition.terminated, transition.truncated
            cut = np.flatnonzero(transition.truncated) if step < time_steps - 1 else np.arange(environments.count)
            if len(cut):
                rows = state if len(cut) == environments.count else state[torch.from_numpy(cut).to(self.device)]
                cuts.append((step, cut, transition.next_observations[cut], rows))
            for episode_return, length in environments.finished:
                self._unreported.episodes.append((float(episode_return), int(length)))
                self.episodes += 1
        self.state = state
        played = {
            "observations": observations,
            "starts": starts,
            "actions": actions,
            "rewards": rewards,
            "terminated": terminated,
            "truncated": truncated,
        }
        moved = {name: torch.from_numpy(array).to(self.device) for name, array in played.items()}
        return Rollout(state=before, bootstrap_values=self._bootstrap_values(cuts, shape), **moved)

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """Take one step of Adam on the loss of one rollout; see `rollout_and_update`."""
        settings = self.settings
        (logits, values), _ = self.network(rollout.observations, rollout.state, rollout.starts)
        with torch.no_grad():
            advantages = generalized_advantages(
                rollout.rewards,
                values,
                rollout.next_values(values),
                rollout.terminated,
                rollout.truncated,
                gamma=settings.gamma,
                gae_lambda=settings.gae_lambda,
            )
            returns = advantages + values
            if settings.normalize_advantages:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        loss = a2c_loss(
            logits,
            values,
            rollout.actions,
            advantages,
            returns,
            settings.entropy_coefficient,
            settings.value_coefficient,
        )
        self.optimizer.zero_grad()
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.gradient_clip)
        self.optimizer.step()
        self.network.core.constrain()
        self.updates += 1
        return {
            "loss": loss.total.detach(),
            "policy_loss": loss.policy.detach(),
            "value_loss": loss.value.detach(),
            "entropy": loss.entropy.detach(),
            "gradient_norm": norm.detach(),
        }

    def report(self) -> dict[str, float]:
        """Return the means since the last report, and the counts so far.

        Keys: those of `rollout_and_update`; return and length (steps) of the episodes that ended, if any;
        environment_steps and episodes (ended) since the start.
        """
        means = self._unreported.means()
        self._unreported = _Unreported()
        return {**means, "environment_steps": float(self.environments.steps), "episodes": float(self.episodes)}

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state, including environments, recurrent state and random state."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "environments": self.environments.state_dict(),
            "state": self.state,
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "episodes": self.episodes,
            "unreported": self._unreported.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the result of `state_dict`. Raises ValueError or RuntimeError if it has another shape."""
        if state["state"].shape != self.state.shape:
            raise ValueError(
                f"the recurrent state has the shape {tuple(state['state'].shape)}, not {tuple(self.state.shape)}"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.environments.load_state_dict(state["environments"])
        self.state = state["state"].to(self.device, copy=True)
        self.generator.set_state(state["generator"])
        self.updates, self.episodes = state["updates"], state["episodes"]
        self._unreported = _Unreported.from_state_dict(state["unreported"])

    def _bootstrap_values(self, cuts: list[tuple[int, Any, Any, Tensor]], shape: tuple[int, int]) -> Tensor:
        """Evaluate all states at `cuts` in one call; a cut is (step, environments, observations, recurrent states)."""
        observations = torch.from_numpy(np.concatenate([observed for _, _, observed, _ in cuts])).to(self.device)
        (_, values), _ = self.network(observations, torch.cat([state for *_, state in cuts]))
        times = np.concatenate([np.full(len(rows), step) for step, rows, _, _ in cuts])
        where = np.concatenate([rows for _, rows, _, _ in cuts])
        bootstrap_values = torch.zeros(shape, dtype=values.dtype, device=self.device)
        bootstrap_values[torch.from_numpy(times).to(self.device), torch.from_numpy(where).to(self.device)] = values
        return bootstrap_values


def train_a2c(
    algorithm: A2C,
    run: Run,
    *,
    total_steps: int,
    log_every: int = 10,
    after_update: Callable[[int], None] | None = None,
) -> None:
    """Train for at least `total_steps` steps of all environments together.

    The loop of the run counts updates; `algorithm` is tracked as "algorithm". `A2C.report` is logged as split "train"
    every `log_every` updates and after the last one. after_update is called after each update with the number of
    updates so far, before a checkpoint may be written. Raises RunFailed if the loss is not finite.
    """
    run.track(algorithm=algorithm)
    updates = -(-total_steps // (algorithm.settings.rollout * algorithm.environments.count))
    for _ in run.steps(updates, "update"):
        began, steps_before = training_clock(), algorithm.environments.steps
        algorithm.rollout_and_update()
        run.count_samples(algorithm.environments.steps - steps_before, training_clock() - began)
        if algorithm.updates == updates or algorithm.updates % log_every == 0:
            run.log("train", None, **algorithm.report())
        if after_update:
            after_update(algorithm.updates)


class _Unreported:
    """Sums of statistics, and episodes, since the last report."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.updates = 0
        self.episodes: list[tuple[float, int]] = []

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Add the statistics of one update."""
        self.sums = {name: self.sums[name] + value if self.sums else value for name, value in statistics.items()}
        self.updates += 1

    def means(self) -> dict[str, float]:
        """Return the means, without quantities that have no values."""
        means = {name: value.item() / self.updates for name, value in self.sums.items()}
        if self.episodes:
            means["return"] = fmean(episode_return for episode_return, _ in self.episodes)
            means["length"] = fmean(length for _, length in self.episodes)
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors."""
        return {
            "sums": dict(self.sums),
            "updates": self.updates,
            "episodes": [[episode_return, length] for episode_return, length in self.episodes],
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> _Unreported:
        """Create one from the result of `state_dict`."""
        unreported = cls()
        unreported.sums, unreported.updates = dict(state["sums"]), state["updates"]
        unreported.episodes = [(episode_return, length) for episode_return, length in state["episodes"]]
        return unreported
