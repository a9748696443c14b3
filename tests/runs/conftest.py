"""Runs made by hand, without training."""

from __future__ import annotations

import pytest

from plastic_cli.runs.folder import create_run


@pytest.fixture
def make_run(runs_folder):
    """Make a run with three steps in its metrics; `accuracy` is that of the last."""

    def make(name=None, rule="oja", seed=0, dataset="digits", accuracy=0.5, status="completed", error=None, **config):
        run = create_run(
            runs_folder,
            rule=rule,
            name=name,
            config={"seed": seed, "dataset": dataset, **config},
            versions={"plastic": "1.2.3"},
        )
        with run.locked():
            run.start()
            for step in run.steps(3, "epoch"):
                run.log("test", accuracy=accuracy * (step + 1) / 3, loss=1.0 - step / 10)
            run.finish(status, error)
        return run

    return make
