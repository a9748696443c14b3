"""Options of how a command runs: where it reads and writes and what it prints, as opposed to what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config, field
from plastic_cli.errors import match_choice
from plastic_cli.plugins.discovery import plugin_names
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.verbs.options import GridOptions, PlaceOptions, RenderOptions, StageOptions

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


class Invocation(PlaceOptions, OutputOptions):
    """Options that every command of a rule has."""

    json_lines: bool = field(
        False, "print one JSON object per run on stdout and nothing else", panel="Output", option="--json"
    )
    dry_run: bool = field(False, "print the resolved configuration as TOML and stop", panel="Output")

    def console(self) -> Console:
        """Return where progress and messages go: nowhere if a program reads stdout."""
        from plastic_cli.runs.console import Console

        return Console(quiet=self.quiet or self.output_format() == "json")


class SweepInvocation(Invocation, SweepOptions):
    """Options of every command that carries out a sweep."""


class TrainInvocation(SweepInvocation, GridOptions):
    """Options of `plastic train RULE`."""

    plot: bool = field(False, "draw the learning curves into figures/curves.png and .svg of the run", panel="Output")

    def typed_sweep_options(self) -> list[str]:
        """Return the options that were typed and have an effect only with --grid."""
        typed = [name for name in SweepOptions.model_fields if name in self.model_fields_set]
        return [
            "--stop-at-failure" if name == "keep_going" and not self.keep_going else option_name(name) for name in typed
        ]


class StageInvocation(Invocation, StageOptions):
    """Options of the commands that take a trained run: eval, analyze and render."""


class RenderInvocation(StageInvocation, RenderOptions):
    """Options of `plastic render RULE`."""
