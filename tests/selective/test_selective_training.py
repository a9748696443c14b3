"""Learning a stream of tasks from the command line: what is implied, what is stored, exact resumption."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plastic_cli.analysis import continual
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import interrupted_after, plastic, training_numbers
from plastic_selective.commands import DESCENT_RATE, Train


@pytest.fixture
def small(tiny_data):
    return ["--quiet", "--dataset", tiny_data, "--hidden", "6", "--batch-size", "5", "--epochs", "2", "--tasks", "3"]


def newest(runs_folder):
    (run,) = RunStore(runs_folder).folders()
    return runs_folder / run


def test_what_options_imply():
    assert Train.from_values({}).learning_rate == 0.001
    for typed in ({"optimizer": "sgd"}, {"optimizer": "momentum"}, {"base": "sgd"}):
        assert Train.from_values(typed).learning_rate == DESCENT_RATE
        assert Train.from_values({**typed, "learning_rate": 0.5}).learning_rate == 0.5
    # The base says nothing where the optimizer is another.
    assert Train.from_values({"optimizer": "adam", "base": "sgd"}).learning_rate == 0.001
    assert Train.from_values({"joint": True}).replay == "none"


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
def test_a_run_that_was_stopped_ends_with_the_numbers_of_one_that_was_not(options, small, runs_folder, tmp_path):
    assert plastic("train", "selective", *small, *options, "--runs", tmp_path / "whole").code == 0
    whole = newest(tmp_path / "whole")
    with interrupted_after(2):
        assert plastic("train", "selective", *small, *options).code == 130
    run = newest(runs_folder)
    assert plastic("train", "selective", "--quiet", "--resume", run.name).code == 0
    pd.testing.assert_frame_equal(training_numbers(run), training_numbers(whole))
    tables = [pd.read_csv(folder / "tables/accuracy_matrix.csv") for folder in (run, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_eval_measures_the_same_matrix_again_and_the_summary_follows_from_it(small, runs_folder):
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


def test_where_the_task_is_known_only_its_classes_can_be_answered(small, runs_folder):
    assert plastic("train", "selective", *small, "--scenario", "task").code == 0
    table = pd.read_csv(newest(runs_folder) / "tables/accuracy_matrix.csv")
    # Three tasks of one class each: with one possible answer nothing can be missed, whatever was learned.
    assert (table["accuracy"] == 1).all()


def test_with_joint_training_earlier_tasks_are_learned_on(small, runs_folder):
    for name, options in (("together", ["--joint"]), ("alone", ["--replay", "none"])):
        typed = [*small, *options, "--optimizer", "adam", "--learning-rate", "0.05", "--epochs", "15", "--name", name]
        assert plastic("train", "selective", *typed).code == 0
    joint, alone = (
        continual.accuracy_matrix(pd.read_csv(RunStore(runs_folder).find(name) / "tables/accuracy_matrix.csv"))
        for name in ("together", "alone")
    )
    assert continual.forgetting(alone) > 0.4
    assert continual.forgetting(joint) < 0.1
