"""The reference: run what is missing of all recipes, and write plastic_cli/reference from the runs.

    python benchmarks/reference.py --runs FOLDER --status
    python benchmarks/reference.py --runs FOLDER [--longest MINUTES] [--recipe NAME]
    python benchmarks/reference.py --runs FOLDER --write
    python benchmarks/reference.py --outliers

The second form carries out the runs and the steps of the recipes one at a time, at low priority, the shortest first.
Ctrl-C and SIGTERM stop it after a checkpoint; the same command continues it. Several of these processes share a folder
and never carry out the same run twice. A run that failed counts as measured and is not repeated.

What the reference already holds is not measured again, so FOLDER can be empty. A run is repeated only where a step on
it is missing.

Each setting has at least five seeds. A recipe with a claim that these leave inconclusive gets ten. Seeds that a recipe
lists are kept. Recipes whose data are not here are skipped and named. Stop it before a measurement of speed.

The last form prints how often a run of the reference lies outside the prediction interval of the other seeds of its
setting, as `plastic verify` judges it in a verification of 1, 20 and 100 numbers. For normal results the share is 5%
divided by this number; results with outliers lie outside more often.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "website")]

from plastic_cli.commands.invocation import SweepInvocation  # noqa: E402
from plastic_cli.commands.show import print_rows  # noqa: E402
from plastic_cli.commands.sweep import run_plan  # noqa: E402
from plastic_cli.errors import PlasticError, UserError  # noqa: E402
from plastic_cli.runs.console import Console  # noqa: E402
from plastic_cli.runs.reference import (  # noqa: E402
    RUNS_FILE,
    Reference,
    read_reference,
    setting_text,
    write_reference,
)
from plastic_cli.runs.store import RunStore  # noqa: E402
from plastic_cli.sweeps.lookup import Planned, Standing, find, same_data, store_of, with_data  # noqa: E402
from plastic_cli.sweeps.plan import PlannedRun, plan_recipe  # noqa: E402
from plastic_cli.sweeps.recipe import RecipeFile, read_recipe, recipe_names  # noqa: E402
from plastic_cli.sweeps.steps import PlannedStep, plan_steps, with_runs  # noqa: E402
from plastic_cli.verbs.outliers import outliers, outliers_by_rule  # noqa: E402

FOLDER = ROOT / "plastic_cli" / "reference"
LARGEST = 10_000_000
"""Bytes of the files of the reference."""
SEEDS, SEEDS_TO_DECIDE = 5, 10
MEASURED: tuple[Standing, ...] = ("done", "failed")
NUMBERS = (1, 20, 100)
"""Numbers that are judged in one verification, for `--outliers`."""
MINUTES = 1.0
"""The expected time of a run of a recipe that gives none."""


@dataclass(frozen=True)
class Part:
    """What is measured of one recipe.

    runs: those whose data are here, with the checksums of their data. steps: the steps on them. absent: the number of
    the other runs by their data set.
    """

    name: str
    runs: Sequence[PlannedRun]
    steps: Sequence[PlannedStep]
    absent: Mapping[str, int]


class Measured:
    """What a store of runs and the reference hold of a plan."""

    def __init__(self, folder: Path) -> None:
        self.store = store_of(folder.resolve())
        self.reference = known_reference()
        self._standings: dict[str, Standing] = {}

    def is_stored(self, planned: Planned) -> bool:
        """Return whether the store has a run or a step, and not only the reference."""
        return find(self.store, planned).standing in MEASURED

    def is_done(self, planned: Planned) -> bool:
        """Return whether nothing is left to measure: a run that failed has no steps."""
        of_failed = isinstance(planned, PlannedStep) and self.standing(planned.of) == "failed"
        return of_failed or self.standing(planned) in MEASURED

    def standing(self, planned: Planned) -> Standing:
        """Return how far a run or a step is."""
        if planned.settings not in self._standings:
            found = find(self.store, planned).standing
            if found not in MEASURED:
                found = find_in_reference(self.reference, planned) or found
            self._standings[planned.settings] = found
        return self._standings[planned.settings]

    def minutes(self, planned: Planned) -> float:
        """Return the expected time: the median of the measured runs of the setting, else what the recipe says."""
        known = self._times.get(setting_text(planned.rule, planned.config)) if is_run(planned) else None
        return median(known) if known else planned.minutes or MINUTES

    @cached_property
    def _times(self) -> Mapping[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in [*self.reference.rows(), *self.store.rows()]:
            if row["status"] == "completed":
                found.setdefault(setting_text(row["rule"], row["config"]), []).append(row["seconds"] / 60)
        return found


def known_reference() -> Reference:
    """Return the reference; it has no runs before the first ones are written. Raises PlasticError if it is damaged."""
    found = read_reference(FOLDER)
    if found.problem is not None and (FOLDER / RUNS_FILE).exists():
        raise PlasticError(f"{found.problem} Restore it first, or all runs are measured again.")
    return found


def find_in_reference(reference: Reference, planned: Planned) -> Standing | None:
    """Return how a run or a step ended that the reference holds; None if it does not hold it.

    As in a store, versions and data must be the same: see `plastic_cli.sweeps.lookup`. A step has no files here.
    """
    of = planned if isinstance(planned, PlannedRun) else planned.of
    for row in reference.with_setting(of.rule, of.config):
        same_run = (row["seed"], row["config"]["device"]) == (of.seed, of.config["device"])
        if not same_run or row["rule_version"] != of.version or not same_data(row["data_checksum"], of.checksum):
            continue
        if isinstance(planned, PlannedRun):
            return "done" if row["status"] == "completed" else "failed"
        for stage in reference.stages(row["run"]):
            if (stage.verb, stage.config) == (planned.verb, planned.config) and stage.is_of_versions(planned.versions):
                return "done"
    return None


def is_run(planned: Planned) -> bool:
    """Return whether this is a run, and not a step on one."""
    return isinstance(planned, PlannedRun)


def with_seeds(file: RecipeFile, least: int) -> RecipeFile:
    """Return a recipe with at least this number of seeds in each set of runs; lists of seeds stay."""

    def more(seeds: int | list[int] | None) -> int | list[int] | None:
        return max(seeds, least) if isinstance(seeds, int) else seeds

    recipe = file.recipe
    runs = [table.model_copy(update={"seeds": more(table.seeds)}) for table in recipe.runs]
    # A recipe without a number of seeds has one.
    return replace(file, recipe=recipe.model_copy(update={"seeds": more(recipe.seeds or 1), "runs": runs}))


def undecided_claims(folder: Path) -> frozenset[str]:
    """Return the claims about which the reference, or the runs of a folder, are inconclusive."""
    from measured import claims as claims_of
    from plastic_cli.api.report import report

    undecided = {name for name, value in claims_of(known_reference()).items() if value.word == "inconclusive"}
    if folder.is_dir() and RunStore(folder).folders():
        claims = report(folder).claims
        undecided.update(claims[claims["verdict"] == "inconclusive"]["id"])
    return frozenset(undecided)


def read_recipes(names: Iterable[str]) -> Iterator[RecipeFile]:
    """Yield recipes; one that cannot be read gives a warning and is left out."""
    for name in names:
        try:
            yield read_recipe(name)
        except UserError as error:
            Console().warning(str(error))


def parts_of(names: Iterable[str], folder: Path, data: Path | None, undecided: Collection[str]) -> list[Part]:
    """Return what is measured of each recipe."""
    parts = []
    for file in read_recipes(names):
        seeds = SEEDS if undecided.isdisjoint(file.recipe.claims) else SEEDS_TO_DECIDE
        plan = with_data(plan_recipe(with_seeds(file, seeds)), data, folder)
        steps = plan_steps(file, plan)
        absent: dict[str, int] = {}
        here = []
        for run in plan:
            name = run.config.get("dataset")
            if isinstance(name, str) and run.checksum is None:
                absent[name] = absent.get(name, 0) + 1
            else:
                here.append(run)
        parts.append(Part(file.name, here, with_runs(steps, here), absent))
    return parts


def missing(parts: Iterable[Part], measured: Measured, longest: float) -> list[Planned]:
    """Return the runs that are missing, each before the missing steps on it, the shortest first, each once.

    A run that is done comes again before its missing steps. If only the reference has it, it is repeated with all its
    steps, because the new run replaces the stored one. longest: minutes of a run or a step.
    """
    runs: dict[str, PlannedRun] = {}
    steps: dict[str, dict[str, PlannedStep]] = {}
    for part in parts:
        for run in part.runs:
            runs.setdefault(run.settings, run)
        for step in part.steps:
            steps.setdefault(step.of.settings, {}).setdefault(step.settings, step)
    groups: list[tuple[float, list[Planned]]] = []
    for settings, run in runs.items():
        standing = measured.standing(run)
        if standing == "failed":
            continue
        every = list(steps.get(settings, {}).values())
        short = [step for step in every if measured.minutes(step) <= longest]
        todo = [step for step in short if measured.standing(step) != "done"]
        if standing == "done" and (not todo or measured.is_stored(run)):
            group, left = [run, *todo], todo
        elif measured.minutes(run) <= longest and (standing != "done" or short == every):
            group = left = [run, *short]
        else:
            continue
        if left:
            # The first seeds of all settings before the last ones of the shortest.
            minutes = sum(map(measured.minutes, left)) * (1 + run.seed % 1000 / 20)
            groups.append((minutes, [replace_minutes(planned, measured.minutes(planned)) for planned in group]))
    return [planned for _, group in sorted(groups, key=lambda entry: entry[0]) for planned in group]


def replace_minutes(planned: Planned, minutes: float) -> Planned:
    """Return a run or a step with its expected time."""
    return replace(planned, minutes=minutes)


def print_status(parts: Sequence[Part], measured: Measured) -> None:
    """Print for each recipe how much of it is measured, and the minutes of what is left."""
    rows = []
    for part in parts:
        standings = [measured.standing(run) for run in part.runs]
        left = [planned for planned in (*part.runs, *part.steps) if not measured.is_done(planned)]
        absent = ", ".join(f"{number} on {name}" for name, number in part.absent.items())
        rows.append(
            {
                "recipe": part.name,
                "runs": len(part.runs) + sum(part.absent.values()),
                "measured": sum(standing in MEASURED for standing in standings),
                "failed": standings.count("failed") or None,
                "steps": len(part.steps) or None,
                "steps measured": sum(measured.standing(step) == "done" for step in part.steps) or None,
                "minutes left": round(sum(map(measured.minutes, left)), 1) or None,
                "data not here": absent or None,
            }
        )
    print_rows(rows, list(rows[0]), "table")
    # A run or a step of two recipes is measured once.
    every = {planned.settings: planned for part in parts for planned in (*part.runs, *part.steps)}.values()
    runs = [planned for planned in every if is_run(planned)]
    left = [planned for planned in every if not measured.is_done(planned)]
    done = sum(measured.standing(run) in MEASURED for run in runs)
    print(
        f"{done} of {len(runs)} runs and {len(every) - len(runs)} steps measured,"
        f" {sum(map(measured.minutes, left)):,.0f} minutes left for {len(left)}"
    )


def write(folder: Path) -> None:
    """Write the runs of the store that belong to recipes, and those of the reference that the store lacks.

    Raises PlasticError, and writes nothing, if runs would be lost: those of a reference that is damaged, and those of a
    recipe that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}. Name the folder of the measured runs.")
    named = {
        name: [run.settings for run in plan_recipe(with_seeds(read_recipe(name), SEEDS_TO_DECIDE))]
        for name in recipe_names()
    }
    keep = read_reference(FOLDER)
    if keep.problem is not None and (FOLDER / RUNS_FILE).exists():
        raise PlasticError(f"{keep.problem} Nothing was written, because its runs would be lost.")
    number = write_reference(RunStore(folder), FOLDER, named, keep=keep)
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    recipes = Reference(FOLDER).recipes()
    print(f"{number} runs of {len(recipes)} recipes in {FOLDER}, {size / 1e6:.2f} MB")
    if size > LARGEST:
        raise PlasticError(f"the reference has more than {LARGEST / 1e6:g} MB: keep fewer points of each curve.")
    print("now write the pages: python website/measurements.py")


def print_outliers(reference: Reference) -> None:
    """Print for each rule the share of main metrics that lie outside the interval of the other seeds."""
    found = {number: outliers_by_rule(reference, number) for number in NUMBERS}
    whole = {number: outliers(reference, number) for number in NUMBERS}
    counted = [(rule, {number: found[number][rule] for number in NUMBERS}) for rule in found[NUMBERS[0]]]
    rows: list[dict[str, Any]] = [
        {
            "rule": rule,
            "values": of_numbers[NUMBERS[0]].values,
            **{_outside(number): f"{100 * of_numbers[number].share:.2f}%" for number in NUMBERS},
        }
        for rule, of_numbers in (*counted, ("all", whole))
    ]
    rows.append({"rule": "normal results", **{_outside(number): f"{5 / number:.2f}%" for number in NUMBERS}})
    print_rows(rows, list(rows[0]), "table", right=list(rows[0])[1:])


def _outside(number: int) -> str:
    return f"outside, {number} number{'' if number == 1 else 's'}"


def measure(parts: Sequence[Part], measured: Measured, folder: Path, data: Path | None, longest: float) -> int:
    """Carry out what is missing and return the exit code: 130 if it was stopped."""
    os.nice(19)
    for part in parts:
        for name, number in part.absent.items():
            print(f"skipped: {number} runs of {part.name}, because the data set {name} is not here", flush=True)
    plan = missing(parts, measured, longest)
    if not plan:
        print("nothing is missing")
        return 0
    values = {"runs": folder, "workers": 1, **({"data": data} if data else {})}
    results = run_plan(plan, SweepInvocation.from_values(values))
    for result in results:
        if result.word == "failed":
            print(f"failed: {result.planned.label}: {result.outcome.error}")
    return 130 if any(result.word in ("interrupted", "left") for result in results) else 0


def minutes_above_0(text: str) -> float:
    """Return the minutes that `--longest` names."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not minutes > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes above 0")
    return minutes


def main() -> int:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of the measured runs")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: PLASTIC_DATA)")
    parser.add_argument("--recipe", action="append", default=[], help="only this recipe (can be repeated)")
    parser.add_argument(
        "--longest",
        type=minutes_above_0,
        default=math.inf,
        metavar="MINUTES",
        help="only runs and steps up to these minutes",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="print how much of each recipe is measured")
    what.add_argument("--write", action="store_true", help="write the reference from the runs")
    what.add_argument("--outliers", action="store_true", help="print how often a run lies outside the other seeds")
    options = parser.parse_args()
    try:
        if options.outliers:
            print_outliers(known_reference())
            return 0
        if options.runs is None:
            parser.error("name the folder of the measured runs: --runs FOLDER")
        if options.write:
            write(options.runs)
            return 0
        for name in options.recipe:
            # A recipe that is named and cannot be read is an error.
            read_recipe(name)
        names = options.recipe or recipe_names()
        parts = parts_of(names, options.runs, options.data, undecided_claims(options.runs))
        measured = Measured(options.runs)
        if options.status:
            print_status(parts, measured)
            return 0
        return measure(parts, measured, options.runs, options.data, options.longest)
    except PlasticError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
