"""What a notebook shows: progress that replaces itself, and HTML of runs and stores."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

import plastic_cli as plastic
from plastic_cli.api.console import NotebookBar, PythonConsole, in_notebook


class Handle:
    """Stands for the output of a cell."""

    shown: ClassVar[list[str]] = []

    def update(self, data, *, raw):
        assert raw
        Handle.shown.append(data["text/html"])


@pytest.fixture
def notebook(monkeypatch):
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    display = ModuleType("IPython.display")
    display.display = lambda data, *, raw, display_id: Handle()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(Handle, "shown", [])
    return Handle.shown


def test_a_program_is_not_a_notebook():
    assert not in_notebook()


def test_a_terminal_of_ipython_is_not_a_notebook(monkeypatch):
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not in_notebook()


def test_training_shows_a_bar_in_a_notebook(notebook, capfd):
    plastic.train("backprop", epochs=3, hidden="8")
    assert '<progress value="3.0" max="3"></progress>' in notebook[-1]
    assert "epoch 3/3" in notebook[-1]
    assert "accuracy" in notebook[-1]
    assert capfd.readouterr().err == ""


def test_bars_of_several_runs_say_rule_and_seed(notebook, monkeypatch):
    monkeypatch.setattr("plastic_cli.api.console.UPDATE_SECONDS", 0.0)
    plastic.train("backprop", epochs=1, hidden="8", seeds=2)
    text = "\n".join(notebook)
    assert "backprop, seed 0: epoch 1/1" in text
    assert "backprop, seed 1: epoch 1/1" in text


def test_a_quiet_run_shows_nothing(notebook):
    plastic.train("backprop", epochs=1, hidden="8", quiet=True)
    assert notebook == []


def test_the_bar_estimates_the_time_left(notebook, monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 30.0, 40.0])
    monkeypatch.setattr("plastic_cli.api.console.time.monotonic", lambda: next(clock))
    bar = NotebookBar("epoch", 4, 0)
    bar.within_step(0.5)
    assert "10 s, 70 s left" in notebook[-1]
    bar.end_step(1, {"test/accuracy": 0.5, "test/other": 1.0, "train/loss": None})
    assert "30 s, 90 s left" in notebook[-1]
    assert "accuracy" in notebook[-1]
    bar.close()
    assert 'value="1.0"' in notebook[-1]


def test_a_notice_of_waiting_goes_away(notebook):
    with PythonConsole().working("compiling <kernels>"):
        assert notebook[-1] == "compiling &lt;kernels&gt;"
    assert notebook[-1] == ""


def test_runs_and_stores_describe_themselves():
    run = plastic.train("backprop", epochs=1, hidden="8", name="a<b>".replace("<", "-").replace(">", ""), quiet=True)
    accuracy = f"test/accuracy {run.results['test/accuracy']:.4g}"
    assert repr(run) == f"<StoredRun {run.id} (a-b): backprop on digits, seed 0, completed, {accuracy}>"
    text = run._repr_html_()
    assert run.id in text
    assert "test/accuracy" in text
    store = plastic.RunStore("runs")
    assert repr(store) == f"<RunStore {store.folder}: 1 run (1 completed)>"
    assert run.id in store._repr_html_()


def test_a_damaged_run_describes_its_fault(runs_folder):
    folder = runs_folder / "x"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("<script>")
    run = plastic.StoredRun(folder)
    assert "cannot read" in repr(run)
    assert "<script>" not in run._repr_html_()
    assert repr(plastic.RunStore(runs_folder)).startswith("<RunStore")


def test_the_text_of_a_table_draws_nothing_into_the_cell(notebook, monkeypatch):
    """In a notebook, rich displays captured text in the cell, except with force_jupyter=False."""
    from plastic_cli.tables import Column, Table
    from plastic_cli.terminal_tables import table_text

    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    shown = []
    monkeypatch.setattr(sys.modules["IPython.display"], "display", shown.append)
    text = table_text(Table("Title", "", (Column("a"),), (("b",),)), 80)
    assert "Title" in text
    assert shown == []
