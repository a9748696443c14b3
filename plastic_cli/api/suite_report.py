"""The report of a recipe: what `plastic report` writes about its runs, in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from plastic_cli.api.report import check_options, make_report
from plastic_cli.distribution import installed_version
from plastic_cli.files import write_atomically
from plastic_cli.reports.options import PAGE, ReportOptions
from plastic_cli.runs.console import Console
from plastic_cli.runs.stages import StageRecord
from plastic_cli.runs.stored import StoredRun
from plastic_cli.sweeps.lookup import Planned, find, store_of
from plastic_cli.sweeps.plan import PlannedRun
from plastic_cli.sweeps.steps import PlannedStep
from plastic_cli.verbs.suite import Suite

if TYPE_CHECKING:
    from plastic_cli.reports.steps import StepOnRun

FOLDER = "reports"
"""Under the store: one folder for each recipe."""
MADE_FROM = "made-from.json"
"""In the folder of a report: what it was made from, so that it is written again only if something changed."""


@dataclass(frozen=True)
class SuiteReport:
    """The report of a recipe: its options, which name the folder, and the folder."""

    options: ReportOptions
    folder: Path


def planned_report(suite: Suite, runs: Path, output: Path | None = None) -> SuiteReport | None:
    """Return the report of a recipe; None if it has none and `output` names no folder.

    runs: the folder of the runs. output: the folder of the report; None for the default. Raises UserError or
    PlasticError if the report cannot be made.
    """
    if suite.report is None and output is None:
        return None
    folder = output if output is not None else runs / FOLDER / suite.file.name
    options = (suite.report or ReportOptions()).model_copy(update={"output": folder, "html": folder})
    check_options(options, of_folder=False)
    return SuiteReport(options, folder)


def is_written(report: SuiteReport, runs: Path, planned: Sequence[Planned]) -> bool:
    """Return whether the report was made from the same runs, steps and options by this version."""
    try:
        stored = json.loads((report.folder / MADE_FROM).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return stored == _made_from(report, runs, planned) and (report.folder / PAGE).is_file()


def write_report(report: SuiteReport, runs: Path, planned: Sequence[Planned], console: Console) -> None:
    """Write the report about those runs and steps that are done; nothing if there is none."""
    store = store_of(runs.resolve())
    found = [(each, find(store, each)) for each in planned]
    done = [(each, at, store.folder / str(at.run)) for each, at in found if at.standing == "done"]
    stored = [StoredRun(folder) for each, _, folder in done if isinstance(each, PlannedRun)]
    steps = [_on_run(each, at.stage, folder) for each, at, folder in done if isinstance(each, PlannedStep)]
    if not stored:
        return
    report.folder.mkdir(parents=True, exist_ok=True)
    make_report(report.options, console=console, stored=stored, steps=steps).write_chosen()
    write_atomically(report.folder / MADE_FROM, json.dumps(_made_from(report, runs, planned)) + "\n")


def _on_run(step: PlannedStep, stage: StageRecord | None, folder: Path) -> StepOnRun:
    from plastic_cli.reports.steps import StepOnRun

    assert stage is not None
    of = step.of
    return StepOnRun(of.setting, of.rule, of.dataset, of.seed, step.command, folder, stage.results, stage.files)


def _made_from(report: SuiteReport, runs: Path, planned: Sequence[Planned]) -> dict[str, str]:
    """Return the version and a checksum of everything that the report shows."""
    store = store_of(runs.resolve())
    found = [find(store, each) for each in planned]
    done = [(at.run, "" if at.stage is None else at.stage.finished) for at in found if at.standing == "done"]
    options = report.options.model_dump(mode="json", exclude={"output", "html"})
    text = json.dumps([options, sorted(done, key=str)], sort_keys=True, default=str)
    return {"plastic": installed_version(), "runs": sha256(text.encode()).hexdigest()}
