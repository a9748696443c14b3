"""`plastic runs`: list, show and remove runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from plastic_cli.commands.show import print_rows, text_of
from plastic_cli.errors import RunFailed, UserError, did_you_mean
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import STATUSES, read_record
from plastic_cli.runs.run import open_run, remove_run
from plastic_cli.runs.store import RunStore


def list_runs(
    folder: Path,
    *,
    rule: str | None,
    dataset: str | None,
    status: str | None,
    name: str | None,
    format: str,  # noqa: A002
) -> None:
    """Print the runs of a folder that fit, one a row, the newest last."""
    if status is not None and status not in (*STATUSES, "crashed"):
        known = [*STATUSES, "crashed"]
        raise UserError(f"--status {status}: choose {', '.join(known)}.{did_you_mean(status, known)}")
    store = RunStore(folder)
    everything = store.rows()
    _check_known("--rule", rule, {row["rule"] for row in everything})
    _check_known("--dataset", dataset, {row["dataset"] for row in everything if row["dataset"]})
    rows = []
    for row in everything:
        fits = (
            (rule in (None, row["rule"])) and (dataset in (None, row["dataset"])) and (status in (None, row["status"]))
        )
        named = name is None or row["run"].startswith(name) or (row["name"] or "").startswith(name)
        if fits and named:
            rows.append({**row, **_headline(row["summary"])})
    if not rows and format == "table":
        what = "no such run" if any((rule, dataset, status, name)) else "no run yet"
        Console().message(f"{what} in {folder}. Make one with: plastic train RULE")
        _warn_of_unreadable(store)
        return
    columns = ["run", "name", "rule", "dataset", "status", "seed", "created", "seconds", "metric", "value"]
    if format in ("csv", "json"):
        columns.append("folder")
    else:
        rows = [{**row, "created": str(row["created"])[:19].replace("T", " ")} for row in rows]
    print_rows(rows, columns, format)
    _warn_of_unreadable(store)


def _check_known(option: str, given: str | None, known: set[str]) -> None:
    if given is not None and known and given not in known:
        raise UserError(
            f"{option} {given}: no run has it.{did_you_mean(given, known)} There are: {', '.join(sorted(known))}."
        )


def _warn_of_unreadable(store: RunStore) -> None:
    for error in store.errors:
        Console().warning(f"{error.folder}: {error.message}")


def show_run(folder: Path, text: str, *, format: str) -> None:  # noqa: A002
    """Print one run whole."""
    store = RunStore(folder)
    path = store.find(text)
    record = read_record(path)
    status = next((row["status"] for row in store.rows() if row["run"] == path.name), record.status)
    content = {**asdict(record), "run": path.name, "status": status, "folder": str(path), "files": _files(path)}
    if format == "json":
        print(json.dumps(content))  # noqa: T201
        return
    rows = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows += [{"field": f"{key}.{inner}", "value": text_of(entry)} for inner, entry in value.items()]
        elif key == "argv":
            rows.append({"field": key, "value": " ".join(["plastic", *value])})
        elif key == "files":
            rows += [{"field": "file", "value": entry} for entry in value]
        elif value is not None:
            rows.append({"field": key, "value": text_of(value)})
    print_rows(rows, ["field", "value"], format)


def remove_runs(folder: Path, names: list[str], *, yes: bool) -> None:
    """Delete runs after asking; a run that is being written is not touched."""
    store = RunStore(folder)
    paths = list(dict.fromkeys(store.find(name) for name in names))
    shown = ", ".join(path.name for path in paths)
    if not yes and not typer.confirm(f"Remove {shown} from {folder} for good?", err=True):
        Console().message("nothing removed")
        raise typer.Exit(1)
    for path in paths:
        remove_run(path)
        Console().message(f"removed {path.name}")


def export_runs(folder: Path, names: list[str], *, to: str) -> None:
    """Hand runs, or all that are finished, to exporters; exit code 1 where one of them failed."""
    wanted = [name.strip() for name in to.split(",") if name.strip()]
    if not wanted:
        raise UserError("--to: name at least one exporter, such as tensorboard.")
    console = Console()
    exports = find_exports(wanted, console.warning)
    assert exports is not None
    store = RunStore(folder)
    paths = list(dict.fromkeys(store.find(name) for name in names))
    if not names:
        paths = [folder / row["run"] for row in store.rows() if row["status"] not in ("created", "running")]
        _warn_of_unreadable(store)
    for path in paths:
        run = open_run(path, exports=exports)
        with run.locked():
            run.export()
        console.message(f"exported {path.name} to {', '.join(wanted)}")
    if exports.failed:
        raise RunFailed(f"could not export everything to {', '.join(exports.failed)}.")


def _headline(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the metric by which a run is usually judged, and its value."""
    for wanted in MAIN_METRICS:
        if wanted in summary:
            return {"metric": wanted, "value": summary[wanted]}
    on_test = [key for key in summary if key.startswith("test/")]
    first = next(iter([*on_test, *summary]), None)
    return {"metric": first, "value": summary.get(first) if first else None}


def _files(folder: Path) -> list[str]:
    hidden = (".", "lock")
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(hidden)
    )
