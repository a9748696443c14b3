"""Help names every rule and option and imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest

from plastic_cli.commands.options import build_command
from plastic_cli.config.describe import literal_choices, option_name
from plastic_cli.config.model import Config, field
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.testing import HEAVY, plastic
from processes import environment, run_plastic

SHARED_BY_TRAIN = [
    "--seed",
    "--seeds",
    "--device",
    "--name",
    "--runs",
    "--resume",
    "--config",
    "--dry-run",
]
OUTPUT = ["--json", "--quiet", "--debug"]


def imported_by(*arguments):
    """Return the heavy modules that a command imports in a process of its own, and what it printed."""
    program = (
        "import json, sys\nfrom plastic_cli.app import run_command_line\n"
        f"code = run_command_line({[str(argument) for argument in arguments]!r})\n"
        f"print(json.dumps([code, sorted(set({HEAVY!r}) & set(sys.modules))]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    return code, heavy, done.stdout


@pytest.mark.parametrize("rule", ["backprop", "grlu"])
def test_training_imports_neither_pandas_nor_a_plot_library_nor_scikit_learn(rule, tmp_path):
    code, heavy, _ = imported_by("train", rule, "--hidden", 4, "--epochs", 1, "--quiet", "--runs", tmp_path)
    assert code == 0
    assert not {"pandas", "matplotlib", "plotnine", "sklearn"} & set(heavy)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        [],
        ["--version"],
        *([verb, "--help"] for verb in VERBS),
        ["train", "grlu", "--help"],
        ["runs", "--help"],
        ["sweep", "--help"],
        ["verify", "--help"],
        ["tune", "--help"],
        ["tune", "grlu", "--help"],
        ["recipes", "--help"],
        ["compare", "--help"],
        ["report", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments):
    code, heavy, out = imported_by(*arguments)
    assert (code, heavy) == (0, [])
    assert out


SLOW = ("importlib.metadata", "pydantic", "rich", "filelock")
"""Modules that take long to import."""


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [(["--help"], []), (["train", "--help"], []), (["train", "grlu", "--help"], ["pydantic"])],
    ids=lambda given: " ".join(given),
)
def test_help_starts_fast(arguments, imported):
    program = (
        "import sys\nfrom plastic_cli.app import run_command_line\n"
        f"run_command_line({arguments!r})\nprint(sorted(set({SLOW!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == str(imported)


@pytest.mark.parametrize("arguments", [["rules"], ["runs"], ["recipes"], ["train", "grlu", "--dry-run"]], ids=" ".join)
def test_commands_that_compute_nothing_import_nothing_heavy(arguments):
    assert imported_by(*arguments)[:2] == (0, [])


def test_a_misspelled_option_imports_nothing_heavy():
    assert imported_by("train", "grlu", "--perturbation", 3)[:2] == (2, [])


def test_the_overview_names_every_verb_and_rule():
    out = plastic("--help").out
    for word in [*VERBS, "report", "runs", "rules", "data", "doctor", *discover().rules]:
        assert word in out
    assert out == plastic().out, "without a command the help is printed"
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_names_every_rule_with_its_summary(verb):
    out = " ".join(plastic(verb, "--help").out.split())
    for rule in discover().rules.values():
        assert rule.name in out
        assert rule.summary[:30] in out
    assert plastic(verb).code == 0


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", list(discover().rules))
def test_a_rule_names_every_option(verb, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    outcome = plastic(verb, name, "--help")
    assert outcome.code == 0
    fields = config_model(find_rule(name).function(verb)).model_fields
    expected = [option_name(field) for field in fields] + OUTPUT
    expected += SHARED_BY_TRAIN if verb == "train" else ["--run", "--runs", "--config", "--dry-run"]
    for option in expected:
        assert f"{option} " in outcome.out or f"{option}/" in outcome.out, option
    for info in fields.values():
        assert all(word in outcome.out for word in literal_choices(info))
        assert " ".join(info.description.split()[:3]) in " ".join(outcome.out.replace("│", " ").split())


class Choices(Config):
    stream: Literal["split", "permuted", "rotated"] = field("split", "how tasks differ")
    optimizer: Literal["selective", "momentum", "sgd"] = field("selective", "selective, momentum or sgd")


def test_help_lists_the_choices_that_its_text_does_not_name():
    command = build_command("train", "Train.", {"config": Choices}, lambda values: None)
    out = " ".join(command.make_context("train", [], resilient_parsing=True).get_help().replace("│", " ").split())
    assert "how tasks differ (one of split, permuted, rotated; default: split)" in out
    assert "selective, momentum or sgd (default: selective)" in out


def test_help_shows_bounds_and_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = " ".join(plastic("train", "grlu", "--help").out.replace("│", " ").split())
    assert "(at least 1; default: 16)" in out
    assert "(above 0, at most 1)" in out
    assert "output: after the activation, as published" in out


def test_short_help_option():
    assert plastic("-h").out == plastic("--help").out
    assert plastic("train", "grlu", "-h").code == 0


def test_version():
    from importlib.metadata import version

    assert plastic("--version").out == f"plastic {version('plastic-cli')}\n"


def complete(line, **variables):
    """Return what bash is offered at the end of a line."""
    words = line.split(" ")
    done = run_plastic(_PLASTIC_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **variables)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_verbs_rules_and_options():
    assert complete("plastic tr") == ["train"]
    assert complete("plastic train g") == ["grlu"]
    assert "--perturbations" in complete("plastic train grlu --pert")
    assert complete("plastic train grlu --learn") == ["--learning-rate"]
    # A former name of --learning-rate.
    assert complete("plastic train grlu --lr") == []
    assert complete("plastic train grlu --credit pre") == ["preactivation"]


def test_the_shell_completes_datasets_and_runs(train, runs_folder):
    run = train("--name", "favorite").name
    assert complete("plastic train grlu --dataset km") == ["kmnist"]
    assert complete("plastic eval backprop --run fav") == ["favorite"]
    assert complete("plastic train grlu --resume 2") == [run]
    assert complete(f"plastic runs show {run[:8]}") == [run]
