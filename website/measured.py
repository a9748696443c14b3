"""Values of `docs/measurements/` that are queries on the reference: runs of one setting, a metric and a statistic.

    "random / accuracy" = { of = "random", metric = "test/accuracy" }

A setting is named in a table `settings`: `{ recipe = "grlu-gr-01" }`, with `where` if the recipe has several, or
`{ rule = "grlu", options = { ... } }` with the options that differ from the defaults of the rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plastic_cli.analysis.cost import Cost, cost_of
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.reports.claims import VERDICTS, Verdict, read_claims
from plastic_cli.resolve import resolve
from plastic_cli.runs.reference import NOT_DISTINGUISHING, Reference, read_reference, setting_text
from plastic_cli.statistics.intervals import MINIMUM_VALUES, mean_interval
from plastic_cli.sweeps.plan import PlannedRun, option_text, plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.verbs.outliers import outliers

if TYPE_CHECKING:
    from plastic_cli.reports.results import ClaimResult

SETTING_KEYS = {"recipe", "runs", "where", "rule", "dataset", "options"}
QUERY_KEYS = {
    "of", "metric", "stage", "with", "labels", "at", "along", "minus", "divided_by", "against", "relation", "over",
    "statistic", "at_least", "seeds", "fewest", "scale", "offset", "within",
}  # fmt: skip
STATISTICS = ("mean", "each", "minimum", "maximum", "count", "slope")
RELATIONS = ("difference", "ratio")
COST = "cost"
"""The split of metrics that are counted from the configuration of a run, such as cost/messages."""


@dataclass(frozen=True)
class Value:
    """A measured value.

    low, high: the 95% t interval over seeds; None without one. n: number of seeds. each: the values of the seeds, in
    their order. word, words: the verdict on a claim, alone and with its reason. count: how many seeds reach a limit.
    versions: of plastic, with which the runs were made. earlier: where and when it was measured, if the reference does
    not hold its runs.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    each: tuple[float, ...] = ()
    word: str = ""
    words: str = ""
    count: int | None = None
    versions: frozenset[str] = frozenset()
    earlier: str = ""


class NotMeasuredError(UserError):
    """The reference has no runs, or too few, for a value."""


@dataclass(frozen=True)
class Setting:
    """A rule with its whole configuration, apart from seed and device.

    planned: its runs in recipes. text: rule and configuration; equal for equal settings.
    """

    rule: str
    config: Mapping[str, Any]
    planned: tuple[PlannedRun, ...] = field(default=(), compare=False)
    recipes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """Rule and configuration as text."""
        return setting_text(self.rule, self.config)

    @property
    def command(self) -> str:
        """The command that measures it."""
        if not self.recipes:
            return f"no recipe has it: {self}"
        return f"plastic sweep {self.recipes[0]}"

    @property
    def minutes(self) -> float:
        """The expected time of one run; infinite if no recipe says so."""
        return min((run.minutes for run in self.planned if run.minutes), default=math.inf)

    def __str__(self) -> str:
        defaults = train_model(find_rule(self.rule))().model_dump(mode="json")
        shown = [
            f"{name}={option_text(value)}"
            for name, value in self.config.items()
            if name not in NOT_DISTINGUISHING and value is not None and value != defaults.get(name)
        ]
        return " ".join([self.rule, *shown])


# --- settings ---------------------------------------------------------------------------------------------------------


@cache
def planned_settings() -> Mapping[str, Setting]:
    """Return the settings of all recipes that come with plastic, by their text."""
    found: dict[str, Setting] = {}
    for name in recipe_names():
        for run in planned_runs(name):
            text = setting_text(run.rule, run.config)
            known = found.get(text) or Setting(run.rule, run.config)
            recipes = known.recipes if name in known.recipes else (*known.recipes, name)
            found[text] = replace(known, planned=(*known.planned, run), recipes=recipes)
    return found


@cache
def planned_runs(recipe: str) -> tuple[PlannedRun, ...]:
    """Return the runs of a recipe."""
    return tuple(plan_recipe(read_recipe(recipe)))


def settings_of_recipe(recipe: str) -> dict[str, Setting]:
    """Return the settings of a recipe by their labels: the name of the runs, and the options that vary."""
    found: dict[str, Setting] = {}
    for run in planned_runs(recipe):
        setting = planned_settings()[setting_text(run.rule, run.config)]
        others = tuple(name for name in setting.recipes if name != recipe)
        found.setdefault(run.label.removesuffix(f" seed={run.seed}"), replace(setting, recipes=(recipe, *others)))
    return found


def setting_of(entry: Mapping[str, Any]) -> Setting:
    """Return the one setting that an entry of `settings` means; raises UserError if it means none or several."""
    _check_keys(entry, SETTING_KEYS, "a setting")
    if "recipe" in entry:
        return _of_recipe(entry)
    if "rule" not in entry:
        raise UserError(f"{dict(entry)}: name a recipe, or a rule and options.")
    model = train_model(find_rule(entry["rule"]))
    options = {**entry.get("options", {}), **{key: entry[key] for key in ("dataset",) if key in entry}}
    config = resolve(model, options).model_dump(mode="json")
    known = planned_settings().get(setting_text(entry["rule"], config))
    return known or Setting(entry["rule"], config)


def _of_recipe(entry: Mapping[str, Any]) -> Setting:
    """Return the setting of a recipe that has the given name of runs and values of options."""
    where = {**entry.get("where", {}), **{key: entry[key] for key in ("rule", "dataset") if key in entry}}
    settings: dict[str, Setting] = {}
    for run in planned_runs(entry["recipe"]):
        values = {**run.config, "rule": run.rule}
        for name in where:
            if name not in values and name not in _option_names():
                raise UserError(f"recipe {entry['recipe']}: no rule has an option '{name}'.")
        if all(_same(values.get(name), value) for name, value in where.items()) and (
            "runs" not in entry or entry["runs"] in run.names
        ):
            text = setting_text(run.rule, run.config)
            settings[text] = planned_settings()[text]
    if len(settings) == 1:
        (found,) = settings.values()
        others = tuple(name for name in found.recipes if name != entry["recipe"])
        return replace(found, recipes=(entry["recipe"], *others))
    what = f"{', '.join(f'{name}={option_text(value)}' for name, value in where.items())}".strip() or "any option"
    if not settings:
        raise UserError(f"recipe {entry['recipe']} has no runs{_named(entry)} with {what}.")
    listed = "; ".join(str(setting) for setting in settings.values())
    raise UserError(f"recipe {entry['recipe']} has {len(settings)} settings{_named(entry)} with {what}: {listed}.")


@cache
def _option_names() -> frozenset[str]:
    return frozenset(
        name for rule in discover().rules if rule_trains(rule) for name in train_model(find_rule(rule)).model_fields
    )


def rule_trains(name: str) -> bool:
    """Return whether a rule has a train command."""
    return find_rule(name).function("train") is not None


def _named(entry: Mapping[str, Any]) -> str:
    return f" named '{entry['runs']}'" if "runs" in entry else ""


def _same(value: Any, wanted: Any) -> bool:
    return bool(value == wanted) or (value is not None and option_text(value) == option_text(wanted))


def _check_keys(entry: Mapping[str, Any], known: set[str], what: str) -> None:
    for key in entry:
        if key not in known:
            raise UserError(f"{what} has no key '{key}'. There are: {', '.join(sorted(known))}.")


# --- values -----------------------------------------------------------------------------------------------------------


def measured(query: Mapping[str, Any], settings: Mapping[str, Setting], reference: Reference) -> Value:
    """Return the value of a query; raises NotMeasuredError if the reference lacks its runs.

    query: `of`, a setting, or a list of them (for a slope, or settings with different seeds that count together), and
    `metric`, a "split/metric" of train, a column of the table of runs such as training_seconds, or a field of the cost
    of the run such as cost/messages. Further keys:
    `stage`, such as "eval", and `with`, the options of that stage; `labels`, such as a layer; `at`, a step of the
    curve, or the value of the metric `along`, which grows; `minus` or `divided_by`, another metric of the same run;
    `against`, a setting to compare with, seed by seed, and `relation`; `statistic`, one of STATISTICS; `at_least`, the
    limit of a count; `over`, the numbers of a slope; `seeds`, the number of seeds that count; `fewest`, the number
    of seeds from which on there is a value; `scale` and `offset`; `within`, where intervals end.
    """
    _check_keys(query, QUERY_KEYS, "a query")
    statistic, relation = query.get("statistic", "mean"), query.get("relation", "difference")
    if statistic not in STATISTICS or relation not in RELATIONS:
        raise UserError(
            f"{dict(query)}: statistic is one of {', '.join(STATISTICS)}; relation, {', '.join(RELATIONS)}."
        )
    values = (_slopes if statistic == "slope" else _together)(query, settings, reference)
    if "against" in query:
        other = values_of(query, _setting(query["against"], settings), reference)
        values = {
            seed: value - other[seed] if relation == "difference" else _ratio(value, other[seed])
            for seed, value in values.items()
            if seed in other
        }
    if not values:
        raise NotMeasuredError(f"{query['of']} and {query.get('against')} have no seed in common.")
    found = _statistic(statistic, query, [values[seed] for seed in sorted(values)])
    used = [*_names(query["of"]), *_names(query.get("against", []))]
    rows = [row for name in used for row in reference.with_setting(settings[name].rule, settings[name].config)]
    return replace(found, versions=frozenset(row["version"] for row in rows if row["seed"] in values))


def _names(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _statistic(statistic: str, query: Mapping[str, Any], values: Sequence[float]) -> Value:
    scaled = [float(query.get("scale", 1)) * value + query.get("offset", 0) for value in values]
    common: dict[str, Any] = {"n": len(scaled), "each": tuple(scaled)}
    if statistic == "count":
        return Value(count=sum(value >= query["at_least"] for value in values), **common)
    if statistic == "each":
        return Value(**common)
    if statistic in ("minimum", "maximum"):
        return Value(mean=min(scaled) if statistic == "minimum" else max(scaled), **common)
    found = mean_interval(scaled)
    low, high = query.get("within", (-math.inf, math.inf))
    bounds = {"low": max(found.low, low), "high": min(found.high, high)} if found.known else {}
    return Value(mean=found.mean, **bounds, **common)


def _setting(name: str, settings: Mapping[str, Setting]) -> Setting:
    if name not in settings:
        raise UserError(f"there is no setting '{name}'. There are: {', '.join(settings)}.")
    return settings[name]


def values_of(query: Mapping[str, Any], setting: Setting, reference: Reference) -> dict[int, float]:
    """Return the metric of a query by seed, of the completed runs of a setting.

    Raises NotMeasuredError if there are fewer seeds than an interval needs, or than the recipe or the query wants if
    that is fewer, as `fewest` does; UserError if the runs used two contents of one data set.
    """
    rows = [row for row in reference.with_setting(setting.rule, setting.config) if row["status"] == "completed"]
    contents = {row["data_checksum"] for row in rows if row["data_checksum"]}
    if len(contents) > 1:
        raise UserError(f"{setting}: its runs used data with different contents: {', '.join(sorted(contents))}.")
    rows = sorted(rows, key=lambda row: (row["seed"], row["created"]))
    of_recipe = len({run.seed for run in setting.planned}) or MINIMUM_VALUES
    wanted = query.get("seeds", query.get("fewest", min(MINIMUM_VALUES, of_recipe)))
    seeds = sorted({row["seed"] for row in rows})
    if len(seeds) < wanted:
        raise NotMeasuredError(f"{setting}: the reference has {len(seeds)} of {wanted} seeds; {setting.command}")
    counted = seeds[: query["seeds"]] if "seeds" in query else seeds
    value: Callable[[Mapping[str, Any], str], float | None] = _reader(query, reference)
    found: dict[int, float] = {}
    for row in rows:
        own = value(row, query["metric"])
        if row["seed"] not in counted or own is None:
            continue
        if "minus" in query:
            own -= _known(value(row, query["minus"]), query["minus"], row)
        if "divided_by" in query:
            own = _ratio(own, _known(value(row, query["divided_by"]), query["divided_by"], row))
        if math.isfinite(own):
            found[row["seed"]] = own
    if not found:
        raise NotMeasuredError(f"{setting}: no run has the metric {query['metric']}.")
    return found


def _known(value: float | None, metric: str, row: Mapping[str, Any]) -> float:
    if value is None:
        raise UserError(f"run {row['run']} has no {metric}.")
    return value


def _ratio(first: float, second: float) -> float:
    return first / second if second else math.nan


def _reader(query: Mapping[str, Any], reference: Reference) -> Callable[[Mapping[str, Any], str], float | None]:
    """Return the function that reads a metric of a run: its final value, or the value of a stage, label or step."""
    if "stage" in query:
        return lambda row, metric: _of_stage(query, row["run"], metric, reference)
    if query.keys().isdisjoint({"labels", "at"}):
        return lambda row, metric: _final(row, metric, reference)
    curves = _metrics(reference)

    def curve(run: str, metric: str, wanted: Mapping[str, Any]) -> list[tuple[int, float]]:
        split, _, name = metric.rpartition("/")
        rows = curves.get((run, split, name), ())
        return sorted(
            (step, value)
            for stage, labels, step, value in rows
            if stage == "train" and wanted.items() <= labels.items()
        )

    def read(row: Mapping[str, Any], metric: str) -> float | None:
        at = query.get("at", math.inf)
        if "along" in query:
            at = max((step for step, value in curve(row["run"], query["along"], {}) if value <= at), default=-1)
        points = [value for step, value in curve(row["run"], metric, query.get("labels", {})) if step <= at]
        return points[-1] if points else None

    return read


def _final(row: Mapping[str, Any], metric: str, reference: Reference) -> float | None:
    """Return the last value of a metric, or what the training of the run costs: "cost/messages"."""
    split, slash, name = metric.partition("/")
    if split != COST:
        found: float | None = row["summary"].get(metric) if slash else row.get(metric)
        return found
    if name not in {each.name for each in fields(Cost)}:
        raise UserError(f"a cost has no {name}. It has: {', '.join(each.name for each in fields(Cost))}.")
    cost = cost_of(reference.record(row["run"]))
    return None if cost is None else float(getattr(cost, name))


def _of_stage(query: Mapping[str, Any], run: str, metric: str, reference: Reference) -> float | None:
    """Return a result of the newest record of a stage with the given options; None if there is none."""
    options = query.get("with", {})
    found = [
        record
        for record in reference.stages(run)
        if record.verb == query["stage"] and all(_same(record.config.get(key), value) for key, value in options.items())
    ]
    if len({json.dumps(record.config, sort_keys=True) for record in found}) > 1:
        raise UserError(f"run {run} has {query['stage']} with several configurations that have {dict(options)}.")
    return found[-1].results.get(metric) if found else None


@cache
def _metrics(reference: Reference) -> dict[tuple[str, str, str], list[tuple[str, dict[str, Any], int, float]]]:
    found: dict[tuple[str, str, str], list[tuple[str, dict[str, Any], int, float]]] = {}
    frame = reference.metrics()
    columns = (frame[name] for name in ("run", "stage", "split", "metric", "labels", "step", "value"))
    for run, stage, split, metric, labels, step, value in zip(*columns, strict=True):
        marked = json.loads(labels) if isinstance(labels, str) else {}
        found.setdefault((run, split, metric), []).append((stage, marked, step, value))
    return found


def _together(query: Mapping[str, Any], settings: Mapping[str, Setting], reference: Reference) -> dict[int, float]:
    """Return the values of one setting, or of several that have no seed in common, by seed."""
    found: dict[int, float] = {}
    names = _names(query["of"])
    for name in names:
        own = values_of(query, _setting(name, settings), reference)
        if not found.keys().isdisjoint(own):
            raise UserError(f"{', '.join(names)}: two of these settings have runs with the same seed.")
        found |= own
    return found


def _slopes(query: Mapping[str, Any], settings: Mapping[str, Setting], reference: Reference) -> dict[int, float]:
    """Return the slope of the metric over `over`, of each seed that every setting has."""
    each = [values_of(query, _setting(name, settings), reference) for name in query["of"]]
    common = set.intersection(*(set(values) for values in each))
    return {seed: float(np.polyfit(query["over"], [values[seed] for values in each], 1)[0]) for seed in common}


# --- claims -----------------------------------------------------------------------------------------------------------


@cache
def claims(reference: Reference) -> Mapping[str, Value]:
    """Return what the report says of each claim, judged by the runs of the reference.

    A claim counts for the setting of the recipe that names it. Runs of all versions form one group, because the
    reference holds one run of a setting and seed, the newest.
    """
    found = {name: _of_claim(name, results) for name, results in judged_claims(reference).items()}
    version = {row["run"]: row["version"] for row in reference.rows()}
    return {
        name: replace(value, versions=frozenset(version[run] for run in _runs_of(judged_claims(reference)[name])))
        for name, value in found.items()
    }


def _runs_of(results: Sequence[ClaimResult]) -> list[str]:
    return [run for result in results if result.group for run in result.group.runs]


@cache
def judged_claims(reference: Reference) -> Mapping[str, list[ClaimResult]]:
    """Return the results of each claim: one for each setting that meets its conditions and is in a recipe for it."""
    # Imported here, because this imports pandas, and a value without a claim does not need it.
    from plastic_cli.reports.content import training_models
    from plastic_cli.reports.grouping import group_runs
    from plastic_cli.reports.results import judge_claims

    texts = {name: text for name, rule in discover().rules.items() if (text := rule.claims_text())}
    published = {name: read_claims(name, text) for name, text in texts.items()}
    found: dict[str, list[ClaimResult]] = {claim.id: [] for figures in published.values() for claim in figures.claims}
    tested = {name for name in recipe_names() if read_recipe(name).recipe.claims}
    runs = reference.runs()
    # Both settings of a claim that compares two are in recipes with claims. The other runs would only take time.
    runs = runs[runs["recipes"].map(lambda names: not tested.isdisjoint(names))]
    runs = runs.assign(version=None, rule_version=None)
    if runs.empty:
        return found
    done, failed = runs[runs["status"] == "completed"], runs[runs["status"] == "failed"]
    groups = group_runs(done, training_models(sorted(published)), failed)
    of_claim = _settings_of_claims()
    text_of = {row["run"]: setting_text(row["rule"], row["config"]) for row in reference.rows()}
    for result in judge_claims(done, groups, published):
        if result.group is None or result.verdict is None or result.entry.id not in found or not result.group.runs:
            continue
        if text_of[result.group.runs[0]] in of_claim.get(result.entry.id, ()):
            found[result.entry.id].append(result)
    return found


@cache
def _settings_of_claims() -> Mapping[str, frozenset[str]]:
    """Return the settings of the recipes that name a claim, by its id."""
    found: dict[str, frozenset[str]] = {}
    for name in recipe_names():
        if tested := read_recipe(name).recipe.claims:
            texts = frozenset(setting_text(run.rule, run.config) for run in planned_runs(name))
            for claim in tested:
                found[claim] = found.get(claim, frozenset()) | texts
    return found


def count_of_verdicts(query: Mapping[str, Any], reference: Reference) -> Value:
    """Return how many claims of a rule have a verdict; "tested" is any verdict but "untested".

    query: `claims`, the rule, and `verdict`.
    """
    _check_keys(query, {"claims", "verdict"}, "a count of claims")
    published = read_claims(query["claims"], find_rule(query["claims"]).claims_text() or "")
    known = claims(reference)
    words = [known[claim.id].word for claim in published.claims]
    wanted = [word for word in VERDICTS if word != "untested"] if query["verdict"] == "tested" else [query["verdict"]]
    if not set(wanted) <= set(VERDICTS):
        raise UserError(f"there is no verdict '{query['verdict']}'. There are: {', '.join(VERDICTS)}.")
    return Value(count=sum(word in wanted for word in words), n=len(words))


def share_of_outliers(query: Mapping[str, Any], reference: Reference) -> Value:
    """Return the percentage of main metrics outside the interval of the other seeds, and how many metrics count.

    query: `outliers`, how many numbers a verification judges.
    """
    _check_keys(query, {"outliers"}, "a share of outliers")
    found = outliers(reference, query["outliers"])
    versions = frozenset(str(row["version"]) for row in reference.rows())
    return Value(mean=100 * found.share, count=found.values, versions=versions)


def _of_claim(name: str, results: Sequence[ClaimResult]) -> Value:
    """Return the value of a claim; raises UserError if two settings meet its conditions."""
    if not results:
        return Value(word="untested", words="untested: no run")
    if len(results) > 1:
        listed = "; ".join(result.group.setting for result in results if result.group)
        raise UserError(f"{name} is judged by {len(results)} settings: {listed}. Make its conditions more specific.")
    verdict = results[0].verdict
    assert verdict is not None
    interval = verdict.interval
    mean = interval.mean if interval.n else None
    low, high = (interval.low, interval.high) if interval.known else (None, None)
    return Value(mean, low, high, interval.n, word=verdict.word, words=_words(verdict))


def _words(verdict: Verdict) -> str:
    """Return a verdict with its reason; the number of seeds is shown once for a table."""
    if verdict.word == "reproduced":
        return verdict.word
    if verdict.side is not None:
        return f"{verdict.word}: ours lies {verdict.side}"
    if verdict.word == "untested":
        return f"{verdict.word}: {verdict.reason}"
    reasons = []
    if verdict.lost:
        reasons.append(f"{verdict.interval.n} of {verdict.interval.n + verdict.lost} seeds finished")
    if verdict.seeds_needed is not None:
        reasons.append(f"about {verdict.seeds_needed} seeds would probably decide")
    if "control" in verdict.reason:
        reasons.append("the control lies in the band too")
    return f"{verdict.word}: {', '.join(reasons) or verdict.reason}"


def stored_reference(folder: Path | None = None) -> Reference:
    """Return the reference in a folder (default: that of plastic); raises UserError if it is damaged."""
    found = read_reference(folder)
    if found.problem is not None:
        raise UserError(found.problem)
    return found
