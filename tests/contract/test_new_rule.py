"""`plastic new-rule`: what it writes is a rule that works, tested as its author would test it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from plastic_cli.testing import plastic
from processes import environment, run_plastic

NAME = "alignment"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder that the command wrote."""
    folder = tmp_path_factory.mktemp("authors")
    outcome = plastic("new-rule", NAME, "--folder", folder)
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    assert f"pip install -e {folder / 'plastic-alignment'}" in outcome.err
    assert [path.name for path in folder.iterdir()] == ["plastic-alignment"], "and no draft is left"
    return folder / "plastic-alignment"


@pytest.fixture(scope="module")
def installed(written, tmp_path_factory):
    """The folder into which pip has installed it, without a network."""
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, *alone, "--target", target, written)
    return target


def run(*command, folder=None, **options):
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=folder,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_its_own_tests_pass(written, installed):
    done = run(
        sys.executable,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"),
        folder=written,
        env=environment(installed),
    )
    assert "3 passed" in done.stdout


@pytest.mark.slow
def test_it_passes_lint_and_types(written):
    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "check", "--no-cache", ".", folder=written)
    run(*ruff, "format", "--no-cache", "--check", ".", folder=written)
    # A cache of its own would be left in the author's folder.
    run(sys.executable, "-m", "mypy", "--cache-dir", "/dev/null", folder=written, env=environment(written))
    assert tomllib.loads((written / "pyproject.toml").read_text())["tool"]["mypy"]["strict"] is True


def test_it_is_listed_trained_and_reported(installed, tmp_path):
    rows = json.loads(run_plastic("rules", "--json", folders=[installed]).stdout)
    assert {row["rule"]: row["from"] for row in rows}[NAME] == "plastic-alignment 0.1.0"
    trained = run_plastic("train", NAME, "--epochs", 1, "--json", folders=[installed])
    assert trained.returncode == 0, trained.stderr
    reported = run_plastic("report", "--format", "csv", "--table", "results", folders=[installed])
    assert reported.returncode == 0, reported.stderr
    assert "alignment,digits" in reported.stdout
    about = run_plastic("doctor", "--json", folders=[installed])
    assert {check["check"]: check["state"] for check in json.loads(about.stdout)}[f"rule {NAME}"] == "ok"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "My-Rule",
            "is not a valid name of a rule: use at most 40 lower-case letters, digits and '_', beginning with a letter",
        ),
        ("My-Rule", "Did you mean 'my_rule'?"),
        ("2nd", "is not a valid name of a rule"),
        ("", "is not a valid name of a rule"),
        ("../elsewhere", "is not a valid name of a rule"),
        ("règle", "is not a valid name of a rule"),
        ("x" * 41, "at most 40"),
        ("grlu", "there is a rule 'grlu' already"),
        ("cli", "a package plastic_cli is installed already"),
        ("mlflow", "a package plastic_mlflow is installed already"),
    ],
)
def test_a_name_that_cannot_be_used_is_one_line(name, complaint, tmp_path):
    outcome = plastic("new-rule", name, "--folder", tmp_path / "new")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert complaint in outcome.err
    assert not (tmp_path / "new").exists()


def test_what_is_there_already_is_not_touched(written, tmp_path):
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}
    outcome = plastic("new-rule", NAME, "--folder", written.parent)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "exists already" in outcome.err
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "file").touch()
    outcome = plastic("new-rule", NAME, "--folder", tmp_path / "file")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)


def test_the_default_place_is_here():
    assert plastic("new-rule", "here").code == 0
    assert Path("plastic-here/plastic_here/rule.py").is_file()
