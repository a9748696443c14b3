"""Progress and warnings of the Python interface: a bar in a terminal or a notebook, and Python warnings."""

from __future__ import annotations

import html
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from plastic_cli.runs.console import Console, StepBar, headline

UPDATE_SECONDS = 0.2
"""Shortest time between two updates of a bar in a notebook."""


class PythonConsole(Console):
    """The console of runs that Python starts: it shows progress and prints nothing else.

    about: what a bar in a notebook belongs to, such as "grlu, seed 1"; empty for nothing.
    """

    about: str = ""

    def message(self, text: str) -> None:
        """Print nothing: results are returned."""

    def warning(self, text: str) -> None:
        """Issue a Python warning."""
        warnings.warn(text, UserWarning, stacklevel=2)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show `text` while something takes a while, on a terminal or in a notebook."""
        if self.quiet or not in_notebook():
            with super().working(text):
                yield
            return
        display = _Display()
        display.show(html.escape(text))
        try:
            yield
        finally:
            display.show("")

    @contextmanager
    def progress(self, unit: str, total: int, done: int) -> Iterator[StepBar]:
        """Show a progress bar over a loop of `total` steps."""
        if self.quiet or not in_notebook():
            with super().progress(unit, total, done) as bar:
                yield bar
            return
        notebook_bar = NotebookBar(unit, total, done, self.about)
        self._bar = notebook_bar
        try:
            yield notebook_bar
        finally:
            self._bar = None
            notebook_bar.close()


def in_notebook() -> bool:
    """Return whether this program is a notebook, whose cells show HTML."""
    # A notebook has imported IPython; a program that has not is none.
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _Display:
    """One output of a notebook cell, which is replaced at each update."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/html": ""}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self._handle.update({"text/html": text, "text/plain": ""}, raw=True)


class NotebookBar:
    """The progress bar of one loop in a notebook."""

    def __init__(self, unit: str, total: int, done: int, about: str = "") -> None:
        self._unit, self._total, self._done, self._first = unit, total, done, done
        self._begin = f"{about}: " if about else ""
        self._within, self._result = 0.0, ""
        self._began, self._shown = time.monotonic(), 0.0
        self._display = _Display()
        self._show()

    def begin_step(self, index: int) -> None:
        """A step begins."""
        self._done, self._within = index, 0.0
        self._show()

    def within_step(self, fraction: float) -> None:
        """Move the bar within the present step."""
        self._within = min(max(fraction, 0.0), 1.0)
        self._show()

    def end_step(self, done: int, summary: Mapping[str, float | None]) -> None:
        """A step is done; `summary` holds the last value of every metric."""
        shown = headline(summary)
        self._done, self._within, self._result = done, 0.0, ", ".join(shown[-2:])
        self._show()

    def print(self, text: str) -> None:
        """Print nothing, as `PythonConsole.message`."""

    def close(self) -> None:
        """Show the last state."""
        self._shown = 0.0
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown < UPDATE_SECONDS:
            return
        self._shown = now
        position, elapsed = self._done + self._within, now - self._began
        passed = position - self._first
        left = (
            f", {elapsed / passed * (self._total - position):.0f} s left" if passed and position < self._total else ""
        )
        step = min(self._done + 1, self._total)
        text = html.escape(f"{self._begin}{self._unit} {step}/{self._total}, {elapsed:.0f} s{left}. {self._result}")
        self._display.show(f'<progress value="{position}" max="{self._total}"></progress> {text}')
