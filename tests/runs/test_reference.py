"""The reference: measured runs in two files, which read like a store."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.errors import UserError
from plastic_cli.runs import reference as module
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.record import settings_text
from plastic_cli.runs.reference import (
    CURVE_POINTS,
    METRICS_FILE,
    RUNS_FILE,
    STAGES_FILE,
    Reference,
    read_reference,
    setting_text,
    thinned,
    write_reference,
)
from plastic_cli.runs.stages import StageRecord, commit_stage
from plastic_cli.runs.store import METRIC_COLUMNS, RunStore


def texts(*runs):
    return {settings_text(run.record.rule, run.config) for run in runs}


@pytest.fixture
def store(runs_folder):
    return RunStore(runs_folder)


def test_the_reference_reads_like_the_store_that_it_was_written_from(make_run, store, tmp_path):
    runs = [make_run(seed=seed, accuracy=0.5 + seed / 7, hidden=[8, 4], rate=0.1) for seed in range(3)]
    with open_run(runs[0].folder, stage="eval").locked() as again:
        again.log("test", {"corruption": "noise:0.1"}, accuracy=0.25)
    assert write_reference(store, tmp_path / "new", {"one": texts(*runs), "two": texts(runs[1])}) == 3
    reference = Reference(tmp_path / "new")
    assert reference.problem is None
    assert reference.recipes() == {"one": reference.recipes()["one"], "two": [runs[1].id]}
    assert set(reference.recipes()["one"]) == {run.id for run in runs}
    assert [row["run"] for row in reference.of_recipe("two")] == [runs[1].id]

    own, stored = reference.runs(), store.runs()
    common = [name for name in stored.columns if name not in ("folder", "host")]
    pd.testing.assert_frame_equal(own[common], stored[common])
    names = dict(zip(own["run"], own["recipes"], strict=True))
    assert names == {runs[0].id: ["one"], runs[1].id: ["one", "two"], runs[2].id: ["one"]}
    metrics, logged = reference.metrics(), store.metrics()
    assert list(metrics.columns) == METRIC_COLUMNS
    for run in runs:
        kept, whole = (frame[frame["run"] == run.id].drop(columns="time") for frame in (metrics, logged))
        assert kept.to_json(orient="records") == whole.to_json(orient="records")
    assert metrics["time"].isna().all()
    assert set(reference.metrics(runs=[runs[2].id], stage="train")["run"]) == {runs[2].id}
    assert reference.metrics(stage="eval")["value"].tolist() == [0.25]


def test_a_record_keeps_all_but_the_command_and_the_process(make_run, store, tmp_path):
    run = make_run(accuracy=1 / 3)
    write_reference(store, tmp_path, {"one": texts(run)})
    kept, whole = Reference(tmp_path).record(run.id), run.record
    for name in ("rule", "seed", "config", "status", "created", "seconds", "steps_done", "summary", "machine", "data"):
        assert getattr(kept, name) == getattr(whole, name), name
    assert kept.summary["test/accuracy"] == 1 / 3
    assert (kept.argv, kept.process) == ([], {})
    with pytest.raises(UserError, match="no run 'x'"):
        Reference(tmp_path).record("x")


def test_the_records_of_stages_are_kept(make_run, store, tmp_path):
    runs = [make_run(seed=seed) for seed in range(2)]
    record = StageRecord("analyze", {"probe": True, "layers": [1, 2]}, {"test/probe": 0.75, "x": None}, ["a.csv"], 1.5)
    commit_stage(runs[1].folder, record, "")
    write_reference(store, tmp_path / "one", {"one": texts(*runs)})
    first = Reference(tmp_path / "one")
    assert (first.stages(runs[0].id), first.stages(runs[1].id)) == ([], [record])
    write_reference(RunStore(tmp_path / "empty"), tmp_path / "two", {"one": texts(*runs)}, keep=first)
    assert Reference(tmp_path / "two").stages(runs[1].id) == [record]


def test_only_ended_runs_of_recipes_are_in_it_and_a_completed_one_before_a_failed_one(make_run, store, tmp_path):
    wanted = make_run(seed=0, accuracy=0.5)
    again = make_run(seed=0, status="failed", error="it broke")
    other = make_run(seed=0, rate=0.5)
    failed = make_run(seed=1, status="failed", error="it broke")
    stopped = make_run(seed=2, status="interrupted")
    write_reference(store, tmp_path, {"one": texts(wanted, again, failed, stopped)})
    assert {row["run"] for row in Reference(tmp_path).rows()} == {wanted.id, failed.id}
    assert other.id not in Reference(tmp_path).recipes()["one"]


def test_the_runs_of_a_setting_are_of_one_version_the_newest_of_those_with_most_seeds(runs_folder, tmp_path):
    def run(folder, seed, version, status="completed"):
        made = create_run(folder, rule="oja", config={"seed": seed}, versions={"plastic": version})
        with made.locked():
            made.start()
            made.log("test", accuracy=0.5)
            made.finish(status)
        return made

    old = [run(runs_folder / "old", seed, "0.9.0") for seed in (0, 1)]
    write_reference(RunStore(runs_folder / "old"), tmp_path / "first", {"one": texts(*old)})
    first = Reference(tmp_path / "first")
    new = RunStore(runs_folder / "new")

    def kept(folder):
        write_reference(new, tmp_path / folder, {"one": texts(*old)}, keep=first)
        reference = Reference(tmp_path / folder)
        assert set(reference.metrics()["run"]) == {row["run"] for row in reference.rows()}
        return {row["run"] for row in reference.rows()}

    newer = [run(new.folder, 0, "0.10.0")]
    run(new.folder, 0, "0.8.0")
    assert kept("fewer") == {made.id for made in old}
    # A run that failed counts as measured.
    newer.append(run(new.folder, 1, "0.10.0", "failed"))
    assert kept("as many") == {made.id for made in newer}


def test_a_setting_is_found_whatever_seed_and_device(make_run, store, tmp_path):
    runs = [make_run(seed=seed, device=device, rate=0.1) for seed, device in ((0, "auto"), (1, "cpu"))]
    other = make_run(seed=0, rate=0.2)
    write_reference(store, tmp_path, {"one": texts(*runs, other)})
    reference = Reference(tmp_path)
    found = reference.with_setting("oja", {"rate": 0.1, "dataset": "digits", "seed": 7, "device": "cuda"})
    assert {row["run"] for row in found} == {run.id for run in runs}
    assert reference.with_setting("hebb", {"rate": 0.1, "dataset": "digits"}) == []
    assert setting_text("oja", {"a": 1, "b": 2}) == setting_text("oja", {"b": 2, "a": 1, "seed": 3})


@pytest.mark.parametrize("name", [RUNS_FILE, STAGES_FILE, METRICS_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_file_is_one_line_and_never_a_traceback(make_run, store, tmp_path, name, damage):
    run = make_run()
    write_reference(store, tmp_path, {"one": texts(run)})
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"x" * 200}[damage])
    reference = Reference(tmp_path)
    if name != METRICS_FILE:
        assert reference.problem is not None
        assert "\n" not in reference.problem
        assert "Install plastic again" in reference.problem or "install plastic again" in reference.problem
        assert reference.rows() == []
        assert reference.runs().empty
        assert reference.metrics().empty
    else:
        assert [row["run"] for row in reference.rows()] == [run.id]
        with pytest.raises(UserError, match="Install plastic again"):
            reference.metrics()


def test_files_of_two_references_are_never_combined(make_run, store, tmp_path, monkeypatch):
    one = make_run(seed=0)
    write_reference(store, tmp_path / "old", {"one": texts(one)})
    two = make_run(seed=1)
    commit_stage(two.folder, StageRecord("eval", {}, {"test/accuracy": 0.5}, [], 1.5), "")
    write_reference(store, tmp_path / "new", {"one": texts(one, two)})
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    for name in (METRICS_FILE, STAGES_FILE, RUNS_FILE):
        mixed = tmp_path / f"mixed {name}"
        shutil.copytree(tmp_path / "old", mixed)
        shutil.copy(tmp_path / "new" / name, mixed)
        problem = Reference(mixed).problem
        assert problem is not None, name
        assert "do not belong together" in problem
        assert "\n" not in problem
        assert Reference(mixed).rows() == []
    # One that was read before the files were replaced never returns metrics of other runs.
    reference = Reference(tmp_path / "old")
    shutil.copy(tmp_path / "new" / METRICS_FILE, tmp_path / "old")
    with pytest.raises(UserError, match="was replaced after the runs had been read"):
        reference.metrics()


def test_a_reader_waits_while_the_files_are_replaced(make_run, store, tmp_path, monkeypatch):
    one = make_run(seed=0)
    write_reference(store, tmp_path / "old", {"one": texts(one)})
    two = make_run(seed=1)
    write_reference(store, tmp_path / "new", {"one": texts(one, two)})
    shutil.copy(tmp_path / "new" / METRICS_FILE, tmp_path / "old")

    def pause(_seconds):
        shutil.copytree(tmp_path / "new", tmp_path / "old", dirs_exist_ok=True)

    monkeypatch.setattr(module.time, "sleep", pause)
    assert {row["run"] for row in Reference(tmp_path / "old").rows()} == {one.id, two.id}


@pytest.mark.parametrize("failing", ["_write_metrics", "_write_stages", "_write_runs"])
def test_a_reference_that_cannot_be_written_leaves_the_old_one(make_run, store, tmp_path, monkeypatch, failing):
    one = make_run(seed=0)
    write_reference(store, tmp_path, {"one": texts(one)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    two = make_run(seed=1)

    def full(*_arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, failing, full)
    with pytest.raises(OSError, match="no space"):
        write_reference(store, tmp_path, {"one": texts(one, two)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not list(tmp_path.glob(".*"))


def test_files_without_checksums_are_read(make_run, store, tmp_path, monkeypatch):
    one = make_run(seed=0)
    monkeypatch.setattr(module, "CHECKSUMS_KEY", b"unknown")
    write_reference(store, tmp_path, {"one": texts(one)})
    monkeypatch.undo()
    assert [row["run"] for row in Reference(tmp_path).rows()] == [one.id]
    assert not Reference(tmp_path).metrics().empty


def test_a_newer_schema_is_refused_with_what_to_do(make_run, store, tmp_path, monkeypatch):
    run = make_run()
    monkeypatch.setattr(module, "SCHEMA", 2)
    write_reference(store, tmp_path, {"one": texts(run)})
    monkeypatch.setattr(module, "SCHEMA", 1)
    problem = Reference(tmp_path).problem
    assert problem is not None
    assert "format 2, this one reads 1" in problem
    assert "Upgrade plastic" in problem


def test_each_folder_is_read_once_until_it_is_written_again(make_run, store, tmp_path):
    one = make_run(seed=0)
    write_reference(store, tmp_path, {"one": texts(one)})
    assert read_reference(tmp_path) is read_reference(tmp_path)
    two = make_run(seed=1)
    write_reference(store, tmp_path, {"one": texts(one, two)})
    assert len(read_reference(tmp_path).rows()) == 2


def curve(points, run="a", labels=None, **changes):
    rows = [
        {"run": run, "stage": "train", "split": "test", "step": step, "metric": "accuracy", "value": step / 7}
        for step in range(points)
    ]
    return [{**row, "labels": labels, "time": 0.0, **changes} for row in rows]


@given(st.integers(1, 300), st.integers(2, 60))
def test_a_thinned_curve_has_its_ends_and_even_distances(points, kept):
    frame = pd.DataFrame(curve(points))
    steps = thinned(frame, kept)["step"].to_numpy()
    assert len(steps) == min(points, kept)
    assert (steps[0], steps[-1]) == (0, points - 1)
    if points > kept:
        gaps = np.diff(steps)
        assert gaps.max() - gaps.min() <= 1
    else:
        assert len(steps) == points


def test_each_curve_is_thinned_apart():
    rows = [*curve(120), *curve(10, run="b"), *curve(80, labels=json.dumps({"layer": 1})), *curve(1, split="train")]
    order = np.random.default_rng(0).permutation(len(rows))
    # Rows of several curves are mixed in a file; each curve keeps its order.
    frame = pd.DataFrame(rows).iloc[np.argsort(np.argsort(order) // 40, kind="stable")]
    counts = thinned(frame).groupby(["run", "split", "labels"], dropna=False).size()
    assert sorted(counts) == [1, 10, CURVE_POINTS, CURVE_POINTS]
