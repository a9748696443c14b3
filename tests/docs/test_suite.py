"""The recipe with steps that the page on sweeps shows is carried out by real processes."""

from __future__ import annotations

import pandas as pd
import pytest

import plastic_cli
from docs.pages import BLOCKS
from plastic_cli.testing import plastic


@pytest.fixture
def recipe(place):
    """Write the recipe into a file, and return the file."""
    (shown,) = [block for block in BLOCKS if block.page == "docs/sweeps.md" and "[[steps]]" in block.text]
    (place / "suite.toml").write_text(shown.text)
    return place / "suite.toml"


@pytest.mark.slow
def test_the_suite_that_is_shown_does_what_the_page_says(recipe, place):
    assert "6 runs and 7 steps" in plastic("sweep", recipe, "--dry-run").err
    assert plastic("sweep", recipe, "--dry-run", "--no-steps").err.startswith("6 runs: 0 done")
    chosen = ("sweep", recipe, "--seeds", 1, "--rule", "eglp")
    before = plastic(*chosen, "--dry-run", "--format", "csv")
    assert before.out.splitlines() == [
        "name,rule,seed,step,status,run",
        "local rule,eglp,0,train,left,",
        "local rule,eglp,0,eval --corruption gaussian-noise:0.3,left,",
        "local rule,eglp,0,analyze --sparsity --robustness,left,",
    ]
    said = "1 run and 2 steps: 0 done, 3 left, about 12 s one after the other, and 1 step of unknown time\n"
    assert before.err == f"{said}report: {place}/runs/reports/suite (left)\n"

    outcome = plastic(*chosen, "--json", "--workers", 2)
    assert (outcome.code, outcome.err) == (0, "")
    trained, *steps, report = outcome.results
    assert "step" not in trained
    assert [(step["run"], step["step"], step["status"]) for step in steps] == [
        (trained["run"], "eval", "completed"),
        (trained["run"], "analyze", "completed"),
    ]
    assert steps[1]["options"] == {"sparsity": True, "robustness": True}
    assert "tables/robustness.csv" in steps[1]["files"]
    folder = place / "runs" / "reports" / "suite"
    assert report == {"report": str(folder)}
    table = pd.read_csv(folder / "steps.csv")
    assert set(table["setting"]) == {"hidden = 32, epochs = 2"}
    accuracy = table[(table["metric"] == "test/accuracy") & table["step"].str.startswith("eval")]["mean"]
    assert accuracy.item() == steps[0]["metrics"]["test/accuracy"]
    page = folder / "index.html"
    assert '<section id="steps">' in page.read_text()

    # What was done is not repeated, from Python either.
    written = page.stat().st_mtime_ns
    after = plastic(*chosen, "--dry-run").err
    assert "1 run and 2 steps: 3 done, 0 left" in after
    assert "(done)" in after
    swept = plastic_cli.sweep(recipe, seeds=1, rule="eglp", quiet=True)
    assert [run.id for run in swept] == [trained["run"]]
    assert [(step.run.id, step.verb, step.options) for step in swept.steps] == [
        (step["run"], step["step"], step["options"]) for step in steps
    ]
    assert all(path.is_file() for path in swept.steps[1].files)
    assert (swept.report, page.stat().st_mtime_ns) == (folder, written)
    assert [stage.verb for stage in swept[0].stages] == ["eval", "analyze"]

    # Another report; and a file that is gone.
    recipe.write_text(recipe.read_text().replace("digits = 1", "digits = 2"))
    (place / "runs" / trained["run"] / "tables/robustness.csv").unlink()
    left = plastic(*chosen, "--dry-run", "--output", place / "elsewhere").err
    assert "1 run and 2 steps: 2 done, 1 left" in left
    assert f"report: {place}/elsewhere (left)" in left
    assert "(left)" in plastic(*chosen, "--dry-run").err
