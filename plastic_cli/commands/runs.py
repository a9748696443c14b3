"""`plastic runs`: list, show and remove runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from plastic_cli.commands.show import print_rows, text_of
from plastic_cli.errors import RunFailed, UserError, did_you_mean
from plastic_cli.escapes import printable_line
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.folder import open_run, remove_run
from plastic_cli.runs.lock import is_held
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import STATUSES, read_record
from plastic_cli.runs.store import RunStore

NEWEST = 50
"""Runs that a person is shown where nothing else is asked for."""


def list_runs(
    folder: Path,
    *,
    rule: str | None,
    dataset: str | None,
    status: str | None,
    name: str | None,
    format: str,  # noqa: A002
    last: int | None = None,
    everything: bool = False,
) -> None:
    """Print the runs of a folder that fit, one a row, the newest last.

    last: so many of the newest; None: NEWEST of them where a person reads them, and all in CSV and JSON, which
    programs read. everything: all of them.
    """
    if last is not None and (last < 1 or everything):
        raise UserError(f"--last {last}: " + ("leave it or --all out." if everything else "1 or more."))
    if status is not None and status not in (*STATUSES, "crashed"):
        known = [*STATUSES, "crashed"]
        raise UserError(f"--status {status}: choose {', '.join(known)}.{did_you_mean(status, known)}")
    store = RunStore(folder)
    present = store.rows()
    _check_known("--rule", rule, {row["rule"] for row in present})
    _check_known("--dataset", dataset, {row["dataset"] for row in present if row["dataset"]})
    fitting = [
        row
        for row in present
        if rule in (None, row["rule"])
        and dataset in (None, row["dataset"])
        and status in (None, row["status"])
        and (name is None or row["run"].startswith(name) or (row["name"] or "").startswith(name))
    ]
    for_programs = format in ("csv", "json")
    shown = len(fitting) if everything or (for_programs and last is None) else (last or NEWEST)
    rows = [{**row, **_headline(row["summary"])} for row in fitting[-shown:]] if fitting else []
    if not rows and format == "table":
        what = "no such run" if any((rule, dataset, status, name)) else "no run yet"
        Console().message(f"{what} in {folder}. Make one with: plastic train RULE")
        _warn_of_unreadable(store)
        return
    columns = ["run", "name", "rule", "dataset", "status", "seed", "created", "seconds", "metric", "value"]
    if for_programs:
        columns.append("folder")
    else:
        rows = [{**row, "created": str(row["created"])[:19].replace("T", " ")} for row in rows]
    print_rows(rows, columns, format)
    if len(rows) < len(fitting) and not for_programs:
        hint = "--all shows all, --last N the newest N" if last is None else "--all shows all"
        Console().message(f"the newest {len(rows)} of {len(fitting)} runs: {hint}")
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
    alive = record.status not in ("created", "running") or is_held(path)
    status = record.status if alive else "crashed"
    content = {**asdict(record), "run": path.name, "status": status, "folder": str(path), "files": _files(path)}
    if format == "json":
        print(json.dumps(content))  # noqa: T201
        return
    rows = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows += [{"field": f"{key}.{inner}", "value": text_of(entry)} for inner, entry in value.items()]
        elif key == "argv":
            rows.append({"field": key, "value": " ".join(["plastic", *map(str, value)])})
        elif key == "files":
            rows += [{"field": "file", "value": entry} for entry in value]
        elif value is not None:
            rows.append({"field": key, "value": text_of(value)})
    print_rows(rows, ["field", "value"], format)


def remove_runs(folder: Path, names: list[str], *, yes: bool) -> None:
    """Delete runs after asking; a run that is being written is not touched."""
    store = RunStore(folder)
    paths = list(dict.fromkeys(store.find(name) for name in names))
    shown = ", ".join(f"{path.name} (only the link)" if path.is_symlink() else path.name for path in paths)
    if not yes and not typer.confirm(printable_line(f"Remove {shown} from {folder} for good?"), err=True):
        Console().message("nothing removed")
        raise typer.Exit(1)
    for path in paths:
        target = path.resolve() if path.is_symlink() else None
        remove_run(path)
        kept = f", which was a link: the run itself stays in {target}" if target is not None else ""
        Console().message(f"removed {path.name}{kept}")


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
