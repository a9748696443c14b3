"""The sweep: it sends runs and steps to workers, collects their outcomes and retries what failed."""

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

from plastic_cli.errors import PlasticError, UserError
from plastic_cli.files import write_atomically
from plastic_cli.runs.cleaning import SWEEPS_FOLDER, clean_store_daily
from plastic_cli.runs.lock import locked_folder
from plastic_cli.sweeps.archive import RUN_NAME, finish_moves, pack, unpack
from plastic_cli.sweeps.job import Job, Outcome, carry_out, claimed, existing_outcome, log_file, sees_store
from plastic_cli.sweeps.lookup import Planned, claim_of, find, store_of
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.pools import Pool
from plastic_cli.sweeps.steps import PlannedStep

BUSY_SECONDS = 1.0
"""Seconds until a run of another process is checked again."""
POLL_SECONDS = 0.25
STOP_AGAIN_SECONDS = 3.0
MARK_SECONDS = 600.0
"""Seconds after which the marker of a sweep is renewed; a marker that is a day old belongs to a killed sweep."""

RunWord = Literal["done", "failed", "interrupted", "left", "blocked"]
"""left: not begun. blocked: a step whose run failed; a step whose run was interrupted is left."""
_END_WORDS: dict[str, RunWord] = {"done": "done", "failed": "failed"}


@dataclass(eq=False)
class SweepRun:
    """One planned run or step in a sweep: its attempts, and its end.

    of: the run of a step. before: the step before it on the same run, since one process at a time writes to a run.
    attempt: number of failed attempts. ready: time of the next check, while another process works on the run. apart:
    the worker does not see the store. began: start of the present attempt. claim: held while a worker that does not see
    the store carries out the run. word: how the run ended. log: the output of a failed run.
    """

    planned: Planned
    of: SweepRun | None = None
    before: SweepRun | None = None
    attempt: int = 0
    ready: float = 0.0
    apart: bool = False
    began: float = 0.0
    claim: ExitStack = field(default_factory=ExitStack)
    word: RunWord = "left"
    outcome: Outcome = field(default_factory=lambda: Outcome("interrupted"))
    log: Path | None = None
    ended: bool = False

    @property
    def waits(self) -> bool:
        """Whether the run of this step, or the step before it, has not ended yet."""
        return any(other is not None and not other.ended for other in (self.of, self.before))

    @property
    def blocked(self) -> bool:
        """Whether the run of this step ended and is not done."""
        return self.of is not None and self.of.ended and self.of.word != "done"

    @property
    def fresh(self) -> bool:
        """Whether this sweep carried it out; otherwise it was in the store before, or another process did."""
        return self.outcome.fresh


@dataclass
class Progress:
    """The state of a sweep, for the display.

    elsewhere: number of runs that another process works on. began: when the sweep started.
    """

    total: int
    slots: int = 0
    results: list[SweepRun] = field(default_factory=list)
    running: list[SweepRun] = field(default_factory=list)
    waiting: list[SweepRun] = field(default_factory=list)
    elsewhere: int = 0
    stopping: bool = False
    began: float = field(default_factory=time.monotonic)

    def count(self, word: RunWord) -> int:
        """Return the number of runs that ended with `word`."""
        return sum(result.word == word for result in self.results)

    def seconds_left(self) -> float | None:
        """Estimate the remaining time from finished runs of the same rule and equal steps; None if it is unknown."""
        if not self.waiting and not self.running:
            return 0.0
        took: dict[str, list[float]] = {}
        for result in self.results:
            if result.word == "done":
                took.setdefault(result.planned.kind, []).append(result.outcome.seconds)

        def expected(planned: Planned) -> float | None:
            if planned.kind in took:
                return sum(took[planned.kind]) / len(took[planned.kind])
            return None if planned.minutes is None else 60 * planned.minutes

        now = time.monotonic()
        rest: list[float] = []
        for run, spent in [*((run, now - run.began) for run in self.running), *((run, 0.0) for run in self.waiting)]:
            seconds = expected(run.planned)
            if seconds is None:
                return None
            rest.append(max(0.0, seconds - spent))
        # The longest run cannot be divided among workers.
        return max(sum(rest) / max(1, self.slots), *rest)


class Sweep:
    """One sweep over a plan. `run` carries it out; `progress` holds its present state."""

    def __init__(
        self,
        plan: Sequence[Planned],
        pool: Pool,
        store: Path,
        options: SweepOptions,
        *,
        data: Path | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Plan a sweep whose runs go to the folder `store`; `arguments` are added to every `plastic train`.

        plan: runs, and after them the steps on them.
        """
        # Whole paths: a worker on another machine has another working folder.
        self.store = store.resolve()
        self.data = None if data is None else data.expanduser().resolve()
        self.options, self.arguments = options, arguments
        self._runs = _linked(plan)
        self.pool = pool
        self.progress = Progress(len(plan))
        self._waiting = deque(self._runs)
        self._running: dict[Future[Outcome], SweepRun] = {}
        self._name = secrets.token_hex(8)
        self._marker = f"marker-{self._name}"
        self._renewed = time.monotonic()

    def add(self, planned: Planned) -> None:
        """Add a run to the sweep; `show` may call this while the sweep runs."""
        self.progress.total += 1
        run = SweepRun(planned)
        self._runs.append(run)
        self._waiting.append(run)

    def run(self, show: Callable[[Progress], None]) -> list[SweepRun]:
        """Carry out all runs and return them in the order in which they ended.

        show: called several times per second. On KeyboardInterrupt the active runs are asked to stop. They end as
        "interrupted" and the others as "left", and a later sweep finishes them. Raises RunFailed if the pool is lost.
        """
        with self._marked():
            try:
                self._go_on(show)
            except KeyboardInterrupt:
                self._stop(show)
        for run in self._waiting:
            self._end(run, "left", Outcome("interrupted"))
        self._waiting.clear()
        ended = set(map(id, self.progress.results))
        for run in self._runs:
            # Ctrl-C came between the end of a run and its result.
            if id(run) not in ended:
                self._end(run, "interrupted", Outcome("interrupted"))
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
            run = self._waiting.popleft()
            if run.blocked:
                self._end(run, *without_its_run(run))
            elif run.waits or run.ready > now:
                self._waiting.append(run)
            else:
                self._send(run)

    def _send(self, run: SweepRun) -> None:
        run.began = time.monotonic()
        job = Job(
            planned=run.planned,
            sweep=self._name,
            store=self.store,
            marker=self._marker,
            data=self.data,
            threads=self.options.threads,
            timeout=self.options.timeout,
            arguments=self.arguments,
        )
        if run.apart:
            prepared = self._prepared(run, job)
            if prepared is None:
                return
            job = prepared
        self._running[self.pool.executor.submit(carry_out, job)] = run

    def _prepared(self, run: SweepRun, job: Job) -> Job | None:
        """Return the job for a worker that does not see the store; None if the run is done or another process has it.

        Such a worker cannot claim the run: this process holds the claim meanwhile.
        """
        planned, store = run.planned, store_of(self.store)
        is_claimed = run.claim.enter_context(claimed(self.store, claim_of(planned, find(store, planned))))
        found = find(store.refresh(), planned)
        existing = existing_outcome(found)
        if existing is None and is_claimed and found.standing != "running":
            sent = found.run if isinstance(planned, PlannedStep) or found.standing == "unfinished" else None
            if not isinstance(planned, PlannedStep) and (sent is None or RUN_NAME.fullmatch(sent) is None):
                # A folder with a name that cannot be sent stays, and the run starts again.
                return replace(job, apart=True, resume=None, archive=None)
            with suppress(UserError):
                # A command by hand on the same run would be lost when the run is sent back.
                run.claim.enter_context(locked_folder(self.store / str(sent), {}))
                return replace(job, apart=True, resume=sent, archive=pack(self.store / str(sent)))
        run.claim.close()
        self._take(run, existing or Outcome("busy"))
        return None

    def _collect(self) -> None:
        if not self._running:
            time.sleep(POLL_SECONDS)
            return
        ended, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in ended:
            run = self._running.pop(future)
            with run.claim:
                self._take(run, self._outcome(future, run))

    def _outcome(self, future: Future[Outcome], run: SweepRun) -> Outcome:
        try:
            outcome = future.result()
            if outcome.archive is not None and outcome.run is not None:
                return self._moved_in(outcome, run)
            if outcome.log is not None and outcome.word == "failed":
                self._write_log(run.planned, outcome.log)
            return outcome
        except CancelledError:
            return Outcome("interrupted")
        except PlasticError as error:
            return Outcome("failed", error=str(error), fresh=True)
        except Exception as error:  # noqa: BLE001  a lost worker or a full disk raises errors of any kind
            reason = str(error).splitlines()[0] if str(error) else ""
            name = type(error).__name__
            if name == "KilledWorker":
                return Outcome("failed", error="every worker that had this run died", fresh=True)
            return Outcome("failed", error=f"{name}: {reason}" if reason else name, fresh=True)

    def _moved_in(self, outcome: Outcome, run: SweepRun) -> Outcome:
        """Move a run that a worker sent back into the store."""
        store = self.store
        again = find(store_of(store), run.planned).run == outcome.run
        assert outcome.archive is not None
        folder = unpack(outcome.archive, store, str(outcome.run), replaces=again)
        if outcome.log is not None and outcome.word == "failed":
            self._write_log(run.planned, outcome.log)
        elif outcome.word == "done":
            # The log of an earlier, failed attempt.
            log_file(store, run.planned.key).unlink(missing_ok=True)
        return replace(outcome, run=folder.name, archive=None, log=None)

    def _write_log(self, planned: Planned, text: str) -> None:
        path = log_file(self.store, planned.key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text, durable=False)

    def _take(self, run: SweepRun, outcome: Outcome) -> None:
        """Store the end of a run, or let it wait for another attempt."""
        if outcome.word == "busy":
            run.ready = time.monotonic() + BUSY_SECONDS
            self._waiting.append(run)
        elif outcome.word in ("no store", "needs folder"):
            run.apart = True
            self._waiting.appendleft(run)
        elif outcome.word == "failed" and run.attempt < self.options.retry and not outcome.lasting:
            run.attempt += 1
            self._waiting.append(run)
        else:
            self._end(run, _END_WORDS.get(outcome.word, "interrupted"), outcome)

    def _end(self, run: SweepRun, word: RunWord, outcome: Outcome) -> None:
        log = log_file(self.store, run.planned.key)
        run.log = log if word == "failed" and log.exists() else None
        run.word, run.outcome, run.ended = word, outcome, True
        self.progress.results.append(run)

    def _stop(self, show: Callable[[Progress], None]) -> None:
        """Ask the active runs to stop and wait for them; a second Ctrl-C ends them at once."""
        self.progress.stopping = True
        requested = float("-inf")
        try:
            while self._running:
                self.pool.check()
                # Repeated, because the run of a lost worker may start again on a worker that had no request yet.
                if time.monotonic() - requested > STOP_AGAIN_SECONDS:
                    self.pool.stop(self._name, False)
                    requested = time.monotonic()
                self._tell(show)
                ended, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in ended:
                    run = self._running.pop(future)
                    with run.claim:
                        outcome = self._outcome(future, run)
                        self._end(run, _END_WORDS.get(outcome.word, "interrupted"), outcome)
        except KeyboardInterrupt:
            self.pool.stop(self._name, True)
            raise

    def _tell(self, show: Callable[[Progress], None]) -> None:
        now = time.monotonic()
        self.progress.running = list(self._running.values())
        self.progress.waiting = list(self._waiting)
        self.progress.elsewhere = sum(run.ready > now and not run.waits for run in self._waiting)
        if now - self._renewed > MARK_SECONDS:
            self._renewed = now
            with suppress(OSError):
                # Only renewed: a marker that was removed stays removed.
                os.utime(self.store / SWEEPS_FOLDER / self._marker)
        show(self.progress)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Create the marker file that tells workers whether they see this store."""
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


def without_its_run(step: SweepRun) -> tuple[RunWord, Outcome]:
    """Return the word of a step whose run ended and is not done: a later sweep finishes an interrupted run."""
    assert step.of is not None
    if step.of.word == "failed":
        return "blocked", Outcome("failed", error="its run failed")
    return "left", Outcome("interrupted")


def _linked(plan: Sequence[Planned]) -> list[SweepRun]:
    """Return the runs and steps of a plan, each step with its run and with the step before it on the same run."""
    linked = []
    runs: dict[str, SweepRun] = {}
    latest: dict[str, SweepRun] = {}
    for planned in plan:
        if isinstance(planned, PlannedStep):
            of = planned.of.settings
            run = SweepRun(planned, of=runs[of], before=latest.get(of))
            latest[of] = run
        else:
            run = runs[planned.settings] = SweepRun(planned)
        linked.append(run)
    return linked
