"""Sweeps of runs that take no time, in this process and in others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plastic_cli.plugins.discovery import discover
from plastic_cli.sweeps.engine import Sweep
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.sweeps.steps import plan_steps
from processes import environment
from sweeps import instant

HERE = Path(__file__).parent


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """What was started so far, one dictionary for each start."""
    file = tmp_path / "starts.jsonl"
    monkeypatch.setenv("INSTANT_STARTS", str(file))
    monkeypatch.setenv("INSTANT_ORIGIN", discover().origins["backprop"])
    return lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def instant_runs(monkeypatch, starts):
    """Let jobs of this process take no time."""
    monkeypatch.setattr("plastic_cli.sweeps.process.command", instant.command)
    monkeypatch.setattr("plastic_cli.sweeps.process.can_fork", lambda: False)


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe of backprop and return its file."""

    def write(grid="", options="", seeds="1", name="mine", steps=""):
        file = tmp_path / f"{name}.toml"
        file.write_text(
            'title = "a test"\nwhy = "to test"\nrule = "backprop"\nminutes = 1\n'
            f"seeds = {seeds}\n[options]\nepochs = 2\nhidden = [4]\n{options}\n[grid]\n{grid}\n{steps}"
        )
        return file

    return write


@pytest.fixture
def sweep(runs_folder, instant_runs):
    """Carry out a recipe here and return the results by word."""

    def run(file, workers=2, show=lambda progress: None, **settings):
        with open_pool(None, workers) as pool:
            recipe = read_recipe(str(file))
            plan = plan_recipe(recipe)
            results = Sweep([*plan, *plan_steps(recipe, plan)], pool, runs_folder, SweepOptions(**settings)).run(show)
        found = {}
        for result in results:
            found.setdefault(result.word, []).append(result)
        return found

    return run


@pytest.fixture
def processes():
    """Start programs, and kill what is left of them at the end."""
    started = []

    def start(program, *arguments, patched=True, **variables):
        line = f"import sys; sys.path.insert(0, {str(HERE)!r}); import instant; "
        line += "instant.install(); " if patched else ""
        process = subprocess.Popen(
            [sys.executable, "-c", line + program, *(str(argument) for argument in arguments)],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
