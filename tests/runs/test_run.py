"""One run: identity, lock, loop, metrics, checkpoints and files."""

from __future__ import annotations

import json
import math
import re
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.files import (
    append_whole,
    atomic_file,
    write_atomically,
    write_through,
)
from plastic_cli.runs.checkpoint import read_checkpoint
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.metrics import data_of
from plastic_cli.runs.record import read_record
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import interrupted_after, plastic


def new_run(folder, **config):
    return create_run(folder, rule="oja", config={"seed": 0, **config})


def test_ids_sort_by_time_and_are_never_shared(runs_folder):
    made = []

    def make():
        made.extend(new_run(runs_folder).id for _ in range(10))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40
    assert all(re.fullmatch(r"\d{8}-\d{6}-[a-z]{4}", identity) for identity in made)


@pytest.mark.parametrize("name", ["", "a b", "-a", ".a", "a/b", "../a", "a" * 101, "ä"])
def test_an_invalid_name_is_refused(runs_folder, name):
    with pytest.raises(UserError, match="use letters, digits"):
        create_run(runs_folder, rule="oja", config={}, name=name)
    assert not runs_folder.exists()


def test_one_process_holds_a_run(runs_folder):
    run = new_run(runs_folder)
    run.write_record(process={"pid": 4711, "host": "elsewhere"})
    with (
        run.locked(),
        pytest.raises(UserError, match=r"is being written by another process \(process 4711 on elsewhere\)"),
        open_run(run.folder).locked(),
    ):
        pass
    with open_run(run.folder).locked():
        pass


def test_locking_reads_the_record_of_the_last_holder(runs_folder):
    stale = new_run(runs_folder)
    with open_run(stale.folder).locked() as other:
        other.finish("completed")
    assert stale.record.status == "created"
    with stale.locked():
        assert stale.record.status == "completed"


def test_the_lock_is_freed_whatever_happens(runs_folder):
    run = new_run(runs_folder)
    with pytest.raises(ZeroDivisionError), run.locked():
        1 / 0  # noqa: B018
    with open_run(run.folder).locked():
        pass


def test_the_loop_counts_resumes_and_logs_at_its_step(runs_folder):
    run = new_run(runs_folder)
    with run.locked():
        assert run.begins("epoch")
        for index in run.steps(5, "epoch"):
            run.log("train", value=index)
            if index == 2:
                run.save_checkpoint()
                break
    again = open_run(run.folder)
    with again.locked():
        again.resume()
        # Left in the middle of the third step, which is therefore done again.
        assert list(again.steps(5, "epoch")) == [2, 3, 4]


def test_a_swallowed_interrupt_ends_the_loop_before_its_next_step(runs_folder):
    run = new_run(runs_folder)
    with run.locked():
        run.signals = signals = []
        done = []
        with pytest.raises(KeyboardInterrupt):
            for index in run.steps(5, "epoch"):
                done.append(index)
                if index == 1:
                    signals.append(2)
        assert done == [0, 1]


def test_two_loops_one_after_the_other_resume_where_they_were(runs_folder):
    def both(run, stop=None):
        state = torch.Generator().manual_seed(0)
        run.track(state=state)
        drawn = []
        for unit, total in (("first", 3), ("second", 4)):
            for index in run.steps(total, unit):
                drawn.append(float(torch.rand((), generator=state)))
                run.log(unit, value=drawn[-1])
                if (unit, index) == stop:
                    return drawn
        return drawn

    whole = new_run(runs_folder)
    with whole.locked():
        expected = both(whole)
    part = new_run(runs_folder)
    part.checkpoint_is_due = lambda: True
    with part.locked():
        both(part, stop=("second", 1))
    again = open_run(part.folder)
    with again.locked():
        again.resume()
        assert both(again) == expected[4:]
    store = RunStore(runs_folder)
    columns = ["split", "step", "metric", "value"]
    pd.testing.assert_frame_equal(store.metrics([part.id])[columns], store.metrics([whole.id])[columns])


def test_resuming_restores_the_global_random_states_too(runs_folder):
    def draws():
        return [float(torch.rand(())), float(np.random.rand()), __import__("random").random()]  # noqa: NPY002

    run = new_run(runs_folder)
    with run.locked():
        for _ in run.steps(1, "epoch"):
            draws()
        expected = draws()
    again = open_run(run.folder)
    with again.locked():
        again.resume()
        list(again.steps(1, "epoch"))
        assert draws() == expected


def test_tracked_parts_are_restored_at_once(runs_folder):
    run = new_run(runs_folder)
    layer = torch.nn.Linear(3, 2)
    with run.locked():
        run.track(layer=layer)
        run.save_checkpoint()
    again = open_run(run.folder)
    other = torch.nn.Linear(3, 2)
    with again.locked():
        again.resume()
        again.track(layer=other)
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(read_checkpoint(run.folder).tracked["layer"]["bias"], layer.bias)
    with pytest.raises(UserError, match="holds no 'absent'"):
        open_run(run.folder).restore("absent", other)


def test_resuming_drops_what_was_logged_after_the_checkpoint_and_keeps_later_stages(runs_folder):
    run = new_run(runs_folder)
    with run.locked():
        run.log("test", accuracy=0.1)
        run.save_checkpoint()
        run.log("test", accuracy=0.2)
    with open_run(run.folder, stage="eval").locked() as stage:
        stage.log("test", accuracy=0.3)
    for _ in range(2):
        again = open_run(run.folder)
        with again.locked():
            again.resume()
            assert again.record.summary == {"test/accuracy": 0.1}
            again.log("test", accuracy=0.9)
    rows = RunStore(runs_folder).metrics()
    assert rows[["stage", "value"]].to_numpy().tolist() == [["train", 0.1], ["eval", 0.3], ["train", 0.9]]


def test_logging_takes_tensors_and_keeps_the_last_value(runs_folder):
    run = new_run(runs_folder)
    run.log("test", accuracy=torch.tensor(0.25), count=3)
    run.log("test", {"corruption": "rotation:5"}, accuracy=0.1)
    assert run.record.summary == {"test/accuracy": 0.25, "test/count": 3.0}
    assert run.results == {"test/accuracy": 0.25, "test/count": 3.0}


def test_the_data_of_a_metric_is_its_mark_else_its_split_and_other_splits_are_test_data(runs_folder):
    run = new_run(runs_folder)
    with run.locked():
        run.log("train", accuracy=0.9)
        run.log("train", None, "test", terms=3)
        run.log("validation", None, "train", loss=0.1)
        run.log("test", accuracy=0.5)
        run.log("control", accuracy=0.4)
        run.log("backbone", None, "train", loss=0.2)
        run.log("train", {"layer": 1}, "test", angle=10)
        run.save_checkpoint()
    said = read_record(run.folder).measured_on
    assert {key: data_of(key, said) for key in read_record(run.folder).summary} == {
        "train/accuracy": "train",
        "train/terms": "test",
        "validation/loss": "train",
        "test/accuracy": "test",
        "control/accuracy": "test",
        "backbone/loss": "train",
    }
    assert "train/angle" not in said, "rows with labels stay out of the summary"


def test_the_last_log_of_a_metric_decides_its_data(runs_folder):
    run = new_run(runs_folder)
    run.log("train", None, "test", accuracy=0.1)
    run.log("train", accuracy=0.2)
    assert data_of("train/accuracy", run.record.measured_on) == "train"
    run.log("train", None, "test", accuracy=0.3)
    assert data_of("train/accuracy", run.record.measured_on) == "test"


@pytest.mark.parametrize("said", ["", "Train", None, 3, ["train"]])
def test_an_invalid_mark_counts_as_test_data(said):
    assert data_of("train/accuracy", {"train/accuracy": said}) == "test"


def test_a_run_that_was_stored_without_marks_is_read_by_its_splits(runs_folder):
    run = new_run(runs_folder)
    with run.locked():
        run.log("validation", None, "test", accuracy=0.9)
        run.save_checkpoint()
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    del content["measured_on"]
    path.write_text(json.dumps(content))
    record = read_record(run.folder)
    assert record.summary == {"validation/accuracy": 0.9}
    assert data_of("validation/accuracy", record.measured_on) == "validation"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["loss", "reward"])
def test_a_loss_that_is_not_finite_ends_training_with_the_step(runs_folder, metric, value):
    run = new_run(runs_folder)
    with pytest.raises(RunFailed, match=rf"train/{metric} became -?(nan|inf) at epoch 2"):
        for index in run.steps(5, "epoch"):
            run.log("train", **{metric: 1.0 if index == 0 else value})


def test_another_metric_that_is_not_finite_is_stored_as_missing(runs_folder):
    run = new_run(runs_folder)
    run.log("train", angle=math.nan)
    assert run.record.summary == {"train/angle": None}
    open_run(run.folder, stage="eval").log("test", loss=math.inf)
    assert RunStore(runs_folder).metrics()["value"].isna().all()
    assert "NaN" not in (run.folder / "metrics.jsonl").read_text()


def test_the_record_is_complete(runs_folder):
    run = create_run(
        runs_folder,
        rule="oja",
        config={"seed": 9, "dataset": "digits"},
        argv=["train", "oja"],
        versions={"plastic": "1"},
    )
    with run.locked():
        run.start()
        run.describe_data(checksum="abc")
        run.describe_data(note="n")
        run.finish("completed")
    record = read_record(run.folder)
    assert (record.seed, record.dataset, record.argv, record.versions) == (
        9,
        "digits",
        ["train", "oja"],
        {"plastic": "1"},
    )
    assert record.data == {"checksum": "abc", "note": "n"}
    assert record.created <= record.started <= record.finished
    assert record.process["pid"] == __import__("os").getpid()
    assert record.machine["device"] in ("cpu", "cuda")
    # A person may read it, and any strict JSON parser.
    text = (run.folder / "run.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert text.endswith("}\n")


def test_seconds_add_up_over_sittings(runs_folder, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("plastic_cli.runs.run.time.perf_counter", lambda: clock[0])
    run = new_run(runs_folder)
    with run.locked():
        clock[0] += 10
        run.save_checkpoint()
        clock[0] += 5  # lost with what was computed in it
    clock[0] += 1000
    again = open_run(run.folder)
    with again.locked():
        again.resume()
        clock[0] += 2
        again.finish("completed")
    # The second sitting begins when the run is opened again.
    assert read_record(run.folder).seconds == pytest.approx(12)


def test_tables_figures_images_and_tensors_appear_in_their_folders(runs_folder):
    run = new_run(runs_folder)
    table = pd.DataFrame({"a": [1, 2]})
    assert run.save_table("numbers", table) == run.folder / "tables" / "numbers.csv"
    pd.testing.assert_frame_equal(pd.read_csv(run.folder / "tables" / "numbers.csv"), table)
    run.save_image("picture", np.zeros((4, 5, 3), np.uint8))
    run.save_video("film", [np.full((4, 5, 3), shade, np.uint8) for shade in (0, 128, 255)])
    run.save_tensors("weights-1", {"w": torch.arange(3)})
    assert run.files == ["tables/numbers.csv", "figures/picture.png", "videos/film.gif"]
    assert run.stored_tensors("weights-") == ["weights-1"]
    assert run.load_tensors("weights-1")["w"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="stored no 'absent'"):
        run.load_tensors("absent")
    assert list(run.folder.rglob(".*")) == []


# --------------------------------------------------------------------------------------------------------- files


def test_a_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as stream:
        stream.write(b"new")
        assert path.read_text() == "old"
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    with pytest.raises(ZeroDivisionError):
        write_through(path, lambda temporary: (temporary.write_text("new"), 1 / 0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    write_through(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"


def test_files_are_as_readable_as_their_owner_wants(tmp_path):
    import os

    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_appended_lines_are_complete_and_begin_a_line(tmp_path):
    path = tmp_path / "lines"
    append_whole(path, "a\nb\n")
    append_whole(path, "c\n")
    assert path.read_text() == "a\nb\nc\n"
    path.write_text("a\nto")
    append_whole(path, "c\n")
    assert path.read_text() == "a\nto\nc\n"


def test_opening_a_run_removes_leftovers_of_a_killed_process(runs_folder):
    run = new_run(runs_folder)
    (run.folder / "artifacts").mkdir()
    leftovers = [
        run.folder / ".run.json.abc.tmp",
        run.folder / "artifacts" / ".w.pt.1.tmp",
        run.folder / ".a.7.tmp.png",
    ]
    for leftover in leftovers:
        leftover.write_text("x")
    kept = run.folder / "artifacts" / "tmp.pt"
    kept.write_text("x")
    with run.locked():
        pass
    assert not any(leftover.exists() for leftover in leftovers)
    assert kept.exists()


def test_code_between_two_loops_draws_the_same_numbers_after_a_resume(make_run):
    def work(run, stop=None):
        drawn = [torch.rand(1).item() for _ in run.steps(2, "first")]
        drawn.append(torch.rand(1).item())
        for index in run.steps(4, "second"):
            if index == stop:
                break
            drawn.append(torch.rand(1).item())
        return drawn

    def always(run):
        run.checkpoint_is_due = lambda: True
        return run

    torch.manual_seed(5)
    whole = work(always(make_run()))
    torch.manual_seed(5)
    stopped = always(make_run())
    with stopped.locked():
        stopped.start()
        work(stopped, stop=2)
    again = open_run(stopped.folder)
    torch.manual_seed(99)
    with again.locked():
        again.resume()
        resumed = work(again)
    assert resumed == [whole[2], *whole[5:]]


def test_a_resumed_run_refuses_other_data(make_run):
    run = make_run()
    with run.locked():
        run.start()
        run.describe_data(name="mine", checksum="aa")
        run.save_checkpoint()
    again = open_run(run.folder)
    with again.locked():
        again.resume()
        with pytest.raises(UserError, match="not the one that run"):
            again.describe_data(name="mine", checksum="bb")


def test_a_resumed_run_that_finds_other_data_can_be_resumed_again(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4
    train = ["train", "backprop", "--hidden", 4, "--epochs", 4]
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    kept = (tmp_path / "own.npz").read_bytes()
    with interrupted_after(2):
        plastic(*train, "--dataset", tmp_path / "own.npz", "--name", "stopped")
    np.savez(tmp_path / "own.npz", x_train=x[::-1], y_train=y, x_test=x, y_test=y)
    refused = plastic("train", "backprop", "--resume", "stopped")
    assert refused.code == 2
    assert "Restore it" in refused.err
    (row,) = RunStore().rows()
    assert row["status"] == "interrupted"
    (tmp_path / "own.npz").write_bytes(kept)
    assert plastic("train", "backprop", "--resume", "stopped").code == 0
    assert RunStore().rows()[0]["status"] == "completed"


def test_the_speed_counts_no_sample_twice(make_run):
    run = make_run()
    with run.locked():
        run.start()
        run.count_samples(10, 1.0)
        run.save_checkpoint()
        run.count_samples(10, 1.0)
        run.write_record()
    again = open_run(run.folder)
    with again.locked():
        again.resume()
        assert again.record.speed == {"samples": 10, "seconds": 1.0}


# ----------------------------------------------------------------------------------------- stages that do not finish


def eval_rows(folder):
    return RunStore(folder.parent).metrics(runs=[folder.name], stage="eval")["value"].tolist()


@pytest.mark.parametrize("end", [KeyboardInterrupt, RunFailed("it failed"), ZeroDivisionError])
def test_a_stage_that_does_not_finish_leaves_no_row(make_run, end):
    run = make_run()
    whole = (run.folder / "metrics.jsonl").read_bytes()
    with (
        pytest.raises(end if isinstance(end, type) else RunFailed),
        open_run(run.folder, stage="eval").locked() as again,
    ):
        again.log("test", accuracy=0.25)
        raise end
    assert (run.folder / "metrics.jsonl").read_bytes() == whole
    with open_run(run.folder, stage="eval").locked() as again:
        again.log("test", accuracy=0.5)
        again.log("test", {"corruption": "noise"}, accuracy=0.125)
        assert again.results == {"test/accuracy": 0.5}
    assert eval_rows(run.folder) == [0.5, 0.125]


def test_a_stage_that_is_killed_leaves_no_row(make_run):
    import os
    import signal

    run = make_run()
    child = os.fork()
    if not child:
        with open_run(run.folder, stage="eval").locked() as again:
            again.log("test", accuracy=0.25)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with open_run(run.folder, stage="eval").locked() as again:
        again.log("test", accuracy=0.5)
    assert eval_rows(run.folder) == [0.5]


def test_training_stores_its_rows_at_once(make_run):
    run = make_run(status="interrupted")
    with open_run(run.folder).locked() as again:
        again.log("test", accuracy=0.25)
        assert RunStore(run.folder.parent).metrics(runs=[run.id])["value"].tolist()[-1] == 0.25


# ------------------------------------------------------------------------------------------------ damaged checkpoints


def test_a_flipped_bit_in_a_checkpoint_is_found(make_run):
    import torch

    run = make_run()
    with open_run(run.folder).locked() as again:
        again.track(layer=torch.nn.Linear(40, 30))
        again.save_checkpoint()
    path = run.folder / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    weights = read_checkpoint(run.folder).tracked["layer"]["weight"].numpy().tobytes()
    content[bytes(content).index(weights) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not what was written"):
        read_checkpoint(run.folder)


def test_a_checkpoint_takes_no_more_memory_than_it_has_bytes(make_run):
    import zipfile

    run = make_run()
    path = run.folder / "checkpoint.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="it is compressed"):
        read_checkpoint(run.folder)
