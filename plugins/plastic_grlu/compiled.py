"""Compiles the numeric kernels with numba and keeps the machine code in the user's cache folder.

numba would keep it beside the source file, which an installation need not be able to write, and it notices a change in
the file of the function called from Python but not in a function that this calls. Hence a folder of our own, named
after the contents of all kernel modules. `NUMBA_CACHE_DIR` overrides it; where nothing is writable every process
compiles anew.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import platformdirs

P = ParamSpec("P")
R = TypeVar("R")

# What the compiler may assume of floating-point numbers: it may reorder and fuse, but infinities and NaNs stay what
# they are.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
_KERNEL_MODULES = ("compiled.py", "polynomial.py", "noise.py", "steps.py", "any_depth.py")


def _cache_folder() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _KERNEL_MODULES:
        digest.update((folder / name).read_bytes())
    return str(platformdirs.user_cache_path("plastic") / "numba" / digest.hexdigest()[:16])


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other kernels call; it becomes a part of their machine code."""
    compiled: Callable[P, R] = numba.njit(fastmath=FASTMATH, error_model="numpy", forceinline=True)(function)
    return compiled


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function for calls from Python at its first call and keep it for later processes; no GIL held."""
    options: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True}
    settings: Any = numba.config
    chosen = settings.CACHE_DIR
    try:
        settings.CACHE_DIR = chosen or _cache_folder()
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder that it can write to
        compiled = numba.njit(**options)(function)
    finally:
        settings.CACHE_DIR = chosen

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return compiled(*args, **kwargs)
        except (
            OSError
        ):  # the cache could not be read or written, a full disk say; the function itself is compiled by now
            return compiled(*args, **kwargs)

    return call
