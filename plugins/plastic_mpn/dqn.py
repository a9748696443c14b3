"""Deep Q-learning with a recurrent network: what one environment step and one gradient step do.

The temporal-difference error of a transition (o, s, a, r, o') with the network's state s before it is

    delta = Q(o, s)[a] - (r + gamma Q'(o', s')[a*]),    a* = argmax_a Q(o', s')[a]

Q' is the target network, s' the state behind o, and the loss is Huber's (Mnih et al. 2015; double Q-learning: van
Hasselt, Guez & Silver 2016). With `replay` "states" s is the state that was stored when the transition was made; with
"sequences" it is computed anew from a stored state some steps before (burn-in: Kapturowski et al. 2019), and the
gradient goes back through time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plastic_cli.numerics.clock import training_clock
from plastic_mpn import compiled_dqn
from plastic_mpn.cores import MPN
from plastic_mpn.networks import MPNDQN
from plastic_mpn.replay import Replay
from plastic_mpn.rule import Activation, Plasticity
from plastic_mpn.sequence import activate_in_place, association_scale

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_mpn.environments import Environments


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
    double: bool = True
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


class DQN:
    """A network that learns in environments; `advance` takes one step in each, and the gradient steps that are due."""

    def __init__(
        self, network: MPNDQN, environments: Environments, settings: DQNSettings, seeds: np.random.SeedSequence
    ) -> None:
        self.network = network
        self.environments = environments
        self.settings = settings
        self._project, learning = network.behind_projection()
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
        self.episodes = 0
        self.gradient_steps = 0
        self._losses: float | Tensor = 0.0
        self._losses_counted = 0
        self._owed = 0

    def advance(self) -> None:
        """Act once in every environment, remember it, and learn."""
        environments, replay = self.environments, self.replay
        # What a fixed projection makes of an observation is computed once, not for every batch that it is part of.
        observations = self._project(environments.observations)
        replay.write(observations=observations, starts=environments.starts)
        actions, states = self.update.act(observations, self.states, environments.starts)
        replay.write(states=self.states.numpy(force=True))
        self.states = states
        explores = self.generator.random(environments.count) < self.settings.epsilon(self.episodes)
        if explores.any():
            random = self.generator.integers(environments.action_count, size=environments.count)
            actions = np.where(explores, random, actions)
        happened = environments.step(actions)
        replay.write(
            actions=actions,
            next_observations=self._project(happened.next_observations),
            rewards=happened.rewards,
            terminated=happened.terminated,
            truncated=happened.truncated,
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
        self._owed += self.environments.count
        while self._owed >= settings.train_every:
            self._owed -= settings.train_every
            self._losses += self.update.learn(self.generator)
            self._losses_counted += 1
            self.gradient_steps += 1
            if settings.tau > 0:
                self.update.move_target(settings.tau)

    @property
    def has_learned(self) -> bool:
        """Whether there were gradient steps since the mean loss was last asked for."""
        return self._losses_counted > 0

    def mean_loss(self) -> float:
        """Return the mean loss of the gradient steps since this was last asked; NaN without any."""
        mean = float(self._losses) / self._losses_counted if self._losses_counted else float("nan")
        self._losses, self._losses_counted = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes: network, optimizer, buffer, environments, counters."""
        return {
            "update": self.update.state_dict(),
            "replay": self.replay.state_dict(),
            "environments": self.environments.state_dict(),
            "states": self.states.clone(),
            "finished": [list(episode) for episode in self.finished],
            "unlogged": list(self.unlogged),
            "counters": [self.episodes, self.gradient_steps, self._owed, self._losses_counted],
            "losses": torch.as_tensor(self._losses, dtype=torch.float64, device="cpu"),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.update.load_state_dict(state["update"])
        self.replay.load_state_dict(state["replay"])
        self.environments.load_state_dict(state["environments"])
        self.states = state["states"].to(self.device)
        self.finished = [(float(value), int(length)) for value, length in state["finished"]]
        self.unlogged = [float(value) for value in state["unlogged"]]
        self.episodes, self.gradient_steps, self._owed, self._losses_counted = state["counters"]
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
    """Learn for a number of episodes, or until `total_steps` environment steps have been taken.

    `after_episode` is called with how many episodes have ended.
    """
    run.track(dqn=dqn)

    def spent() -> bool:
        return total_steps is not None and dqn.environments.steps >= total_steps

    for episode in run.steps(episodes, "episode"):
        began, steps = training_clock(), dqn.environments.steps
        while not dqn.finished and not spent():
            dqn.advance()
        run.count_samples(dqn.environments.steps - steps, training_clock() - began)
        if not dqn.finished:
            run.message(f"took the {total_steps} environment steps in {episode} episodes")
            # Leaving the loop skips the checkpoint that its last step makes.
            run.step = episode
            _log_learning(dqn, run)
            run.save_checkpoint()
            break
        dqn.unlogged.append(dqn.finished.pop(0)[0])
        if (episode + 1) % log_every == 0 or episode + 1 == episodes:
            _log_learning(dqn, run)
        if after_episode is not None:
            dqn.update.synchronise()
            after_episode(episode + 1)
    dqn.update.synchronise()


def _log_learning(dqn: DQN, run: Run) -> None:
    """Log what happened since this was last called."""
    if dqn.unlogged:
        run.log("train", None, **{"return": float(np.mean(dqn.unlogged))})
    epsilon = dqn.settings.epsilon(dqn.episodes)
    steps, gradient_steps = dqn.environments.steps, dqn.gradient_steps
    run.log("train", epsilon=epsilon, environment_steps=steps, gradient_steps=gradient_steps)
    if dqn.has_learned:
        run.log("train", loss=dqn.mean_loss())
    dqn.unlogged = []


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
            preferred = self.network(behind, states)[0] if self.settings.double else target_q
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
            preferred = (q if settings.double else target_q)[1:].argmax(dim=-1, keepdim=True)
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


def can_be_compiled(network: MPNDQN, settings: DQNSettings) -> bool:
    """Say whether the compiled update serves: one MPN layer with fixed eta and lambda, stored states, on the CPU."""
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
    """The replay ring as the kernels see it, a row for each transition."""

    x: NDArray[np.float32]
    behind: NDArray[np.float32]
    M: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]


class CompiledUpdate:
    """Acting and learning in compiled kernels: the same numbers as TorchUpdate up to rounding, many times as fast.

    The parameters live in one flat array, W transposed, b, and the head's weights and biases; the network receives them
    when `synchronise` is called.
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
        self._gain = np.float32(float(core.eta) * association_scale(core.plasticity, units, inputs))
        self._decay = np.float32(float(core.lambda_))
        self._association = get_args(Plasticity).index(core.plasticity)
        self._bound = np.float32(core.bound)
        self._activation = get_args(Activation).index(core.activation)
        self._additive = core.interaction == "additive"
        self._replay = replay
        self._rows = Rows(
            *(_rows(part) for part in (replay.observations, replay.next_observations, replay.states.transpose(2, 3))),
            *(_rows(part) for part in (replay.actions, replay.rewards, replay.terminated)),
        )
        batch = settings.batch_size
        self._h = torch.zeros(batch, units)
        self._h_behind = torch.zeros(2, batch, units)
        self._scratch = np.zeros((inputs, units), np.float32)
        self._drive = np.zeros(units, np.float32)
        self._read()
        self.move_target(1.0)

    def act(
        self, observations: NDArray[np.float32], states: Tensor, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions and the new states."""
        count, units, inputs = states.shape
        # States come from here, laid out as the kernels need them; the first ones and loaded ones are brought into it.
        seen = states.transpose(1, 2).contiguous().numpy()
        new = np.empty((count, inputs, units), np.float32)
        best = np.empty(count, np.int64)
        W, b, A, c = self._parameters
        compiled_dqn.act(
            observations, seen, starts, W, b, A, c, self._gain, self._decay, self._association, self._bound,
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
        """Return the mean Huber loss of the chosen transitions and leave its gradient behind."""
        W, b, A, c = self._parameters
        target_W, target_b, target_A, target_c = self._target_parameters
        rows = self._rows
        h, h_behind = self._h.numpy(), self._h_behind.numpy()
        compiled_dqn.sums_before(rows.x, rows.M, chosen, W, b, self._additive, h)
        activate_in_place(self._h, self._core.activation)
        compiled_dqn.sums_behind(
            rows.x, rows.behind, rows.M, chosen, h, W, b, target_W, target_b, self._gain, self._decay,
            self._association, self._bound, self._additive, self._scratch, h_behind,
        )  # fmt: skip
        activate_in_place(self._h_behind, self._core.activation)
        loss: float = compiled_dqn.gradient(
            rows.x, rows.M, chosen, rows.actions, rows.rewards, rows.terminated, h, h_behind, A, c,
            target_A, target_c, self.settings.gamma, self.settings.double, self._activation, self._additive,
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

    def synchronise(self) -> None:
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
        self.synchronise()
        arrays = {"target": self._target, "first": self._first, "second": self._second}
        return {
            "network": self.network.state_dict(),
            "updates": self._updates,
            **{name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._read()
        self._updates = int(state["updates"])
        self._target[:] = state["target"].numpy()
        self._first[:] = state["first"].numpy()
        self._second[:] = state["second"].numpy()


def _rows(ring: Tensor) -> NDArray[Any]:
    """Return the ring as an array with one row for each transition, without a copy."""
    return ring.view(-1, *ring.shape[2:]).numpy()
