"""`plastic runs`: list, filter, show and remove."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pytest

from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic
from processes import run_in_terminal


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
    assert {line.count("|") for line in markdown} == {9}
    table = plastic("runs").out
    assert run.id in table
    assert "test accuracy" in table
    assert "87.50%" in table


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
    assert re.search(r"test accuracy +50\.00%", table)
    from_csv = plastic("runs", "show", "mine", "--format", "csv").out
    assert from_csv.startswith("field,value\n")
    assert "summary.test/accuracy,0.5\n" in from_csv


def test_show_rounds_measured_numbers_and_has_a_row_for_each_value(make_run):
    run = make_run("mine", rate=0.012345678)
    path = run.folder / "run.json"
    record = json.loads(path.read_text())
    record |= {"speed": {"seconds": 0.05003834400122287}, "data": {"pixels": {"low": 0.0, "images": 1797}}}
    path.write_text(json.dumps(record))
    out = plastic("runs", "show", "mine").out
    assert re.search(r"speed.seconds +0\.05004 *$", out, re.MULTILINE)
    assert re.search(r"data.pixels.images +1797", out)
    assert "{" not in out
    # An option is shown as it is typed.
    assert re.search(r"config.rate +0\.012345678", out)


def test_the_report_of_an_empty_store_suggests_the_rule_of_the_first_pages(runs_folder):
    runs_folder.mkdir(exist_ok=True)
    outcome = plastic("report", "--runs", runs_folder)
    assert "Train a first one with: plastic train grlu" in outcome.err


def test_show_of_a_renamed_run_goes_by_its_folder(make_run, runs_folder):
    make_run().folder.rename(runs_folder / "renamed")
    assert json.loads(plastic("runs", "show", "renamed", "--json").out)["run"] == "renamed"


@pytest.mark.parametrize("verb", ["show", "remove"])
def test_an_unknown_run(make_run, verb):
    make_run("favourite")
    outcome = plastic("runs", verb, "favorite")
    assert outcome.code == 2
    assert "Did you mean 'favourite'?" in outcome.err


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1), ("", 2, 1)])
def test_remove_asks_first(make_run, monkeypatch, answer, code, left):
    run = make_run()
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    outcome = plastic("runs", "remove", run.id)
    assert outcome.code == code
    assert outcome.out.strip() == "", "the question goes to stderr"
    assert run.id in outcome.err
    assert ("--yes removes runs without a question" in outcome.err) == (not answer)
    assert len(listed()) == left


def test_runs_are_removed_by_what_they_are(make_run, runs_folder):
    old, other = make_run("old", rate=1), make_run(rule="hebb", rate=2)
    make_run("bad", status="failed", rate=2)
    refused = plastic("runs", "remove", "--yes")
    assert (refused.code, refused.err) == (
        2,
        "error: which runs? Name them, or choose them by --rule, --dataset, --status or --where.\n",
    )
    assert plastic("runs", "remove", "--yes", "old", "--where", "rate=2").code == 2
    assert plastic("runs", "remove", "--yes", "--rule", "oja", "--where", "rate=2").code == 0
    assert sorted(listed()) == sorted([old.id, other.id])
    assert "no run in" in plastic("runs", "remove", "--yes", "--status", "failed").err
    assert plastic("runs", "remove", "--status", "completed", "--where", "rate=1", "--yes").code == 0
    store = RunStore(runs_folder)
    store.remove(store.run(other.id))
    assert listed() == []


def test_a_folder_that_does_not_exist_is_an_error(make_run):
    make_run()
    for words in (["runs"], ["runs", "show", "x"], ["runs", "remove", "x"], ["compare"], ["plot"]):
        outcome = plastic(*words, "--runs", "nowhere")
        assert (outcome.code, outcome.err) == (
            2,
            "error: there is no folder nowhere. Name the folder with your runs: --runs FOLDER.\n",
        )


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
    assert outcome.err == "10 older runs are not shown. Show more with --limit N, or all with --all.\n"
    assert plastic("runs", "--format", "markdown").out.count("\n") == 52


@pytest.mark.parametrize(("options", "begin"), [(["--all"], 0), (["--limit", 7], 53), (["--limit", 99], 0)])
def test_all_or_another_number_on_request(many, options, begin):
    outcome = plastic("runs", *options)
    assert shown(outcome) == many[begin:]
    assert (f"{begin} older runs are not shown" in outcome.err) == (begin > 0)


def test_programs_get_all_unless_they_ask_for_fewer(many):
    assert listed() == many
    assert len(plastic("runs", "--format", "csv").out.splitlines()) == 61
    assert listed("--limit", 3) == many[-3:]
    assert plastic("runs", "--json").err == ""


def test_the_newest_of_those_that_fit(many, make_run):
    other = make_run(rule="hebb").id
    assert listed("--rule", "hebb", "--limit", 5) == [other]
    assert "10 older runs" in plastic("runs", "--rule", "oja").err
    assert plastic("runs", "--rule", "hebb").err == ""


@pytest.mark.parametrize("options", [["--limit", 0], ["--limit", -1], ["--limit", 3, "--all"]])
def test_an_invalid_number_of_runs(many, options):
    outcome = plastic("runs", *options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: --limit {options[1]}: ")


def test_the_former_name_of_limit(many):
    assert listed("--last", 3) == many[-3:]


# --------------------------------------------------------------------------------------------- which runs, which order


@pytest.fixture
def several(make_run):
    """Five runs of two rules, by a short name."""
    return {
        "a": make_run(rule="oja", rate=0.1, hidden=[8], accuracy=0.5, seed=0).id,
        "b": make_run(rule="oja", rate=0.1, hidden=[8], accuracy=0.75, seed=1).id,
        "c": make_run(rule="oja", rate=0.2, hidden=[8, 4], accuracy=0.625, seed=0).id,
        "d": make_run(rule="hebb", rate=0.3, events="always", accuracy=0.25, seed=0).id,
        "e": make_run(rule="hebb", rate=0.3, events="always", accuracy=0.875, seed=0, status="failed").id,
    }


@pytest.mark.parametrize(
    ("options", "letters"),
    [
        (["--where", "rate=0.1"], "ab"),
        (["--where", "rate=0.1", "--where", "seed=1"], "b"),
        (["--where", "test/accuracy>=62.5%", "--status", "completed"], "bc"),
        (["--where", "hidden=8,4"], "c"),
        (["--where", "events!=never", "--where", "test/accuracy<0.5"], "d"),
        (["--sort", "test/accuracy"], "dacbe"),
        (["--sort", "-test/accuracy"], "ebcad"),
        (["--sort=-test/accuracy", "--limit", 2], "eb"),
        (["--sort", "events"], "deabc"),
        (["--sort", "hidden", "--where", "rule=oja"], "abc"),
        (["--sort", "-rate", "--rule", "oja"], "cab"),
        (["--limit", 2], "de"),
    ],
)
def test_which_runs_and_in_which_order(several, options, letters):
    assert listed(*options) == [several[letter] for letter in letters]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "rat=0.1"], "--where rat=0.1: no run has the option or the result 'rat'. Did you mean 'rate'?"),
        (["--where", "rate"], "--where rate: write NAME=VALUE"),
        (["--where", "rate=7"], "Values of rate here: 0.1, 0.2, 0.3."),
        (
            ["--sort", "-test/acuracy"],
            "--sort -test/acuracy: no run has the option or the result 'test/acuracy'. Did you mean 'test/acc",
        ),
        (["--rule", "hbeb"], "--rule hbeb: no run has it. Did you mean 'hebb'?"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(several, options, words):
    outcome = plastic("runs", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err


def test_runs_that_a_limit_leaves_out_of_a_sorted_list_are_not_older(several):
    assert plastic("runs", "--sort", "seed", "--limit", 4).err.startswith("1 more run is not shown.")


# -------------------------------------------------------------------------------------------------------- columns


def test_options_have_columns_where_they_differ_between_runs_of_a_rule(several):
    header = next(line for line in plastic("runs").out.splitlines() if line.split()[:1] == ["run"])
    assert header.split() == [
        "run",
        "rule",
        "data",
        "set",
        "status",
        "rate",
        "hidden",
        "seed",
        "test",
        "accuracy",
        "time",
    ]
    # What differs only between rules has none.
    for options in (["--rule", "hebb"], ["--where", "rate!=0.2"]):
        header = next(line for line in plastic("runs", *options).out.splitlines() if line.split()[:1] == ["run"])
        assert header.split() == ["run", "rule", "data", "set", "status", "seed", "test", "accuracy", "time"]
    rows = json.loads(plastic("runs", "--json").out)
    assert [row["config.rate"] for row in rows] == [0.1, 0.1, 0.2, 0.3, 0.3]
    assert rows[2]["config.hidden"] == [8, 4]
    assert "config.events" not in rows[0]


LONG = "a-long-name-of-a-sweep-over-the-number-of-perturbations-and-the-learning-rate"
STORES = {
    "one rule": [{"perturbations": count, "epochs": epochs} for count in (1, 128) for epochs in (2, 20)],
    "many options": [
        {"perturbations": count, "learning_rate": 0.001 * count, "hidden": [256] * count, "skip": count > 1,
         "activation": "top-k" if count > 1 else "relu", "batch_size": 2**count}
        for count in (1, 2, 3)
    ],
    "three rules": [
        {"rule": rule, "epochs": epochs, **more}
        for rule, more in (("backprop", {}), ("selective", {"plasticity_k": 2.0}), ("grlu", {"perturbations": 16}))
        for epochs in (2, 20)
    ],
    "long names": [{"name": f"{LONG}-seed{seed}", "epochs": 1 + seed, "perturbations": 16 * seed} for seed in (0, 1)],
    "names": [{"name": f"net{count}", "epochs": count} for count in (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("store", list(STORES))
def test_the_list_fits_a_terminal_and_no_id_is_broken(make_run, store, columns):
    ids = [make_run(**{"hidden": [8], **values}).id for values in STORES[store]]
    shown = run_in_terminal("runs", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    for run, values in zip(ids, STORES[store], strict=True):
        assert any(run in line.split() for line in shown.splitlines()), shown
        # A long name may go over several lines.
        assert values.get("name", "")[:14] in shown
    assert shown.count("50.00%") == len(ids)
    for name, value in STORES[store][0].items():
        if name not in ("rule", "name", "hidden", "skip"):
            assert name.replace("_", "-") in shown
            assert str(value) in shown


def test_a_narrow_terminal_says_once_what_all_runs_share(make_run):
    for count in (1, 2, 3):
        make_run(perturbations=count, seed=4)
    shown = run_in_terminal("runs", columns=70)
    assert "3 runs of oja on digits, completed, seed 4" in shown
    assert shown.count("completed") == 1
    assert "3 runs" not in run_in_terminal("runs", columns=110)


def test_runs_with_several_main_metrics_say_which(make_run):
    make_run()
    other = make_run(rule="agent")
    record = json.loads((other.folder / "run.json").read_text())
    (other.folder / "run.json").write_text(json.dumps({**record, "summary": {"test/return": 12.5}}))
    lines = plastic("runs").out.splitlines()
    assert any("50.00%  test accuracy" in line for line in lines)
    assert any("12.50  test return" in line for line in lines)


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
