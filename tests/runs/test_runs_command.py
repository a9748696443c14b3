"""`plastic runs`: list, filter, show and remove."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest

from plastic_cli.runs.folder import open_run
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


def test_a_damaged_run_is_named_even_without_other_runs(make_run):
    run = make_run()
    (run.folder / "run.json").write_text("{")
    outcome = plastic("runs")
    assert (outcome.code, outcome.out) == (0, "")
    assert f"warning: {run.folder}" in outcome.err


def test_show_prints_every_field(make_run):
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


# ------------------------------------------------------------------------------------------------------- many runs


@pytest.fixture
def many(make_run, runs_folder):
    """60 runs, the newest last."""
    template = make_run()
    record = json.loads((template.folder / "run.json").read_text())
    shutil.rmtree(template.folder)
    names = [f"20260101-0000{number:02d}-abcd" for number in range(60)]
    for number, name in enumerate(names):
        (runs_folder / name).mkdir()
        created = f"2026-01-01T00:00:{number:02d}.000+00:00"
        (runs_folder / name / "run.json").write_text(json.dumps({**record, "created": created, "seed": number % 3}))
    return names


def shown(outcome):
    return [line.split()[0] for line in outcome.out.splitlines() if line.strip().startswith("20260101")]


def test_the_newest_fifty_are_shown_and_a_line_says_so(many):
    outcome = plastic("runs")
    assert shown(outcome) == many[-50:]
    assert "the newest 50 of 60 runs" in outcome.err
    assert plastic("runs", "--format", "markdown").out.count("\n") == 52


@pytest.mark.parametrize(("options", "begin"), [(["--all"], 0), (["--last", 7], 53), (["--last", 99], 0)])
def test_all_or_another_number_on_request(many, options, begin):
    outcome = plastic("runs", *options)
    assert shown(outcome) == many[begin:]
    assert ("of 60 runs" in outcome.err) == (begin > 0)


def test_programs_get_all_unless_they_ask_for_fewer(many):
    assert listed() == many
    assert len(plastic("runs", "--format", "csv").out.splitlines()) == 61
    assert listed("--last", 3) == many[-3:]
    assert plastic("runs", "--json").err == ""


def test_the_newest_of_those_that_fit(many, make_run):
    other = make_run(rule="hebb").id
    assert listed("--rule", "hebb", "--last", 5) == [other]
    assert "of 60 runs" in plastic("runs", "--rule", "oja").err
    assert plastic("runs", "--rule", "hebb").err == ""


@pytest.mark.parametrize("options", [["--last", 0], ["--last", -1], ["--last", 3, "--all"]])
def test_an_invalid_number_of_runs(many, options):
    outcome = plastic("runs", *options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: --last {options[1]}: ")


# ------------------------------------------------------------------------------------------------------------ links


def test_of_a_link_only_the_link_is_removed(make_run, runs_folder, tmp_path):
    run = make_run()
    target = run.folder.rename(tmp_path / "elsewhere")
    (runs_folder / run.id).symlink_to(target)
    content = {path.name: path.read_bytes() for path in target.iterdir()}
    outcome = plastic("runs", "remove", "--yes", run.id)
    assert outcome.code == 0
    assert f"removed {run.id}, which was a link: the run itself stays in {target}" in outcome.err
    assert listed() == []
    assert {path.name: path.read_bytes() for path in target.iterdir()} == content
    assert [path.name for path in runs_folder.iterdir() if path.name.startswith(".removed")] == []


def test_the_question_says_that_it_is_a_link(make_run, runs_folder, tmp_path, monkeypatch):
    run = make_run()
    (runs_folder / "linked").symlink_to(run.folder.rename(tmp_path / "elsewhere"))
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "linked (only the link)" in plastic("runs", "remove", "linked").err


def test_the_rest_of_a_killed_removal_does_not_block_the_next(make_run, runs_folder):
    run = make_run()
    (runs_folder / f".removed-{run.id}").mkdir()
    (runs_folder / f".removed-{run.id}" / "file").touch()
    assert plastic("runs", "remove", "--yes", run.id).code == 0
    assert not run.folder.exists()


# ------------------------------------------------------------------------------------------- what a terminal is given

OBEYED = "\x1b[31m\x07\x9b2J\u202e\ud800 caf\udce9"


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_no_control_character_reaches_the_terminal(make_run, runs_folder, form):
    run = make_run(dataset=f"/data/{OBEYED}", status="failed", error=OBEYED, note=OBEYED)
    path = run.folder / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "name": OBEYED, "summary": {f"test/{OBEYED}": 1.0}, "argv": [OBEYED]}))
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "\x1b[2J.png").touch()
    for command in (["runs"], ["runs", "show", run.id], ["report", "--status", "all"], ["doctor"]):
        outcome = plastic(*command, "--format", form)
        assert outcome.code == 0, outcome
        text = outcome.out + outcome.err
        assert not set(text) & set("\x1b\x07\x9b\u202e\ud800\udce9")
        text.encode()
    if form == "json":
        (row,) = json.loads(plastic("runs", "--json").out)
        assert row["name"] == OBEYED, "a program gets what is there"


def test_no_control_character_in_an_error(make_run, runs_folder):
    make_run()
    for command in (["runs", "show", OBEYED], ["runs", "--rule", OBEYED], ["report", "--runs", OBEYED], [OBEYED]):
        outcome = plastic(*command)
        assert outcome.code == 2
        assert not set(outcome.err) & set("\x1b\x07\x9b\u202e\ud800\udce9")
        assert outcome.err.count("\n") == 1


def test_no_cell_of_the_list_is_a_formula(make_run):
    run = make_run(dataset="=1+1")
    (row,) = csv.DictReader(io.StringIO(plastic("runs", "--format", "csv").out))
    assert (row["run"], row["dataset"], row["seed"]) == (run.id, "'=1+1", "0")
