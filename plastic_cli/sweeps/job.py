"""One run of a sweep, from the claim to the result, wherever it is carried out: here, or by a worker of a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from plastic_cli.files import last_change, write_atomically
from plastic_cli.runs.cleaning import DAY, SWEEPS_FOLDER
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.store import RunStore
from plastic_cli.signals import INTERRUPTED
from plastic_cli.sweeps.archive import pack, unpack
from plastic_cli.sweeps.lookup import Found, find_run, store_of
from plastic_cli.sweeps.plan import PlannedRun

SCRATCH = "plastic-sweep-"
"""Beginning of the name of a folder in which a worker keeps a run that it sends back."""
STOP_SECONDS = 60.0
"""How long a run that was asked to stop may take to write its checkpoint."""
LOG_TAIL = 20_000
"""Bytes of a log that travel back from a worker that does not see the store."""
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

OutcomeWord = Literal["done", "failed", "interrupted", "busy", "no store", "needs folder"]


@dataclass(frozen=True)
class Job:
    """One planned run, and how it is to be carried out.

    store, data: as the one who planned it sees them. marker: the file by which a worker knows that it sees the same
    store. threads: for the run; None where the worker shares its machine's cores by `slots`, the runs at once on each
    host. timeout: seconds. resume: the unfinished run to go on with, and archive: that run, for a worker that does not
    see the store. apart: work without the store, and send the run back. arguments: for `plastic train` besides.
    """

    planned: PlannedRun
    sweep: str
    store: Path
    marker: str
    data: Path | None = None
    threads: int | None = 1
    slots: Mapping[str, int] = field(default_factory=dict)
    timeout: float | None = None
    resume: str | None = None
    archive: bytes | None = None
    apart: bool = False
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    busy: another process is at the same run, so it is to be asked for again. no store: the worker does not see the
    store, so it is to be asked to work apart; needs folder: and wants the unfinished run. fresh: it was run, or gone on
    with, by this job. lasting: there is no use in trying again.
    """

    word: OutcomeWord
    run: str | None = None
    error: str | None = None
    seconds: float = 0.0
    fresh: bool = False
    lasting: bool = False
    host: str = ""
    summary: Mapping[str, float | None] = field(default_factory=dict)
    archive: bytes | None = None
    log: str | None = None


@dataclass(frozen=True)
class Stop:
    """How the jobs of a sweep in this process are told to stop: soon, with a checkpoint, or at once."""

    soon: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)


_stops: dict[str, Stop] = {}


def stop_of(sweep: str) -> Stop:
    """Return how the jobs of a sweep are told to stop."""
    return _stops.setdefault(sweep, Stop())


def request_stop(sweep: str, at_once: bool = False) -> None:
    """Ask the jobs of a sweep in this process to stop; called by the sweep on every worker."""
    stop = stop_of(sweep)
    stop.soon.set()
    if at_once:
        stop.at_once.set()


def sees_store(store: Path, marker: str) -> bool:
    """Say whether this process sees the store of a sweep, which has put a file with a name of its own there."""
    return (store / SWEEPS_FOLDER / marker).is_file()


@contextmanager
def claimed(store: Path, key: str) -> Iterator[bool]:
    """Claim a run for this process, which the operating system undoes however the process ends; yield whether it did.

    Only who holds the claim starts the run, so that no two sweeps do the same one at once.
    """
    folder = store / SWEEPS_FOLDER / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Under the lock: whoever comes later looks into the store and finds what there is.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def log_file(store: Path, key: str) -> Path:
    """Return where the output of a run stands while it runs, and where it stays if it fails."""
    return store / SWEEPS_FOLDER / "logs" / f"{key}.log"


def carry_out(job: Job) -> Outcome:
    """Do one job to its end."""
    if job.apart:
        return _apart(job)
    if not sees_store(job.store, job.marker):
        return Outcome("no store", host=socket.gethostname())
    with claimed(job.store, job.planned.key) as mine:
        if not mine:
            return Outcome("busy")
        store = store_of(job.store)
        found = find_run(store, job.planned)
        if found.standing == "running":
            return Outcome("busy")
        return existing_outcome(found) or _run(job, store, found)


def existing_outcome(found: Found) -> Outcome | None:
    """Return the outcome of a run that is completed in the store, or None."""
    if found.standing != "done" or found.stored is None:
        return None
    return Outcome("done", found.run, seconds=float(found.stored["seconds"]), summary=found.stored["summary"])


def _apart(job: Job) -> Outcome:
    """Carry out a run in a folder of this machine and send it back, finished or not."""
    if job.resume is not None and job.archive is None:
        return Outcome("needs folder")
    _remove_old_scratch()
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    try:
        if job.archive is not None and job.resume is not None:
            unpack(job.archive, scratch, job.resume)
        store = RunStore(scratch).refresh()
        outcome = _run(job, store, find_run(store, job.planned))
        log = log_file(scratch, job.planned.key)
        return replace(
            outcome,
            archive=pack(scratch / outcome.run) if outcome.run else None,
            log=log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if log.exists() else None,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_old_scratch() -> None:
    """Remove the folders of workers that were killed: a day old, and with no run that a living process holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError):
            old = not folder.is_symlink() and last_change(folder) < time.time() - DAY
            if old and not any(is_held(run) for run in folder.iterdir() if run.is_dir()):
                shutil.rmtree(folder, ignore_errors=True)


def _run(job: Job, store: RunStore, found: Found) -> Outcome:
    """Start the process of one run, wait for its end and read the outcome from the store."""
    stop = stop_of(job.sweep)
    if stop.soon.is_set():
        return Outcome("interrupted")
    key = job.planned.key
    log = log_file(store.folder, key)
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["train", job.planned.rule, "--json", "--runs", str(store.folder), *job.arguments]
    if job.data is not None and job.data.is_dir():
        arguments += ["--data", str(job.data)]
    if found.standing == "unfinished" and found.run is not None:
        arguments += ["--resume", found.run]
    else:
        settings = log.with_suffix(".toml")
        write_atomically(settings, job.planned.toml, durable=False)
        arguments += ["--config", str(settings)]
    began = time.monotonic()
    with log.open("ab") as stream:
        child = subprocess.Popen(
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            # Ctrl-C at the terminal is the sweep's: it tells its runs.
            start_new_session=True,
        )
        why = _wait(child, stop, None if job.timeout is None else began + job.timeout)
    after = find_run(store.refresh(), job.planned)
    # A run that fails at once may leave no folder; the one that failed before is not this one.
    run = None if found.standing == "failed" and after.run == found.run else after.run
    outcome = Outcome("done", run, seconds=time.monotonic() - began, fresh=True, host=socket.gethostname())
    if after.standing == "done" and after.stored is not None:
        log.unlink(missing_ok=True)
        log.with_suffix(".toml").unlink(missing_ok=True)
        return replace(outcome, summary=after.stored["summary"])
    # Another signal than the sweep's, as a batch system sends it to every process of a job, leaves it resumable too.
    if why == "stopped" or (why == "ended" and child.returncode == INTERRUPTED):
        return replace(outcome, word="interrupted")
    if why == "timeout":
        error = f"stopped after {job.timeout:g} s (--timeout)" + (": sweep again to go on with it" if run else "")
        return replace(outcome, word="failed", error=error, lasting=True)
    return replace(outcome, word="failed", error=_error(child.returncode, log), lasting=child.returncode == 2)


def command(arguments: list[str]) -> list[str]:
    """Return the command line of `plastic` with these arguments, as a process that ends with this one.

    -P: nothing that happens to lie in the working folder is imported.
    """
    return [sys.executable, "-P", "-m", "plastic_cli.sweeps.child", str(os.getpid()), "plastic_cli", *arguments]


def _wait(child: subprocess.Popen[bytes], stop: Stop, deadline: float | None) -> str:
    """Wait for a run's process, ask it to stop where that is wanted, and return why it ended."""
    why, asked = "ended", None
    while True:
        try:
            child.wait(0.1 if asked is None else 0.5)
            return why
        except subprocess.TimeoutExpired:
            pass
        except BaseException:
            # A worker that is being torn down takes its run with it.
            child.terminate()
            raise
        now = time.monotonic()
        if asked is not None:
            if now - asked > STOP_SECONDS or stop.at_once.is_set():
                _kill(child)
        elif stop.soon.is_set() or (deadline is not None and now > deadline):
            why, asked = ("stopped" if stop.soon.is_set() else "timeout"), now
            child.terminate()


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a process at once, with the processes that it started where the system has process groups."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def _environment(job: Job) -> dict[str, str]:
    threads = job.threads
    if threads is None:
        here = socket.gethostname()
        threads = thread_share(job.slots.get(here, 1))
    # The process imports what this one would, also where that is not installed.
    path = os.pathsep.join(entry for entry in sys.path if entry and not entry.startswith((sys.prefix, sys.base_prefix)))
    limits = dict.fromkeys(THREAD_LIMITS, str(threads))
    return {**os.environ, **limits, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "120"}


def thread_share(at_once: int) -> int:
    """Return how many threads each of some runs at once may have; OMP_NUM_THREADS is the most that any gets."""
    share = max(1, cores() // max(1, at_once))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _error(code: int, log: Path) -> str:
    """Return in one line why a run failed: what it said last, or the signal that ended it."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"the process was ended by {name}"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line for line in lines if line.strip() and not line.startswith("{")]
    last = next((line.removeprefix("error: ") for line in reversed(said) if line.startswith("error: ")), None)
    return last or (said[-1].strip() if said else f"it ended with exit code {code}")
