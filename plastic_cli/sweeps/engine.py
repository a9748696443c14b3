"""The sweep: which run goes out when, what comes back, and what is done with it."""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from plastic_cli.errors import PlasticError
from plastic_cli.files import write_atomically
from plastic_cli.runs.cleaning import SWEEPS_FOLDER, clean_store_daily
from plastic_cli.sweeps.archive import RUN_NAME, finish_moves, pack, unpack
from plastic_cli.sweeps.job import Job, Outcome, carry_out, claimed, log_file, sees_store, taken
from plastic_cli.sweeps.lookup import store_index
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.pools import Pool

BUSY_SECONDS = 1.0
"""How long a run that another process is at is left alone before it is looked at again."""
POLL_SECONDS = 0.25
STOP_AGAIN_SECONDS = 3.0
MARK_SECONDS = 600.0
"""After so long the marker of a sweep is renewed: one that is a day old belongs to a sweep that was killed."""

ResultWord = Literal["done", "failed", "interrupted", "left"]


@dataclass(frozen=True)
class Result:
    """What became of a planned run. fresh: this sweep did it; otherwise it was in the store, or came there meanwhile.

    log: the file with the output of a run that failed.
    """

    planned: PlannedRun
    word: ResultWord
    outcome: Outcome
    log: Path | None = None

    @property
    def fresh(self) -> bool:
        """Whether this sweep did it."""
        return self.outcome.fresh


@dataclass
class _Waiting:
    planned: PlannedRun
    attempt: int = 0
    ready: float = 0.0
    apart: bool = False


@dataclass
class _Running:
    waiting: _Waiting
    began: float
    held: ExitStack = field(default_factory=ExitStack)


@dataclass
class Progress:
    """Where a sweep stands, for whoever shows it. elsewhere: runs that another process is at."""

    total: int
    slots: int = 0
    results: list[Result] = field(default_factory=list)
    running: list[tuple[PlannedRun, float]] = field(default_factory=list)
    waiting: list[PlannedRun] = field(default_factory=list)
    elsewhere: int = 0
    stopping: bool = False

    def count(self, word: ResultWord) -> int:
        """Return how many runs ended so."""
        return sum(result.word == word for result in self.results)

    def seconds_left(self) -> float | None:
        """Return how long the rest takes, going by the runs of the same rule so far, or None where that is unknown."""
        if not self.waiting and not self.running:
            return 0.0
        took: dict[str, list[float]] = {}
        for result in self.results:
            if result.word == "done":
                took.setdefault(result.planned.rule, []).append(result.outcome.seconds)

        def expected(planned: PlannedRun) -> float | None:
            if planned.rule in took:
                return sum(took[planned.rule]) / len(took[planned.rule])
            return None if planned.minutes is None else 60 * planned.minutes

        now, left = time.monotonic(), 0.0
        for planned, began in [*self.running, *((planned, now) for planned in self.waiting)]:
            seconds = expected(planned)
            if seconds is None:
                return None
            left += max(0.0, seconds - (now - began))
        return left / max(1, self.slots)


class Sweep:
    """One sweep over a plan. `run` carries it out; `progress` says where it stands at any time."""

    def __init__(
        self,
        plan: Sequence[PlannedRun],
        pool: Pool,
        store: Path,
        options: SweepOptions,
        *,
        data: Path | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Plan a sweep whose runs go to the folder `store`; `arguments` are added to every `plastic train`."""
        # Whole paths: a worker on another machine has another working folder.
        self.store = store.resolve()
        self.data = None if data is None else data.expanduser().resolve()
        self.options, self.arguments = options, arguments
        self._plan = list(plan)
        self.pool = pool
        self.progress = Progress(len(plan))
        self._waiting = deque(_Waiting(planned) for planned in plan)
        self._running: dict[Future[Outcome], _Running] = {}
        self._name = secrets.token_hex(8)
        self._marker = f"marker-{self._name}"
        self._renewed = time.monotonic()

    def add(self, planned: PlannedRun) -> None:
        """Take another run into the sweep; `show` may do that while it goes on."""
        self.progress.total += 1
        self._plan.append(planned)
        self._waiting.append(_Waiting(planned))

    def run(self, show: Callable[[Progress], None]) -> list[Result]:
        """Carry out all runs and return what became of each, in the order in which they ended.

        show: called several times a second. On KeyboardInterrupt the runs under way are asked to stop, which leaves
        them to be finished later, and what became of them is returned with the rest as "interrupted" and "left". Raises
        RunFailed where the pool is lost.
        """
        with self._marked():
            try:
                self._go_on(show)
            except KeyboardInterrupt:
                self._stop(show)
        for waiting in self._waiting:
            self._end(waiting.planned, "left", Outcome("interrupted"))
        self._waiting.clear()
        told = {id(result.planned) for result in self.progress.results}
        for planned in self._plan:
            # Ctrl-C came in the instant between its end and its result.
            if id(planned) not in told:
                self._end(planned, "interrupted", Outcome("interrupted"))
        self._tell(show)
        return self.progress.results

    def _go_on(self, show: Callable[[Progress], None]) -> None:
        while self._waiting or self._running:
            self.pool.check()
            self._submit()
            self._collect()
            self._tell(show)
            if not self.options.keep_going and self.progress.count("failed"):
                self._stop(show)
                return

    def _submit(self) -> None:
        self.progress.slots = self.pool.slots()
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            if len(self._running) >= self.progress.slots:
                return
            waiting = self._waiting.popleft()
            if waiting.ready > now:
                self._waiting.append(waiting)
                continue
            self._send(waiting)

    def _send(self, waiting: _Waiting) -> None:
        running = _Running(waiting, time.monotonic())
        job = Job(
            planned=waiting.planned,
            sweep=self._name,
            store=self.store,
            marker=self._marker,
            data=self.data,
            threads=self.pool.threads,
            slots=self.pool.by_host() if self.pool.threads is None else {},
            timeout=self.options.timeout,
            arguments=self.arguments,
        )
        if waiting.apart:
            # The worker cannot claim what it does not see: it is done from here, until the run has come back.
            mine = running.held.enter_context(claimed(self.store, waiting.planned.key))
            found = store_index(self.store).find(waiting.planned)
            there = taken(found)
            if not mine or found.standing == "running" or there is not None:
                running.held.close()
                self._take(running, there or Outcome("busy"))
                return
            unfinished = found.stored.run if found.standing == "unfinished" and found.stored is not None else None
            # A folder that was given a name which does not travel stays, and the run is begun again.
            resume = unfinished if unfinished is not None and RUN_NAME.fullmatch(unfinished) else None
            archive = None if resume is None else pack(self.store / resume)
            job = replace(job, apart=True, resume=resume, archive=archive)
        self._running[self.pool.executor.submit(carry_out, job)] = running

    def _collect(self) -> None:
        if not self._running:
            time.sleep(POLL_SECONDS)
            return
        ended, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in ended:
            running = self._running.pop(future)
            with running.held:
                self._take(running, self._outcome(future, running))

    def _outcome(self, future: Future[Outcome], running: _Running) -> Outcome:
        try:
            outcome = future.result()
            if outcome.archive is not None and outcome.run is not None:
                return self._moved_in(outcome, running)
            if outcome.log is not None and outcome.word == "failed":
                self._write_log(running.waiting.planned, outcome.log)
            return outcome
        except CancelledError:
            return Outcome("interrupted")
        except PlasticError as error:
            return Outcome("failed", error=str(error), fresh=True)
        except Exception as error:  # noqa: BLE001  whatever a lost worker or a full disk makes of a job
            reason = str(error).splitlines()[0] if str(error) else ""
            name = type(error).__name__
            if name == "KilledWorker":
                return Outcome("failed", error="every worker that had this run died over it", fresh=True)
            return Outcome("failed", error=f"{name}: {reason}" if reason else name, fresh=True)

    def _moved_in(self, outcome: Outcome, running: _Running) -> Outcome:
        """Put a run that a worker sent back into the store."""
        store = self.store
        found = store_index(store).find(running.waiting.planned)
        again = found.stored is not None and found.stored.run == outcome.run
        assert outcome.archive is not None
        folder = unpack(outcome.archive, store, str(outcome.run), replaces=again)
        if outcome.log is not None and outcome.word == "failed":
            self._write_log(running.waiting.planned, outcome.log)
        elif outcome.word == "done":
            # Of an attempt that failed before.
            log_file(store, running.waiting.planned.key).unlink(missing_ok=True)
        return replace(outcome, run=folder.name, archive=None, log=None)

    def _write_log(self, planned: PlannedRun, text: str) -> None:
        path = log_file(self.store, planned.key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text, durable=False)

    def _take(self, running: _Running, outcome: Outcome) -> None:
        """Note what became of a run, or let it wait for another attempt."""
        waiting = running.waiting
        if outcome.word == "busy":
            waiting.ready = time.monotonic() + BUSY_SECONDS
            self._waiting.append(waiting)
        elif outcome.word in ("no store", "needs folder"):
            waiting.apart = True
            self._waiting.appendleft(waiting)
        elif outcome.word == "failed" and waiting.attempt < self.options.retry and not outcome.lasting:
            waiting.attempt += 1
            self._waiting.append(waiting)
        elif outcome.word == "done":
            self._end(waiting.planned, "done", outcome)
        elif outcome.word == "failed":
            self._end(waiting.planned, "failed", outcome)
        else:
            self._end(waiting.planned, "interrupted", outcome)

    def _end(self, planned: PlannedRun, word: ResultWord, outcome: Outcome) -> None:
        log = log_file(self.store, planned.key) if word == "failed" else None
        self.progress.results.append(Result(planned, word, outcome, log if log is not None and log.exists() else None))

    def _stop(self, show: Callable[[Progress], None]) -> None:
        """Ask the runs under way to stop, and wait until they have; a second Ctrl-C leaves at once."""
        self.progress.stopping = True
        asked = float("-inf")
        try:
            while self._running:
                self.pool.check()
                # Again and again: a worker that is lost begins anew elsewhere, where nobody knows of it.
                if time.monotonic() - asked > STOP_AGAIN_SECONDS:
                    self.pool.stop(self._name, False)
                    asked = time.monotonic()
                self._tell(show)
                ended, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in ended:
                    running = self._running.pop(future)
                    with running.held:
                        self._stopped(running, self._outcome(future, running))
        except KeyboardInterrupt:
            self.pool.stop(self._name, True)
            raise

    def _stopped(self, running: _Running, outcome: Outcome) -> None:
        words: dict[str, ResultWord] = {"done": "done", "failed": "failed"}
        self._end(running.waiting.planned, words.get(outcome.word, "interrupted"), outcome)

    def _tell(self, show: Callable[[Progress], None]) -> None:
        now = time.monotonic()
        self.progress.running = [(running.waiting.planned, running.began) for running in self._running.values()]
        self.progress.waiting = [waiting.planned for waiting in self._waiting]
        self.progress.elsewhere = sum(waiting.ready > now for waiting in self._waiting)
        if now - self._renewed > MARK_SECONDS:
            self._renewed = now
            with suppress(OSError):
                # Renewed, and not made again once it is gone.
                os.utime(self.store / SWEEPS_FOLDER / self._marker)
        show(self.progress)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Put the file there by which workers know that they see this store."""
        folder = self.store / SWEEPS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        finish_moves(self.store)
        clean_store_daily(self.store)
        marker = folder / self._marker
        marker.touch()
        assert sees_store(self.store, self._marker)
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)
