"""Steps of a recipe are carried out once on each run, whatever happens to the processes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from collections import Counter

import pytest

from plastic_cli.runs.folder import open_run
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.stages import read_stages, stage_file
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.engine import Progress, SweepRun, without_its_run
from plastic_cli.sweeps.job import Outcome
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.sweeps.steps import plan_steps
from plastic_cli.testing import plastic
from sweeps.watching import PLASTIC, statuses, until

EVAL = '[[steps]]\nverb = "eval"\n'
SUITE = EVAL + '[[steps]]\nverb = "analyze"\noptions = { sparsity = true }\nseeds = 1\n'


@pytest.fixture
def suite(recipe):
    """Write a recipe of two seeds with three steps: eval of both, analyze of the first."""
    return lambda grid="", steps=SUITE, **options: recipe(grid, steps=steps, **{"seeds": "2", **options})


def words(found):
    """Return how many runs and steps ended with each word."""
    return {
        word: Counter(result.planned.label.partition(" ")[0] for result in results) for word, results in found.items()
    }


def rows(folder):
    """Return the number of rows of each stage of every run."""
    frame = RunStore(folder).metrics()
    return {
        stage: sorted(Counter(frame[frame["stage"] == stage]["run"]).values())
        for stage in ("eval", "analyze", "render")
    }


def test_every_step_is_carried_out_once_and_not_again(sweep, suite, runs_folder, starts):
    file = suite()
    found = sweep(file)
    assert words(found) == {"done": {"backprop": 2, "eval": 2, "analyze": 1}}
    assert all(result.fresh for result in found["done"])
    order = [result.planned.label.partition(" ")[0] for result in found["done"]]
    assert order.index("analyze") > order.index("eval")
    again = sweep(file)
    assert words(again) == words(found)
    assert not any(result.fresh for result in again["done"])
    assert Counter(start["verb"] for start in starts()) == {"train": 2, "eval": 2, "analyze": 1}
    assert rows(runs_folder) == {"eval": [1, 1], "analyze": [1], "render": []}
    (analysis,) = [result for result in again["done"] if result.planned.label.startswith("analyze")]
    assert analysis.outcome.summary == {"test/accuracy": 0.25}
    assert analysis.outcome.files == ("tables/analyze.csv",)
    for kind in ("claims", "logs"):
        assert list((runs_folder / ".sweeps" / kind).iterdir()) == []


def test_a_run_that_fails_blocks_its_steps_and_no_others(sweep, suite, starts):
    found = sweep(suite("batch_size = [13, 1]", seeds="1", steps=EVAL))
    assert words(found) == {"failed": {"backprop": 1}, "done": {"backprop": 1, "eval": 1}, "blocked": {"eval": 1}}
    assert {result.outcome.error for result in found["blocked"]} == {"its run failed"}


def test_the_step_of_an_interrupted_run_is_left_and_not_failed(suite):
    file = read_recipe(str(suite(seeds="1", steps=EVAL)))
    plan = plan_recipe(file)
    for word, of_step in (("failed", ("blocked", "failed")), ("interrupted", ("left", "interrupted"))):
        run = SweepRun(plan[0], word=word, ended=True)
        step = SweepRun(plan_steps(file, plan)[0], of=run)
        assert step.blocked
        word, outcome = without_its_run(step)
        assert (word, outcome.word) == of_step


def test_a_step_that_fails_is_repeated_and_stops_no_others(sweep, suite, runs_folder, starts):
    file = suite("batch_size = [17]", seeds="1")
    found = sweep(file)
    assert words(found) == {"failed": {"eval": 1, "analyze": 1}, "done": {"backprop": 1}}
    assert {result.outcome.error for result in found["failed"]} == {"there is no convergence"}
    assert all("there is no convergence" in result.log.read_text() for result in found["failed"])
    assert rows(runs_folder) == {"eval": [], "analyze": [], "render": []}
    assert words(sweep(file)) == words(found)
    assert Counter(start["verb"] for start in starts()) == {"train": 1, "eval": 2, "analyze": 2}


@pytest.mark.parametrize(("kind", "retry", "done"), [(18, 1, True), (20, 5, False), (19, 1, False)])
def test_retry_holds_for_steps(sweep, suite, starts, kind, retry, done):
    found = sweep(suite(f"batch_size = [{kind}]", seeds="1", steps=EVAL), retry=retry)
    assert words(found)["done" if done else "failed"]["eval"] == 1
    # Wrong input fails at once.
    assert Counter(start["verb"] for start in starts())["eval"] == (1 if kind == 20 else retry + 1)


def test_stop_at_failure_leaves_the_other_steps(sweep, suite, starts):
    found = sweep(suite("batch_size = [17]", seeds="2"), workers=1, keep_going=False)
    assert words(found) == {"failed": {"eval": 1}, "done": {"backprop": 2}, "left": {"eval": 1, "analyze": 1}}


def test_a_step_that_takes_too_long_is_stopped(sweep, suite, runs_folder, starts, monkeypatch):
    file = suite(seeds="1", steps=EVAL)
    sweep(file, show=lambda progress: None)
    for stage in runs_folder.glob("*/stages/*"):
        stage.unlink()
    monkeypatch.setenv("INSTANT_SECONDS", "20")
    (failed,) = sweep(file, timeout=0.5, retry=3)["failed"]
    assert failed.outcome.error == "stopped after 0.5 s (--timeout): sweep again to repeat it"


def test_a_step_is_repeated_if_its_record_does_not_hold(sweep, suite, runs_folder, starts):
    file = suite(seeds="1", steps=EVAL)
    sweep(file)
    (folder,) = [runs_folder / run for run in RunStore(runs_folder).folders()]
    (record,) = read_stages(folder)
    path = stage_file(folder, record.verb, record.config)

    def changed(**fields):
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    changes = [
        lambda: changed(versions={**record.versions, "plastic": "0.0.1"}),
        lambda: changed(config={**record.config, "split": "train"}),
        lambda: changed(steps_done={"epoch": 1}),
        lambda: path.write_bytes(path.read_bytes()[:-20]),
        lambda: (folder / "tables/eval.csv").unlink(),
    ]
    for number, change in enumerate(changes):
        change()
        found = sweep(file)
        assert words(found) == {"done": {"backprop": 1, "eval": 1}}
        assert [result.fresh for result in found["done"]] == [False, True]
        assert len(starts()) == 3 + number
    sweep(file)
    assert len(starts()) == 2 + len(changes), "the last record holds"


def test_a_sweep_that_is_killed_leaves_no_rows_of_a_step_twice(sweep, suite, runs_folder, starts, processes):
    file = suite(steps=SUITE.replace("seeds = 1", ""))
    killed = processes(PLASTIC, "sweep", file, "--workers", 2, INSTANT_SECONDS="0.2")
    until(lambda: sum(start["verb"] != "train" for start in starts()) >= 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    until(lambda: not any(is_held(runs_folder / run) for run in RunStore(runs_folder).folders()))
    assert words(sweep(file)) == {"done": {"backprop": 2, "eval": 2, "analyze": 2}}
    assert rows(runs_folder) == {"eval": [1] * 2, "analyze": [1] * 2, "render": []}
    assert statuses(runs_folder) == ["completed"] * 2


def test_ctrl_c_stops_a_sweep_within_its_steps(suite, runs_folder, starts, processes):
    stopped = processes(PLASTIC, "sweep", suite(), "--workers", 2, INSTANT_SECONDS="0.6")
    until(lambda: sum(start["verb"] == "eval" for start in starts()) == 2)
    stopped.send_signal(signal.SIGINT)
    out, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, out
    assert "stopped: 2 started, 1 not started. Repeat the same command to finish them" in out
    assert statuses(runs_folder) == ["completed"] * 2
    assert rows(runs_folder)["eval"] == []


def test_two_sweeps_at_once_share_the_steps(suite, recipe, runs_folder, starts, processes):
    # The second recipe has the same runs and one more step, so that the two meet on runs and on steps.
    more = SUITE.replace("seeds = 1", "") + '[[steps]]\nverb = "render"\n'
    files = [suite(seeds="3", steps=more.replace("render", "eval")), suite(seeds="3", steps=more, name="other")]
    two = [processes(PLASTIC, "sweep", file, "--workers", 2, INSTANT_SECONDS="0.01") for file in files]
    for process in two:
        out, _ = process.communicate(timeout=280)
        assert process.returncode == 0, out
    assert Counter(start["verb"] for start in starts()) == {"train": 3, "eval": 3, "analyze": 3, "render": 3}
    assert rows(runs_folder) == {"eval": [1] * 3, "analyze": [1] * 3, "render": [1] * 3}


def test_a_step_waits_for_a_command_by_hand_on_the_same_run(sweep, suite, runs_folder, starts):
    file = suite(seeds="1", steps=EVAL)
    sweep(suite(seeds="1", steps="", name="first"))
    (run,) = RunStore(runs_folder).folders()
    seen = []
    with open_run(runs_folder / run).locked():

        def look(progress):
            seen.append(progress.elsewhere)
            if progress.elsewhere and len(seen) > 4:
                raise KeyboardInterrupt

        assert words(sweep(file, show=look)) == {"done": {"backprop": 1}, "left": {"eval": 1}}
    assert words(sweep(file)) == {"done": {"backprop": 1, "eval": 1}}


def test_a_command_by_hand_that_began_a_moment_before_is_waited_for(sweep, suite, runs_folder, starts, monkeypatch):
    """The run is free when the sweep looks, and held when the process of the step asks for it."""
    file = suite(seeds="1", steps=EVAL)
    sweep(suite(seeds="1", steps="", name="first"))
    (run,) = RunStore(runs_folder).folders()
    monkeypatch.setattr("plastic_cli.sweeps.lookup.is_held", lambda _: False)
    held = open_run(runs_folder / run).locked()
    held.__enter__()

    def release(progress):
        if progress.elsewhere:
            held.__exit__(None, None, None)
            monkeypatch.undo()
            raise KeyboardInterrupt

    assert words(sweep(file, show=release)) == {"done": {"backprop": 1}, "left": {"eval": 1}}


def test_a_run_that_was_removed_meanwhile_is_an_error_of_its_steps(sweep, suite, runs_folder, starts):
    file = suite(seeds="1", steps=EVAL)

    def remove(progress):
        for result in progress.results:
            if result.outcome.run is not None:
                shutil.rmtree(runs_folder / result.outcome.run, ignore_errors=True)

    (failed,) = sweep(file, show=remove)["failed"]
    assert failed.outcome.error == "its run is not in the store any more"


def test_the_time_left_counts_steps_by_their_own_time(suite):
    file = read_recipe(str(suite(steps=EVAL.replace("\n", "\nminutes = 0.5\n", 1) + EVAL)))
    plan = plan_recipe(file)
    steps = plan_steps(file, plan)
    progress = Progress(4, slots=2, waiting=[SweepRun(planned) for planned in steps])
    assert progress.seconds_left() == pytest.approx(30), "two steps of half a minute at once"
    progress.results.append(SweepRun(plan[0], word="done", outcome=Outcome("done", seconds=500)))
    assert progress.seconds_left() == pytest.approx(30), "a run says nothing about a step"
    progress.results.append(SweepRun(steps[0], word="done", outcome=Outcome("done", seconds=4)))
    assert progress.seconds_left() == pytest.approx(4)


def test_what_a_sweep_with_steps_prints(suite, instant_runs, runs_folder, starts):
    file = suite("batch_size = [1, 17]", seeds="1")
    failed = plastic("sweep", file, "--workers", 1)
    assert failed.code == 1
    assert failed.err.splitlines()[0].startswith("2 runs and 4 steps in ")
    assert "[3/6] done eval backprop batch_size=1 seed=0 (" in failed.err
    assert re.search(r"failed: eval backprop batch_size=17 seed=0, analyze .*: there is no convergence", failed.err)
    assert failed.err.endswith("error: 2 of 2 runs and 4 steps failed: there is no convergence\n")
    assert re.search(r"backprop +1 +train +1 +test accuracy +50.00%", failed.out)
    assert re.search(r"backprop +1 +eval +1 +test accuracy +25.00%", failed.out)
    assert re.search(r"backprop +17 +analyze --sparsity +0 of 1", failed.out)
    rows = list(csv.DictReader(plastic("sweep", file, "--format", "csv").out.splitlines()))
    assert [(row["batch_size"], row["step"], row["status"], row["value"]) for row in rows] == [
        ("1", "train", "done", "0.5"),
        ("17", "train", "done", "0.5"),
        ("1", "eval", "done", "0.25"),
        ("17", "eval", "failed", ""),
        ("1", "analyze --sparsity", "done", "0.25"),
        ("17", "analyze --sparsity", "failed", ""),
    ]
    quiet = plastic("sweep", file, "--only", "batch_size=1", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    (run,) = [row["run"] for row in RunStore(runs_folder).rows() if row["config"]["batch_size"] == 1]
    assert quiet.out == f"{runs_folder / run}\n"


def test_a_recipe_says_how_many_steps_it_has(suite, instant_runs, runs_folder, starts, monkeypatch, tmp_path):
    file = suite(seeds="2")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.toml").write_text(file.read_text())
    monkeypatch.setattr("plastic_cli.sweeps.recipe.recipes_folder", lambda: tmp_path / "recipes")
    counts = ("runs", "done", "steps", "steps_done", "time")
    rows = [json.loads(plastic("recipes", "--json").out)[0]]
    plastic("sweep", file, "--quiet")
    rows.append(json.loads(plastic("recipes", "--json").out)[0])
    assert [[row[name] for name in counts] for row in rows] == [[2, 0, 3, 0, "2 min"], [2, 2, 3, 3, "2 min"]]
    assert ",runs,done,steps,steps_done,time," in plastic("recipes", "--format", "csv").out
