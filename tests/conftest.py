"""Every test is alone: its own runs, no data but the embedded set, plain output of one width, real processes on request."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

# Before torch is imported anywhere: tests share the cores, and the same sums must be taken in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

PROGRAM = "from plastic_cli.app import main; main()"


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
    for name in ("PLASTIC_STRICT", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
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
        options.setdefault("env", process_environment())
        command = [sys.executable, "-c", PROGRAM, *(str(argument) for argument in arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def plastic_process():
    """Run `plastic` as a process of its own to its end."""

    def run(*arguments, path=(), **variables):
        command = [sys.executable, "-c", PROGRAM, *(str(argument) for argument in arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=process_environment(path, **variables), timeout=120, check=False
        )

    return run


def process_environment(path=(), **variables):
    """Return the environment of a process that imports what this one would, after the folders of `path`."""
    here = [entry for entry in sys.path if entry and entry != sysconfig.get_path("purelib")]
    folders = [*(str(folder) for folder in path), *here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **variables}


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
        outcome = plastic("train", "backprop", "--quiet", "--dataset", tiny_data, "--hidden", 4, "--epochs", epochs, *options)
        assert outcome.code == 0, outcome.err
        return Path(outcome.out.strip())

    return run
