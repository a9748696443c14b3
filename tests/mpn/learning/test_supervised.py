"""Supervised training on integration tasks, its stopping rule, and its measures."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.analysis.dimensionality import participation_ratio
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.reports.claims import read_claims, unknown_conditions, unknown_stage_options
from plastic_cli.runs.checkpoint import read_checkpoint
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic
from plastic_mpn.config import Evaluate, Train
from plastic_mpn.environments.tasks.integration import (
    batch,
    context_task,
    integration_task,
    with_novel_classes,
)
from plastic_mpn.learning.integration_measures import (
    cross_validated_accuracy,
    decoding_accuracy,
    input_indicators,
    relative_evidence,
    variance_explained,
)
from plastic_mpn.learning.supervised import (
    SupervisedSettings,
    Validations,
    magnitude,
    measure_integration,
    observe_modulations,
    reason_to_stop,
    train_batch,
    train_supervised,
)
from plastic_mpn.networks.agents import Readout


def generator(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------------------ measures


def test_variance_explained_equals_the_normal_equations():
    draw = generator()
    regressors = draw.normal(size=(200, 3))
    activity = regressors @ draw.normal(size=(3, 5)) + draw.normal(size=(200, 5)) * [0.1, 0.5, 1, 2, 4] + 1
    columns = np.column_stack([np.ones(200), regressors])
    residuals = activity - columns @ np.linalg.solve(columns.T @ columns, columns.T @ activity)
    left = (residuals**2).sum(0)
    total = ((activity - activity.mean(0)) ** 2).sum(0)
    expected = (1 - left / total).mean()
    assert variance_explained(regressors, activity) == pytest.approx(expected, rel=1e-12)


def test_regressors_of_evidence_and_input():
    evidence = np.array([[3, 1], [0, 0], [2, 5]])
    np.testing.assert_array_equal(relative_evidence(evidence), [[1, -1], [0, 0], [-1.5, 1.5]])
    np.testing.assert_array_equal(input_indicators(np.array([4, 0, 4])), [[0, 1], [1, 0], [0, 1]])


def test_activity_is_explained_only_by_its_regressor():
    trials = batch(integration_task(generator(), noise=0), generator(1), 200)
    counts = relative_evidence(trials.evidence).reshape(-1, 2)
    shown = input_indicators(trials.indices.ravel())
    assert variance_explained(counts, counts @ generator(2).normal(size=(2, 6))) == pytest.approx(1)
    assert variance_explained(shown, trials.inputs.reshape(-1, 50)[:, :9] + np.arange(9)) == pytest.approx(1)
    assert variance_explained(counts, generator(3).normal(size=(len(counts), 6))) < 0.01


def test_decoding_finds_only_linearly_separable_classes():
    draw = generator()
    labels = draw.integers(2, size=600)
    wide = draw.normal(size=(600, 400))
    assert 0.4 < decoding_accuracy(wide[:300], labels[:300], wide[300:], labels[300:], components=10) < 0.6
    wide[:, 0] += 20 * labels
    assert decoding_accuracy(wide[:300], labels[:300], wide[300:], labels[300:], components=10) > 0.98
    assert decoding_accuracy(wide[:300, :3], labels[:300], wide[300:, :3], labels[300:]) > 0.98


# ------------------------------------------------------------------------------------------------------------ stopping


def validations(objectives, accuracies):
    return Validations(list(objectives), list(accuracies))


QUICK = SupervisedSettings(
    minimum_batches=20, maximum_batches=300, validate_every=5, window=3, patience=4, target_accuracy=0.9
)


def test_training_stops_if_the_rolling_accuracy_is_above_the_target():
    falling = np.linspace(1, 0, 60)
    assert reason_to_stop(validations(falling[:10], [0.95] * 10), QUICK) == "accuracy"
    assert reason_to_stop(validations(falling[:10], [0.9] * 10), QUICK) is None
    assert reason_to_stop(validations(falling[:10], [0.5] * 8 + [1, 1]), QUICK) is None
    assert reason_to_stop(validations(falling[:10], [0.5] * 7 + [1, 0.9, 0.9]), QUICK) == "accuracy"


def test_with_a_target_of_one_only_a_plateau_or_the_cap_ends_training():
    settings = SupervisedSettings(minimum_batches=1, target_accuracy=1.0, window=10, patience=15)
    assert reason_to_stop(validations(np.linspace(1, 0, 40), [1.0] * 40), settings) is None
    assert reason_to_stop(validations([1.0] * 40, [1.0] * 40), settings) == "plateau"


def test_training_never_stops_before_its_minimum():
    assert reason_to_stop(validations([1] * 3, [1] * 3), QUICK) is None
    assert reason_to_stop(validations([1] * 4, [1] * 4), QUICK) == "accuracy"
    assert reason_to_stop(validations([], []), QUICK) is None


def test_training_stops_if_the_rolling_objective_stops_falling():
    falling = list(np.linspace(2, 1, 20))
    wrong = [0.5] * 60
    assert reason_to_stop(validations(falling, wrong[:20]), QUICK) is None
    for more in range(4):
        assert reason_to_stop(validations(falling + [1.5] * more, wrong[: 20 + more]), QUICK) is None
    assert reason_to_stop(validations(falling + [1.5] * 4, wrong[:24]), QUICK) == "plateau"
    noisy = np.array(falling) + 0.02 * (-1) ** np.arange(20)
    assert reason_to_stop(validations(noisy, wrong[:20]), QUICK) is None


def test_training_stops_at_its_cap():
    falling = np.linspace(2, 1, 60)
    assert reason_to_stop(validations(falling[:59], [0.5] * 59), QUICK) is None
    assert reason_to_stop(validations(falling, [0.5] * 60), QUICK) == "maximum"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"maximum_batches": 100}, "minimum_batches is 2000, more than maximum_batches, 100"),
    ],
)
def test_invalid_settings_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        SupervisedSettings(**setting)


# ------------------------------------------------------------------------------------------------------------ training


def small_task(**changes):
    return integration_task(generator(7), **{"steps": 6, "dimension": 12, **changes})


def small_network(core="mpn", seed=0, hidden=16):
    options = {"eta": 1.0, "learn_eta": True, "learn_lambda": True, "lambda_max": 0.95, "bias": False}
    drawn = torch.Generator().manual_seed(seed)
    return Readout(12, hidden, 2, core=core, generator=drawn, **(options if core.startswith("mpn") else {}))


def adam_step_by_hand(network, trials, l1, clip, learning_rate):
    """Return the parameters after Adam's first step: p - lr * sign-like g / (|g| + eps), in float64."""
    network = copy.deepcopy(network).double()
    h, _ = network.core(torch.from_numpy(trials.inputs).double())
    logits = network.head(h[-1])
    picked = logits.gather(1, torch.from_numpy(trials.labels)[:, None])[:, 0]
    loss = (torch.logsumexp(logits, 1) - picked).mean()
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()))
    gradients = [g + l1 * torch.sign(p) for g, p in zip(gradients, named.values(), strict=True)]
    norm = torch.sqrt(sum((g.detach() ** 2).sum() for g in gradients))
    scale = min(1.0, clip / (float(norm) + 1e-6))
    steps = [scale * g for g in gradients]
    after = {
        name: p - learning_rate * step / (step.abs() + 1e-8)
        for (name, p), step in zip(named.items(), steps, strict=True)
    }
    return after, float(loss.detach()), float(norm)


@pytest.mark.parametrize(("l1", "clip"), [(0.0, 1e9), (0.3, 1e9), (0.3, 1e-9)])
def test_one_step_is_adam_on_cross_entropy_with_l1_and_a_clipped_gradient(l1, clip):
    network = small_network("gru")
    trials = batch(small_task(), generator(1), 8)
    expected, loss, norm = adam_step_by_hand(network, trials, l1, clip, 1e-2)
    assert norm > 1e-3
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    settings = SupervisedSettings(l1=l1, gradient_clip=clip, learning_rate=1e-2)
    measured = train_batch(network, optimizer, trials, settings)
    assert float(measured[0]) == pytest.approx(loss, rel=1e-5)
    for name, parameter in network.named_parameters():
        # Where a gradient is near zero, Adam's first step is a matter of its last digits.
        difference = (parameter.detach().double() - expected[name].detach()).abs()
        assert float(difference.quantile(0.95)) < 2e-4, name


def test_only_the_output_at_go_counts():
    network = small_network("mlp")
    trials = batch(small_task(), generator(1), 8)
    other = copy.deepcopy(trials)
    other.inputs[:-1] = generator(2).normal(size=other.inputs[:-1].shape)
    learned = []
    for shown in (trials, other):
        copied = copy.deepcopy(network)
        train_batch(copied, torch.optim.Adam(copied.parameters()), shown, SupervisedSettings())
        learned.append(copied.state_dict())
    # A network without memory sees at go only the go input, whatever came before.
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_a_learned_lambda_stays_in_its_range():
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    for seed in range(5):
        train_batch(network, optimizer, batch(small_task(), generator(seed), 8), SupervisedSettings())
        assert 0 <= float(network.core.lambda_.detach()) <= 0.95 + 1e-7


def test_l1_makes_learned_parameters_smaller():
    sizes = []
    for l1 in (0.0, 0.1):
        network = small_network()
        optimizer = torch.optim.Adam(network.parameters())
        for seed in range(40):
            train_batch(network, optimizer, batch(small_task(), generator(seed), 8), SupervisedSettings(l1=l1))
        sizes.append(sum(float(parameter.detach().abs().sum()) for parameter in network.parameters()))
    assert sizes[1] < 0.9 * sizes[0]


def new_run(folder, seed=0):
    return create_run(folder, rule="mpn", config={"seed": seed})


SMALL = SupervisedSettings(
    batch_size=16,
    learning_rate=1e-2,
    minimum_batches=20,
    maximum_batches=400,
    validate_every=5,
    validation_trials=100,
    window=3,
    patience=20,
    target_accuracy=0.9,
    test_trials=150,
)


def rows(folder, run):
    return RunStore(folder).metrics([run.id])[["split", "step", "metric", "value"]].reset_index(drop=True)


def train_whole(folder, settings=SMALL, core="gru"):
    run, network = new_run(folder), small_network(core)
    with run.locked():
        run.start()
        train_supervised(network, small_task(), run, settings)
        run.finish("completed")
    return run, network


def test_training_learns_stops_early_and_leaves_a_checkpoint_of_the_end(runs_folder):
    run, network = train_whole(runs_folder)
    logged = rows(runs_folder, run)
    test = logged[logged["split"] == "test"].set_index("metric")["value"]
    assert set(test.index) == {
        "accuracy",
        "loss",
        "participation_ratio",
        "r2_evidence",
        "r2_input",
        "novel_class_accuracy",
        "batches",
    }
    with_m = train_whole(runs_folder, core="mpn")[0].results
    assert 1 <= with_m["test/participation_ratio_m"] < 16 * 12
    assert test["accuracy"] > 0.8
    assert 20 <= test["batches"] < 400
    steps = int(test["batches"]) // 5
    validation = logged[(logged["split"] == "validation") & (logged["metric"] == "accuracy")]
    assert validation["step"].tolist() == list(range(steps + 1))
    assert validation["value"].iloc[-3:].mean() > 0.9
    assert not any(validation["value"].iloc[at - 2 : at + 1].mean() > 0.9 for at in range(4, steps))
    assert set(logged.loc[logged["split"] == "test", "step"]) == {steps}
    assert run.record.steps_done == {"validation": steps}
    stored = read_checkpoint(run.folder).tracked["network"]
    assert all(torch.equal(stored[name], value) for name, value in network.state_dict().items())
    assert run.record.speed["samples"] == steps * 5 * 16


@pytest.mark.parametrize("stop_at", [1, 7, "test"])
def test_a_resumed_run_ends_with_the_numbers_of_an_uninterrupted_one(runs_folder, monkeypatch, stop_at):
    whole, learned = train_whole(runs_folder, core="mpn")
    expected = rows(runs_folder, whole)
    assert expected["step"].max() >= 8

    run, network = new_run(runs_folder), small_network("mpn")
    run.checkpoint_is_due = lambda: True
    if stop_at == "test":
        monkeypatch.setattr("plastic_mpn.learning.supervised.measure_integration", lambda *_: 1 / 0)
    else:
        told = run.log

        def log(split, labels=None, **metrics):
            told(split, labels, **metrics)
            if split == "train" and run.step == stop_at:
                raise ZeroDivisionError

        run.log = log
    with run.locked(), pytest.raises(ZeroDivisionError):
        run.start()
        train_supervised(network, small_task(), run, SMALL)
    monkeypatch.undo()

    # Before the first checkpoint the run begins anew, and so does the network that it is given.
    again, network = open_run(run.folder), small_network("mpn", seed=0 if stop_at == 1 else 9)
    with again.locked():
        again.resume()
        train_supervised(network, small_task(), again, SMALL)
        again.finish("completed")
    pd.testing.assert_frame_equal(rows(runs_folder, again), expected)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in learned.state_dict().items())


def test_resuming_a_complete_run_does_not_train_further(runs_folder):
    run, learned = train_whole(runs_folder)
    expected = rows(runs_folder, run)
    again, network = open_run(run.folder), small_network("gru", seed=3)
    with again.locked():
        again.resume()
        train_supervised(network, small_task(), again, SMALL)
    pd.testing.assert_frame_equal(rows(runs_folder, again), expected)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in learned.state_dict().items())


def test_training_up_to_the_cap_ends_there(runs_folder):
    settings = SupervisedSettings(
        minimum_batches=1, maximum_batches=12, validate_every=5, validation_trials=20, test_trials=60, patience=1000
    )
    run, _ = train_whole(runs_folder, settings)
    assert run.results["test/batches"] == 12
    assert run.record.steps_done == {"validation": 3}


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(runs_folder):
    run, network = new_run(runs_folder), small_network()
    with torch.no_grad():
        network.core.W.fill_(math.nan)
    with run.locked(), pytest.raises(RunFailed, match="loss became nan at"):
        train_supervised(network, small_task(), run, SMALL)


# ------------------------------------------------------------------------------------------- measures of a network


def test_measures_do_not_depend_on_the_number_of_trials_at_once(monkeypatch):
    network, task = small_network(), small_task()
    whole = measure_integration(network, task, seed=1, trials=120)
    monkeypatch.setattr("plastic_mpn.learning.supervised.TRIALS_AT_ONCE", 50)
    assert measure_integration(network, task, seed=1, trials=120) == pytest.approx(whole, rel=1e-4)
    assert measure_integration(network, task, seed=2, trials=120) != whole


def test_the_activity_of_a_network_without_memory_is_explained_by_its_input():
    measured = measure_integration(small_network("mlp"), small_task(noise=0.0), seed=0, trials=200)
    assert "novel_class_accuracy" not in measured
    assert measured["r2_input"] == pytest.approx(1)
    assert measured["r2_evidence"] < 0.6
    assert measured["participation_ratio"] <= 3
    assert 0.3 < measured["accuracy"] < 0.7


def test_a_task_with_a_context_is_trained_and_measured(runs_folder):
    task = context_task(generator(), stimuli=3, cue_period=(1, 1, 1), dimension=12)
    settings = SupervisedSettings(
        minimum_batches=1, maximum_batches=10, validation_trials=20, test_trials=60, batch_size=4
    )
    run = new_run(runs_folder)
    with run.locked():
        train_supervised(small_network(), task, run, settings)
    tested = {name for name in run.results if name.startswith("test/")}
    names = ("accuracy", "loss", "participation_ratio", "participation_ratio_m", "batches")
    assert tested == {f"test/{name}" for name in names}


def test_test_trials_differ_from_training_and_validation_trials(runs_folder, monkeypatch):
    drawn = []

    def spy(task, drawing, size):
        drawn.append(batch(task, drawing, size))
        return drawn[-1]

    monkeypatch.setattr("plastic_mpn.learning.supervised.batch", spy)
    run, network = train_whole(runs_folder)
    validation, *training, test, novel = drawn
    sizes = [len(part.labels) for part in (validation, training[0], test, novel)]
    assert sizes == [SMALL.validation_trials, SMALL.batch_size, SMALL.test_trials, 2 * SMALL.test_trials]
    seen = {trial.tobytes() for part in (validation, *training) for trial in part.inputs.swapaxes(0, 1)}
    assert not any(trial.tobytes() in seen for part in (test, novel) for trial in part.inputs.swapaxes(0, 1))
    # What is logged is measured on them.
    outputs = network.head(network.core(torch.from_numpy(test.inputs))[0][-1]).detach()
    right = (outputs.argmax(1).numpy() == test.labels).mean()
    assert run.results["test/accuracy"] == pytest.approx(right)


def test_novel_classes_are_decoded_on_held_out_trials(monkeypatch):
    def observed(_, trials):
        """Random states with more numbers than trials, so that a classifier can fit any labels."""
        drawing = torch.Generator().manual_seed(0)
        h = torch.randn(*trials.indices.shape, 16, generator=drawing)
        return h, torch.randn(len(trials.labels), 90, generator=drawing)

    monkeypatch.setattr("plastic_mpn.learning.supervised.observe_trials", observed)
    measured = measure_integration(small_network(), small_task(), seed=0, trials=80)
    assert 0.3 < measured["novel_class_accuracy"] < 0.7


def test_novel_classes_are_not_those_of_the_task(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "plastic_mpn.learning.supervised.batch", lambda *arguments: drawn.append(batch(*arguments)) or drawn[-1]
    )
    task = small_task(noise=0.0)
    measure_integration(small_network(), task, seed=0, trials=30)
    shown = {vector.tobytes() for vector in drawn[-1].inputs.reshape(-1, 12)}
    assert not any(vector.tobytes() in shown for vector in task.vectors[:2])
    assert task.vectors[2].tobytes() in shown, "null is as it was"


def test_a_task_without_unused_vectors_has_no_novel_classes():
    random = np.random.default_rng(0)
    task = integration_task(random, classes=3, dimension=3, steps=6)
    assert with_novel_classes(task, random) is None
    # Two classes need six of the seven vectors.
    for classes, dimension in ((2, 3), (13, 5)):
        task = integration_task(random, classes=classes, dimension=dimension, steps=6)
        novel = with_novel_classes(task, random)
        assert len(np.unique(novel.vectors, axis=0)) == len(novel.vectors)
        assert not (novel.vectors[:classes, None] == task.vectors).all(-1).any()
        assert set(np.unique(novel.vectors)) == set(np.unique(task.vectors))


def test_the_dimension_of_m_is_that_of_its_states_at_all_steps(monkeypatch):
    network, task = small_network(), small_task()
    trials = batch(task, generator(3), 400)
    monkeypatch.setattr("plastic_mpn.learning.supervised.MODULATION_STATES", 60)
    found = observe_modulations(network, trials)
    assert found.shape == (60, 16 * 12)
    states, state = [], network.init_state(10)
    for step in range(6):
        _, state = network.core(torch.from_numpy(trials.inputs[step, :10]), state)
        states.append(state.detach().flatten(1).numpy())
    np.testing.assert_array_equal(found, np.concatenate(states))
    variances = np.linalg.eigvalsh(np.cov(found.T.astype(np.float64)))
    expected = variances.sum() ** 2 / (variances**2).sum()
    assert participation_ratio(found) == pytest.approx(expected, rel=1e-5)
    assert observe_modulations(small_network("gru"), trials) is None
    assert observe_modulations(small_network("mpn-frozen"), trials) is None


def test_the_logged_dimension_of_m_is_that_of_m():
    measured = measure_integration(small_network(), small_task(), seed=0, trials=200)
    trials = batch(small_task(), np.random.default_rng(seed_sequence(0, "test trials")), 200)
    assert measured["participation_ratio_m"] == pytest.approx(
        participation_ratio(observe_modulations(small_network(), trials))
    )
    assert "participation_ratio_m" not in measure_integration(small_network("gru"), small_task(), seed=0, trials=60)


def test_with_a_delay_classes_are_decoded_at_stimulus_delay_and_go(monkeypatch):
    task = small_task(steps=9, delay=3, noise=0.0)

    def observed(_, trials):
        """Activity that equals the evidence so far, except in the delay, where it is noise."""
        h = torch.zeros(*trials.indices.shape, 16)
        h[..., :2] = torch.from_numpy(trials.evidence).float()
        h[5:8] = torch.randn(3, len(trials.labels), 16, generator=torch.Generator().manual_seed(0))
        return h, torch.zeros(len(trials.labels), 0)

    monkeypatch.setattr("plastic_mpn.learning.supervised.observe_trials", observed)
    measured = measure_integration(small_network(), task, seed=0, trials=300)
    assert measured["decoded_stimulus"] > 0.95
    assert 0.35 < measured["decoded_delay"] < 0.65
    assert measured["decoded_go"] > 0.95
    monkeypatch.undo()
    assert not any(name.startswith("decoded") for name in measure_integration(small_network(), task, 0, trials=15))
    assert not any(name.startswith("decoded") for name in measure_integration(small_network(), small_task(), 0, 300))


def test_cross_validated_accuracy_is_on_held_out_trials():
    draw = generator()
    labels, wide = draw.integers(2, size=60), draw.normal(size=(60, 90))
    assert decoding_accuracy(wide, labels, wide, labels) == 1
    assert 0.25 < cross_validated_accuracy(wide, labels) < 0.75
    wide[:, 0] += 20 * labels
    assert cross_validated_accuracy(wide, labels) > 0.9


@pytest.mark.parametrize("core", ["mpn", "gru"])
def test_a_core_without_gradients_does_not_change(core):
    network = small_network(core)
    network.core.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for seed in range(3):
        train_batch(network, optimizer, batch(small_task(), generator(seed), 8), SupervisedSettings())
    assert {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])} == {
        "head.weight"
    }
    # What is not learned is not penalized either.
    assert float(magnitude(network).detach()) == pytest.approx(float(network.head.weight.detach().abs().sum()))


# -------------------------------------------------------------------------------------------------------------- claims


def test_the_claims_can_be_read_and_name_measures_and_settings_that_exist():
    import plastic_mpn

    text = (Path(plastic_mpn.__file__).parent / "claims.toml").read_text(encoding="utf-8")
    figures = read_claims("mpn", text)
    assert len(figures.claims) + len(figures.unmeasured) == text.count("[[claim]]")
    assert unknown_conditions(figures.claims, list(Train.model_fields)) == []
    measured = measure_integration(small_network(), small_task(delay=2), seed=0, trials=60)
    for claim in figures.claims:
        split, metric = claim.metric.split("/")
        if claim.stage is not None:
            continue
        assert split == "test"
        assert metric in measured or claim.conditions["env"] == "CartPole-v1"


def test_eval_gives_the_results_that_claims_name(runs_folder):
    import plastic_mpn

    options = ["--algorithm", "supervised", "--env", "plastic/SimpleIntegration-v0", "--hidden", 4, "--steps", 4]
    trained = plastic("train", "mpn", *options, "--minimum-batches", 1, "--maximum-batches", 1)
    assert trained.code == 0, trained.err
    text = (Path(plastic_mpn.__file__).parent / "claims.toml").read_text(encoding="utf-8")
    claims = [claim for claim in read_claims("mpn", text).claims if claim.stage == "eval"]
    assert claims
    assert unknown_stage_options(claims, {"eval": list(Evaluate.model_fields)}) == []
    for claim in claims:
        (name,) = claim.options["env_options"]
        outcome = plastic("eval", "mpn", "--json", "--env-options", name, "--episodes", 2)
        assert outcome.code == 0, outcome.err
        assert claim.metric in outcome.results[0]["metrics"], claim.id


def test_no_claim_judges_an_accuracy_set_by_the_stopping_rule():
    import plastic_mpn

    text = (Path(plastic_mpn.__file__).parent / "claims.toml").read_text(encoding="utf-8")
    for claim in read_claims("mpn", text).claims:
        if claim.metric == "test/accuracy":
            # Either training does not stop at an accuracy, or two networks with the same rule are compared.
            assert claim.conditions["target_accuracy"] == 1.0 or claim.against, claim.id
