"""A clock for training time that stands still while kernels are compiled."""

from __future__ import annotations

import threading
import time

_state = threading.local()
_compiling = {"seconds": 0.0}


def training_clock() -> float:
    """Return a time in seconds without the time of compilations that are over; only differences have a meaning."""
    return time.perf_counter() - _compiling["seconds"]


def compilation_begins() -> None:
    """Stop the clock; a compilation within another one counts once."""
    _state.depth = getattr(_state, "depth", 0) + 1
    if _state.depth == 1:
        _state.began = time.perf_counter()


def compilation_ends() -> None:
    """Start the clock again, at the end of the outermost compilation."""
    _state.depth -= 1
    if _state.depth == 0:
        _compiling["seconds"] += time.perf_counter() - _state.began
