"""The record of an eval, analyze or render in the folder of a run."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plastic_cli
from plastic_cli.errors import UserError
from plastic_cli.runs import stages
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.record import read_record
from plastic_cli.runs.stages import (
    PENDING_FILE,
    STAGES_FOLDER,
    StageRecord,
    commit_stage,
    read_stage,
    read_stages,
    stage_file,
)
from plastic_cli.testing import interrupted_after, plastic

RECORD = StageRecord(verb="eval", config={"seed": 1, "share": 0.5}, results={"test/accuracy": 0.5, "test/loss": None})
ROW = '{"stage": "eval", "split": "test", "step": 1, "metric": "accuracy", "value": 0.5}\n'


def test_a_record_is_read_as_it_was_written(tmp_path):
    commit_stage(tmp_path, RECORD, [ROW])
    assert read_stage(tmp_path, "eval", {"share": 0.5, "seed": 1}) == RECORD
    assert read_stage(tmp_path, "eval", {"share": 0.5, "seed": 2}) is None
    assert read_stage(tmp_path, "analyze", RECORD.config) is None
    assert read_stages(tmp_path) == [RECORD]
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    name = stage_file(tmp_path, "eval", RECORD.config).stem
    assert json.loads(line) == {**json.loads(ROW), "record": name}
    assert [path.name for path in (tmp_path / STAGES_FOLDER).iterdir()] == [
        stage_file(tmp_path, "eval", RECORD.config).name
    ]


def test_a_stage_that_is_carried_out_again_replaces_its_rows_and_no_others(tmp_path):
    other = replace(RECORD, config={"seed": 2})
    train = ROW.replace("eval", "train")
    (tmp_path / "metrics.jsonl").write_text(train + ROW)
    commit_stage(tmp_path, RECORD, [ROW, ROW])
    commit_stage(tmp_path, other, [ROW])
    commit_stage(tmp_path, RECORD, [ROW.replace("0.5", "0.75")])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["value"], "record" in line) for line in lines] == [
        ("train", 0.5, False),
        ("eval", 0.5, False),
        ("eval", 0.5, True),
        ("eval", 0.75, True),
    ]
    assert lines[2]["record"] == stage_file(tmp_path, "eval", other.config).stem
    # Also if the record was damaged or removed meanwhile.
    stage_file(tmp_path, "eval", RECORD.config).unlink()
    commit_stage(tmp_path, RECORD, [])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_record_is_ignored_or_whole(data, tmp_path):
    commit_stage(tmp_path, RECORD, [])
    path = stage_file(tmp_path, "eval", RECORD.config)
    text = path.read_bytes()
    position = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    put = data.draw(st.sampled_from([b"", b"[", b"}", b"null", b"NaN", b"1e999", b'"', b"\xff", b"-1", b"[" * 2000]))
    path.write_bytes(text[:position] + put + text[position + length :])
    found = read_stage(tmp_path, "eval", RECORD.config)
    assert found is None or (found.verb, found.config) == (RECORD.verb, RECORD.config)
    for record in read_stages(tmp_path):
        json.dumps(record.results, allow_nan=False)


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"verb": "sing"},
        {"results": {"a": "b"}},
        {"files": [3]},
        {"seconds": "long"},
        {"config": []},
        {"seconds": float("nan")},
        {"results": {"a": float("inf")}},
    ],
    ids=str,
)
def test_a_record_of_another_form_is_ignored(tmp_path, damage):
    path = stage_file(tmp_path, "eval", RECORD.config)
    commit_stage(tmp_path, RECORD, [])
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    assert read_stages(tmp_path) == []


def test_a_record_holds_for_the_same_versions_training_and_files(tmp_path):
    record = replace(RECORD, files=["a.csv"], steps_done={"epoch": 2}, versions={"plastic": "1", "rule": "r 2"})
    assert not record.holds_for(tmp_path, {"epoch": 2}, record.versions), "its file is missing"
    (tmp_path / "a.csv").touch()
    assert record.holds_for(tmp_path, {"epoch": 2}, {**record.versions, "torch": "3"})
    assert not record.holds_for(tmp_path, {"epoch": 3}, record.versions)
    for name in record.versions:
        assert not record.holds_for(tmp_path, {"epoch": 2}, {**record.versions, name: "other"})
    elsewhere = replace(record, files=[str(tmp_path / "a.csv")])
    assert not elsewhere.holds_for(tmp_path, {"epoch": 2}, record.versions), "a film that was written elsewhere"


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before the rows", "after the rows"])
def test_a_process_that_is_killed_while_it_writes_leaves_no_rows(train, monkeypatch, moment):
    folder = train()
    before = (folder / "metrics.jsonl").read_bytes()
    with monkeypatch.context() as patched:
        # As in a process that is killed, nothing is cleaned up.
        patched.setattr("plastic_cli.runs.stages.undo_unfinished_commit", lambda _: None)

        def killed(*_arguments, **_options):
            raise _Killed

        if moment == "before the rows":
            patched.setattr("plastic_cli.runs.stages.append_whole", killed)
        else:
            patched.setattr("pathlib.Path.replace", _replace_except(PENDING_FILE, killed))
        with pytest.raises(_Killed):
            plastic_cli.evaluate(folder, quiet=True)
    rows = (folder / "metrics.jsonl").read_bytes()[len(before) :]
    assert bool(rows) == (moment == "after the rows")
    assert read_stages(folder) == []
    assert (folder / STAGES_FOLDER / PENDING_FILE).exists()
    # The next process that writes to the run, whichever it is, removes them.
    with open_run(folder).locked():
        pass
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert list((folder / STAGES_FOLDER).iterdir()) == []
    plastic_cli.evaluate(folder, quiet=True)
    assert len(read_stages(folder)) == 1
    once = (folder / "metrics.jsonl").read_bytes()
    assert once.startswith(before)
    plastic_cli.evaluate(folder, quiet=True)
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == len(once.splitlines())


def _replace_except(name, instead):
    from pathlib import Path

    replace_path = Path.replace
    return lambda path, target: instead() if path.name == name else replace_path(path, target)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metrics_bytes": -1}', '{"metrics_bytes": "a"}', "[" * 5000])
def test_a_damaged_pending_record_is_removed_and_no_row_is_lost(train, content):
    folder = train()
    before = (folder / "metrics.jsonl").read_bytes()
    (folder / STAGES_FOLDER).mkdir()
    (folder / STAGES_FOLDER / PENDING_FILE).write_text(content)
    with open_run(folder).locked():
        pass
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert list((folder / STAGES_FOLDER).iterdir()) == []


def test_rows_and_record_are_left_out_together_if_the_disk_is_full(train, monkeypatch):
    folder = train()
    before = (folder / "metrics.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:10]))
    with pytest.raises(OSError, match="No space left"):
        plastic_cli.evaluate(folder, quiet=True)
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert list((folder / STAGES_FOLDER).iterdir()) == []


@pytest.mark.parametrize("others", [[ROW.replace("eval", "train")], []], ids=["other rows", "no other rows"])
def test_a_stage_that_cannot_be_written_again_has_no_record(tmp_path, monkeypatch, others):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(others))
    commit_stage(tmp_path, RECORD, [ROW])

    def fail(path, content, **options):
        path.write_text(path.read_text() + content)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stages, "append_whole", fail)
    with pytest.raises(OSError, match="No space left"):
        commit_stage(tmp_path, RECORD, [ROW])
    assert metrics.read_text() == "".join(others)
    assert read_stage(tmp_path, "eval", RECORD.config) is None, "without its rows it is carried out again"
    assert list((tmp_path / STAGES_FOLDER).iterdir()) == []


def test_every_stage_leaves_its_record_by_hand_and_from_python(train):
    folder = train()
    assert plastic("eval", "backprop", "--run", folder.name, "--json").code == 0
    plastic_cli.analyze(folder, sparsity=True, quiet=True)
    evaluated, analyzed = read_stages(folder)
    record = read_record(folder)
    assert (evaluated.verb, analyzed.verb) == ("eval", "analyze")
    assert analyzed.config["sparsity"] is True
    assert "tables/sparsity.csv" in analyzed.files
    assert evaluated.results["test/accuracy"] == pytest.approx(record.summary["test/accuracy"])
    for stage in (evaluated, analyzed):
        assert {name: stage.versions[name] for name in ("plastic", "rule")} == {
            name: record.versions[name] for name in ("plastic", "rule")
        }
        assert stage.steps_done == record.steps_done == {"epoch": 1}
        assert stage.seconds >= 0
        assert record.finished <= stage.started <= stage.finished
        assert stage.holds_for(folder, record.steps_done, record.versions)


def test_a_stage_that_fails_leaves_no_record(train):
    folder = train()
    with pytest.raises(UserError):
        plastic_cli.analyze(folder, other="none", quiet=True)
    assert not (folder / STAGES_FOLDER).exists()


def test_a_stage_that_is_repeated_on_a_stopped_run_leaves_what_its_checkpoint_counts(tiny_data):
    options = ["--dataset", tiny_data, "--hidden", 4, "--epochs", 6]
    noisy = ["--run", "stopped", "--corruption", "gaussian-noise:0.3"]
    with interrupted_after(2):
        plastic("train", "backprop", *options, "--name", "stopped")
    assert plastic("eval", "backprop", *noisy).code == 0
    with interrupted_after(2):
        plastic("train", "backprop", "--resume", "stopped")
    assert plastic("eval", "backprop", *noisy).code == 0
    assert plastic("train", "backprop", "--resume", "stopped").code == 0
    store = plastic_cli.RunStore()
    rows = store.metrics()
    accuracy = rows[(rows["stage"] == "train") & (rows["split"] == "test") & (rows["metric"] == "accuracy")]
    assert accuracy["step"].tolist() == list(range(7))
    assert sorted(rows.loc[rows["stage"] == "eval", "metric"]) == ["accuracy", "loss"]
    assert not store.errors
