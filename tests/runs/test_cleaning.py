"""What killed processes left behind goes when it is old, and nothing else ever."""

from __future__ import annotations

import os
import time

import pytest
from filelock import FileLock

from plastic_cli.runs.cleaning import DAY, clean_store, clean_store_daily
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.archive import finish_moves
from plastic_cli.sweeps.job import claimed

ID = "20260101-000000-abcd"


@pytest.fixture
def days_later(monkeypatch):
    """Let it be two days later for whoever asks how old something is."""

    def go():
        now = time.time() + 2 * DAY
        monkeypatch.setattr("plastic_cli.runs.cleaning.time.time", lambda: now)

    return go


@pytest.fixture
def leftovers(runs_folder):
    """Make one of each kind, and return their paths."""
    made = {
        "an empty run": runs_folder / ID,
        "a run before its first record": runs_folder / f"{ID}x",
        "a run with nothing but its lock": runs_folder / f"{ID}y",
        "a run that was being removed": runs_folder / ".removed-abc",
        "a run that was being moved in": runs_folder / ".incoming-abc",
    }
    for path in made.values():
        path.mkdir(parents=True)
    (made["a run before its first record"] / ".run.json.abc.tmp").write_text("{")
    (made["a run with nothing but its lock"] / "lock").touch()
    (made["a run that was being removed"] / "run.json").write_text("{}")
    (runs_folder / ".index").mkdir()
    (runs_folder / ".sweeps/logs").mkdir(parents=True)
    (runs_folder / ".sweeps/claims").mkdir()
    files = {
        "a file of the index": runs_folder / ".index/.records.abc.tmp.json",
        "a marker": runs_folder / ".sweeps/marker-abc",
        "a claim": runs_folder / ".sweeps/claims/abc.lock",
        "settings": runs_folder / ".sweeps/logs/abc.toml",
    }
    for path in files.values():
        path.touch()
    return {**made, **files}


def test_leftovers_of_a_day_ago_are_removed(leftovers, runs_folder, make_run, days_later):
    run = make_run()
    leftovers["of a checkpoint"] = run.folder / ".checkpoint.pt.abc.tmp"
    leftovers["of a checkpoint"].touch()
    before = {path.name for path in run.folder.iterdir()}
    days_later()
    clean_store(runs_folder)
    assert [what for what, path in leftovers.items() if path.exists()] == []
    assert {path.name for path in run.folder.iterdir()} == before - {".checkpoint.pt.abc.tmp"}
    assert RunStore(runs_folder).runs()["run"].tolist() == [run.id]


def test_newer_leftovers_stay(leftovers, runs_folder):
    clean_store(runs_folder)
    assert [what for what, path in leftovers.items() if not path.exists()] == []


def test_files_of_a_person_stay(runs_folder, days_later, tmp_path, make_run):
    run = make_run()
    kept = [runs_folder / "notes", runs_folder / "20260101", runs_folder / f"{ID}-copy"]
    for path in kept:
        path.mkdir()
    full = runs_folder / ID
    full.mkdir()
    (full / "metrics.jsonl").write_text("{}")
    link = runs_folder / f"{ID}z"
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    damaged = make_run()
    (damaged.folder / "run.json").write_text("{")
    log = runs_folder / ".sweeps/logs/abc.log"
    log.parent.mkdir(parents=True)
    log.touch()
    days_later()
    clean_store(runs_folder)
    assert all(path.exists() for path in [*kept, full / "metrics.jsonl", link, damaged.folder / "checkpoint.pt", log])
    assert run.folder.exists()


def test_files_of_a_living_process_stay_at_any_age(runs_folder, days_later):
    with claimed(runs_folder, "key") as mine:
        assert mine
        folder = runs_folder / ID
        folder.mkdir()
        with FileLock(folder / "lock"):
            days_later()
            clean_store(runs_folder)
            assert (runs_folder / ".sweeps/claims/key.lock").exists()
            assert (folder / "lock").exists()


def test_creating_a_run_cleans_the_store_once_a_day(leftovers, runs_folder, monkeypatch):
    old = leftovers["a marker"]
    long_ago = time.time() - 2 * DAY
    monkeypatch.setattr("plastic_cli.runs.cleaning.last_change", lambda path: path.lstat().st_mtime)
    for path in leftovers.values():
        os.utime(path, (long_ago, long_ago))
    create_run(runs_folder, rule="oja", config={"seed": 0})
    assert not old.exists()
    assert not leftovers["an empty run"].exists()
    old.touch()
    os.utime(old, (long_ago, long_ago))
    clean_store_daily(runs_folder)
    assert old.exists()


def test_an_interrupted_move_is_finished(make_run, runs_folder, monkeypatch):
    run = make_run(accuracy=0.75)
    ready = runs_folder / f".ready-0123-{run.id}"
    run.folder.rename(ready)
    finish_moves(runs_folder)
    assert ready.exists(), "a living process may be about to do it"
    now = time.time() + 100
    monkeypatch.setattr("plastic_cli.sweeps.archive.time.time", lambda: now)
    finish_moves(runs_folder)
    assert RunStore(runs_folder).runs()["test/accuracy"].tolist() == [0.75]
    other = runs_folder / f".ready-0456-{run.id}"
    other.mkdir()
    finish_moves(runs_folder)
    assert not other.exists()
    assert open_run(run.folder).id == run.id


@pytest.mark.parametrize("call", ["first", "second"])
def test_a_state_that_cannot_be_replaced_stays(make_run, runs_folder, monkeypatch, call):
    from pathlib import Path

    from plastic_cli.sweeps.archive import pack, unpack

    run = make_run(accuracy=0.75)
    content = pack(run.folder)
    real, calls = Path.rename, []

    def rename(path, target):
        if not path.name.startswith(".incoming") and not path.name.startswith(".removed"):
            calls.append(path)
            if len(calls) == (1 if call == "first" else 2):
                raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        unpack(content, runs_folder, run.id, replaces=True)
    monkeypatch.undo()
    assert RunStore(runs_folder).runs()["test/accuracy"].tolist() == [0.75]
    assert {path.name for path in runs_folder.iterdir()} <= {run.id, ".index"}
