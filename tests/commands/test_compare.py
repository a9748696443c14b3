"""`plastic compare` and `plastic.compare`: runs that were really trained."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

import plastic_cli as plastic
from plastic_cli.reports.side_tables import MINUS
from plastic_cli.runs import reference as module
from plastic_cli.runs.record import read_record, settings_text
from plastic_cli.runs.reference import write_reference
from plastic_cli.testing import plastic as command


@pytest.fixture
def runs(train):
    return [train("--seed", seed, "--batch-size", size, epochs=2) for size in (8, 16) for seed in (0, 1)]


def test_a_person_sees_options_results_and_what_is_the_same(runs):
    done = command("compare", runs[0].name, runs[2].name)
    assert done.code == 0, done.err
    for text in (
        "batch-size",
        "test accuracy",
        f"B {MINUS} A",
        "Each setting has one run",
        "The same in all settings: versions",
    ):
        assert text in done.out
    assert runs[2].name in done.out


def test_without_names_all_completed_runs_are_compared(runs):
    done = command("compare", "--json")
    read = json.loads(done.out)
    assert [entry["seeds"] for entry in read["settings"]] == [[0, 1], [0, 1]]
    assert read["options"] == [{"option": "batch_size", "A": 8, "B": 16, "default": 64}]


def test_several_rules_are_compared(runs, train):
    plastic.train("eglp", epochs=1, hidden=8, quiet=True)
    plastic.train("grlu", epochs=1, hidden=8, quiet=True)

    def rules(*options):
        done = command("compare", *options, "--json")
        assert done.code == 0, done.err
        return {entry["title"].partition(" ")[0] for entry in json.loads(done.out)["settings"]}

    assert rules("--rule", "eglp", "--rule", "backprop") == {"eglp", "backprop"}
    assert rules() == {"eglp", "backprop", "grlu"}
    found = plastic.report(rule=["eglp", "backprop"]).results
    assert set(found["rule"]) == {"eglp", "backprop"}


def test_differences_are_taken_from_the_baseline(runs, train):
    def settings_and_differences(*options):
        done = command("compare", *options, "--json")
        assert done.code == 0, done.err
        read = json.loads(done.out)
        found = {row["setting"]: row["difference"] for row in read["results"] if row["metric"] == "test/accuracy"}
        return [entry["runs"] for entry in read["settings"]], found

    small, large = [runs[0].name, runs[1].name], [runs[2].name, runs[3].name]
    sides, differences = settings_and_differences()
    assert sides == [small, large]
    turned, other = settings_and_differences("--baseline", runs[3].name)
    assert turned == [large, small]
    assert (differences["A"], other["A"]) == (None, None)
    assert other["B"] == pytest.approx(-differences["B"])
    assert differences["B"] != 0

    # A run that a newer one of its seed replaces is a baseline too.
    train("--seed", 1, "--batch-size", 16)
    again, _ = settings_and_differences("--baseline", runs[3].name)
    assert again[0][0] == large[0]

    # A baseline that the other options leave out is added, with all runs of its name.
    for seed in (0, 1):
        train("--seed", seed, "--batch-size", 32, "--name", f"wide-seed{seed}")
    added, _ = settings_and_differences("--where", "batch-size=8", "--baseline", "wide")
    assert [len(side) for side in added] == [2, 2]
    assert added[1] == small


def test_one_table_is_printed_in_every_format(runs):
    def out(*options):
        done = command("compare", "--table", *options)
        assert done.code == 0, done.err
        return done.out

    assert "batch-size" in out("options")
    assert "test accuracy" not in out("options")
    assert out("options", "--format", "latex").count(r"\begin{tabular}") == 1
    assert out("results", "--format", "markdown").count("| result |") == 1
    assert [*csv.DictReader(io.StringIO(out("options", "--format", "csv")))] == [
        {"option": "batch_size", "A": "8", "B": "16", "default": "64"}
    ]
    assert {*json.loads(out("settings", "--json"))} == {"settings"}
    (first, _) = csv.DictReader(io.StringIO(out("settings", "--format", "csv")))
    assert (first["runs"], first["seeds"]) == (f"{runs[0].name} {runs[1].name}", "0 1")
    # Alone, a table says what the settings are.
    assert "A: backprop on" in " ".join(out("results").split())
    assert "B: backprop on" in out("options", "--format", "latex")
    assert {row["title"] for row in csv.DictReader(io.StringIO(out("results", "--format", "csv")))} == {
        entry["title"] for entry in json.loads(out("settings", "--json"))["settings"]
    }
    empty = command("compare", "--table", "circumstances")
    assert (empty.code, empty.out) == (0, "")
    assert "the table circumstances is empty" in empty.err


def test_no_percent_sign_begins_a_comment_of_latex(runs):
    text = command("compare", "--format", "latex").out
    rows = text[text.index(r"\begin{tabular}") :].splitlines()
    inside = [line for line in rows if line.endswith(r" \\")]
    assert any(r"\%" in line for line in inside)
    assert not any(re.search(r"(?<!\\)%", line) for line in inside)


def test_from_python_the_baseline_and_the_tables_are_chosen(runs):
    small, large = [folder.name for folder in runs[:2]], [folder.name for folder in runs[2:]]
    plain, turned = plastic.compare(small, large), plastic.compare(small, large, baseline=large[0])
    assert [[record.run for record in side.records] for side in turned.sides] == [large, small]
    assert turned.results["difference"].dropna().tolist() == pytest.approx(
        (-plain.results["difference"].dropna()).tolist()
    )
    assert turned.latex().count(r"\begin{tabular}") == 1
    assert "| option |" in turned.markdown("options")
    assert turned.latex("circumstances") == ""
    with pytest.raises(ValueError, match="there is no other run to compare it with"):
        plastic.compare(small[0], baseline=small[0])
    with pytest.raises(ValueError, match=r"there is no table 'result' of a comparison\. Did you mean 'results'"):
        turned.latex("result")


def test_the_name_of_several_seeds_means_all_of_them(train):
    for seed in (0, 1, 2):
        train("--seed", seed, "--name", f"mine-seed{seed}")
        train("--seed", seed, "--batch-size", 16, "--name", f"wide-seed{seed}")
    assert [side.seeds for side in plastic.compare("mine", "wide").sides] == [(0, 1, 2), (0, 1, 2)]


def test_csv_holds_the_results(runs):
    rows = list(csv.DictReader(io.StringIO(command("compare", "--format", "csv").out)))
    assert {row["setting"] for row in rows} == {"A", "B"}
    assert rows[1]["pairs"] == "2"


def test_markdown_holds_all_tables(runs):
    out = command("compare", "--format", "markdown").out
    assert out.count("| --- |") + out.count("| ---: |") >= 3


def test_latex_holds_all_tables_with_labels_of_their_own(runs):
    for names in ([], [runs[0].name]):
        done = command("compare", *names, "--format", "latex")
        assert done.code == 0, done.err
        labels = re.findall(r"\\label\{(.*?)\}", done.out)
        assert len(labels) == len(set(labels)) == done.out.count(r"\begin{tabular}")
        assert ("tab:reference-compared-with-the-reference" if names else "tab:compare-results") in labels
        assert "U+" not in done.out, "a sign that LaTeX cannot show"


@pytest.mark.parametrize(
    ("name", "begin"), [("c.html", b"<!DOCTYPE html>"), ("c.svg", b"<?xml"), ("c.png", b"\x89PNG")]
)
def test_the_output_is_a_page_or_a_figure(runs, name, begin):
    metric = () if name == "c.html" else ("--metric", "test/loss")
    done = command("compare", "--output", f"out/{name}", *metric)
    assert done.code == 0, done.err
    assert Path("out", name).read_bytes().startswith(begin)
    assert f"wrote out/{name}" in done.err
    assert "test accuracy" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--log", "y"], "--log does nothing without --output FILE.png, .svg or .pdf. Leave it out."),
        (["--metric", "test/loss", "--output", "c.html"], "--metric does nothing without --output FILE.png"),
        (["--output", "c.gif"], "the name must end with .html, .png, .svg or .pdf"),
        (["--where", "batch-size=8", "--where", "seed=0", "--output", "c.png"], "one run has no curves to compare"),
        (["--output", "c.png", "--metric", "test/acuracy"], "Did you mean 'test/accuracy'?"),
        (["--table", "controls"], "this comparison has no such table. It has settings, options, results"),
        (["--baseline", "nothing"], "there is no run 'nothing'"),
        (
            ["--baseline", "backprop"],
            "'backprop', which is a rule: name one of its runs",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error_of_one_line(runs, options, words):
    done = command("compare", *options)
    assert done.code == 2
    assert words in done.err.splitlines()[-1]
    assert not Path("c.png").exists()


def test_from_python_the_comparison_holds_frames_and_figures(runs, runs_folder):
    stored = [plastic.RunStore(runs_folder).run(folder.name) for folder in runs]
    comparison = plastic.compare(stored[:2], stored[2:])
    assert isinstance(comparison, plastic.Comparison)
    assert comparison.options.loc["batch_size"].tolist() == [8, 16, 64]
    assert set(comparison.results["setting"]) == {"A", "B"}
    assert comparison.figure("test/loss").labels.title == "Test loss"
    assert "batch-size" in repr(comparison)
    assert plastic.compare(runs_folder).results.equals(comparison.results)
    assert comparison.standing is None, "two settings"
    assert isinstance(plastic.compare(stored[0]), plastic.Standing)


# --------------------------------------------------------------------------------------------- with the reference


@pytest.fixture
def reference(train, runs_folder, tmp_path, monkeypatch):
    """Four seeds in the reference, and the folders of two own runs: one of these seeds, and another one."""
    measured = [train("--seed", seed, "--batch-size", 8, "--runs", tmp_path / "measured") for seed in (0, 1, 2, 3)]
    texts = {settings_text(record.rule, record.config) for record in map(read_record, measured)}
    write_reference(plastic.RunStore(tmp_path / "measured"), tmp_path / "reference", {"a-recipe": texts})
    monkeypatch.setattr(module, "reference_folder", lambda: tmp_path / "reference")
    return [train("--seed", seed, "--batch-size", 8) for seed in (0, 9)]


def test_one_run_is_compared_with_the_reference(reference):
    repeated, further = (command("compare", folder.name) for folder in reference)
    assert (repeated.code, further.code) == (0, 0), repeated.err
    assert "Seed 0 is in the reference: all results are equal to the bit." in " ".join(repeated.out.split())
    for text in ("Compared with the reference", "the same setting", "test accuracy (%)", "position"):
        assert text in further.out
    assert "equal to the bit" not in further.out


def test_the_standing_is_printed_for_programs_too(reference):
    name = reference[1].name
    read = json.loads(command("compare", name, "--json").out)
    assert {*read} == {"runs", "results", "means", "repeats", "paired", "nearest", "controls", "published", "notes"}
    rows = list(csv.DictReader(io.StringIO(command("compare", name, "--format", "csv").out)))
    assert [row["metric"] for row in rows][:1] == ["test/accuracy"]
    controls = command("compare", name, "--table", "controls", "--json")
    assert json.loads(controls.out) == {"controls": read["controls"]}
    (refused, alone) = (command("compare", name, *each) for each in (["--table", "options"], ["--baseline", name]))
    assert (refused.code, alone.code) == (2, 2)
    assert "It has results, nearest, controls, published." in refused.err
    assert "no other run is chosen" in alone.err
    assert {row["n"] for row in rows} == {"4"}
    assert [row["position"] for row in rows] == [row["position"] for row in read["results"]]
    assert command("compare", name, "--format", "markdown").out.count("### ") >= 2
    assert command("compare", name, "--output", "page.html").code == 0
    assert Path("page.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_of_several_seeds_the_mean_is_compared_too(reference):
    done = command("compare", *(folder.name for folder in reference))
    assert done.code == 0, done.err
    assert "mean of 2 runs" in done.out
    assert "Seed 0 is in the reference" in " ".join(done.out.split())
    read = json.loads(command("compare", *(folder.name for folder in reference), "--json").out)
    assert read["reference"]["means"][0]["runs"] == 2
    assert len(plastic.compare(reference).standing.means) == len(read["reference"]["means"])


def test_a_damaged_reference_is_one_line_and_does_not_stop_other_comparisons(reference, tmp_path):
    names = [folder.name for folder in reference]
    (tmp_path / "reference" / "runs.parquet").write_bytes(b"PAR1")
    module._read_reference.cache_clear()
    done = command("compare", names[0])
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "cannot read the reference" in done.err
    several = command("compare", *names)
    assert several.code == 0
    assert "cannot read the reference" in several.err


def test_a_run_that_is_not_completed_is_one_line(reference):
    folder = reference[1]
    record = read_record(folder)
    record.status = "interrupted"
    record.write(folder)
    done = command("compare", folder.name)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "is not completed (interrupted)" in done.err
