"""`plastic sweep`, `plastic train --grid` and `plastic recipes`, with runs of real rules."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

from plastic_cli.commands import sweep_results
from plastic_cli.runs.record import read_record
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.recipe import recipe_names
from plastic_cli.testing import plastic
from processes import run_in_terminal
from sweeps.watching import statuses

pytestmark = pytest.mark.usefixtures("starts")


def test_a_recipe_is_carried_out_by_real_processes(tmp_path, tiny_data, runs_folder):
    file = tmp_path / "real.toml"
    file.write_text(
        f'title = "t"\nwhy = "w"\nrule = "backprop"\nminutes = 0.1\n[options]\ndataset = "{tiny_data}"\nepochs = 1\n'
        "[grid]\nhidden = [[4], [5]]\n"
    )
    before = plastic("sweep", file, "--dry-run", "--format", "csv")
    assert [line.split(",")[-2] for line in before.out.splitlines()] == ["status", "left", "left"]
    assert "2 runs: 0 done, 2 left, about 12 s" in before.err
    outcome = plastic("sweep", file, "--json", "--workers", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    first, second = outcome.results
    assert {tuple(result["settings"]["hidden"]) for result in (first, second)} == {(4,), (5,)}
    assert all(result["status"] == "completed" and result["new"] for result in (first, second))
    assert 0 <= first["metrics"]["test/accuracy"] <= 1
    record = read_record(runs_folder / first["run"])
    assert record.machine["threads"] == 1
    # A run made by hand is the same run, and the other way round.
    again = plastic("train", "backprop", "--config", file, "--grid", "hidden=4,5", "--seeds", "1", "--json")
    assert not any(result["new"] for result in again.results)
    assert [result["settings"] for result in again.results] == [{"hidden": [4]}, {"hidden": [5]}]
    after = plastic("sweep", file, "--dry-run")
    assert after.out.count("done") == 2
    assert "2 runs: 2 done, 0 left" in after.err
    listed = plastic("sweep", file, "--quiet")
    assert sorted(listed.out.split()) == sorted(str(runs_folder / run) for run in RunStore(runs_folder).folders())


def test_an_unknown_claim_is_reported_with_its_line(tmp_path, runs_folder):
    file = tmp_path / "claims.toml"
    file.write_text('title = "t"\nwhy = "w"\nrule = "grlu"\nclaims = ["GR-01", "GR-77"]\n')
    outcome = plastic("sweep", file, "--dry-run")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{file}, line 4: there is no claim 'GR-77' in the claims.toml of grlu." in outcome.err
    file.write_text(file.read_text().replace("GR-77", "GR-02"))
    assert plastic("sweep", file, "--dry-run").code == 0


def test_a_grid_on_the_command_line_is_a_sweep(instant_runs, runs_folder):
    outcome = plastic(
        *("train", "backprop", "--epochs", 1, "--grid", "batch_size=1,2", "--grid", "learning_rate=.1,.2"),
        *("--seeds", 2, "--seed", 3, "--workers", 2),
    )
    assert outcome.code == 0, outcome.err
    assert statuses(runs_folder) == ["completed"] * 8
    configs = [row["config"] for row in RunStore(runs_folder).rows()]
    assert {(config["batch_size"], config["learning_rate"], config["seed"]) for config in configs} == {
        (size, rate, seed) for size in (1, 2) for rate in (0.1, 0.2) for seed in (3, 4)
    }
    assert "[8/8] done backprop" in outcome.err
    # The table for reading has one row for runs that differ in their seed alone.
    assert outcome.out.count("test accuracy") == 4
    assert "learning-rate" in outcome.out


def test_a_terminal_shows_a_bar_the_times_and_the_runs_under_way(tiny_data):
    shown = run_in_terminal("train", "backprop", "--dataset", tiny_data, "--hidden", 4, "--grid", "epochs=1,2")
    assert "2 runs in " in shown
    assert "runs 0/2 " in shown
    assert "runs 2/2 " in shown
    assert re.search(r"runs 0/2 .*0:00:\d\d left -:--:--", shown)
    assert re.search(r"0:00:\d\d  backprop epochs=[12] seed=0", shown)
    assert re.search(r"\d running", shown)
    assert "next: `plastic report`, `plastic plot --rule backprop --by epochs` or `plastic runs`" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid", "batch_size=1,2", "--batch-size", "3"], "--batch-size is also in --grid"),
        (["--grid", "batch_size=1,2", "--name", "x"], "--name applies to one run"),
        (["--grid", "batch_size=1,2", "--resume", "x"], "--resume applies to one run"),
        (["--grid", "batch_size=0"], "--batch-size 0"),
        (["--grid", "batch_size=a"], "--batch-size a"),
        (["--workers", "2"], "--workers belongs to --grid"),
        (["--stop-at-failure"], "--stop-at-failure belongs to --grid"),
        (["--no-keep-going"], "--stop-at-failure belongs to --grid"),
        (["--grid", "batch_size=1", "--workers", "0"], "--workers 0"),
        (["--grid", "batch_size=1", "--timeout", "0"], "--timeout 0"),
        (["--grid", "dataset=digits,none"], "unknown data set 'none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_grid_is_refused_before_any_run(options, said, runs_folder):
    outcome = plastic("train", "backprop", *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not runs_folder.exists() or statuses(runs_folder) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--retry", "-1"], "--retry -1"),
        (["--timeout", "0"], "--timeout 0"),
        (["--timeout", "nan"], "--timeout nan"),
        (["--seeds", "0"], "seeds"),
        (["--format", "tabel"], "Did you mean 'table'?"),
        (["--only", "epochs=77"], "no run has that value"),
        (["--rule", "nothing"], "--rule nothing"),
    ],
    ids=" ".join,
)
def test_an_option_without_effect_is_reported(options, said, recipe):
    outcome = plastic("sweep", recipe(), *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_interval_of_a_setting_ends_where_no_value_is_possible(instant_runs, recipe, monkeypatch):
    values = iter((0.1, 0.9, 0.98))
    headline = cache(lambda result: ("test/accuracy", next(values)))
    monkeypatch.setattr(sweep_results, "_headline", headline)
    done = plastic("sweep", recipe(seeds="3"))
    assert done.code == 0, done.err
    [row] = [line for line in done.out.splitlines() if "test accuracy" in line]
    assert row.split()[-3:] == ["66.00%", "0.00%", "100.00%"]
    assert "cut at the lowest and the highest possible value" in " ".join(done.out.split())


def test_failures_are_listed_with_their_logs_and_the_exit_code_is_1(instant_runs, recipe, runs_folder):
    outcome = plastic("sweep", recipe("batch_size = [1, 13]"), "--workers", 1)
    assert outcome.code == 1
    assert "failed: backprop batch_size=13 seed=0: train/loss became nan" in outcome.err
    assert "its output: " in outcome.err
    assert outcome.err.rstrip().endswith("error: 1 of 2 runs failed: train/loss became nan")
    results = plastic("sweep", recipe("batch_size = [1, 13]"), "--json").results
    assert sorted((result["status"], result["new"]) for result in results) == [("completed", False), ("failed", True)]
    assert json.loads(json.dumps(results))[-1]["error"]


def test_a_reason_that_many_runs_share_is_printed_once_at_the_end(instant_runs, recipe):
    outcome = plastic("sweep", recipe("batch_size = [13]", seeds="5"), "--workers", 1)
    assert outcome.code == 1
    [line] = [line for line in outcome.err.splitlines() if line.startswith("failed: ")]
    assert line.count("batch_size=13") == 3
    assert line.endswith("and 2 more: train/loss became nan")
    assert outcome.err.count("output of one of them: ") == 1


def test_an_unknown_exporter_is_reported_before_any_run(instant_runs, recipe, starts, monkeypatch):
    monkeypatch.setenv("PLASTIC_EXPORT", "tensorbord")
    for words in (["sweep", recipe("batch_size = [1, 2]")], ["tune", "backprop", "--trials", 1]):
        outcome = plastic(*words, "--workers", 1)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "there is no exporter 'tensorbord'" in outcome.err
    assert not starts()


def test_stop_at_failure_is_one_too(instant_runs, recipe):
    outcome = plastic("sweep", recipe("batch_size = [13, 1, 2, 3]"), "--workers", 1, "--stop-at-failure")
    assert outcome.code == 1
    assert "1 of 4 runs failed" in outcome.err


def test_recipes_are_listed_with_what_is_done(instant_runs, runs_folder, starts):
    rows = json.loads(plastic("recipes", "--json").out)
    assert [row["recipe"] for row in rows] == recipe_names()
    assert all(row["done"] == 0 and row["runs"] > 0 and row["time"] for row in rows)
    assert plastic("sweep", "backprop-quick", "--seeds", 1, "--quiet").code == 0
    rows = {row["recipe"]: row for row in json.loads(plastic("recipes", "--json", "--rule", "backprop").out)}
    assert rows["backprop-quick"]["done"] == 2
    assert set(rows) >= {"arena", "backprop-quick", "combinations"}
    assert all("backprop" in row["rule"].split(", ") for row in rows.values())
    assert plastic("recipes", "--rule", "nothing").code == 2


def test_a_recipe_is_shown_as_it_is_written(tmp_path):
    shown = plastic("recipes", "backprop-quick")
    mine = tmp_path / "mine.toml"
    mine.write_text(shown.out)
    assert plastic("sweep", mine, "--dry-run").out == plastic("sweep", "backprop-quick", "--dry-run").out
    missing = plastic("recipes", "bakprop-quick")
    assert missing.code == 2
    assert "Did you mean 'backprop-quick'?" in missing.err
