"""`python -m plastic_cli.sweeps.child PARENT MODULE ARGUMENTS...`: run a module that ends with its parent process.

A worker that is killed cannot stop its run any more. On Linux the run therefore asks the kernel for a SIGTERM at that
moment: it writes its checkpoint, and another worker finishes it. On other systems the run continues to its end.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def run_module(parent: int, module: str, arguments: list[str]) -> None:
    """Run a module as a program, in a process that ends with the process `parent`."""
    # Whoever started the sweep may have it ignore signals; the runs listen to their sweep.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the call above. On Windows the parent is the launcher of the virtual environment.
    if os.name == "posix" and os.getppid() != parent:
        sys.exit(130)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_module(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
