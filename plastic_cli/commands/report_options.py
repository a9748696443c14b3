"""The options of `plastic report`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from plastic_cli.commands.invocation import DatasetName, OutputOptions, RuleName, RunsOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.config.model import field


class Options(RunsOptions, OutputOptions):
    """Options of `plastic report`."""

    panel: ClassVar[str] = "Report"

    rule: RuleName | None = field(None, "only runs of this rule", complete="rule")
    dataset: DatasetName | None = field(None, "only runs on this data set", complete="dataset")
    status: Literal["completed", "created", "running", "failed", "interrupted", "crashed", "all"] = field(
        "completed", "only runs with this status, or all runs"
    )
    table: Literal["all", "results", "claims"] = field("all", "results, claims or all tables")
    compare: bool = field(False, "compare the settings instead: interquartile means and probabilities of improvement")
    output: Path | None = field(None, "also write tables and figures into this folder")
    html: Path | None = field(None, "also write the whole report as one HTML page into this folder")
    format: Literal["table", "markdown", "latex", "csv", "json"] = field(  # type: ignore[assignment]  # and LaTeX
        "table", "format of the tables", panel="Output"
    )
    config: Path | None = field(
        None, "TOML file with options of this command; command-line options take precedence", panel="Run"
    )


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, report)


def report(options: Options) -> None:
    """Print the report."""
    from plastic_cli.commands.report import report as print_report
    from plastic_cli.report.options import ReportOptions

    chosen = {entry.name: getattr(options, entry.name) for entry in fields(ReportOptions)}
    print_report(ReportOptions(**{**chosen, "runs": options.runs_folder(), "format": options.output_format()}))
