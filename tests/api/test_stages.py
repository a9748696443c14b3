"""Eval, analyze and render from Python return what the shell prints and writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plotnine import ggplot

import plastic_cli as plastic
from plastic_cli.testing import plastic as shell


@pytest.fixture
def run():
    return plastic.train("backprop", epochs=2, hidden="8", name="mine", quiet=True)


def test_evaluate_returns_the_metrics_of_the_shell(run):
    mine = plastic.evaluate(run, corruption=["gaussian-noise:0.3"])
    outcome = shell("eval", "backprop", "--run", "mine", "--corruption", "gaussian-noise:0.3", "--json")
    assert mine == json.loads(outcome.out)["metrics"]
    assert plastic.evaluate(run)["test/accuracy"] == run.results["test/accuracy"]


def test_a_run_is_named_by_id_name_or_folder(run):
    results = [plastic.evaluate(named) for named in (run, run.id, "mine", str(run.folder))]
    assert results == [results[0]] * 4
    assert plastic.evaluate("mine", runs=run.folder.parent) == results[0]


def test_analyze_returns_tables_and_figures(run):
    analysis = plastic.analyze(run, probe=True, confusion=True)
    assert isinstance(analysis.tables["probe"], pd.DataFrame)
    assert isinstance(analysis.figures["probe"], ggplot)
    assert all(path.is_file() for path in analysis.files)
    stored = pd.read_csv(run.folder / "tables" / "probe.csv")
    pd.testing.assert_frame_equal(analysis.tables["probe"].reset_index(drop=True), stored, check_dtype=False)
    pd.testing.assert_frame_equal(run.tables["probe"], stored)
    assert "probe" in repr(analysis)
    assert "<table" in analysis._repr_html_()


def test_render_returns_a_path_that_shows_itself(run):
    film = plastic.render(run)
    assert isinstance(film, Path)
    assert film.is_file()
    assert film.suffix == ".gif"
    assert 'src="data:image/gif;base64,' in film._repr_html_()


def test_render_returns_the_file_that_was_chosen(run, tmp_path):
    film = plastic.render(run, output=tmp_path / "film.gif")
    assert film == tmp_path / "film.gif"
    assert film.read_bytes().startswith(b"GIF89a")
    assert plastic.render(run, output=str(tmp_path / "picture.png")).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"the name must end with \.gif"):
        plastic.render(run, output="film.avi")
    with pytest.raises(ValueError, match="there is no option 'output'"):
        plastic.evaluate(run, output="film.gif")


def test_nothing_is_printed(run, capfd):
    plastic.evaluate(run)
    plastic.analyze(run)
    plastic.render(run)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: plastic.evaluate("nothing"), "there is no run 'nothing'"),
        (
            lambda run: plastic.evaluate(run, corruptio=["x"]),
            "there is no option 'corruptio'. Did you mean 'corruption'?",
        ),
        (lambda run: plastic.evaluate(run, split="tests"), "--split tests: "),
        (lambda run: plastic.evaluate(run, run="mine"), "run"),
        (lambda run: plastic.analyze(run, other="mine"), "--other mine does nothing"),
        (lambda run: plastic.evaluate(run, dataset="digit"), "Did you mean 'digits'?"),
    ],
)
def test_a_wrong_option_is_a_value_error(call, words, run):
    with pytest.raises((ValueError, TypeError), match=r".") as caught:
        call(run)
    assert words in str(caught.value)


def test_a_warning_is_a_python_warning(run):
    record = json.loads((run.folder / "run.json").read_text())
    record["data"]["checksum"] = "0" * 64
    (run.folder / "run.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="differs from the one"):
        plastic.evaluate(run)


def test_a_wrong_option_of_load_is_a_value_error(run):
    with pytest.raises(ValueError, match=r"load: there is no option 'checkpoin'\. backprop has no options here\."):
        run.load(checkpoin="last")
    agent = plastic.train(
        "mpn", episodes=2, hidden=4, evaluate_every=1, evaluation_episodes=1, test_episodes=1, quiet=True
    )
    with pytest.raises(ValueError, match=r"Did you mean 'checkpoint'\? The options are checkpoint\."):
        agent.load(checkpoin="last")
    assert agent.load(checkpoint="last").training is False


@pytest.mark.parametrize("function", [plastic.evaluate, plastic.analyze, plastic.render, plastic.plot, plastic.report])
@pytest.mark.parametrize("given", [3, [None], object()])
def test_what_is_not_a_run_is_a_value_error(function, given):
    with pytest.raises(ValueError, match="is not a run"):
        function(given)


@pytest.mark.parametrize("function", [plastic.evaluate, plastic.analyze, plastic.render, plastic.plot])
def test_a_missing_folder_is_a_value_error(function, tmp_path):
    with pytest.raises(ValueError, match="there is no run in"):
        function(tmp_path / "nothing")


def test_a_run_is_named_by_a_text_or_a_path(run):
    stored = plastic.StoredRun(str(run.folder))
    assert stored == run
    assert plastic.report(stored).runs["run"].tolist() == [run.id]
    assert plastic.report([run.id]).runs["run"].tolist() == [run.id]
    assert plastic.train(run.rule, resume=run.folder) == run
    assert plastic.RunStore().run(run.id) == run


def test_a_deleted_run_is_not_left_out_of_a_report(run, tmp_path):
    copied = tmp_path / "copies" / run.id
    shutil.copytree(run.folder, copied)
    gone = plastic.StoredRun(copied)
    shutil.rmtree(copied)
    for call in (lambda: plastic.report([gone]), gone.metrics, gone.load, lambda: plastic.plot(gone)):
        with pytest.raises(ValueError, match="is not a run"):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"log": "z"}, "--log z"),
        ({"width": -1}, "--width -1"),
        ({"width": "wide"}, "--width wide"),
        ({"smooth": 0}, "--smooth 0"),
        ({"x_range": 3}, "--x-range 3: it should be text."),
        ({"metric": 3}, "--metric 3: it should be text."),
        ({"widht": 3}, "there is no option 'widht'. Did you mean 'width'?"),
    ],
)
def test_a_wrong_option_of_a_figure_is_a_value_error(options, words, run):
    for draw in (run.plot, lambda **given: plastic.plot(run, **given)):
        with pytest.raises(ValueError, match=re.escape(words)):
            draw(**options)


def test_ranges_may_be_arrays(run):
    for draw in (run.plot, lambda *given, **view: plastic.plot(run, *given, **view)):
        figure = draw("test/accuracy", x_range=np.array([0, 1]), y_range=(None, 1))
        assert figure.draw() is not None


def test_a_damaged_line_of_the_metrics_is_a_warning(run, tmp_path):
    copied = tmp_path / run.id
    shutil.copytree(run.folder, copied)
    with (copied / "metrics.jsonl").open("a") as stream:
        stream.write("{\n")
    stored = plastic.StoredRun(copied)
    with pytest.warns(UserWarning, match="1 damaged line is left out"):
        assert len(stored.metrics()) == len(run.metrics())
    with pytest.raises(ValueError, match="there is no stage 'trian'"):
        run.metrics("trian")


def test_the_working_folder_may_change(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder.parent.parent)
    store = plastic.RunStore(run.folder.parent.name)
    report = plastic.report(run.folder.parent.name)
    monkeypatch.chdir(tmp_path)
    assert run.id in store.runs()["run"].tolist()
    assert report.figures
