"""A clock of training time that stops while kernels are compiled, and a way to show that they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

_state = threading.local()
_compiling = {"seconds": 0.0}
_shown_by: list[Callable[[], AbstractContextManager[object]]] = []


def training_clock() -> float:
    """Return a time in seconds that excludes finished compilations; only differences have a meaning."""
    return time.perf_counter() - _compiling["seconds"]


def compilation_begins() -> None:
    """Stop the clock. A compilation within another one counts once."""
    _state.depth = getattr(_state, "depth", 0) + 1
    if _state.depth == 1:
        _state.began = time.perf_counter()
        _state.shown = ExitStack()
        for show in _shown_by:
            _state.shown.enter_context(show())


def compilation_ends() -> None:
    """Start the clock again, at the end of the outermost compilation."""
    _state.depth -= 1
    if _state.depth == 0:
        _state.shown.close()
        _compiling["seconds"] += time.perf_counter() - _state.began


@contextmanager
def while_compiling(show: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Within this block, enter `show()` whenever numba starts to compile and exit it when numba has finished.

    numba reports this itself: a kernel that it finds in its cache is not compiled, and `show` is not called.
    """
    _shown_by.append(show)
    try:
        yield
    finally:
        _shown_by.remove(show)
