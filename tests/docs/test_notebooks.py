"""Every notebook runs from its first to its last cell, in a fresh folder, in less than two minutes."""

from __future__ import annotations

import json

import pytest

import notebooks
from docs.pages import ROOT

for needed in ("nbclient", "ipykernel", "jupytext"):
    pytest.importorskip(needed, reason="the packages of the site are not installed: pip install '.[docs]'")

SCRIPTS = sorted((ROOT / "docs/notebooks").glob("*.py"))
LARGEST = 1_000_000
"""Bytes of a notebook with its results."""


def stored(path):
    return json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))


def test_there_are_notebooks():
    assert {path.stem for path in SCRIPTS} == {
        "first_run",
        "own_rule",
        "own_network",
        "any_network",
        "figure_for_a_paper",
        "agent_and_memory",
    }
    assert {path.stem for path in (ROOT / "docs/notebooks").glob("*.ipynb")} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem != "first_run")) for path in SCRIPTS],
)
def test_a_notebook_runs(path, tmp_path):
    executed = notebooks.execute(notebooks.script(path), tmp_path, timeout=120)
    assert [cell.cell_type for cell in executed.cells].count("code") > 3


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_stored_notebook_has_the_cells_of_the_script_and_results(path):
    notebook, script = stored(path), notebooks.script(path)
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert texts == [(cell.cell_type, cell.source) for cell in script.cells], "run: python website/notebooks.py"
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data", "stream"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.with_suffix(".ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title_and_fits_a_page(path):
    first, *_ = notebooks.script(path).cells
    assert first.source.startswith("# ")
    code = [
        line for cell in notebooks.script(path).cells if cell.cell_type == "code" for line in cell.source.splitlines()
    ]
    assert [line for line in code if len(line) > 120] == []
