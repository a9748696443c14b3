"""Runs that several tests of the analyses use."""

from __future__ import annotations

from pathlib import Path

import pytest

from plastic_cli.testing import plastic, write_tiny_dataset
from selective.analysis.runs import EPOCHS, TASKS


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tiny data set and the runs of these tests."""
    folder = tmp_path_factory.mktemp("analyzed")
    write_tiny_dataset(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """Train once with these options and return the folder of the run."""
    known = {}

    def run(*options):
        if options not in known:
            small = ["--dataset", base / "tiny", "--tasks", TASKS, "--hidden", "8,6"]
            small += [] if "--iterations" in options else ["--epochs", EPOCHS]
            small += ["--batch-size", 8]
            small += [] if "--replay" in options or "--joint" in options else ["--buffer-size", 12]
            small += [] if "--optimizer" in options else ["--warmup-steps", 2]
            outcome = plastic("train", "selective", "--quiet", "--runs", base / "runs", *small, *options)
            assert outcome.code == 0, outcome.err
            known[options] = Path(outcome.out.strip())
        return known[options]

    return run
