"""Where runs are carried out: threads of this process that each watch one run, or the workers of a Dask cluster.

Both have the interface of `concurrent.futures.Executor`, so that the sweep itself does not know which it has.
"""

from __future__ import annotations

import logging
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from plastic_cli.distribution import install_command
from plastic_cli.errors import RunFailed, UserError, did_you_mean
from plastic_cli.sweeps.job import cores, request_stop, thread_share

CLUSTERS = {
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "sge": ("SGECluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
}
"""The class in dask-jobqueue of each batch system, and the command by which it is known to be here."""

ADDRESS = r"(?:(?:tcp|tls|ucx|wss?)://)?(?:\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):\d{1,5}"
"""Of a Dask scheduler; what Dask cannot read it would wait for."""

CONNECT_SECONDS = 15.0
JOB_DEFAULTS: dict[str, Any] = {"cores": 1, "memory": "4GB", "walltime": "24:00:00"}
"""Of a job of a batch system, where its file jobqueue.yaml does not say."""


@dataclass(frozen=True)
class Pool:
    """An executor and what a sweep asks of it.

    slots: how many runs it can carry out at once now. threads: for each run, None where that differs by host.
    by_host: how many runs each host carries out at once. stop: asks the jobs of a sweep to stop, soon or at
    once. check: raises RunFailed
    where the pool is lost.
    """

    executor: Executor
    slots: Callable[[], int]
    threads: int | None
    by_host: Callable[[], Mapping[str, int]]
    stop: Callable[[str, bool], None]
    check: Callable[[], None]
    description: str


@contextmanager
def open_pool(scheduler: str | None, workers: int | None) -> Iterator[Pool]:
    """Open the pool that `--scheduler` and `--workers` ask for; raises UserError where there is no such thing."""
    if scheduler is None:
        with _local(workers or default_workers()) as pool:
            yield pool
    elif re.fullmatch(ADDRESS, scheduler):
        with _connected(scheduler, workers) as pool:
            yield pool
    else:
        with _batch_system(scheduler, workers) as pool:
            yield pool


def check_scheduler(scheduler: str | None, workers: int | None) -> None:
    """Raise UserError where `--scheduler` is neither an address nor a batch system that is here."""
    if scheduler is None or re.fullmatch(ADDRESS, scheduler):
        return
    if scheduler not in CLUSTERS:
        raise UserError(
            f"--scheduler {scheduler}: name the address of a Dask scheduler, as in tcp://host:8786, or one of"
            f" {', '.join(CLUSTERS)}.{did_you_mean(scheduler, CLUSTERS)}"
        )
    command = CLUSTERS[scheduler][1]
    if shutil.which(command) is None:
        # Without it dask-jobqueue would wait for workers for ever.
        raise UserError(
            f"--scheduler {scheduler}: there is no command `{command}` here, by which {scheduler} takes jobs."
        )
    if workers is None:
        raise UserError(f"--scheduler {scheduler}: say with --workers how many jobs it is to start.")


def default_workers() -> int:
    """Return how many runs are carried out at once here unless told otherwise: one for every two cores."""
    return max(1, cores() // 2)


@contextmanager
def _local(workers: int) -> Iterator[Pool]:
    """Threads are enough: each one waits for the process of a run."""
    executor = ThreadPoolExecutor(workers, thread_name_prefix="run")
    threads = thread_share(workers)
    here = socket.gethostname()
    runs = "run" if workers == 1 else "runs"
    try:
        yield Pool(
            executor,
            slots=lambda: workers,
            threads=threads,
            by_host=lambda: {here: workers},
            stop=request_stop,
            check=lambda: None,
            description=f"{workers} {runs} at once, {threads} thread{'s' if threads > 1 else ''} each",
        )
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _connected(address: str, workers: int | None, cluster: Any = None) -> Iterator[Pool]:
    """The workers of a Dask scheduler."""
    distributed = _import("distributed")
    # Its complaints about workers that come and go are told by the sweep.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(cluster or address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--scheduler {address}: no Dask scheduler answers there ({reason}).") from None
    executor = client.get_executor(pure=False)
    try:
        _check_workers(client)

        hosts: dict[str, str] = {}

        def by_host() -> dict[str, int]:
            present = _workers(client)
            new = [worker for worker in present if worker not in hosts]
            if new:
                hosts.update(client.run(socket.gethostname, workers=new, on_error="ignore"))
            found: Counter[str] = Counter()
            for worker, about in present.items():
                if worker in hosts:
                    found[hosts[worker]] += int(about["nthreads"])
            return dict(found)

        def slots() -> int:
            total = sum(int(about["nthreads"]) for about in _workers(client).values())
            return min(total, workers) if workers else total

        def stop(sweep: str, at_once: bool) -> None:
            with suppress(Exception):
                client.run(request_stop, sweep, at_once, on_error="ignore")

        def check() -> None:
            if client.status in ("closed", "closing", "newly-created"):
                raise RunFailed(
                    f"the Dask scheduler {address} is gone. What is left runs when the sweep is started again."
                )

        yield Pool(executor, slots, None, by_host, stop, check, f"the Dask scheduler {client.scheduler.address}")
    finally:
        with suppress(Exception):
            client.close(timeout=5)


@contextmanager
def _batch_system(name: str, workers: int | None) -> Iterator[Pool]:
    """Workers that a batch system starts as jobs of its own, through dask-jobqueue."""
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
        # Older versions know no number of workers and tell of all.
        found = client.scheduler_info(n_workers=-1)
    except TypeError:
        found = client.scheduler_info()
    return dict(found.get("workers", {}))


def _check_workers(client: Any) -> None:
    """Raise UserError where a worker cannot run what is sent to it."""
    try:
        client.run(request_stop, "")
    except Exception as error:  # noqa: BLE001  whatever a worker's missing package makes of the call
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"a worker cannot run plastic ({reason}). Install the same plastic where the workers are."
        ) from None


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--scheduler needs dask, which is not installed: {install_command('cluster')}.") from None
