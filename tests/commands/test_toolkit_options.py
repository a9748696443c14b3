"""The toolkit's own commands are models too: files, bounds and errors work as in the commands of a rule."""

from __future__ import annotations

import json

import pytest

from plastic_cli.plugins.entry_points import installed
from plastic_cli.testing import plastic


@pytest.fixture
def file(tmp_path):
    """Write a configuration file."""

    def write(text):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return path

    return write


def planned(*arguments):
    outcome = plastic("sweep", "grlu-quick", "--dry-run", "--format", "json", *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_sweep_reads_its_options_from_a_file_and_typed_options_take_precedence(file):
    options = file('seeds = 2\nrule = "grlu"\nworkers = 3\n')
    assert len({row["seed"] for row in planned("--config", options)}) == 2
    assert len({row["seed"] for row in planned("--config", options, "--seeds", 1)}) == 1


def test_a_report_reads_its_options_from_a_file(file, train):
    train()
    options = file('format = "csv"\ntable = "results"\n')
    assert plastic("report", "--config", options).out == plastic("report", "--format", "csv", "--table", "results").out


@pytest.mark.parametrize(
    ("command", "text", "complaint"),
    [
        (["report"], "tabel = 'all'\n", "there is no key 'tabel'. Did you mean 'table'?"),
        (["report"], "table = 'al'\n", "Did you mean 'all'?"),
        (["sweep", "grlu-quick"], "workers = 0\n", "--workers 0: it should be greater than or equal to 1"),
    ],
)
def test_a_wrong_file_is_named(command, text, complaint, file):
    options = file(text)
    outcome = plastic(*command, "--config", options)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {options}: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sweep", "grlu-quick", "--workers", "0"], "--workers 0: it should be greater than or equal to 1"),
        (["sweep", "grlu-quick", "--retry", "-1"], "--retry -1"),
        (["sweep", "grlu-quick", "--timeout", "0"], "--timeout 0: it should be greater than 0"),
        (["sweep", "grlu-quick", "--timeout", "nan"], "--timeout nan"),
        (["runs", "--limit", "0"], "--limit 0: it should be greater than or equal to 1"),
        (["runs", "--limit", "2", "--all"], "--limit 2: it does not go with --all"),
        (["report", "--table", "al"], "Did you mean 'all'?"),
        (["rules", "--formt", "csv"], "there is no option '--formt'. Did you mean '--format'?"),
        (["data", "--format", "cvs"], "Did you mean 'csv'?"),
        (["sweep"], "Missing argument 'RECIPE'"),
        (["runs", "show"], "Missing argument 'RUN'"),
        (["runs", "export"], "Missing option '--to'"),
    ],
    ids=" ".join,
)
def test_wrong_options_are_one_line(arguments, complaint):
    outcome = plastic(*arguments)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert complaint in line


def test_options_before_a_command_of_a_group_count_for_it(train, tmp_path):
    run = train("--runs", tmp_path / "elsewhere").name
    outcome = plastic("runs", "--runs", tmp_path / "elsewhere", "--json", "show", run)
    assert json.loads(outcome.out)["run"] == run


@pytest.mark.parametrize(
    "command",
    ["sweep", "verify", "recipes", "report", "runs", "rules", "data", "doctor", "new-rule"],
)
def test_every_command_of_the_toolkit_has_help_and_debug(command):
    out = plastic(command, "--help").out
    assert out.startswith(f" Usage: plastic {command}")
    assert "--debug" in out
    assert "-h, --help" in out


def test_the_help_of_plastic_lists_the_commands_that_there_are():
    out = plastic("--help").out
    for entry in installed():
        if not entry.name.startswith("export-"):
            assert entry.name in out
