"""The report in Python says what the shell prints, and its tables go into papers."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

import plastic_cli as plastic
from plastic_cli.testing import plastic as shell_plastic
from reports.report_frames import grlu_experiments, run_row
from reports.stores import write_store


@pytest.fixture
def store(tmp_path):
    runs, metrics = grlu_experiments(seeds=3)
    write_store(tmp_path / "store", runs, metrics)
    return tmp_path / "store"


def test_python_and_the_shell_report_the_same(store):
    made = plastic.report(store, rule="grlu")
    shell = json.loads(shell_plastic("report", "--runs", str(store), "--rule", "grlu", "--json").out)
    assert [row["mean"] for row in shell["results"]] == made.results["mean"].tolist()
    assert [row["verdict"] for row in shell["claims"]] == made.claims["verdict"].tolist()
    options = [
        "--columns",
        "rule,n,test/accuracy",
        "--sd",
        "--digits",
        "1",
        "--caption",
        "A 5% gain",
        "--label",
        "tab:x",
    ]
    latex = shell_plastic("report", "--runs", str(store), "--format", "latex", *options).out
    columns = ["rule", "n", "test/accuracy"]
    mine = plastic.report(store).latex(columns=columns, sd=True, digits=1, caption="A 5% gain", label="tab:x")
    assert latex == mine
    assert r"\caption{A 5\% gain}" in mine
    assert r"\label{tab:x}" in mine
    assert r"Rule & $n$ & Test accuracy (\%) \\" in mine
    assert r"backprop & 3 & $97." in mine
    # Options of the report are those of its tables.
    assert (
        plastic.report(store, columns="rule,n,test/accuracy", sd=True, digits=1).latex(
            caption="A 5% gain", label="tab:x"
        )
        == mine
    )


def test_the_frames_have_words_as_columns(store):
    made = plastic.report(store)
    assert made.results.columns[:9].tolist() == [
        "rule", "dataset", "data_note", "setting", "source", "seeds", "failed", "repeated", "metric",
    ]  # fmt: skip
    assert {"mean", "low", "high", "n", "sd"} <= set(made.results.columns)
    assert made.results["sd"].between(0, 0.01).all()
    assert len(made.comparisons) == 5
    assert len(made.improvements) == 10
    assert len(made.runs) == 15


def test_a_report_shows_itself(store):
    text = repr(plastic.report(store))
    assert text.startswith("Report on 15 runs of backprop, grlu\nsee .results")
    assert max(map(len, text.splitlines())) <= 80
    assert "97.7" in text
    html = plastic.report(store)._repr_html_()
    assert "<table>" in html
    assert "test accuracy (%)" in html


def test_a_long_report_shows_its_first_rows(tmp_path):
    rows = pd.DataFrame([run_row(i, accuracy=i / 100, rate=float(i)) for i in range(30)])
    write_store(tmp_path / "store", rows, pd.DataFrame(columns=["run", "labels"]))
    text = repr(plastic.report(tmp_path / "store"))
    assert "10 more rows are in .results." in " ".join(text.split())
    assert "One seed each, so there is no interval." in " ".join(text.split())


def test_some_runs_can_be_reported(store):
    chosen = [plastic.RunStore(store).run(f"r{number:05d}") for number in (0, 1, 14)]
    made = plastic.report(chosen)
    assert made.runs["run"].tolist() == ["r00000", "r00001", "r00014"]
    assert made.results["rule"].tolist() == ["backprop", "grlu"]


def test_markdown_text_and_other_tables(store):
    made = plastic.report(store)
    assert made.markdown(percent=False).count("| grlu |") == 4
    assert "0.92" in made.markdown(percent=False)
    assert "Interquartile means" in made.text("comparisons", width=100)
    assert made.text(columns=["rule", "perturbations"]).splitlines()[2].split() == ["rule", "perturbations"]
    assert "Published claims" in made.markdown("claims", caption=None)


def test_files_are_written(store, tmp_path):
    made = plastic.report(store)
    folder = made.write(tmp_path / "paper")
    assert {"table.tex", "claims.md", "comparisons.csv"} <= {path.name for path in folder.iterdir()}
    page = made.html(tmp_path / "page")
    assert page.read_text().startswith("<!")
    assert "learning-curves-test-accuracy" in made.figures
    # It is a plotnine figure, which can be changed.
    assert made.figures["learning-curves-test-accuracy"].data is not None


def test_the_options_of_files_write_them(store, tmp_path, capfd):
    plastic.report(store, output=tmp_path / "out", html=tmp_path / "page")
    assert (tmp_path / "out" / "table.tex").exists()
    assert (tmp_path / "page" / "index.html").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "grul"}, "--rule grul: no run has it. Did you mean 'grlu'?"),
        ({"digit": 2}, "there is no option 'digit'. Did you mean 'digits'?"),
        ({"digits": -1}, "--digits -1"),
        ({"columns": ["rule", "test/acuracy"]}, "Did you mean 'test/accuracy'?"),
        ({"label": "a{b"}, "a label has letters"),
        ({"compare": True, "columns": ["rule"]}, "--columns is for one table"),
        ({"format": "latex"}, "there is no option 'format'"),
    ],
)
def test_wrong_options_are_errors_with_the_words_of_the_shell(store, options, message):
    with pytest.raises(ValueError, match=r"."):
        plastic.report(store, **options)
    with pytest.raises(plastic.UserError) as caught:
        plastic.report(store, **options)
    assert message in str(caught.value)


def test_wrong_arguments_of_a_table_are_errors(store):
    made = plastic.report(store)
    with pytest.raises(plastic.UserError, match="there is no table 'result'"):
        made.latex("result")
    with pytest.raises(plastic.UserError, match="there is no option 'color'"):
        made.latex(color="red")
    with pytest.raises(plastic.UserError, match="no columns to choose"):
        made.latex("comparisons", columns=["rule"])
    with pytest.raises(plastic.UserError, match="is not a run"):
        plastic.report([1, 2])


def test_an_empty_report_is_no_error(tmp_path):
    (tmp_path / "store").mkdir()
    made = plastic.report(tmp_path / "store")
    assert repr(made).startswith("Report: no run in ")
    assert len(made.results) == len(made.comparisons) == 0
    assert made.figures == {}


def test_importing_the_function_imports_neither_pandas_nor_plotnine():
    heavy = ("pandas", "plotnine", "torch")
    code = f"import sys, plastic_cli; plastic_cli.report; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
