"""The pools that carry out runs: threads of this process that each watch one run, or the workers of a Dask cluster.

Both have the interface of `concurrent.futures.Executor`, so that a sweep works the same with both.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from plastic_cli.distribution import install_command
from plastic_cli.errors import RunFailed, UserError, did_you_mean
from plastic_cli.numerics.machine import cores, memory
from plastic_cli.sweeps.job import request_stop

CLUSTERS = {
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "sge": ("SGECluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
}
"""For each batch system its class in dask-jobqueue, and the command that shows that the system is installed."""

ADDRESS = r"(?:(?:tcp|tls|ucx|wss?)://)?(?:\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):\d{1,5}"
"""The address of a Dask scheduler; for a text of another form Dask would wait without end."""

CONNECT_SECONDS = 15.0
MEMORY_OF_A_RUN = 1 << 30
"""Bytes. A run on MNIST takes about half of it."""
JOB_DEFAULTS: dict[str, Any] = {"cores": 1, "memory": "4GB", "walltime": "24:00:00"}
"""Resources of a job of a batch system, if the file jobqueue.yaml does not set them."""


@dataclass(frozen=True)
class Pool:
    """An executor and functions for the sweep.

    slots: present number of runs at once. stop: asks the jobs of a sweep to stop, soon or at once. check: raises
    RunFailed if the pool is lost.
    """

    executor: Executor
    slots: Callable[[], int]
    stop: Callable[[str, bool], None]
    check: Callable[[], None]
    description: str


@contextmanager
def open_pool(scheduler: str | None, workers: int | None, threads: int = 1) -> Iterator[Pool]:
    """Open the pool of `--scheduler` and `--workers`; raises UserError if it does not exist.

    threads: number of threads of each run, which decides the default of `workers`.
    """
    if scheduler is None:
        with _local(workers or default_workers(threads)) as pool:
            yield pool
    elif re.fullmatch(ADDRESS, scheduler):
        with _connected(scheduler, workers) as pool:
            yield pool
    else:
        with _batch_system(scheduler, workers) as pool:
            yield pool


def check_scheduler(scheduler: str | None, workers: int | None) -> None:
    """Raise UserError if `--scheduler` is neither an address nor an installed batch system."""
    if scheduler is None or re.fullmatch(ADDRESS, scheduler):
        return
    if scheduler not in CLUSTERS:
        raise UserError(
            f"--scheduler {scheduler}: name the address of a Dask scheduler, as in tcp://host:8786, or one of"
            f" {', '.join(CLUSTERS)}.{did_you_mean(scheduler, CLUSTERS)}"
        )
    command = CLUSTERS[scheduler][1]
    if shutil.which(command) is None:
        # Without it dask-jobqueue would wait for workers without end.
        raise UserError(
            f"--scheduler {scheduler}: the command `{command}`, which sends jobs to {scheduler}, is not installed here."
        )
    if workers is None:
        raise UserError(f"--scheduler {scheduler}: give the number of jobs with --workers.")


def default_workers(threads: int) -> int:
    """Return the default number of runs at once on this machine: they use all cores, if there is memory for them."""
    wanted, there = cores() // threads, memory()
    return max(1, wanted if there is None else min(wanted, there // MEMORY_OF_A_RUN))


@contextmanager
def _local(workers: int) -> Iterator[Pool]:
    """Threads are enough: each one waits for the process of a run."""
    executor = ThreadPoolExecutor(workers, thread_name_prefix="run")
    runs = "run" if workers == 1 else "runs"
    try:
        yield Pool(
            executor,
            slots=lambda: workers,
            stop=request_stop,
            check=lambda: None,
            description=f"{workers} {runs} at once",
        )
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _connected(address: str, workers: int | None, cluster: Any = None) -> Iterator[Pool]:
    """The workers of a Dask scheduler."""
    distributed = _import("distributed")
    # The sweep itself reports workers that come and go.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(cluster or address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--scheduler {address}: no Dask scheduler answers there ({reason}).") from None
    executor = client.get_executor(pure=False)
    try:
        _check_workers(client)

        def slots() -> int:
            total = sum(int(about["nthreads"]) for about in _workers(client).values())
            return min(total, workers) if workers else total

        def stop(sweep: str, at_once: bool) -> None:
            with suppress(Exception):
                client.run(request_stop, sweep, at_once, on_error="ignore")

        def check() -> None:
            if client.status in ("closed", "closing", "newly-created"):
                raise RunFailed(f"the Dask scheduler {address} is gone. Start the sweep again to run the rest.")

        yield Pool(executor, slots, stop, check, f"the Dask scheduler {client.scheduler.address}")
    finally:
        with suppress(Exception):
            client.close(timeout=5)


@contextmanager
def _batch_system(name: str, workers: int | None) -> Iterator[Pool]:
    """Workers that dask-jobqueue starts as jobs of a batch system."""
    check_scheduler(name, workers)
    class_name, _ = CLUSTERS[name]
    jobqueue, dask = _import("dask_jobqueue"), _import("dask")
    missing = {
        key: value for key, value in JOB_DEFAULTS.items() if dask.config.get(f"jobqueue.{name}.{key}", None) is None
    }
    if name == "htcondor":
        missing.pop("walltime", None)
        if dask.config.get("jobqueue.htcondor.disk", None) is None:
            missing["disk"] = "4GB"
    try:
        cluster = getattr(jobqueue, class_name)(**missing)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"--scheduler {name}: {str(error).splitlines()[0]} (see its section of jobqueue.yaml)."
        ) from None
    try:
        cluster.scale(jobs=workers)
        with _connected(name, None, cluster) as pool:
            yield pool
    finally:
        with suppress(Exception):
            cluster.close(timeout=10)


def _workers(client: Any) -> dict[str, dict[str, Any]]:
    try:
        # Older versions have no such argument and list all workers.
        found = client.scheduler_info(n_workers=-1)
    except TypeError:
        found = client.scheduler_info()
    return dict(found.get("workers", {}))


def _check_workers(client: Any) -> None:
    """Raise UserError if a worker cannot run plastic."""
    try:
        client.run(request_stop, "")
    except Exception as error:  # noqa: BLE001  a missing package on a worker raises errors of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"a worker cannot run plastic ({reason}). Install the same version of plastic on the workers."
        ) from None


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--scheduler needs dask, which is not installed: {install_command('cluster')}.") from None
