"""Compiles a rule's numeric kernels with numba and keeps the machine code in the user's cache folder.

numba would keep it beside the source file, which an installation need not be able to write, and it notices a change in
the file of the function called from Python but not in a function that this calls. Hence a folder of our own, named
after the contents of all kernel modules of a rule. `NUMBA_CACHE_DIR` overrides it; where nothing is writable every
process compiles anew.
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

# What the compiler may assume of floating-point numbers: it may reorder and fuse, but infinities and NaNs stay what
# they are.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


class _StopsTheClock(event.Listener):
    """Keeps compilation out of the training time."""

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        compilation_begins()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        compilation_ends()


event.register("numba:compile", _StopsTheClock())  # type: ignore[no-untyped-call]


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other kernels call; it becomes a part of their machine code."""
    compiled: Callable[P, R] = numba.njit(fastmath=FASTMATH, error_model="numpy", forceinline=True)(function)
    return compiled


class Kernels:
    """The compiler of one rule's kernels.

    folder: where their source lies; modules: the files that the machine code depends on, all of them.
    """

    def __init__(self, folder: Path, modules: tuple[str, ...]) -> None:
        self.folder = folder
        self.modules = modules

    def kernel(self, function: Callable[P, R]) -> Callable[P, R]:
        """Compile a function for calls from Python at its first call and keep it for later processes; no GIL held."""
        options: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True}
        settings: Any = numba.config
        chosen = settings.CACHE_DIR
        try:
            settings.CACHE_DIR = chosen or self._cache_folder()
            compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no folder that it can write to
            compiled = numba.njit(**options)(function)
        finally:
            settings.CACHE_DIR = chosen

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return compiled(*args, **kwargs)
            except OSError:  # the cache could not be read or written, a full disk say; by now the function is compiled
                return compiled(*args, **kwargs)

        return call

    def _cache_folder(self) -> str:
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for name in self.modules:
            digest.update((self.folder / name).read_bytes())
        return str(platformdirs.user_cache_path("plastic") / "numba" / digest.hexdigest()[:16])
