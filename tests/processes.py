"""`plastic` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

PROGRAM = "from plastic_cli.__main__ import main; main()"


def command(*arguments):
    """Return the command line of `plastic`, as the console script would run it."""
    return [sys.executable, "-c", PROGRAM, *(str(argument) for argument in arguments)]


def environment(*folders, **variables):
    """Return the environment of a process that imports what this one would, and from `folders` before."""
    here = [entry for entry in sys.path if entry and entry != sysconfig.get_path("purelib")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*(str(folder) for folder in folders), *here]), **variables}


def run_plastic(*arguments, folders=(), timeout=120, **variables):
    """Run `plastic` to its end; `variables` are added to its environment."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(*folders, **variables),
        timeout=timeout,
        check=False,
    )
