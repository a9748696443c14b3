"""benchmarks/reference.py: what is missing is measured once, the shortest first, and written as the reference."""

from __future__ import annotations

import importlib.util
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from plastic_cli.runs.reference import Reference
from plastic_cli.runs.store import RunStore
from sweeps.watching import statuses, until

PROGRAM = Path(__file__).parents[2] / "benchmarks/reference.py"
NOTHING = frozenset()


@pytest.fixture
def measuring(monkeypatch, tmp_path, starts):
    """The program as a module, whose reference is in a temporary folder."""
    specification = importlib.util.spec_from_file_location("measuring", PROGRAM)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "measuring", module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "reference")
    # The tests that follow must not run at a low priority.
    monkeypatch.setattr(module.os, "nice", lambda increment: increment)
    monkeypatch.setattr("plastic_cli.sweeps.recipe.recipes_folder", lambda: tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    return module


@pytest.fixture
def program(measuring, monkeypatch, runs_folder, capsys, instant_runs):
    """Run the program with two seeds, not five, and return its exit code and what it printed."""
    monkeypatch.setattr(measuring, "SEEDS", 2)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["reference.py", "--runs", str(runs_folder), *map(str, options)])
        code = measuring.main()
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def shipped(recipe, tmp_path):
    """Write a recipe into the folder of the recipes that come with plastic."""

    def write(name="one", *, minutes=1, top="", **parts):
        file = recipe(name=name, **parts)
        text = file.read_text().replace("minutes = 1", f"minutes = {minutes}\n{top}")
        file.unlink()
        (tmp_path / "recipes" / file.name).write_text(text)
        return name

    return write


def missing(measuring, folder, *, longest=float("inf"), undecided=NOTHING):
    parts = measuring.parts_of(measuring.recipe_names(), folder, None, undecided)
    return measuring.missing(parts, measuring.Measured(folder), longest)


def test_each_setting_has_five_seeds_and_ten_if_a_claim_is_inconclusive(measuring, shipped, runs_folder):
    shipped("few", options="learning_rate = 0.1", seeds="2")
    shipped("many", options="learning_rate = 0.2", seeds="7")
    shipped("listed", options="learning_rate = 0.3", seeds="[3, 8]")
    shipped("judged", options="learning_rate = 0.4", seeds="5", top='claims = ["BP-01", "BP-02"]')

    def seeds(undecided=NOTHING):
        return Counter(run.config["learning_rate"] for run in missing(measuring, runs_folder, undecided=undecided))

    assert seeds() == {0.1: 5, 0.2: 7, 0.3: 2, 0.4: 5}
    assert seeds(frozenset(["BP-02"])) == {0.1: 5, 0.2: 7, 0.3: 2, 0.4: 10}
    assert seeds(frozenset(["EG-01"]))[0.4] == 5


def test_the_shortest_come_first_and_the_longest_can_be_left_out(measuring, shipped, runs_folder):
    shipped("long", options="learning_rate = 0.1", minutes=30)
    shipped("short", options="learning_rate = 0.2", minutes=0.5)
    shipped("middle", options="learning_rate = 0.3", minutes=4)
    plan = missing(measuring, runs_folder)
    assert list(dict.fromkeys(run.config["learning_rate"] for run in plan)) == [0.2, 0.3, 0.1]
    rates = Counter(run.config["learning_rate"] for run in missing(measuring, runs_folder, longest=5))
    assert rates == {0.2: 5, 0.3: 5}
    assert missing(measuring, runs_folder, longest=0.1) == []


def test_a_run_of_two_recipes_is_measured_once_and_nothing_is_measured_twice(program, shipped, starts):
    steps = '[[steps]]\nverb = "eval"\n'
    shipped("one", steps=steps)
    shipped("two")
    assert program("--longest", 10)[0] == 0
    assert Counter(start["verb"] for start in starts()) == {"train": 2, "eval": 2}
    assert program() == (0, "nothing is missing\n")
    assert len(starts()) == 4
    # A step that a recipe gains is carried out on the runs that are there.
    shipped("two", steps='[[steps]]\nverb = "analyze"\noptions = { sparsity = true }\n')
    assert program()[0] == 0
    assert Counter(start["verb"] for start in starts()) == {"train": 2, "eval": 2, "analyze": 2}


def test_a_run_that_failed_is_measured_and_has_no_steps(program, shipped, starts, runs_folder):
    shipped("broken", options="batch_size = 13", steps='[[steps]]\nverb = "eval"\n')
    code, out = program()
    assert code == 0
    assert out.count("train/loss became nan") == 2
    assert statuses(runs_folder) == ["failed"] * 2
    assert program() == (0, "nothing is missing\n")
    assert len(starts()) == 2


def test_the_status_counts_what_is_measured_and_what_is_not_here(program, shipped, runs_folder):
    shipped("one")
    shipped("absent", options='dataset = "cifar10"')
    assert program("--recipe", "one")[0] == 0
    code, out = program("--status")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert (rows["absent"][:2], rows["absent"][-3:]) == (["2", "0"], ["2", "on", "cifar10"])
    assert rows["one"][:2] == ["2", "2"]
    assert out.endswith("2 of 2 runs and 0 steps measured, 0 minutes left for 0\n")
    skipped = "skipped: 2 runs of absent, because the data set cifar10 is not here\n"
    assert program() == (0, f"{skipped}nothing is missing\n")


def test_the_runs_of_recipes_are_written_and_rows_that_the_store_lacks_stay(
    program, measuring, shipped, runs_folder, tmp_path
):
    # An interval needs three other seeds.
    shipped("one", options="learning_rate = 0.1", seeds="4")
    shipped("two", options="learning_rate = 0.2", seeds="4")
    assert program("--recipe", "one")[0] == 0
    assert re.match(r"4 runs of 1 recipes in ", program("--write")[1])
    first = set(RunStore(runs_folder).folders())
    runs_folder.rename(tmp_path / "elsewhere")
    assert program("--recipe", "two")[0] == 0
    assert re.match(r"8 runs of 2 recipes in ", program("--write")[1])
    reference = Reference(tmp_path / "reference")
    assert {recipe: len(runs) for recipe, runs in reference.recipes().items()} == {"one": 4, "two": 4}
    assert {row["run"] for row in reference.of_recipe("one")} == first
    # A run of a recipe that is gone is not in the reference.
    (tmp_path / "recipes/one.toml").unlink()
    assert re.match(r"4 runs of 1 recipes in ", program("--write")[1])
    code, out = program("--outliers")
    assert code == 0
    assert re.search(r"^ backprop +8 +0.00% +0.00% +0.00%$", out, re.MULTILINE)
    assert "outside, 1 number  outside, 20 numbers" in out


def test_what_the_reference_holds_is_not_measured_again(program, measuring, shipped, runs_folder, tmp_path, starts):
    steps = '[[steps]]\nverb = "eval"\n'
    shipped("one", options="learning_rate = 0.1", steps=steps)
    assert program()[0] == program("--write")[0] == 0
    runs_folder.rename(tmp_path / "elsewhere")
    before = len(starts())
    assert program() == (0, "nothing is missing\n")
    assert program("--status")[1].endswith("2 of 2 runs and 2 steps measured, 0 minutes left for 0\n")
    # Another seed is missing, and a step on the runs that are in the reference needs them again.
    shipped("one", options="learning_rate = 0.1", steps=steps, seeds="3")
    assert [run.seed for run in missing(measuring, runs_folder)] == [2, 2]
    shipped(
        "one",
        options="learning_rate = 0.1",
        steps=f"{steps}[[steps]]\nverb = 'analyze'\noptions = {{ sparsity = true }}\n",
    )
    # The new runs replace the old ones, so they have all steps.
    assert program()[0] == program("--write")[0] == 0
    assert Counter(start["verb"] for start in starts()[before:]) == {"train": 2, "eval": 2, "analyze": 2}
    reference = Reference(tmp_path / "reference")
    verbs = [sorted(stage.verb for stage in reference.stages(row["run"])) for row in reference.rows()]
    assert verbs == [["analyze", "eval"]] * 2


def test_a_reference_that_would_lose_runs_is_not_written(measuring, program, shipped, runs_folder, tmp_path, capsys):
    shipped()
    program()
    assert program("--write")[0] == 0
    path = tmp_path / "reference" / "runs.parquet"
    whole = path.read_bytes()
    (tmp_path / "recipes" / "broken.toml").write_text("title = ")
    assert program("--write")[0] == 2
    (tmp_path / "recipes" / "broken.toml").unlink()
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-20])
    measuring.read_reference.__globals__["_read_reference"].cache_clear()
    for options in ((), ("--status",), ("--outliers",), ("--write",)):
        assert program(*options)[0] == 1, options
    assert path.read_bytes() == whole[:-20]
    assert program("--write", "--runs", tmp_path / "nowhere")[0] == 2


def test_a_recipe_that_is_named_and_does_not_exist_is_one_line(program, shipped):
    shipped()
    assert program("--recipe", "nothing", "--status")[0] == 2


@pytest.mark.parametrize("minutes", ["nan", "0", "-1", "x"])
def test_minutes_that_are_no_time_are_refused(program, shipped, minutes, capsys):
    shipped()
    with pytest.raises(SystemExit) as stopped:
        program("--longest", minutes)
    assert stopped.value.code == 2
    assert f"{minutes} is not a number of minutes above 0" in capsys.readouterr().err


def test_sigterm_stops_it_and_the_same_command_goes_on(program, processes, shipped, runs_folder, tmp_path, starts):
    shipped("one", seeds="1")
    line = (
        "import runpy, sys; from pathlib import Path; import plastic_cli.sweeps.recipe as recipe;"
        # Not at a low priority: on a busy machine it would begin after a minute.
        "import os; os.nice = lambda increment: increment;"
        "folder = Path(sys.argv[1]); recipe.recipes_folder = lambda: folder; del sys.argv[:2];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = processes(line, tmp_path / "recipes", PROGRAM, "--runs", runs_folder, INSTANT_SECONDS="20")
    until(lambda: statuses(runs_folder) == ["running"])
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert statuses(runs_folder) == ["interrupted"]
    assert program()[0] == 0
    assert statuses(runs_folder) == ["completed"] * 2
    # The first run was continued and not begun again.
    assert Counter(start["run"] for start in starts()).most_common(1)[0][1] == 2
