"""`plastic doctor`: a check of this installation, with what is wrong and how to fix it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from plastic_cli.commands.invocation import OutputOptions
from plastic_cli.commands.options import toolkit_command
from plastic_cli.commands.show import print_rows
from plastic_cli.errors import PlasticError
from plastic_cli.numerics.machine import machine, versions
from plastic_cli.plugins.discovery import discover, exporter_names, find_exporter
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS, Rule
from plastic_cli.runs.store import RunStore
from plastic_cli.verbs.options import RunsOptions


class Options(RunsOptions, OutputOptions):
    """Options of `plastic doctor`."""


def command(name: str, about: str) -> Any:
    """Build the command."""
    return toolkit_command(name, about, Options, examine)


def examine(options: Options) -> None:
    """Check versions, device, plugins, data and the folder of the runs; exit code 1 if something is broken."""
    checks = [*_environment(), *_plugins(), *_exporters(), *_data(), *_store(options.runs_folder())]
    print_rows(checks, ["check", "state", "detail"], options.output_format())
    if any(check["state"] == "broken" for check in checks):
        raise typer.Exit(1)


def _check(check: str, state: str, detail: object) -> dict[str, Any]:
    return {"check": check, "state": state, "detail": str(detail)}


def _environment() -> list[dict[str, Any]]:
    import torch

    about = machine("cuda" if torch.cuda.is_available() else "cpu")
    checks = [_check(f"version of {package}", "ok", number) for package, number in versions().items()]
    checks.append(_check("processor", "ok", f"{about['processor']}, {about['cores']} cores"))
    checks.append(_check("device", "ok", about.get("gpu", "cpu (torch finds no CUDA device)")))
    return checks


def _plugins() -> list[dict[str, Any]]:
    plugins = discover()
    checks = []
    for rule in plugins.rules.values():
        problem = _problem(rule)
        origin = plugins.origins[rule.name]
        checks.append(_check(f"rule {rule.name}", "broken" if problem else "ok", problem or f"from {origin}"))
    return checks + [
        _check(f"plugin {broken.name}", "broken", f"{broken.distribution}: {broken.error}") for broken in plugins.broken
    ]


def _exporters() -> list[dict[str, Any]]:
    checks = []
    for name in exporter_names():
        try:
            exporter = find_exporter(name)
        except PlasticError as error:
            checks.append(_check(f"exporter {name}", "broken", error))
            continue
        try:
            exporter.check()
            checks.append(_check(f"exporter {name}", "ok", f"from {exporter.origin}"))
        except PlasticError as error:
            # Its library is optional.
            checks.append(_check(f"exporter {name}", "note", error))
    return checks


def _problem(rule: Rule) -> str | None:
    """Import the functions of a rule, check each verb and the published claims; return what is wrong."""
    try:
        for verb in VERBS:
            function = rule.function(verb)
            if function is not None:
                config_model(function)
        problems = [*rule.problems(), *_unknown_condition(rule)]
    except Exception as error:  # noqa: BLE001  a plugin may raise any error, and the doctor reports it
        return f"{type(error).__name__}: {error}"
    return " ".join(problems) or None


def _unknown_condition(rule: Rule) -> list[str]:
    """Return the first condition of the rule's claims.toml that names no option of its commands, if there is one."""
    from plastic_cli.reports.claims import read_claims, unknown_conditions, unknown_stage_options

    text, train = rule.claims_text(), rule.function("train")
    if text is None or train is None:
        return []
    figures = read_claims(rule.name, text)
    unknown = unknown_conditions([*figures.claims, *figures.unmeasured], list(config_model(train).model_fields))
    commands = {verb: function for verb in ("eval", "analyze") if (function := rule.function(verb)) is not None}
    fields = {verb: list(config_model(function).model_fields) for verb, function in commands.items()}
    unknown += unknown_stage_options(figures.claims, fields)
    return [f"claims.toml: {line}" for line in unknown[:1]]


def _data() -> list[dict[str, Any]]:
    from plastic_cli.data.catalog import data_folder

    folder = data_folder(None)
    return [_check("data folder", "ok", f"{folder}{'' if folder.exists() else ' (created at the first download)'}")]


def _store(folder: Path) -> list[dict[str, Any]]:
    if not folder.exists():
        return [_check("runs folder", "ok", f"{folder} (created by the first run)")]
    store = RunStore(folder)
    try:
        rows = store.rows()
    except PlasticError as error:
        return [_check("runs folder", "broken", error)]
    checks = [_check("runs folder", "ok", f"{folder}: {len(rows)} run{'' if len(rows) == 1 else 's'}")]
    if not os.access(folder, os.W_OK):
        checks.append(_check("runs folder", "broken", f"{folder} cannot be written"))
    crashed = [row for row in rows if row["status"] == "crashed"]
    for row in crashed:
        hint = f"finish it with: plastic train {row['rule']} --resume {row['run']}"
        checks.append(_check("crashed run", "note", hint))
    checks += [_check("unreadable run", "broken", f"{error.folder}: {error.message}") for error in store.errors]
    return checks
