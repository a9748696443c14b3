"""A process that has imported everything and forks one `plastic` after the other, so that a run starts at once.

It reads a JSON list of arguments and answers with the child's process id, which stays the child's until another line
comes; then it waits for the child and answers with its exit code, negative for the signal that ended it. Run as a
program by the tests that kill processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    """Answer requests until the input ends."""
    from plastic_cli.app import run_command_line

    # The first request is carried out here: it imports and compiles whatever the later ones need.
    warm_up = json.loads(sys.stdin.readline())
    print(run_command_line(warm_up), flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        print(child, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(arguments: list[str]) -> None:
    """End as the console script would, without the clean-up that belongs to the parent."""
    from plastic_cli.app import run_command_line

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    try:
        code = run_command_line(arguments)
    except KeyboardInterrupt:
        code = 130
    os._exit(code)


if __name__ == "__main__":
    main()
