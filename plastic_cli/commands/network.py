"""`plastic analyze`: a group whose commands are the rules, and which alone analyzes a network without a rule."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from plastic_cli.commands.groups import VerbGroup, group_of
from plastic_cli.commands.invocation import OutputOptions
from plastic_cli.commands.options import command_function
from plastic_cli.commands.show import print_metrics, print_rows
from plastic_cli.config.classifier import NetworkAnalyzeConfig
from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config, field
from plastic_cli.config.toml import read_toml, to_toml
from plastic_cli.errors import UserError
from plastic_cli.resolve import resolve
from plastic_cli.runs.console import Console
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.network import NetworkOptions, analyze_source, source_of_files

FOLDER = Path("analysis")
"""The folder of the results of networks that belong to no run, if the user chooses none."""

ABOUT = """{about}

`plastic analyze RULE` analyzes a run of a rule; `plastic analyze RULE --help` lists its options. The options below
analyze a network of your own that was trained elsewhere:

plastic analyze --model my_file:Net --weights net.pt --dataset mnist --probe"""


class NetworkInvocation(NetworkOptions, OutputOptions):
    """Options of how the analysis of a network of your own runs."""

    config: Path | None = field(None, "TOML file with options; command-line options take precedence", panel="Run")
    dry_run: bool = field(False, "print the resolved configuration as TOML and stop", panel="Output")


class AnalyzeGroup(VerbGroup):
    """`plastic analyze`, with the options of a network without a rule."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help if nothing was typed."""
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of a rule; raises UserError if an option of a network of your own was typed before it."""
        typed = [name for name, value in ctx.params.items() if value not in (None, [], ())]
        if typed:
            raise UserError(
                f"{option_name(typed[0])} before '{args[0]}': type the options of a run after its rule, as in `plastic"
                f" analyze {args[0]} --probe`. A network of --model has no rule."
            )
        return super().resolve_command(ctx, args)


def analyze_group(name: str, about: str) -> Any:
    """Build `plastic analyze`."""
    models: dict[str, type[Config]] = {"config": NetworkAnalyzeConfig, "invocation": NetworkInvocation}
    alone = command_function(models, lambda values: analyze(values["config"], values["invocation"]))
    return group_of(AnalyzeGroup, name, ABOUT.format(about=about), alone, metavar="[RULE]")


def resolved(typed: dict[str, Any], file: Path | None) -> NetworkAnalyzeConfig:
    """Return the options: typed ones, then those of a file, then the defaults."""
    given = {} if file is None else NetworkAnalyzeConfig.read_names(read_toml(file), str(file))
    config = resolve(NetworkAnalyzeConfig, typed, given, str(file or ""))
    assert isinstance(config, NetworkAnalyzeConfig)
    return config


def analyze(typed: dict[str, Any], options: dict[str, Any]) -> None:
    """Analyze a network of --model with its trained weights, and print the results."""
    invocation = NetworkInvocation.from_values(options)
    config = resolved(typed, invocation.config)
    if invocation.dry_run:
        print(to_toml(config, heading="plastic analyze --config FILE"), end="")  # noqa: T201
        return
    console = Console(quiet=invocation.quiet or invocation.output_format() == "json")
    began = time.perf_counter()
    source = source_of_files(config)
    with signals_as_interrupts():
        run = analyze_source(source, config, invocation, console, FOLDER / Path(str(config.weights)).stem)
    seconds = round(time.perf_counter() - began, 3)
    shape = invocation.output_format()
    if shape == "json":
        metrics = {name: value if math.isfinite(value) else None for name, value in run.results.items()}
        about = {name: source.facts[name] for name in ("model", "weights")}
        result = {**about, "dataset": config.dataset, "seed": config.seed, "folder": str(run.folder)}
        print(json.dumps({**result, "seconds": seconds, "metrics": metrics, "files": run.files}))  # noqa: T201
    elif invocation.quiet:
        print(run.folder)  # noqa: T201
    elif shape == "table":
        print_metrics(run.results, run, f"{source.name} on {config.dataset}", seconds)
        print(f"\ntables and figures in {run.folder}")  # noqa: T201
    else:
        rows = [
            {"model": source.name, "dataset": config.dataset, "metric": name, "value": value}
            for name, value in run.results.items()
        ]
        print_rows(rows, ["model", "dataset", "metric", "value"], shape, right=["value"])
