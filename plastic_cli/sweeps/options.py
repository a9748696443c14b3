"""The options of every sweep: `plastic sweep`, `plastic train --grid` and `plastic tune`."""

from __future__ import annotations

from plastic_cli.config.model import Config, field


class SweepOptions(Config):
    """How the runs of a sweep are carried out."""

    workers: int | None = field(
        None,
        "number of runs at once (default: the number of cores, divided by --threads)",
        ge=1,
        le=100_000,
        panel="Sweep",
    )
    threads: int = field(1, "number of threads of each run", ge=1, le=100_000, panel="Sweep")
    scheduler: str | None = field(
        None, "address of a Dask scheduler, or slurm, pbs, sge, lsf, htcondor (default: this machine)", panel="Sweep"
    )
    retry: int = field(0, "number of times that a failed run is tried again", ge=0, panel="Sweep")
    timeout: float | None = field(None, "time limit of one run in seconds", gt=0, panel="Sweep")
    keep_going: bool = field(
        True,
        "continue after a failed run, or stop (also --no-keep-going)",
        panel="Sweep",
        option="--keep-going/--stop-at-failure",
    )
