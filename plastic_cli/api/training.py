"""The training of runs in this process, for `plastic.train` and `plastic.fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from plastic_cli.api.console import PythonConsole
from plastic_cli.errors import RunFailed
from plastic_cli.runs.run import Run
from plastic_cli.runs.stored import StoredRun
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.train import train_run
from plastic_cli.verbs.verb import RuleVerb


def train_all(
    verb: RuleVerb, runs: Iterable[Run], data: Path | None, how_to_continue: Callable[[Run], str]
) -> list[StoredRun]:
    """Train one run after the other; a run that fails does not stop the others.

    how_to_continue: returns the call that continues an interrupted run. Raises KeyboardInterrupt, with this call, if
    a run was interrupted, and RunFailed at the end if runs failed.
    """
    stored, failures = [], list[RunFailed]()
    with signals_as_interrupts() as signals:
        for run in runs:
            if isinstance(run.console, PythonConsole):
                run.console.about = f"{run.record.rule}, seed {run.seed}"
            failure = train_run(verb, run, signals)
            if run.record.status == "interrupted":
                raise KeyboardInterrupt(f"run {run.id} is stored. Continue it with {how_to_continue(run)}")
            if failure is not None:
                failures.append(failure)
            stored.append(StoredRun(run.folder, data))
    if failures:
        several = f"{len(failures)} of {len(stored)} runs failed: " if len(stored) > 1 else ""
        raise RunFailed(f"{several}{failures[0]}") from failures[0]
    return stored
