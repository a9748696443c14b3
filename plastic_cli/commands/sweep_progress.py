"""The progress of a sweep on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

from plastic_cli.escapes import printable_line
from plastic_cli.runs.console import Console
from plastic_cli.sweeps.engine import Progress
from plastic_cli.tables import duration

SHOWN_AT_ONCE = 12
"""Running and failed runs that the live table lists."""


class Display(Protocol):
    """What shows the progress of a sweep."""

    def show(self, progress: Progress) -> None:
        """Show the state of the sweep."""


@contextmanager
def display(quiet: bool, what: str = "runs") -> Iterator[Display]:
    """Show the progress of a sweep on stderr: redrawn in a terminal, else one line for each end; `what` it counts."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        from rich.console import Console as RichConsole
        from rich.live import Live

        with Live(console=RichConsole(stderr=True), refresh_per_second=4, transient=True) as live:
            yield _Table(live, what)
    else:
        yield _Lines()


class _Silent:
    def show(self, progress: Progress) -> None:
        pass


class _Lines:
    """One line for each run that ended, for a log file."""

    def __init__(self) -> None:
        self._printed = 0
        self._stopping = False
        self._no_worker = False

    def show(self, progress: Progress) -> None:
        console = Console()
        for result in progress.results[self._printed :]:
            if result.word == "left":
                continue
            took = f" ({duration(result.outcome.seconds)})" if result.fresh else " (already in the store)"
            error = f": {result.outcome.error}" if result.word in ("failed", "blocked") else ""
            number = f"{self._printed + 1}/{progress.total}"
            left = progress.seconds_left()
            rest = f", {duration(left)} left" if left and result.fresh and not error else ""
            console.message(f"[{number}] {result.word} {result.planned.label}{error or took}{rest}")
            self._printed += 1
        if progress.stopping and not self._stopping:
            console.message("stopping: the runs that are running write their checkpoints")
            self._stopping = True
        if not progress.slots and progress.waiting and not self._no_worker:
            console.message("waiting for a worker")
            self._no_worker = True


class _Table:
    """A display that is redrawn: a bar, the times, the number of runs in each state, and the runs under way."""

    def __init__(self, live: Any, what: str) -> None:
        self._live, self._what = live, what

    def show(self, progress: Progress) -> None:
        from rich.console import Group
        from rich.text import Text

        ended = [result for result in progress.results if result.word == "failed"][-SHOWN_AT_ONCE:]
        failed = [
            Text(printable_line(f" failed: {result.planned.label}: {result.outcome.error}"), "red") for result in ended
        ]
        now = time.monotonic()
        running = [
            Text(printable_line(f" {_clock(now - run.began)}  {run.planned.label}"))
            for run in progress.running[:SHOWN_AT_ONCE]
        ]
        hidden = len(progress.running) - len(running)
        if hidden:
            running.append(Text(f" and {hidden} more"))
        lines = [*running, *failed]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        self._live.update(Group(self._bar(progress, now), Text(f" {_counts(progress)}"), *lines))

    def _bar(self, progress: Progress, now: float) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 1))
        ended = len(progress.results)
        left = progress.seconds_left()
        line.add_row(
            f"{self._what} {ended}/{progress.total}",
            ProgressBar(total=max(1, progress.total), completed=ended, width=30),
            _clock(now - progress.began),
            f"left {_clock(left)}",
        )
        return line


def _counts(progress: Progress) -> str:
    """Return how many runs are in each state: "3 running, 1 failed, 8 waiting"."""
    failed, waiting = progress.count("failed"), len(progress.waiting) - progress.elsewhere
    counts = {"running": len(progress.running), "failed": failed, "waiting": waiting}
    parts = [f"{number} {word}" for word, number in counts.items() if number or word == "running"]
    if progress.elsewhere:
        parts.append(f"{progress.elsewhere} running in another process")
    if progress.stopping:
        parts.append("stopping: runs write their checkpoints")
    elif not progress.slots:
        parts.append("waiting for a worker")
    return ", ".join(parts)


def _clock(seconds: float | None) -> str:
    """Return a time as the progress bar of a run shows it: 0:01:30, or -:--:-- if it is not known."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
