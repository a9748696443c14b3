"""A run that was stopped, lost work, and was finished, exported in each sitting."""

from __future__ import annotations

import json

import pytest

from plastic_cli.runs.exports import metric_name
from plastic_cli.runs.run import Run
from plastic_cli.testing import plastic

STOPPED_AT = 2
LOST = 0.123


class Exported:
    """A run's folder, what its metrics file holds, by exported name, and its record."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def points(self):
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        points = {}
        for row in rows:
            points.setdefault(metric_name(row), []).append((row["step"], row["value"]))
        return points

    @property
    def record(self):
        return json.loads((self.folder / "run.json").read_text())


@pytest.fixture
def exported():
    """Look at the run in a folder."""
    return Exported


@pytest.fixture
def export(tiny_data, runs_folder):
    """Train backprop for an instant with an exporter; returns outcome and run."""

    def run(to, *options, epochs=3):
        small = ["--dataset", tiny_data, "--hidden", 4, "--epochs", epochs, "--export", to, "--json"]
        outcome = plastic("train", "backprop", *small, *options)
        newest = max(runs_folder.glob("2*"), key=lambda folder: folder.stat().st_mtime)
        return outcome, Exported(newest)

    return run


@pytest.fixture
def stop_and_resume(export, monkeypatch):
    """Stop a run in the middle of a step, with a metric logged behind its last checkpoint, and finish it."""

    def run(to):
        log = Run.log
        stopped = []

        def log_and_stop(self, split, labels=None, **metrics):
            if self.step == STOPPED_AT and not stopped and split == "test":
                # Lost work: the resumed run logs another value here, and all that comes before again.
                log(self, split, labels, **{**metrics, "accuracy": LOST})
                stopped.append(self.id)
                raise KeyboardInterrupt
            log(self, split, labels, **metrics)

        monkeypatch.setattr(Run, "log", log_and_stop)
        outcome, exported = export(to)
        assert outcome.code == 130, outcome.err
        before = exported.record["status"]
        outcome = plastic("train", "backprop", "--resume", stopped[0], "--export", to)
        assert outcome.code == 0, outcome.err
        assert before == "interrupted"
        assert "failed in" not in outcome.err
        return exported

    return run
