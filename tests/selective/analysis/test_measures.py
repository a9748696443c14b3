"""`plastic analyze selective`: measures, tables and errors."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.analysis import continual
from plastic_cli.testing import interrupted_after, plastic
from plastic_selective.analysis import figures
from plastic_selective.analysis.measures import (
    distribution_tables,
    forgetting_table,
    overlap_table,
    sweep_k,
)
from plastic_selective.analysis.overlap import (
    busiest,
)
from selective.analysis.runs import EPOCHS, TASKS, assert_refused, history_of, look, stored_matrix

# -------------------------------------------------------------------------------------------------------------- overlap


def test_the_overlap_table_is_measured_on_the_stored_eligibility(trained):
    folder = trained()
    table = overlap_table(history_of(folder))
    assert len(table) == 3 * 3
    assert set(zip(table["task"], table["other_task"], strict=True)) == {(1, 2), (1, 3), (2, 3)}
    kept = [torch.load(folder / "artifacts" / f"eligibility-00{task}.pt")["layers"] for task in (1, 3)]
    name = list(kept[0])[1]
    row = table[(table["layer"] == 2) & (table["task"] == 1) & (table["other_task"] == 3)].iloc[0]
    assert row["layer_name"] == "8 to 6 units"
    marks = [busiest(layers[name]) for layers in kept]
    assert row["shared"] == pytest.approx(float((marks[0] * marks[1]).sum()) / 12)
    # 20 images of each task in batches of 8 are 3 steps, twice.
    v = np.cumsum(0.999 ** np.arange(17, -1, -1))
    assert row["carried_over"] == pytest.approx(v[5] / v[-1])
    state = torch.load(folder / "checkpoint.pt")["tracked"]["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {18}


# ------------------------------------------------------------------------------------ forgetting, eligibility and gates


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.data())
def test_the_terms_by_task_have_the_means_that_are_reported(tasks, seed, data):
    learned = data.draw(st.integers(1, tasks))
    random = np.random.default_rng(seed)
    matrix, joint = random.random((tasks + 1, tasks)), random.random((tasks + 1, tasks))
    matrix[learned + 1 :] = np.nan
    table = forgetting_table(matrix, learned, joint)
    assert list(table["task"]) == list(range(1, learned + 1))
    for name in ("forgetting", "backward_transfer", "forward_transfer"):
        expected = getattr(continual, name)(matrix, learned)
        assert table[name].mean() == pytest.approx(expected, nan_ok=True)
        assert table[name].notna().sum() == learned - 1
    assert table["final"].mean() == pytest.approx(continual.average_accuracy(matrix, learned))
    differences = [joint[task, task - 1] - matrix[task, task - 1] for task in range(1, learned + 1)]
    np.testing.assert_allclose(table["intransigence"], differences)


def test_the_history_is_what_the_run_logged(trained):
    history = history_of(trained())
    np.testing.assert_array_equal(history.matrix, stored_matrix(trained()))
    assert (history.learned, history.rounds, history.last, history.borders) == (TASKS, EPOCHS, 6, [2, 4])
    # Before training and after each task all tasks are measured, within a task only those so far.
    assert history.curves.groupby("step")["task"].apply(list).to_dict() == {
        0: [1, 2, 3],
        1: [1],
        2: [1, 2, 3],
        3: [1, 2],
        4: [1, 2, 3],
        5: [1, 2, 3],
        6: [1, 2, 3],
    }
    at_end = history.curves[history.curves["step"] == 4].sort_values("task")["accuracy"]
    np.testing.assert_array_equal(at_end, history.matrix[2])


def test_without_an_option_forgetting_eligibility_and_gates_are_analyzed(trained):
    folder = trained()
    outcome = look("analyze", folder)
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    matrix = stored_matrix(folder)
    assert metrics["test/accuracy"] == pytest.approx(matrix[-1].mean())
    assert metrics["test/forgetting"] == pytest.approx(np.mean(matrix[1:3, :2].max(0) - matrix[3, :2]))
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"accuracy_matrix", "accuracy_curves", "eligibility_history", "gate_history"} <= pictures
    assert {"eligibility_histogram", "gate_histogram"} <= pictures
    assert not {"overlap", "sweep_k", "confusion"} & pictures
    summary = json.loads((folder / "run.json").read_text())["summary"]
    assert "test/accuracy" in summary
    assert not [key for key in summary if key.startswith("layer")]


def test_histograms_and_means_are_those_of_the_synapses(trained):
    folder = trained()
    history = history_of(folder)
    kept = torch.load(folder / "artifacts" / "eligibility-003.pt")["layers"]
    histogram, means = distribution_tables(history, "eligibility")
    last = histogram[histogram["step"] == 6]
    assert (
        histogram.groupby(["step", "layer"])["count"].sum() == histogram.groupby(["step", "layer"])["synapses"].first()
    ).all()
    for layer, values in enumerate(kept.values(), start=1):
        counts, edges = np.histogram(values.float().numpy(), 50, (0, 1))
        rows = last[last["layer"] == layer]
        np.testing.assert_allclose(rows["low"], edges[:-1], atol=1e-12)
        # Half precision moves single values across the edge of a bin.
        assert np.abs(rows["count"].to_numpy() - counts).sum() <= 0.02 * values.numel() + 2
        mean = means[(means["step"] == 6) & (means["layer"] == layer)]["eligibility_mean"].item()
        assert mean == pytest.approx(values.double().mean().item(), abs=1e-3)
    assert set(means["layer_name"]) == {"36 to 8 units", "8 to 6 units", "6 to 3 units"}
    _, gates = distribution_tables(history, "gate")
    assert gates["gate_mean"].between(0.5, 1).all(), "k = 5 closes a gate by half at most"


@pytest.mark.parametrize("k", [10, 0])
def test_reported_eligibility_and_gates_are_those_after_the_last_round(k, trained):
    folder = trained("--plasticity-k", k)
    outcome = look("analyze", folder, "--eligibility", "--gates")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    snapshots = [torch.load(path)["layers"] for path in sorted((folder / "artifacts").glob("plasticity-*.pt"))]
    assert len(snapshots) == TASKS * EPOCHS
    for number, (layer, first) in enumerate(zip(snapshots[-1], snapshots[0], strict=True), start=1):
        # All units of this small layer are stored, in half precision.
        gate, eligibility = layer["gate"].double(), layer["eligibility"].double()
        assert metrics[f"layer {number}/gate_mean"] == pytest.approx(float(gate.mean()), abs=1e-3)
        assert metrics[f"layer {number}/eligibility_mean"] == pytest.approx(float(eligibility.mean()), abs=1e-3)
        low = float((gate < 0.5).double().mean())
        assert metrics[f"layer {number}/gate_low_ratio"] == pytest.approx(low, abs=0.02)
        assert float(eligibility.max()) == 1
        assert metrics[f"layer {number}/eligibility_mean"] != pytest.approx(first["eligibility_mean"], abs=1e-6)
        if k:
            assert 0 < low < 0.5
            # A synapse is busy if its gate is not 1: a quarter, and a few more since the last measurement.
            assert 0.15 < float((gate < 1).double().mean()) < 0.6
        else:
            assert (metrics[f"layer {number}/gate_mean"], low) == (1, 0)


def test_the_overlap_that_is_reported_is_the_mean_over_pairs_of_tasks(trained):
    folder = trained()
    outcome = look("analyze", folder, "--overlap")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    kept = [torch.load(folder / "artifacts" / f"eligibility-00{task}.pt")["layers"] for task in (1, 2, 3)]
    for number, name in enumerate(kept[0], start=1):
        marks = [busiest(layers[name]).double() for layers in kept]
        pairs = [(a * b).sum() / (0.25 * a.numel()) for a, b in itertools.combinations(marks, 2)]
        assert metrics[f"layer {number}/overlap"] == pytest.approx(float(sum(pairs) / 3), abs=1e-6)


def test_a_control_shows_forgetting_only_and_refuses_the_rest_in_one_line(trained):
    folder = trained("--optimizer", "adam", "--replay", "none")
    outcome = look("analyze", folder)
    assert outcome.code == 0, outcome.err
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {"accuracy_matrix", "accuracy_curves"}
    for switch in ("--eligibility", "--gates", "--overlap", "--sweep-k"):
        assert_refused(look("analyze", folder, switch), switch, folder.name, "adam", "--optimizer selective")


def test_a_stopped_run_shows_the_tasks_that_it_completed(base, trained):
    with interrupted_after(EPOCHS):
        options = ["--dataset", base / "tiny", "--tasks", 2, "--epochs", EPOCHS, "--hidden", 4, "--quiet"]
        outcome = plastic("train", "selective", "--runs", base / "stopped", *options)
    assert outcome.code == 130
    (folder,) = (path for path in (base / "stopped").iterdir() if (path / "run.json").exists())
    history = history_of(folder)
    assert history.learned == 1
    # The last checkpoint may be older than the metrics and artifacts, and is not needed.
    (folder / "checkpoint.pt").unlink()
    outcome = plastic("analyze", "selective", "--runs", folder.parent, "--run", folder.name, "--forgetting")
    assert "completed 1 of 2 tasks" in outcome.err
    outcome = look("analyze", folder, "--forgetting")
    assert outcome.code == 0, outcome.err
    assert "test/forgetting" not in outcome.results[0]["metrics"]
    measured = look("eval", folder).results[0]["metrics"]
    assert {"test/accuracy", "test/accuracy_task_1"} <= measured.keys()
    assert measured["test/accuracy"] == outcome.results[0]["metrics"]["test/accuracy"]
    assert look("render", folder).code == 0
    assert len(pd.read_csv(folder / "tables" / "forgetting.csv")) == 1
    assert_refused(look("analyze", folder, "--overlap"), "--overlap", "1 task", "two")


def test_a_run_without_a_completed_task_is_refused(base):
    with interrupted_after(1):
        options = ["--dataset", base / "tiny", "--epochs", EPOCHS, "--hidden", 4, "--quiet"]
        plastic("train", "selective", "--runs", base / "begun", *options)
    (folder,) = (path for path in (base / "begun").iterdir() if (path / "run.json").exists())
    for verb in ("eval", "analyze", "render"):
        assert_refused(look(verb, folder), "before the end of its first task", f"--resume {folder.name}")


@pytest.mark.parametrize(
    ("name", "verb", "options"),
    [
        ("eligibility-002", "analyze", ["--overlap"]),
        ("plasticity-000002", "analyze", ["--gates"]),
        ("plasticity-000006", "render", []),
        ("network-002", "eval", []),
        ("network-003", "eval", []),
    ],
)
def test_a_missing_file_of_the_run_is_named(name, verb, options, trained, tmp_path):
    folder = shutil.copytree(trained(), tmp_path / "runs" / trained().name)
    (folder / "artifacts" / f"{name}.pt").unlink()
    assert_refused(look(verb, folder, *options), f"{name}.pt")


def test_a_completed_run_with_missing_metrics_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained(), tmp_path / "runs" / trained().name)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    # Other tests may have analyzed this run, which also logs. Only rows of the second half of training are removed.
    learned = [line for line in lines if json.loads(line)["stage"] == "train"]
    (folder / "metrics.jsonl").write_text("".join(learned[: len(learned) // 2]))
    assert_refused(look("analyze", folder), "metrics.jsonl")


# ------------------------------------------------------------------------------------------------------- joint training


def test_intransigence_is_measured_against_joint_training(trained):
    folder, joint = trained(), trained("--joint", "--replay", "none")
    outcome = look("analyze", folder, "--joint", joint.name)
    assert outcome.code == 0, outcome.err
    mine, together = stored_matrix(folder), stored_matrix(joint)
    metrics = outcome.results[0]["metrics"]
    for task in range(1, TASKS + 1):
        expected = together[task, task - 1] - mine[task, task - 1]
        assert metrics[f"test/intransigence_task_{task}"] == pytest.approx(expected)
    assert (folder / "figures" / "intransigence.png").exists()


def test_joint_runs_of_other_tasks_are_refused(trained):
    folder = trained()
    assert_refused(
        look("analyze", folder, "--joint", trained("--optimizer", "adam", "--replay", "none").name), "joint training"
    )
    other = trained("--joint", "--replay", "none", "--class-order", "2,1,0")
    assert_refused(look("analyze", folder, "--joint", other.name), "other tasks", "--class-order")
    permuted = ("--stream", "permuted", "--scenario", "domain")
    first, second = trained(*permuted), trained(*permuted, "--joint", "--replay", "none", "--seed", 1)
    assert_refused(look("analyze", first, "--joint", second.name), "seed 1", "from 0")
    assert_refused(look("analyze", folder, "--joint", "nobody"), "no run 'nobody'")


# ------------------------------------------------------------------------------------------------ strengths of the gate


def test_other_strengths_are_trained_like_the_run(trained):
    folder = trained("--penalty", "ewc")
    files = sorted(path for path in folder.rglob("*"))
    control = trained("--penalty", "ewc", "--optimizer", "adam")
    history = history_of(folder)
    table = sweep_k(history, (5.0, 10.0, 5.0)).set_index("k")
    assert list(table.index) == [0, 5, 10]
    for k, expected in ((0.0, stored_matrix(control)), (5.0, stored_matrix(folder))):
        found = table.loc[k]
        np.testing.assert_array_equal(found[[f"accuracy_task_{task}" for task in range(1, TASKS + 1)]], expected[-1])
        assert found["forgetting"] == continual.forgetting(expected)
        assert found["forward_transfer"] == continual.forward_transfer(expected)
    assert sorted(path for path in folder.rglob("*")) == files, "nothing is written"


def test_sweep_k_has_a_figure_and_refuses_a_strength_out_of_range(trained):
    folder = trained("--iterations", 3, "--base", "sgd", "--replay", "none")
    outcome = look("analyze", folder, "--sweep-k", "--k", "2,5")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    assert {"k=0/accuracy", "k=2/accuracy", "k=5/forgetting"} <= metrics.keys()
    assert (folder / "figures" / "sweep_k.png").exists()
    assert (
        "(k = 0 to 5)" in figures.sweep_figure(history_of(folder), sweep_k(history_of(folder), (5.0,))).labels.subtitle
    )
    for k in ("-1", "1e9", "5,1e9"):
        wrong = float(k.split(",")[-1])
        assert_refused(look("analyze", folder, "--sweep-k", "--k", k), f"--k {wrong:g}", "from 0 to 1000000")
    assert_refused(look("analyze", folder, "--k", "1"), "--sweep-k")


# -------------------------------------------------------------------------------------------------- the shared analyses


def test_analyses_by_class_need_outputs_that_are_classes(trained):
    outcome = look("analyze", trained(), "--sparsity")
    assert outcome.code == 0, outcome.err
    assert (trained() / "tables" / "sparsity.csv").exists()
    permuted = trained("--stream", "permuted", "--scenario", "domain")
    assert look("analyze", permuted, "--sparsity").code == 0
    for options in (("--scenario", "task"), ("--stream", "permuted", "--scenario", "class")):
        assert_refused(look("analyze", trained(*options), "--sparsity"), "--sparsity", "not the classes")
    assert_refused(look("analyze", trained(), "--other", "x"), "--other x does nothing without --cka")
