"""Progress and messages on stderr, so that stdout holds results only and can be piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from plastic_cli.escapes import printable, printable_line


class StepBar(Protocol):
    """The progress bar of one loop."""

    def within_step(self, fraction: float) -> None:
        """Move the bar within the present step."""

    def print(self, text: str) -> None:
        """Print a line above the bar."""

    def begin_step(self, index: int) -> None:
        """A step begins."""

    def end_step(self, done: int, summary: Mapping[str, float | None]) -> None:
        """A step is done; `summary` holds the last value of every metric."""


class Console:
    """Messages and one progress bar on stderr; only warnings when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: StepBar | None = None

    def message(self, text: str) -> None:
        """Print a line, unless quiet."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.print(text)
        else:
            _say(text)

    def warning(self, text: str) -> None:
        """Print a warning, even when quiet."""
        _say(f"warning: {text}")

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show `text` with a spinner on a terminal, and as one line elsewhere."""
        if self.quiet or self._bar is not None or not sys.stderr.isatty():
            self.message(text)
            yield
            return
        from rich.console import Console as RichConsole
        from rich.text import Text

        with RichConsole(stderr=True).status(Text(printable_line(text))):
            yield

    @contextmanager
    def progress(self, unit: str, total: int, done: int) -> Iterator[StepBar]:
        """Show a progress bar over a loop of `total` steps."""
        if self.quiet:
            yield _NoBar()
            return
        self._bar = bar = _RichBar(unit, total, done)
        try:
            with bar.shown():
                yield bar
        finally:
            self._bar = None

    def within_step(self, fraction: float) -> None:
        """Move the bar within the present step."""
        if self._bar is not None:
            self._bar.within_step(fraction)


class _NoBar:
    def within_step(self, fraction: float) -> None:
        pass

    def print(self, text: str) -> None:
        pass

    def begin_step(self, index: int) -> None:
        pass

    def end_step(self, done: int, summary: Mapping[str, float | None]) -> None:
        pass


class _RichBar:
    def __init__(self, unit: str, total: int, done: int) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._unit, self._total, self._done = unit, total, done
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[result]}"),
            console=RichConsole(stderr=True),
            # Without a terminal there is no bar, so that a log gets no control characters.
            disable=not sys.stderr.isatty(),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(f"{unit} {done}/{total}", total=total, completed=done, result="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self._progress:
            yield

    def begin_step(self, index: int) -> None:
        self._progress.update(self._task, description=f"{self._unit} {index + 1}/{self._total}")

    def end_step(self, done: int, summary: Mapping[str, float | None]) -> None:
        shown = headline(summary)
        self._done = done
        self._progress.update(self._task, completed=done, result=printable_line("  ".join(shown[-2:])))

    def within_step(self, fraction: float) -> None:
        self._progress.update(self._task, completed=self._done + min(max(fraction, 0.0), 1.0))

    def print(self, text: str) -> None:
        self._progress.console.print(printable(text, keep="\n\t"), markup=False, highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    # A closed stderr must not end a run.
    with suppress(BrokenPipeError):
        print(printable(line, keep="\n\t"), file=sys.stderr, flush=True)  # noqa: T201


def headline(summary: Mapping[str, float | None]) -> list[str]:
    """Return the main metrics of a summary with their values, as a progress bar shows them."""
    from plastic_cli.plugins.metrics import metric_of

    main = ("accuracy", "return", "loss", "reward")
    found = {key: value for key, value in summary.items() if key.rpartition("/")[2] in main}
    return [
        f"{metric_of(key).name} {metric_of(key).number(value)}" for key, value in found.items() if value is not None
    ]
