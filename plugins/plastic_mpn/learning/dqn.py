"""Deep Q-learning with a recurrent network: environment steps, gradient steps, and the training loop.

The temporal-difference error of a transition (o, s, a, r, o') with the network's state s before it is

    delta = Q(o, s)[a] - (r + gamma Q'(o', s')[a*]),    a* = argmax_a Q(o', s')[a]

Q' is the target network, s' the state after o, and the loss is Huber's (Mnih et al. 2015; double Q-learning: van
Hasselt, Guez & Silver 2016). With `replay` "states", s is the state that was stored with the transition. With
"sequences", s is computed again from a stored state some steps earlier (burn-in: Kapturowski et al. 2019), and the
gradient is backpropagated through time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plastic_cli import Run
from plastic_cli.numerics.clock import training_clock
from plastic_mpn.environments.vector import Environments
from plastic_mpn.learning.dqn_compiled import CompiledUpdate, can_be_compiled
from plastic_mpn.learning.dqn_update import DQNSettings, TorchUpdate, Update
from plastic_mpn.learning.replay import Replay
from plastic_mpn.networks.agents import MPNDQN


class DQN:
    """A network that learns in environments. `advance` takes one step in each, and the gradient steps that are due."""

    def __init__(
        self, network: MPNDQN, environments: Environments, settings: DQNSettings, seeds: np.random.SeedSequence
    ) -> None:
        self.network = network
        self.environments = environments
        self.settings = settings
        self._project, learning = network.split_projection()
        self.generator = np.random.Generator(np.random.PCG64(seeds))
        self.device = next(network.parameters()).device
        self.replay = Replay(
            settings.buffer_size, environments.count, learning.core.input_dim, network.core.state_shape
        )
        update = CompiledUpdate if can_be_compiled(learning, settings) else TorchUpdate
        self.update: Update = update(learning, self.replay, settings)
        self.states = network.init_state(environments.count)
        self.finished: list[tuple[float, int]] = []
        self.unlogged: list[float] = []
        self.logged_steps = -1
        self.episodes = 0
        self.gradient_steps = 0
        self._losses: float | Tensor = 0.0
        self._losses_counted = 0
        self._due = 0

    def advance(self) -> None:
        """Take one step in every environment, store it, and learn."""
        environments, replay = self.environments, self.replay
        # The fixed projection of an observation is computed once, not in every batch that contains it.
        observations = self._project(environments.observations)
        replay.write(observations=observations, starts=environments.starts)
        actions, states = self.update.act(observations, self.states, environments.starts)
        replay.write(states=self.states.numpy(force=True))
        self.states = states
        explores = self.generator.random(environments.count) < self.settings.epsilon(self.episodes)
        if explores.any():
            random = self.generator.integers(environments.action_count, size=environments.count)
            actions = np.where(explores, random, actions)
        transition = environments.step(actions)
        replay.write(
            actions=actions,
            next_observations=self._project(transition.next_observations),
            rewards=transition.rewards,
            terminated=transition.terminated,
            truncated=transition.truncated,
        )
        replay.advance()
        self._learn()
        for episode in environments.finished:
            self.finished.append(episode)
            self.episodes += 1
            if self.settings.tau == 0 and self.episodes % self.settings.target_every == 0:
                self.update.move_target(1.0)

    def _learn(self) -> None:
        settings, replay = self.settings, self.replay
        needed = max(settings.learning_starts, settings.batch_size)
        if settings.replay == "sequences":
            needed = max(needed, replay.count * (settings.burn_in + settings.sequence_length + 1))
        if len(replay) < min(needed, replay.slots * replay.count):
            return
        self._due += self.environments.count
        while self._due >= settings.train_every:
            self._due -= settings.train_every
            self._losses += self.update.learn(self.generator)
            self._losses_counted += 1
            self.gradient_steps += 1
            if settings.tau > 0:
                self.update.move_target(settings.tau)

    @property
    def has_learned(self) -> bool:
        """Whether there were gradient steps since the last call of `mean_loss`."""
        return self._losses_counted > 0

    def mean_loss(self) -> float:
        """Return the mean loss of the gradient steps since the last call; NaN if there were none."""
        mean = float(self._losses) / self._losses_counted if self._losses_counted else float("nan")
        self._losses, self._losses_counted = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state: network, optimizer, buffer, environments, counters."""
        return {
            "update": self.update.state_dict(),
            "replay": self.replay.state_dict(),
            "environments": self.environments.state_dict(),
            "states": self.states.clone(),
            "finished": [list(episode) for episode in self.finished],
            "unlogged": list(self.unlogged),
            "logged_steps": self.logged_steps,
            "counters": [self.episodes, self.gradient_steps, self._due, self._losses_counted],
            "losses": torch.as_tensor(self._losses, dtype=torch.float64, device="cpu"),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.update.load_state_dict(state["update"])
        self.replay.load_state_dict(state["replay"])
        self.environments.load_state_dict(state["environments"])
        self.states = state["states"].to(self.device)
        self.finished = [(float(value), int(length)) for value, length in state["finished"]]
        self.unlogged = [float(value) for value in state["unlogged"]]
        # Checkpoints of earlier versions do not have it.
        self.logged_steps = int(state.get("logged_steps", -1))
        self.episodes, self.gradient_steps, self._due, self._losses_counted = state["counters"]
        self._losses = float(state["losses"])
        self.generator.bit_generator.state = state["generator"]


def train_dqn(
    dqn: DQN,
    run: Run,
    episodes: int,
    *,
    total_steps: int | None = None,
    log_every: int = 1,
    after_episode: Callable[[int], None] | None = None,
) -> None:
    """Train for a number of episodes, or until `total_steps` environment steps have been taken.

    `after_episode` is called with the number of episodes so far.
    """
    run.track(dqn=dqn)

    def steps_done() -> bool:
        return total_steps is not None and dqn.environments.steps >= total_steps

    for episode in run.steps(episodes, "episode"):
        began, steps = training_clock(), dqn.environments.steps
        while not dqn.finished and not steps_done():
            dqn.advance()
        run.count_samples(dqn.environments.steps - steps, training_clock() - began)
        if not dqn.finished:
            run.message(f"took the {total_steps} environment steps in {episode} episodes")
            # Leaving the loop early skips the checkpoint that its last step writes.
            run.step = episode
            # A run that was stopped after this checkpoint has logged it.
            if dqn.logged_steps != dqn.environments.steps:
                _log_learning(dqn, run)
            run.save_checkpoint()
            break
        dqn.unlogged.append(dqn.finished.pop(0)[0])
        if (episode + 1) % log_every == 0 or episode + 1 == episodes:
            _log_learning(dqn, run)
        if after_episode is not None:
            dqn.update.synchronize()
            after_episode(episode + 1)
    else:
        if total_steps is not None and not steps_done():
            run.message(
                f"{episodes} episodes ended after {dqn.environments.steps} of {total_steps} environment steps:"
                " increase --episodes to train longer"
            )
    dqn.update.synchronize()


def _log_learning(dqn: DQN, run: Run) -> None:
    """Log the returns and the loss since the last call."""
    if dqn.unlogged:
        run.log("train", None, **{"return": float(np.mean(dqn.unlogged))})
    epsilon = dqn.settings.epsilon(dqn.episodes)
    steps, gradient_steps = dqn.environments.steps, dqn.gradient_steps
    run.log("train", epsilon=epsilon, environment_steps=steps, gradient_steps=gradient_steps)
    if dqn.has_learned:
        run.log("train", loss=dqn.mean_loss())
    dqn.unlogged, dqn.logged_steps = [], steps
