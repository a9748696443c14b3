"""`plastic train selective` and `plastic eval selective`: implied options, stored results, exact resumption."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.analysis import continual
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.testing import interrupted_after, plastic, training_numbers
from plastic_selective.config import DESCENT_RATE, LARGEST_STRENGTH, Train
from plastic_selective.continual.components import make_components
from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer


@pytest.fixture
def small(tiny_data):
    return ["--quiet", "--dataset", tiny_data, "--hidden", "6", "--batch-size", "5", "--tasks", "3"]


def newest(runs_folder):
    (run,) = RunStore(runs_folder).folders()
    return runs_folder / run


def test_implied_options():
    assert Train.from_values({}).learning_rate == 0.001
    for typed in ({"optimizer": "sgd"}, {"optimizer": "momentum"}, {"base": "sgd"}):
        assert Train.from_values(typed).learning_rate == DESCENT_RATE
        assert Train.from_values({**typed, "learning_rate": 0.5}).learning_rate == 0.5
    # A typed --epochs or --iterations replaces the other one in a file.
    assert Train.implied({"epochs": 3})["iterations"] == 0
    assert Train.consequences({"iterations": 300})["epochs"] == Train().epochs
    assert Train.consequences({"warmup_share": 0.3})["warmup_steps"] is None
    assert Train.consequences({"warmup_steps": 7})["warmup_share"] == Train().warmup_share
    # The base has no effect with another optimizer.
    assert Train.from_values({"optimizer": "adam", "base": "sgd"}).learning_rate == 0.001
    assert Train.from_values({"joint": True}).replay == "none"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--optimizer adam --plasticity-k 3", "--plasticity-k 3.0 does nothing with --optimizer adam"),
        ("--optimizer sgd --base sgd", "--base sgd does nothing with --optimizer sgd"),
        ("--optimizer momentum --second-moment-decay .9", "--optimizer selective, adam or adamw"),
        ("--optimizer adam --momentum .5", "--optimizer momentum"),
        ("--base adam --trace-decay .9", "--trace-decay 0.9 does nothing with --base adam"),
        ("--base sgd --no-adaptive-threshold", "--no-adaptive-threshold does nothing with --base sgd"),
        ("--max-degrees 90", "--stream rotated"),
        ("--active seen --scenario domain", "--scenario class"),
        ("--replay none --buffer-size 9", "--buffer-size 9 does nothing with --replay none"),
        ("--joint --replay-share .3", "--replay none"),
        ("--penalty-strength 3", "--penalty ewc or si"),
        ("--penalty si --ewc-decay .5", "--penalty ewc"),
        ("--penalty ewc --si-damping .5", "--penalty si"),
        ("--epochs 3 --iterations 20", "--epochs 3 does nothing with --iterations 20"),
        ("--warmup-share .2 --warmup-steps 9", "--warmup-share 0.2 does nothing with --warmup-steps 9"),
        ("--optimizer sgd --warmup-steps 9", "--warmup-steps 9 does nothing with --optimizer sgd"),
        ("--optimizer sgd --warmup-share .2", "--warmup-share 0.2 does nothing with --optimizer sgd"),
        ("--plasticity-k 1e9", "--plasticity-k 1e9"),
        ("--class-order 2,1,0 --shuffle-classes", "--class-order"),
    ],
)
def test_options_without_effect_are_refused_in_one_line(typed, message, small, runs_folder):
    outcome = plastic("train", "selective", *small, *typed.split())
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert message in line
    assert not RunStore(runs_folder).folders()


def test_a_typed_choice_removes_options_that_a_file_sets_for_another_choice(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('base = "sgd"\ntrace_decay = 0.5\nbuffer_size = 9\npenalty = "si"\nsi_damping = 0.3\nepochs = 2\n')
    typed = ["--optimizer", "adam", "--replay", "none", "--penalty", "ewc", "--iterations", 20]
    outcome = plastic("train", "selective", "--dry-run", "--config", file, *typed)
    config = Train.from_values(tomllib.loads(outcome.out))
    config.refuse_unused()


def test_the_recipes_have_no_unused_options():
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("selective-*.toml"))
    assert recipes
    for recipe in recipes:
        for planned in plan_recipe(read_recipe(str(recipe))):
            config = Train.from_values(planned.config, source=str(recipe))
            config.refuse_unused()


def test_the_option_and_the_optimizer_have_the_same_largest_strength():
    weight = torch.nn.Parameter(torch.zeros(2))
    SelectivePlasticityOptimizer([weight], plasticity_k=LARGEST_STRENGTH)
    with pytest.raises(ValueError, match="plasticity_k"):
        SelectivePlasticityOptimizer([weight], plasticity_k=1.01 * LARGEST_STRENGTH)


def test_the_class_and_the_command_have_the_same_default_method():
    """The defaults are the same in Python and in the shell, except the warm-up, which the class counts in steps."""
    optimizer = SelectivePlasticityOptimizer([torch.nn.Parameter(torch.zeros(2))])
    config = Train()
    assert config.optimizer == "selective"
    for name, value in optimizer.defaults.items():
        if name in Train.model_fields and name != "warmup_steps":
            assert getattr(config, name) == value, name
    assert (config.learning_rate, (0.9, config.second_moment_decay)) == (
        optimizer.defaults["lr"],
        optimizer.defaults["betas"],
    )


@pytest.mark.parametrize(
    ("typed", "steps"),
    [
        ({}, 2),
        ({"warmup_share": 0.5}, 10),
        ({"warmup_share": 1.0, "epochs": 2}, 8),
        ({"warmup_share": 0.25, "iterations": 40}, 10),
        ({"warmup_share": 0.0}, 0),
        ({"warmup_steps": 1000}, 1000),
        ({"warmup_steps": 0}, 0),
        ({"stream": "permuted", "scenario": "domain"}, 6),
        ({"joint": True}, 2),
    ],
)
def test_the_warm_up_is_a_share_of_the_first_task_or_a_number_of_steps(typed, steps, tiny_data, tmp_path):
    """Three classes of 20 training images each: 20 or, permuted, 60 steps in five passes at batch size 5."""
    data = load_dataset(str(tiny_data), tmp_path)
    config = Train.from_values({"dataset": str(tiny_data), "tasks": 3, "batch_size": 5, "hidden": [6], **typed})
    run = create_run(tmp_path / "runs", rule="selective", config=config.model_dump(mode="json"), stage="train")
    assert make_components(config, data, run).optimizer.param_groups[0]["warmup_steps"] == steps


def test_a_penalty_that_is_too_strong_is_named(small):
    typed = ["--optimizer", "sgd", "--learning-rate", 1, "--penalty", "ewc", "--penalty-strength", 1e12]
    outcome = plastic("train", "selective", *small, *typed)
    assert outcome.code == 1
    assert "Try a smaller learning rate or --penalty-strength." in outcome.err


@pytest.mark.parametrize(
    "options",
    [
        ["--replay", "class-balanced", "--buffer-size", "12", "--active", "seen"],
        ["--replay", "fifo", "--buffer-size", "7", "--base", "sgd"],
        ["--optimizer", "adam", "--replay", "none", "--penalty", "ewc", "--fisher-samples", "5", "--scenario", "task"],
        ["--optimizer", "momentum", "--replay", "none", "--penalty", "si", "--scenario", "domain"],
        ["--stream", "permuted", "--scenario", "class", "--iterations", "300", "--buffer-size", "9"],
        ["--joint", "--stream", "rotated", "--scenario", "domain"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_a_resumed_run_has_the_numbers_of_an_uninterrupted_one(options, small, runs_folder, tmp_path):
    options = options if "--iterations" in options else [*options, "--epochs", "2"]
    assert plastic("train", "selective", *small, *options, "--runs", tmp_path / "whole").code == 0
    whole = newest(tmp_path / "whole")
    with interrupted_after(2):
        assert plastic("train", "selective", *small, *options).code == 130
    run = newest(runs_folder)
    assert plastic("train", "selective", "--quiet", "--resume", run.name).code == 0
    pd.testing.assert_frame_equal(training_numbers(run), training_numbers(whole))
    tables = [pd.read_csv(folder / "tables/accuracy_matrix.csv") for folder in (run, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_eval_measures_the_same_matrix_and_summary(small, runs_folder):
    assert plastic("train", "selective", *small).code == 0
    assert plastic("eval", "selective", "--quiet").code == 0
    run = newest(runs_folder)
    stored = pd.read_csv(run / "tables/accuracy_matrix.csv")
    pd.testing.assert_frame_equal(pd.read_csv(run / "tables/accuracy_matrix-test.csv"), stored)
    matrix = continual.accuracy_matrix(stored)
    assert np.isfinite(matrix).all()
    summary = RunStore(runs_folder).runs().iloc[-1]
    assert summary["test/accuracy"] == pytest.approx(matrix[-1].mean())
    assert summary["test/forgetting"] == pytest.approx(continual.forgetting(matrix))


def test_if_the_task_is_known_only_its_classes_are_predicted(small, runs_folder):
    assert plastic("train", "selective", *small, "--scenario", "task").code == 0
    table = pd.read_csv(newest(runs_folder) / "tables/accuracy_matrix.csv")
    # Three tasks of one class each: the only possible answer is always right.
    assert (table["accuracy"] == 1).all()


def test_joint_training_includes_earlier_tasks(small, runs_folder):
    for name, options in (("together", ["--joint"]), ("alone", ["--replay", "none"])):
        typed = [*small, *options, "--optimizer", "adam", "--learning-rate", "0.05", "--epochs", "15", "--name", name]
        assert plastic("train", "selective", *typed).code == 0
    joint, alone = (
        continual.accuracy_matrix(pd.read_csv(RunStore(runs_folder).find(name) / "tables/accuracy_matrix.csv"))
        for name in ("together", "alone")
    )
    assert continual.forgetting(alone) > 0.4
    assert continual.forgetting(joint) < 0.1
