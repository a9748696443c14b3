"""The leaderboard: every setting of the reference in one table, with the settings of recipes that are not measured."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from plastic_cli.analysis.cost import Cost, cost_of
from plastic_cli.config.describe import as_typed
from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.reports.claims import PublishedFigures, read_claims
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import (
    CONFIG_PREFIX,
    Group,
    control_name,
    data_notes,
    group_runs,
    marked_data,
    plain_value,
    setting_and_data,
)
from plastic_cli.reports.html_tables import PageCell, PageTable, recipe_cell, table_html, web_address
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.pareto import PRICES
from plastic_cli.reports.reference_settings import ReferenceSetting, control_of_all, own_control
from plastic_cli.reports.results import TRAINING_SECONDS, Result, more_is_better, summarize
from plastic_cli.reports.tables import claim_figure
from plastic_cli.resolve import resolve
from plastic_cli.runs.record import BOOKKEEPING, RunRecord
from plastic_cli.runs.reference import Reference, read_reference
from plastic_cli.statistics.intervals import Interval
from plastic_cli.sweeps.plan import PlannedRun, plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.tables import Cell, Column, Detailed, Number, Table

MARK = "<!-- table: leaderboard -->"
"""The place of the table in the page."""
NOT_MEASURED = "not measured"
COMMON = ("model", "hidden", "epochs", "images", "validation")
"""Options that a setting and a control of another rule have in common: the network, and the samples that it sees."""
STYLE = NumberStyle()
PLANNED = "planned-"
"""The ids of runs that stand for a setting which is not measured begin with this."""

COLUMNS = (
    Column("rule"),
    Column("data set"),
    Column("setting"),
    Column("metric"),
    Column("result", numeric=True),
    Column("control", numeric=True),
    Column("seeds", numeric=True),
    Column("published"),
    Column("verdict"),
    Column("samples", numeric=True),
    Column("messages", numeric=True),
    Column("FLOPs", numeric=True),
    Column("updates", numeric=True),
    Column("bytes", numeric=True),
    Column("seconds", numeric=True),
    Column("recipe"),
    Column("how to run it"),
    Column("version"),
    Column("machine"),
)


@dataclass(frozen=True)
class Planned:
    """A setting of recipes. run: its first run; seeds: the largest number of seeds that a recipe asks for."""

    run: PlannedRun
    recipes: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Line:
    """A setting, measured or not. records: its completed runs; control: the name of the control that it is, if any."""

    group: Group
    result: Result
    records: tuple[RunRecord, ...]
    recipes: tuple[str, ...]
    planned: Planned | None
    control: str | None

    @property
    def key(self) -> str:
        """Rule, data set and configuration as text."""
        return setting_and_data(self.group.rule, self.group.dataset, self.group.config)

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole configuration of a run."""
        if self.records:
            return self.records[0].config
        assert self.planned is not None
        return self.planned.run.config


def html() -> str:
    """Return the table of the reference that comes with plastic, with its filters, as a part of a page."""
    return table_html(leaderboard(read_reference(), planned_settings()))


def leaderboard(reference: Reference, planned: Mapping[str, Planned]) -> PageTable:
    """Return the table: a row for each setting of the reference, and for each planned setting that it lacks."""
    lines = lines_of(reference, planned)
    measured = [line for line in lines if line.records]
    controls = Controls(reference, lines)
    runs = sum(len(line.records) for line in measured)
    missing = len(lines) - len(measured)
    counted = f"{runs} runs of {len(measured)} settings are measured, {missing} settings are not and follow below."
    caption = f"{counted} {STYLE.caption([line.result.value for line in measured])}"
    caption += data_notes(line.group for line in lines)
    return PageTable(
        "results-table",
        Table("Settings", caption, COLUMNS, tuple(row(line, controls) for line in lines)),
        recipes=tuple(line.recipes for line in lines),
        controls=tuple(line.control is not None for line in lines),
        framed=True,
    )


# ------------------------------------------------------------------------------------------------------------ settings


@cache
def planned_settings() -> dict[str, Planned]:
    """Return the settings of all recipes by `setting_and_data`."""
    found: dict[str, Planned] = {}
    for name in recipe_names():
        by_setting: dict[str, list[PlannedRun]] = {}
        for run in plan_recipe(read_recipe(name)):
            by_setting.setdefault(setting_and_data(run.rule, run.dataset, run.config), []).append(run)
        for key, runs in by_setting.items():
            known = found.get(key, Planned(runs[0], (), 0))
            found[key] = Planned(known.run, (*known.recipes, name), max(known.seeds, len(runs)))
    return found


def lines_of(reference: Reference, planned: Mapping[str, Planned]) -> list[Line]:
    """Return all settings, sorted by data set, metric and result. Settings that are not measured follow all others."""
    runs = reference.runs()
    # Versions are named in a column of their own.
    runs = runs.drop(columns=["version", "rule_version"])
    present = {setting_and_data(row["rule"], row["dataset"], row["config"]) for row in reference.rows()}
    missing = {key: each for key, each in planned.items() if key not in present}
    completed, failed = runs[runs["status"] == "completed"], runs[runs["status"] == "failed"]
    whole = pd.concat([completed, _frame_of(missing.values(), completed)], ignore_index=True)
    models = training_models(sorted({*whole["rule"], *failed["rule"]}))
    groups = group_runs(whole, models, failed)
    results = summarize(whole, groups, published_figures(models))
    lines = []
    for group, result in zip(groups, results, strict=True):
        plan = planned.get(setting_and_data(group.rule, group.dataset, group.config))
        records = tuple(reference.record(run) for run in group.runs if not run.startswith(PLANNED))
        own = whole.loc[whole["run"].isin(group.runs), "recipes"]
        recipes = sorted({name for names in own for name in names} | set(plan.recipes if plan else ()))
        lines.append(Line(group, result, records, tuple(recipes), plan, control_name(group, models.get(group.rule))))
    return sorted(lines, key=_order)


def _frame_of(missing: Iterable[Planned], measured: pd.DataFrame) -> pd.DataFrame:
    """Return settings that are not measured as rows of a frame of runs, with the data that most runs have."""
    checksums = measured.groupby("dataset")["data_checksum"].agg(lambda values: next(iter(values.mode()), None))
    rows = [
        {
            "run": f"{PLANNED}{number}", "rule": each.run.rule, "dataset": each.run.dataset, "seed": each.run.seed,
            "data_checksum": checksums.get(each.run.dataset), "recipes": list(each.recipes),
            **{f"{CONFIG_PREFIX}{name}": value for name, value in each.run.config.items()},
        }
        for number, each in enumerate(missing)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def published_figures(rules: Iterable[str]) -> dict[str, PublishedFigures]:
    """Return the published figures of some rules."""
    found = {}
    for name in rules:
        text = discover().rules[name].claims_text() if name in discover().rules else None
        if text is not None:
            found[name] = read_claims(name, text)
    return found


def _order(line: Line) -> tuple[Any, ...]:
    metric, mean = line.result.metric, line.result.value.mean
    known = bool(line.records) and math.isfinite(mean)
    better = -mean if known and metric and more_is_better(metric) else mean
    return (not known, str(line.group.data or "").casefold(), str(metric), better if known else 0.0, line.group.rule)


# ------------------------------------------------------------------------------------------------------------ controls


class Controls:
    """The controls of settings, as far as the reference has them with otherwise equal options."""

    def __init__(self, reference: Reference, lines: Sequence[Line]) -> None:
        self._rows: dict[str | None, list[dict[str, Any]]] = {}
        for each in reference.rows():
            self._rows.setdefault(each["dataset"], []).append(each)
        self._models = training_models(sorted({line.group.rule for line in lines}))
        self._results = {line.key: line.result for line in lines}

    def of(self, line: Line) -> list[tuple[str, Interval]]:
        """Return name and result of each control of a measured setting: its own ones first."""
        metric = line.result.metric
        if not line.records or line.control is not None or metric is None:
            return []
        included = [("control of each run", line.result.control)] if line.result.control else []
        others = [
            (name, result.value)
            for name, setting in self._settings(line)
            if setting.same_data and (result := self._result(setting)) is not None and result.metric == metric
        ]
        return [(name, interval) for name, interval in (*included, *others) if interval.n]

    def _settings(self, line: Line) -> Iterator[tuple[str, ReferenceSetting]]:
        """Yield each control of a rule that is otherwise equal, and the nearest of each control of all rules.

        The optimizer and its rate may differ in a control of another rule, because each rule needs its own.
        """
        rows, record = self._rows[line.group.dataset], line.records[0]
        comparable = [row for row in rows if _have_in_common(row["config"], record.config)]
        for rule in sorted(self._models, key=lambda rule: rule != line.group.rule):
            model = self._models[rule]
            if not issubclass(model, TrainConfig):
                continue
            found: list[tuple[str, ReferenceSetting | None]] = []
            if rule == line.group.rule:
                own = [(name, own_control(rows, record, model, options)) for name, options in model.controls.items()]
                found = [(name, setting) for name, setting in own if setting is not None and not setting.differing]
            elif model.controls_all_rules:
                names = (*model.controls, None)
                found = [(name or rule, control_of_all(comparable, record, model, rule, name)) for name in names]
            yield from ((name, setting) for name, setting in found if setting is not None)

    def _result(self, setting: ReferenceSetting) -> Result | None:
        """Return the result of the row of a setting, over the seeds of all versions."""
        return self._results.get(setting_and_data(setting.rule, setting.rows[0]["dataset"], setting.config))


def _have_in_common(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return all(first[name] == second[name] for name in COMMON if name in first and name in second)


def _control_cell(line: Line, controls: Controls) -> Cell:
    """Return the result of the first control of a setting, with its name and those of the others below."""
    metric = metric_of(line.result.metric, line.group.rule) if line.result.metric else None
    found = [(name, STYLE.estimate(interval, metric)) for name, interval in controls.of(line)] if metric else []
    cells = [(name, cell) for name, cell in found if cell is not None]
    if not cells:
        return None
    (first, own), *others = cells
    names = "; ".join([first, *(f"{name}: {cell.text}" for name, cell in others)])
    return PageCell(own.text, own.detail, repr(own.value), source=names)


# ---------------------------------------------------------------------------------------------------------------- rows


def row(line: Line, controls: Controls) -> tuple[Cell, ...]:
    """Return the cells of a setting, one for each of COLUMNS."""
    group, result = line.group, line.result
    metric = metric_of(result.metric, group.rule) if result.metric else None
    return (
        Detailed(group.rule, f"control: {line.control}" if line.control else ""),
        marked_data(group),
        group.setting,
        STYLE.heading(metric) if metric else None,
        STYLE.estimate(result.value, metric) if metric else PageCell(NOT_MEASURED),
        _control_cell(line, controls),
        _seeds(line),
        *_published(result),
        *_price(line),
        STYLE.estimate(result.seconds, metric_of(TRAINING_SECONDS)),
        recipe_cell(line.recipes),
        PageCell("", code=(command,), sort=command) if (command := command_of(line)) else None,
        ", ".join(_distinct(record.versions.get("plastic") for record in line.records)) or None,
        ", ".join(_distinct(machine_text(record) for record in line.records)) or None,
    )


def _seeds(line: Line) -> Cell:
    have, lost = len(line.records), line.group.failed
    wanted = line.planned.seeds if line.planned else 0
    details = [f"{lost} failed"] if lost else []
    if have + lost < wanted:
        details.append(f"of {wanted} in the recipe")
    return PageCell(str(have), ", ".join(details), str(have))


def _published(result: Result) -> tuple[Cell, Cell]:
    verdict = result.verdict
    if verdict is None:
        return None, None
    claim = verdict.claim
    figure = claim.words or claim_figure(claim, result.group.rule, STYLE)
    cell = PageCell(figure, sort=repr(claim.value), address=web_address(claim.link), source=claim.id)
    return cell, Detailed(verdict.word, "" if verdict.word == "reproduced" else verdict.reason or "")


def _price(line: Line) -> tuple[Cell, ...]:
    """Return samples, messages, operations, updates and bytes: means over the runs of the setting."""
    costs = [cost for record in line.records if (cost := cost_of(record)) is not None]
    if not costs:
        samples = [record.speed["samples"] for record in line.records if record.speed.get("samples")]
        return (amount(sum(samples) / len(samples)) if samples else None, None, None, None, None)

    def mean(number: Callable[[Cost], float]) -> float:
        return sum(map(number, costs)) / len(costs)

    details = {
        "flops": f"{_short(mean(lambda cost: cost.learning_flops))} to learn",
        "bytes": f"{_short(mean(lambda cost: cost.state_bytes))} between steps",
    }
    prices = [
        amount(mean(price.of_cost), details.get(name, ""))
        for name, price in PRICES.items()
        if price.of_cost is not None
    ]
    return amount(mean(lambda cost: cost.samples)), *prices


def amount(value: float, detail: str = "") -> Number:
    """Return the cell of a count."""
    return Number(_short(value), detail, value)


def _short(value: float) -> str:
    """Return a count with three digits and the prefix of a power of 1000: 950, 1.20 k, 43.1 M, 2.53 T."""
    if value < 999.5:
        return f"{value:.0f}"
    digits, exponent = f"{value:.2e}".split("e")
    power = min(int(exponent) // 3, 6)
    place = int(exponent) - 3 * power
    return f"{float(digits) * 10**place:.{max(0, 2 - place)}f} {' kMGTPE'[power]}".strip()


def machine_text(record: RunRecord) -> str:
    """Return the kind of machine of a run: "AMD EPYC, cpu, 1 thread"."""
    machine, threads = record.machine, record.machine.get("threads")
    counted = f"{threads} thread{'' if threads == 1 else 's'}" if threads else None
    return ", ".join(str(part) for part in (machine.get("processor"), machine.get("device"), counted) if part)


def _distinct(texts: Iterable[str | None]) -> list[str]:
    return [text for text, _ in sorted(Counter(text for text in texts if text).items())]


# ----------------------------------------------------------------------------------------------------------- commands


def command_of(line: Line) -> str:
    """Return the command that trains a setting; if its options cannot be typed, the one that runs its recipe."""
    seeds = max(len(line.records), line.planned.seeds if line.planned else 0)
    with suppress(UserError, KeyError):
        model = training_models([line.group.rule])[line.group.rule]
        options = shortest_options(model, line.config)
        if options is not None and not any(isinstance(value, Mapping) for value in options.values()):
            words = [
                word for name, value in options.items() for word in as_typed(name, plain_value(value)).split(" ", 1)
            ]
            several = ["--seeds", str(seeds)] if seeds > 1 else []
            return shlex.join(["plastic", "train", line.group.rule, *words, *several])
    return f"plastic sweep {line.recipes[0]}" if line.recipes else ""


def shortest_options(model: type[Config], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fewest options from which the rest of a configuration follows; None if there are none.

    Seed, device and places of files do not count.
    """
    apart = BOOKKEEPING - {"dataset"}
    wanted = {name: value for name, value in config.items() if name not in apart and name in model.model_fields}

    def gives(options: Mapping[str, Any]) -> bool:
        try:
            found = resolve(model, options).model_dump(mode="json")
        except UserError:
            return False
        return all(found[name] == value for name, value in wanted.items())

    defaults = model.model_construct().model_dump(mode="json")
    options = {name: value for name, value in wanted.items() if value is not None and value != defaults.get(name)}
    if not gives(options):
        options = {name: value for name, value in wanted.items() if value is not None}
        if not gives(options):
            return None
    for name in list(options):
        fewer = {other: value for other, value in options.items() if other != name}
        # Asked first, because it is faster than a whole configuration.
        follows = plain_value(model.consequences(fewer).get(name, defaults.get(name))) == options[name]
        if follows and gives(fewer):
            options = fewer
    return options
