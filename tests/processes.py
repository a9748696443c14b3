"""`plastic` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from contextlib import suppress

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


def run_in_terminal(*arguments, columns=80, timeout=120, **variables):
    """Run `plastic` with both outputs in a terminal of `columns` columns; return what it shows, without colors."""
    # Not on Windows, where no test needs this.
    import pty

    reader, writer = pty.openpty()
    shown = b""
    with subprocess.Popen(
        command(*arguments),
        stdout=writer,
        stderr=writer,
        env=environment(COLUMNS=str(columns), TERM="xterm", **variables),
    ) as process:
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as terminal, suppress(OSError):  # the other end is closed
            while part := terminal.read(4096):
                shown += part
        code = process.wait(timeout)
    assert code == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")
