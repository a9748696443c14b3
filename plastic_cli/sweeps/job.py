"""One run or step of a sweep, from the claim to the outcome, on this machine or on a worker of a cluster."""

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
from plastic_cli.runs.lock import HELD, is_held
from plastic_cli.runs.store import RunStore
from plastic_cli.signals import INTERRUPTED
from plastic_cli.sweeps import process
from plastic_cli.sweeps.archive import pack, unpack
from plastic_cli.sweeps.lookup import Found, Planned, claim_of, find, store_of
from plastic_cli.sweeps.steps import PlannedStep

SCRATCH = "plastic-sweep-"
"""Beginning of the name of the folder in which a worker keeps a run that it sends back."""
STOP_SECONDS = 60.0
"""Time that a run has for its last checkpoint after it was asked to stop."""
LOG_TAIL = 20_000
"""Bytes of a log that a worker sends back if it does not see the store."""
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
    """One planned run or step and how to carry it out.

    store, data: the paths on the machine of the sweep. marker: the file that tells a worker whether it sees the same
    store. threads: number of threads of the run. timeout: seconds. resume: the unfinished run to continue, or the run
    of the step. archive: that run, for a worker that does not see the store. apart: work without the store, and send
    the run back. arguments: additional arguments of `plastic train`.
    """

    planned: Planned
    sweep: str
    store: Path
    marker: str
    data: Path | None = None
    threads: int = 1
    timeout: float | None = None
    resume: str | None = None
    archive: bytes | None = None
    apart: bool = False
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    word: "busy" if another process works on the same run (retry later); "no store" if the worker does not see the store
    (send the job again with apart=True); "needs folder" if it also needs the unfinished run, or the run of the step.
    fresh: this job ran or continued the run. lasting: do not retry. files: what a step wrote into the run.
    """

    word: OutcomeWord
    run: str | None = None
    error: str | None = None
    seconds: float = 0.0
    fresh: bool = False
    lasting: bool = False
    host: str = ""
    summary: Mapping[str, float | None] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    archive: bytes | None = None
    log: str | None = None


@dataclass(frozen=True)
class Stop:
    """Requests to the jobs of a sweep in this process: stop soon, with a checkpoint, or at once."""

    soon: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)


_stops: dict[str, Stop] = {}


def stop_of(sweep: str) -> Stop:
    """Return the stop requests of a sweep."""
    return _stops.setdefault(sweep, Stop())


def request_stop(sweep: str, at_once: bool = False) -> None:
    """Ask the jobs of a sweep in this process to stop; the sweep calls this on every worker."""
    stop = stop_of(sweep)
    stop.soon.set()
    if at_once:
        stop.at_once.set()


def sees_store(store: Path, marker: str) -> bool:
    """Return whether this process sees the store of a sweep, by the marker file of the sweep."""
    return (store / SWEEPS_FOLDER / marker).is_file()


@contextmanager
def claimed(store: Path, key: str) -> Iterator[bool]:
    """Claim a run for this process and yield whether that worked; the claim ends with the process.

    Only the process with the claim starts the run, so that two sweeps never carry out the same run at once.
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
        # Removed under the lock: a process that comes later finds the run in the store.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def log_file(store: Path, key: str) -> Path:
    """Return the file with the output of a run, which stays if the run fails."""
    return store / SWEEPS_FOLDER / "logs" / f"{key}.log"


def carry_out(job: Job) -> Outcome:
    """Carry out one job."""
    if job.apart:
        return _apart(job)
    if not sees_store(job.store, job.marker):
        return Outcome("no store", host=socket.gethostname())
    store = store_of(job.store)
    with claimed(job.store, claim_of(job.planned, find(store, job.planned))) as is_claimed:
        if not is_claimed:
            return Outcome("busy")
        found = find(store.refresh(), job.planned)
        if found.standing == "running":
            return Outcome("busy")
        return existing_outcome(found) or _run(job, store, found)


def existing_outcome(found: Found) -> Outcome | None:
    """Return the outcome of a run or step that is completed in the store, or of a step without its run; else None."""
    if found.standing == "waiting":
        # Somebody removed the run, or trained it with other data, after it was done.
        return Outcome("failed", error="its run is not in the store any more", lasting=True)
    if found.standing != "done" or found.stored is None:
        return None
    if found.stage is not None:
        stage = found.stage
        return Outcome("done", found.run, seconds=stage.seconds, summary=stage.results, files=tuple(stage.files))
    return Outcome("done", found.run, seconds=float(found.stored["seconds"]), summary=found.stored["summary"])


def _apart(job: Job) -> Outcome:
    """Carry out a run in a temporary folder of this machine and send it back, even if it is unfinished."""
    if job.resume is not None and job.archive is None:
        return Outcome("needs folder")
    _remove_old_scratch()
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    try:
        if job.archive is not None and job.resume is not None:
            unpack(job.archive, scratch, job.resume)
        store = RunStore(scratch).refresh()
        outcome = _run(job, store, find(store, job.planned))
        log = log_file(scratch, job.planned.key)
        return replace(
            outcome,
            archive=pack(scratch / outcome.run) if outcome.run else None,
            log=log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if log.exists() else None,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_old_scratch() -> None:
    """Remove folders of killed workers: those that are a day old and hold no run of a living process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError):
            old = not folder.is_symlink() and last_change(folder) < time.time() - DAY
            if old and not any(is_held(run) for run in folder.iterdir() if run.is_dir()):
                shutil.rmtree(folder, ignore_errors=True)


def _run(job: Job, store: RunStore, found: Found) -> Outcome:
    """Start the process of one run or step, wait for its end and read the outcome from the store."""
    stop = stop_of(job.sweep)
    if stop.soon.is_set():
        return Outcome("interrupted")
    log = log_file(store.folder, job.planned.key)
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = _arguments(job, store, found, log.with_suffix(".toml"))
    began = time.monotonic()
    with log.open("ab") as stream:
        child = process.start(arguments, _environment(job), stream)
        why, code = _wait(child, stop, None if job.timeout is None else began + job.timeout)
    after = find(store.refresh(), job.planned)
    # A run that fails at once may leave no folder; the one that failed before is not this one.
    run = None if found.standing == "failed" and after.run == found.run else after.run
    outcome = Outcome("done", run, seconds=time.monotonic() - began, fresh=True, host=socket.gethostname())
    done = existing_outcome(after) if after.standing == "done" else None
    if done is not None:
        log.unlink(missing_ok=True)
        log.with_suffix(".toml").unlink(missing_ok=True)
        return replace(outcome, summary=done.summary, files=done.files)
    # After a signal that the sweep did not send, such as one of a batch system, the run is resumable too.
    if why == "stopped" or (why == "ended" and code == INTERRUPTED):
        return replace(outcome, word="interrupted")
    if why == "timeout":
        again = "repeat" if isinstance(job.planned, PlannedStep) else "continue"
        error = f"stopped after {job.timeout:g} s (--timeout)" + (f": sweep again to {again} it" if run else "")
        return replace(outcome, word="failed", error=error, lasting=True)
    error = _error(code, log)
    if isinstance(job.planned, PlannedStep) and HELD in error:
        # Somebody began another command on the run while this process started.
        return Outcome("busy")
    return replace(outcome, word="failed", error=error, lasting=code == 2)


def _arguments(job: Job, store: RunStore, found: Found, settings: Path) -> list[str]:
    """Return the arguments of `plastic` for a run or step; its options are written into the file `settings`."""
    planned, places = job.planned, ["--json", "--runs", str(store.folder)]
    if job.data is not None and job.data.is_dir():
        places += ["--data", str(job.data)]
    if isinstance(planned, PlannedStep):
        arguments = [planned.verb, planned.rule, *places, "--run", str(found.run)]
    else:
        arguments = ["train", planned.rule, *places, *job.arguments]
        if found.standing == "unfinished" and found.run is not None:
            return [*arguments, "--resume", found.run]
    write_atomically(settings, planned.toml, durable=False)
    return [*arguments, "--config", str(settings)]


def _wait(child: process.Process, stop: Stop, deadline: float | None) -> tuple[str, int]:
    """Wait for the process of a run, stop it on request or at the deadline; return why it ended, and its exit code."""
    why, stopped_at = "ended", None
    while True:
        try:
            return why, child.wait(0.1 if stopped_at is None else 0.5)
        except subprocess.TimeoutExpired:
            pass
        except BaseException:
            # A worker that ends stops its run.
            child.terminate()
            raise
        now = time.monotonic()
        if stopped_at is not None:
            if now - stopped_at > STOP_SECONDS or stop.at_once.is_set():
                process.kill(child)
        elif stop.soon.is_set() or (deadline is not None and now > deadline):
            why, stopped_at = ("stopped" if stop.soon.is_set() else "timeout"), now
            child.terminate()


def _environment(job: Job) -> dict[str, str]:
    # The process imports the same modules as this one, even if they are not installed.
    path = os.pathsep.join(entry for entry in sys.path if entry and not entry.startswith((sys.prefix, sys.base_prefix)))
    # The same for any number of workers and cores: with other threads, sums differ in their last digits.
    limits = dict.fromkeys(THREAD_LIMITS, str(job.threads))
    return {**os.environ, **limits, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "120"}


def _error(code: int, log: Path) -> str:
    """Return in one line why a run failed: the last line of its output, or the signal that ended it."""
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
    printed = [line for line in lines if line.strip() and not line.startswith("{")]
    last = next((line.removeprefix("error: ") for line in reversed(printed) if line.startswith("error: ")), None)
    return last or (printed[-1].strip() if printed else f"it ended with exit code {code}")
