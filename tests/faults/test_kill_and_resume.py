"""A training process that is killed at any moment, however it is killed, can be finished with the same numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from plastic_cli.runs.store import RunStore
from plastic_cli.testing import training_numbers
from processes import environment

WARM_PLASTIC = Path(__file__).parents[1] / "warm_plastic.py"
TRAINING = ["grlu", "--dataset", "digits", "--hidden", "32", "--perturbations", "1", "--quiet", "--epochs", "25"]


class WarmPlastic:
    """The forking process, asked for one run at a time."""

    def __init__(self, runs):
        self.runs = runs
        self.process = subprocess.Popen(
            [sys.executable, str(WARM_PLASTIC)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, *arguments):
        self.say(json.dumps([*arguments, "--runs", str(self.runs)]))

    def answer(self):
        return int(self.process.stdout.readline())

    def run(self, *arguments, kill_with=None, after=0.0):
        """Run `plastic`, send a signal after some seconds unless it has ended, and return the exit code."""
        self.ask(*arguments)
        child = self.answer()
        if kill_with is not None:
            time.sleep(after)
            os.kill(child, kill_with)
        self.say("wait")
        return self.answer()


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A warm process whose first run, never stopped, is what the others are compared with."""
    warm = WarmPlastic(tmp_path_factory.mktemp("killed") / "runs")
    try:
        warm.ask("train", *TRAINING, "--name", "reference")
        assert warm.process.stdout.readline().strip().startswith(str(warm.runs)), "--quiet prints the folder"
        assert warm.answer() == 0
        yield warm
    finally:
        warm.process.stdin.close()
        warm.process.wait(30)
        warm.process.stdout.close()


@pytest.fixture(scope="module")
def reference(warm):
    """The run that was never stopped, and how long it takes in a warm process."""
    began = time.perf_counter()
    assert warm.run("train", *TRAINING, "--name", "timed") == 0
    return RunStore(warm.runs).find("reference"), time.perf_counter() - began


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_killed_again_and_again_it_ends_with_the_same_bits(number, seed, warm, reference):
    whole, seconds = reference
    delays = random.Random(f"{number.name} {seed}")
    before = set(RunStore(warm.runs).folders())
    code = warm.run("train", *TRAINING, kill_with=number, after=delays.uniform(0, 1.05 * seconds))
    made = set(RunStore(warm.runs).folders()) - before
    assert len(made) <= 1
    if not made:
        assert code in (-number, 130), "it ended before it made a run, but not by the signal"
        return
    run = made.pop()
    kills = 0
    while code != 0:
        _check_end(warm.runs, run, code, number)
        kills += 1
        deadly = number if kills < 4 else None
        code = warm.run(
            "train", "grlu", "--quiet", "--resume", run, kill_with=deadly, after=delays.uniform(0.05, 0.8 * seconds)
        )
    _check_same(warm.runs / run, whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_killed_while_it_starts_a_process_loses_nothing(number, warm, reference, start_plastic):
    """Processes that import everything first, as a user's do, killed at one moment of that after the other."""
    store = RunStore(warm.runs)
    before, delays = set(store.folders()), random.Random(number.name)
    processes = []
    for delay in sorted(delays.uniform(0.02, 3) for _ in range(2)):
        processes.append(start_plastic("train", *TRAINING, "--runs", warm.runs))
        time.sleep(delay)
        processes[-1].send_signal(number)
        _, err = processes[-1].communicate(timeout=60)
        assert processes[-1].returncode in (-number, 130, 0), err
    made = set(store.folders()) - before
    assert len(made) <= len(processes)
    assert store.errors == []
    for run in made:
        assert warm.run("train", "grlu", "--quiet", "--resume", run) == 0
        _check_same(warm.runs / run, reference[0])


def _check_end(runs, run, code, number):
    status, started = next((row["status"], row["started"]) for row in RunStore(runs).rows() if row["run"] == run)
    if number == signal.SIGKILL:
        # Completed: the signal came after the last write, while the process ended.
        assert code == -signal.SIGKILL
        assert status in ("crashed", "completed")
    elif code == 130:
        # Completed: the signal came while the result was printed. Crashed: in the instant before the run was opened.
        assert status in ("interrupted", "completed") or (status == "crashed" and started is None)
    else:
        # Before the run was opened again nobody listened to the signal.
        assert code == -number


def _check_same(folder, whole):
    pd.testing.assert_frame_equal(training_numbers(folder), training_numbers(whole), check_exact=True)
    mine, its = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (folder, whole))
    for part in ("tracked", "steps_done"):
        _assert_equal(mine[part], its[part], part)
    record, other = (json.loads((path / "run.json").read_text()) for path in (folder, whole))
    assert record["status"] == "completed"
    for key in ("summary", "steps_done", "config", "data"):
        assert record[key] == other[key]
    assert list(folder.rglob(".*")) == [], "what a killed process left lying about"


def _assert_equal(mine, its, where):
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, its), where
    elif isinstance(mine, dict):
        assert mine.keys() == its.keys(), where
        for key in mine:
            _assert_equal(mine[key], its[key], f"{where}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(its), where
        for position, pair in enumerate(zip(mine, its, strict=True)):
            _assert_equal(*pair, f"{where}[{position}]")
    else:
        assert mine == its, where
