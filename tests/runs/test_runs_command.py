"""`plastic runs`: list, filter, show and remove."""

from __future__ import annotations

import csv
import io
import json

import pytest

from plastic_cli.runs.run import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic


def listed(*arguments):
    outcome = plastic("runs", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    return [row["run"] for row in json.loads(outcome.out)]


def test_the_newest_is_last(make_run):
    made = [make_run().id for _ in range(5)]
    assert listed() == made


def test_filters(make_run):
    one = make_run("small-net", rule="oja", dataset="digits").id
    two = make_run("large-net", rule="hebb", dataset="mnist", status="failed").id
    assert listed("--rule", "oja") == listed("--dataset", "digits") == listed("--status", "completed") == [one]
    assert listed("--status", "failed") == listed("--name", "large") == listed("--name", two) == [two]
    assert listed("--rule", "oja", "--status", "failed") == []


def test_formats_hold_the_same_rows(make_run, runs_folder):
    run = make_run("mine|yours".replace("|", "."), accuracy=0.875, seed=4)
    (row,) = json.loads(plastic("runs", "--format", "json").out)
    assert (row["run"], row["name"], row["seed"], row["metric"]) == (run.id, "mine.yours", 4, "test/accuracy")
    assert row["value"] == 0.875
    assert row["folder"] == str(runs_folder / run.id)
    (from_csv,) = csv.DictReader(io.StringIO(plastic("runs", "--format", "csv").out))
    assert from_csv == {key: str(value) for key, value in row.items()}
    markdown = plastic("runs", "--format", "markdown").out.splitlines()
    assert len(markdown) == 3
    assert {line.count("|") for line in markdown} == {11}
    table = plastic("runs").out
    assert run.id in table
    assert "0.875" in table


@pytest.mark.parametrize("form", ["csv", "json", "markdown", "table"])
def test_no_run_yet(form, runs_folder):
    outcome = plastic("runs", "--format", form)
    assert outcome.code == 0
    assert (
        outcome.out.strip()
        == {
            "csv": "run,name,rule,dataset,status,seed,created,seconds,metric,value,folder",
            "json": "[]",
            "markdown": outcome.out.strip(),
            "table": "",
        }[form]
    )
    if form == "table":
        assert "no run yet" in outcome.err
    assert not runs_folder.exists()


def test_a_damaged_run_is_named_even_where_no_other_is(make_run):
    run = make_run()
    (run.folder / "run.json").write_text("{")
    outcome = plastic("runs")
    assert (outcome.code, outcome.out) == (0, "")
    assert f"warning: {run.folder}" in outcome.err


def test_show_tells_everything(make_run):
    run = make_run("mine", hidden=[8, 4], accuracy=0.5)
    content = json.loads(plastic("runs", "show", "mine", "--json").out)
    assert (content["run"], content["name"], content["status"]) == (run.id, "mine", "completed")
    assert content["config"] == {"seed": 0, "dataset": "digits", "hidden": [8, 4]}
    assert content["summary"] == {"test/accuracy": 0.5, "test/loss": 0.8}
    assert content["folder"] == str(run.folder)
    assert content["files"] == ["checkpoint.pt", "metrics.jsonl", "run.json"]
    assert content["machine"]["cores"] >= 1
    table = plastic("runs", "show", run.id[:-1]).out
    assert "config.hidden" in table
    assert "8,4" in table
    assert plastic("runs", "show", "mine", "--format", "csv").out.startswith("field,value\n")


def test_show_of_a_renamed_run_goes_by_its_folder(make_run, runs_folder):
    make_run().folder.rename(runs_folder / "renamed")
    assert json.loads(plastic("runs", "show", "renamed", "--json").out)["run"] == "renamed"


@pytest.mark.parametrize("verb", ["show", "remove"])
def test_an_unknown_run(make_run, verb):
    make_run("favourite")
    outcome = plastic("runs", verb, "favorite")
    assert outcome.code == 2
    assert "Did you mean 'favourite'?" in outcome.err


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1), ("", 130, 1)])
def test_remove_asks_first(make_run, monkeypatch, answer, code, left):
    run = make_run()
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    outcome = plastic("runs", "remove", run.id)
    assert outcome.code == code
    assert outcome.out.strip() == "", "the question goes to stderr"
    assert run.id in outcome.err
    assert len(listed()) == left


def test_remove_several_with_yes(make_run, runs_folder):
    one, two, three = make_run("one"), make_run(), make_run()
    RunStore(runs_folder).metrics()
    outcome = plastic("runs", "remove", "--yes", "one", two.id)
    assert outcome.code == 0
    assert listed() == [three.id]
    assert sorted(path.name for path in runs_folder.iterdir() if path.name != ".index") == [three.id]
    assert set(RunStore(runs_folder).metrics()["run"]) == {three.id}
    assert not one.folder.exists()


def test_one_unknown_among_several_removes_none(make_run):
    run = make_run()
    assert plastic("runs", "remove", "--yes", run.id, "nonsense").code == 2
    assert listed() == [run.id]


def test_a_run_that_is_being_written_is_not_removed(make_run):
    run = make_run()
    with open_run(run.folder).locked():
        outcome = plastic("runs", "remove", "--yes", run.id)
    assert outcome.code == 2
    assert "is being written by another process" in outcome.err
    assert listed() == [run.id]


@pytest.mark.parametrize("record", ["{", '{"schema": 999}'])
def test_a_run_that_cannot_be_read_can_be_removed(make_run, record):
    run = make_run()
    (run.folder / "run.json").write_text(record)
    assert plastic("runs", "remove", "--yes", run.id).code == 0
    assert not run.folder.exists()
