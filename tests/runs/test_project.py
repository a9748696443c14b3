"""The git commit that a run records: that of the user's project, never an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from plastic_cli.runs import project
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.project import project_state
from plastic_cli.runs.record import read_record

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    environment = {**os.environ, **dict.fromkeys(names, "someone"), "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The current folder is one that no repository contains."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repository(outside):
    """The current folder is a repository with one commit."""
    git(outside, "init", "-q")
    (outside / "experiment.py").write_text("print(1)\n")
    git(outside, "add", "experiment.py")
    git(outside, "commit", "-q", "-m", "first")
    return outside


def started(folder):
    run = create_run(folder, rule="oja", config={"seed": 0})
    with run.locked():
        run.start()
        run.finish("interrupted")
    return run.folder


@needs_git
def test_a_run_records_commit_and_changes_of_the_project_it_started_in(repository, runs_folder):
    commit = git(repository, "rev-parse", "HEAD")
    assert read_record(started(runs_folder)).project == {"commit": commit, "dirty": False}
    (repository / "notes.txt").write_text("not tracked")
    assert project_state() == {"commit": commit, "dirty": False}
    (repository / "experiment.py").write_text("print(2)\n")
    folder = started(runs_folder)
    assert read_record(folder).project == {"commit": commit, "dirty": True}
    git(repository, "commit", "-q", "-a", "-m", "second")
    assert project_state() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    # A run that goes on keeps what it started with.
    with open_run(folder).locked() as run:
        run.start()
    assert read_record(folder).project == {"commit": commit, "dirty": True}


@needs_git
def test_a_folder_inside_the_project_belongs_to_it(repository, monkeypatch):
    (repository / "deep").mkdir()
    monkeypatch.chdir(repository / "deep")
    assert project_state() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}


def test_without_a_repository_nothing_is_recorded(outside, runs_folder):
    assert project_state() == {}
    assert read_record(started(runs_folder)).project == {}


@needs_git
def test_before_the_first_commit_nothing_is_recorded(outside):
    git(outside, "init", "-q")
    assert project_state() == {}


@needs_git
def test_without_git_nothing_is_recorded(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert project_state() == {}


@needs_git
def test_a_slow_or_broken_git_costs_nothing_but_the_commit(repository, monkeypatch, tmp_path):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(project, "GIT_SECONDS", 0.1)
    assert project_state() == {}
    slow.write_text("#!/bin/sh\nexit 3\n")
    assert project_state() == {}


@needs_git
def test_an_untrusted_repository_runs_no_program(repository, tmp_path):
    proof = tmp_path / "ran"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {proof}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert project_state()["dirty"] is False
    assert not proof.exists()


def test_a_run_of_an_earlier_version_has_no_project(make_run):
    run = make_run()
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    del content["project"]
    path.write_text(json.dumps(content))
    assert read_record(run.folder).project == {}
