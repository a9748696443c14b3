"""Signals end the program at any time with one line and code 130; the run can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plastic_cli.runs.store import RunStore
from plastic_cli.signals import STOPPING, signals_as_interrupts
from processes import environment, run_plastic

OWN = "plastic_cli.signals"
LONG = ["--hidden", "4", "--epochs", "1000000", "--quiet"]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return answer


def plastic_that_tells_imports(*arguments):
    """Start `plastic`; its stderr has a line for each module as its import ends."""
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "plastic_cli", *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "imported"),
    [
        *((["train", "grlu", *LONG], imported) for imported in (0, 150, 900)),
        *((["doctor"], imported) for imported in (3, 400)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_ctrl_c_while_importing_is_one_line(command, imported):
    process = plastic_that_tells_imports(*command)
    lines, since, sent = [], None, False
    for line in process.stderr:
        lines.append(line)
        if since is not None:
            since += 1
        elif line.split("|")[-1].strip() == OWN:
            since = 0
        if since == imported and not sent:
            # The handlers are in place a few statements behind the import.
            until(lambda: _listens(process.pid) or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            sent = True
    code = process.wait(60)
    said = [line for line in lines if not line.startswith("import time:")]
    assert sent
    assert code == 130, said
    assert said in ([], ["interrupted.\n"])


def _listens(pid):
    """Say whether a process catches SIGUSR1, as it does from when the program listens to signals."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught, 16) >> (signal.SIGUSR1 - 1) & 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2], ids=str)
def test_a_run_can_be_resumed_after_a_signal_of_a_batch_system(number, tiny_data, runs_folder, start_plastic):
    process = start_plastic("train", "backprop", "--dataset", tiny_data, *LONG)
    until(lambda: list(runs_folder.glob("*/checkpoint.pt")) or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (row,) = RunStore(runs_folder).rows()
    assert row["status"] == "interrupted"
    assert (runs_folder / row["run"] / "checkpoint.pt").exists()


def test_the_command_to_continue_is_printed(tiny_data, runs_folder, start_plastic):
    process = start_plastic("train", "backprop", "--dataset", tiny_data, *LONG[:-1])
    until(lambda: list(runs_folder.glob("*/checkpoint.pt")) or process.poll() is not None)
    process.send_signal(signal.SIGUSR1)
    # A batch system may send more than one while the checkpoint is written.
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    (run,) = RunStore(runs_folder).folders()
    assert process.returncode == 130
    assert f"stopped; finish it with: plastic train backprop --resume {run}" in err


@pytest.mark.parametrize("to_all", [False, True], ids=["the sweep alone", "every process"])
def test_a_sweep_hands_the_signal_to_its_runs(to_all, tiny_data, tmp_path, runs_folder, start_plastic):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'title = "t"\nwhy = "w"\nrule = "backprop"\nseeds = 2\n[options]\ndataset = "{tiny_data}"\nepochs = 1000000\n'
        "hidden = [4]\n"
    )
    process = start_plastic("sweep", recipe, "--workers", 2)
    until(lambda: len(list(runs_folder.glob("*/checkpoint.pt"))) == 2 or process.poll() is not None)
    if to_all:
        for run in RunStore(runs_folder).rows():
            record = json.loads((runs_folder / run["run"] / "run.json").read_text())
            os.kill(record["process"]["pid"], signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert "stopped: 2 started, 0 not started. Repeat the same command to finish them" in err
    assert [row["status"] for row in RunStore(runs_folder).rows()] == ["interrupted"] * 2


@pytest.mark.slow
def test_tune_hands_the_signal_to_its_runs(tiny_data, runs_folder, start_plastic):
    pytest.importorskip("optuna")
    options = ["--dataset", tiny_data, "--epochs", 1000000, "--hidden", 4, "--validation", 12, "--workers", 1]
    process = start_plastic("tune", "backprop", *options)
    until(lambda: list(runs_folder.glob("*/checkpoint.pt")) or process.poll() is not None)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert [row["status"] for row in RunStore(runs_folder).rows()] == ["interrupted"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_commands_work_with_the_backend_of_a_notebook(backend, train, runs_folder):
    train()
    done = run_plastic("render", "backprop", "--quiet", MPLBACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert run_plastic("report", "--output", "tables", MPLBACKEND=backend).returncode == 0


def test_ignored_signals_stay_ignored():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        with signals_as_interrupts() as came:
            for number in STOPPING:
                signal.raise_signal(number)
        assert came == []
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_second_signal_interrupts_only_on_request():
    with signals_as_interrupts() as came:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]


def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(tmp_path, monkeypatch):
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\nwhole = sum(range(1000))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with signals_as_interrupts() as came:
        import interrupted_module

        assert interrupted_module.whole == 499500
        with pytest.raises(KeyboardInterrupt):
            signal.pause()
    assert came == [signal.SIGUSR1]


@pytest.mark.parametrize("number", [signal.SIGINT, *STOPPING], ids=str)
def test_every_signal_that_asks_to_stop_is_an_interrupt(number):
    found = signal.getsignal(number)
    # Whoever started the tests may ignore some, as nohup ignores SIGHUP.
    before = signal.default_int_handler if found is signal.SIG_IGN else found
    signal.signal(number, before)
    try:
        with signals_as_interrupts(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, found)


def test_importing_plastic_as_a_library_leaves_signals_alone():
    program = "import signal, plastic_cli, plastic_cli.app, plastic_cli.signals; print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert "default_int_handler" in done.stdout
