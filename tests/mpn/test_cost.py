"""What training a network with a state costs, counted by hand and compared with the operations that torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plastic_cli.analysis.cost import cost_of
from plastic_cli.runs.record import RunRecord
from plastic_mpn.config import Train
from plastic_mpn.cost import agent_of
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Readout


def price(samples, summary=None, **options):
    run = RunRecord("run", "mpn", 0, options, status="completed", summary=summary or {}, speed={"samples": samples})
    found = cost_of(run)
    assert found is not None
    return found


# CartPole has 4 observations and 2 actions. 5 hidden units have 20 weights and 5 biases, their readout 10 and 2.
def test_q_learning_from_stored_states():
    cost = price(100, {"train/gradient_steps": 30}, hidden=5, batch_size=8, buffer_size=50)
    # The product with W * (M + 1), the change of M, and the head.
    forward = 2 * 20 + 2 * 20 + 2 * 10
    assert cost.samples == 100
    assert cost.inference_flops == 100 * forward
    # Three passes; the change of the core, of the head, and the error of the hidden units. No way back in time.
    assert cost.learning_flops == 30 * 8 * (3 * forward + 2 * 20 + 2 * 10 + 2 * 10)
    # The errors of two actions.
    assert cost.messages == 30 * 8 * 2
    assert cost.updates == 30 * 30
    # The network, its target, two moments; a buffer of 50 with two observations and a state M; the state.
    assert cost.state_bytes == 4 * (4 * 37 + 50 * (2 * 4 + 20) + 20)
    # Input, activity and M of the core, input and output of the head.
    assert cost.step_bytes == 4 * (8 * (4 + 5 + 20 + 5 + 2) + 37)


def test_single_q_learning_has_two_passes():
    double, single = (
        price(100, {"train/gradient_steps": 30}, hidden=5, batch_size=8, double_q=value) for value in (True, False)
    )
    assert double.learning_flops - single.learning_flops == 30 * 8 * 100


def test_q_learning_from_sequences():
    options = {"replay": "sequences", "sequence_length": 4, "burn_in": 3, "batch_size": 8}
    cost = price(100, {"train/gradient_steps": 30}, hidden=5, **options)
    # Two sequences. Both networks pass 3 + 5 observations; 4 steps back, 3 of which lead to an earlier step.
    back = 4 * (2 * 20 + 2 * 10 + 2 * 10) + 3 * 2 * 20
    assert cost.learning_flops == 30 * 2 * (2 * 8 * 100 + back)
    assert cost.messages == 30 * 2 * 4 * 2


def test_actor_critic():
    options = {"env": "CartPole-v1", "hidden": 5, "input_projection": 0, "rollout": 10, "num_envs": 2}
    cost = price(100, algorithm="a2c", **options)
    # 64 units between the core and 2 actions and a value.
    heads = 5 * 64 + 64 * 3
    forward = 4 * 20 + 2 * heads
    assert cost.inference_flops == 100 * forward
    back = 10 * (2 * 20 + 4 * heads) + 9 * 2 * 20
    # 5 updates of 2 environments: the rollout once more, the value of the last observation, and the way back.
    assert cost.learning_flops == 5 * 2 * (11 * forward + back)
    # The core gets 64 errors, the layer of 64 units gets 3.
    assert cost.messages == 100 * (64 + 3)
    assert cost.updates == 5 * (20 + heads)
    parameters = 20 + 5 + heads + 64 + 3
    assert cost.state_bytes == 4 * (3 * parameters + 2 * 20)
    held = 10 * (4 + 5 + 20 + 5 + 64 + 64 + 3)
    assert cost.step_bytes == 4 * (2 * held + parameters)


def test_a_fixed_projection_is_no_parameter():
    plain = price(100, algorithm="a2c", env="CartPole-v1", hidden=5, input_projection=0, rollout=10, num_envs=2)
    cost = price(100, algorithm="a2c", env="CartPole-v1", hidden=5, input_projection=4, rollout=10, num_envs=2)
    assert cost.inference_flops - plain.inference_flops == 100 * 2 * 4 * 4
    assert cost.learning_flops - plain.learning_flops == 5 * 2 * 11 * 2 * 4 * 4
    assert cost.state_bytes - plain.state_bytes == 4 * (4 * 4 + 4)
    assert (cost.updates, cost.messages) == (plain.updates, plain.messages)


def supervised(**options):
    """Of 3 batches of 4 trials with 6 steps. 50 numbers of input give the core 250 weights; the readout has 10."""
    return price(12, algorithm="supervised", hidden=5, steps=6, batch_size=4, **options)


def test_supervised_learning_answers_at_the_end_of_a_trial():
    cost = supervised()
    assert cost.inference_flops == 12 * (6 * 4 * 250 + 2 * 10)
    assert cost.learning_flops == 12 * (6 * 2 * 250 + 5 * 2 * 250 + 2 * 2 * 10)
    assert cost.messages == 12 * 2
    assert cost.updates == 3 * 260
    assert cost.state_bytes == 4 * 3 * 260
    assert cost.step_bytes == 4 * (4 * (6 * (50 + 5 + 250) + 5 + 2) + 260)


def test_a_readout_on_a_random_core():
    cost = supervised(readout_only=True)
    assert cost.learning_flops == 12 * 2 * 10
    assert cost.messages == 0
    assert cost.updates == 3 * 10
    assert cost.state_bytes == 4 * (260 + 2 * 10)
    assert cost.step_bytes == 4 * (4 * 7 + 10)


@pytest.mark.parametrize(
    ("core", "forward", "back", "state"),
    [
        ("mpn", 4 * 250, 6 * 2 * 250 + 5 * 2 * 250, 250),
        ("mpn-additive", 4 * 250, 6 * 2 * 250 + 5 * 2 * 250, 250),
        ("mpn-pre", 2 * 250, 6 * 2 * 250, 250),
        ("mpn-post", 2 * 250, 6 * 2 * 250, 250),
        ("mpn-frozen", 2 * 250, 6 * 2 * 250, 0),
        ("rnn", 2 * 275, 6 * 2 * 275 + 5 * 2 * 25, 5),
        ("gru", 3 * 2 * 275, 6 * 3 * 2 * 275 + 5 * 3 * 2 * 25, 5),
        ("lstm", 4 * 2 * 275, 6 * 4 * 2 * 275 + 5 * 4 * 2 * 25, 10),
    ],
)
def test_cores(core, forward, back, state):
    cost = supervised(core=core)
    assert cost.inference_flops == 12 * (6 * forward + 2 * 10)
    assert cost.learning_flops == 12 * (back + 2 * 2 * 10)
    gates = {"gru": 3, "lstm": 4}.get(core, 1)
    assert cost.step_bytes - cost.state_bytes // 3 == 4 * 4 * (6 * (50 + 5 * gates + state) + 7)


@pytest.mark.parametrize("core", ["rnn", "gru", "lstm", "mlp", "mpn", "mpn-additive"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("algorithm", ["dqn", "a2c", "supervised"])
def test_parameters_and_operations_are_those_of_the_network(core, layers, algorithm):
    config = Train.from_values(
        {"core": core, "hidden": 5, "algorithm": algorithm, "input_projection": 0, "layers": layers}
    )
    made = {"dqn": MPNDQN, "a2c": ActorCritic, "supervised": Readout}[algorithm]
    options = {"bias": config.bias} if core.startswith("mpn") else {}
    network = made(7, 5, 3, core=core, layers=layers, **options)
    agent = agent_of(config, 7, 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == agent.parameters
    assert network.init_state(1).numel() == agent.state
    steps, batch = 4, 2
    with FlopCounterMode(display=False) as forward:
        state, answers = network.init_state(batch), []
        for x in torch.randn(steps, batch, 7):
            answer, state = network(x, state)
            answers += [*answer] if isinstance(answer, tuple) else [answer]
    assert forward.get_total_flops() == batch * steps * agent.forward
    with FlopCounterMode(display=False) as back:
        sum(answer.sum() for answer in answers).backward()
    expected = batch * agent.backward(steps)
    if core.startswith("mpn"):
        # torch multiplies x by W and by W * M or M, and leaves the change of M to products of single numbers. So it
        # counts two changes and two errors of the input in each step, also where there is no later one.
        per_layer = [2 * layer.weights for layer in agent.core]
        first = 0 if core == "mpn-additive" else sum(per_layer)
        expected += batch * (first + sum(per_layer[1:]))
    assert back.get_total_flops() == expected
