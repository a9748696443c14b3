"""Every test is alone: its own runs, the embedded data set only, plain output. Real processes on request."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

# Before torch is imported anywhere: tests share the cores, and the same sums must be taken in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import processes

# What a script starts in the background ignores Ctrl-C, and so would the processes whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    """Neither the runs nor the data nor the settings of the person who runs the tests are touched.

    The cache folder stays what it was, so that compiled kernels and matplotlib's fonts are found there.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLASTIC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PLASTIC_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("PLASTIC_STRICT", "PLASTIC_EXPORT", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runs_folder(tmp_path):
    """The folder that PLASTIC_RUNS names during this test."""
    return tmp_path / "runs"


@pytest.fixture
def start_plastic():
    """Start `plastic` as a process of its own; what still runs at the end of the test is killed."""
    started = []

    def start(*arguments, **options):
        options = {"env": processes.environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(subprocess.Popen(processes.command(*arguments), text=True, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def tiny_data(tmp_path):
    """A data set of 60 images of 6 x 6 pixels in three classes, as a folder."""
    from plastic_cli.testing import write_tiny_dataset

    return write_tiny_dataset(tmp_path / "tiny")


@pytest.fixture
def train(tiny_data):
    """Train backprop for an instant and return the folder of the run."""
    from plastic_cli.testing import plastic

    def run(*options, epochs=1):
        small = ["--dataset", tiny_data, "--hidden", 4, "--epochs", epochs]
        outcome = plastic("train", "backprop", "--quiet", *small, *options)
        assert outcome.code == 0, outcome.err
        return Path(outcome.out.strip())

    return run
