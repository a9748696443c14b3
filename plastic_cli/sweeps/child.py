"""`python -m plastic_cli.sweeps.child PARENT MODULE ARGUMENTS...`: a module as a program that ends with its parent.

A worker that is killed cannot stop its run any more. So the run asks the kernel for a SIGTERM at that moment: it writes
its checkpoint and another worker finishes it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the module."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    # Whoever started the sweep may have it ignore signals; the runs listen to their sweep.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before the kernel knew that we want to hear of it.
        sys.exit(130)
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
