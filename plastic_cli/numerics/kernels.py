"""Compiles the kernels of a rule with numba and stores the machine code in the user cache directory.

By default numba stores machine code next to the source file, where an installed package is often not writable. It also
compiles again only if the file of the called function changes, not if a function that it calls does. We therefore use a
cache folder whose name is a hash of all kernel files of a rule. `NUMBA_CACHE_DIR` overrides it. Without a writable
folder, every process compiles the kernels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import platformdirs
from numba.core import event

from plastic_cli.numerics.clock import compilation_begins, compilation_ends

P = ParamSpec("P")
R = TypeVar("R")

# The compiler may reorder and fuse floating-point operations, but must respect infinities and NaNs.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


class _StopsTheClock(event.Listener):
    """Keeps compilation out of the training time."""

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        compilation_begins()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        compilation_ends()


event.register("numba:compile", _StopsTheClock())  # type: ignore[no-untyped-call]


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function for calls from kernels: compiled alone and then inlined by LLVM. For inner loops."""
    compiled: Callable[P, R] = numba.njit(fastmath=FASTMATH, error_model="numpy", forceinline=True)(function)
    return compiled


def section(function: Callable[P, R]) -> Callable[P, R]:
    """Name a section of one kernel: its code replaces the call before anything is compiled. For a single call."""
    compiled: Callable[P, R] = numba.njit(fastmath=FASTMATH, error_model="numpy", inline="always")(function)
    return compiled


def called(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function for calls from kernels without inlining it. For many calls outside inner loops."""
    compiled: Callable[P, R] = numba.njit(fastmath=FASTMATH, error_model="numpy")(function)
    return compiled


class Kernels:
    """The compiler of one rule's kernels.

    source: the folder of the kernels, or the file of a single kernel. If any Python file in the folder or its
    subfolders changes, numba compiles again. A kernel must not call compiled functions of other folders.
    """

    def __init__(self, source: Path) -> None:
        self.files = sorted(source.rglob("*.py")) if source.is_dir() else [source]

    def kernel(self, function: Callable[P, R]) -> Callable[P, R]:
        """Compile a function for calls from Python. It is compiled at its first call, cached, and releases the GIL."""
        options: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True}
        settings: Any = numba.config
        chosen = settings.CACHE_DIR
        try:
            settings.CACHE_DIR = chosen or self._cache_folder()
            compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba cannot write to any folder
            compiled = numba.njit(**options)(function)
        finally:
            settings.CACHE_DIR = chosen

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return compiled(*args, **kwargs)
            except OSError:  # the cache cannot be read or written (full disk); the function is compiled by now
                return compiled(*args, **kwargs)

        return call

    def _cache_folder(self) -> str:
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for file in self.files:
            digest.update(file.read_bytes())
        return str(platformdirs.user_cache_path("plastic") / "numba" / digest.hexdigest()[:16])
