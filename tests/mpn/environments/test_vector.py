"""Environments and greedy episodes: parallel against single ones, exact resumption, and refused environments."""

import hashlib
import io
import itertools
import math
import sys
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import pytest
import torch

from plastic_cli.errors import PlasticError, RunFailed, UserError
from plastic_cli.numerics.seeds import seed_sequence
from plastic_mpn.environments.greedy import GreedyEpisodes, evaluation_seeds
from plastic_mpn.environments.vector import (
    Environments,
    episode_seed,
    make_environment,
    package_versions,
    versioned_id,
)
from plastic_mpn.networks.agents import MPNDQN

SEEDS = seed_sequence(3, "environments")
MADE = {
    "CartPole-v1": {},
    "plastic/GoNogo-v0": {"options": {"trials": 1, "delay": 2}},
    "plastic/PerceptualDecisionMaking-v0": {"options": {"trials": 1}},
    "plastic/CartPoleNoVelocity-v1": {"max_steps": 12},
    "plastic-tests/Counting-v0": {},
}
"""Environments, with options that make their episodes short."""


class Counting(gym.Env):
    """Observes (number of steps, sum of the actions). Rewards equal the action. Ends after `length` steps."""

    observation_space = gym.spaces.Box(-100, 100, (2,), np.float64)

    def __init__(self, length=4, start=0, render_mode=None):
        self.length, self.render_mode = length, render_mode
        self.action_space = gym.spaces.Discrete(3, start=start)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.total = 0, int(self.np_random.integers(50))
        return np.array([self.time, self.total], np.float64), {}

    def step(self, action):
        assert action in self.action_space
        self.time, self.total = self.time + 1, self.total + int(action)
        return np.array([self.time, self.total], np.float64), float(action), self.time == self.length, False, {}


class Forgetful(Counting):
    """Draws its observations from a random state that the seed does not set."""

    drawn = itertools.count()

    def step(self, action):
        seen, *others = super().step(action)
        return (seen + np.array([0, next(self.drawn)]), *others)


class Noise(Counting):
    """Observations are noise, rewards are random for every action and step, and the end is random."""

    def step(self, action):
        seen = self.np_random.normal(size=2)
        reward = self.np_random.normal(size=3)[action]
        return seen, float(reward), bool(self.np_random.random() < 0.1), False, {}


class Images(Counting):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Words(Counting):
    observation_space = gym.spaces.Discrete(7)


class SeveralActions(Counting):
    def __init__(self, render_mode=None):
        super().__init__()
        self.action_space = gym.spaces.MultiDiscrete([2, 3])


TOYS = {
    "plastic-tests/Counting-v0": Counting,
    "plastic-tests/Forgetful-v0": Forgetful,
    "plastic-tests/Images-v0": Images,
    "plastic-tests/Noise-v0": Noise,
    "plastic-tests/Words-v0": Words,
    "plastic-tests/SeveralActions-v0": SeveralActions,
}
COUNTING = "plastic-tests/Counting-v0"


@pytest.fixture(autouse=True)
def toys():
    """Register the environments while a test runs."""
    for name, made in TOYS.items():
        gym.register(name, made)
    yield
    for name in TOYS:
        del gym.registry[name]


def actions_of(environments, steps, seed=0):
    return np.random.default_rng(seed).integers(environments.action_count, size=(steps, environments.count))


def episodes_begun(environments):
    return sum(environments.state_dict()["episode"]) + environments.count


def play(environments, actions):
    """All results of the environments for the actions (steps, count)."""
    seen = []
    for chosen in actions:
        before, starts = environments.observations.copy(), environments.starts.copy()
        transition = environments.step(chosen)
        seen.append(
            {
                "before": before,
                "starts": starts,
                "after": transition.next_observations.copy(),
                "rewards": transition.rewards.copy(),
                "terminated": transition.terminated.copy(),
                "truncated": transition.truncated.copy(),
                "finished": list(environments.finished),
                "episodes": episodes_begun(environments),
                "steps": environments.steps,
            }
        )
    return seen


def assert_same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def stored(state):
    """The state after it was stored in a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# ---------------------------------------------------------------------------------------- as one environment at a time


@pytest.mark.parametrize("env", MADE)
def test_parallel_environments_equal_single_ones(env):
    environments = Environments(env, 3, SEEDS, **MADE[env])
    actions = actions_of(environments, 60)
    seen = play(environments, actions)
    episodes, ended = 3, [[] for _ in range(60)]
    for index in range(3):
        alone = make_environment(env, **MADE[env])
        episode, total, length = 0, 0.0, 0
        now, _ = alone.reset(seed=episode_seed(SEEDS, index, episode))
        for step in range(60):
            np.testing.assert_array_equal(seen[step]["before"][index], now.astype(np.float32))
            assert seen[step]["starts"][index] == (length == 0)
            now, reward, terminated, truncated, _ = alone.step(int(actions[step, index]))
            total, length = total + reward, length + 1
            np.testing.assert_array_equal(seen[step]["after"][index], np.asarray(now, np.float32))
            assert seen[step]["rewards"][index] == np.float32(reward)
            assert (seen[step]["terminated"][index], seen[step]["truncated"][index]) == (terminated, truncated)
            if terminated or truncated:
                ended[step].append((pytest.approx(total), length))
                episode, total, length = episode + 1, 0.0, 0
                now, _ = alone.reset(seed=episode_seed(SEEDS, index, episode))
        episodes += episode
    assert [step["finished"] for step in seen] == ended
    assert episodes >= 6, "so that the test can tell"
    assert episodes_begun(environments) == episodes
    assert environments.steps == 180


def test_the_sizes_and_types_are_those_of_the_environment():
    environments = Environments("CartPole-v1", 5, SEEDS)
    assert (environments.count, environments.observation_dim, environments.action_count) == (5, 4, 2)
    assert environments.observations.shape == (5, 4)
    assert environments.observations.dtype == np.float32
    assert environments.starts.all()
    assert (episodes_begun(environments), environments.steps, environments.finished) == (5, 0, [])
    transition = environments.step(np.zeros(5, np.int64))
    assert transition.next_observations.dtype == transition.rewards.dtype == np.float32
    assert transition.terminated.dtype == transition.truncated.dtype == np.bool_


def test_returned_arrays_do_not_change_later():
    environments = Environments(COUNTING, 2, SEEDS)
    transition = environments.step(np.array([1, 2]))
    kept = transition.next_observations.copy()
    environments.step(np.array([1, 2]))
    np.testing.assert_array_equal(transition.next_observations, kept)


# ------------------------------------------------------------------------------------------------------------- seeds


def test_episodes_do_not_depend_on_the_number_of_environments():
    few, many = Environments("CartPole-v1", 2, SEEDS), Environments("CartPole-v1", 5, SEEDS)
    actions = actions_of(many, 80)
    of_few, of_many = play(few, actions[:, :2]), play(many, actions)
    assert episodes_begun(few) > 4
    for one, other in zip(of_few, of_many, strict=True):
        for name in ("before", "starts", "after", "rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(one[name], other[name][:2])


def test_environments_depend_on_their_seeds():
    def first(seeds):
        environments = Environments("CartPole-v1", 2, seeds)
        return play(environments, actions_of(environments, 40))

    assert_same(first(SEEDS), first(seed_sequence(3, "environments")))
    for other in (seed_sequence(4, "environments"), seed_sequence(3, "something else")):
        assert not np.array_equal(first(SEEDS)[0]["before"], first(other)[0]["before"])


def test_all_episodes_of_all_environments_have_different_seeds():
    seeds = {episode_seed(SEEDS, index, episode) for index in range(20) for episode in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert episode_seed(SEEDS, 1, 2) == episode_seed(seed_sequence(3, "environments"), 1, 2)
    assert episode_seed(SEEDS, 1, 2) != episode_seed(SEEDS, 2, 1)
    # Children that were spawned meanwhile change nothing.
    used = seed_sequence(3, "environments")
    used.spawn(3)
    assert episode_seed(used, 0, 0) == episode_seed(SEEDS, 0, 0)


# ------------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("env", MADE)
@pytest.mark.parametrize("done", [0, 1, 23])
def test_environments_resume_exactly_in_the_middle_of_an_episode(env, done):
    environments = Environments(env, 3, SEEDS, **MADE[env])
    actions = actions_of(environments, done + 40)
    play(environments, actions[:done])
    state = stored(environments.state_dict())
    resumed = Environments(env, 3, SEEDS, **MADE[env])
    # Loading the state replaces everything before it.
    play(resumed, actions_of(resumed, 17, seed=9))
    resumed.load_state_dict(state)
    if done == 23:
        assert not environments.starts.all()
    for name in ("observations", "starts", "steps"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(environments, name))
    assert episodes_begun(resumed) == episodes_begun(environments)
    future = play(environments, actions[done:])
    assert any(step["finished"] for step in future)
    assert_same(play(resumed, actions[done:]), future)


def test_a_state_is_a_copy():
    environments = Environments("CartPole-v1", 2, SEEDS)
    play(environments, actions_of(environments, 5))
    state = environments.state_dict()
    kept = stored(state)
    play(environments, actions_of(environments, 5))
    assert state == kept


def test_options_and_limits_hold_after_a_resume():
    made = {"max_steps": 3, "options": {"length": 5}}
    environments = Environments(COUNTING, 1, SEEDS, **made)
    play(environments, np.array([[1], [2]]))
    resumed = Environments(COUNTING, 1, SEEDS, **made)
    resumed.load_state_dict(environments.state_dict())
    (step,) = play(resumed, np.array([[2]]))
    assert step["truncated"].all()
    assert step["finished"] == [(5.0, 3)]


class Bandit(gym.Env):
    """Observations are constant, and rewards are `arms`, which a subclass draws."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.arms = 0, self.draw(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), float(self.arms[action]), self.time >= 20, False, {}


class SeededBandit(Bandit):
    def draw(self, seed):
        return self.np_random.random(2)


class GloballySeededBandit(Bandit):
    """Seeds numpy's global random state, as environments of an older interface do, and is repeatable."""

    def draw(self, seed):
        np.random.seed(seed)  # noqa: NPY002
        return np.random.rand(2)  # noqa: NPY002


class UnseededBandit(Bandit):
    def draw(self, seed):
        return np.random.rand(2)  # noqa: NPY002


class OtherEnd(Bandit):
    """Ends one step earlier in each episode."""

    lengths = itertools.count(6, -1)

    def draw(self, seed):
        self.length = next(self.lengths)
        return np.ones(2)

    def step(self, action):
        seen, reward, *_ = super().step(action)
        return seen, reward, False, self.time >= self.length, {}


@pytest.fixture
def registered():
    """Return a function that registers a class under a new name while a test runs."""
    names = []

    def register(made, **options):
        name = f"plastic-tests/Registered{len(names)}-v0"
        gym.register(name, made, **options)
        names.append(name)
        return name

    yield register
    for name in names:
        del gym.registry[name]


@pytest.mark.parametrize(("made", "done"), [(Forgetful, 2), (UnseededBandit, 1), (OtherEnd, 4)])
def test_an_environment_that_differs_after_replay_is_not_resumed(registered, made, done):
    name = registered(made)
    environments = Environments(name, 1, SEEDS)
    for _ in range(done):
        environments.step(np.array([1]))
    state = environments.state_dict()
    with pytest.raises(
        PlasticError, match=f"{name} differs from before with the same seed and actions.*Train a new run"
    ) as raised:
        Environments(name, 1, SEEDS).load_state_dict(state)
    assert not isinstance(raised.value, UserError)
    assert "\n" not in str(raised.value)


def test_unseeded_random_numbers_are_found_even_at_the_start_of_an_episode(registered):
    # No reward has been paid yet that could be compared.
    name = registered(UnseededBandit)
    environments = Environments(name, 1, SEEDS)
    assert not environments.repeatable()
    with pytest.raises(
        PlasticError, match=f"{name} is not determined by its seed and actions.*self.np_random"
    ) as raised:
        Environments(name, 1, SEEDS).load_state_dict(environments.state_dict())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("made", [SeededBandit, GloballySeededBandit])
@pytest.mark.parametrize("done", [0, 7])
def test_seeded_random_rewards_are_resumed(registered, made, done):
    name = registered(made)
    environments, again = Environments(name, 1, SEEDS), Environments(name, 1, SEEDS)
    for _ in range(done):
        environments.step(np.array([1]))
    assert environments.repeatable()
    again.load_state_dict(environments.state_dict())
    actions = actions_of(environments, 30)
    assert_same(play(again, actions), play(environments, actions))


def test_an_error_after_other_actions_does_not_make_an_environment_unrepeatable(registered):
    class Fragile(SeededBandit):
        def step(self, action):
            if self.time == 5 and action == 1:
                raise OSError("broken")
            return super().step(action)

    assert Environments(registered(Fragile), 1, SEEDS).repeatable()


# ------------------------------------------------------------------------------------------------- options and limits


@pytest.mark.parametrize("start", [0, 5, -2])
def test_actions_are_counted_from_zero_for_any_first_action(start):
    environments = Environments(COUNTING, 3, SEEDS, options={"start": start})
    assert environments.action_count == 3
    transition = environments.step(np.array([0, 1, 2]))
    np.testing.assert_array_equal(transition.rewards, [start, start + 1, start + 2])
    # Rebuilding an episode takes the same actions.
    resumed = Environments(COUNTING, 3, SEEDS, options={"start": start})
    resumed.load_state_dict(environments.state_dict())
    np.testing.assert_array_equal(resumed.observations, environments.observations)


@pytest.mark.parametrize(("limit", "length"), [(1, 1), (3, 3), (9, 4), (None, 4)])
def test_an_episode_ends_at_its_limit_of_steps(limit, length):
    environments = Environments(COUNTING, 1, SEEDS, max_steps=limit)
    seen = play(environments, np.ones((length, 1), np.int64))
    assert [step["finished"] for step in seen] == [*[[]] * (length - 1), [(float(length), length)]]
    assert bool(seen[-1]["truncated"][0]) == (limit in (1, 3))
    assert bool(seen[-1]["terminated"][0]) == (limit not in (1, 3))


def test_a_step_limit_may_be_longer_than_the_registered_one():
    assert gym.spec("MountainCar-v0").max_episode_steps == 200
    environments = Environments("MountainCar-v0", 1, SEEDS, max_steps=230)
    seen = play(environments, np.ones((230, 1), np.int64))
    assert [index for index, step in enumerate(seen) if step["truncated"].any()] == [229]


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("CartPol-v1", ["CartPol-v1", "Did you mean 'CartPole-v1'?"]),
        ("plastic/GoNoGo-v0", ["Did you mean 'plastic/GoNogo-v0'?"]),
        ("CartPole-v999", ["there is no such Gymnasium environment", "Did you mean 'CartPole-v1'?"]),
        ("nobody/Knows-v0", ["there is no such Gymnasium environment", "Examples: CartPole-v1, plastic/GoNogo-v0"]),
        ("a_module_that_nobody_has:Knows-v0", ["there is no module a_module_that_nobody_has"]),
        ("", ["Malformed environment ID"]),
        ("Pendulum-v1", ["continuous (a Box of shape (1,))", "Discrete", "CartPole-v1"]),
        ("plastic-tests/SeveralActions-v0", ["its actions are a MultiDiscrete", "Discrete"]),
        (
            "plastic-tests/Images-v0",
            ["arrays of shape (8, 8, 3)", "Choose an environment whose observations are vectors", "CartPole-v1"],
        ),
        (
            "plastic-tests/Words-v0",
            ["its observations are a Discrete", "Choose an environment whose observations are vectors"],
        ),
    ],
)
def test_an_unsuitable_environment_is_refused_in_one_line(env, words):
    for refused in (lambda: make_environment(env), lambda: Environments(env, 2, SEEDS)):
        with pytest.raises(UserError) as raised:
            refused()
        message = str(raised.value)
        assert message.startswith(f"--env {env}: ")
        assert "\n" not in message
        assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"options": {"dellay": 3}},
            (
                "the environment has no option dellay. Did you mean 'delay'? Its options: trials, sigma,"
                " reward_correct, reward_fail, reward_miss, reward_abort, abort, fixation, stimulus, delay,"
                " decision, go_probability, reward_reject."
            ),
        ),
        (
            {"options": {"delay": -1}},
            (
                "the environment cannot be created with these options:"
                " delay must be a whole number of at least 0, not -1."
            ),
        ),
    ],
)
def test_a_wrong_option_is_named_with_the_valid_ones(arguments, words):
    with pytest.raises(UserError) as raised:
        make_environment("plastic/GoNogo-v0", **arguments)
    assert str(raised.value) == f"--env plastic/GoNogo-v0: {words}"


def test_a_limit_of_no_steps_is_named():
    with pytest.raises(UserError, match=r"--env plastic/GoNogo-v0: .*: Expect the `max_episode_steps` to be positive"):
        make_environment("plastic/GoNogo-v0", max_steps=0)


def test_options_of_a_class_that_takes_any_are_checked_by_the_class():
    def made(**options):
        raise TypeError(f"no {min(options)} today")

    gym.register("plastic-tests/Any-v0", made)
    try:
        with pytest.raises(
            UserError, match=r"--env plastic-tests/Any-v0: the environment cannot be created with .*: no such today\.$"
        ):
            make_environment("plastic-tests/Any-v0", options={"such": 1})
    finally:
        del gym.registry["plastic-tests/Any-v0"]


OWN = """
import gymnasium, numpy

class Own(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)

gymnasium.register("Own-v0", Own)
gymnasium.register("Own-v3", Own)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    name = f"own_environment_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield name
    sys.modules.pop(name, None)
    for env in ("Own-v0", "Own-v3"):
        gym.registry.pop(env, None)


def test_a_module_of_the_working_directory_is_found_and_the_path_stays_as_it_was(own_module):
    before = list(sys.path)
    assert make_environment(f"{own_module}:Own-v0").observation_space.shape == (3,)
    assert sys.path == before


@pytest.mark.parametrize("typed", ["{}.py:Own-v0", "./{}.py:Own-v0", "./{}:Own-v0"])
def test_a_file_name_instead_of_a_module_is_corrected(own_module, typed):
    with pytest.raises(UserError, match=f"write {own_module}:Own-v0") as raised:
        make_environment(typed.format(own_module))
    assert "\n" not in str(raised.value)


def test_a_missing_module_is_named_with_where_to_put_it():
    with pytest.raises(UserError, match=r"no module nowhere to import\. Start plastic in the folder .* PYTHONPATH"):
        make_environment("nowhere:Own-v0")


def test_an_unknown_option_of_an_own_environment_is_named(own_module):
    with pytest.raises(UserError, match=r"the environment has no option speed\. Its options: none"):
        make_environment(f"{own_module}:Own-v0", options={"speed": 2})


def test_the_module_of_the_tasks_is_found_under_its_former_name():
    assert make_environment("plastic_mpn.tasks:plastic/GoNogo-v0", options={"delay": 3}).spec.id == "plastic/GoNogo-v0"
    assert versioned_id("plastic_mpn.tasks:plastic/GoNogo") == "plastic_mpn.environments.tasks:plastic/GoNogo-v0"


def test_an_id_gets_its_newest_version(own_module):
    assert versioned_id("CartPole") == "CartPole-v1"
    assert versioned_id("plastic/GoNogo") == "plastic/GoNogo-v0"
    assert versioned_id(f"{own_module}:Own") == f"{own_module}:Own-v3"
    for env in ("CartPole-v0", "NoSuch", "nowhere:Own", "no/such/name", ""):
        assert versioned_id(env) == env


class Failing(gym.Env):
    """Fails in the way `how` at the third step or in reset()."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, how):
        self.how = how

    def reset(self, *, seed=None, options=None):
        if self.how == "reset":
            raise OSError("no such track")
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.time += 1
        seen = np.zeros(3, np.float32)
        if self.time == 3:
            if self.how == "step":
                raise ZeroDivisionError("the track\nis empty")
            seen[1] = {"nan": np.nan, "infinite": -np.inf}.get(self.how, 0)
        return seen, math.nan if self.how == "reward" and self.time == 3 else 1.0, self.time == 5, False, {}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("reset", r"Failing-v0: its reset\(\) failed with OSError: no such track\. Add --debug"),
        ("step", r"Failing-v0: its step\(\) failed with ZeroDivisionError: the track\. Add --debug"),
        ("nan", r"Failing-v0: the observation of step\(\) holds nan \(number 1\)"),
        ("infinite", r"Failing-v0: the observation of step\(\) holds -inf \(number 1\)"),
        ("reward", r"Failing-v0: the reward of step\(\) is nan"),
    ],
)
def test_a_failing_environment_is_named_with_its_error(how, words):
    gym.register("plastic-tests/Failing-v0", Failing)
    try:
        with pytest.raises(RunFailed, match=words) as training:
            environments = Environments("plastic-tests/Failing-v0", 2, SEEDS, options={"how": how})
            for _ in range(3):
                environments.step(np.zeros(2, int))
        with pytest.raises(RunFailed, match=words):
            network = MPNDQN(3, 4, 2)
            GreedyEpisodes("plastic-tests/Failing-v0", options={"how": how}).returns(network, [1, 2])
    finally:
        del gym.registry["plastic-tests/Failing-v0"]
    assert "\n" not in str(training.value)


class Odd(gym.Env):
    """Returns its arguments `seen`, `reward`, `terminated`, `truncated` and `info` from reset() and step()."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, at="step", **returned):
        right = {"seen": np.zeros(2, np.float32), "reward": 1.0, "terminated": False, "truncated": False, "info": {}}
        self.right, self.odd, self.at = right, {**right, **returned}, at

    def reset(self, *, seed=None, options=None):
        now = self.odd if self.at == "reset" else self.right
        return now["seen"], now["info"]

    def step(self, action):
        return tuple(self.odd.values())


@pytest.mark.parametrize("at", ["reset", "step"])
@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"seen": np.zeros((2, 1))}, r"the observation of AT has the shape \(2, 1\), but .* has the shape \(2,\)"),
        ({"seen": np.zeros(3)}, r"the observation of AT has the shape \(3,\), but .* has the shape \(2,\)"),
        ({"seen": np.zeros(1)}, r"the observation of AT has the shape \(1,\), but .* has the shape \(2,\)"),
        ({"seen": 0.5}, r"the observation of AT has the shape \(\), but .* has the shape \(2,\)"),
        ({"seen": None}, "the observation of AT is None; it must be an array of numbers"),
        ({"seen": [[0.0], [1.0, 2.0]]}, r"the observation of AT is \[\[0.0\], \[1.0, 2.0\]\]; it must be"),
        ({"seen": ["1", "2"]}, r"the observation of AT is \['1', '2'\]; it must be an array of numbers"),
        ({"seen": np.zeros(2, complex)}, "the observation of AT is array.* it must be an array of numbers"),
        ({"seen": {"position": 1}}, "the observation of AT is {'position': 1}; it must be an array of numbers"),
        ({"seen": [1e300, 0]}, r"the observation of AT holds 1e\+300 \(number 0\).*32-bit"),
        ({"info": None}, "the info of AT is None; it must be a dictionary"),
        ({"info": [1]}, r"the info of AT is \[1\]; it must be a dictionary"),
    ],
)
def test_an_invalid_observation_or_info_is_reported_in_one_line(registered, at, returned, words):
    name = registered(lambda: Odd(at, **returned))
    with pytest.raises(RunFailed, match=f"{name}: {words.replace('AT', at + r'..')}") as raised:
        Environments(name, 1, SEEDS).step(np.array([0]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"reward": None}, "the reward of step() is None; it must be one number"),
        ({"reward": np.ones(3)}, "the reward of step() is array([1., 1., 1.]); it must be one number"),
        ({"reward": "1"}, "the reward of step() is '1'; it must be one number"),
        ({"reward": 1j}, "the reward of step() is 1j; it must be one number"),
        ({"terminated": None}, "terminated of step() is None; it must be True or False"),
        ({"terminated": np.array([True, False])}, "terminated of step() is array([ True, False]); it must be True or"),
        ({"truncated": "no"}, "truncated of step() is 'no'; it must be True or False"),
        ({"truncated": 2}, "truncated of step() is 2; it must be True or False"),
    ],
)
def test_an_invalid_reward_or_end_is_reported_in_one_line(registered, returned, words):
    name = registered(lambda: Odd(**returned))
    with pytest.raises(RunFailed) as raised:
        Environments(name, 1, SEEDS).step(np.array([0]))
    assert f"{name}: {words}" in str(raised.value)


@pytest.mark.parametrize(
    "returned",
    [
        {"seen": np.zeros(2, np.int64)},
        {"seen": [0, 1]},
        {"seen": np.zeros(2, np.bool_)},
        {"reward": np.float32(1)},
        {"reward": np.array([[1.0]])},
        {"reward": True},
        {"terminated": np.False_, "truncated": np.array([0])},
    ],
)
def test_equivalent_types_are_accepted(registered, returned):
    transition = Environments(registered(lambda: Odd(**returned)), 1, SEEDS).step(np.array([0]))
    assert transition.next_observations.dtype == np.float32
    assert transition.rewards.tolist() == [1.0]
    assert not transition.terminated.any()
    assert not transition.truncated.any()


def test_an_episode_may_be_terminated_and_truncated_at_once(registered):
    environments = Environments(registered(lambda: Odd(terminated=True, truncated=True)), 2, SEEDS)
    transition = environments.step(np.array([0, 1]))
    assert transition.terminated.all()
    assert transition.truncated.all()
    assert environments.finished == [(1.0, 1), (1.0, 1)]
    assert episodes_begun(environments) == 4


def test_an_environment_without_spaces_is_refused(registered):
    class Bare(gym.Env):
        pass

    with pytest.raises(UserError, match="the environment has no observation_space or no action_space"):
        make_environment(registered(Bare))


def test_versions_of_gymnasium_and_of_the_environments_package_are_found(own_module, registered):
    gymnasium_alone = {"gymnasium": gym.__version__}
    assert package_versions(make_environment("CartPole-v1")) == gymnasium_alone
    assert package_versions(make_environment("plastic/GoNogo-v0")) == gymnasium_alone

    # A class of an installed package, whose name is not the module's.
    made = registered(type("Elsewhere", (Odd,), {"__module__": "sklearn.somewhere"}))
    expected = gymnasium_alone | {"scikit-learn": version("scikit-learn")}
    assert package_versions(make_environment(made)) == expected

    # A file that belongs to no package: its content is its version.
    digest = hashlib.sha256(OWN.encode()).hexdigest()[:12]
    expected = gymnasium_alone | {own_module: f"sha256 {digest}"}
    assert package_versions(make_environment(f"{own_module}:Own-v0")) == expected


@pytest.mark.parametrize(("env", "limited"), [("plastic/GoNogo-v0", True), ("CartPole-v1", True), (COUNTING, False)])
def test_environments_with_a_step_limit_are_limited(env, limited):
    assert Environments(env, 1, SEEDS).limited is limited


def test_a_missing_library_of_an_environment_is_named():
    def made(**_):
        raise gym.error.DependencyNotInstalled("Box9D is not installed, run `pip install box9d`.")

    gym.register("plastic-tests/Lacking-v0", made)
    try:
        with pytest.raises(UserError, match=r"--env plastic-tests/Lacking-v0: Box9D is not installed, run `pip"):
            make_environment("plastic-tests/Lacking-v0")
    finally:
        del gym.registry["plastic-tests/Lacking-v0"]


def test_options_reach_the_environment():
    short, long = (make_environment("plastic/GoNogo-v0", options={"delay": delay}) for delay in (2, 30))
    assert (short.unwrapped.delay, long.unwrapped.delay) == (2, 30)


# --------------------------------------------------------------------------------------------------- greedy episodes


def greedy_returns(network, env, seeds, **options):
    """One episode after the other, with a batch of one."""
    returns = []
    for seed in seeds:
        environment = make_environment(env, **options)
        first = int(environment.action_space.start)
        seen, _ = environment.reset(seed=seed)
        state, total, over = network.init_state(1), 0.0, False
        while not over:
            action, state = network.select_action(torch.as_tensor(seen, dtype=torch.float32)[None], state)
            seen, reward, terminated, truncated, _ = environment.step(first + action)
            total, over = total + reward, terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("core", ["mpn", "lstm", "mlp"])
@pytest.mark.parametrize("parallel", [1, 4, 100])
def test_parallel_greedy_episodes_equal_single_ones(core, parallel):
    plasticity = {"eta": 1.0} if core == "mpn" else {}
    network = MPNDQN(2, 8, 3, core=core, generator=torch.Generator().manual_seed(0), **plasticity)
    seeds = evaluation_seeds(SEEDS, 9)
    episodes = GreedyEpisodes("plastic-tests/Noise-v0", max_steps=30, parallel=parallel)
    found = episodes.returns(network, seeds)
    wanted = greedy_returns(network, "plastic-tests/Noise-v0", seeds, max_steps=30)
    assert len(set(wanted)) == 9
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_array_equal(episodes.returns(network, seeds), found)
    np.testing.assert_array_equal(episodes.returns(network, seeds[3:5]), found[3:5])


def test_greedy_episodes_count_actions_from_the_first_and_take_options():
    network = MPNDQN(2, 4, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    episodes = GreedyEpisodes(COUNTING, options={"start": 5, "length": 6})
    np.testing.assert_array_equal(episodes.returns(network, [1, 2]), [42.0, 42.0])
    assert GreedyEpisodes(COUNTING, options={"start": 5}, max_steps=2).returns(network, [1])[0] == 14


def test_evaluation_seeds_come_from_the_seed_sequence():
    seeds = evaluation_seeds(SEEDS, 200)
    assert len(set(seeds)) == 200
    assert seeds[:50] == evaluation_seeds(seed_sequence(3, "environments"), 50)
    assert not set(seeds) & set(evaluation_seeds(seed_sequence(3, "test episodes"), 200))
    assert all(0 <= seed < 2**31 for seed in seeds)
