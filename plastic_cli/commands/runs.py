"""`plastic runs`: list, show, remove and export runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import typer

from plastic_cli.analysis.cost import Cost, cost_of
from plastic_cli.commands.chosen import FittingOptions
from plastic_cli.commands.invocation import DebugOptions, OutputOptions
from plastic_cli.commands.options import toolkit_function, toolkit_group
from plastic_cli.commands.run_list import ListOptions, list_runs
from plastic_cli.commands.show import print_rows, text_of
from plastic_cli.config.model import field
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.escapes import printable_line
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.console import Console
from plastic_cli.runs.record import read_record
from plastic_cli.runs.selection import Selection, select
from plastic_cli.runs.store import RunStore
from plastic_cli.tables import with_prefix
from plastic_cli.verbs.options import RunsOptions

MOST_LISTED = 8
"""This number of runs is named in a question."""


class ShowOptions(RunsOptions, OutputOptions):
    """Options of `plastic runs show`."""

    run: str = field(..., "id, its beginning, its last four letters, or name", argument="RUN", complete="run")


class RemoveOptions(FittingOptions, DebugOptions):
    """Options of `plastic runs remove`."""

    names: list[str] = field([], "ids or names", argument="RUN...", complete="run", repeat=True)
    status: Literal["completed", "created", "running", "failed", "interrupted", "crashed"] | None = field(
        None, "only runs with this status", panel="Which runs"
    )
    yes: bool = field(False, "do not ask for confirmation", panel="Run", option="--yes,-y")


class ExportOptions(RunsOptions, DebugOptions):
    """Options of `plastic runs export`."""

    panel: ClassVar[str] = "Export"

    names: list[str] = field(
        [], "ids or names (default: all finished runs)", argument="RUN...", complete="run", repeat=True
    )
    to: tuple[str, ...] = field(..., "names of exporters, such as tensorboard", complete="exporter")


def command(name: str, about: str) -> Any:
    """Build the group, which lists runs if no command follows."""
    return toolkit_group(
        name,
        about,
        toolkit_function(ListOptions, list_runs),
        {
            "show": ("Show one run: configuration, results and files.", toolkit_function(ShowOptions, show_run)),
            "remove": ("Delete runs after a confirmation.", toolkit_function(RemoveOptions, remove_runs)),
            "export": ("Write the metrics of runs for other programs.", toolkit_function(ExportOptions, export_runs)),
        },
    )


def _warn_of_unreadable(store: RunStore) -> None:
    for error in store.errors:
        Console().warning(f"{error.folder}: {error.message}")


def show_run(options: ShowOptions) -> None:
    """Print everything about one run."""
    from plastic_cli.runs.lock import is_held

    path = RunStore(options.existing_runs_folder()).find(options.run)
    record = read_record(path)
    alive = record.status not in ("created", "running") or is_held(path)
    status = record.status if alive else "crashed"
    cost = cost_of(record)
    content: dict[str, Any] = {}
    for key, value in asdict(record).items():
        content[key] = value
        if key == "summary":
            content["cost"] = None if cost is None else asdict(cost)
    content |= {"run": path.name, "status": status, "folder": str(path), "files": _files(path)}
    if options.output_format() == "json":
        print(json.dumps(content))  # noqa: T201
        return
    rows, for_readers = [], options.output_format() != "csv"
    for key, value in content.items():
        if key == "summary" and for_readers:
            for name, number in value.items():
                metric = metric_of(name, record.rule)
                rows.append({"field": metric.name, "value": metric.text(number)})
        elif key == "cost" and for_readers and cost is not None:
            rows += [{"field": name, "value": text} for name, text in cost_for_readers(cost).items()]
        elif isinstance(value, dict):
            rows += _fields(key, value, for_readers and key != "config")
        elif key == "argv":
            rows.append({"field": key, "value": " ".join(["plastic", *map(str, value)])})
        elif key == "files":
            rows += [{"field": "file", "value": entry} for entry in value]
        elif value is not None:
            rows.append({"field": key, "value": text_of(value)})
    print_rows(rows, ["field", "value"], options.output_format())


def _fields(name: str, values: Mapping[str, Any], rounded: bool) -> list[dict[str, str]]:
    """Return a row for each value; a dictionary in a dictionary gets a row for each of its values."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _fields(f"{name}.{key}", value, rounded)
        else:
            shown = float(f"{value:.4g}") if rounded and isinstance(value, float) else value
            rows.append({"field": f"{name}.{key}", "value": text_of(shown)})
    return rows


def cost_for_readers(cost: Cost) -> dict[str, str]:
    """Return the totals of a training, with the mean of a sample, and its memory."""
    totals = {
        "operations of inference": (cost.inference_flops, "FLOP"),
        "operations of learning": (cost.learning_flops, "FLOP"),
        "messages to hidden layers": (cost.messages, ""),
        "changes of weights": (cost.updates, ""),
    }
    shown = {"training samples": f"{cost.samples:,}"}
    for name, (total, unit) in totals.items():
        whole, mean = with_prefix(total, unit), with_prefix(total / cost.samples, unit)
        shown[name] = f"{whole} ({mean} for each sample)"
    memory = {"memory between steps": cost.state_bytes, "memory of a step": cost.step_bytes}
    return shown | {name: with_prefix(held, "B") for name, held in memory.items()}


def remove_runs(options: RemoveOptions) -> None:
    """Delete runs after a confirmation; a run that is being written is left alone."""
    from plastic_cli.runs.folder import remove_run

    folder = options.existing_runs_folder()
    paths = _chosen(RunStore(folder), options)
    if not options.yes and not _confirmed(paths, folder):
        Console().message("nothing removed")
        raise typer.Exit(1)
    for path in paths:
        target = path.resolve() if path.is_symlink() else None
        remove_run(path)
        kept = f", which was a link: the run itself stays in {target}" if target is not None else ""
        Console().message(f"removed {path.name}{kept}")


def _chosen(store: RunStore, options: RemoveOptions) -> list[Path]:
    """Return the folders of the named runs, or of those that fit; raises UserError if there is none."""
    which = Selection((), tuple(options.rule), options.dataset, options.status, tuple(options.where))
    if options.names:
        if which != Selection():
            raise UserError("name runs, or choose them by --rule, --dataset, --status and --where, not both.")
        return list(dict.fromkeys(store.find(name) for name in options.names))
    if which == Selection():
        raise UserError("which runs? Name them, or choose them by --rule, --dataset, --status or --where.")
    found = [store.folder / row["run"] for row in select(store.rows(), which)]
    if not found:
        raise UserError(f"no run in {store.folder} fits. `plastic runs` lists all runs.")
    return found


def _confirmed(paths: Sequence[Path], folder: Path) -> bool:
    """Ask whether to remove runs; raises UserError if nobody can answer."""
    listed = [_named(path) + (" (only the link)" if path.is_symlink() else "") for path in paths[:MOST_LISTED]]
    more = f" and {len(paths) - MOST_LISTED} more" if len(paths) > MOST_LISTED else ""
    shown = ", ".join(listed) + more
    try:
        return typer.confirm(printable_line(f"Remove {shown} from {folder} for good?"), err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        raise UserError("nothing was removed: there is no answer. --yes removes runs without a question.") from None


def _named(path: Path) -> str:
    """Return the id of a run with its name, if it has one that can be read."""
    with suppress(UserError):
        name = read_record(path).name
        return f"{path.name} ({name})" if name else path.name
    return path.name


def export_runs(options: ExportOptions) -> None:
    """Give runs, or all finished runs, to exporters; raises RunFailed if one of them failed."""
    from plastic_cli.runs.exports import find_exports
    from plastic_cli.runs.folder import open_run

    folder, names = options.runs_folder(), options.names
    wanted = [name for name in options.to if name]
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


def _files(folder: Path) -> list[str]:
    hidden = (".", "lock")
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(hidden)
    )
