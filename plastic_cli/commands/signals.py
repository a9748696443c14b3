"""SIGTERM as Ctrl-C, while runs are under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """Let SIGTERM end a run as Ctrl-C does: interrupted, resumable, exit code 130. Yields the signals that came."""
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001
        came.append(number)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM), signal.SIGINT: signal.getsignal(signal.SIGINT)}
    # A shell that starts a job in the background lets it ignore Ctrl-C: so it stays.
    listened = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in listened:
        signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number in listened:
            signal.signal(number, before[number])
