"""What every sweep checks before its first run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plastic_cli.errors import UserError
from plastic_cli.sweeps.lookup import Planned, with_data
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.pools import check_scheduler
from plastic_cli.sweeps.steps import PlannedStep, with_runs
from plastic_cli.verbs.verb import check_device


def checked_plan(
    plan: Sequence[PlannedRun],
    options: SweepOptions,
    runs: Path,
    data: Path | None,
    steps: Sequence[PlannedStep] = (),
) -> list[Planned]:
    """Return the runs with the checksums of their data, and then the steps on them.

    runs: the folder of the runs. data: the folder of the data sets; None for the default. Raises UserError if the sweep
    cannot be carried out.
    """
    if runs.exists() and not runs.is_dir():
        raise UserError(f"cannot write to {runs}: it is not a folder. Choose another with --runs.")
    check_scheduler(options.scheduler, options.workers)
    if options.scheduler is None:
        # Other machines have other devices.
        everything: list[Planned] = [*plan, *steps]
        for device in {planned.config.get("device") for planned in everything}:
            check_device(device)
    checked = with_data(plan, data, runs)
    return [*checked, *with_runs(steps, checked)]
