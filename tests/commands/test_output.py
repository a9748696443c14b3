"""What goes to stdout and what to stderr, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from plastic_cli.commands.show import _table
from plastic_cli.errors import RunFailed
from plastic_cli.plugins.discovery import discover
from plastic_cli.terminal_tables import table_text
from plastic_cli.testing import interrupted_after, plastic
from processes import command, environment, run_plastic

KEYS = {"run", "rule", "seed", "status", "folder", "seconds", "metrics"}


@pytest.fixture
def small(tiny_data):
    """Options that make training a matter of milliseconds."""
    return ["--dataset", tiny_data, "--hidden", 4, "--epochs", 1]


def test_json_is_one_object_per_run_and_nothing_else(small, runs_folder):
    outcome = plastic("train", "backprop", "--json", "--seeds", 3, "--seed", 7, *small)
    assert outcome.code == 0
    assert [result["seed"] for result in outcome.results] == [7, 8, 9]
    assert len({result["run"] for result in outcome.results}) == 3
    for result in outcome.results:
        assert result.keys() >= KEYS
        assert (result["rule"], result["status"]) == ("backprop", "completed")
        assert result["folder"] == str(runs_folder / result["run"])
        assert {"train/accuracy", "train/loss", "test/accuracy", "test/loss"} == set(result["metrics"])
        assert 0 < result["seconds"] < 60
    assert outcome.err == ""


@pytest.mark.parametrize("verb", ["eval", "analyze", "render"])
def test_later_verbs_print_the_same_shape(verb, train):
    run = train().name
    outcome = plastic(verb, "backprop", "--json")
    assert outcome.code == 0, outcome.err
    (result,) = outcome.results
    assert result.keys() >= KEYS
    assert (result["run"], result["status"]) == (run, "completed")
    assert all("/" in key for key in result["metrics"])


@pytest.mark.parametrize("name", ["film.gif", "PICTURE.PNG", "film.webm"])
def test_render_writes_the_film_or_the_picture_where_the_user_says(name, train, tmp_path):
    if name.endswith("webm"):
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes WebM, is not installed")
    folder = train()
    path = tmp_path / name
    path.write_text("an older file")
    outcome = plastic("render", "backprop", "--output", path)
    assert outcome.code == 0, outcome.err
    assert f"wrote {path}\n" in outcome.err
    head = {"film.gif": b"GIF89a", "PICTURE.PNG": b"\x89PNG", "film.webm": b"\x1aE\xdf\xa3"}[name]
    assert path.read_bytes().startswith(head)
    # It takes the place of the file in the run's folder; the other one is written there as always.
    drawn = sorted(file.name for file in folder.glob("*/weights.*") if file.suffix in (".gif", ".png"))
    assert drawn == (["weights.gif"] if name.endswith("PNG") else ["weights.png"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("film.avi", "the name must end with .gif, .mp4, .webm or .png"),
        ("film", "the name must end with .gif"),
        ("nowhere/film.gif", "there is no folder .*nowhere. Create it, or choose another"),
        ("folder.gif", "it is a folder. Add the name of a file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_drawn(name, words, train, tmp_path):
    folder = train()
    (tmp_path / "folder.gif").mkdir()
    outcome = plastic("render", "backprop", "--output", tmp_path / name)
    assert outcome.code == 2
    assert re.search(f"error: --output .*{name}: {words}", outcome.err)
    assert not (folder / "figures").exists()


def test_a_rule_that_draws_no_film_is_named(train, tmp_path, monkeypatch):
    train()
    monkeypatch.setattr("plastic_cli.runs.run.Run.save_video", lambda *_, **__: None)
    outcome = plastic("render", "backprop", "--output", tmp_path / "film.gif")
    assert outcome.code == 2
    assert "film.gif: backprop draws no film. Choose a name for a picture." in outcome.err


def test_quiet_prints_only_the_folder(small, runs_folder):
    outcome = plastic("train", "backprop", "--quiet", "--seeds", 2, *small)
    assert outcome.err == ""
    folders = outcome.out.splitlines()
    assert len(folders) == 2
    assert all((Path(folder) / "run.json").is_file() for folder in folders)


def test_the_final_table_shows_the_results(small):
    outcome = plastic("train", "backprop", *small)
    for word in (
        "test accuracy",
        "of 60 images",
        "test loss",
        "time of the run",
        "time of training",
        "samples per second",
    ):
        assert word in outcome.out
    assert outcome.out.splitlines()[-1].startswith("run ")


def test_several_seeds_end_with_an_interval(small):
    outcome = plastic("train", "backprop", "--seeds", 3, *small)
    assert "over seeds, 95% t interval of the mean" in outcome.out
    assert "run 2 of 3: seed 1" in outcome.err


def test_progress_goes_to_a_terminal_on_stderr_only(tiny_data, tmp_path):
    """A bar where stderr is a terminal, even where stdout is a pipe, and none of it on stdout."""
    reader, writer = pty.openpty()
    arguments = ["train", "backprop", "--dataset", tiny_data, "--hidden", 4, "--epochs", 3]
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=writer, env=environment(TERM="xterm"), text=True
    ) as process:
        out = process.communicate(timeout=120)[0]
    os.close(writer)
    shown = b""
    with os.fdopen(reader, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # the other end is closed
            pass
    assert process.returncode == 0
    assert b"epoch 3/3" in shown
    assert "epoch 3/3" not in out
    assert "test accuracy" in out
    assert "\x1b" not in out


def test_there_is_no_progress_bar_without_a_terminal(small):
    done = run_plastic("train", "backprop", *small)
    assert done.returncode == 0
    assert done.stderr == "next: `plastic analyze backprop`, `plastic render backprop` or `plastic report`\n"


def test_a_command_ends_with_what_makes_sense_next(train):
    folder = train()
    said = "next: `plastic analyze backprop`, `plastic render backprop` or `plastic report`\n"
    assert plastic("eval", "backprop").err.endswith(said)
    assert plastic("analyze", "backprop").err.endswith("next: `plastic render backprop` or `plastic report`\n")
    assert plastic("render", "backprop").err.endswith("next: `plastic report`\n")
    # What was typed to find the run is needed again.
    place = folder.parent.rename(folder.parent.with_name("two words"))
    named = plastic("eval", "backprop", "--run", folder.name, "--runs", place).err
    assert f"`plastic analyze backprop --run {folder.name} --runs '{place}'`" in named
    assert f"`plastic report --runs '{place}'`" in named


@pytest.mark.parametrize("options", [["--quiet"], ["--json"], ["--format", "csv"], ["--dry-run"]])
def test_a_program_is_not_told_what_makes_sense_next(small, train, options):
    assert "next:" not in plastic("train", "backprop", *small, *options).err
    train()
    assert "next:" not in plastic("eval", "backprop", *options).err


def test_plot_draws_the_learning_curves_of_each_run(small, runs_folder):
    outcome = plastic("train", "backprop", "--plot", "--seeds", 2, *small)
    assert outcome.code == 0, outcome.err
    drawn = sorted(runs_folder.glob("*/figures/curves.*"))
    assert [path.suffix for path in drawn] == [".png", ".svg"] * 2
    for path in drawn:
        assert f"wrote {path}\n" in outcome.err
    one = plastic("train", "backprop", "--plot", "--json", *small).results[0]
    assert one["files"] == ["figures/curves.png", "figures/curves.svg"]
    plastic("train", "backprop", "--plot", "--grid", "epochs=2", "--json", *small[:-2])
    assert len(list(runs_folder.glob("*/figures/curves.png"))) == 4


def test_a_run_without_a_curve_is_completed_without_a_figure(small, runs_folder, monkeypatch):
    monkeypatch.setattr("plastic_cli.classifier.fit._log_splits", lambda learner, splits, run: None)
    outcome = plastic("train", "backprop", "--plot", *small)
    assert outcome.code == 0
    assert "warning: --plot: " in outcome.err
    assert list(runs_folder.glob("*/figures/*")) == []


def test_a_failed_run_is_not_followed_by_an_analysis(small, monkeypatch):
    def fail(learner, splits, run):
        raise RunFailed("it diverged.")

    monkeypatch.setattr("plastic_cli.classifier.fit._log_splits", fail)
    outcome = plastic("train", "backprop", *small)
    assert outcome.code == 1
    assert "next:" not in outcome.err


def test_a_completed_run_is_not_trained_again(train):
    folder = train()
    before = (folder / "run.json").read_bytes()
    outcome = plastic("train", "backprop", "--json", "--resume", folder.name)
    assert outcome.code == 0
    assert outcome.results[0]["status"] == "completed"
    assert (folder / "run.json").read_bytes() == before
    assert "is already completed" in plastic("train", "backprop", "--resume", folder.name).err


def test_resume_refuses_other_options(train):
    run = train("--name", "first").name
    for typed, named in ((["--epochs", 5], "epochs = 1"), (["--seed", 3], "seed = 0")):
        outcome = plastic("train", "backprop", "--resume", run, *typed)
        assert outcome.code == 2
        assert f"--resume continues a run as it was started, with {named}" in outcome.err
    for typed in (["--name", "other"], ["--seeds", 2]):
        outcome = plastic("train", "backprop", "--resume", run, *typed)
        assert outcome.code == 2
        assert f"leave {typed[0]} out" in outcome.err
    assert plastic("train", "backprop", "--resume", run, "--epochs", 1).code == 0, "a stored option may be repeated"


def test_resume_with_a_file_compares_the_file(train, tmp_path):
    run = train().name
    file = tmp_path / "options.toml"
    file.write_text(plastic("train", "backprop", "--dry-run", "--resume", run).out)
    assert plastic("train", "backprop", "--resume", run, "--config", file).code == 0
    file.write_text("epochs = 9\n")
    outcome = plastic("train", "backprop", "--resume", run, "--config", file)
    assert (outcome.code, outcome.out) == (2, "")
    assert "epochs = 1" in outcome.err


def test_resume_names_the_rule_of_the_run(train):
    run = train().name
    outcome = plastic("train", "grlu", "--resume", run)
    assert outcome.code == 2
    assert f"plastic train backprop --resume {run}" in outcome.err
    outcome = plastic("eval", "grlu", "--run", run)
    assert outcome.code == 2
    assert f"plastic eval backprop --run {run}" in outcome.err


def test_later_verbs_take_the_newest_completed_run(train):
    old, new = train("--name", "old").name, train("--name", "new").name
    assert plastic("eval", "backprop", "--json").results[0]["run"] == new
    assert plastic("eval", "backprop", "--json", "--run", "old").results[0]["run"] == old


def test_without_a_run_one_line_says_how_to_make_one():
    outcome = plastic("eval", "grlu")
    assert outcome.code == 2
    assert "Make one with: plastic train grlu" in outcome.err


def test_the_runs_option_takes_precedence_over_the_environment(train, tmp_path, small):
    train()
    elsewhere = tmp_path / "elsewhere"
    result = plastic("train", "backprop", "--json", "--runs", elsewhere, *small).results[0]
    run = result["run"]
    assert result["folder"] == str(elsewhere / run)
    assert plastic("eval", "backprop", "--json", "--runs", elsewhere).results[0]["run"] == run
    for form in (["runs", "--runs", elsewhere, "show", run], ["runs", "show", run, "--runs", elsewhere]):
        outcome = plastic(*form)
        assert outcome.code == 0, outcome.err
    assert plastic("runs", "show", run).code == 2
    assert plastic("runs", "--runs", elsewhere, "remove", run, "--yes").code == 0
    assert len(json.loads(plastic("runs", "--json").out)) == 1


def test_without_option_and_environment_runs_go_to_runs(small, monkeypatch, tmp_path):
    monkeypatch.delenv("PLASTIC_RUNS")
    result = plastic("train", "backprop", "--json", *small).results[0]
    assert result["folder"] == f"runs/{result['run']}"
    assert (tmp_path / "runs" / result["run"] / "run.json").is_file()


@pytest.mark.parametrize("how", ["the first lines", "nothing"])
def test_a_closed_pipe_is_quiet(train, runs_folder, how):
    """`plastic runs | head -1`, with more rows than a pipe and a buffer hold, and with a reader that reads nothing."""
    record = json.loads((train() / "run.json").read_text())
    for number in range(400 if how == "the first lines" else 1):
        folder = runs_folder / f"20200101-000000-{number:04d}"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({**record, "run": folder.name}))
    process = subprocess.Popen(
        command("runs", "--all"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    if how == "the first lines":
        assert process.stdout.readline().strip() or process.stdout.readline().strip()
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 0


def test_a_failed_run_is_an_object_too_and_exits_with_one(small):
    outcome = plastic("train", "backprop", "--json", "--optimizer", "sgd", "--learning-rate", 1e30, *small)
    assert outcome.code == 1
    (result,) = outcome.results
    assert result["status"] == "failed"
    assert "epoch 1" in result["error"]
    assert len(outcome.err.splitlines()) == 1


def test_rules_in_every_format():
    assert plastic("rules", "--format", "csv").out.splitlines()[0] == "rule,summary,published in,from"
    assert plastic("rules", "--format", "markdown").out.startswith("| rule | summary |")
    assert [row["rule"] for row in json.loads(plastic("rules", "--json").out)] == sorted(discover().rules)
    assert "grlu" in plastic("rules").out


def test_doctor_finds_nothing_wrong(train, runs_folder):
    train()
    outcome = plastic("doctor", "--json")
    checks = json.loads(outcome.out)
    assert outcome.code == 0
    assert {"check": "runs folder", "state": "ok", "detail": f"{runs_folder}: 1 run"} in checks
    assert "rule grlu" in plastic("doctor").out


def test_doctor_finds_a_claim_about_an_option_that_does_not_exist(monkeypatch):
    from plastic_cli.plugins.rule import Rule

    text = Rule.claims_text
    monkeypatch.setattr(
        Rule, "claims_text", lambda rule: (text(rule) or "").replace("perturbations", "perturbatons") or None
    )
    outcome = plastic("doctor", "--json")
    assert outcome.code == 1
    (check,) = [check for check in json.loads(outcome.out) if check["state"] == "broken"]
    assert check["check"] == "rule grlu"
    assert "there is no option 'perturbatons'. Did you mean 'perturbations'?" in check["detail"]


def test_doctor_names_what_cannot_be_read(train, runs_folder):
    folder = train()
    (folder / "run.json").write_text("{")
    outcome = plastic("doctor", "--json")
    assert outcome.code == 1
    broken = [check for check in json.loads(outcome.out) if check["state"] == "broken"]
    assert [str(folder) in check["detail"] for check in broken] == [True]


def test_doctor_says_how_to_finish_a_crashed_run(train):
    folder = train()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    outcome = plastic("doctor")
    assert outcome.code == 0
    assert f"plastic train backprop --resume {folder.name}" in " ".join(outcome.out.split())


def test_an_interrupted_run_prints_its_object_too(tiny_data, runs_folder):
    with interrupted_after(1):
        outcome = plastic("train", "backprop", "--dataset", tiny_data, "--epochs", 3, "--seeds", 2, "--json")
    assert outcome.code == 130
    assert [result["status"] for result in outcome.results] == ["interrupted"]


def test_csv_of_several_seeds_is_one_table(tiny_data):
    outcome = plastic("train", "backprop", "--dataset", tiny_data, "--epochs", 1, "--seeds", 2, "--format", "csv")
    frame = pd.read_csv(io.StringIO(outcome.out))
    assert sorted(frame["seed"].unique()) == [0, 1]
    assert set(frame["metric"]) >= {"test/accuracy", "test/loss"}


@pytest.mark.parametrize(
    "command", [["train", "--help"], ["train", "mpn", "--help"], ["runs"], ["rules"]], ids=" ".join
)
def test_a_closed_pipe_is_not_an_error(command, start_plastic):
    process = start_plastic(*command)
    process.stdout.close()
    assert process.wait(60) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("closed", [1, 2])
def test_a_command_works_with_a_closed_standard_stream(closed, train):
    train()
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "plastic_cli", "runs"]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_name_of_a_recipe_is_never_broken_into_lines():
    rows = [{"recipe": "selective-sp-04-code-reservoir", "reason": "many words " * 9, "other": "more words " * 9}]
    shown = table_text(_table("", rows, list(rows[0]), ()), 80)
    assert "selective-sp-04-code-reservoir" in shown
    assert max(map(len, shown.splitlines())) <= 80
