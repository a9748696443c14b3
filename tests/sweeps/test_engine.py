"""A sweep runs what is missing, goes on with what was stopped, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from plastic_cli.numerics.machine import cores
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.engine import Progress, SweepRun
from plastic_cli.sweeps.job import Outcome, claimed, log_file
from plastic_cli.sweeps.lookup import find_run, store_of, with_data
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.pools import default_workers
from plastic_cli.sweeps.recipe import read_recipe
from sweeps.watching import PLASTIC, statuses, until


def test_every_run_is_made_once_and_not_again(sweep, recipe, runs_folder, starts):
    file = recipe("batch_size = [1, 2, 4]", seeds="2")
    found = sweep(file)
    assert {word: len(results) for word, results in found.items()} == {"done": 6}
    assert all(result.fresh for result in found["done"])
    assert statuses(runs_folder) == ["completed"] * 6
    again = sweep(file)["done"]
    assert not any(result.fresh for result in again)
    assert {result.outcome.run for result in again} == set(RunStore(runs_folder).folders())
    assert len(starts()) == 6
    assert list((runs_folder / ".sweeps/logs").iterdir()) == [], "what is done needs no log"
    assert list((runs_folder / ".sweeps/claims").iterdir()) == []


@pytest.mark.parametrize("environment", [None, "8"])
def test_the_threads_of_a_run_depend_on_the_option_alone(sweep, recipe, starts, monkeypatch, environment):
    if environment is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    sweep(recipe(), workers=1)
    sweep(recipe(seeds="[5]"), workers=10 * cores())
    sweep(recipe(seeds="[6]"), workers=1, threads=3)
    assert [start["threads"] for start in starts()] == ["1", "1", "3"]


@pytest.mark.parametrize(
    ("threads", "gigabytes", "workers"),
    [(1, 64, 16), (4, 64, 4), (16, 64, 1), (32, 64, 1), (1, 6, 6), (1, 0.5, 1), (1, None, 16)],
)
def test_the_default_number_of_workers_uses_all_cores_that_the_memory_allows(monkeypatch, threads, gigabytes, workers):
    monkeypatch.setattr("plastic_cli.sweeps.pools.cores", lambda: 16)
    monkeypatch.setattr(
        "plastic_cli.sweeps.pools.memory", lambda: None if gigabytes is None else int(gigabytes * 2**30)
    )
    assert default_workers(threads) == workers


def test_another_setting_seed_version_or_data_set_is_another_run(sweep, recipe, runs_folder, monkeypatch, starts):
    (first,) = sweep(recipe())["done"]
    assert sweep(recipe(options="learning_rate = 0.5"))["done"][0].fresh
    assert sweep(recipe(seeds="[1]"))["done"][0].fresh
    # What is typed and what is a default are the same.
    assert not sweep(recipe(options="learning_rate = 0.001"))["done"][0].fresh
    file = runs_folder / first.outcome.run / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "data": {"checksum": "other"}}))
    (planned,) = with_data(plan_recipe(read_recipe(str(recipe()))), None)
    assert find_run(store_of(runs_folder), planned).standing == "missing"
    file.write_text(json.dumps({**record, "data": {"checksum": planned.checksum}}))
    assert find_run(store_of(runs_folder), planned).standing == "done"
    file.write_text(json.dumps({**record, "versions": {"rule": "plastic 0.0.1"}}))
    assert find_run(store_of(runs_folder), planned).standing == "missing"


def test_a_failed_run_keeps_its_log_and_is_run_again(sweep, recipe, runs_folder, starts):
    file = recipe("batch_size = [13, 1]")
    found = sweep(file)
    (failed,) = found["failed"]
    assert len(found["done"]) == 1
    assert failed.outcome.error == "train/loss became nan"
    assert "Traceback of a sort" in failed.log.read_text()
    assert len(sweep(file)["failed"]) == 1
    assert sorted(statuses(runs_folder)) == ["completed", "failed", "failed"]


def test_a_killed_run_is_reported_and_continued(sweep, recipe, runs_folder, starts):
    file = recipe("batch_size = [15]")
    (failed,) = sweep(file)["failed"]
    assert "SIGKILL" in failed.outcome.error
    sweep(file)
    assert statuses(runs_folder) == ["crashed"], "resumed, not begun again"
    assert len(starts()) == 2


def test_retry_tries_again_and_gives_up_in_the_end(sweep, recipe, runs_folder, starts):
    assert len(sweep(recipe("batch_size = [14]"), retry=1)["done"]) == 1
    assert len(starts()) == 2
    assert len(sweep(recipe("batch_size = [13]"), retry=2)["failed"]) == 1
    assert len(starts()) == 5


def test_wrong_input_is_not_retried(sweep, recipe, starts):
    (failed,) = sweep(recipe("batch_size = [16]"), retry=5)["failed"]
    assert failed.outcome.error == "that does nothing. Leave it out."
    assert failed.outcome.lasting


def test_stop_at_failure_leaves_the_rest(sweep, recipe, starts):
    found = sweep(recipe("batch_size = [13, 1, 2, 3, 4, 5, 6, 7]"), workers=1, keep_going=False)
    assert len(found["failed"]) == 1
    assert "done" not in found
    assert len(found["left"]) + len(found.get("interrupted", [])) == 7


def test_a_run_that_timed_out_can_be_continued(sweep, recipe, runs_folder, monkeypatch, starts):
    monkeypatch.setenv("INSTANT_SECONDS", "0.4")
    file = recipe(options="").read_text().replace("epochs = 2", "epochs = 8")
    path = runs_folder.parent / "long.toml"
    path.write_text(file)
    (failed,) = sweep(path, timeout=1.2, retry=3)["failed"]
    assert "--timeout" in failed.outcome.error
    assert len(starts()) == 1
    assert statuses(runs_folder) == ["interrupted"]
    monkeypatch.setenv("INSTANT_SECONDS", "0")
    assert len(sweep(path)["done"]) == 1
    assert statuses(runs_folder) == ["completed"]


def test_an_interrupted_run_is_finished_and_not_started_again(sweep, recipe, runs_folder, monkeypatch, starts):
    monkeypatch.setenv("INSTANT_SECONDS", "0.3")
    path = recipe("batch_size = [1, 2, 3, 4]")

    def stop(progress):
        if len(starts()) == 2 and not progress.stopping:
            raise KeyboardInterrupt

    found = sweep(path, show=stop)
    assert len(found["interrupted"]) == 2
    assert len(found["left"]) == 2
    assert statuses(runs_folder) == ["interrupted"] * 2
    assert len(sweep(path)["done"]) == 4
    assert statuses(runs_folder) == ["completed"] * 4


def test_a_sweep_waits_for_a_run_that_another_process_has_claimed(sweep, recipe, runs_folder, starts):
    path = recipe("batch_size = [1, 2]")
    first, _ = plan_recipe(read_recipe(str(path)))
    seen = []
    with claimed(runs_folder, first.key) as mine:
        assert mine

        def look(progress):
            seen.append((progress.count("done"), progress.elsewhere))
            if progress.count("done") == 1 and progress.elsewhere == 1:
                raise KeyboardInterrupt

        found = sweep(path, show=look)
    assert seen[-1][0] == 1
    assert len(found["left"]) == 1
    assert len(starts()) == 1


def test_a_claim_belongs_to_one_process_and_ends_with_it(runs_folder, processes):
    program = (
        "import sys, pathlib, time; from plastic_cli.sweeps.job import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1]), 'key') as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    holder = processes("exec(sys.argv.pop(1))", program, runs_folder, patched=False)
    assert holder.stdout.readline() == "True\n"
    with claimed(runs_folder, "key") as mine:
        assert not mine
    holder.kill()
    holder.wait()
    with claimed(runs_folder, "key") as mine:
        assert mine


def test_a_sweep_that_is_killed_loses_only_what_ran(recipe, runs_folder, starts, processes, sweep):
    file = recipe("batch_size = [1, 2, 3, 4, 5, 6]")
    killed = processes(PLASTIC, "sweep", file, "--workers", 2, INSTANT_SECONDS="0.25")
    until(lambda: len(starts()) >= 3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # The runs hear of it, write their checkpoints and end.
    until(lambda: not any(_is_alive(start["pid"]) for start in starts()))
    before = statuses(runs_folder)
    assert set(before) <= {"completed", "interrupted", "crashed"}, "crashed: in the instant before it listens"
    assert len(sweep(file)["done"]) == 6
    assert statuses(runs_folder) == ["completed"] * 6


def test_ctrl_c_ends_a_sweep_with_130_and_checkpoints(recipe, runs_folder, starts, processes):
    stopped = processes(PLASTIC, "sweep", recipe("batch_size = [1, 2, 3]"), "--workers", 2, INSTANT_SECONDS="0.5")
    until(lambda: len(starts()) == 2)
    stopped.send_signal(signal.SIGINT)
    out, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, out
    assert "Repeat the same command to finish them" in out
    assert statuses(runs_folder) == ["interrupted"] * 2
    assert "Traceback" not in out


@pytest.mark.slow
def test_two_sweeps_at_once_share_forty_runs(recipe, runs_folder, starts, processes):
    runs = 40
    file = recipe(seeds=str(runs), options="batch_size = 1")
    two = [processes(PLASTIC, "sweep", file, "--workers", 2) for _ in range(2)]
    for process in two:
        out, _ = process.communicate(timeout=280)
        assert process.returncode == 0, out
    seeds = [start["seed"] for start in starts()]
    assert sorted(seeds) == list(range(runs)), "each run once, by one of them"
    assert statuses(runs_folder) == ["completed"] * runs
    assert len({start["run"] for start in starts()}) == runs


def test_the_time_left_follows_from_runs_of_the_same_rule(recipe):
    plan = plan_recipe(read_recipe(str(recipe("batch_size = [1, 2, 3]"))))
    progress = Progress(3, slots=2, waiting=[SweepRun(planned) for planned in plan[1:]])
    assert progress.seconds_left() == pytest.approx(60), "two runs of a minute each, side by side"
    progress.results.append(SweepRun(plan[0], word="done", outcome=Outcome("done", seconds=10)))
    assert progress.seconds_left() == pytest.approx(10)
    del progress.waiting[0]
    assert progress.seconds_left() == pytest.approx(10), "one run is not divided among two workers"
    progress.waiting = []
    assert progress.seconds_left() == 0


def test_a_store_that_cannot_be_written_is_one_line(recipe, processes, tmp_path):
    target = tmp_path / "file"
    target.touch()
    process = processes(PLASTIC, "sweep", recipe(), "--runs", target, patched=False)
    out, _ = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert out.count("\n") <= 2, out
    assert "error: " in out


def test_logs_lie_under_the_store(runs_folder):
    assert log_file(runs_folder, "k").relative_to(runs_folder) == Path(".sweeps/logs/k.log")


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for yet is dead too.
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}/stat").exists() else False


def test_a_sweep_renews_its_marker(sweep, recipe, runs_folder, monkeypatch, starts):
    monkeypatch.setenv("INSTANT_SECONDS", "0.2")
    monkeypatch.setattr("plastic_cli.sweeps.engine.MARK_SECONDS", 0.0)
    ages = []

    def age(_progress):
        for marker in (runs_folder / ".sweeps").glob("marker-*"):
            ages.append(marker.stat().st_mtime)
            os.utime(marker, (0, 0))

    sweep(recipe("batch_size = [1, 2, 3]"), show=age)
    assert len(ages) > 2
    assert 0 not in ages[1:]
    assert list((runs_folder / ".sweeps").glob("marker-*")) == []


def test_a_run_that_another_version_changed_is_looked_up_again(make_store, planned_run):
    """What was read once is read again where its file changed, and only there."""
    folder = make_store
    assert find_run(store_of(folder), planned_run).standing == "done"
    (run,) = RunStore(folder).folders()
    path = folder / run / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "config": {**record["config"], "batch_size": 999}}))
    assert find_run(store_of(folder), planned_run).standing == "missing"
    path.write_text("{")
    assert find_run(store_of(folder), planned_run).standing == "missing"
    path.write_text(json.dumps(record))
    assert find_run(store_of(folder), planned_run).standing == "done"


@pytest.fixture
def planned_run(recipe):
    (planned,) = with_data(plan_recipe(read_recipe(str(recipe()))), None)
    return planned


@pytest.fixture
def make_store(sweep, recipe, runs_folder):
    sweep(recipe())
    return runs_folder
