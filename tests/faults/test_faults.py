"""Bad input and faults of the machine: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import interrupted_after, plastic, training_numbers
from processes import command, environment


def one_line(outcome, code):
    """Return the only line on stderr of a command that ended with `code`."""
    assert outcome.code == code, outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    return line


@pytest.fixture
def small(tiny_data):
    return ["--quiet", "--dataset", tiny_data, "--hidden", 4, "--epochs", 4]


@pytest.fixture
def interrupted(small, runs_folder):
    """The folder of a run that stopped behind its second epoch."""
    with interrupted_after(2):
        assert plastic("train", "backprop", *small).code == 130
    (run,) = RunStore(runs_folder).folders()
    return runs_folder / run


@pytest.fixture
def whole(small, tmp_path):
    """The numbers of the same run, never stopped."""
    outcome = plastic("train", "backprop", *small, "--runs", tmp_path / "whole")
    assert outcome.code == 0
    return training_numbers(tmp_path / "whole" / os.path.basename(outcome.out.strip()))  # noqa: PTH119  one name


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------- where to write runs


def test_a_file_in_place_of_the_runs_folder(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = one_line(plastic("train", "backprop", *small, "--runs", tmp_path / "file"), 2)
    assert str(tmp_path / "file") in line
    assert "--runs" in line
    line = one_line(plastic("train", "backprop", *small, "--runs", tmp_path / "file" / "below"), 2)
    assert "cannot write to" in line
    assert (tmp_path / "file").read_text() == "mine"
    assert "cannot read the runs in" in one_line(plastic("runs", "--runs", tmp_path / "file"), 2)
    assert "cannot read the runs in" in one_line(plastic("eval", "backprop", "--runs", tmp_path / "file"), 2)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that refuses folders")  # noqa: PTH112
def test_a_file_system_that_takes_no_folder(small):
    assert "cannot write to /proc/self/runs" in one_line(
        plastic("train", "backprop", *small, "--runs", "/proc/self/runs"), 2
    )


def test_a_full_disk_while_the_run_is_made_leaves_nothing(small, runs_folder, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("plastic_cli.files.os.fsync", full)
    line = one_line(plastic("train", "backprop", *small), 1)
    assert "No space left on device" in line
    assert list(runs_folder.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("nth", [3, 6, 9])
def test_a_disk_that_fills_up_in_training(small, runs_folder, whole, monkeypatch, call, nth):
    """From the n-th write of metrics or n-th flush of a file on, until there is room again."""
    real, calls = getattr(os, call), 0

    def full(*arguments):
        nonlocal calls
        calls += 1
        if calls >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(f"plastic_cli.files.os.{call}", full)
        patch.setattr("plastic_cli.runs.run.Run.checkpoint_is_due", lambda _: True)
        line = one_line(plastic("train", "backprop", *small), 1)
    assert calls >= nth
    assert "No space left on device" in line
    (run,) = RunStore(runs_folder).folders()
    assert f"plastic train backprop --resume {run}" in line
    assert not list((runs_folder / run).glob(".*"))
    assert RunStore(runs_folder).runs()["status"].isin(["failed", "crashed"]).all()
    assert plastic("train", "backprop", "--quiet", "--resume", run).code == 0
    assert training_numbers(runs_folder / run).equals(whole)


def test_a_write_that_is_cut_short_leaves_no_torn_line(runs_folder, monkeypatch, interrupted):
    real = os.write
    monkeypatch.setattr("plastic_cli.files.os.write", lambda to, content: real(to, content[: len(content) // 2]))
    before = (interrupted / "metrics.jsonl").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        open_run(interrupted, stage="eval").log("test", accuracy=0.5)
    assert (interrupted / "metrics.jsonl").read_bytes() == before


def test_a_file_that_may_not_grow(small, tmp_path):
    """The system refuses a checkpoint of more than 8 KB to a real process; torch hides why, the line does not."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    arguments = ["train", "backprop", *small, "--hidden", 2000]
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=limit,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "File too large" in line


def test_a_real_full_disk(small, tmp_path):
    """A file system of 256 KB, where this machine lets one be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        line = one_line(plastic("train", "backprop", *small, "--hidden", 3000, "--runs", disk), 1)
        assert "No space left on device" in line
        store = RunStore(disk)
        assert store.runs()["status"].isin(["failed", "crashed"]).all()
        assert store.errors == []
    finally:
        subprocess.run(["umount", disk], check=True)


# ---------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "other content", "plain text"])
def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(interrupted, damage):
    path = interrupted / "checkpoint.pt"
    content = path.read_bytes()
    if damage == "other content":
        torch.save({"something": "else"}, path)
    else:
        new = {"empty": b"", "half": content[: len(content) // 2], "noise": os.urandom(5000), "plain text": b"hello"}
        path.write_bytes(new[damage])
    before = content_of(interrupted)
    for arguments in (["train", "backprop", "--resume"], ["eval", "backprop", "--run"]):
        line = one_line(plastic(*arguments, interrupted.name, "--quiet"), 2)
        assert f"the checkpoint {path} is damaged" in line
    after = content_of(interrupted)
    assert after.keys() == before.keys()
    for name in ("checkpoint.pt", "metrics.jsonl"):
        assert after[name] == before[name]
    assert RunStore(interrupted.parent).runs()["test/accuracy"].notna().all()


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(interrupted, tmp_path):
    proof = tmp_path / "the code ran"

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(proof),))

    content = {"tracked": {"learner": Trap()}, "random": None, "steps_done": {}, "metrics_bytes": 0, "seconds": 0.0}
    torch.save(content, interrupted / "checkpoint.pt")
    line = one_line(plastic("eval", "backprop", "--run", interrupted.name, "--quiet"), 2)
    assert "is damaged (it holds more than tensors and plain values" in line
    assert "weights_only" not in line, "torch's advice is to load it all the same"
    (interrupted / "checkpoint.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    assert "is damaged" in one_line(plastic("train", "backprop", "--resume", interrupted.name), 2)
    assert not proof.exists()
    # The trap does work where it is sprung.
    pickle.loads((interrupted / "checkpoint.pt").read_bytes())
    assert proof.exists()


def test_weights_kept_for_pictures_are_loaded_as_safely(train, tmp_path):
    folder = train()
    victim = next((folder / "artifacts").glob("*.pt"))
    victim.write_bytes(b"damaged")
    assert f"{victim} is damaged" in one_line(plastic("render", "backprop", "--quiet"), 2)


def test_a_run_that_stopped_before_its_first_checkpoint_begins_anew(interrupted, whole):
    (interrupted / "checkpoint.pt").unlink()
    assert "has no checkpoint yet" in one_line(plastic("eval", "backprop", "--run", interrupted.name, "--quiet"), 2)
    assert plastic("train", "backprop", "--quiet", "--resume", interrupted.name).code == 0
    assert training_numbers(interrupted).equals(whole)


def test_a_run_from_a_newer_version(interrupted):
    path = interrupted / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    before = content_of(interrupted)
    for arguments in (["train", "backprop", "--resume"], ["eval", "backprop", "--run"], ["runs", "show"]):
        assert "newer version of plastic (format 99" in one_line(plastic(*arguments, interrupted.name), 2)
    assert content_of(interrupted) == before


def test_a_stored_option_that_this_version_does_not_know(interrupted):
    path = interrupted / "run.json"
    record = json.loads(path.read_text())
    record["config"]["invented"] = 1
    path.write_text(json.dumps(record))
    line = one_line(plastic("train", "backprop", "--resume", interrupted.name), 2)
    assert f"run {interrupted.name}: there is no key 'invented'" in line


def test_a_stored_run_that_lacks_a_newer_option_is_finished(interrupted, whole):
    path = interrupted / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["momentum"]
    path.write_text(json.dumps(record))
    outcome = plastic("train", "backprop", "--quiet", "--resume", interrupted.name)
    assert outcome.code == 0, outcome.err
    assert training_numbers(interrupted).equals(whole)


# ---------------------------------------------------------------------------------------------------- two processes


def test_two_processes_cannot_resume_one_run(interrupted, whole, start_plastic):
    with open_run(interrupted).locked():
        before = content_of(interrupted)
        line = one_line(plastic("train", "backprop", "--resume", interrupted.name), 2)
        assert f"run {interrupted.name} is being written by another process" in line
        assert content_of(interrupted) == before
    both = [start_plastic("train", "backprop", "--quiet", "--resume", interrupted.name) for _ in range(2)]
    codes = []
    for process in both:
        _, err = process.communicate(timeout=120)
        codes.append(process.returncode)
        # The later one finds a run that is held, or completed where the other was quicker.
        assert err.count("\n") == (process.returncode == 2)
    assert sorted(codes) in ([0, 0], [0, 2])
    assert RunStore(interrupted.parent).runs()["status"].tolist() == ["completed"]
    assert training_numbers(interrupted).equals(whole)


def test_a_run_in_training_is_not_evaluated_and_shows_as_running(tmp_path, runs_folder, start_plastic):
    process = start_plastic("train", "grlu", "--quiet", "--hidden", 8, "--perturbations", 1, "--epochs", 100_000)
    store = RunStore(runs_folder)
    deadline = time.monotonic() + 60
    while not list(runs_folder.glob("*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run,) = store.folders()
    assert store.runs()["status"].tolist() == ["running"]
    line = one_line(plastic("eval", "grlu", "--run", run, "--quiet"), 2)
    assert f"(process {process.pid} on " in line
    process.terminate()
    assert process.wait(30) == 130
    assert store.runs()["status"].tolist() == ["interrupted"]


# ------------------------------------------------------------------------------------------------- input, numbers


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("arguments", [["train", "grlu"], ["train", "backprop"]], ids=" ".join)
def test_cuda_where_there_is_none(arguments, runs_folder):
    line = one_line(plastic(*arguments, "--device", "cuda"), 2)
    assert "--device cuda: " in line
    assert "--device cpu" in line
    assert not runs_folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_for_an_old_run_changes_nothing(interrupted, train):
    before = json.loads((interrupted / "run.json").read_text())
    assert "--device cuda: " in one_line(
        plastic("train", "backprop", "--resume", interrupted.name, "--device", "cuda"), 2
    )
    assert json.loads((interrupted / "run.json").read_text()) == before
    train()
    assert "--device cuda: " in one_line(plastic("eval", "backprop", "--device", "cuda", "--quiet"), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["grlu", "--learning-rate", "1e30", "--perturbations", 1, "--hidden", 8],
        ["grlu", "--learning-rate", "1e30", "--hidden", 8, "--update", "backprop"],
        ["backprop", "--optimizer", "sgd", "--learning-rate", "1e30"],
    ],
    ids=["grlu", "grlu --update backprop", "backprop"],
)
def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_step(arguments, tiny_data, runs_folder):
    outcome = plastic("train", *arguments, "--json", "--dataset", tiny_data, "--epochs", 3)
    line = one_line(outcome, 1)
    assert "epoch 1" in line
    assert "smaller learning rate" in line
    (result,) = outcome.results
    assert result["status"] == "failed"
    assert result["error"] in line
    row = RunStore(runs_folder).runs().iloc[0]
    assert (row["status"], row["error"]) == ("failed", result["error"])


def test_one_failed_seed_of_several_does_not_stop_the_others(tiny_data, runs_folder, monkeypatch):
    from plastic_cli.errors import RunFailed
    from plastic_cli.runs.run import Run

    real = Run.count_samples

    def fail(run, *arguments):
        if run.seed == 1:
            raise RunFailed("train/loss became nan at epoch 1.")
        real(run, *arguments)

    monkeypatch.setattr(Run, "count_samples", fail)
    outcome = plastic("train", "backprop", "--seeds", 3, "--json", "--dataset", tiny_data, "--epochs", 1)
    assert outcome.code == 1
    assert [result["status"] for result in outcome.results] == ["completed", "failed", "completed"]
    assert outcome.err == "error: 1 of 3 runs failed: train/loss became nan at epoch 1.\n"


@pytest.mark.parametrize("damage", ["half", "text", "empty", "other arrays", "missing labels"])
def test_a_corrupt_data_file_is_named_and_leaves_no_run(tiny_data, runs_folder, damage):
    path = tiny_data / "train.npz"
    content = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, pictures=np.zeros(3))
    elif damage == "missing labels":
        np.savez(path, x=np.zeros((60, 6, 6), np.uint8), y=np.zeros(3, int))
    else:
        path.write_bytes({"half": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    line = one_line(plastic("train", "backprop", "--quiet", "--dataset", tiny_data, "--epochs", 1), 2)
    assert "train.npz" in line
    assert not runs_folder.exists() or not RunStore(runs_folder).folders()


def test_a_folder_without_data(tmp_path, runs_folder):
    (tmp_path / "nothing").mkdir()
    line = one_line(plastic("train", "backprop", "--quiet", "--dataset", tmp_path / "nothing"), 2)
    assert str(tmp_path / "nothing") in line


def test_data_that_disappear_before_a_run_is_finished(interrupted, tiny_data, tmp_path, whole):
    moved = shutil.move(tiny_data, tmp_path / "elsewhere")
    assert str(tiny_data) in one_line(plastic("train", "backprop", "--resume", interrupted.name, "--quiet"), 2)
    shutil.move(moved, tiny_data)
    assert plastic("train", "backprop", "--resume", interrupted.name, "--quiet").code == 0
    assert training_numbers(interrupted).equals(whole)


def test_a_mistake_of_the_program_is_recorded_with_the_run(monkeypatch, tiny_data, runs_folder):
    from plastic_cli.classifier import baselines

    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(baselines.BackpropLearner, "train_batch", broken)
    with pytest.raises(ZeroDivisionError):
        plastic("train", "backprop", "--quiet", "--dataset", tiny_data)
    row = RunStore(runs_folder).runs().iloc[0]
    assert (row["status"], row["error"]) == ("failed", "ZeroDivisionError: a bug")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=["python", "torch", "cuda"],
)
def test_too_little_memory_is_one_line(error, tiny_data, runs_folder, monkeypatch):
    from plastic_cli.classifier.baselines import BackpropLearner

    def fail(*_):
        raise error

    monkeypatch.setattr(BackpropLearner, "train_batch", fail)
    outcome = plastic("train", "backprop", "--dataset", tiny_data, "--hidden", 4)
    assert "not enough memory" in one_line(outcome, 1)
    assert RunStore(runs_folder).rows()[0]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_writing_a_checkpoint_is_an_interrupt(number, small, runs_folder, whole, monkeypatch):
    """The library that writes the archive turns what a signal raises into an error of its own."""
    save, written = torch.save, []

    class Signaled:
        def __init__(self, stream):
            self.stream = stream

        def write(self, content):
            written.append(len(content))
            if len(written) == 5:
                os.kill(os.getpid(), number)
            return self.stream.write(content)

        def flush(self):
            self.stream.flush()

    def save_to(content, stream):
        try:
            save(content, Signaled(stream))
        except BaseException as error:
            turned.append(type(error))
            raise

    turned = []
    # A background job of a script starts with Ctrl-C ignored, and so would this test.
    usual = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(torch, "save", save_to)
            outcome = plastic("train", "backprop", *small)
    finally:
        signal.signal(number, usual)
    assert (outcome.code, turned) == (130, [RuntimeError])
    ((run, row),) = ((row["run"], row) for row in RunStore(runs_folder).rows())
    assert row["status"] == "interrupted"
    assert plastic("train", "backprop", "--quiet", "--resume", run).code == 0
    pd.testing.assert_frame_equal(training_numbers(runs_folder / run), whole)


def test_a_process_that_was_told_to_ignore_ctrl_c_goes_on(small, runs_folder):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert plastic("train", "backprop", *small).code == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
