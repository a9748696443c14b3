"""Speed of Q-learning with an MPN on CartPole-v1: environment steps per second of the whole loop, and its parts.

The plain program is a simple implementation: one environment, one Python step at a time, a list of tuples as buffer,
and one gradient step on a batch of 64 per environment step. Our program takes as many gradient steps per environment
step, with the same batch size. Both are measured alternately in the same process, and ratios are those of one round.

    OMP_NUM_THREADS=1 python benchmarks/mpn.py [--json] [--repeats 7] [--seconds 1]
"""

import argparse
import copy
import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from plastic_mpn.environments.vector import Environments
from plastic_mpn.learning.dqn import DQN
from plastic_mpn.learning.dqn_update import DQNSettings, TorchUpdate
from plastic_mpn.networks.agents import MPNDQN
from plastic_mpn.networks.sequence import mpn_sequence, mpn_sequence_by_steps

HIDDEN, ETA, LAMBDA, GAMMA, BATCH = 64, 0.05, 0.9, 0.99, 64

Measure = Callable[[int], None]
"""Runs an operation a given number of times."""


class PlainNetwork(nn.Module):
    """The MPN with a linear head, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(HIDDEN, 4) / 2)
        self.b = nn.Parameter(torch.zeros(HIDDEN))
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q-values and the new M."""
        h = torch.tanh(torch.einsum("bij,bj->bi", self.W * (M + 1), x) + self.b)
        return self.head(h), LAMBDA * M + ETA * torch.einsum("bi,bj->bij", h, x)


class PlainProgram:
    """A simple implementation of Q-learning."""

    def __init__(self) -> None:
        self.environment = gymnasium.make("CartPole-v1")
        self.network = PlainNetwork()
        self.target = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.buffer: deque[Any] = deque(maxlen=10_000)
        self.epsilon = 1.0
        self.begin()

    def begin(self) -> None:
        """Begin an episode."""
        self.observation = torch.as_tensor(self.environment.reset()[0])
        self.M = torch.zeros(1, HIDDEN, 4)
        self.epsilon = max(0.01, 0.995 * self.epsilon)

    def steps(self, count: int) -> None:
        """Take steps in the environment, each with a gradient step."""
        for _ in range(count):
            with torch.no_grad():
                q, M = self.network(self.observation[None], self.M)
            action = random.randrange(2) if random.random() < self.epsilon else int(q.argmax())
            seen, reward, terminated, truncated, _ = self.environment.step(action)
            following = torch.as_tensor(seen)
            self.buffer.append((self.observation, self.M, action, float(reward), following, M, float(terminated)))
            self.observation, self.M = following, M
            if terminated or truncated:
                self.begin()
            if len(self.buffer) >= BATCH:
                self.learn()

    def learn(self) -> None:
        """Take one gradient step."""
        x, M, actions, rewards, following, new_M, terminated = zip(*random.sample(self.buffer, BATCH), strict=True)
        q = self.network(torch.stack(x), torch.cat(M))[0]
        taken = q.gather(1, torch.tensor(actions)[:, None]).squeeze(1)
        with torch.no_grad():
            seen, state = torch.stack(following), torch.cat(new_M)
            best = self.network(seen, state)[0].argmax(1, keepdim=True)
            value = self.target(seen, state)[0].gather(1, best).squeeze(1)
            wanted = torch.tensor(rewards) + GAMMA * (1 - torch.tensor(terminated)) * value
        loss = nn.functional.smooth_l1_loss(taken, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()


def ours(core: str = "mpn", num_envs: int = 1, **settings: Any) -> DQN:
    """Return our learner, with as many transitions in its buffer as the plain program."""
    network = MPNDQN(4, HIDDEN, 2, core=core, eta=ETA, lambda_decay=LAMBDA, generator=torch.Generator().manual_seed(0))
    environments = Environments("CartPole-v1", num_envs, np.random.SeedSequence(0))
    return DQN(network, environments, DQNSettings(gamma=GAMMA, batch_size=BATCH, **settings), np.random.SeedSequence(1))


def loop(dqn: DQN) -> Measure:
    """Return a function that takes environment steps with their gradient steps."""

    def steps(count: int) -> None:
        for _ in range(count // dqn.environments.count):
            dqn.advance()

    return steps


def cases() -> dict[str, Measure]:
    """Return the measured loops, counted in environment steps."""
    plain_torch = ours()
    plain_torch.update = TorchUpdate(plain_torch.network, plain_torch.replay, plain_torch.settings)
    return {
        "plain program": PlainProgram().steps,
        "mpn": loop(ours()),
        "mpn, 8 environments": loop(ours(num_envs=8)),
        "mpn, 32 environments": loop(ours(num_envs=32)),
        "mpn, without the compiled update": loop(plain_torch),
        "mpn, sequences": loop(ours(replay="sequences")),
        "mpn-frozen": loop(ours("mpn-frozen")),
        "gru": loop(ours("gru")),
        "lstm": loop(ours("lstm")),
        "mlp": loop(ours("mlp")),
    }


def parts() -> dict[str, Measure]:
    """Return the parts of one environment step of our program, each on a separate learner."""
    acting, remembering, learning = ours(), ours(), ours()
    for dqn in (acting, remembering, learning):
        loop(dqn)(1000)
    environments = ours().environments
    actions = np.random.default_rng(0).integers(2, size=(4096, 1))
    turn = iter(range(10**12))

    def repeat(action: Callable[[], Any]) -> Measure:
        def times(count: int) -> None:
            for _ in range(count):
                action()

        return times

    def remember() -> None:
        seen, replay = remembering.environments, remembering.replay
        replay.write(observations=seen.observations, starts=seen.starts, states=remembering.states.numpy())
        replay.write(actions=actions[0], next_observations=seen.observations, rewards=actions[0])
        replay.write(terminated=seen.starts, truncated=seen.starts)
        replay.advance()

    seen = acting.environments
    return {
        "gradient step": repeat(lambda: learning.update.learn(learning.generator)),
        "environment, random actions": repeat(lambda: environments.step(actions[next(turn) % 4096])),
        "action": repeat(lambda: acting.update.act(seen.observations, acting.states, seen.starts)),
        "remembering": repeat(remember),
    }


def sequences(steps: int, batch: int, inputs: int, units: int) -> dict[str, Measure]:
    """Return the forward and backward pass through a sequence, compiled and step by step."""
    x, M = torch.randn(steps, batch, inputs), torch.zeros(batch, units, inputs)
    W = (torch.randn(units, inputs) / inputs**0.5).requires_grad_()
    b, eta, lambda_ = (torch.full(shape, 0.1, requires_grad=True) for shape in ((units,), (), ()))

    def with_gradient(function: Callable[..., Any]) -> Measure:
        def times(count: int) -> None:
            for _ in range(count):
                function(x, M, None, W, b, eta, lambda_)[0].sum().backward()

        return times

    return {"step by step": with_gradient(mpn_sequence_by_steps), "compiled": with_gradient(mpn_sequence)}


def seconds_each(measure: Measure, seconds: float) -> float:
    """Return the time of one repetition, measured over about `seconds`."""
    count = 64
    while True:
        began = time.perf_counter()
        measure(count)
        spent = time.perf_counter() - began
        if spent >= seconds / 2:
            return spent / count
        count = max(2 * count, int(count * seconds / max(spent, 1e-6)) // 64 * 64)


def in_turns(measures: dict[str, Measure], floor: str, repeats: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Measure all alternately; return median seconds, and quartiles of the speed relative to `floor`, by name."""
    for measure in measures.values():
        measure(1000 if seconds >= 0.5 else 64)
    turns = [{name: seconds_each(measure, seconds) for name, measure in measures.items()} for _ in range(repeats)]
    rows = {}
    for name in measures:
        ratios = [turn[floor] / turn[name] for turn in turns]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows[name] = {
            "seconds": statistics.median(turn[name] for turn in turns),
            "times_as_fast": statistics.median(ratios),
            "quartiles": [quartiles[0], quartiles[2]],
        }
    return rows


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    tables = {
        "whole loop, per environment step": in_turns(cases(), "plain program", options.repeats, options.seconds),
        "parts of `mpn`": in_turns(parts(), "gradient step", options.repeats, options.seconds / 4),
    }
    for shape in ((20, 64, 50, 100), (50, 16, 4, 128), (100, 32, 10, 100)):
        title = "sequence with gradient, {} steps, batch {}, {} inputs, {} units".format(*shape)
        tables[title] = in_turns(sequences(*shape), "step by step", options.repeats, options.seconds / 4)
    if options.json:
        print(json.dumps(tables))
        return
    for title, rows in tables.items():
        print(f"\n{title}\n{'':34}{'per second':>12}{'us':>10}{'times as fast':>15}{'quartiles':>18}")
        for name, row in rows.items():
            low, high = row["quartiles"]
            print(
                f"{name:34}{1 / row['seconds']:12,.0f}{1e6 * row['seconds']:10.1f}{row['times_as_fast']:15.2f}"
                f"{f'{low:.2f} to {high:.2f}':>18}"
            )


if __name__ == "__main__":
    main()
