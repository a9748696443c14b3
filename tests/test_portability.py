"""The main job where the modules and functions that only POSIX systems have are absent, as on Windows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from processes import environment, run_plastic

WITHOUT_POSIX = """
import os, signal, sys

ABSENT = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


for name in ABSENT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in ("fchmod", "fork", "forkpty", "getpgid", "killpg", "pidfd_open", "pread", "sched_getaffinity", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
    if hasattr(signal, name):
        delattr(signal, name)
"""


@pytest.fixture
def plastic_without_posix(tmp_path):
    """Run `plastic`, and every Python process that it starts, without what only POSIX systems have."""
    folder = tmp_path / "without-posix"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT_POSIX)

    def run(*arguments):
        done = run_plastic(*arguments, folders=[folder])
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_every_module_of_the_toolkit_imports(tmp_path, plastic_without_posix):
    walk = """
import pkgutil, importlib, plastic_cli
for module in pkgutil.walk_packages(plastic_cli.__path__, "plastic_cli."):
    if module.name.rpartition(".")[2] not in ("__main__", "child"):
        importlib.import_module(module.name)
"""
    (tmp_path / "without-posix" / "walk_modules.py").write_text(walk)
    done = subprocess.run(
        [sys.executable, "-c", "import sys, walk_modules; assert 'fcntl' not in sys.modules"],
        env=environment(tmp_path / "without-posix"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_main_job_runs(plastic_without_posix, runs_folder):
    run = json.loads(plastic_without_posix("train", "grlu", "--perturbations", 2, "--epochs", 1, "--json").stdout)
    assert run["status"] == "completed"
    assert [path.name for path in runs_folder.iterdir() if not path.name.startswith(".")] == [run["run"]]
    assert run["run"] in plastic_without_posix("runs", "--format", "csv").stdout
    plastic_without_posix("eval", "grlu")
    plastic_without_posix("report", "--format", "csv")


@pytest.mark.slow
def test_a_sweep_runs(plastic_without_posix):
    done = plastic_without_posix(
        "train", "backprop", "--epochs", 1, "--grid", "batch_size=100,200", "--workers", 2, "--json"
    )
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["completed", "completed"]
