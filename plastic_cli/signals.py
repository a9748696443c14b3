"""What Ctrl-C and the signals of batch systems do: before a run, in the middle of an import, and during a run.

Light: the program imports it before all else, so that a signal while the rest is imported ends it in one line.
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
"""Exit code of a program that a signal ended."""
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)
"""Signals that ask a run to stop, beside Ctrl-C: from `kill`, a closed terminal, and batch systems (time is up)."""
TWICE = (signal.SIGINT, signal.SIGTERM)
"""Signals of which a second one ends the runs of a sweep at once."""
REMINDER_SECONDS = 0.05
_CALLED_FROM_C = "_raw_object_cache_notify"
"""The function that LLVM calls with compiled code (llvmlite): what is raised there is printed and lost."""


def leave_on_signals() -> None:
    """From now on let signals end this program with one line and code 130."""
    if signal.getsignal(signal.SIGTERM) is _leave:
        return
    for number in (signal.SIGINT, *STOPPING):
        # What a shell or a batch script lets the program ignore stays ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _leave)
    # Registered first, so called last: Python puts the defaults back before it has cleaned up.
    atexit.register(_ignore_signals)


def leave(code: int) -> None:
    """End the program with `code`; a signal that comes while Python cleans up changes nothing any more."""

    def at_once(number: int, frame: object) -> None:  # noqa: ARG001
        os._exit(code)

    for number in (signal.SIGINT, *STOPPING):
        if signal.getsignal(number) is _leave:
            signal.signal(number, at_once)
    sys.exit(code)


def signals_as_interrupts(repeated: tuple[int, ...] = (signal.SIGINT,)) -> AbstractContextManager[list[int]]:
    """Let every signal that asks to stop end a run as Ctrl-C does: interrupted, resumable, exit code 130.

    Yields the signals that came. After the first one only those in `repeated` interrupt again: a run that writes its
    checkpoint is not to be disturbed by a batch system that sends several.
    """
    from contextlib import contextmanager

    return contextmanager(_signals_as_interrupts)(repeated)


def _signals_as_interrupts(repeated: tuple[int, ...]) -> Iterator[list[int]]:
    import threading

    came: list[int] = []
    waiting: set[int] = set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number in waiting:
            waiting.discard(number)
        else:
            came.append(number)
            if len(came) > 1 and number not in repeated:
                return
        if _must_wait(frame):
            # Modules that are interrupted in the middle stay broken, and C extensions swallow what is raised there.
            waiting.add(number)
            reminder = threading.Timer(REMINDER_SECONDS, _send_to_this_process, (number,))
            reminder.daemon = True
            reminder.start()
            return
        raise KeyboardInterrupt

    before = {}
    # Signals reach the main thread alone.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOPPING)}
    for number, handler in list(before.items()):
        # A shell that starts a job in the background lets it ignore Ctrl-C: so it stays. Others have theirs as well.
        if handler in (signal.SIG_IGN, None) or (
            number not in (signal.SIGINT, signal.SIGTERM) and handler not in (signal.SIG_DFL, _leave)
        ):
            del before[number]
        else:
            signal.signal(number, interrupt)
    try:
        yield came
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
    """Say whether a module is being imported where the signal came, or C code calls a function that cannot raise."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name == _CALLED_FROM_C:
            return True
        frame = frame.f_back
    return False
