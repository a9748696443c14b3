"""The same sweeps on a Dask scheduler with workers of its own, over the loopback: what is killed costs no run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.runs.stages import read_stages
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.archive import pack, unpack
from plastic_cli.sweeps.pools import CLUSTERS, open_pool
from plastic_cli.testing import plastic
from sweeps.watching import PLASTIC, statuses, until

pytest.importorskip("distributed")

SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = "from distributed.cli.dask_worker import main; main()"
HIDING = (
    "import plastic_cli.sweeps.job as job; job.sees_store = lambda store, marker: False; "
    "from distributed.cli.dask_worker import main; main()"
)
QUIET = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, start, folder):
        self._start, self._file = start, folder / "scheduler.json"
        arguments = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", self._file, "--no-dashboard"]
        self.scheduler = start(SCHEDULER, *arguments, patched=False, **QUIET)
        until(self._file.exists)
        self.address = json.loads(until(self._file.read_text))["address"]
        self.workers = []

    def add_worker(self, program=WORKER, **variables):
        arguments = [self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        self.workers.append(self._start(program, *arguments, **{**QUIET, **variables}))
        return self.workers[-1]


@pytest.fixture
def cluster(processes, tmp_path, starts):
    return Cluster(processes, tmp_path)


@pytest.fixture
def sweeping(processes, cluster):
    """Start `plastic sweep` on the cluster as a process."""
    return lambda file, *options, **variables: processes(
        PLASTIC, "sweep", file, "--scheduler", cluster.address, *options, **variables
    )


def finished(process, code=0):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    return out


def worker_of(cluster, start):
    """Return the worker whose child made a start."""
    parent = int(Path(f"/proc/{start['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    return next(worker for worker in cluster.workers if worker.pid == parent)


def test_a_worker_that_is_killed_loses_nothing(cluster, sweeping, recipe, runs_folder, starts):
    for _ in range(2):
        cluster.add_worker(INSTANT_SECONDS="0.4")
    sweep = sweeping(recipe("batch_size = [1, 2, 3, 4, 5, 6]", options="device = 'cpu'"))
    until(lambda: len(starts()) >= 3)
    worker_of(cluster, starts()[-1]).send_signal(signal.SIGKILL)
    out = finished(sweep)
    assert statuses(runs_folder) == ["completed"] * 6, out
    sizes = [start["batch_size"] for start in starts()]
    assert len(sizes) == 7, "the run of the killed worker was gone on with by the other one, all others begun once"
    assert sorted(set(sizes)) == [1, 2, 3, 4, 5, 6]


def test_after_a_killed_client_the_same_command_runs_the_rest(cluster, sweeping, recipe, runs_folder, starts):
    for _ in range(2):
        cluster.add_worker(INSTANT_SECONDS="0.4")
    file = recipe("batch_size = [1, 2, 3, 4, 5, 6]")
    first = sweeping(file)
    until(lambda: len(starts()) >= 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    out = finished(sweeping(file))
    assert statuses(runs_folder) == ["completed"] * 6, out
    assert sorted(start["batch_size"] for start in starts()) == [1, 2, 3, 4, 5, 6], "no run was begun twice"
    assert "(already in the store)" in out


def test_ctrl_c_reaches_the_runs_on_the_workers(cluster, sweeping, recipe, runs_folder, starts):
    for _ in range(2):
        cluster.add_worker(INSTANT_SECONDS="0.5")
    file = recipe("batch_size = [1, 2, 3, 4]")
    sweep = sweeping(file)
    until(lambda: len(starts()) == 2)
    sweep.send_signal(signal.SIGINT)
    finished(sweep, 130)
    assert statuses(runs_folder) == ["interrupted"] * 2
    finished(sweeping(file))
    assert statuses(runs_folder) == ["completed"] * 4


def test_workers_that_do_not_see_the_store_send_the_runs_back(cluster, sweeping, recipe, runs_folder, starts):
    cluster.add_worker(HIDING)
    out = finished(sweeping(recipe("batch_size = [1, 2, 13]", seeds="2")), 1)
    assert sorted(statuses(runs_folder)) == ["completed"] * 4 + ["failed"] * 2, out
    assert len(starts()) == 6
    logs = sorted((runs_folder / ".sweeps/logs").glob("*.log"))
    assert len(logs) == 2
    assert all("Traceback of a sort" in log.read_text() for log in logs)
    assert [path.name for path in runs_folder.iterdir() if path.name.startswith(".incoming")] == []


@pytest.mark.slow
def test_an_unfinished_run_travels_to_a_worker_that_does_not_see_the_store(
    cluster, sweeping, recipe, runs_folder, starts
):
    slow = cluster.add_worker(HIDING, INSTANT_SECONDS="0.5")
    file = recipe("batch_size = [1]", options="").with_name("long.toml")
    file.write_text(recipe("batch_size = [1]").read_text().replace("epochs = 2", "epochs = 6"))
    sweep = sweeping(file)
    until(lambda: len(starts()) == 1)
    time.sleep(1)
    sweep.send_signal(signal.SIGINT)
    finished(sweep, 130)
    assert statuses(runs_folder) == ["interrupted"]
    (run,) = [path for path in runs_folder.iterdir() if not path.name.startswith(".")]
    assert 0 < json.loads((run / "run.json").read_text())["steps_done"]["epoch"] < 6
    slow.kill()
    cluster.add_worker(HIDING)
    finished(sweeping(file))
    assert statuses(runs_folder) == ["completed"]
    assert {start["run"] for start in starts()} == {run.name}, "the same run, gone on with"


@pytest.mark.slow
def test_steps_are_carried_out_by_workers_with_and_without_the_store(cluster, sweeping, recipe, runs_folder, starts):
    cluster.add_worker(HIDING)
    cluster.add_worker()
    steps = '[[steps]]\nverb = "eval"\n[[steps]]\nverb = "analyze"\noptions = { sparsity = true }\n'
    file = recipe("batch_size = [1, 17]", seeds="2", steps=steps)
    out = finished(sweeping(file), 1)
    assert "4 of 4 runs and 8 steps failed: there is no convergence" in out
    for row in RunStore(runs_folder).rows():
        folder = runs_folder / row["run"]
        done = row["config"]["batch_size"] == 1
        assert [stage.verb for stage in read_stages(folder)] == (["eval", "analyze"] if done else [])
        assert len(list(folder.glob("tables/*.csv"))) == (2 if done else 0)
        assert sum('"eval"' in line for line in _lines(folder)) == done
    assert len(starts()) == 12
    finished(sweeping(file), 1)
    assert len(starts()) == 16, "only those that failed are repeated"
    assert [path.name for path in runs_folder.iterdir() if path.name.startswith((".incoming", ".ready"))] == []


def _lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_a_dead_scheduler_is_reported_in_one_line(cluster, sweeping, recipe, starts):
    cluster.add_worker(INSTANT_SECONDS="1")
    sweep = sweeping(recipe("batch_size = [1, 2, 3]"), DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="2s")
    until(lambda: starts())
    cluster.scheduler.send_signal(signal.SIGKILL)
    out = finished(sweep, 1)
    assert "is gone" in out
    assert "Traceback" not in out


def test_a_sweep_waits_for_late_workers(cluster, sweeping, recipe, runs_folder, starts):
    sweep = sweeping(recipe())
    assert any("waiting for a worker" in line for line in iter(sweep.stdout.readline, ""))
    cluster.add_worker()
    finished(sweep)
    assert statuses(runs_folder) == ["completed"]


def test_an_address_without_a_scheduler_is_reported(monkeypatch):
    monkeypatch.setattr("plastic_cli.sweeps.pools.CONNECT_SECONDS", 1.0)
    with pytest.raises(UserError, match="no Dask scheduler answers"), open_pool("tcp://127.0.0.1:9", None):
        pass


def test_an_unknown_scheduler_suggests_a_similar_one(recipe):
    outcome = plastic("sweep", recipe(), "--scheduler", "slrum", "--workers", 1)
    assert outcome.code == 2
    assert "Did you mean 'slurm'?" in outcome.err


@pytest.mark.parametrize(
    "address", ["foo:bar", "tcp://", "http://127.0.0.1:1", "tcp://127.0.0.1:x", ":8786", "", "a b:1"]
)
def test_an_invalid_address_is_reported_at_once(recipe, address):
    outcome = plastic("sweep", recipe(), "--scheduler", address, "--workers", 1)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: --scheduler {address}: name the address")


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_missing_batch_system_is_reported(recipe, monkeypatch, name):
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = plastic("sweep", recipe(), "--scheduler", name, "--workers", 1)
    assert outcome.code == 2
    assert f"the command `{CLUSTERS[name][1]}`" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_missing_dask_is_named(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = plastic("sweep", recipe(), "--scheduler", "tcp://127.0.0.1:1")
    assert outcome.code == 2
    assert "plastic-cli[cluster]" in outcome.err


def test_a_batch_system_starts_the_workers(processes, recipe, runs_folder, starts, tmp_path):
    """A stand-in for Slurm: it takes the script of dask-jobqueue and runs it at once."""
    commands = tmp_path / "bin"
    commands.mkdir()
    sbatch = commands / "sbatch"
    sbatch.write_text(
        '#!/bin/bash\ncp "$1" "$0.job"\nsetsid bash "$0.job" > "$0.log" 2>&1 &\n'
        'echo $! >> "$0.pids"\necho "Submitted batch job $!"\n'
    )
    scancel = commands / "scancel"
    scancel.write_text('#!/bin/bash\nfor job in "$@"; do kill -- -$job; done\n')
    for command in (sbatch, scancel):
        command.chmod(0o755)
    try:
        sweep = processes(
            PLASTIC,
            *("sweep", recipe("batch_size = [1, 2]"), "--scheduler", "slurm", "--workers", 1),
            PATH=f"{commands}:{os.environ['PATH']}",
            DASK_JOBQUEUE__SLURM__MEMORY="1GB",
            # The workers are other processes: they take our stand-in for the training from here.
            DASK_DISTRIBUTED__WORKER__PRELOAD=str(Path(__file__).parent / "preload.py"),
            PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *[entry for entry in sys.path if entry]]),
        )
        out = finished(sweep)
    finally:
        if (commands / "sbatch.pids").exists():
            for pid in (commands / "sbatch.pids").read_text().split():
                try:
                    os.killpg(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
    assert statuses(runs_folder) == ["completed"] * 2, out


def test_a_packed_run_is_unpacked_completely_and_replaces_no_other(tmp_path):
    run = tmp_path / "20260101-000000-aaaa"
    (run / "artifacts").mkdir(parents=True)
    (run / "artifacts/weights.pt").write_bytes(os.urandom(1000))
    (run / "run.json").write_text("{}")
    (run / "lock").touch()
    content = pack(run)
    store = tmp_path / "store"
    first = unpack(content, store, run.name)
    assert first.name == run.name
    assert not (first / "lock").exists()
    assert (first / "artifacts/weights.pt").read_bytes() == (run / "artifacts/weights.pt").read_bytes()
    second = unpack(content, store, run.name)
    assert second.name.startswith(run.name)
    assert second != first
    (run / "run.json").write_text("later")
    assert unpack(pack(run), store, run.name, replaces=True) == first
    assert (first / "run.json").read_text() == "later"
    with pytest.raises(RunFailed, match="came back in an archive that is damaged"):
        unpack(content[: len(content) // 2], store, run.name)
    (run / "run.json").unlink()
    with pytest.raises(RunFailed, match=r"came back without its run\.json"):
        unpack(pack(run), store, run.name)
    assert sorted(path.name for path in store.iterdir()) == sorted([first.name, second.name])
    shutil.rmtree(store)


def test_a_worker_removes_what_killed_workers_left(tmp_path, monkeypatch):
    from plastic_cli.sweeps import job

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    left, living, other = (tmp_path / name for name in ("plastic-sweep-a", "plastic-sweep-b", "mine"))
    for folder in (left, living, other):
        (folder / "20260101-000000-abcd").mkdir(parents=True)
    job._remove_old_scratch()
    assert left.exists(), "it is not old"
    later = time.time() + 2 * job.DAY
    monkeypatch.setattr("plastic_cli.sweeps.job.time.time", lambda: later)
    with FileLock(living / "20260101-000000-abcd" / "lock"):
        job._remove_old_scratch()
    assert [folder.exists() for folder in (left, living, other)] == [False, True, True]
