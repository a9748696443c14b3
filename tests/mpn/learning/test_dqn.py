"""Q-learning in torch and in kernels against calculations in float64 and each other, and resumed runs."""

import copy
import io
import itertools
import math
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.testing import interrupted_after, plastic, training_numbers
from plastic_mpn.environments.greedy import GreedyEpisodes, evaluation_seeds
from plastic_mpn.environments.vector import Environments
from plastic_mpn.kernels import dqn as compiled_dqn
from plastic_mpn.learning.checkpoints import Checkpoints
from plastic_mpn.learning.dqn import DQN, train_dqn
from plastic_mpn.learning.dqn_compiled import CompiledUpdate, can_be_compiled
from plastic_mpn.learning.dqn_update import DQNSettings, TorchUpdate
from plastic_mpn.learning.replay import Replay
from plastic_mpn.networks.agents import MPNDQN

ACTIVATIONS = ["tanh", "relu", "sigmoid", "linear"]
PLASTIC = ["mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen"]
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda a: a}
PARAMETERS = ("core.W", "core.b", "head.weight", "head.bias")
SLOTS, COUNT, INPUTS, UNITS, ACTIONS = 30, 2, 3, 6, 3


def make_network(core="mpn", seed=0, **options):
    """3 inputs, 6 units, 3 actions, in float32; biases and all weights drawn."""
    generator = torch.Generator().manual_seed(seed)
    plasticity = {"eta": 0.3, "lambda_decay": 0.8} if core in PLASTIC else {}
    network = MPNDQN(INPUTS, UNITS, ACTIONS, core=core, generator=generator, **{**plasticity, **options})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def random_replay(state_shape, seed=0, episode_ends=0.5):
    """A full buffer of steps of two environments; errors are on both sides of the Huber threshold."""
    generator = np.random.default_rng(seed)
    replay = Replay(SLOTS * COUNT, COUNT, INPUTS, state_shape)
    starts = np.ones(COUNT, bool)
    observations = generator.normal(size=(COUNT, INPUTS))
    for _ in range(SLOTS + 4):
        following = generator.normal(size=(COUNT, INPUTS))
        terminated = generator.random(COUNT) < episode_ends / 2
        truncated = generator.random(COUNT) < episode_ends / 2
        replay.write(
            observations=observations,
            next_observations=following,
            states=generator.normal(size=(COUNT, *state_shape)),
            actions=generator.integers(ACTIONS, size=COUNT),
            rewards=1.5 * generator.normal(size=COUNT),
            terminated=terminated,
            truncated=truncated,
            starts=starts,
        )
        replay.advance()
        starts = terminated | truncated
        observations = np.where(starts[:, None], generator.normal(size=(COUNT, INPUTS)), following)
    return replay


def float64_parameters(network):
    return {name: part.detach().double().requires_grad_() for name, part in network.named_parameters()}


def one_step(parameters, layer, x, M):
    """(Q, M') of one sample in float64, from the equations of the variant of `layer`."""
    W, b, A, c = (parameters[name] for name in PARAMETERS)
    eta = parameters.get("core.eta", layer.eta.double())
    lambda_ = parameters.get("core.lambda_", layer.lambda_.double())
    effective = W + M if layer.variant.interaction == "additive" else W * (1 + M)
    h = FUNCTIONS[layer.variant.activation](effective @ x + b)
    associated = {
        "hebbian": torch.outer(h, x),
        "pre": torch.outer(torch.ones_like(h), x) / math.sqrt(len(h)),
        "post": torch.outer(h, torch.ones_like(x)) / math.sqrt(len(x)),
    }[layer.variant.plasticity]
    return A @ h + c, lambda_ * M + eta * associated


def huber(error):
    return 0.5 * error**2 if float(error.detach().abs()) <= 1 else error.abs() - 0.5


def loss_by_hand(network, target, replay, chosen, gamma, double):
    """The mean Huber loss, its gradients by name, and the errors, transition by transition in float64."""
    parameters, frozen = float64_parameters(network), float64_parameters(target)
    layer = network.core
    errors = []
    for row in chosen.tolist():
        slot, environment = divmod(row, replay.count)

        def stored(name, place=(slot, environment)):
            return getattr(replay, name)[place].double()

        q, behind = one_step(parameters, layer, stored("observations"), stored("states"))
        behind = behind.detach()
        following = stored("next_observations")
        target_q = one_step(frozen, layer, following, behind)[0].detach()
        own_q = one_step(parameters, layer, following, behind)[0].detach()
        best = int((own_q if double else target_q).argmax())
        wanted = stored("rewards")
        if not replay.terminated[slot, environment]:
            wanted = wanted + gamma * target_q[best]
        errors.append(q[replay.actions[slot, environment]] - wanted)
    loss = sum(huber(error) for error in errors) / len(errors)
    loss.backward()
    return (
        float(loss.detach()),
        {name: parameters[name].grad for name in PARAMETERS},
        [float(error.detach()) for error in errors],
    )


def torch_update(network, target, replay, /, **changes):
    update = TorchUpdate(network, replay, DQNSettings(**changes))
    update.target.load_state_dict(target.state_dict())
    return update


def compiled_update(network, target, replay, /, **changes):
    """An update whose target is the given network; its own parameters are then replaced."""
    update = CompiledUpdate(copy.deepcopy(target), replay, DQNSettings(**changes))
    state = update.state_dict()
    update.load_state_dict({**state, "network": network.state_dict()})
    return update


def compiled_gradients(update):
    dW, db, dA, dc = (part.copy() for part in update._parameter_gradients)
    return dict(zip(PARAMETERS, (dW.T, db, dA, dc), strict=True))


class Corridor(gym.Env):
    """At most ten steps. The first two inputs show which action is rewarded. The other inputs are 1 and noise."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=10, render_mode=None):
        self.length, self.render_mode = length, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign, self.time = float(self.np_random.choice([-1, 1])), 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        reward = 1.0 if (action == 1) == (self.sign > 0) else -1.0
        ended = self.time >= self.length or (self.time > 3 and self.np_random.random() < 0.1)
        return self._observe(), reward, bool(ended), False, {}

    def _observe(self):
        shown = self.sign if self.time < 2 else 0.0
        return np.array([shown, 1, self.np_random.uniform(-1, 1)], np.float32)


CORRIDOR = "plastic-tests/Corridor-v0"


@pytest.fixture(autouse=True)
def corridor():
    """Register the environment while a test runs."""
    gym.register(CORRIDOR, Corridor)
    yield
    del gym.registry[CORRIDOR]


def make_dqn(core="mpn", count=2, seed=0, max_steps=8, hidden=UNITS, **changes):
    environments = Environments(CORRIDOR, count, seed_sequence(seed, "environments"), max_steps=max_steps)
    plasticity = {"eta": 0.3, "lambda_decay": 0.8} if core in PLASTIC else {}
    network = MPNDQN(3, hidden, 2, core=core, generator=torch.Generator().manual_seed(seed), **plasticity)
    quick = {"batch_size": 8, "learning_starts": 16, "buffer_size": 60, "learning_rate": 1e-2}
    quick |= {"tau": 0.0, "target_every": 3}
    return DQN(network, environments, DQNSettings(**{**quick, **changes}), seed_sequence(seed, "exploration"))


# ------------------------------------------------------------------------------------------------- loss and gradient


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize(("core", "activation"), list(itertools.product(PLASTIC, ACTIVATIONS)))
def test_loss_and_gradient_equal_a_calculation_by_hand(core, activation, double):
    network, target = make_network(core, 1, activation=activation), make_network(core, 2, activation=activation)
    replay = random_replay(network.core.state_shape)
    chosen = np.array([3, 0, 17, 41, 59, 3, *range(20, 40)])
    loss, gradients, errors = loss_by_hand(network, target, replay, chosen, 0.9, double)
    assert min(map(abs, errors)) < 0.9, "below Huber's bend"
    assert max(map(abs, errors)) > 1.1, "and above"
    assert 0 < int(replay.terminated.flatten()[torch.from_numpy(chosen)].sum()) < len(chosen)

    plain = torch_update(network, target, replay, gamma=0.9, double_q=double)
    found = plain.loss_of_states(chosen)
    found.backward()
    assert float(found.detach()) == pytest.approx(loss, rel=1e-5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), gradients[name], rtol=1e-4, atol=1e-6, msg=name)

    compiled = compiled_update(network, target, replay, gamma=0.9, double_q=double, batch_size=len(chosen))
    assert compiled.loss_and_gradient(chosen) == pytest.approx(loss, rel=1e-5)
    for name, gradient in compiled_gradients(compiled).items():
        np.testing.assert_allclose(gradient, gradients[name], rtol=1e-4, atol=1e-6, err_msg=name)
    # A second batch does not add to the first.
    compiled.loss_and_gradient(chosen[::-1].copy())
    np.testing.assert_allclose(compiled_gradients(compiled)["core.W"], gradients["core.W"], rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.floats(0, 1),
    double=st.booleans(),
    batch=st.integers(1, 20),
    bound=st.sampled_from([math.inf, 0.1]),
)
def test_the_two_updates_agree(seed, gamma, double, batch, bound):
    network, target = make_network(seed=seed, bound=bound), make_network(seed=seed + 1, bound=bound)
    replay = random_replay(network.core.state_shape, seed)
    chosen = replay.sample(batch, np.random.default_rng(seed))
    compiled = compiled_update(network, target, replay, gamma=gamma, double_q=double, batch_size=batch)
    plain = torch_update(network, target, replay, gamma=gamma, double_q=double)
    loss = plain.loss_of_states(chosen)
    loss.backward()
    assert compiled.loss_and_gradient(chosen) == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    for name, gradient in compiled_gradients(compiled).items():
        wanted = dict(network.named_parameters())[name].grad
        np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("make_update", [torch_update, compiled_update])
def test_termination_truncation_and_gamma_in_the_next_value(make_update):
    """With gamma 0 and at terminal states the target is the reward; truncation has no effect."""
    network, target = make_network(seed=1), make_network(seed=2)
    chosen = np.arange(30)

    def loss(gamma=0.9, **flags):
        replay = random_replay(network.core.state_shape)
        for name, value in flags.items():
            getattr(replay, name).fill_(value)
        update = make_update(network, target, replay, gamma=gamma, batch_size=30)
        if isinstance(update, CompiledUpdate):
            return update.loss_and_gradient(chosen)
        return float(update.loss_of_states(chosen).detach())

    only_rewards = loss(terminated=True)
    assert loss(gamma=0.0) == pytest.approx(only_rewards, rel=1e-6)
    assert loss(terminated=False) != pytest.approx(only_rewards, rel=1e-2)
    assert loss(truncated=True) == loss(truncated=False) == loss()
    assert loss(next_observations=0.3) != pytest.approx(loss(), rel=1e-3)


def test_with_equal_networks_double_q_learning_is_plain():
    network = make_network()
    replay = random_replay(network.core.state_shape)
    chosen = np.arange(30)

    def losses(target):
        updates = [torch_update(network, target, replay, double_q=double) for double in (False, True)]
        return [float(update.loss_of_states(chosen).detach()) for update in updates]

    plain, double = losses(network)
    assert plain == double
    plain, double = losses(make_network(seed=5))
    assert plain != pytest.approx(double, rel=1e-4)


# ----------------------------------------------------------------------------------------------------------- sequences


def sequences_by_hand(network, target, seen, gamma, double, burn_in, length):
    """The loss of sequences and its gradients, sample by sample and step by step in float64."""
    parameters, frozen = float64_parameters(network), float64_parameters(target)
    layer = network.core
    total, counted = 0.0, 0
    for sample in range(seen.actions.shape[1]):
        states = {"own": seen.state[sample].double(), "target": seen.state[sample].double()}
        q = {"own": [], "target": []}
        for step in range(burn_in + length + 1):
            for which, values in (("own", parameters), ("target", frozen)):
                if seen.starts[step, sample]:
                    states[which] = torch.zeros_like(states[which])
                said, states[which] = one_step(values, layer, seen.observations[step, sample].double(), states[which])
                if step < burn_in:
                    states[which] = states[which].detach()
                q[which].append(said)
        for step in range(burn_in, burn_in + length):
            terminated, truncated = bool(seen.terminated[step, sample]), bool(seen.truncated[step, sample])
            if truncated and not terminated:
                continue
            wanted = seen.rewards[step, sample].double()
            if not terminated:
                best = int((q["own"] if double else q["target"])[step + 1].argmax())
                wanted = wanted + gamma * q["target"][step + 1][best].detach()
            total = total + huber(q["own"][step][seen.actions[step, sample]] - wanted)
            counted += 1
    loss = total / counted
    loss.backward()
    return float(loss.detach()), {name: part.grad for name, part in parameters.items()}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("burn_in", [0, 3])
@pytest.mark.parametrize("core", PLASTIC)
def test_the_loss_of_sequences_equals_a_calculation_by_hand(core, burn_in, double):
    learned = {} if core == "mpn-frozen" else {"learn_eta": True, "learn_lambda": True}
    network, target = make_network(core, 1, **learned), make_network(core, 2, **learned)
    with torch.no_grad():
        for each in (network, target):
            each.core.constrain()
    replay = random_replay(network.core.state_shape, episode_ends=0.3)
    changes = {"gamma": 0.9, "double_q": double, "burn_in": burn_in, "sequence_length": 4, "batch_size": 40}
    update = torch_update(network, target, replay, replay="sequences", **changes)
    # About as many transitions as the batch: 10 stretches of 4.
    seen = replay.sequences(10, burn_in + 5, np.random.default_rng(7))
    inside = slice(burn_in, burn_in + 4)
    assert seen.terminated[inside].any()
    assert (seen.truncated[inside] & ~seen.terminated[inside]).any()
    loss, gradients = sequences_by_hand(network, target, seen, 0.9, double, burn_in, 4)
    found = update.loss_of_sequences(np.random.default_rng(7))
    found.backward()
    assert float(found.detach()) == pytest.approx(loss, rel=1e-4)
    assert set(gradients) == {name for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), gradients[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("core", ["gru", "lstm", "mlp"])
def test_the_loss_of_sequences_of_the_controls_is_that_of_their_steps(core):
    network, target = make_network(core, 1).double(), make_network(core, 2).double()
    replay = random_replay(network.core.state_shape, episode_ends=0.3)
    for name in ("observations", "rewards", "states"):
        setattr(replay, name, getattr(replay, name).double())
    changes = {"gamma": 0.9, "burn_in": 3, "sequence_length": 4, "batch_size": 24}
    update = torch_update(network, target, replay, replay="sequences", **changes)
    seen = replay.sequences(6, 8, np.random.default_rng(7))
    own, theirs, q, target_q = seen.state, seen.state, [], []
    for step in range(8):
        said, own = network(seen.observations[step], own, seen.starts[step])
        target_said, theirs = target(seen.observations[step], theirs, seen.starts[step])
        q.append(said)
        target_q.append(target_said)
    losses = []
    for step, sample in itertools.product(range(3, 7), range(6)):
        if seen.truncated[step, sample] and not seen.terminated[step, sample]:
            continue
        value = 0.0 if seen.terminated[step, sample] else target_q[step + 1][sample][q[step + 1][sample].argmax()]
        error = q[step][sample, seen.actions[step, sample]] - seen.rewards[step, sample] - 0.9 * value
        losses.append(float(huber(error).detach()))
    assert float(update.loss_of_sequences(np.random.default_rng(7)).detach()) == pytest.approx(np.mean(losses))


def test_the_burn_in_moves_the_state_and_is_not_learned_from():
    network, target = make_network(seed=1), make_network(seed=2)
    replay = random_replay(network.core.state_shape, episode_ends=0.0)
    losses = {}
    for rewards_before in (0.0, 100.0):
        for first in (0.0, 5.0):
            changed = copy.copy(replay)
            changed.rewards, changed.observations = replay.rewards.clone(), replay.observations.clone()
            changed.sequences = _fixed(replay, rewards_before, first)
            update = torch_update(
                network, target, changed, replay="sequences", burn_in=3, sequence_length=4, batch_size=8
            )
            losses[rewards_before, first] = float(update.loss_of_sequences(np.random.default_rng(0)).detach())
    assert losses[0.0, 0.0] == losses[100.0, 0.0]
    assert losses[0.0, 0.0] != pytest.approx(losses[0.0, 5.0], rel=1e-3)


def _fixed(replay, rewards_before, first):
    """Sequences whose burn-in has the rewards `rewards_before` and the observations `first`."""

    def sequences(batch, length, generator):
        seen = replay.__class__.sequences(replay, batch, length, generator)
        seen.rewards[:3] = rewards_before
        seen.observations[:3] = first
        return seen

    return sequences


def test_a_sequence_of_truncated_steps_has_no_loss():
    network = make_network()
    replay = random_replay(network.core.state_shape)
    replay.truncated.fill_(True)
    replay.terminated.fill_(False)
    update = torch_update(network, make_network(seed=2), replay, replay="sequences", sequence_length=4, batch_size=8)
    loss = update.loss_of_sequences(np.random.default_rng(0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not network.core.W.grad.any()


# ----------------------------------------------------------------------------------------------------------- descending


@pytest.mark.parametrize("clip", [0.05, 10.0])
def test_clipped_adam_is_that_of_torch(clip):
    generator = np.random.default_rng(0)
    values = generator.normal(size=40).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(values.copy()))
    optimizer = torch.optim.Adam([theirs], lr=3e-3)
    first, second = np.zeros_like(values), np.zeros_like(values)
    norms = []
    for update in range(1, 201):
        gradient = (np.sin(update / 9) * generator.normal(size=40) / 10).astype(np.float32)
        norms.append(float(np.linalg.norm(gradient)))
        theirs.grad = torch.from_numpy(gradient.copy())
        torch.nn.utils.clip_grad_norm_([theirs], clip)
        optimizer.step()
        compiled_dqn.clipped_adam(values, gradient, first, second, update, 3e-3, clip, 0.9, 0.999, 1e-8)
    assert min(norms) < 0.05 < max(norms)
    moved = np.abs(theirs.detach().numpy() - np.random.default_rng(0).normal(size=40).astype(np.float32))
    assert moved.max() > 0.05
    np.testing.assert_allclose(values, theirs.detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("core", PLASTIC)
def test_learning_compiled_and_in_torch_stays_together(core, monkeypatch):
    def learned(compile_it):
        monkeypatch.setattr("plastic_mpn.learning.dqn.can_be_compiled", lambda *_: compile_it)
        dqn = make_dqn(core, gradient_clip=0.5)
        assert isinstance(dqn.update, CompiledUpdate if compile_it else TorchUpdate)
        first = copy.deepcopy(dqn.network.state_dict())
        for _ in range(90):
            dqn.advance()
        dqn.update.synchronize()
        return dqn, first

    compiled, first = learned(True)
    plain, _ = learned(False)
    assert compiled.gradient_steps == plain.gradient_steps > 100
    assert compiled.finished == plain.finished
    assert compiled.mean_loss() == pytest.approx(plain.mean_loss(), rel=1e-3)
    for name, parameter in plain.network.named_parameters():
        found = dict(compiled.network.named_parameters())[name]
        assert float((parameter - first[name]).detach().abs().max()) > 0.05, "it has moved"
        torch.testing.assert_close(found, parameter, rtol=0, atol=2e-3)
    torch.testing.assert_close(compiled.states, plain.states, rtol=0, atol=5e-3)
    assert torch.equal(compiled.replay.observations, plain.replay.observations)
    torch.testing.assert_close(compiled.replay.states, plain.replay.states, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("network", "changes", "compiled"),
    [
        ({}, {}, True),
        ({"core": "mpn-pre"}, {}, True),
        ({}, {"replay": "sequences"}, False),
        ({"learn_eta": True}, {}, False),
        ({"learn_lambda": True}, {}, False),
        ({"learn_eta": True, "learn_lambda": True}, {"replay": "sequences"}, False),
        ({"layers": 2}, {}, False),
        ({"projection": 4}, {}, True),
        ({"layers": 2, "projection": 4}, {}, False),
        ({"bias": False}, {}, False),
        ({"core": "gru"}, {}, False),
    ],
)
def test_only_supported_networks_use_the_kernels(network, changes, compiled):
    made = MPNDQN(3, 4, 2, **network)
    chosen = DQNSettings(batch_size=4, learning_starts=4, burn_in=1, sequence_length=2, **changes)
    assert not can_be_compiled(copy.deepcopy(made).double(), chosen)
    dqn = DQN(made, Environments(CORRIDOR, 1, seed_sequence(0, "environments")), chosen, seed_sequence(0, "e"))
    assert isinstance(dqn.update, CompiledUpdate if compiled else TorchUpdate)
    before = copy.deepcopy(made.state_dict())
    for _ in range(12):
        dqn.advance()
    dqn.update.synchronize()
    assert dqn.gradient_steps > 3
    assert math.isfinite(dqn.mean_loss())
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    learned = {name for name, _ in made.named_parameters()}
    # A gradient of eta or lambda needs more than one step.
    assert changed == (learned if "replay" in changes else learned - {"core.eta", "core.lambda_"})


def test_a_learned_lambda_stays_below_its_bound():
    dqn = make_dqn("mpn", replay="sequences", burn_in=1, sequence_length=3, learning_rate=0.3)
    network = MPNDQN(3, 4, 2, learn_eta=True, learn_lambda=True, lambda_max=0.5, lambda_decay=0.5)
    dqn = DQN(network, dqn.environments, dqn.settings, seed_sequence(0, "exploration"))
    seen = set()
    for _ in range(60):
        dqn.advance()
        seen.add(float(network.core.lambda_.detach()))
    assert len(seen) > 3
    assert all(0 <= value <= 0.5 for value in seen)


# --------------------------------------------------------------------------------------------- acting and remembering


def test_each_observation_is_projected_once():
    """The buffer holds A x + c and the state of the inner core; the whole network gives the same outputs."""
    environments = Environments(CORRIDOR, 2, seed_sequence(0, "environments"), max_steps=8)
    twin = Environments(CORRIDOR, 2, seed_sequence(0, "environments"), max_steps=8)
    network = MPNDQN(3, UNITS, 2, projection=5, eta=0.3, generator=torch.Generator().manual_seed(0))
    A, c = (network.core.state_dict()[name].numpy().copy() for name in ("A", "c"))
    dqn = DQN(network, environments, DQNSettings(batch_size=4, learning_starts=20, tau=0.1), seed_sequence(0, "e"))
    first = copy.deepcopy(network.state_dict())
    for step in range(40):
        seen = twin.observations.copy()
        dqn.advance()
        happened = twin.step(dqn.replay.actions[step].numpy())
        np.testing.assert_allclose(dqn.replay.observations[step], seen @ A.T + c, rtol=1e-5, atol=1e-6)
        wanted = happened.next_observations @ A.T + c
        np.testing.assert_allclose(dqn.replay.next_observations[step], wanted, rtol=1e-5, atol=1e-6)
    dqn.update.synchronize()
    assert dqn.replay.states.shape[2:] == (UNITS, 5)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, first[name])}
    assert changed == {f"core.{name}" for name in ("core.W", "core.b")} | {"head.weight", "head.bias"}
    state = dqn.states.clone().contiguous()
    state[torch.from_numpy(environments.starts.copy())] = 0
    with torch.no_grad():
        q, _ = network(torch.from_numpy(environments.observations.copy()), state)
    projected = (environments.observations @ A.T + c).astype(np.float32)
    best, _ = dqn.update.act(projected, dqn.states, environments.starts)
    assert best.tolist() == q.argmax(dim=1).tolist()


@pytest.mark.parametrize("core", ["mpn", "mpn-pre", "mpn-additive", "gru", "lstm", "mlp"])
def test_stored_transitions_are_those_of_the_environments(core):
    """The network does not learn here, so that its outputs can be computed again."""
    dqn = make_dqn(core, count=3, epsilon_start=0.5, epsilon_end=0.5, learning_starts=10**6, buffer_size=10**4)
    twin = Environments(CORRIDOR, 3, seed_sequence(0, "environments"), max_steps=8)
    network = copy.deepcopy(dqn.network)
    state, greedy = network.init_state(3), []
    for step in range(60):
        dqn.advance()
        remembered = {name: getattr(dqn.replay, name)[step].numpy() for name in dqn.replay._TENSORS}
        np.testing.assert_array_equal(remembered["observations"], twin.observations)
        np.testing.assert_array_equal(remembered["starts"], twin.starts)
        state = state.clone()
        state[torch.from_numpy(twin.starts.copy())] = 0
        np.testing.assert_allclose(remembered["states"], state, atol=1e-5)
        with torch.no_grad():
            q, state = network(torch.from_numpy(twin.observations.copy()), state)
        greedy.append(remembered["actions"] == q.argmax(dim=1).numpy())
        happened = twin.step(remembered["actions"])
        for name in ("next_observations", "rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(remembered[name], getattr(happened, name))
    assert dqn.gradient_steps == 0
    assert len(dqn.finished) == dqn.episodes == sum(twin.state_dict()["episode"]) + twin.count - 3 > 10
    # With probability a half a random one of two actions: three quarters are the greedy one.
    assert np.mean(greedy) == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 180))


@pytest.mark.parametrize("core", ["mpn", "gru"])
def test_without_exploration_every_action_is_the_best_one(core):
    dqn = make_dqn(core, count=3, epsilon_start=0.0, epsilon_end=0.0, learning_starts=10**6, buffer_size=10**4)
    network = copy.deepcopy(dqn.network)
    for _ in range(30):
        dqn.advance()
    for step in range(30):
        with torch.no_grad():
            q, _ = network(dqn.replay.observations[step], dqn.replay.states[step].contiguous())
        assert dqn.replay.actions[step].tolist() == q.argmax(dim=1).tolist()


@pytest.mark.parametrize("bound", [math.inf, 0.5])
@pytest.mark.parametrize(("core", "activation"), list(itertools.product(PLASTIC, ACTIVATIONS)))
def test_compiled_acting_equals_the_network(core, activation, bound):
    network = make_network(core, 1, activation=activation, bound=bound)
    replay = random_replay(network.core.state_shape)
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(40, INPUTS)).astype(np.float32)
    states = torch.from_numpy(generator.normal(size=(40, UNITS, INPUTS)).astype(np.float32))
    starts = generator.random(40) < 0.3
    forgotten = states.clone()
    forgotten[torch.from_numpy(starts)] = 0
    with torch.no_grad():
        q, wanted = network(torch.from_numpy(observations), forgotten)
    for layout in (states.clone(), states.transpose(1, 2).contiguous().transpose(1, 2)):
        for update in (compiled_update(network, network, replay), torch_update(network, network, replay)):
            given_states = layout.clone()
            actions, new = update.act(observations, given_states, starts)
            assert actions.tolist() == q.argmax(dim=1).tolist()
            torch.testing.assert_close(new, wanted, rtol=1e-5, atol=1e-6)
            assert torch.equal(given_states, forgotten), "set to zero in place, as they are then remembered"
    assert len(set(actions.tolist())) > 1


# ------------------------------------------------------------------------------------------------------------ schedules


@settings(max_examples=50, deadline=None)
@given(start=st.floats(0, 1), end=st.floats(0, 1), decay=st.floats(0.5, 1), episodes=st.integers(0, 50))
def test_epsilon_falls_by_a_factor_per_episode_to_its_end(start, end, decay, episodes):
    start, end = max(start, end), min(start, end)
    schedule = DQNSettings(epsilon_start=start, epsilon_end=end, epsilon_decay=decay)
    epsilon = start
    for _ in range(episodes):
        epsilon *= decay
    assert schedule.epsilon(episodes) == pytest.approx(max(epsilon, end))
    assert schedule.epsilon(0) == start


def test_epsilon_is_that_of_the_first_published_program():
    assert DQNSettings().epsilon(0) == 1
    assert DQNSettings().epsilon(100) == pytest.approx(0.995**100)
    assert DQNSettings().epsilon(10_000) == 0.01


def test_exploration_follows_the_schedule():
    """With epsilon at 0 from the second episode on, only the first one is random."""
    dqn = make_dqn(count=1, epsilon_end=0.0, epsilon_decay=1e-12, learning_starts=10**6, buffer_size=10**4)
    with torch.no_grad():
        dqn.network.head.weight.zero_()
        dqn.network.head.bias.copy_(torch.tensor([1.0, 0.0]))
    dqn.update._read()
    while dqn.episodes < 4:
        dqn.advance()
    actions = dqn.replay.actions[: dqn.replay.filled, 0]
    first = dqn.finished[0][1]
    assert actions[:first].any()
    assert not actions[first:].any()


def target_of(update):
    if isinstance(update, CompiledUpdate):
        return update.state_dict()["target"]
    return torch.cat([part.flatten() for part in update.target.parameters()])


def learned_of(update):
    if isinstance(update, CompiledUpdate):
        return torch.from_numpy(update._values.copy())
    return torch.cat([part.detach().flatten().clone() for part in update.network.parameters()])


@pytest.mark.parametrize("core", ["mpn", "gru"])
@pytest.mark.parametrize("every", [1, 3])
def test_the_target_is_copied_every_n_episodes_only(core, every):
    dqn = make_dqn(core, count=1, target_every=every)
    copies = []
    for _ in range(100):
        episodes, before = dqn.episodes, target_of(dqn.update).clone()
        dqn.advance()
        after, learned = target_of(dqn.update), learned_of(dqn.update)
        if dqn.episodes > episodes and dqn.episodes % every == 0:
            assert torch.equal(after, learned)
            copies.append(dqn.episodes)
        else:
            assert torch.equal(after, before)
            assert not dqn.gradient_steps or not torch.equal(after, learned)
    assert copies == list(range(every, dqn.episodes + 1, every))
    assert len(copies) > 2


def test_two_episodes_that_end_in_one_step_count_as_two():
    dqn = make_dqn(count=2, max_steps=3, target_every=2, learning_starts=2)
    for _ in range(3):
        dqn.advance()
    assert dqn.episodes == 2
    assert torch.equal(target_of(dqn.update), learned_of(dqn.update))
    assert len(dqn.finished) == 2


@pytest.mark.parametrize("core", ["mpn", "gru"])
def test_with_tau_the_target_moves_at_every_gradient_step(core):
    dqn = make_dqn(core, tau=0.1, target_every=1, count=1)
    for _ in range(60):
        steps, before = dqn.gradient_steps, target_of(dqn.update).clone()
        dqn.advance()
        learned = learned_of(dqn.update)
        if dqn.gradient_steps > steps:
            torch.testing.assert_close(target_of(dqn.update), before + 0.1 * (learned - before), rtol=1e-5, atol=1e-7)
            assert not torch.equal(before, learned)
        else:
            assert torch.equal(target_of(dqn.update), before)
    assert dqn.episodes > 3
    assert dqn.gradient_steps > 30


@pytest.mark.parametrize(("count", "every"), [(1, 1), (1, 4), (3, 1), (3, 2), (3, 4)])
def test_gradient_steps_per_transition(count, every):
    dqn = make_dqn(count=count, train_every=every, learning_starts=18, batch_size=5)
    steps = []
    for _ in range(50):
        dqn.advance()
        steps.append(dqn.gradient_steps)
    silent = math.ceil(18 / count) - 1
    assert steps[:silent] == [0] * silent
    assert steps == [0] * silent + [(advance + 1) * count // every for advance in range(50 - silent)]


@pytest.mark.parametrize(("replay", "first"), [("states", 8), ("sequences", 2 * (3 + 4 + 1))])
def test_learning_starts_with_a_full_batch_or_sequence(replay, first):
    dqn = make_dqn(replay=replay, burn_in=3, sequence_length=4, learning_starts=1)
    while not dqn.gradient_steps:
        dqn.advance()
    assert len(dqn.replay) == first


def test_a_small_buffer_starts_learning_when_it_is_full():
    dqn = make_dqn(learning_starts=1000, buffer_size=20)
    for _ in range(9):
        dqn.advance()
    assert dqn.gradient_steps == 0
    dqn.advance()
    assert dqn.gradient_steps == 2


@pytest.mark.parametrize(("core", "remembers"), [("mpn", True), ("mpn-pre", False), ("mpn-frozen", False)])
def test_it_learns_a_task_with_memory(core, remembers):
    """With "pre", the past scales each input separately, and the input of the sign is zero later."""
    dqn = make_dqn(
        core, count=8, hidden=16, max_steps=None, buffer_size=4000, batch_size=64, train_every=2,
        epsilon_decay=0.98, epsilon_end=0.0, gamma=0.5, tau=0.02,
    )  # fmt: skip
    while dqn.episodes < 400:
        dqn.advance()
    # Of all rewards, which are 1 and -1: knowing the first two steps and guessing the others is worth about a quarter.
    first, last = ([value / length for value, length in part] for part in (dqn.finished[:20], dqn.finished[-100:]))
    assert np.mean(first) < 0.5
    assert (np.mean(last) > 0.9) == remembers
    assert np.mean(last) > 0.1


# --------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(("core", "changes"), [("mpn", {}), ("gru", {}), ("mpn", {"replay": "sequences", "tau": 0.1})])
@pytest.mark.parametrize("done", [5, 41])
def test_learning_resumes_from_its_state_bit_for_bit(core, changes, done):
    changes = {"burn_in": 2, "sequence_length": 3, **changes}
    dqn = make_dqn(core, **changes)
    for _ in range(done):
        dqn.advance()
    file = io.BytesIO()
    torch.save(dqn.state_dict(), file)
    file.seek(0)
    taken_up = make_dqn(core, **changes, seed=0)
    for _ in range(7):
        taken_up.advance()
    taken_up.load_state_dict(torch.load(file, weights_only=True))
    for each in (dqn, taken_up):
        for _ in range(30):
            each.advance()
        each.update.synchronize()
    assert dqn.gradient_steps > 20
    assert taken_up.finished == dqn.finished
    assert taken_up.mean_loss() == dqn.mean_loss()
    one, other = taken_up.state_dict(), dqn.state_dict()
    assert one["counters"] == other["counters"]
    assert one["generator"] == other["generator"]
    assert torch.equal(one["states"], other["states"])
    assert torch.equal(target_of(taken_up.update), target_of(dqn.update))
    for name, value in dqn.network.state_dict().items():
        assert torch.equal(taken_up.network.state_dict()[name], value), name


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_periodic_logs_are_the_same_after_an_interruption(runs_folder, stop):
    """The returns since the last log are part of the resumed state."""
    logged = []
    for stopped in (False, True):
        run = create_run(runs_folder, rule="mpn", config={"seed": 0})
        with run.locked():
            if stopped:
                with pytest.raises(KeyboardInterrupt), interrupted_after(stop):
                    train_dqn(make_dqn(), run, 8, log_every=4)
            else:
                train_dqn(make_dqn(), run, 8, log_every=4)
        if stopped:
            run = open_run(run.folder)
            with run.locked():
                run.resume()
                train_dqn(make_dqn(), run, 8, log_every=4)
        logged.append(training_numbers(run.folder))
    assert set(logged[0]["step"]) == {4, 8}
    pd.testing.assert_frame_equal(logged[0], logged[1])


TINY = [
    "--env", CORRIDOR, "--hidden", 5, "--episodes", 9, "--batch-size", 8, "--buffer-size", 40,
    "--learning-starts", 10, "--learning-rate", 0.01, "--evaluate-every", 2,
    "--evaluation-episodes", 2, "--checkpoint-every", 3, "--test-episodes", 3,
]  # fmt: skip
COPIES = ["--target-every", 2]
SEQUENCES = ["--replay", "sequences", "--burn-in", 2, "--sequence-length", 4]


def trained(runs, *options):
    outcome = plastic("train", "mpn", "--json", "--quiet", "--runs", runs, *TINY, *options)
    assert outcome.code == 0, outcome.err
    return outcome.results[0]


def tensors_of(folder):
    return {path.stem: torch.load(path, weights_only=True) for path in sorted((folder / "artifacts").glob("*.pt"))}


@pytest.mark.parametrize(
    "options",
    [
        COPIES,
        [*COPIES, "--num-envs", 2],
        [*COPIES, "--num-envs", 2, *SEQUENCES, "--learn-eta", "--learn-lambda"],
        ["--core", "gru", "--num-envs", 2, "--tau", 0.05, *SEQUENCES],
        [*COPIES, "--core", "lstm", "--layers", 2, "--input-projection", 4],
    ],
    ids=["plain", "two", "sequences", "gru", "lstm"],
)
def test_a_run_with_many_interruptions_ends_like_an_uninterrupted_one(runs_folder, options):
    whole = Path(trained(runs_folder, *options)["folder"])
    others = runs_folder.parent / "others"
    with interrupted_after(2):
        outcome = plastic("train", "mpn", "--quiet", "--json", "--runs", others, *TINY, *options)
    (stopped,) = (path for path in others.iterdir() if (path / "run.json").exists())
    times = 0
    while outcome.code == 130:
        times += 1
        torch.rand(2)
        with interrupted_after(3):
            outcome = plastic("train", "mpn", "--quiet", "--json", "--runs", others, "--resume", stopped.name)
    assert outcome.code == 0, outcome.err
    assert times >= 2
    pd.testing.assert_frame_equal(training_numbers(stopped), training_numbers(whole))
    kept, wanted = tensors_of(stopped), tensors_of(whole)
    assert kept.keys() == wanted.keys()
    for name, network in wanted.items():
        for part, value in network.items():
            assert torch.equal(kept[name][part], value), (name, part)


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_best_final_and_periodic_networks_are_stored(runs_folder):
    folder = Path(trained(runs_folder)["folder"])
    kept = tensors_of(folder)
    assert list(kept) == ["best", "episode-0000003", "episode-0000006", "episode-0000009", "final"]
    for name, value in kept["final"].items():
        assert torch.equal(value, kept["episode-0000009"][name])
    assert any(not torch.equal(value, kept["episode-0000003"][name]) for name, value in kept["final"].items())


def test_the_validation_returns_select_the_best_network(runs_folder, monkeypatch):
    """Returns with exploration have no effect. Of equally good networks, the latest is the best."""
    play, asked = GreedyEpisodes.returns, []
    scripted = [8.0, 8.0, 5.0, 3.0]

    def returns(self, network, seeds):
        asked.append((tuple(seeds), copy.deepcopy(network.state_dict())))
        if len(asked) <= len(scripted):
            return np.array([scripted[len(asked) - 1]] * len(seeds)) + np.arange(len(seeds)) - 0.5
        return play(self, network, seeds)

    monkeypatch.setattr(GreedyEpisodes, "returns", returns)
    options = ["--episodes", 8, "--checkpoint-every", 2, "--evaluate-every", 2]
    result = trained(runs_folder, *options)
    kept = tensors_of(Path(result["folder"]))
    for name, value in kept["best"].items():
        assert torch.equal(value, kept["episode-0000004"][name])
    assert any(not torch.equal(value, kept["final"][name]) for name, value in kept["best"].items())
    assert result["metrics"]["test/best_at"] == 4
    metrics = training_numbers(Path(result["folder"]))
    validation = metrics[(metrics["split"] == "validation") & (metrics["metric"] == "return")]
    assert validation["value"].tolist() == scripted
    assert validation["step"].tolist() == [2, 4, 6, 8]

    *evaluations, (last_seeds, last), (test_seeds, best) = asked
    assert len(evaluations) == 4
    assert len({seeds for seeds, _ in evaluations}) == 1, "the same episodes every time"
    assert last_seeds == test_seeds
    assert not set(test_seeds) & set(evaluations[0][0]), "nothing was chosen by the episodes of the test"
    for name, value in kept["best"].items():
        assert torch.equal(value, best[name])
        assert torch.equal(kept["final"][name], last[name])


def test_a_run_without_a_finished_episode_has_a_best_network(runs_folder):
    options = ["--env", "MountainCar-v0", "--total-steps", 40, "--evaluation-episodes", 1]
    # Also before the first gradient step.
    result = trained(runs_folder, *options, "--learning-starts", 64)
    assert result["metrics"]["train/environment_steps"] == 40
    assert result["metrics"]["test/return"] == result["metrics"]["test/last_return"] == -200


def test_episodes_that_end_before_the_total_steps_are_said(runs_folder):
    options = ["--env", "plastic/GoNogo-v0", "--env-options", "trials=1", "--episodes", 3, "--total-steps", 10_000]
    outcome = plastic("train", "mpn", "--runs", runs_folder, *TINY, *options)
    assert outcome.code == 0, outcome.err
    assert re.search(r"3 episodes ended after \d+ of 10000 environment steps: increase --episodes", outcome.err)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_ends_after_its_total_steps(runs_folder, count):
    options = ["--episodes", 50, "--evaluate-every", 4, "--num-envs", count]
    result = trained(runs_folder, *options, "--total-steps", 60)
    folder = Path(result["folder"])
    metrics = training_numbers(folder)
    steps = metrics[metrics["metric"] == "environment_steps"]
    assert steps["value"].iloc[-1] >= 60 > steps["value"].iloc[-count - 1]
    last = int(steps["step"].iloc[-1])
    assert 4 < last < 50
    # The last network is evaluated too, and tested behind its episode.
    validated = metrics[metrics["split"] == "validation"]["step"].tolist()
    assert validated == sorted({*range(4, last + 1, 4), last})
    assert set(metrics[metrics["split"] == "test"]["step"]) == {last}
    # Fewer episodes come first.
    few = trained(runs_folder, *options, "--total-steps", 60, "--episodes", 3)
    assert few["metrics"]["train/environment_steps"] < 60
    # Stopped right at the end, it ends the same.
    others = runs_folder.parent / "others"
    with interrupted_after(last):
        outcome = plastic("train", "mpn", "--quiet", "--runs", others, *TINY, *options, "--total-steps", 60)
    assert outcome.code == 130
    (stopped,) = (path for path in others.iterdir() if (path / "run.json").exists())
    assert plastic("train", "mpn", "--quiet", "--runs", others, "--resume", stopped.name).code == 0
    pd.testing.assert_frame_equal(training_numbers(stopped), metrics)


def test_the_log_agrees_with_the_episodes(runs_folder):
    result = trained(runs_folder, "--epsilon-decay", 0.9, "--train-every", 2)
    metrics = training_numbers(Path(result["folder"]))
    train = metrics[metrics["split"] == "train"].pivot_table(index="step", columns="metric", values="value")
    assert list(train.index) == list(range(1, 10))
    np.testing.assert_allclose(train["epsilon"], [max(0.01, 0.9**episode) for episode in range(1, 10)])
    # Each step pays 1 or -1, and an episode has at least four.
    lengths = np.diff([0, *train["environment_steps"]])
    assert ((lengths >= 4) & (lengths <= 10)).all()
    assert ((lengths - train["return"]) % 2 == 0).all()
    assert (train["return"].abs() <= lengths).all()
    learned = np.maximum(train["environment_steps"] - 9, 0) // 2
    np.testing.assert_array_equal(train["gradient_steps"], learned)
    assert train["loss"].notna().equals(learned > 0)


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(runs_folder):
    outcome = plastic(
        "train", "mpn", "--quiet", "--runs", runs_folder, *TINY, "--learning-rate", 1e38, "--episodes", 50
    )
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "train/loss became" in line
    assert "Try a smaller learning rate" in line


# -------------------------------------------------------------------------------------------------- best and last


class Scored:
    """Greedy episodes whose return is the network's only weight plus a small term that depends on the seed."""

    def __init__(self):
        self.asked = []

    def returns(self, network, seeds):
        self.asked.append(list(seeds))
        return network.weight.item() + 0.01 * (np.array(seeds) % 7)


def test_best_and_final_network_are_tested_on_the_same_unused_episodes(runs_folder):
    run = create_run(runs_folder, rule="mpn", config={"seed": 0})
    network, episodes = torch.nn.Linear(1, 1, bias=False), Scored()
    kept = Checkpoints(
        network, run, episodes, unit="episode", evaluate_every=1, evaluation_episodes=3, checkpoint_every=100
    )
    for done, value in enumerate([1.0, 5.0, 5.0, 2.0], start=1):
        network.weight.data.fill_(value)
        kept.after(done)
    kept.finish(4, test_episodes=5)
    tested = evaluation_seeds(seed_sequence(0, "test episodes"), 5)
    extra = 0.01 * np.array([seed % 7 for seed in tested])
    assert run.results["test/return"] == pytest.approx(5 + extra.mean())
    assert run.results["test/spread"] == pytest.approx(extra.std(ddof=1))
    assert run.results["test/last_return"] == pytest.approx(2 + extra.mean())
    # Of equals the one that has learned longest.
    assert run.results["test/best_at"] == 3
    chosen_by = episodes.asked[0]
    assert run.results["validation/return"] == pytest.approx(2 + 0.01 * (np.array(chosen_by) % 7).mean())
    assert episodes.asked == [chosen_by] * 4 + [tested] * 2
    assert not set(chosen_by) & set(tested)
    assert network.weight.item() == 2, "the run goes on with its last network"
    stored = {name: float(run.load_tensors(name)["weight"]) for name in ("best", "final")}
    assert stored == {"best": 5, "final": 2}


def test_the_final_network_is_always_evaluated(runs_folder):
    run = create_run(runs_folder, rule="mpn", config={"seed": 0})
    network, episodes = torch.nn.Linear(1, 1, bias=False), Scored()
    kept = Checkpoints(
        network, run, episodes, unit="episode", evaluate_every=2, evaluation_episodes=3, checkpoint_every=2
    )
    for done, value in enumerate([1.0, 2.0, 3.0], start=1):
        network.weight.data.fill_(value)
        kept.after(done)
    kept.finish(3, test_episodes=2)
    assert run.results["test/best_at"] == 3
    assert run.results["test/return"] == run.results["test/last_return"]
    assert sorted(run.stored_tensors("")) == ["best", "episode-0000002", "final"]
