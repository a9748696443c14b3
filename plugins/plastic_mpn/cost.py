"""The cost of training a network with a state, by Q-learning, by actor-critic, or supervised.

One step of a layer with n units and an input of d numbers has these operations. Those of the way back are for one step
of backpropagation through time; an error from a later step reaches all steps but the last.

| layer | forward | weights | later step | input |
|---|---|---|---|---|
| mpn, mpn-additive | 2dn + 2dn | 2dn | 2dn | 2dn, and 2dn from the later step |
| mpn-pre, mpn-post, mpn-frozen | 2dn | 2dn | 0 | 2dn |
| rnn, gru, lstm with g = 1, 3, 4 | 2g(dn + nn) | 2g(dn + nn) | 2gnn | 2gdn |
| linear | 2dn | 2dn | 0 | 2dn |

mpn has the product (W * (M + 1)) x and the outer product h x^T of the change of M. The way back has the outer product
of the error and x, the product of the error of M and x, and for the input the transposed ones. The gradients of eta and
lambda are single numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from plastic_cli.analysis.cost import Cost, TrainedRun, count_of, samples_of
from plastic_mpn.config import Train
from plastic_mpn.environments.vector import make_environment
from plastic_mpn.make import environment_options, sizes
from plastic_mpn.networks.agents import HEAD_DIM

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
BIASES = {"rnn": 2, "gru": 6, "lstm": 8}
"""Biases of each unit: torch has one for the input and one for the state of each gate."""


@dataclass(frozen=True)
class StepLayer:
    """One layer at one time step.

    inputs, responses: numbers that it receives and computes. weights, biases: numbers of its parameters. state: numbers
    that it keeps from step to step. forward: operations. of_weights, of_later, of_input, of_later_input: operations of
    the way back, see the module.
    """

    inputs: int
    responses: int
    weights: int
    biases: int
    state: int
    forward: int
    of_weights: int
    of_later: int
    of_input: int
    of_later_input: int = 0

    @property
    def held(self) -> int:
        """Numbers that the way back through one step needs."""
        return self.inputs + self.responses + self.state


@dataclass(frozen=True)
class Agent:
    """The layers of a network. projection: operations of the fixed projection of its input; fixed: its numbers."""

    core: tuple[StepLayer, ...]
    heads: tuple[StepLayer, ...]
    projection: int = 0
    fixed: int = 0

    @property
    def layers(self) -> tuple[StepLayer, ...]:
        """The layers of the core and the heads."""
        return (*self.core, *self.heads)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(layer.weights + layer.biases for layer in self.layers)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def state(self) -> int:
        """Numbers of the state of one environment or trial."""
        return sum(layer.state for layer in self.core)

    @property
    def forward(self) -> int:
        """Operations of one step, without the projection of its input."""
        return sum(layer.forward for layer in self.layers)

    def backward(self, steps: int, answers: int | None = None) -> int:
        """Return the operations of the way back through `steps` steps. answers: steps of the heads; None: all."""
        core = sum(
            steps * (layer.of_weights + (layer.of_input if number else 0))
            + (steps - 1) * (layer.of_later + (layer.of_later_input if number else 0))
            for number, layer in enumerate(self.core)
        )
        heads = sum(layer.of_weights + layer.of_input for layer in self.heads)
        return core + (steps if answers is None else answers) * heads

    def messages(self, steps: int, answers: int | None = None) -> int:
        """Return the messages to the hidden layers: the errors of the next layer in each step, not those in time."""
        answers = steps if answers is None else answers
        between = steps * sum(layer.responses for layer in self.core[1:])
        return between + answers * sum(layer.responses for layer in self.heads)

    def held(self, steps: int, answers: int | None = None) -> int:
        """Return the numbers that the way back through `steps` steps needs."""
        of_heads = sum(layer.held for layer in self.heads)
        return steps * sum(layer.held for layer in self.core) + (steps if answers is None else answers) * of_heads


def linear(inputs: int, units: int, *, bias: bool = True) -> StepLayer:
    """Return a linear layer without a state."""
    product = 2 * inputs * units
    return StepLayer(inputs, units, inputs * units, units if bias else 0, 0, product, product, 0, product)


def core_layers(config: Train, inputs: int) -> tuple[StepLayer, ...]:
    """Return the layers of a core that receives `inputs` numbers; a layer of the core mlp is two linear layers."""
    n, found = config.hidden, []
    for number in range(config.layers):
        d = n if number else inputs
        weights, product = n * d, 2 * n * d
        bias = n if config.bias else 0
        if config.core == "mlp":
            found += [linear(d, n), linear(n, n)]
        elif config.core in GATES:
            gates = GATES[config.core]
            whole, recurrent = 2 * gates * (weights + n * n), 2 * gates * n * n
            state = 2 * n if config.core == "lstm" else n
            found.append(
                StepLayer(
                    *(d, gates * n, gates * (weights + n * n), BIASES[config.core] * n, state),
                    *(whole, whole, recurrent, gates * product),
                )
            )
        elif config.core in ("mpn", "mpn-additive"):
            found.append(StepLayer(d, n, weights, bias, weights, 2 * product, *[product] * 4))
        else:
            state = 0 if config.core == "mpn-frozen" else weights
            found.append(StepLayer(d, n, weights, bias, state, product, product, 0, product))
    return tuple(found)


def agent_of(config: Train, observation: int, outputs: int) -> Agent:
    """Return the network of a configuration for observations and outputs of these sizes."""
    projected = config.input_projection
    core = core_layers(config, projected or observation)
    heads: Sequence[StepLayer] = (linear(config.hidden, outputs, bias=config.algorithm != "supervised"),)
    if config.algorithm == "a2c":
        # The policy and the value read the same layer.
        heads = (linear(config.hidden, HEAD_DIM), linear(HEAD_DIM, outputs + 1))
    return Agent(core, tuple(heads), 2 * projected * observation, projected * (observation + 1))


def cost(record: TrainedRun) -> Cost:
    """Return the cost of the training of a run, without its evaluations.

    A sample is a step of an environment, or a trial. Raises UserError if the environment cannot be made.
    """
    config = Train.from_values(record.config, source="the run")
    if config.algorithm == "supervised":
        return supervised_cost(record, config)
    agent = agent_of(config, *_sizes(config.env, config.env_options))
    return dqn_cost(record, config, agent) if config.algorithm == "dqn" else a2c_cost(record, config, agent)


def dqn_cost(record: TrainedRun, config: Train, agent: Agent) -> Cost:
    """Return the cost of Q-learning, whose gradient steps are those that the run counted.

    A gradient step computes the values of each transition, those of its next observation by the target network and, in
    double Q-learning, by the network itself. A sequence has one more observation than transitions, and both networks
    pass through its burn-in. The buffer keeps the projected observations before and after each transition, and a state.
    """
    samples, steps = samples_of(record), count_of(record, "train/gradient_steps")
    if config.replay == "sequences":
        length = config.sequence_length
        batch = max(1, config.batch_size // length)
        passes = 2 * (config.burn_in + length + 1)
    else:
        length, batch = 1, config.batch_size
        passes = 3 if config.double_q else 2
    slots = max(1, config.buffer_size // config.num_envs) * config.num_envs
    buffer = slots * (2 * agent.core[0].inputs + agent.state)
    kept = 4 * agent.parameters + agent.fixed + buffer + config.num_envs * agent.state
    return Cost(
        samples=samples,
        inference_flops=samples * (agent.projection + agent.forward),
        learning_flops=steps * batch * (passes * agent.forward + agent.backward(length)),
        messages=steps * batch * agent.messages(length),
        updates=steps * agent.weights,
        state_bytes=4 * kept,
        step_bytes=4 * (batch * agent.held(length) + agent.parameters),
    )


def a2c_cost(record: TrainedRun, config: Train, agent: Agent) -> Cost:
    """Return the cost of actor-critic: each update passes the rollout once more, with one more value at its end."""
    samples, environments, rollout = samples_of(record), config.num_envs, config.rollout
    updates = samples // (environments * rollout)
    forward = agent.projection + agent.forward
    learning = (rollout + 1) * forward + agent.backward(rollout)
    return Cost(
        samples=samples,
        inference_flops=samples * forward,
        learning_flops=updates * environments * learning,
        messages=updates * environments * agent.messages(rollout),
        updates=updates * agent.weights,
        state_bytes=4 * (3 * agent.parameters + agent.fixed + environments * agent.state),
        step_bytes=4 * (environments * agent.held(rollout) + agent.parameters),
    )


def supervised_cost(record: TrainedRun, config: Train) -> Cost:
    """Return the cost of supervised learning: backpropagation through a whole trial, with an answer at its end."""
    steps, dimension, classes = _trial(config.env, tuple(sorted(environment_options(config, 0).items())))
    agent, samples = agent_of(config, dimension, classes), samples_of(record)
    head = agent.heads[0]
    forward = steps * (agent.projection + agent.forward - head.forward) + head.forward
    learned, held, learning, messages = (
        agent.weights,
        agent.held(steps, 1),
        agent.backward(steps, 1),
        agent.messages(steps, 1),
    )
    parameters = agent.parameters
    if config.readout_only:
        learned = parameters = head.weights
        held, learning, messages = head.held, head.of_weights, 0
    return Cost(
        samples=samples,
        inference_flops=samples * forward,
        learning_flops=samples * learning,
        messages=samples * messages,
        updates=samples // config.batch_size * learned,
        state_bytes=4 * (agent.parameters + 2 * parameters + agent.fixed),
        step_bytes=4 * (config.batch_size * held + parameters),
    )


@cache
def _sizes(env: str, options: tuple[str, ...]) -> tuple[int, int]:
    """Return the size of an observation and the number of actions."""
    from plastic_mpn.environments.options import read_options

    return sizes(make_environment(env, options=read_options(options)))


@cache
def _trial(env: str, options: tuple[tuple[str, Any], ...]) -> tuple[int, int, int]:
    """Return the steps of a trial, the size of its input and the number of classes."""
    task = make_environment(env, options=dict(options)).unwrapped.task  # type: ignore[attr-defined]
    return task.steps, task.dimension, task.classes
