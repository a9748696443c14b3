"""What the steps of a recipe computed, over seeds and as pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import imageio.v3 as imageio
import numpy as np
import pytest
from scipy import stats

from plastic_cli.reports.content import read_content
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.options import ReportOptions, Sources
from plastic_cli.reports.steps import (
    LARGEST_FIGURE,
    MOST_RESULTS,
    StepOnRun,
    step_figures,
    steps_frame,
    steps_tables,
    with_settings,
)
from plastic_cli.reports.write import write_page, write_tables
from plastic_cli.runs.console import Console
from plastic_cli.runs.store import RunStore
from plastic_cli.tables import markdown

STEP = StepOnRun("local", "eglp", "digits", 0, "eval", Path("run"), {"test/accuracy": 0.5}, ())


def over_seeds(*values, **fields):
    return [replace(STEP, seed=seed, results={"test/accuracy": value}, **fields) for seed, value in enumerate(values)]


def test_the_mean_and_its_interval_are_those_of_the_seeds():
    values = [0.91, 0.87, 0.93, 0.9]
    frame = steps_frame(over_seeds(*values))
    (row,) = frame.to_dict("records")
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    assert row["mean"] == pytest.approx(fmean(values), abs=1e-15)
    assert (row["low"], row["high"]) == pytest.approx((fmean(values) - half, fmean(values) + half), abs=1e-12)
    assert (row["n"], row["sd"]) == (4, pytest.approx(stdev(values)))
    assert (row["setting"], row["rule"], row["dataset"], row["step"]) == ("local", "eglp", "digits", "eval")


def test_each_setting_and_step_has_its_own_rows_in_the_order_of_the_recipe():
    steps = over_seeds(0.5, 0.6) + over_seeds(0.7, setting="other") + over_seeds(0.8, step="eval --split train")
    frame = steps_frame([*steps[::-1], replace(STEP, seed=9, results={"test/loss": 1.0})])
    assert list(zip(frame["setting"], frame["step"], frame["metric"], frame["n"], strict=True)) == [
        ("local", "eval --split train", "test/accuracy", 1),
        ("other", "eval", "test/accuracy", 1),
        ("local", "eval", "test/accuracy", 2),
        ("local", "eval", "test/loss", 1),
    ]


def test_a_value_that_is_not_finite_does_not_count():
    (row,) = steps_frame(over_seeds(0.5, None, 0.7)).to_dict("records")
    assert (row["n"], row["mean"]) == (2, pytest.approx(0.6))


def test_a_reader_sees_one_row_for_each_setting_and_one_column_for_each_result():
    steps = over_seeds(0.5, 0.6, 0.7) + over_seeds(0.8, setting="other")
    steps += [replace(STEP, seed=seed, setting="other", results={"clean:0/accuracy": 0.25}) for seed in (0, 1)]
    (table,) = steps_tables(steps, NumberStyle())
    text = markdown(table)
    assert "### eval" in text
    assert "| setting | rule | data set | n | test accuracy (%) | accuracy, clean (%) |" in text
    assert "| local | eglp | digits | 3 | 60.00 [35.16, 84.84] | \N{EN DASH} |" in text
    assert "| other | eglp | digits | 2 | 80.00 | 25.00 |" in text
    assert "| 0.6000 [0.3516, 0.8484] |" in markdown(steps_tables(steps[:3], NumberStyle(percent=False))[0])


def test_each_step_has_its_tables_and_all_results_are_in_one_of_them():
    many = {f"layer {number}/probe": number / 20 for number in range(12)}
    steps = [*over_seeds(0.5), replace(STEP, step="analyze --probe", results=many)]
    tables = steps_tables(steps, NumberStyle())
    assert [table.title for table in tables] == ["eval", *(f"analyze --probe ({number} of 3)" for number in (1, 2, 3))]
    shown = [cell.value for table in tables[1:] for cell in table.rows[0][4:]]
    assert shown == list(many.values())
    assert max(len(table.columns) for table in tables) == 4 + MOST_RESULTS


def test_settings_have_the_names_of_the_table_of_results():
    named = with_settings([STEP, replace(STEP, folder=Path("store/other"))], {"run": "perturbations = 16"})
    assert [step.setting for step in named] == ["perturbations = 16", "local"]


@pytest.fixture
def drawn(tmp_path):
    """Two seeds of a step; the second has a picture of 4 x 2 pixels, and one that is missing."""
    (tmp_path / "figures").mkdir()
    imageio.imwrite(tmp_path / "figures/probe.png", np.zeros((2, 4), np.uint8))
    (tmp_path / "figures/probe.svg").write_text("<svg><desc id='d'>Vertical: a &lt;b&gt;.</desc></svg>")
    files = ["tables/probe.csv", "figures/probe.png", "figures/probe.svg", "figures/gone.png"]
    return [STEP, replace(STEP, seed=1, folder=tmp_path, files=files)]


def test_pictures_are_those_of_the_first_seed_that_has_some(drawn, tmp_path):
    later = replace(drawn[1], seed=2)
    (figure,) = step_figures([later, *drawn])
    assert (figure.title, figure.subtitle, figure.wide) == ("local: probe", "eval, seed 1", True)
    assert figure.description == "Vertical: a <b>."
    assert 'alt="Vertical: a &lt;b&gt;."' in figure.svg
    (tmp_path / "figures/probe.svg").unlink()
    (figure,) = step_figures(drawn)
    assert figure.description == f"The picture probe of run {tmp_path.name}."
    with (tmp_path / "figures/probe.png").open("ab") as stream:
        stream.truncate(LARGEST_FIGURE + 1)
    assert list(step_figures(drawn)) == []


def test_the_report_has_a_section_and_files_of_the_steps(drawn, train, tmp_path):
    folder = train()
    options = ReportOptions(output=tmp_path / "out", html=tmp_path / "out")
    content = read_content(RunStore(folder.parent).runs(), options, {}, Console(quiet=True))
    steps = (*drawn, replace(STEP, setting="<script>alert(1)</script>"))
    sources = Sources({}, lambda _: None, {})
    page = write_page(tmp_path / "out", replace(content, steps=steps), {}, sources, Console(quiet=True)).read_text()
    assert '<section id="steps">' in page
    assert "data:image/png;base64," in page
    assert "<script>alert" not in page
    write_tables(tmp_path / "out", replace(content, steps=steps), options)
    assert (
        (tmp_path / "out/steps.csv").read_text().splitlines()[1].startswith("local,eglp,digits,eval,test/accuracy,0.5")
    )
    assert {path.name for path in (tmp_path / "out").glob("steps.*")} == {"steps.csv", "steps.md", "steps.tex"}
    assert '<section id="steps">' not in write_page(tmp_path, content, {}, sources, Console(quiet=True)).read_text()
