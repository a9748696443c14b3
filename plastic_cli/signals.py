"""Handling of Ctrl-C and of the signals of batch systems: before a run, during an import, and during a run.

The program imports this module first. So a signal during the other imports ends the program with one line. That is why
this module imports as little as possible.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

INTERRUPTED = 130
"""Exit code after a signal."""
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)
"""Signals that ask a run to stop, in addition to Ctrl-C: from `kill`, a closed terminal and batch systems."""
TWICE = (signal.SIGINT, signal.SIGTERM)
"""If one of these signals comes a second time, the runs of a sweep end at once."""
REMINDER_SECONDS = 0.05
_CALLED_FROM_C = "_raw_object_cache_notify"
"""The function of llvmlite that LLVM calls with compiled code: an exception in it is printed and lost."""


def leave_on_signals() -> None:
    """Let signals end this program with one line and exit code 130."""
    if signal.getsignal(signal.SIGTERM) is _leave:
        return
    for number in (signal.SIGINT, *STOPPING):
        # A signal that the shell or a batch script ignores stays ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _leave)
    # Registered first and so called last: Python restores the default handlers before it has cleaned up.
    atexit.register(_ignore_signals)


def leave(code: int) -> None:
    """End the program with `code`, even if a signal comes while Python cleans up."""

    def at_once(number: int, frame: object) -> None:  # noqa: ARG001
        os._exit(code)

    for number in (signal.SIGINT, *STOPPING):
        if signal.getsignal(number) is _leave:
            signal.signal(number, at_once)
    sys.exit(code)


def signals_as_interrupts(repeated: tuple[int, ...] = (signal.SIGINT,)) -> AbstractContextManager[list[int]]:
    """Let every signal of STOPPING end a run as Ctrl-C does: interrupted, resumable, exit code 130.

    Yields a list of the received signals. After the first signal only those in `repeated` interrupt again, so that a
    batch system that sends several does not disturb a run that writes its checkpoint.
    """
    from contextlib import contextmanager

    return contextmanager(_signals_as_interrupts)(repeated)


def _signals_as_interrupts(repeated: tuple[int, ...]) -> Iterator[list[int]]:
    import threading

    received: list[int] = []
    waiting: set[int] = set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number in waiting:
            waiting.discard(number)
        else:
            received.append(number)
            if len(received) > 1 and number not in repeated:
                return
        if _must_wait(frame):
            # A module whose import is interrupted stays broken, and C extensions swallow the exception.
            waiting.add(number)
            reminder = threading.Timer(REMINDER_SECONDS, _send_to_this_process, (number,))
            reminder.daemon = True
            reminder.start()
            return
        raise KeyboardInterrupt

    before = {}
    # Only the main thread receives signals.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOPPING)}
    for number, handler in list(before.items()):
        # Ignored signals stay ignored, as Ctrl-C in a background job. Handlers of other programs stay as well.
        if handler in (signal.SIG_IGN, None) or (
            number not in (signal.SIGINT, signal.SIGTERM) and handler not in (signal.SIG_DFL, _leave)
        ):
            del before[number]
        else:
            signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send_to_this_process(number: int) -> None:
    # On Windows os.kill ends the process and calls no handler.
    if os.name == "posix":
        os.kill(os.getpid(), number)
    else:
        signal.raise_signal(number)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if _must_wait(frame):
        os.write(2, b"interrupted.\n")
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGINT, *STOPPING):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _must_wait(frame: FrameType | None) -> bool:
    """Return whether the signal came during an import or in a function that C calls and that cannot raise."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name == _CALLED_FROM_C:
            return True
        frame = frame.f_back
    return False
