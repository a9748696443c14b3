"""`plastic compare` and `plastic.compare`: runs that were really trained."""

import csv
import io
import json
from pathlib import Path

import pytest

import plastic_cli as plastic
from plastic_cli.reports.side_tables import MINUS
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


def test_csv_holds_the_results(runs):
    rows = list(csv.DictReader(io.StringIO(command("compare", "--format", "csv").out)))
    assert {row["setting"] for row in rows} == {"A", "B"}
    assert rows[1]["pairs"] == "2"


def test_markdown_holds_all_tables(runs):
    out = command("compare", "--format", "markdown").out
    assert out.count("| --- |") + out.count("| ---: |") >= 3


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
        (["--where", "batch-size=8", "--where", "seed=0"], "name at least two runs to compare"),
        (["--output", "c.png", "--metric", "test/acuracy"], "Did you mean 'test/accuracy'?"),
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
    with pytest.raises(ValueError, match="at least two runs"):
        plastic.compare(stored[0])
