"""An overview of a recipe: its rules, how many of its runs the store holds, and its result in the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from pathlib import Path
from typing import Any

from plastic_cli.data.catalog import DATASETS
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.runs.metrics import MAIN_METRICS
from plastic_cli.runs.record import NOTES_BETWEEN
from plastic_cli.runs.reference import Reference, setting_text
from plastic_cli.sweeps.lookup import Planned, find_run, find_step, store_of, with_data
from plastic_cli.sweeps.plan import PlannedRun, plan_recipe
from plastic_cli.sweeps.recipe import RecipeFile
from plastic_cli.sweeps.steps import plan_steps
from plastic_cli.tables import NOTE_MARK, duration

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ReferenceResult:
    """The result of a recipe in the reference.

    metric: its main metric; None without a run. means: the mean of each setting over all its seeds in the reference,
    which can be more than those of the recipe. runs: the number of runs with a value. missing: the number of runs of
    the recipe that are not among them. reason: why it is not measured, if that is known.
    data_notes: what is special about the data that it was measured on, such as "emnist: not the official split".
    settings: each setting of the recipe, by its first planned run, with its values in the reference.
    """

    metric: str | None
    rule: str
    means: tuple[float, ...]
    runs: int
    missing: int
    reason: str = ""
    data_notes: tuple[str, ...] = ()
    settings: tuple[tuple[PlannedRun, tuple[float, ...]], ...] = ()

    @property
    def text(self) -> str:
        """The result in a few words: "92.83%, n = 5", or "81.20% to 97.80%, 34 settings, n = 170".

        A NOTE_MARK follows the values if there are notes on the data.
        """
        if self.metric is None:
            return f"{NOT_MEASURED}: {self.reason}" if self.reason else NOT_MEASURED
        metric = metric_of(self.metric, self.rule)
        name = "" if metric.unit == "%" else f"{metric.name} "
        low, high = metric.text(min(self.means)), metric.text(max(self.means))
        mark = NOTE_MARK if self.data_notes else ""
        values = f"{low}{mark}" if len(self.means) == 1 else f"{low} to {high}{mark}, {len(self.means)} settings"
        missing = f", {self.missing} missing" if self.missing else ""
        return f"{name}{values}, n = {self.runs}{missing}"


def recipe_row(file: RecipeFile, runs: Path, data: Path | None, reference: Reference) -> dict[str, Any]:
    """Return name, rules, runs, steps, how many of them the store holds, time, result and title of a recipe.

    time: of all runs, and of those steps whose time the recipe says. steps: 0 for a recipe that only trains.
    reference: the text of the result there; reference_mean is missing if there are several settings, and reference_low
    and reference_high are the means of the lowest and the highest one.
    """
    plan = plan_recipe(file)
    store = store_of(runs.resolve())
    # Data is read only if a run in the store may be one of these.
    if any(find_run(store, planned).stored is not None for planned in plan):
        plan = with_data(plan, data, runs)
    done = sum(find_run(store, planned).standing == "done" for planned in plan)
    steps = plan_steps(file, plan)
    steps_done = sum(find_step(store, step).standing == "done" for step in steps) if done else 0
    timed: list[Planned] = [*plan, *(step for step in steps if step.minutes is not None)]
    minutes = [planned.minutes for planned in timed]
    known = None if None in minutes else sum(value for value in minutes if value is not None)
    result = None if reference.problem else reference_result(plan, reference)
    means = result.means if result else ()
    return {
        "recipe": file.name,
        "rule": ", ".join(dict.fromkeys(planned.rule for planned in plan)),
        "runs": len(plan),
        "done": done,
        "steps": len(steps),
        "steps_done": steps_done,
        "time": None if known is None else duration(60 * known),
        "reference": result.text if result else None,
        "reference_metric": result.metric if result else None,
        "reference_mean": means[0] if len(means) == 1 else None,
        "reference_low": min(means, default=None),
        "reference_high": max(means, default=None),
        "reference_settings": len(means),
        "reference_runs": result.runs if result else 0,
        "reference_data_notes": NOTES_BETWEEN.join(result.data_notes) or None if result else None,
        "reproduces": file.recipe.reproduces or None,
        "title": file.recipe.title,
    }


def reference_result(plan: Sequence[PlannedRun], reference: Reference) -> ReferenceResult:
    """Return the main result of the settings of planned runs in the reference, on whatever device they were measured.

    All seeds of a setting count, as in a comparison with the reference, and not only those of the recipe.
    """
    settings: dict[str, list[PlannedRun]] = {}
    for planned in plan:
        settings.setdefault(setting_text(planned.rule, planned.config), []).append(planned)
    found: list[list[dict[str, Any]]] = []
    for of_setting in settings.values():
        measured = reference.with_setting(of_setting[0].rule, of_setting[0].config)
        found.append([row for row in measured if row["status"] == "completed"])
    rows = [row for measured in found for row in measured]
    metric = _main_metric(rows)
    rule = plan[0].rule if plan else ""
    if metric is None:
        return ReferenceResult(None, rule, (), 0, len(plan), _reason(plan, reference))
    values = [_values(measured, metric) for measured in found]
    means = tuple(fsum(each) / len(each) for each in values if each)
    missing = 0
    for of_setting, measured in zip(settings.values(), found, strict=True):
        having = {row["seed"] for row in measured if _values([row], metric)}
        missing += sum(planned.seed not in having for planned in of_setting)
    noted = [(row["dataset"], row["data_note"].split(NOTES_BETWEEN)) for row in rows if row["data_note"]]
    notes = dict.fromkeys(f"{dataset}: {note}" for dataset, of_row in noted for note in of_row)
    return ReferenceResult(
        metric,
        str(rows[0]["rule"]),
        means,
        sum(map(len, values)),
        missing,
        data_notes=(*notes,),
        settings=tuple(
            (of_setting[0], tuple(each)) for of_setting, each in zip(settings.values(), values, strict=True)
        ),
    )


def _main_metric(rows: Sequence[dict[str, Any]]) -> str | None:
    """Return the main metric that most rows have a value of."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row["summary"]:
            counts[name] = counts.get(name, 0) + bool(_values([row], name))
    main = [name for name in MAIN_METRICS if counts.get(name)]
    test = [name for name in counts if name.startswith("test/") and counts[name]]
    return max(main or test or [name for name in counts if counts[name]], key=lambda name: counts[name], default=None)


def _values(rows: Sequence[dict[str, Any]], metric: str) -> list[float]:
    values = [row["summary"].get(metric) for row in rows]
    return [float(value) for value in values if value is not None and isfinite(value)]


def _reason(plan: Sequence[PlannedRun], reference: Reference) -> str:
    """Return that the data set of the runs was missing where the reference was measured: no rule has a run on it."""
    measured = reference.datasets()
    missing = [planned.dataset for planned in plan if planned.dataset in DATASETS and planned.dataset not in measured]
    if not missing or len(missing) < len(plan):
        return ""
    names = [DATASETS[name].title.partition(",")[0] for name in dict.fromkeys(missing) if name is not None]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not here"
