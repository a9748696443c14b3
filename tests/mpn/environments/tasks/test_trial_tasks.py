"""The trial tasks: observations, correct actions, rewards, and their dependence on the seed."""

import importlib.util
import inspect
import subprocess
import sys
import warnings
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_mpn.environments.tasks import TASKS, register_tasks

MATCH = "plastic/DelayedMatchToSample-v0"
GO_NOGO = "plastic/GoNogo-v0"
PERCEPTUAL = "plastic/PerceptualDecisionMaking-v0"
CONTEXT = "plastic/ContextDecisionMaking-v0"
CARTPOLE = "plastic/CartPoleNoVelocity-v1"
TRIAL_TASKS = (MATCH, GO_NOGO, PERCEPTUAL, CONTEXT)
CHOICE_TASKS = (MATCH, PERCEPTUAL, CONTEXT)


def exists(task):
    module = gymnasium.spec(task).entry_point.split(":")[0]
    return importlib.util.find_spec(module) is not None


def follow(task, policy, seed=0, **options):
    """One episode: a list of (observation, info, action, reward, info after it)."""
    env = gymnasium.make(task, **options)
    generator = np.random.default_rng(1000 + seed)
    observation, info = env.reset(seed=seed)
    steps, over = [], False
    while not over:
        action = policy(info, env.action_space.n, generator)
        following, reward, terminated, truncated, after = env.step(action)
        steps.append((observation, info, action, reward, after))
        observation, info, over = following, after, terminated or truncated
    return steps


def oracle(info, actions, generator):
    return info["target"]


def never(info, actions, generator):
    return 0


def wrong(info, actions, generator):
    """Fixates until the decision, then takes the other response."""
    if info["period"] != "decision":
        return 0
    return (info["target"] + 1) % 2 if actions == 2 else 3 - info["target"]


def at_random(info, actions, generator):
    return int(generator.integers(actions))


def total(steps):
    return sum(step[3] for step in steps)


def trials_of(steps):
    """The steps of each trial."""
    trials = {}
    for step in steps:
        trials.setdefault(step[1]["trial"], []).append(step)
    return list(trials.values())


def shown(trial, period):
    """The observations of one period of one trial: (time, entries)."""
    width = len(trial[0][0])
    return np.array([step[0] for step in trial if step[1]["period"] == period], np.float64).reshape(-1, width)


# Gymnasium's own rules


@pytest.mark.parametrize("task", TASKS)
def test_the_environment_checker_finds_no_problem(task):
    if not exists(task):
        pytest.skip("not part of this installation")
    env = gymnasium.make(task).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not np.all(np.isfinite(env.observation_space.high)):
            # Gaussian inputs without bounds, as the published task has them.
            assert "integration" in gymnasium.spec(task).entry_point
            warnings.filterwarnings("ignore", message=".*infinity.*")
        modes = env.metadata["render_modes"]
        check_env(env, skip_render_check=not modes or "human" in modes)
        made = gymnasium.make(task)
        made.reset(seed=1)
        for _ in range(60):
            _, _, terminated, truncated, _ = made.step(made.action_space.sample())
            if terminated or truncated:
                made.reset()


@pytest.mark.parametrize("task", TASKS)
def test_observations_are_vectors_and_actions_are_numbered(task):
    if not exists(task):
        pytest.skip("not part of this installation")
    env = gymnasium.make(task)
    assert isinstance(env.observation_space, gymnasium.spaces.Box)
    assert env.observation_space.dtype == np.float32
    assert len(env.observation_space.shape) == 1
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    if "integration" not in gymnasium.spec(task).entry_point:
        assert len(env.unwrapped.entries) == env.observation_space.shape[0]
        assert len(env.unwrapped.actions) == env.action_space.n


def test_registering_again_changes_nothing():
    before = {task: gymnasium.spec(task) for task in TASKS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_tasks()
    assert all(gymnasium.spec(task) is before[task] for task in TASKS)
    assert {task for task in gymnasium.registry if task.startswith("plastic/")} == set(TASKS)
    assert all(line and "\n" not in line for line in TASKS.values())


def test_gymnasium_can_import_the_tasks_and_the_import_is_light():
    code = (
        "import sys, gymnasium;"
        f"env = gymnasium.make('plastic_mpn.environments.tasks:{GO_NOGO}', delay=2);"
        "assert env.unwrapped.delay == 2;"
        "assert 'torch' not in sys.modules and 'plastic_mpn.environments.tasks.context_decision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_environments_run_in_parallel(task):
    many = gymnasium.make_vec(task, num_envs=3, vectorization_mode="sync", vector_kwargs={}, sigma=0.3, trials=2)
    observations, infos = many.reset(seed=[4, 5, 6])
    alone = [gymnasium.make(task, sigma=0.3, trials=2) for _ in range(3)]
    expected = [env.reset(seed=seed)[0] for env, seed in zip(alone, (4, 5, 6), strict=True)]
    np.testing.assert_array_equal(observations, expected)
    for _ in range(12):
        actions = infos["target"]
        observations, _, _, _, infos = many.step(actions)
        expected = [env.step(action)[0] for env, action in zip(alone, actions, strict=True)]
        np.testing.assert_array_equal(observations, expected)


# Chance


@pytest.mark.parametrize("task", (*TRIAL_TASKS, CARTPOLE))
def test_seed_and_actions_determine_an_episode(task):
    first, again, other = (follow(task, at_random, seed) for seed in (7, 7, 8))
    assert len(first) == len(again)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:] == two[1:]
    together = [(one, two) for one, two in zip(first, other, strict=False) if not np.array_equal(one[0], two[0])]
    assert together


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_trials_do_not_depend_on_the_actions(task):
    options = {"trials": 20, "delay": (0, 3, 9)}
    facts = []
    for policy, abort in ((oracle, False), (never, False), (at_random, True)):
        first_infos = [trial[0][1] for trial in trials_of(follow(task, policy, 5, abort=abort, **options))]
        facts.append([{name: value for name, value in info.items() if name != "correct"} for info in first_infos])
    assert facts[0] == facts[1] == facts[2]
    assert len(facts[0]) == 20


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_trials_do_not_depend_on_the_noise_level(task):
    quiet, loud = (follow(task, oracle, 5, sigma=sigma) for sigma in (0.0, 2.0))
    for one, two in zip(quiet, loud, strict=True):
        assert {k: v for k, v in one[1].items() if "evidence" not in k} == {
            k: v for k, v in two[1].items() if "evidence" not in k
        }


# Rewards


@pytest.mark.parametrize("task", CHOICE_TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_correct_actions_get_the_maximum_and_wrong_ones_nothing(task, seed):
    best = follow(task, oracle, seed)
    assert total(best) == 10
    assert [step[4]["correct"] for step in best if step[4]["correct"] is not None] == [True] * 10
    worst = follow(task, wrong, seed, reward_fail=-0.7)
    assert total(worst) == pytest.approx(-7)
    assert [step[4]["correct"] for step in worst if step[4]["correct"] is not None] == [False] * 10


@pytest.mark.parametrize("seed", range(3))
def test_go_nogo_rewards_only_responses_in_go_trials(seed):
    best = follow(GO_NOGO, oracle, seed, trials=40)
    going = sum(trial[0][1]["sample"] for trial in trials_of(best))
    assert 0 < going < 40
    assert total(best) == going
    assert total(follow(GO_NOGO, oracle, seed, trials=40, reward_reject=0.25)) == going + 0.25 * (40 - going)
    assert total(follow(GO_NOGO, wrong, seed, trials=40)) == -0.5 * 40
    assert total(follow(GO_NOGO, never, seed, trials=40)) == -0.5 * going
    assert total(follow(GO_NOGO, never, seed, trials=40, reward_miss=-2.0, reward_reject=1.0)) == 40 - 3 * going
    outcomes = [
        step[4]["correct"] for step in follow(GO_NOGO, never, seed, trials=40) if step[4]["correct"] is not None
    ]
    assert outcomes.count(True) == 40 - going


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_random_actions_are_worse_than_correct_ones(task):
    assert total(follow(task, at_random, 2, trials=30)) < 0.6 * total(follow(task, oracle, 2, trials=30))


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_no_response_is_a_miss_at_the_end_of_the_decision_period(task):
    steps = follow(task, never, trials=3, decision=4, reward_miss=-0.25)
    assert total(steps) == -0.75
    for trial in trials_of(steps):
        assert [step[1]["period"] for step in trial].count("decision") == 4
        assert [step[4]["correct"] for step in trial] == [None] * (len(trial) - 1) + [False]


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_the_first_response_in_the_decision_period_ends_the_trial(task):
    for trial in trials_of(follow(task, oracle, trials=3, decision=4)):
        assert [step[1]["period"] for step in trial].count("decision") == 1


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_breaking_fixation_is_penalized_at_each_step_and_ends_the_trial_only_with_abort(task):
    def impatient(info, actions, generator):
        return 1 if info["period"] != "decision" else info["target"]

    patient = follow(task, oracle, trials=4)
    early = sum(step[1]["period"] != "decision" for step in patient)
    steps = follow(task, impatient, trials=4, reward_abort=-0.5)
    assert len(steps) == len(patient)
    assert total(steps) == pytest.approx(total(patient) - 0.5 * early)
    ended = follow(task, impatient, trials=4, reward_abort=-0.5, abort=True)
    assert len(ended) == 4
    assert [step[4]["correct"] for step in ended] == [False] * 4
    assert total(ended) == -2


# What is shown


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_fixation_and_go_mark_the_decision_period_without_noise(task):
    for observation, info, *_ in follow(task, at_random, trials=5, sigma=0.7):
        deciding = info["period"] == "decision"
        assert (observation[0], observation[-1]) == ((0, 1) if deciding else (1, 0))
        if not deciding:
            assert info["target"] == 0


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_an_episode_has_its_trials_and_ends_in_zeros(task):
    env = gymnasium.make(task, trials=3)
    observation, info = env.reset(seed=0)
    assert info["correct"] is None
    seen, over = [], False
    while not over:
        seen.append((info["trial"], info["trial_step"]))
        observation, _, over, truncated, info = env.step(info["target"])
        assert not truncated
    assert [trial for trial, step in seen if step == 0] == [0, 1, 2]
    for (trial, step), (next_trial, next_step) in pairwise(seen):
        assert (next_trial, next_step) in ((trial, step + 1), (trial + 1, 0))
    np.testing.assert_array_equal(observation, 0)
    assert (info["period"], info["target"], info["correct"]) == ("end", 0, True)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.unwrapped.step(0)
    assert env.reset(seed=0)[1]["trial"] == 0


@pytest.mark.parametrize("task", TRIAL_TASKS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_periods_have_their_durations_and_observations_their_bounds(task, data):
    names = gymnasium.make(task).unwrapped.periods
    durations = {name: data.draw(st.integers(int(name == "decision"), 6), label=name) for name in names}
    sigma = data.draw(st.sampled_from((0.0, 0.1, 3.0)), label="sigma")
    space = gymnasium.make(task, sigma=sigma).observation_space
    for trial in trials_of(follow(task, never, trials=2, sigma=sigma, **durations)):
        assert [step[1]["period"] for step in trial] == [name for name in names for _ in range(durations[name])]
        assert all(step[0] in space for step in trial)


def test_a_period_with_several_durations_draws_them_equally_often():
    lengths = [len(shown(trial, "delay")) for trial in trials_of(follow(GO_NOGO, never, trials=1200, delay=[0, 2, 7]))]
    counts = [lengths.count(n) for n in (0, 2, 7)]
    assert sum(counts) == 1200
    # Five standard deviations of a binomial count.
    assert all(abs(count - 400) < 5 * np.sqrt(1200 * 2 / 9) for count in counts)


@pytest.mark.parametrize(("task", "first", "last"), [(MATCH, 1, -1), (PERCEPTUAL, 1, -1), (CONTEXT, 1, 5)])
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_delay_shows_only_noise(task, first, last, sigma):
    noise = np.concatenate(
        [
            shown(trial, "delay")[:, first:last]
            for trial in trials_of(follow(task, oracle, trials=60, sigma=sigma, delay=50))
        ]
    )
    assert np.all(np.abs(noise.mean(axis=0)) < 5 * sigma / np.sqrt(len(noise)))
    assert np.all(np.abs(noise.std(axis=0) / sigma - 1) < 5 / np.sqrt(2 * len(noise)))
    assert np.all(np.abs(np.corrcoef(noise.T) - np.eye(noise.shape[1])) < 5 / np.sqrt(len(noise)))
    following = noise[1:] * noise[:-1] / sigma**2
    assert np.all(np.abs(following.mean(axis=0)) < 5 / np.sqrt(len(following)))
    blank = [
        shown(trial, "delay")[:, first:last] for trial in trials_of(follow(task, oracle, trials=5, sigma=0.0, delay=4))
    ]
    np.testing.assert_array_equal(blank, 0)


def test_go_nogo_shows_the_stimulus_only_in_its_period():
    for trial in trials_of(follow(GO_NOGO, oracle, trials=20)):
        sample = trial[0][1]["sample"]
        np.testing.assert_array_equal(shown(trial, "stimulus")[:, 1:3], np.eye(2)[[sample] * 5])
        np.testing.assert_array_equal(shown(trial, "delay")[:, 1:3], 0)
        assert all(step[1]["target"] == sample for step in trial if step[1]["period"] == "decision")


@pytest.mark.parametrize("directions", [2, 3, 8])
def test_match_agrees_with_the_shown_sample_and_test(directions):
    shape = lambda center: (1 + np.cos(2 * np.pi * (np.arange(directions) - center) / directions)) / 2  # noqa: E731
    for trial in trials_of(follow(MATCH, oracle, trials=40, sigma=0.0, directions=directions)):
        info = trial[-1][1]
        np.testing.assert_allclose(shown(trial, "sample")[:, 1:-1], [shape(info["sample"])] * 5, atol=1e-6)
        np.testing.assert_allclose(shown(trial, "test")[:, 1:-1], [shape(info["test"])] * 5, atol=1e-6)
        same = np.allclose(shown(trial, "sample")[0], shown(trial, "test")[0], atol=1e-6)
        assert info["match"] == same == (info["sample"] == info["test"])
        assert info["target"] == (1 if same else 2)


def test_samples_tests_and_matches_are_balanced():
    directions, count = 4, 3000
    short = {"fixation": 0, "sample": 1, "delay": 0, "test": 1, "decision": 1}
    steps = follow(MATCH, never, trials=count, directions=directions, **short)
    infos = [trial[0][1] for trial in trials_of(steps)]
    assert abs(sum(info["match"] for info in infos) - count / 2) < 5 * np.sqrt(count / 4)
    pairs = np.zeros((directions, directions))
    for info in infos:
        pairs[info["sample"], info["test"]] += 1
    share = np.where(np.eye(directions, dtype=bool), 1 / 2 / directions, 1 / 2 / directions / (directions - 1))
    assert np.all(np.abs(pairs - count * share) < 5 * np.sqrt(count * share * (1 - share)))
    always = follow(MATCH, never, trials=50, match_probability=1.0, **short)
    assert all(info["match"] for _, info, *_ in always)
    going = [info["sample"] for _, info, *_ in follow(GO_NOGO, never, trials=2000, stimulus=0, delay=0, decision=1)]
    assert abs(sum(going) - 1000) < 5 * np.sqrt(500)
    rare = [
        info["sample"]
        for _, info, *_ in follow(GO_NOGO, never, trials=2000, stimulus=0, delay=0, decision=1, go_probability=0.1)
    ]
    assert abs(sum(rare) - 200) < 5 * np.sqrt(180)


@pytest.mark.parametrize("coherence", [0.0, 0.128, 1.0])
def test_the_mean_of_the_evidence_is_the_coherence(coherence):
    sigma, stimulus, count = 0.5, 20, 200
    steps = follow(PERCEPTUAL, never, trials=count, sigma=sigma, coherences=coherence, stimulus=stimulus)
    favored = []
    for trial in trials_of(steps):
        facts = trial[0][1]
        assert abs(facts["coherence"]) == coherence
        side = trial[-1][1]["target"]
        if coherence:
            assert (side == 1) == (facts["coherence"] > 0)
        inputs = shown(trial, "stimulus")[:, 1:3]
        running = np.cumsum(inputs[:, 0] - inputs[:, 1])
        evidence = [step[1]["evidence"] for step in trial]
        np.testing.assert_allclose(evidence, np.concatenate([[0], running, [running[-1]] * 11]), atol=1e-4)
        favored.append(running[-1] / stimulus * (1 if side == 1 else -1))
    standard_error = sigma * np.sqrt(2 / stimulus / count)
    assert abs(np.mean(favored) - coherence) < 5 * standard_error
    assert abs(np.std(favored) / (sigma * np.sqrt(2 / stimulus)) - 1) < 5 / np.sqrt(2 * count)


def test_coherences_and_sides_are_equally_frequent():
    steps = follow(PERCEPTUAL, never, trials=2500, fixation=0, stimulus=1, delay=0)
    infos = [info for _, info, *_ in steps if info["period"] == "decision"]
    assert len(infos) == 2500
    strengths = np.abs([info["coherence"] for info in infos])
    assert all(abs(np.sum(strengths == c) - 500) < 5 * np.sqrt(400) for c in (0.0, 0.064, 0.128, 0.256, 0.512))
    assert abs(sum(info["target"] == 1 for info in infos) - 1250) < 5 * np.sqrt(625)


def test_the_context_selects_the_modality():
    steps = follow(CONTEXT, never, trials=600, sigma=0.0)
    infos = []
    for trial in trials_of(steps):
        info = trial[-1][1]
        infos.append(info)
        inputs = shown(trial, "stimulus")
        motion, color = inputs[:, 1] - inputs[:, 2], inputs[:, 3] - inputs[:, 4]
        np.testing.assert_allclose(inputs[:, 1] + inputs[:, 2], 1, atol=1e-6)
        np.testing.assert_allclose(motion, info["coherence_motion"], atol=1e-6)
        np.testing.assert_allclose(color, info["coherence_color"], atol=1e-6)
        relevant = {"motion": motion, "color": color}[info["context"]]
        assert info["coherence"] == pytest.approx(relevant.mean(), abs=1e-6)
        assert info["target"] == (1 if relevant.mean() > 0 else 2)
        assert info["congruent"] == (motion.mean() * color.mean() > 0)
        assert info["evidence"] == pytest.approx(relevant.sum(), abs=1e-5)
        assert info["evidence_motion"] == pytest.approx(motion.sum(), abs=1e-5)
        assert info["evidence_color"] == pytest.approx(color.sum(), abs=1e-5)
        cue = [1, 0] if info["context"] == "motion" else [0, 1]
        assert all(list(step[0][5:7]) == cue for step in trial)
    for fact, value in (("context", "motion"), ("congruent", True), ("target", 1)):
        assert abs(sum(info[fact] == value for info in infos) - 300) < 5 * np.sqrt(150)
    # The two modalities tell nothing about each other.
    signs = np.array([[np.sign(info["coherence_motion"]), np.sign(info["coherence_color"])] for info in infos])
    assert abs(signs.prod(axis=1).mean()) < 5 / np.sqrt(600)
    only = follow(CONTEXT, never, trials=30, contexts="color")
    assert {info["context"] for _, info, *_ in only} == {"color"}


def test_perfect_integration_reaches_the_documented_accuracy():
    """Accuracy against the normal distribution: P(correct) = Phi(c sqrt(n) / (sigma sqrt(2)))."""
    from scipy.stats import norm

    sigma, stimulus, coherence, count = 0.5, 10, 0.128, 1500
    steps = follow(PERCEPTUAL, never, trials=count, sigma=sigma, stimulus=stimulus, delay=2, coherences=coherence)
    right = 0
    for trial in trials_of(steps):
        inputs = shown(trial, "stimulus")
        right += (1 if inputs[:, 1].sum() > inputs[:, 2].sum() else 2) == trial[-1][1]["target"]
    expected = norm.cdf(coherence * np.sqrt(stimulus) / (sigma * np.sqrt(2)))
    assert abs(right / count - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


# Arguments


@pytest.mark.parametrize("task", TRIAL_TASKS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay", -1),
        ("delay", 2.5),
        ("delay", True),
        ("delay", []),
        ("delay", [3, -1]),
        ("delay", "long"),
        ("decision", 0),
        ("decision", [2, 0]),
        ("fixation", -1),
        ("sigma", -0.1),
        ("sigma", float("nan")),
        ("sigma", float("inf")),
        ("sigma", "loud"),
        ("trials", 0),
        ("trials", 1.0),
        ("reward_correct", float("inf")),
        ("reward_fail", None),
        ("reward_miss", float("nan")),
        ("reward_abort", "-1"),
        ("abort", 1),
        ("render_mode", "ansi"),
    ],
)
def test_a_bad_argument_is_named(task, name, value):
    module, made = gymnasium.spec(task).entry_point.split(":")
    with pytest.raises(ValueError, match=f"^{name} must"):
        getattr(importlib.import_module(module), made)(**{name: value})


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [
        (MATCH, "directions", 1),
        (MATCH, "match_probability", 1.5),
        (MATCH, "sample", -2),
        (GO_NOGO, "go_probability", -0.1),
        (GO_NOGO, "reward_reject", float("nan")),
        (PERCEPTUAL, "coherences", 1.2),
        (PERCEPTUAL, "coherences", ()),
        (CONTEXT, "coherences", [0.5, -0.5]),
        (CONTEXT, "contexts", ["motion", "sound"]),
        (CONTEXT, "contexts", []),
    ],
)
def test_a_bad_argument_of_one_task_is_named_through_gymnasium_too(task, name, value):
    with pytest.raises(ValueError, match=name):
        gymnasium.make(task, **{name: value})


def test_an_unknown_argument_and_an_unknown_action_are_refused():
    with pytest.raises(TypeError, match="dealy"):
        gymnasium.make(GO_NOGO, dealy=3)
    env = gymnasium.make(GO_NOGO).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for action in (-1, 2):
        with pytest.raises(gymnasium.error.InvalidAction, match="0 to 1"):
            env.step(action)
    with pytest.raises(TypeError):
        env.step(0.6)
    env.step(np.int64(1))
    env.step(np.array(0))


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_every_argument_is_in_the_signature_with_its_default(task):
    made = type(gymnasium.make(task).unwrapped)
    signature = inspect.signature(made)
    assert {"delay", "decision", "sigma", "trials", "reward_abort", "abort", "render_mode"} <= set(signature.parameters)
    env = made()
    assert all(getattr(env, name) == given.default for name, given in signature.parameters.items())


# CartPole without velocities


@pytest.mark.parametrize("seed", range(5))
def test_cartpole_no_velocity_is_cartpole_without_two_entries(seed):
    whole, cut = gymnasium.make("CartPole-v1"), gymnasium.make(CARTPOLE)
    generator = np.random.default_rng(seed)
    seen, (observation, info) = whole.reset(seed=seed)[0], cut.reset(seed=seed)
    assert cut.observation_space.shape == (2,)
    np.testing.assert_array_equal(cut.observation_space.high, whole.observation_space.high[[0, 2]])
    over = False
    while not over:
        np.testing.assert_array_equal(observation, seen[[0, 2]])
        assert (info["cart_velocity"], info["pole_velocity"]) == (seen[1], seen[3])
        action = generator.integers(2)
        seen, *outcome, _ = whole.step(action)
        observation, *cut_outcome, info = cut.step(action)
        assert outcome == cut_outcome
        over = outcome[1] or outcome[2]
    np.testing.assert_array_equal(observation, seen[[0, 2]])


def test_cartpole_no_velocity_is_truncated_after_500_steps_and_can_be_drawn():
    env = gymnasium.make(CARTPOLE, render_mode="rgb_array")
    assert gymnasium.spec(CARTPOLE).max_episode_steps == gymnasium.spec("CartPole-v1").max_episode_steps == 500
    env.reset(seed=0, options={"low": -0.01, "high": 0.01})
    whole = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    whole.reset(seed=0, options={"low": -0.01, "high": 0.01})
    np.testing.assert_array_equal(env.render(), whole.render())
    env.close()
    whole.close()


# Pictures


@pytest.mark.parametrize("task", TRIAL_TASKS)
def test_pictures_follow_the_trial(task):
    env = gymnasium.make(task, render_mode="rgb_array", trials=2, sigma=0.2)
    env.reset(seed=0)
    pictures, over, info = [env.render()], False, {"target": 0}
    while not over:
        _, _, over, _, info = env.step(info["target"])
        pictures.append(env.render())
    assert all(picture.shape == (320, 464, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert all(np.any(one != two) for one, two in pairwise(pictures))
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), pictures[0])


def test_bars_have_the_lengths_of_their_values():
    from plastic_mpn.environments.tasks.picture import draw

    def bar(value):
        options = {"timeline": ["delay", "decision"], "step": None, "title": "", "action": "", "correct": None}
        image = draw(("only",), np.array([value], np.float32), **options)
        return int(np.all(image == (0, 114, 178), axis=2).any(axis=0).sum())

    unit = bar(1.0)
    assert unit > 50
    assert bar(0.5) == pytest.approx(unit / 2, abs=2)
    assert bar(-0.25) == pytest.approx(unit / 4, abs=2)
    assert bar(7.0) == bar(1.5) == pytest.approx(1.5 * unit, abs=2)
    assert bar(-7.0) == bar(-0.5)


def test_rendering_without_a_render_mode_warns():
    env = gymnasium.make(GO_NOGO).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="rgb_array"):
        assert env.render() is None
