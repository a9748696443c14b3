"""The files that W&B writes offline hold the whole run, once."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("wandb", reason="wandb is not installed: pip install 'plastic-cli[wandb]'")

from exporters.wandb_files import configuration, exit_code, history, records, summary
from plastic_cli.testing import plastic


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def file_of(run):
    [path] = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    # W&B's own process writes the last records while ours goes on; the end of ours would wait for it.
    until = time.monotonic() + 20
    while not any(record.WhichOneof("record_type") == "exit" for record in records(path)):
        assert time.monotonic() < until, "the file has no end"
        time.sleep(0.02)
    return path


def points(path):
    found = {}
    for row in history(path):
        for name, value in row.items():
            if "/" in name:
                found.setdefault(name, []).append((row["step"], value))
    return found


def test_a_run_with_its_configuration_metrics_and_status(export):
    outcome, run = export("wandb", "--name", "first")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1, "stdout is for a program to read"
    path = file_of(run)
    assert points(path) == run.points
    about, config = configuration(path)
    assert (about.run_id, about.display_name, about.project) == (run.record["run"], "first", "plastic")
    assert (config["learning_rate"], config["hidden"], config["rule"]) == (0.001, "4", "backprop")
    assert exit_code(path) == 0
    assert summary(path)["status"] == "completed"
    assert [row["_step"] for row in history(path)] == sorted({row["_step"] for row in history(path)})


def test_a_resumed_run_has_no_point_twice_and_none_of_lost_work(stop_and_resume):
    run = stop_and_resume("wandb")
    assert points(file_of(run)) == run.points
    assert summary(file_of(run))["status"] == "completed"


def test_what_was_synced_is_kept(train):
    run = train(epochs=1)
    assert plastic("runs", "export", run.name, "--to", "wandb").code == 0
    [path] = (run / "wandb").glob("offline-run-*/*.wandb")
    path.with_name(path.name + ".synced").touch()
    assert plastic("runs", "export", run.name, "--to", "wandb").code == 0
    assert path.exists()


def test_failed_and_interrupted_runs_say_so(export):
    from plastic_cli.testing import interrupted_after

    outcome, failed = export("wandb", "--optimizer", "sgd", "--learning-rate", "1e30")
    assert outcome.code == 1
    assert exit_code(file_of(failed)) == 1
    assert summary(file_of(failed))["status"] == "failed"
    with interrupted_after(1):
        outcome, stopped = export("wandb")
    assert outcome.code == 130
    assert exit_code(file_of(stopped)) == 130
    assert summary(file_of(stopped))["status"] == "interrupted"


def test_a_run_can_be_exported_later(train, exported):
    run = exported(train(epochs=2))
    for _ in range(2):
        assert plastic("runs", "export", "--to", "wandb").code == 0
    assert points(file_of(run)) == run.points
