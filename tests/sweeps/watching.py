"""Watching sweeps from outside: the program, what became of its runs, and patience."""

import time

from plastic_cli.runs.store import RunStore

PLASTIC = "from plastic_cli.__main__ import main; main()"


def statuses(folder):
    """Return the status of every run of a store."""
    return [row["status"] for row in RunStore(folder).rows()]


def until(condition, seconds=60):
    """Wait until a condition holds; it fails the test if that takes too long."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return answer
