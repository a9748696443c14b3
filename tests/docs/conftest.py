"""A place where what the documentation shows can be run: the rule of its own page, a few runs, the recipes."""

from __future__ import annotations

import json
import sys

import pytest

from docs.pages import ROOT
from docs.registered import RULE, register
from plastic_cli.commands.new_rule import new_rule
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import config_model
from plastic_cli.runs.folder import create_run


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """What `plastic new-rule alignment` writes."""
    folder = tmp_path_factory.mktemp("documented")
    new_rule(RULE, folder)
    return folder / f"plastic-{RULE}"


@pytest.fixture
def documented_rule(written, tmp_path, monkeypatch):
    """The rule of the page on writing one, as if it were installed."""
    register(tmp_path / "site", RULE, RULE, f"plastic_{RULE}")
    monkeypatch.syspath_prepend(written)
    monkeypatch.syspath_prepend(tmp_path / "site")
    discover.cache_clear()
    yield written
    discover.cache_clear()
    for module in [module for module in sys.modules if module.partition(".")[0] == f"plastic_{RULE}"]:
        del sys.modules[module]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with the recipes of this repository; runs are below it."""
    here = tmp_path / "place"
    here.mkdir()
    (here / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PLASTIC_RUNS", str(here / "runs"))
    monkeypatch.setenv("COLUMNS", "200")
    return here


@pytest.fixture
def make_run(place):
    """Write a run of a rule without training it, and return its id."""

    def make(rule, status="completed", options=None, name="RUN", **summary):
        config = config_model(find_rule(rule).function("train"))(**(options or {}))
        run = create_run(
            place / "runs", rule=rule, config=config.model_dump(mode="json"), dataset=config.learns_from(), name=name
        )
        summary = summary or {"test/accuracy": 0.9, "test/loss": 0.3}
        run.write_record(status=status, started=run.record.created, summary=summary)
        lines = []
        for key, value in summary.items():
            split, metric = key.split("/")
            row = {"stage": "train", "split": split, "step": 1, "metric": metric, "value": value, "time": 1.0}
            lines.append(json.dumps(row) + "\n")
        angles = {"stage": "train", "split": "train", "step": 1, "metric": "angle", "value": 80.0, "time": 1.0}
        lines.append(json.dumps({**angles, "labels": {"layer": "conv1"}}) + "\n")
        (run.folder / "metrics.jsonl").write_text("".join(lines))
        return run.id

    return make
