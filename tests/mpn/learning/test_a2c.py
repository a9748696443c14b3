"""A2C against loops over single numbers and single environments, and on small tasks."""

import io
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.errors import RunFailed
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.testing import interrupted_after, training_numbers
from plastic_mpn.environments.vector import Environments
from plastic_mpn.learning.a2c import (
    A2C,
    A2CSettings,
    a2c_loss,
    generalized_advantages,
    train_a2c,
)
from plastic_mpn.networks.agents import ActorCritic

CORES = ["mpn", "gru", "mlp"]
CUE = "plastic-tests/Cue-v0"
MEMORABLE = {"mpn": {"eta": 1.0, "learn_eta": True}, "gru": {}}
"""Options with which memory matters from the first step on."""


class Cue(gym.Env):
    """A sign is shown first. At the go signal, `delay` steps later, the matching action has reward 1."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, delay=0, render_mode=None):
        self.delay, self.render_mode = delay, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self._observe(), {}

    def step(self, action):
        done = self.time == self.delay
        self.time += 1
        return self._observe(), float(done and action == self.cue), done, False, {}

    def _observe(self):
        shown = 2 * self.cue - 1 if self.time == 0 else 0
        return np.array([shown, self.time == self.delay, 1], np.float32)


@pytest.fixture(autouse=True)
def cue():
    """Register the environment while a test runs."""
    gym.register(CUE, Cue)
    yield
    del gym.registry[CUE]


def make(core="mpn", environment=CUE, count=4, seed=0, hidden=16, max_steps=None, options=None, mpn=None, **changes):
    environments = Environments(
        environment, count, seed_sequence(seed, "environments"), max_steps=max_steps, options=options
    )
    generator = torch.Generator().manual_seed(seed)
    network = ActorCritic(
        environments.observation_dim, hidden, environments.action_count, core=core, generator=generator, **(mpn or {})
    )
    return A2C(network, environments, generator, A2CSettings(**{"learning_rate": 1e-2, "rollout": 10, **changes}))


def episodes(time, count, seed, ending=0.3):
    """Draw rewards, values, next values, terminated, truncated (time, count); next values follow from the values."""
    generator = np.random.default_rng(seed)
    terminated, truncated = generator.random((2, time, count)) < ending / 2
    rewards, values, next_values = generator.normal(size=(3, time, count))
    carried_on = ~(terminated | truncated)
    carried_on[-1] = False
    next_values[:-1] = np.where(carried_on[:-1], values[1:], next_values[:-1])
    return [torch.from_numpy(array) for array in (rewards, values, next_values, terminated, truncated)]


def loop_advantages(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """Each advantage, computed as a sum over the following steps."""
    time, count = rewards.shape
    advantages = np.zeros((time, count))
    for environment in range(count):
        for step in range(time):
            for later in range(step, time):
                ended, cut = bool(terminated[later, environment]), bool(truncated[later, environment])
                following = 0.0 if ended else float(next_values[later, environment])
                delta = float(rewards[later, environment]) + gamma * following - float(values[later, environment])
                advantages[step, environment] += (gamma * gae_lambda) ** (later - step) * delta
                if ended or cut:
                    break
    return advantages


def loop_returns(rewards, next_values, terminated, truncated, gamma):
    """The discounted rewards up to the end of the sum, plus the discounted value of the next state."""
    time, count = rewards.shape
    returns = np.zeros((time, count))
    for environment in range(count):
        for step in range(time):
            discount = 1.0
            for later in range(step, time):
                returns[step, environment] += discount * float(rewards[later, environment])
                discount *= gamma
                if terminated[later, environment]:
                    break
                if truncated[later, environment] or later == time - 1:
                    returns[step, environment] += discount * float(next_values[later, environment])
                    break
    return returns


shapes = {"time": st.integers(1, 8), "count": st.integers(1, 4), "seed": st.integers(0, 2**31)}


# ---------------------------------------------------------------------------------------------------- advantages


@settings(max_examples=50, deadline=None)
@given(**shapes, gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_advantages_equal_a_loop(time, count, seed, gamma, gae_lambda):
    given_ = episodes(time, count, seed)
    found = generalized_advantages(*given_, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(found, loop_advantages(*given_, gamma, gae_lambda), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(**shapes, gamma=st.floats(0, 1))
def test_with_lambda_1_advantage_plus_value_is_the_n_step_return(time, count, seed, gamma):
    rewards, values, next_values, terminated, truncated = given_ = episodes(time, count, seed)
    found = generalized_advantages(*given_, gamma=gamma) + values
    np.testing.assert_allclose(found, loop_returns(rewards, next_values, terminated, truncated, gamma), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(**shapes, gae_lambda=st.floats(0, 1))
def test_with_gamma_0_only_the_reward_counts(time, count, seed, gae_lambda):
    rewards, values, *others = episodes(time, count, seed)
    found = generalized_advantages(rewards, values, *others, gamma=0.0, gae_lambda=gae_lambda)
    assert torch.equal(found, rewards - values)


@settings(max_examples=20, deadline=None)
@given(**shapes, gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_advantages_stop_at_the_end_of_an_episode(time, count, seed, gamma, gae_lambda):
    rewards, values, next_values, terminated, _ = episodes(time, count, seed)
    every, factors = torch.ones_like(terminated), {"gamma": gamma, "gae_lambda": gae_lambda}
    found = generalized_advantages(rewards, values, next_values, every, terminated, **factors)
    assert torch.equal(found, rewards - values)
    # Truncated everywhere: the next value counts, the next reward does not.
    found = generalized_advantages(rewards, values, next_values, ~every, every, **factors)
    np.testing.assert_allclose(found, rewards + gamma * next_values - values, atol=1e-12)


def test_the_value_of_a_terminal_state_is_ignored():
    rewards, values, next_values, terminated, truncated = episodes(3, 2, 0, ending=0.0)
    terminated[1] = True
    next_values[1] = math.inf
    assert generalized_advantages(rewards, values, next_values, terminated, truncated, gamma=0.9).isfinite().all()


# ---------------------------------------------------------------------------------------------------------- loss


def test_the_loss_equals_a_calculation_by_hand():
    # Two steps with probabilities (1/2, 1/2) and (1/5, 4/5).
    logits = torch.tensor([[0.0, 0.0], [math.log(1.0), math.log(4.0)]], dtype=torch.float64)
    values, returns = torch.tensor([1.0, -1.0]).double(), torch.tensor([3.0, 0.0]).double()
    loss = a2c_loss(logits, values, torch.tensor([0, 1]), torch.tensor([2.0, -1.0]).double(), returns, 0.1, 0.5)
    policy = -(2.0 * math.log(0.5) - 1.0 * math.log(0.8)) / 2
    value = (2.0**2 + 1.0**2) / 2
    entropy = (math.log(2) - 0.2 * math.log(0.2) - 0.8 * math.log(0.8)) / 2
    expected = [policy + 0.5 * value - 0.1 * entropy, policy, value, entropy]
    np.testing.assert_allclose([float(part) for part in loss], expected, rtol=1e-12)


def test_the_policy_gradient_is_that_of_reinforce():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    actions = torch.randint(4, (5, 3), generator=generator)
    a2c_loss(logits, advantages, actions, advantages, advantages, 0.0, 1.0).total.backward()
    expected = np.zeros((5, 3, 4))
    for step, environment in np.ndindex(5, 3):
        row = logits[step, environment].detach().numpy()
        probabilities = np.exp(row) / np.exp(row).sum()
        for action in range(4):
            chosen = float(actions[step, environment] == action)
            expected[step, environment, action] = -float(advantages[step, environment]) * (
                chosen - probabilities[action]
            )
    np.testing.assert_allclose(logits.grad, expected / 15, atol=1e-12)


def test_the_entropy_term_makes_the_policy_more_uniform():
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    nothing = torch.zeros(1)
    loss = a2c_loss(logits, nothing, torch.tensor([1]), nothing, nothing, 0.5, 1.0)
    loss.total.backward()
    with torch.no_grad():
        downhill = a2c_loss(logits - 0.1 * logits.grad, nothing, torch.tensor([1]), nothing, nothing, 0.5, 1.0)
    assert logits.grad[0, 0] > 0 > logits.grad[0, 2]
    assert downhill.entropy > loss.entropy


# ------------------------------------------------------------------------------------------------ acting and updating


@pytest.mark.parametrize("core", [*CORES, "lstm", "mpn-pre"])
def test_the_sequence_repeats_the_outputs_during_acting(core):
    algorithm = make(core, "CartPole-v1", max_steps=7, rollout=20)
    seen = []
    hook = algorithm.network.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    algorithm.collect()
    seen.clear()
    rollout = algorithm.collect()
    hook.remove()
    logits, values = (torch.stack(part) for part in zip(*seen[:20], strict=True))
    (again, values_again), state = algorithm.network(rollout.observations, rollout.state, rollout.starts)
    assert rollout.starts[1:].any(), "an episode begins within the rollout"
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values_again, values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, algorithm.state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("core", CORES)
def test_memory_and_bootstrapped_values_equal_one_environment_at_a_time(core, monkeypatch):
    """Two rollouts with truncated and terminated episodes; the state is passed from the first to the second."""
    algorithm = make(core, "CartPole-v1", max_steps=16, rollout=9)
    transitions = []
    step = algorithm.environments.step

    def record(actions):
        transitions.append(step(actions))
        return transitions[-1]

    monkeypatch.setattr(algorithm.environments, "step", record)
    rollouts = [algorithm.collect() for _ in range(4)]
    assert not rollouts[-1].state.requires_grad
    assert sum(int(rollout.truncated.sum()) for rollout in rollouts) > 0
    assert sum(int(rollout.terminated.sum()) for rollout in rollouts) > 0
    for environment in range(algorithm.environments.count):
        state = algorithm.network.init_state(1)
        for number, rollout in enumerate(rollouts):
            with torch.no_grad():
                (_, values), _ = algorithm.network(rollout.observations, rollout.state, rollout.starts)
            next_values = rollout.next_values(values)
            for time in range(9):
                if rollout.starts[time, environment]:
                    state = algorithm.network.init_state(1)
                with torch.no_grad():
                    (_, value), state = algorithm.network(rollout.observations[time, environment][None], state)
                    following = transitions[9 * number + time].next_observations[environment]
                    (_, after), _ = algorithm.network(torch.as_tensor(following)[None], state)
                torch.testing.assert_close(values[time, environment], value[0], rtol=1e-4, atol=1e-5)
                if not rollout.terminated[time, environment]:
                    torch.testing.assert_close(next_values[time, environment], after[0], rtol=1e-4, atol=1e-5)


def test_actions_are_drawn_from_the_policy():
    algorithm = make("mlp", count=64, rollout=100)
    with torch.no_grad():
        for parameter in algorithm.parameters:
            parameter *= 2
    rollout = algorithm.collect()
    (logits, _), _ = algorithm.network(rollout.observations, rollout.state, rollout.starts)
    expected = logits.detach().softmax(-1)[..., 1]
    for shown in (-1, 1):
        chosen = rollout.observations[..., 0] == shown
        mean, wanted = float(rollout.actions[chosen].double().mean()), float(expected[chosen].mean())
        assert abs(mean - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / int(chosen.sum()))
        assert abs(wanted - 0.5) > 0.02, "the policy is not uniform, or the test could not fail"


def test_the_gradient_is_that_of_the_loss_and_is_clipped():
    free, clipped = (make("gru", gradient_clip=clip, learning_rate=0.0) for clip in (1e6, 1e-3))
    norms = []
    for algorithm in (free, clipped):
        statistics = algorithm.rollout_and_update()
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in algorithm.parameters)))
    assert norms[0] == pytest.approx(float(statistics["gradient_norm"]), rel=1e-5)
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("core", MEMORABLE)
def test_the_gradient_equals_one_taken_step_by_step_through_the_rollout(core):
    """It reaches back to the beginning of the rollout or of the episode, and no further."""
    algorithm = make(core, "CartPole-v1", max_steps=12, learning_rate=0.0, gradient_clip=1e9, mpn=MEMORABLE[core])
    algorithm.rollout_and_update()
    rollout = algorithm.collect()
    assert rollout.starts[1:].any()
    assert rollout.truncated.any()
    state, seen = rollout.state, []
    for observed, begun in zip(rollout.observations, rollout.starts, strict=True):
        state = torch.stack([torch.zeros_like(row) if new else row for row, new in zip(state, begun, strict=True)])
        said, state = algorithm.network(observed, state)
        seen.append(said)
    logits, values = (torch.stack(part) for part in zip(*seen, strict=True))
    returns = torch.from_numpy(
        loop_returns(
            rollout.rewards, rollout.next_values(values.detach()), rollout.terminated, rollout.truncated, gamma=0.98
        )
    )
    loss = 0.0
    for time, environment in np.ndindex(*rollout.actions.shape):
        policy = logits[time, environment].double().softmax(-1)
        value, target = values[time, environment].double(), returns[time, environment]
        loss = loss - policy[rollout.actions[time, environment]].log() * (target - value.detach())
        loss = loss + (target - value) ** 2 + 0.01 * (policy * policy.log()).sum()
    wanted = torch.autograd.grad(loss / rollout.actions.numel(), algorithm.parameters)
    algorithm.update(rollout)
    for parameter, gradient in zip(algorithm.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_advantages_are_normalized_with_the_option(monkeypatch):
    seen = []

    def spy(logits, values, actions, advantages, returns, *coefficients):
        seen.append((values.detach(), advantages, returns))
        return a2c_loss(logits, values, actions, advantages, returns, *coefficients)

    monkeypatch.setattr("plastic_mpn.learning.a2c.a2c_loss", spy)
    for normalize in (False, True):
        make("mlp", normalize_advantages=normalize).rollout_and_update()
    (values, plain, returns), (_, normalized, same_returns) = seen
    torch.testing.assert_close(plain, returns - values)
    torch.testing.assert_close(normalized, (plain - plain.mean()) / plain.std())
    torch.testing.assert_close(same_returns, returns)


def test_a_learned_lambda_stays_in_its_range():
    algorithm = make(options={"delay": 3}, learning_rate=1.0, mpn={"learn_eta": True, "learn_lambda": True})
    layer, lambdas, etas = algorithm.network.core, [], []
    for _ in range(6):
        algorithm.rollout_and_update()
        lambdas.append(float(layer.lambda_.detach()))
        etas.append(float(layer.eta.detach()))
    # Steps of up to 1 would leave the interval at once.
    assert all(0 <= value <= layer.lambda_max + 1e-6 for value in lambdas)
    assert len(set(lambdas)) > 1
    assert len(set(etas)) > 1


# ----------------------------------------------------------------------------------------------------- resuming


def stored(state):
    """The state after it was stored in a checkpoint on disk."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("core", CORES)
def test_learning_resumes_from_its_state_bit_for_bit(core):
    whole = make(core, "CartPole-v1", max_steps=15)
    for _ in range(3):
        whole.rollout_and_update()
    state = stored(whole.state_dict())
    for _ in range(3):
        expected = whole.rollout_and_update()
    again = make(core, "CartPole-v1", max_steps=15, seed=0)
    again.load_state_dict(state)
    for _ in range(3):
        found = again.rollout_and_update()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for mine, other in zip(again.parameters, whole.parameters, strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(again.state, whole.state)
    assert again.report() == whole.report()
    assert whole.report().keys() == {"environment_steps", "episodes"}, "a report begins anew"


def test_a_state_of_another_number_of_environments_is_refused():
    with pytest.raises(ValueError, match="recurrent state"):
        make(count=3).load_state_dict(make(count=4).state_dict())


def new_run(folder):
    return create_run(folder, rule="mpn", config={"seed": 0})


def test_an_interrupted_run_ends_like_an_uninterrupted_one(runs_folder):
    finals, numbers = [], []
    for stop in (None, 4):
        run = new_run(runs_folder)
        with run.locked():
            if stop is None:
                train_a2c(final := make("gru", options={"delay": 2}), run, total_steps=320, log_every=3)
            else:
                with pytest.raises(KeyboardInterrupt), interrupted_after(stop):
                    train_a2c(make("gru", options={"delay": 2}), run, total_steps=320, log_every=3)
        if stop is not None:
            run = open_run(run.folder)
            with run.locked():
                run.resume()
                train_a2c(final := make("gru", options={"delay": 2}), run, total_steps=320, log_every=3)
        finals.append(final)
        numbers.append(training_numbers(run.folder).reset_index(drop=True))
    assert all(torch.equal(mine, other) for mine, other in zip(finals[0].parameters, finals[1].parameters, strict=True))
    assert numbers[0].equals(numbers[1])
    assert finals[0].updates == finals[1].updates > 4


# ------------------------------------------------------------------------------------------------ the training loop


def test_the_loop_counts_steps_logs_and_calls_back(runs_folder):
    run, calls = new_run(runs_folder), []
    algorithm = make(options={"delay": 1})
    with run.locked():
        train_a2c(algorithm, run, total_steps=161, log_every=2, after_update=calls.append)
    # 4 environments x 10 steps: five updates cover 161 steps. Episodes have two steps.
    assert calls == [1, 2, 3, 4, 5]
    rows = training_numbers(run.folder)
    assert set(rows["split"]) == {"train"}
    table = rows.pivot(index="step", columns="metric", values="value")
    assert table["environment_steps"].to_dict() == {2: 80, 4: 160, 5: 200}
    assert table["episodes"].to_dict() == {2: 40, 4: 80, 5: 100}
    assert (table["length"] == 2).all()
    assert table["return"].between(0, 1).all()
    assert {"loss", "policy_loss", "value_loss", "entropy", "gradient_norm"} <= set(table.columns)
    parts = table["policy_loss"] + table["value_loss"] - 0.01 * table["entropy"]
    np.testing.assert_allclose(table["loss"], parts, rtol=1e-5)
    assert run.record.speed["samples"] == 200


def test_a_loss_that_is_not_finite_ends_the_run(runs_folder):
    algorithm, run = make(), new_run(runs_folder)
    with torch.no_grad():
        algorithm.parameters[-1].fill_(math.nan)
    with run.locked(), pytest.raises(RunFailed, match="loss became nan"):
        train_a2c(algorithm, run, total_steps=80, log_every=1)


# ------------------------------------------------------------------------------------------------------- learning


def mean_return(algorithm, updates):
    for _ in range(updates):
        algorithm.rollout_and_update()
    algorithm.report()
    for _ in range(5):
        algorithm.rollout_and_update()
    return algorithm.report()["return"]


@pytest.mark.parametrize("core", CORES)
def test_it_learns_a_task_without_memory(core):
    """Chance is 0.5."""
    assert mean_return(make(core, count=16), 60) > 0.9


@pytest.mark.parametrize("core", MEMORABLE)
def test_it_learns_a_task_with_memory(core):
    """Chance is 0.5, which is also the maximum without memory."""
    assert mean_return(make(core, count=16, options={"delay": 3}, rollout=12, mpn=MEMORABLE[core]), 130) > 0.85


@pytest.mark.parametrize("core", ["mpn-frozen", "mlp"])
def test_without_memory_it_stays_at_chance(core):
    assert mean_return(make(core, count=16, options={"delay": 3}, rollout=12), 130) < 0.65
