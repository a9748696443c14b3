"""All commands accept the same words and values, and refuse wrong ones before they start to work."""

from __future__ import annotations

import json
import tomllib

import pytest

from plastic_cli.plugins.discovery import discover
from plastic_cli.sweeps.search import Choice, Range, _distributions, extremes
from plastic_cli.testing import plastic

BOM = b"\xef\xbb\xbf"


def configuration(*arguments):
    outcome = plastic("train", *arguments, "--dry-run")
    assert outcome.code == 0, outcome.err
    return tomllib.loads(outcome.out)


def refused(*arguments):
    outcome = plastic(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    return line


# ---------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("text", ["1e3", "1E3", "1000.0", "+1e3", "0.1e4", "1000"])
def test_a_whole_number_may_be_written_with_a_point_or_an_exponent(text, tmp_path):
    assert configuration("backprop", "--batch-size", text)["batch_size"] == 1000
    assert configuration("backprop", "--hidden", f"{text},20")["hidden"] == [1000, 20]
    file = tmp_path / "options.toml"
    file.write_text(f"batch_size = {'1e3' if text == '1E3' else text}\n")
    assert configuration("backprop", "--config", file)["batch_size"] == 1000
    grid = plastic("train", "backprop", "--grid", f"batch_size={text},8", "--dry-run", "--format", "json")
    assert [row["batch_size"] for row in json.loads(grid.out)] == ["1000", "8"]
    search = plastic("tune", "backprop", "--search", f"batch_size=8:{text}", "--dry-run", "--format", "json")
    assert json.loads(search.out)[0]["high"] == 1000


@pytest.mark.parametrize("text", ["1.5", "1e-3", "1e400", "1e99999999999", "nan", "inf", "1e3x", "", "1e", "\uff11e3"])
def test_a_text_that_is_not_a_whole_number_is_refused(text):
    assert "--epochs" in refused("train", "backprop", "--epochs", text, "--dry-run")


def test_seeds_of_a_recipe_may_be_written_with_an_exponent(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('title = "t"\nwhy = "w"\nrule = "backprop"\nseeds = 1e1\n')
    assert "10 runs" in plastic("sweep", file, "--dry-run", "--quiet").err
    file.write_text('title = "t"\nwhy = "w"\nrule = "backprop"\nseeds = 1.5\n')
    assert "line 4" in refused("sweep", file, "--dry-run")


@pytest.mark.parametrize("option", ["--hidden", "--class-order"])
@pytest.mark.parametrize("text", ["10,,10", ",10", "10,", ",", " , "])
def test_a_list_with_an_empty_entry_is_refused(option, text):
    line = refused("train", "selective", option, text, "--dry-run")
    assert line == f"error: {option} {text}: there is an empty value between the commas."


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train", "backprop", "--grid", "epochs=1,,2"], "empty value"),
        (["train", "backprop", "--grid", "hidden=8;;16"], "empty value"),
        (["train", "backprop", "--grid", "epochs="], "no value"),
        (["tune", "backprop", "--search", "batch_size=8,,16"], "empty value"),
    ],
)
def test_a_grid_and_a_search_with_an_empty_entry_are_refused(arguments, word):
    assert word in refused(*arguments, "--dry-run")


def test_choices_are_understood_in_any_case(tmp_path):
    assert configuration("GRLU", "--activation", "Top-K")["activation"] == "top-k"
    assert configuration("backprop", "--optimizer", "SGD", "--dataset", "MNIST")["dataset"] == "mnist"
    file = tmp_path / "options.toml"
    file.write_text('optimizer = "Adam"\ndataset = "Digits"\n')
    assert configuration("backprop", "--config", file)["optimizer"] == "adam"
    assert plastic("rules", "--format", "JSON").out.startswith("[")
    assert plastic("sweep", "arena", "--rule", "GRLU", "--only", "dataset=Digits", "--dry-run", "--quiet").code == 0


def test_a_byte_order_mark_is_ignored(tmp_path):
    options, recipe = tmp_path / "options.toml", tmp_path / "recipe.toml"
    options.write_bytes(BOM + b"epochs = 2\r\n")
    recipe.write_bytes(BOM + b'title = "t"\r\nwhy = "w"\r\nrule = "backprop"\r\nsedes = 3\r\n')
    assert configuration("backprop", "--config", options)["epochs"] == 2
    assert "line 4" in refused("sweep", recipe)
    recipe.write_bytes(recipe.read_bytes().replace(b"sedes", b"seeds"))
    assert "3 runs" in plastic("sweep", recipe, "--dry-run").err
    assert configuration("backprop", "--config", recipe)["epochs"] == 10


# ----------------------------------------------------------------------------------------------------- search


def test_whole_numbers_are_searched_inside_their_range():
    (found,) = _distributions({"n": Range(0.5, 64.0, "log", whole=True)}).values()
    assert (found.low, found.high, found.log) == (1, 64, True)
    assert list(extremes({"n": Range(0.5, 9.9, "linear", whole=True), "c": Choice(("a", "b"))})) == [
        {"n": 1, "c": "a"},
        {"n": 1, "c": "b"},
        {"n": 9, "c": "a"},
        {"n": 9, "c": "b"},
    ]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("batch_size=0.2:0.7", "no integer in that range"),
        ("batch_size=0:64", "--batch-size 0"),
        ("batch_size=-5:64", "--batch-size -5"),
        ("learning_rate=0:inf", "a range"),
        ("learning_rate=nan:1", "a range"),
        ("optimizer=adam,sdg", "Did you mean 'sgd'?"),
        ("momentum=0:1", "--momentum 1"),
    ],
)
def test_a_search_range_outside_the_bounds_is_refused_before_any_run(search, said, more, runs_folder):
    fixed = [] if search.startswith("optimizer") else ["--optimizer", "sgd"]
    assert said in refused("tune", "backprop", "--search", search, *fixed, *more)
    assert not runs_folder.exists()


# ---------------------------------------------------------------------------------------- words of all commands


COMMANDS = [
    ["report", "--runs", "nowhere"],
    ["runs", "--status", "nothing"],
    ["runs", "show", "nothing"],
    ["runs", "remove", "nothing"],
    ["runs", "export", "--to", "nothing"],
    ["rules", "--format", "nothing"],
    ["recipes", "nothing"],
    ["data", "--format", "nothing"],
    ["doctor", "--format", "nothing"],
    ["new-rule", "9"],
    ["sweep", "nothing"],
    ["tune", "grlu", "--metric", "test/accuracy"],
    *([verb, "grlu", "--device", "nothing"] for verb in ("train", "eval", "analyze", "render")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_debug_shows_the_traceback_of_any_command_and_only_then(command):
    plain, debugged = plastic(*command), plastic(*command, "--debug")
    assert (plain.code, debugged.code) == (2, 2)
    assert plain.err.count("\n") == 1
    assert debugged.err.startswith("Traceback")
    assert debugged.err.endswith(plain.err)


def test_debug_before_the_command_is_the_same():
    assert plastic("--debug", "recipes", "nothing").err.startswith("Traceback")


@pytest.mark.parametrize("word", ["--keep-going", "--stop-at-failure", "--no-keep-going"])
@pytest.mark.parametrize(
    "command",
    [["sweep", "grlu-quick"], ["train", "backprop", "--grid", "epochs=1,2"], ["tune", "backprop"]],
    ids=lambda command: command[0],
)
def test_keep_going_has_the_same_names_in_every_command(command, word):
    assert plastic(*command, word, "--dry-run").code == 0


def test_stop_at_failure_needs_a_grid():
    assert "--stop-at-failure belongs to --grid" in refused("train", "backprop", "--stop-at-failure")


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheduler", "slrum"], "Did you mean 'slurm'?"),
        (["--scheduler", "slurm"], "--scheduler slurm"),
        (["--runs", "a-file"], "it is not a folder"),
        (["--workers", "1.5"], "--workers"),
        (["--seeds", ""], "--seeds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize(
    "command", [["sweep", "grlu-quick"], ["train", "backprop", "--grid", "epochs=1,2"]], ids=" ".join
)
def test_a_dry_run_of_a_sweep_refuses_what_the_sweep_refuses(command, arguments, said, more, tmp_path, runs_folder):
    (tmp_path / "a-file").touch()
    assert said in refused(*command, *arguments, *more)
    assert not runs_folder.exists()


def test_options_of_a_sweep_may_be_written_with_an_exponent():
    outcome = plastic("sweep", "grlu-quick", "--seeds", "1e1", "--workers", "2.0", "--retry", "1e0", "--dry-run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("study", ["", "../outside", "a/b", ".hidden", "x" * 101])
def test_the_name_of_a_search_cannot_be_a_path(study, more, tmp_path, runs_folder):
    assert "--study" in refused("tune", "backprop", "--study", study, *more)
    assert not runs_folder.exists()


def test_an_empty_name_of_a_run_is_refused(train):
    train()
    assert "there is no run ''" in refused("eval", "backprop", "--run", "")


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "a/b"],
        ["--name", ""],
        ["--seeds", "2", "--seed", str(2**63 - 1)],
        ["--dataset", "nothing"],
        ["--export", "nothing"],
        ["--resume", "nothing"],
    ],
    ids=" ".join,
)
def test_a_dry_run_refuses_what_the_run_refuses(arguments, more, runs_folder):
    refused("train", "backprop", *arguments, *more)
    assert not runs_folder.exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "command",
    [["train", "backprop"], ["train", "backprop", "--grid", "epochs=1,2"], ["tune", "backprop"], ["eval", "backprop"]],
    ids=" ".join,
)
def test_a_missing_device_is_refused_at_once(command, more, monkeypatch, runs_folder):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cuda" in refused(*command, "--device", "cuda", *more)
    assert not runs_folder.exists()


def test_the_other_run_is_found_before_anything_is_measured(train, monkeypatch):
    train()
    monkeypatch.setattr("plastic_cli.classifier.analyze.probe_layers", lambda *_, **__: pytest.fail("it measured"))
    assert "there is no run 'nothing'" in refused(
        "analyze", "backprop", "--probe", "--cka", "--other", "nothing", "--quiet"
    )


def test_names_of_rules_may_be_in_capitals():
    for rule in discover().rules:
        assert plastic("train", rule.upper(), "--dry-run").code == 0
