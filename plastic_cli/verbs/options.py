"""The options of how a verb runs, as opposed to what it computes: where the runs and the data are, which runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from plastic_cli.config.model import Config, field
from plastic_cli.errors import UserError
from plastic_cli.sweeps.options import SweepOptions


class RunsOptions(Config):
    """Where the runs are."""

    runs: Path | None = field(None, "folder of the runs (or PLASTIC_RUNS; default: ./runs)", panel="Run")

    def runs_folder(self) -> Path:
        """Return the folder of the runs: the option, else PLASTIC_RUNS, else ./runs."""
        # Help needs the options and not the store.
        from plastic_cli.runs.store import default_folder

        return self.runs or default_folder()

    def existing_runs_folder(self) -> Path:
        """Return the folder of the runs; raises UserError if it was named and does not exist."""
        if self.runs is not None and not self.runs.exists():
            raise UserError(f"there is no folder {self.runs}. Name the folder with your runs: --runs FOLDER.")
        return self.runs_folder()


class DataOptions(Config):
    """Where the data sets are."""

    data: Path | None = field(
        None, "folder of the data sets (or PLASTIC_DATA; default: user cache directory)", panel="Data"
    )


class PlaceOptions(DataOptions, RunsOptions):
    """Where a verb reads and writes, and the file with its options."""

    config: Path | None = field(None, "TOML file with options; command-line options take precedence", panel="Run")
    quiet: bool = field(False, "print no progress, and only the run's folder at the end", panel="Output")


class TrainingOptions(PlaceOptions):
    """Which runs `train` makes or continues."""

    seeds: int = field(1, "number of runs, with the seeds SEED, SEED + 1, ...", ge=1, panel="Run")
    name: str | None = field(None, "name by which the run can be found", panel="Run")
    resume: str | None = field(
        None, "continue this run, with the configuration that it started with", panel="Run", complete="run"
    )
    export: tuple[str, ...] | None = field(
        None,
        "also write metrics for these programs, such as tensorboard (or PLASTIC_EXPORT)",
        panel="Output",
        complete="exporter",
    )


class GridOptions(TrainingOptions, SweepOptions):
    """Which runs `train` makes, one by one or as a grid."""

    grid: list[str] = field(
        [],
        "NAME=VALUE,VALUE,...: one run per value; with several --grid one run per combination",
        panel="Sweep",
        repeat=True,
    )


class TuningOptions(PlaceOptions, SweepOptions):
    """What `tune` searches, and how."""

    trials: int = field(20, "number of trials, including those of earlier calls of this search", ge=1, panel="Search")
    search: list[str] = field(
        [],
        "an option to search, in place of those that the rule declares: NAME, NAME=LOW:HIGH, NAME=LOW:HIGH:log or"
        " NAME=A,B,C (can be repeated)",
        panel="Search",
        repeat=True,
    )
    metric: str | None = field(
        None, "metric that compares trials (default: validation/accuracy, validation/return)", panel="Search"
    )
    direction: Literal["auto", "maximize", "minimize"] = field(
        "auto", "auto minimizes a loss or an error and maximizes any other metric", panel="Search"
    )
    seeds: int = field(1, "number of runs per trial; their mean is compared", ge=1, panel="Search")
    study: str | None = field(None, "name of the search (default: derived from its options)", panel="Search")


class StageOptions(PlaceOptions):
    """Which run eval, analyze and render take."""

    run: str | None = field(
        None,
        "id, its beginning, its last four letters, or name (default: the newest completed run)",
        panel="Run",
        complete="run",
    )


class RenderOptions(StageOptions):
    """Which run render takes, and where it writes."""

    output: Path | None = field(
        None,
        "file for the film (.gif, .mp4, .webm) or for the picture (.png), in place of the run's folder; an existing"
        " file is replaced",
        panel="Output",
    )


class VerificationOptions(DataOptions, SweepOptions):
    """Which runs `verify` repeats."""

    seeds: int | None = field(None, "number of seeds; overrides the recipe", ge=1)
    rule: list[str] = field([], "only the runs of these rules")
    only: list[str] = field(
        [], "only the runs with NAME=VALUE, or with one of NAME=VALUE,VALUE (can be repeated)", repeat=True
    )
    sample: int | None = field(
        None, "in place of a recipe: number of runs to draw from all recipes", ge=1, le=100_000, panel="Sample"
    )
    minutes: float | None = field(
        None, "draw only runs whose times in the reference add up to at most this", gt=0, panel="Sample"
    )
    seed: int = field(0, "seed of the draw; the same seed draws the same runs", ge=0, panel="Sample")
    steps: bool = field(
        False,
        "also carry out the evaluations and analyses of the recipe, and compare their results with those of the stored"
        " run",
    )
    exact: bool = field(
        False, "also fail if a run is not equal to the bit to the stored run of its seed, on the same kind of machine"
    )
