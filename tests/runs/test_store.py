"""All runs of a folder as tables, whatever has happened to the folder."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.index import read_index, write_index
from plastic_cli.runs.metrics import parse_rows, read_rows
from plastic_cli.runs.record import SCHEMA, STATUSES
from plastic_cli.runs.rows import RUN_COLUMNS
from plastic_cli.runs.store import METRIC_COLUMNS, RunStore

ROW = {"stage": "train", "split": "test", "step": 1, "metric": "accuracy", "value": 0.5, "time": 1.5}


@pytest.fixture
def store(runs_folder):
    return RunStore(runs_folder)


def change_record(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ------------------------------------------------------------------------------------------------------- columns


def test_runs_has_the_documented_columns_and_types(make_run, store):
    first = make_run("one", seed=3, accuracy=0.75, hidden=[8, 4])
    second = make_run(status="failed", error="it broke", rate=0.1)
    frame = store.runs()
    assert list(frame.columns[: len(RUN_COLUMNS)]) == RUN_COLUMNS
    assert list(frame.columns[len(RUN_COLUMNS) :]) == [
        "config.seed", "config.dataset", "config.hidden", "config.rate", "test/accuracy", "test/loss",
    ]  # fmt: skip
    for column in ("created", "started", "finished"):
        assert isinstance(frame[column].dtype, pd.DatetimeTZDtype)
        assert (pd.Timestamp.now("UTC") - frame[column]).dt.total_seconds().between(-1, 300).all()
    assert (frame["created"] <= frame["started"]).all()
    assert frame["seconds"].dtype == "float64"
    assert frame["test/accuracy"].dtype == "float64"
    rows = frame.set_index("run").to_dict("index")
    one, two = rows[first.id], rows[second.id]
    assert (one["name"], one["rule"], one["seed"], one["status"], one["verb"]) == (
        "one",
        "oja",
        3,
        "completed",
        "train",
    )
    assert (one["config.hidden"], one["dataset"], one["version"]) == ([8, 4], "digits", "1.2.3")
    assert one["folder"] == str(store.folder / first.id)
    assert (one["test/accuracy"], one["test/loss"]) == (0.75, 0.8)
    assert (two["status"], two["error"], two["config.rate"]) == ("failed", "it broke", 0.1)
    assert pd.isna(one["config.rate"])
    assert store.errors == []


def test_metrics_has_the_documented_columns_and_types(make_run, store):
    run = make_run(accuracy=0.9)
    with open_run(run.folder, stage="eval").locked() as again:
        again.log("test", {"corruption": "rotation:10", "a": 1}, accuracy=float("nan"))
    frame = store.metrics()
    assert list(frame.columns) == METRIC_COLUMNS
    assert frame["step"].dtype == "int64"
    assert frame["value"].dtype == frame["time"].dtype == "float64"
    train = frame[frame["stage"] == "train"]
    assert train["step"].tolist() == [1, 1, 2, 2, 3, 3]
    assert train["metric"].tolist() == ["accuracy", "loss"] * 3
    np.testing.assert_allclose(train["value"], [0.3, 1, 0.6, 0.9, 0.9, 0.8])
    assert train["labels"].isna().all()
    assert frame["time"].is_monotonic_increasing
    last = frame.iloc[-1]
    assert (last["stage"], last["run"]) == ("eval", run.id)
    assert json.loads(last["labels"]) == {"corruption": "rotation:10", "a": 1}
    assert np.isnan(last["value"])


def test_metrics_of_chosen_runs_and_stages(make_run, store):
    one, two = make_run(), make_run()
    with open_run(two.folder, stage="eval").locked() as again:
        again.log("test", accuracy=0.1)
    assert set(store.metrics(runs=[one.id])["run"]) == {one.id}
    assert len(store.metrics(stage="eval")) == 1
    assert store.metrics(runs=[one.id], stage="eval").empty
    assert store.metrics(runs=[one.id]).index.tolist() == list(range(6))


def test_an_empty_store_has_the_same_columns_and_types(make_run, store, tmp_path):
    make_run()
    full = store.metrics()
    for folder in (tmp_path / "absent", tmp_path):
        empty = RunStore(folder)
        assert empty.metrics().dtypes.to_dict() == full.dtypes.to_dict()
        frame = empty.runs()
        assert list(frame.columns) == RUN_COLUMNS
        assert isinstance(frame["created"].dtype, pd.DatetimeTZDtype)
        assert frame.empty
    assert not (tmp_path / "absent").exists()


# -------------------------------------------------------------------------------------------------------- finding


def test_find_by_id_prefix_and_name(make_run, store):
    run = make_run("favourite")
    assert store.find(run.id) == store.find(run.id[:-1]) == store.find("favourite") == run.folder
    assert store.find(run.id[-4:]) == run.folder


def test_a_name_takes_precedence_over_the_beginning_of_an_id(make_run, store):
    make_run()
    assert store.find(make_run("2").id) == store.find("2")


def test_ambiguous_runs_are_listed(make_run, store):
    one, two = make_run("twice"), make_run("twice")
    for text in ("twice", one.id[:6]):
        with pytest.raises(UserError, match="matches 2 runs") as error:
            store.find(text)
        assert one.id in str(error.value)
        assert two.id in str(error.value)


@pytest.mark.parametrize("text", ["favorite", "", "..", "/", "nothing like it"])
def test_a_missing_run_is_an_error_in_one_line(make_run, store, text):
    make_run("favourite")
    with pytest.raises(UserError, match="there is no run") as error:
        store.find(text)
    assert ("Did you mean 'favourite'?" in str(error.value)) == (text == "favorite")


def test_newest_is_by_time_and_status(make_run, store):
    old, new, failed = make_run(), make_run(), make_run(status="failed")
    other = make_run(rule="hebb")
    for second, run in enumerate((new, old, failed, other)):
        change_record(run.folder, created=f"2020-01-01T00:00:{9 - second:02d}.000+00:00")
    assert store.newest("oja") == new.folder
    assert store.newest("oja", status="failed") == failed.folder
    with pytest.raises(UserError, match="there is no completed run of bcm"):
        store.newest("bcm")
    (failed.folder / "run.json").write_text("{")
    with pytest.raises(UserError, match="1 run could not be read: `plastic runs` says why"):
        store.newest("bcm")


# ---------------------------------------------------------------------------------------------------- the index


def tables(folder):
    store = RunStore(folder)
    return store.runs(), store.metrics(), store.errors


def assert_same(one, two):
    pd.testing.assert_frame_equal(one[0], two[0])
    pd.testing.assert_frame_equal(one[1], two[1])


def test_the_index_changes_nothing_that_is_read(make_run, runs_folder):
    make_run(accuracy=0.2)
    make_run(accuracy=0.4, hidden=[3])
    fresh = tables(runs_folder)
    assert (runs_folder / ".index").is_dir()
    assert_same(tables(runs_folder), fresh)
    shutil.rmtree(runs_folder / ".index")
    assert_same(tables(runs_folder), fresh)


@pytest.mark.parametrize("damage", ["empty", "noise", "half", "other json", "folder"])
@pytest.mark.parametrize("name", ["records.json", "metrics.json", "metrics.parquet"])
def test_a_damaged_index_is_written_again(make_run, runs_folder, name, damage):
    make_run()
    fresh = tables(runs_folder)
    path = runs_folder / ".index" / name
    content = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        new = {"empty": b"", "noise": bytes(range(256)), "half": content[: len(content) // 2], "other json": b"[1, 2]"}
        path.write_bytes(new[damage])
    assert_same(tables(runs_folder), fresh)
    assert_same(tables(runs_folder), fresh)


@pytest.mark.parametrize("entries", [{"RUN": 3}, {"RUN": [1]}, [], None, 7])
@pytest.mark.parametrize("name", ["records.json", "metrics.json"])
def test_an_index_of_another_form_is_written_again(make_run, runs_folder, name, entries):
    run = make_run()
    fresh = tables(runs_folder)
    path = runs_folder / ".index" / name
    content = json.loads(path.read_text())
    content["entries"] = {run.id: entries["RUN"]} if isinstance(entries, dict) else entries
    path.write_text(json.dumps(content))
    assert_same(tables(runs_folder), fresh)


def test_the_index_follows_new_changed_and_removed_runs(make_run, store):
    one = make_run(accuracy=0.3)
    store.metrics()
    with open_run(one.folder, stage="eval").locked() as again:
        again.log("test", accuracy=0.31)
    two = make_run(accuracy=0.6)
    frame = store.metrics()
    assert frame["run"].value_counts().to_dict() == {one.id: 7, two.id: 6}
    assert frame["run"].drop_duplicates().tolist() == sorted([one.id, two.id])
    shutil.rmtree(one.folder)
    assert set(store.metrics()["run"]) == {two.id}
    assert store.runs()["run"].tolist() == [two.id]


def test_a_store_that_cannot_be_written_can_be_read(make_run, runs_folder):
    """A file where the index folder belongs refuses every write, to root as well."""
    make_run(accuracy=0.3)
    fresh = tables(runs_folder)
    shutil.rmtree(runs_folder / ".index")
    (runs_folder / ".index").write_text("in the way")
    assert_same(tables(runs_folder), fresh)
    assert (runs_folder / ".index").read_text() == "in the way"


def test_a_moved_store_names_its_runs_where_they_are(make_run, runs_folder, tmp_path):
    run = make_run()
    tables(runs_folder)
    moved = runs_folder.rename(tmp_path / "moved")
    assert RunStore(moved).runs()["folder"].tolist() == [str(moved / run.id)]


def test_renamed_and_copied_runs_have_the_name_of_their_folder(make_run, runs_folder, store):
    run = make_run("mine", accuracy=0.4)
    tables(runs_folder)
    shutil.copytree(run.folder, runs_folder / "copy")
    run.folder.rename(runs_folder / "renamed")
    frame = store.runs()
    assert frame["run"].tolist() == ["copy", "renamed"]
    assert set(store.metrics()["run"]) == {"copy", "renamed"}
    assert store.find("ren") == runs_folder / "renamed"
    assert open_run(runs_folder / "copy").id == "copy"


# ------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("torn", [b'{"stage": "train", "spl', b"\xff\xfe", b"[]\n", b'{"stage": 1}\n', b"null"])
def test_an_incomplete_last_line_costs_only_itself(make_run, store, torn):
    run = make_run()
    whole = store.metrics()
    with (run.folder / "metrics.jsonl").open("ab") as stream:
        stream.write(torn)
    for _ in range(2):  # read, then from the index
        pd.testing.assert_frame_equal(store.metrics(), whole)
        assert [error.message for error in store.errors] == ["1 damaged line was left out"]
        assert run.id in store.errors[0].folder


def test_rows_after_an_incomplete_line_are_complete(make_run, store):
    run = make_run()
    with (run.folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"stage": "train", "spl')
    with open_run(run.folder, stage="eval").locked() as again:
        again.log("test", accuracy=0.25)
    assert store.metrics(stage="eval")["value"].tolist() == [0.25]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from([*ROW, "labels"]), JSON) | JSON))
def test_rows_of_any_shape_are_rows_or_damage(values):
    content = "\n".join(json.dumps(value) for value in values).encode()
    rows, damaged = parse_rows(content)
    assert len(rows) + damaged == len(content.splitlines())
    for row in rows:
        assert isinstance(row["step"], int)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read(content):
    parse_rows(content)


DAMAGED = {
    "empty": "",
    "half": '{"schema": 1, "run": "x", "ru',
    "a list": "[]",
    "no schema": "{}",
    "schema as text": '{"schema": "1"}',
    "fields are missing": '{"schema": 1}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_costs_only_its_run(make_run, store, content):
    good, bad = make_run(), make_run()
    (bad.folder / "run.json").write_text(content)
    for _ in range(2):
        assert store.runs()["run"].tolist() == [good.id]
        (error,) = store.errors
        assert error.folder == str(bad.folder)
        assert "run.json" in error.message
        assert "\n" not in error.message
    with pytest.raises(UserError, match=r"run\.json"):
        open_run(bad.folder)


@pytest.mark.parametrize(
    "field",
    [
        "rule",
        "seed",
        "config",
        "name",
        "status",
        "created",
        "finished",
        "seconds",
        "summary",
        "measured_on",
        "steps_done",
        "process",
    ],
)
@pytest.mark.parametrize("value", [[], 3.5j, {"a": []}, "no such thing", True, float("nan"), -1], ids=repr)
def test_a_field_of_another_kind_never_breaks_the_table(make_run, store, field, value):
    make_run()
    bad = make_run()
    change_record(bad.folder, **{field: str(value) if isinstance(value, complex) else value})
    frame = store.runs()
    assert len(frame) + len(store.errors) == 2
    store.rows()
    store.names()


def test_a_record_from_a_newer_version_is_refused_and_kept(make_run, store):
    run = make_run()
    change_record(run.folder, schema=SCHEMA + 1)
    before = (run.folder / "run.json").read_bytes()
    assert store.runs().empty
    assert "written by a newer version of plastic" in store.errors[0].message
    with pytest.raises(UserError, match="Upgrade plastic"):
        open_run(run.folder)
    assert (run.folder / "run.json").read_bytes() == before


def test_a_record_with_an_unknown_key_is_read(make_run, store):
    run = make_run()
    change_record(run.folder, invented=1)
    assert store.runs()["run"].tolist() == [run.id]


def test_other_files_and_folders_are_ignored(make_run, runs_folder, store):
    run = make_run()
    (runs_folder / "notes.txt").write_text("x")
    (runs_folder / "empty").mkdir()
    shutil.copytree(run.folder, runs_folder / ".removed-before")
    assert store.runs()["run"].tolist() == [run.id]
    assert set(store.metrics()["run"]) == {run.id}
    assert store.errors == []


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot read the runs in"):
        RunStore(tmp_path / "file").runs()


STRANGE = "caf\udce9 \ud800 \x1b[31m"


def test_texts_that_are_not_utf8_are_shown_by_their_codes(make_run, store, runs_folder):
    good = make_run()
    bad = make_run(dataset=f"/data/{STRANGE}", status="failed", error=STRANGE, note=STRANGE, **{STRANGE: 1})
    with open_run(bad.folder, stage="eval").locked() as again:
        again.log(STRANGE, {"of": STRANGE}, accuracy=0.5)
    for _ in range(2):  # read, then from the index
        frame = store.runs().set_index("run")
        assert frame.index.tolist() == [good.id, bad.id]
        assert frame["dataset"][bad.id] == "/data/caf\\udce9 \\ud800 \x1b[31m"
        assert frame["config.note"][bad.id] == frame["error"][bad.id] == "caf\\udce9 \\ud800 \x1b[31m"
        (row,) = store.metrics(stage="eval").to_dict("records")
        assert row["split"] == "caf\\udce9 \\ud800 \x1b[31m"
        assert json.loads(row["labels"]) == {"of": STRANGE}
        assert store.errors == []
    assert store.rows()[1]["dataset"] == f"/data/{STRANGE}", "what is compared with a path stays what it was"


def test_a_folder_whose_name_is_not_utf8_is_a_run_like_others(make_run, store, runs_folder):
    make_run()
    shutil.copytree(make_run().folder, runs_folder / "caf\udce9")
    for _ in range(2):
        assert store.runs()["run"].tolist()[-1] == "caf\\udce9"
        assert store.metrics()["run"].unique().tolist()[-1] == "caf\\udce9"
        assert len(store.metrics()) == 18
        assert store.errors == []
    assert store.find("caf\udce9") == runs_folder / "caf\udce9"


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 1, "config": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[" * 100_000,
        '{"schema": 1, "config": ' + 200 * '{"a": ' + "1" + 200 * "}" + "}",
        '{"schema": 1, "seed": ' + "9" * 5_000 + "}",
        '{"schema": 1, "seed": 1e999}',
        '{"schema": ' + "9" * 30 + "}",
    ],
    ids=["deep lists", "deep and torn", "deep tables", "a number of 5000 digits", "infinity", "schema of 30 digits"],
)
def test_unusual_json_costs_only_its_run(make_run, store, text):
    good, bad = make_run(), make_run()
    (bad.folder / "run.json").write_text(text)
    assert store.runs()["run"].tolist() == [good.id]
    (error,) = store.errors
    assert "\n" not in error.message
    with pytest.raises(UserError, match=r"run\.json"):
        open_run(bad.folder)


@pytest.mark.parametrize("field", ["created", "started", "finished"])
@pytest.mark.parametrize(
    ("time", "read"),
    [
        ("2026-W05-3", "2026-01-28"),
        ("20260128T010203", "2026-01-28 01:02:03"),
        ("2026-01-28T23:30:00-02:00", "2026-01-29 01:30"),
        ("2026-01-28", "2026-01-28"),
        ("0001-01-01T00:00:00+14:00", None),
        ("0001-01-01T00:00:00.000+00:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2026-02-30T00:00:00.000+00:00", None),
    ],
)
def test_times_in_any_form_are_read_or_cost_only_their_run(make_run, store, field, time, read):
    good, bad = make_run(), make_run()
    change_record(bad.folder, **{field: time})
    frame = store.runs().set_index("run")
    if read is None:
        assert frame.index.tolist() == [good.id]
        assert f"its '{field}' cannot be" in store.errors[0].message
    else:
        assert frame[field][bad.id] == pd.Timestamp(read, tz="UTC")


def test_a_final_metric_never_takes_the_place_of_another_column(make_run, store):
    run = make_run(seed=3)
    change_record(run.folder, summary={"run": 1.0, "folder": 2.0, "config.seed": 3.5, "test/accuracy": 0.25})
    row = store.runs().iloc[0]
    assert (row["run"], row["folder"], row["config.seed"], row["test/accuracy"]) == (run.id, str(run.folder), 3, 0.25)
    assert len(store.errors) == 3
    assert store.find(run.id) == run.folder


@pytest.mark.parametrize("number", [10**20, -(10**20), 10**400])
def test_numbers_of_any_size_in_metrics_are_rows_or_damage(make_run, store, number):
    run = make_run()
    with (run.folder / "metrics.jsonl").open("a") as stream:
        for field in ("step", "value", "time"):
            stream.write(json.dumps({**ROW, field: number}) + "\n")
        stream.write('{"stage": "train", "split": "test", "step": 4, "metric": "a", "value": 1e999, "time": NaN}\n')
    for _ in range(2):
        frame = store.metrics()
        assert len(frame) == 7
        assert np.isnan(frame["value"].iloc[-1])
        assert [error.message for error in store.errors] == ["3 damaged lines were left out"]


def test_a_line_without_an_end_is_one_damaged_line(make_run, store, monkeypatch):
    run = make_run()
    whole = store.metrics()
    monkeypatch.setattr("plastic_cli.runs.metrics.LONGEST_LINE", 1000)
    monkeypatch.setattr("plastic_cli.runs.metrics.BLOCK", 300)
    content = (run.folder / "metrics.jsonl").read_bytes()
    first, _, rest = content.partition(b"\n")
    (run.folder / "metrics.jsonl").write_bytes(first + b"\n" + b"x" * 5000 + b"\n" + rest + b"y" * 1500)
    pd.testing.assert_frame_equal(store.metrics(), whole)
    assert [error.message for error in store.errors] == ["2 damaged lines were left out"]


@pytest.mark.parametrize("block", [1, 7, 100, 10_000])
def test_pieces_of_any_size_hold_the_same_rows(make_run, store, block, monkeypatch):
    run = make_run()
    with (run.folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"torn": \n' + json.dumps(ROW).encode())
    rows, damaged = parse_rows((run.folder / "metrics.jsonl").read_bytes())
    monkeypatch.setattr("plastic_cli.runs.metrics.BLOCK", block)
    pieces = list(read_rows(run.folder / "metrics.jsonl"))
    assert [row for piece, _ in pieces for row in piece] == rows
    assert sum(lost for _, lost in pieces) == damaged == 1


def test_many_different_texts_are_kept_apart(make_run, store, runs_folder):
    run = make_run()
    labeled = [{**ROW, "metric": f"m{number % 40_000}", "labels": {"number": number}} for number in range(70_000)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labeled))
    for _ in range(2):
        frame = RunStore(runs_folder).metrics(runs=[run.id, *map(str, range(30))])
        assert frame["metric"].tolist() == [row["metric"] for row in labeled]
        assert [json.loads(label)["number"] for label in frame["labels"]] == list(range(70_000))


@pytest.mark.parametrize("row", [None, 3, [], {}, {"run": "RUN"}, {"run": 3}, "whole but for its summary"])
def test_a_row_of_another_shape_in_a_whole_index_is_read_again(make_run, runs_folder, row):
    run = make_run(accuracy=0.75)
    fresh = tables(runs_folder)
    entry = read_index(runs_folder, "records.json", lambda *_: True)["entries"][run.id]
    changed = {**entry[2], "summary": {"test/accuracy": "high"}} if isinstance(row, str) else row
    write_index(runs_folder, "records.json", {"entries": {run.id: [*entry[:2], changed]}})
    assert_same(tables(runs_folder), fresh)


def test_a_changed_digit_in_the_index_is_found(make_run, runs_folder):
    make_run(accuracy=0.75)
    fresh = tables(runs_folder)
    path = runs_folder / ".index" / "records.json"
    path.write_bytes(path.read_bytes().replace(b"0.75", b"0.95"))
    assert_same(tables(runs_folder), fresh)


def test_one_new_run_among_many_does_not_write_the_index_again(make_run, runs_folder):
    run = make_run()
    for number in range(100):
        shutil.copytree(run.folder, runs_folder / f"copy-{number:03d}")
    first = RunStore(runs_folder)
    first.runs()
    index = runs_folder / ".index" / "records.json"
    before = index.stat()
    new = make_run(accuracy=0.25)
    for store in (first, RunStore(runs_folder)):
        assert store.runs().set_index("run")["test/accuracy"][new.id] == 0.25
    assert index.stat().st_mtime_ns == before.st_mtime_ns
    for number in range(3):
        shutil.copytree(new.folder, runs_folder / f"other-{number}")
    assert len(RunStore(runs_folder).runs()) == 105
    assert index.stat().st_mtime_ns != before.st_mtime_ns


def test_the_metrics_of_one_run_are_read_without_the_others(make_run, runs_folder):
    one, two = make_run(accuracy=0.3), make_run()
    (two.folder / "metrics.jsonl").write_text("damaged")
    store = RunStore(runs_folder)
    assert store.metrics(runs=[one.id])["value"].max() == 1.0
    assert store.errors == []
    assert not (runs_folder / ".index").exists()


# ------------------------------------------------------------------------------------------------- alive or dead


@pytest.mark.parametrize("status", ["created", "running"])
def test_a_run_that_no_process_holds_is_crashed(make_run, store, status):
    run = make_run()
    change_record(run.folder, status=status)
    assert store.runs()["status"].tolist() == ["crashed"]
    with open_run(run.folder).locked():
        assert store.runs()["status"].tolist() == [status]
    assert store.runs()["status"].tolist() == ["crashed"]


def test_two_readers_do_not_see_each_other_as_the_writer(make_run, store):
    import fcntl

    run = make_run()
    change_record(run.folder, status="running")
    with (run.folder / "lock").open() as other_reader:
        fcntl.flock(other_reader, fcntl.LOCK_SH)
        assert store.runs()["status"].tolist() == ["crashed"]


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_finished_run_keeps_its_status(make_run, store, status):
    assert status in STATUSES
    run = make_run(status=status)
    with open_run(run.folder).locked():
        assert store.runs()["status"].tolist() == [status]


# --------------------------------------------------------------------------------------------------- concurrency


def write_runs(folder, count, barrier):
    barrier.wait()
    for number in range(count):
        run = create_run(folder, rule="oja", config={"seed": number})
        with run.locked():
            run.start()
            for step in run.steps(5, "epoch"):
                run.log("test", accuracy=step / 5)
            run.finish("completed")


def test_eight_writers_and_a_reader(runs_folder):
    import torch  # noqa: F401  imported before the fork, so that the children need not

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(9)
    writers = [context.Process(target=write_runs, args=(runs_folder, 4, barrier)) for _ in range(8)]
    for writer in writers:
        writer.start()
    barrier.wait()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        store = RunStore(runs_folder)
        frame = store.runs()
        assert store.errors == []
        assert len(frame) >= seen
        seen = len(frame)
        metrics = store.metrics()
        assert store.errors == []
        # Whole rows, in the order in which each run logged them.
        assert all(steps.tolist() == list(range(1, len(steps) + 1)) for _, steps in metrics.groupby("run")["step"])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    frame = RunStore(runs_folder).runs()
    assert len(frame) == frame["run"].nunique() == 32
    assert frame["status"].unique().tolist() == ["completed"]
    metrics = RunStore(runs_folder).metrics()
    assert metrics.groupby("run")["step"].apply(list).map(lambda steps: steps == [1, 2, 3, 4, 5]).all()
    shutil.rmtree(runs_folder / ".index")
    pd.testing.assert_frame_equal(RunStore(runs_folder).metrics(), metrics)


def test_two_readers_do_not_damage_the_index(make_run, runs_folder):
    """Two readers that write the index in turns: each file is whole, and both belong together or are not used."""
    for _ in range(3):
        make_run()
    fresh = tables(runs_folder)
    old = (runs_folder / ".index" / "metrics.json").read_bytes()
    shutil.rmtree(runs_folder / ".index")
    tables(runs_folder)
    (runs_folder / ".index" / "metrics.json").write_bytes(old)
    assert_same(tables(runs_folder), fresh)
    assert list((runs_folder / ".index").glob(".*")) == []


def old_names(folder):
    """Store the configuration of a run of grlu as an older version did."""
    record = json.loads((folder / "run.json").read_text())
    config = record["config"]
    config["lr_max"] = config.pop("learning_rate")
    (folder / "run.json").write_text(json.dumps(record))


def test_settings_are_found_under_the_present_names_of_their_options(make_run, store):
    run = make_run(rule="grlu", learning_rate=0.3, seed=2)
    old_names(run.folder)
    wanted = {"seed": 2, "dataset": "digits", "learning_rate": 0.3}
    assert [row["run"] for row in store.refresh().with_settings("grlu", wanted)] == [run.id]


def test_an_index_that_an_older_version_wrote_is_read_with_the_present_names(make_run, runs_folder, store, monkeypatch):
    run = make_run(rule="grlu", learning_rate=0.3)
    old_names(run.folder)
    monkeypatch.setattr("plastic_cli.runs.record.former_names", lambda rule: {})
    assert RunStore(runs_folder).runs()["config.lr_max"].tolist() == [0.3]
    monkeypatch.undo()
    monkeypatch.setattr("plastic_cli.runs.store.read_record", None)
    assert store.runs()["config.learning_rate"].tolist() == [0.3]
    assert store.errors == []


def without_options(folder, *names):
    """Store the configuration of a run as the version did that had no such options."""
    record = json.loads((folder / "run.json").read_text())
    for name in names:
        del record["config"][name]
    (folder / "run.json").write_text(json.dumps(record))


def test_a_run_of_the_version_without_an_option_is_read_with_what_it_did(make_run, store, runs_folder):
    train = train_model(find_rule("grlu"))
    config = train.from_values({"noise": 0.3, "dataset": "digits"}).model_dump(mode="json")
    new, old, foreign = (make_run(rule="grlu", **config) for _ in range(3))
    without_options(old.folder, "model", "optimizer", "momentum", "weight_decay")
    # A configuration that lacks another option is not one of that version.
    without_options(foreign.folder, "model", "perturbations")
    wanted = open_run(new.folder).config
    assert wanted["model"] == "mlp"
    assert open_run(old.folder).config == wanted
    assert "model" not in open_run(foreign.folder).config
    assert {row["run"] for row in store.refresh().with_settings("grlu", wanted)} == {new.id, old.id}
    # The table has one value for both.
    runs = store.runs().set_index("run")
    assert list(runs.loc[[new.id, old.id], "config.optimizer"]) == ["sgd", "sgd"]
