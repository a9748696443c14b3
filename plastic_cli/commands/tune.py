"""`plastic tune RULE`: a search for the best options on a validation split; every trial is an ordinary run."""

from __future__ import annotations

import json
import shlex
from typing import Any

from plastic_cli.commands.invocation import SweepInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.commands.show import print_rows
from plastic_cli.config.describe import as_typed
from plastic_cli.errors import RunFailed
from plastic_cli.escapes import printable_line
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.plugins.models import train_model
from plastic_cli.verbs.options import TuningOptions
from plastic_cli.verbs.tune import Search, SearchResult, carry_out_search, planned_search

SHOWN_TRIALS = 10


class TuneInvocation(SweepInvocation, TuningOptions):
    """Options of `plastic tune RULE`."""


def tune_command(rule_name: str) -> Any:
    """Build the command for one rule; raises UserError if it does not exist or cannot train."""
    rule = find_rule(rule_name)
    model = train_model(rule)

    def run(values: dict[str, dict[str, Any]]) -> None:
        invocation = TuneInvocation.from_values(values["invocation"])
        _tune(planned_search(rule, values["config"], invocation), invocation)

    about = (
        f"Search for the best options of `plastic train {rule.name}`.\n\n"
        "Options that are typed stay fixed. Trials are compared on validation images, never on the test split."
    )
    return build_command(rule.name, about, {"config": model, "invocation": TuneInvocation}, run)


def _tune(search: Search, invocation: TuneInvocation) -> None:
    if invocation.dry_run:
        _print_space(search, invocation)
        return
    result = carry_out_search(search, invocation, invocation.console())
    _print_best(search, result, invocation)
    if result.stopped:
        raise KeyboardInterrupt


def _print_space(search: Search, invocation: TuneInvocation) -> None:
    rows = []
    for option_name, searched in search.space.items():
        bounds = (
            {"values": ",".join(getattr(searched, "values", ()))} if hasattr(searched, "values") else vars(searched)
        )
        rows.append({"option": option_name, **bounds})
    print_rows(rows, ["option", "low", "high", "scale", "values"], invocation.output_format())
    validation = getattr(search.config, "validation", None)
    aside = f", {validation} training images set aside for validation" if validation else ""
    invocation.console().message(
        f"search {search.name}: {invocation.trials} trials of {invocation.seeds} run(s) each{aside}"
    )


def _print_trials(search: Search, result: SearchResult, output_format: str) -> None:
    """Print the trials, the best first; a reader sees names and units, and a program keys and values."""
    if output_format == "csv":
        rows = [{"trial": number, **values, result.metric: value} for number, values, value in result.trials]
        print_rows(rows, ["trial", *search.space, result.metric], output_format)
        return
    metric = metric_of(result.metric, search.rule.name)
    shown = result.trials[:SHOWN_TRIALS] if output_format == "table" else result.trials
    rows = [
        {
            "trial": number,
            **{_hyphens(name): setting for name, setting in values.items()},
            metric.name: metric.number(value),
        }
        for number, values, value in shown
    ]
    columns = ["trial", *map(_hyphens, search.space), metric.name]
    print_rows(rows, columns, output_format, title="best trials first", right=[metric.name])


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


def _print_best(search: Search, result: SearchResult, invocation: TuneInvocation) -> None:
    finished, metric = result.trials, result.metric
    if invocation.output_format() == "json":
        for number, values, value in finished:
            print(json.dumps({"trial": number, "settings": values, "metric": metric, "value": value}))  # noqa: T201
    elif finished and not invocation.quiet:
        _print_trials(search, result, invocation.output_format())
    if not finished:
        return
    if result.best is None:
        raise RunFailed(f"no trial succeeded: {len(finished)} failed. Narrow the ranges with --search.")
    fixed = {name: value for name, value in search.typed.items() if name != "validation"}
    words = ["plastic", "train", search.rule.name]
    if invocation.config is not None:
        words += ["--config", str(invocation.config)]
    for name, value in {**fixed, **result.best}.items():
        words += as_typed(name, value).split(" ", 1)
    line = shlex.join(words)
    if invocation.output_format() == "json" or invocation.quiet:
        # The command line is for people; a program reads only the results on stdout.
        if invocation.quiet and invocation.output_format() != "json":
            print(line)  # noqa: T201
        return
    print(printable_line(f"best: {line}"))  # noqa: T201
