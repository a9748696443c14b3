"""MLflow's own client finds the whole run in its default store, once."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'plastic-cli[mlflow]'")
pytest.importorskip("sqlalchemy", reason="MLflow's default store needs sqlalchemy: pip install 'plastic-cli[mlflow]'")

import mlflow

from plastic_cli.testing import plastic


@pytest.fixture(autouse=True)
def _store(monkeypatch, tmp_path):
    """A database of this test's own, where the default one would be."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield
    mlflow.set_tracking_uri(None)


def found():
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("plastic")
    return client, client.search_runs([experiment.experiment_id])


def histories(client, run):
    return {
        key: [
            (point.step, point.value) for point in sorted(client.get_metric_history(run.info.run_id, key), key=by_step)
        ]
        for key in run.data.metrics
    }


def by_step(point):
    return point.step


def test_a_run_with_its_configuration_metrics_and_status(export):
    outcome, run = export("mlflow", "--name", "first")
    assert outcome.code == 0, outcome.err
    client, [stored] = found()
    assert histories(client, stored) == run.points
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "first"
    assert stored.data.params["learning_rate"] == "0.001"
    assert stored.data.params["hidden"] == "4"
    assert stored.data.params["seed"] == "0"
    assert (stored.data.tags["plastic.rule"], stored.data.tags["plastic.run"]) == ("backprop", run.record["run"])
    assert mlflow.search_runs(experiment_names=["plastic"], output_format="list")[0].info.run_id == stored.info.run_id


def test_a_resumed_run_is_the_same_run_with_no_point_twice(stop_and_resume):
    run = stop_and_resume("mlflow")
    client, [stored] = found()
    held = histories(client, stored)
    assert stored.info.status == "FINISHED"
    # MLflow cannot take back the one value of lost work that came out otherwise.
    lost = [point for point in held["test/accuracy"] if point not in run.points["test/accuracy"]]
    assert lost == [(2, 0.123)]
    held["test/accuracy"].remove(lost[0])
    assert held == run.points


def test_failed_and_interrupted_runs_say_so(export):
    from plastic_cli.testing import interrupted_after

    assert export("mlflow", "--optimizer", "sgd", "--learning-rate", "1e30")[0].code == 1
    with interrupted_after(1):
        assert export("mlflow")[0].code == 130
    _, (interrupted, failed) = found()
    assert failed.info.status == "FAILED"
    assert "smaller learning rate" in failed.data.tags["plastic.error"]
    assert interrupted.info.status == "KILLED"


def test_exporting_later_and_again_adds_nothing(train, exported):
    run = train(epochs=2)
    for _ in range(2):
        outcome = plastic("runs", "export", "--to", "mlflow")
        assert outcome.code == 0, outcome.err
    client, [stored] = found()
    assert histories(client, stored) == exported(run).points


def test_names_and_values_that_mlflow_does_not_admit(tmp_path):
    from plastic_mlflow import tracking

    run = {"run": "r", "rule": "r", "name": None, "dataset": None, "config": {"long": "x" * 9000}, "started": None}
    run |= {"created": "2026-01-01T00:00:00+00:00", "finished": None, "status": "crashed", "error": None}
    run |= {"folder": str(tmp_path)}
    rows = [
        {"split": "test", "metric": "cost", "step": 1, "value": None, "time": 2.0, "labels": {"noise": "pixel:.5%"}}
    ]
    tracking.start(run, rows)
    tracking.finish(run)
    client, [stored] = found()
    [point] = client.get_metric_history(stored.info.run_id, "test/cost/noise pixel_.5_")
    assert math.isnan(point.value)
    assert stored.info.status == "FAILED"


@pytest.mark.slow
def test_two_runs_at_once_make_the_default_store_where_mlflow_looks_for_it(tiny_data, tmp_path, start_plastic):
    small = ["--dataset", tiny_data, "--hidden", 4, "--epochs", 1, "--quiet"]
    processes = [start_plastic("train", "backprop", *small, "--export", "mlflow") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.count("\n") == 1
    mlflow.set_tracking_uri(None)
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert [run.info.status for run in found()[1]] == ["FINISHED"] * 2


def test_a_server_that_does_not_answer_costs_the_run_nothing(export, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    outcome, run = export("mlflow")
    assert outcome.code == 0
    assert outcome.err.count("warning: the exporter 'mlflow'") == 1
    assert run.record["status"] == "completed"
