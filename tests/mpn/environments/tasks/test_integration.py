"""The integration tasks against their definition: counts, order, vectors, evidence, periods and rewards."""

from __future__ import annotations

from itertools import pairwise, product

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plastic_mpn.environments.tasks.integration import (
    ContextIntegration,
    SimpleIntegration,
    batch,
    context_task,
    integration_task,
    with_novel_classes,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def counts_without_ties(classes, stimuli):
    """Every division of `stimuli` inputs among the classes and null that has no tie."""
    ways = [way for way in product(range(stimuli + 1), repeat=classes) if sum(way) <= stimuli]
    return [way for way in ways if way.count(max(way)) == 1]


@pytest.mark.parametrize(("classes", "stimuli"), [(2, 7), (3, 4), (4, 3)])
def test_every_count_without_a_tie_is_equally_likely(classes, stimuli):
    task = integration_task(generator(), classes=classes, steps=stimuli + 1, noise=0)
    ways = counts_without_ties(classes, stimuli)
    trials = batch(task, generator(1), 400 * len(ways))
    drawn = [tuple(counts) for counts in trials.evidence[-1].tolist()]
    observed = [drawn.count(way) for way in ways]
    assert sum(observed) == len(drawn)
    assert stats.chisquare(observed).pvalue > 1e-3


def test_every_order_of_the_same_counts_is_equally_likely():
    task = integration_task(generator(), classes=2, steps=5, noise=0)
    trials = batch(task, generator(2), 60_000)
    same = (trials.evidence[-1] == [2, 1]).all(1)
    orders, observed = np.unique(trials.indices[:4, same], axis=1, return_counts=True)
    assert orders.shape[1] == 12  # 4! / 2! orders of two, one and one null
    assert stats.chisquare(observed).pvalue > 1e-3


@given(
    classes=st.integers(2, 5),
    stimuli=st.integers(1, 12),
    delay=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_evidence_labels_and_inputs_agree_with_a_loop(classes, stimuli, delay, seed):
    steps = stimuli + delay + 1
    task = integration_task(generator(seed), classes=classes, steps=steps, delay=delay, dimension=12, noise=0)
    trials = batch(task, generator(seed + 1), 5)
    assert task.periods == ("stimulus",) * stimuli + ("delay",) * delay + ("go",)
    for trial in range(5):
        counts = [0] * classes
        for step, period in enumerate(task.periods):
            index = trials.indices[step, trial]
            if period == "stimulus":
                assert 0 <= index <= classes
                if index < classes:
                    counts[index] += 1
            else:
                assert index == classes + (1 if period == "go" else 2)
            assert trials.evidence[step, trial].tolist() == counts
            np.testing.assert_array_equal(trials.inputs[step, trial], task.vectors[index])
        assert counts.count(max(counts)) == 1
        assert counts.index(max(counts)) == trials.labels[trial]


def test_input_vectors_are_binary_distinct_and_have_unit_norm_on_average():
    vectors = integration_task(generator(), classes=2000).vectors
    assert set(np.unique(vectors)) == {np.float32(0), np.float32(np.sqrt(2 / 50))}
    assert len(np.unique(vectors, axis=0)) == 2003
    assert not vectors[-1].any()
    assert (vectors[:-1] ** 2).sum(1).mean() == pytest.approx(1, abs=0.02)
    narrow = integration_task(generator(), classes=2, dimension=3).vectors
    assert len(np.unique(narrow, axis=0)) == 5
    assert narrow[:-1].any(1).all()


def test_noise_has_its_norm_at_every_step():
    task = integration_task(generator(), steps=10, delay=4, noise=0.3)
    trials = batch(task, generator(1), 2000)
    noise = trials.inputs - task.vectors[trials.indices]
    np.testing.assert_allclose(np.sqrt((noise**2).sum(-1).mean(1)), 0.3, rtol=0.02)
    assert abs(noise.mean()) < 1e-3
    assert stats.kstest(noise.ravel()[:5000] * np.sqrt(50) / 0.3, "norm").pvalue > 1e-3


@pytest.mark.parametrize("task", [integration_task(generator()), context_task(generator())], ids=["simple", "context"])
def test_the_same_generator_gives_the_same_trials(task):
    first, second, other = (batch(task, generator(seed), 4) for seed in (3, 3, 4))
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.inputs != other.inputs).any()
    assert first.inputs.dtype == np.float32
    assert first.inputs.shape == (task.steps, 4, task.dimension)


def test_novel_classes_have_new_vectors_and_share_the_others():
    task = integration_task(generator(), classes=2, dimension=3)
    novel = with_novel_classes(task, generator(0))
    assert not (novel.vectors[:2, None] == task.vectors).all(-1).any()
    np.testing.assert_array_equal(novel.vectors[2:], task.vectors[2:])


@pytest.mark.parametrize("context", ["retrospective", "prospective"])
def test_context_trials_have_their_periods_inputs_and_labels(context):
    task = context_task(generator(), context, noise=0)
    assert task.steps == 40
    cue = ["delay"] * 10 + ["cue"] * 5 + ["delay"] * 5
    stimuli = ["stimulus"] * 19
    assert list(task.periods) == [*(stimuli + cue if context == "retrospective" else cue + stimuli), "go"]
    trials = batch(task, generator(1), 400)
    assert np.bincount(trials.cued).min() > 150
    for trial in range(20):
        for step, period in enumerate(task.periods):
            expected = np.concatenate([task.vectors[half, trials.indices[step, trial, half]] for half in (0, 1)])
            assert period == "stimulus" or (trials.indices[step, trial] == (3 if period == "go" else 4)).all()
            if period == "cue":
                expected = expected + task.cues[trials.cued[trial]]
            np.testing.assert_array_equal(trials.inputs[step, trial], expected)
    counted = trials.evidence[-1, np.arange(400), trials.cued]
    np.testing.assert_array_equal(counted.argmax(1), trials.labels)
    shown = (trials.indices[..., None] == [0, 1]).sum(0)
    np.testing.assert_array_equal(trials.evidence[-1], shown)
    ignored = trials.evidence[-1, np.arange(400), 1 - trials.cued].argmax(1)
    assert 0.4 < (ignored == trials.labels).mean() < 0.6
    sizes = (task.vectors[:, :-1] ** 2).sum(-1)
    assert set(np.unique(task.vectors)) == {np.float32(0), np.float32(np.sqrt(2 / 50))}
    assert sizes.mean() == pytest.approx(0.5, abs=0.1)


def play(environment, answer, episodes, seed=0):
    """Return the mean return and the periods of the last episode; `answer` takes the info of the observation."""
    total, periods = 0.0, []
    for episode in range(episodes):
        _, info = environment.reset(seed=seed if episode == 0 else None)
        assert info["correct"] is None
        ended, periods = False, [info["period"]]
        while not ended:
            _, reward, ended, truncated, info = environment.step(answer(info))
            assert not truncated
            assert reward == float(info["correct"] or 0)
            assert (info["correct"] is None) == (periods[-1] != "go")
            total += reward
            periods.append(info["period"])
    return total / episodes, periods


@pytest.mark.parametrize("environment", [SimpleIntegration, ContextIntegration])
def test_the_correct_action_gets_every_reward_and_the_opposite_none(environment):
    made = environment(classes=3, trials=2)
    oracle, periods = play(made, lambda info: info["target"], 10)
    assert oracle == 2
    assert periods == [*made.task.periods, *made.task.periods, "end"]
    assert play(made, lambda info: (info["target"] + 1) % 3, 10)[0] == 0


def test_only_the_answer_at_go_counts():
    made = SimpleIntegration(delay=3)
    early, _ = play(made, lambda info: info["target"] if info["period"] != "go" else 1 - info["target"], 10)
    late, _ = play(made, lambda info: info["target"] if info["period"] == "go" else 1 - info["target"], 10)
    assert (early, late) == (0, 1)


def test_observations_show_the_trial_and_the_evidence_determines_the_answer():
    made = SimpleIntegration(noise=0)
    for seed in range(5):
        observation, info = made.reset(seed=seed)
        evidence = np.zeros(2)
        while info["period"] != "end":
            np.testing.assert_array_equal(observation, made.task.vectors[info["input"]])
            if info["input"] < 2:
                evidence[info["input"]] += 1
            np.testing.assert_array_equal(info["evidence"], evidence)
            target = info["target"]
            observation, _, _, _, info = made.step(0)
        assert evidence.argmax() == target
        assert not observation.any()


def test_input_vectors_stay_the_same_and_only_the_trials_change():
    first, second = SimpleIntegration(), SimpleIntegration()
    np.testing.assert_array_equal(first.task.vectors, second.task.vectors)
    assert (SimpleIntegration(vectors_seed=1).task.vectors != first.task.vectors).any()
    vectors = first.task.vectors.copy()
    seen = [first.reset(seed=seed)[0] for seed in (0, 1, 0)]
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(first.task.vectors, vectors)


@pytest.mark.filterwarnings("error", "ignore:.*alternative render modes.*")
@pytest.mark.parametrize(
    "made",
    [SimpleIntegration(), SimpleIntegration(3, 12, 5, trials=2), ContextIntegration("prospective")],
    ids=["simple", "delayed", "context"],
)
def test_gymnasium_accepts_the_environments(made):
    check_env(made, skip_render_check=True)


@pytest.mark.parametrize(
    ("environment", "argument", "value"),
    [
        (SimpleIntegration, "classes", 1),
        (SimpleIntegration, "steps", 1),
        (SimpleIntegration, "delay", -1),
        (SimpleIntegration, "dimension", 0),
        (SimpleIntegration, "dimension", 2),
        (SimpleIntegration, "noise", -0.1),
        (SimpleIntegration, "noise", float("nan")),
        (SimpleIntegration, "trials", 0),
        (SimpleIntegration, "vectors_seed", -1),
        (ContextIntegration, "context", "both"),
        (ContextIntegration, "classes", 1),
        (ContextIntegration, "stimuli", 0),
        (ContextIntegration, "cue", 0),
        (ContextIntegration, "before", -1),
        (ContextIntegration, "after", -1),
        (ContextIntegration, "dimension", 51),
        (ContextIntegration, "dimension", 0),
    ],
)
def test_a_bad_argument_is_named(environment, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        environment(**{argument: value})


def test_a_delay_that_leaves_no_stimulus_is_refused():
    with pytest.raises(ValueError, match="steps must be at least 21"):
        SimpleIntegration(steps=20, delay=19)
    SimpleIntegration(steps=21, delay=19)


def test_misuse_of_the_environment_is_refused():
    made = SimpleIntegration(steps=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        made.step(0)
    made.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="actions are 0 to 1, not 2"):
        made.step(2)
    made.step(0)
    made.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        made.step(0)


def test_relative_evidence_is_that_of_the_cued_integration():
    made = ContextIntegration(classes=3)
    _, info = made.reset(seed=0)
    while info["period"] != "end":
        counts = info["evidence"][info["cued"]]
        assert info["relative_evidence"] == counts[0] - (counts[1] + counts[2]) / 2
        last = info
        info = made.step(0)[-1]
    assert counts.argmax() == info["target"]
    assert last["trial_step"] == 39


def test_an_observation_can_be_drawn():
    made = SimpleIntegration(steps=3, render_mode="rgb_array")
    made.reset(seed=0)
    pictures = [made.render()]
    for _ in range(3):
        made.step(0)
        pictures.append(made.render())
    assert {picture.shape for picture in pictures} == {(320, 464, 3)}
    assert all((first != second).any() for first, second in pairwise(pictures))
    with pytest.raises(ValueError, match="render_mode must be"):
        SimpleIntegration(render_mode="human")
