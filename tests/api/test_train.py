"""A run made in Python is the run that the shell makes, and options are checked with the same words."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import plastic_cli as plastic
import processes
from plastic_cli.runs.record import RunRecord
from plastic_cli.testing import plastic as shell_plastic

QUICK = {"epochs": 2, "perturbations": 2, "hidden": (16,)}
TYPED = ["--epochs", "2", "--perturbations", "2", "--hidden", "16"]


def rows_without_time(run):
    return run.metrics().drop(columns=["run", "time"])


def test_a_run_in_python_is_the_run_of_the_shell_to_the_bit(runs_folder):
    mine = plastic.train("grlu", **QUICK, seed=3, quiet=True)
    assert shell_plastic("train", "grlu", *TYPED, "--seed", "3", "--name", "shell").code == 0
    shell = plastic.RunStore(runs_folder).run("shell")
    assert mine.config == shell.config
    assert mine.results == shell.results
    pd.testing.assert_frame_equal(rows_without_time(mine), rows_without_time(shell))
    assert mine.status == "completed"
    assert mine.folder.parent == runs_folder
    assert (mine.seed, mine.rule, mine.dataset, mine.name) == (3, "grlu", "digits", None)


def test_training_prints_nothing(capfd):
    plastic.train("backprop", epochs=1, hidden="8")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_seeds_give_a_list_and_names():
    runs = plastic.train("backprop", epochs=1, hidden="8", seed=4, seeds=2, name="two")
    assert [run.seed for run in runs] == [4, 5]
    assert [run.name for run in runs] == ["two-seed4", "two-seed5"]


def test_a_grid_skips_what_the_store_holds():
    first = plastic.train("backprop", epochs=1, grid={"hidden": [(8,), "16"]}, workers=2, quiet=True)
    assert [run.config["hidden"] for run in first] == [[8], [16]]
    again = plastic.train("backprop", epochs=1, grid={"hidden": ["16", (8,)]}, quiet=True)
    assert [run.id for run in again] == [first[1].id, first[0].id]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"perturbation": 3}, "there is no option 'perturbation'. Did you mean 'perturbations'?"),
        ({"perturbations": -1}, "--perturbations -1: it should be greater than or equal to 1."),
        ({"epochs": "many"}, "--epochs many: it should be a whole number."),
        ({"skip": "perhaps"}, "--skip perhaps: it should be true or false."),
        ({"dataset": "digit"}, "Did you mean 'digits'?"),
        ({"update": "backprop", "perturbations": 3}, "--perturbations 3 does nothing with --update backprop"),
        ({"seeds": 0}, "--seeds 0: it should be greater than or equal to 1."),
        ({"workers": 2}, "workers belongs to grid"),
        ({"grid": {"epoch": [1]}}, "grid: there is no option 'epoch'. Did you mean 'epochs'?"),
        ({"grid": {"epochs": "12"}}, "grid: epochs needs a list of values, as in grid={'epochs': ['12']}."),
        ({"grid": {"epochs": [1]}, "epochs": 2}, "epochs is also in grid"),
        ({"grid": {"epochs": [1]}, "name": "x"}, "name applies to one run"),
        ({"resume": "nothing"}, "there is no run 'nothing'"),
        ({"config": "nothing.toml"}, "nothing.toml"),
    ],
)
def test_a_wrong_option_is_a_value_error_with_the_words_of_the_shell(options, words, runs_folder):
    with pytest.raises(ValueError, match=r".") as caught:
        plastic.train("grlu", **options)
    assert words in str(caught.value)
    assert not list(runs_folder.glob("*/run.json"))


def test_the_shell_uses_the_same_words():
    with pytest.raises(ValueError, match=r".") as caught:
        plastic.train("grlu", perturbations=-1)
    outcome = shell_plastic("train", "grlu", "--perturbations", "-1")
    assert outcome.code == 2
    assert str(caught.value) in outcome.err


def test_an_unknown_rule_is_a_value_error():
    with pytest.raises(ValueError, match=r"there is no rule 'grul'\. Did you mean 'grlu'\?"):
        plastic.train("grul")


def test_a_run_that_fails_is_stored_and_raises():
    with pytest.raises(plastic.RunFailed, match="Try a smaller learning rate"):
        plastic.train("backprop", epochs=3, hidden="8", optimizer="sgd", learning_rate=1e30)
    [row] = plastic.RunStore("runs").rows()
    assert row["status"] == "failed"


def test_an_interrupted_run_is_continued_to_the_same_numbers(tmp_path):
    whole = plastic.train("backprop", epochs=40, hidden="64", name="whole", quiet=True)
    program = "import plastic_cli as p; p.train('backprop', epochs=40, hidden='64', name='stopped', quiet=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=processes.environment()
    )
    store = plastic.RunStore(tmp_path / "runs")
    while steps_of(store) < 12 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=60)[1]
    stopped = store.run("stopped")
    assert stopped.status == "interrupted"
    assert f"KeyboardInterrupt: run {stopped.id} is stored. Continue it with plastic.train(" in errors
    assert stopped.record.steps_done["epoch"] < 40
    continued = plastic.train("backprop", resume=stopped, quiet=True)
    assert continued == stopped
    assert continued.status == "completed"
    pd.testing.assert_frame_equal(rows_without_time(continued), rows_without_time(whole))


def steps_of(store):
    try:
        return len((store.run("stopped").folder / "metrics.jsonl").read_text().splitlines())
    except (OSError, ValueError):
        return 0


def test_resume_refuses_another_configuration():
    run = plastic.train("backprop", epochs=1, hidden="8")
    with pytest.raises(ValueError, match="--resume continues a run as it was started, with epochs = 1"):
        plastic.train("backprop", resume=run, epochs=2)


def test_a_recipe_returns_its_runs_in_order(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'title = "Two runs"\nwhy = "To test."\nrule = "backprop"\nseeds = 2\n[options]\nepochs = 1\nhidden = [8]\n'
    )
    runs = plastic.sweep(tmp_path / "mine.toml", quiet=True)
    assert [(run.rule, run.seed, run.status) for run in runs] == [("backprop", s, "completed") for s in (0, 1)]
    assert plastic.sweep(tmp_path / "mine.toml", quiet=True) == runs
    with pytest.raises(ValueError, match=r"there is no option 'worker'\. Did you mean 'workers'\?"):
        plastic.sweep(tmp_path / "mine.toml", worker=2)


def test_the_import_is_light():
    heavy = "('torch', 'pandas', 'matplotlib', 'plotnine', 'pydantic', 'rich')"
    program = f"import sys, plastic_cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=processes.environment()
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_loads():
    assert {name for name in plastic.__all__ if getattr(plastic, name, None) is None} == set()


def test_the_results_of_a_metric_that_is_not_finite_are_nan(runs_folder):
    run = plastic.train("backprop", epochs=1, hidden="8")
    record = json.loads((run.folder / "run.json").read_text())
    record["summary"]["test/loss"] = None
    (run.folder / "run.json").write_text(json.dumps(record))
    assert math.isnan(run.results["test/loss"])


def test_a_former_name_of_an_option_warns_and_works():
    with pytest.warns(FutureWarning, match="'lr_max' is now called 'learning_rate'") as caught:
        run = plastic.train("grlu", **QUICK, lr_max=0.2, quiet=True)
    assert caught[0].filename == __file__
    assert run.config["learning_rate"] == 0.2
    with pytest.warns(FutureWarning, match="learning_rate"):
        runs = plastic.train("grlu", **QUICK, grid={"lr_max": [0.2]}, quiet=True)
    assert runs == [run]
    with pytest.raises(ValueError, match="are the same option"):
        plastic.train("grlu", lr_max=0.1, learning_rate=0.2)


def test_numbers_of_numpy_and_paths_are_options(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = plastic.train(
        "backprop",
        hidden=np.int64(16),
        epochs=np.array(1),
        learning_rate=np.float64(0.1),
        dataset=Path("digits"),
        runs="~/r",
    )
    assert run.folder.parent == tmp_path / "r"
    same = plastic.train("backprop", hidden=np.array([16]), epochs=1, learning_rate=0.1)
    assert same.config == run.config
    assert same.results == run.results


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        (None, {}, "there is no rule 'None'"),
        (3, {}, "there is no rule '3'"),
        ("grlu", {"name": "two\nlines"}, "--name two lines: use letters"),
        ("grlu", {"name": "x" * 101}, "at most 100 characters"),
        ("grlu", {"name": 3}, "--name 3: it should be text."),
        ("grlu", {"runs": b"runs"}, "it should be a path."),
        ("grlu", {"runs": ""}, "--runs is empty. Give a path, or leave it out."),
        ("grlu", {"config": {"epochs": 1}}, "it should be a path."),
        ("grlu", {"epochs": None}, "--epochs: it should be a whole number."),
        ("grlu", {"grid": ["epochs=1,2"]}, "grid: give a dictionary such as {'epochs': [1, 2]}, not a list."),
    ],
)
def test_wrong_types_are_one_clear_line(rule, options, words, runs_folder):
    with pytest.raises(ValueError, match=r".") as caught:
        plastic.train(rule, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(runs_folder.glob("*/run.json"))


def test_an_interrupt_while_the_end_is_written_leaves_a_completed_run(monkeypatch):
    written = RunRecord.write
    interrupted = []

    def write(record, folder):
        if record.status == "completed" and not interrupted:
            interrupted.append(record.run)
            raise KeyboardInterrupt
        written(record, folder)

    monkeypatch.setattr(RunRecord, "write", write)
    with pytest.raises(KeyboardInterrupt):
        plastic.train("backprop", epochs=1, hidden="8", quiet=True)
    run = plastic.RunStore("runs").run(interrupted[0])
    assert run.status == "completed"
    assert run.record.finished is not None
