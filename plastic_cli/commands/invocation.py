"""Options of how a command runs: where it reads and writes and what it prints, as opposed to what it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator

from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config, field
from plastic_cli.errors import match_choice
from plastic_cli.plugins.discovery import plugin_names
from plastic_cli.plugins.rule import Rule
from plastic_cli.sweeps.options import SweepOptions

if TYPE_CHECKING:
    from plastic_cli.runs.console import Console


def _rule_name(name: str) -> str:
    return match_choice(name, plugin_names())


def _dataset_name(name: str) -> str:
    from plastic_cli.data.catalog import known_dataset

    return known_dataset(name) or name


RuleName = Annotated[str, AfterValidator(_rule_name)]
"""The name of a rule in any case; it need not be installed."""
DatasetName = Annotated[str, AfterValidator(_dataset_name)]
"""The name of a data set in any case, or a folder."""


class DebugOptions(Config):
    """The option that every command has."""

    debug: bool = field(False, "show the traceback of an error", panel="Output")


class FileOptions(Config):
    """The file with options of a command of the toolkit."""

    config: Path | None = field(
        None, "TOML file with options of this command; command-line options take precedence", panel="Run"
    )


class OutputOptions(DebugOptions):
    """How a command prints its results."""

    format: Literal["table", "markdown", "csv", "json"] = field("table", "format of the results", panel="Output")
    json_lines: bool = field(False, "the same as --format json", panel="Output", option="--json")

    def output_format(self) -> str:
        """Return the format: JSON with --json."""
        return "json" if self.json_lines else self.format


class RunsOptions(Config):
    """Where the runs are."""

    runs: Path | None = field(None, "folder of the runs (or PLASTIC_RUNS; default: ./runs)", panel="Run")

    def runs_folder(self) -> Path:
        """Return the folder of the runs: the option, else PLASTIC_RUNS, else ./runs."""
        return self.runs or Path(os.environ.get("PLASTIC_RUNS") or "runs")


class DataOptions(Config):
    """Where the data sets are."""

    data: Path | None = field(
        None, "folder of the data sets (or PLASTIC_DATA; default: user cache directory)", panel="Data"
    )


class Invocation(DataOptions, RunsOptions, OutputOptions):
    """Options that every command of a rule has."""

    json_lines: bool = field(
        False, "print one JSON object per run on stdout and nothing else", panel="Output", option="--json"
    )
    config: Path | None = field(None, "TOML file with options; command-line options take precedence", panel="Run")
    dry_run: bool = field(False, "print the resolved configuration as TOML and stop", panel="Output")
    quiet: bool = field(False, "print no progress, and only the run's folder at the end", panel="Output")

    def console(self) -> Console:
        """Return where progress and messages go: nowhere if a program reads stdout."""
        from plastic_cli.runs.console import Console

        return Console(quiet=self.quiet or self.output_format() == "json")


class SweepInvocation(Invocation, SweepOptions):
    """Options of every command that carries out a sweep."""


class TrainInvocation(SweepInvocation):
    """Options of `plastic train RULE`."""

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
    grid: list[str] = field(
        [],
        "NAME=VALUE,VALUE,...: one run per value; with several --grid one run per combination",
        panel="Sweep",
        repeat=True,
    )

    def typed_sweep_options(self) -> list[str]:
        """Return the options that were typed and have an effect only with --grid."""
        typed = [name for name in SweepOptions.model_fields if name in self.model_fields_set]
        return [
            "--stop-at-failure" if name == "keep_going" and not self.keep_going else option_name(name) for name in typed
        ]


class StageInvocation(Invocation):
    """Options of the commands that take a trained run: eval, analyze and render."""

    run: str | None = field(
        None, "id, a unique beginning of it, or name (default: the newest completed run)", panel="Run", complete="run"
    )


class RuleVerb(NamedTuple):
    """One verb of one rule: the function that carries it out and the model of its options."""

    name: str
    rule: Rule
    function: Callable[..., Any]
    model: type[Config]

    def resolve(
        self, typed: Mapping[str, Any], file: Path | None = None, stored: Mapping[str, Any] | None = None
    ) -> Config:
        """Return the configuration: typed options, then those of a file, then stored ones, then the defaults."""
        from plastic_cli.resolve import resolve

        return resolve(self.model, typed, self.read_options(file), str(file or ""), stored)

    def read_options(self, file: Path | None) -> dict[str, Any]:
        """Return the options of a configuration file or recipe; none without a file."""
        if file is None:
            return {}
        from plastic_cli.sweeps.recipe import read_options

        return read_options(file, self.rule.name)
