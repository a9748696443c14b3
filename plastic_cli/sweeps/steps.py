"""The steps of a recipe: eval, analyze and render on its trained runs, as a list of single steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from hashlib import sha256
from typing import Any

from plastic_cli.config.describe import as_typed
from plastic_cli.config.model import Config
from plastic_cli.config.toml import to_toml
from plastic_cli.distribution import installed_version
from plastic_cli.errors import OptionError, UserError, did_you_mean
from plastic_cli.plugins.discovery import discover, find_rule, load_function
from plastic_cli.plugins.models import config_model
from plastic_cli.plugins.rule import VERBS
from plastic_cli.resolve import resolve
from plastic_cli.runs.record import settings_text
from plastic_cli.sweeps.plan import LARGEST_PLAN, PlannedRun
from plastic_cli.sweeps.recipe import RecipeFile, RecipeStep, Where, tables_of


@dataclass(frozen=True)
class PlannedStep:
    """A command with all its options on one planned run.

    verb: eval, analyze or render. of: the run. config: all options as the record of the stage stores them; toml: the
    same as text for `--config`. typed: the options that the recipe names. versions: of plastic and of the rule, as the
    record stores them. minutes: the expected time.
    """

    verb: str
    of: PlannedRun
    config: dict[str, Any]
    toml: str
    typed: dict[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    minutes: float | None = None

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return self.of.rule

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.of.seed

    @cached_property
    def settings(self) -> str:
        """Run, verb and configuration as one text; equal steps have equal texts."""
        return f"{self.of.settings}\n{settings_text(self.verb, self.config)}"

    @property
    def key(self) -> str:
        """A short name; equal steps of equal versions on the same run have the same."""
        versions = " ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        return sha256(f"{self.of.key}\n{self.settings}\n{versions}".encode()).hexdigest()[:24]

    @property
    def kind(self) -> str:
        """What takes about the same time."""
        return f"{self.rule} {settings_text(self.verb, self.config)}"

    @property
    def options_text(self) -> str:
        """The options that the recipe names, as they are typed."""
        return " ".join(as_typed(name, value) for name, value in self.typed.items())

    @property
    def command(self) -> str:
        """The verb and the options that the recipe names."""
        return f"{self.verb} {self.options_text}".rstrip()

    @property
    def label(self) -> str:
        """A few words for tables."""
        return " ".join(filter(None, [self.verb, self.of.label, self.options_text]))


def run_of(planned: PlannedRun | PlannedStep) -> PlannedRun:
    """Return a planned run itself, or the run of a planned step."""
    return planned.of if isinstance(planned, PlannedStep) else planned


def plan_steps(file: RecipeFile, plan: Sequence[PlannedRun]) -> list[PlannedStep]:
    """Return the steps of a recipe on the runs of a plan, each once, in the order of the recipe.

    plan: runs of this recipe, all or some. A step on runs that are not in it is checked and left out. Raises UserError,
    with the line, for names and values that are wrong.
    """
    steps: dict[str, PlannedStep] = {}
    for number, step in enumerate(file.recipe.steps):
        where = ("steps", number)
        rules = _rules_of(file, where, step)
        points = {rule: _points(file, where, step, rule) for rule in rules}
        chosen = [run for run in plan if run.rule in points and (not step.runs or run.names & set(step.runs))]
        for run in _first_seeds(chosen, step.seeds):
            for config, typed in points[run.rule]:
                planned = _planned(step, run, config, typed)
                steps.setdefault(planned.settings, planned)
            if len(steps) > LARGEST_PLAN:
                raise file.error(where, f"that would be more than {LARGEST_PLAN:,} steps.")
    return list(steps.values())


def with_runs(steps: Iterable[PlannedStep], plan: Iterable[PlannedRun]) -> list[PlannedStep]:
    """Return the steps on the runs of a plan, which may know more about them, such as the checksum of their data."""
    runs = {run.settings: run for run in plan}
    return [replace(step, of=runs[step.of.settings]) for step in steps if step.of.settings in runs]


def _planned(step: RecipeStep, run: PlannedRun, config: Config, typed: dict[str, Any]) -> PlannedStep:
    return PlannedStep(
        verb=step.verb,
        of=run,
        config=config.model_dump(mode="json"),
        toml=to_toml(config),
        typed=typed,
        versions=_versions(run.rule),
        minutes=step.minutes,
    )


@cache
def _versions(rule: str) -> dict[str, str]:
    found = {"plastic": installed_version()}
    origin = discover().origins.get(rule)
    return {**found, "rule": origin} if origin else found


def _rules_of(file: RecipeFile, where: Where, step: RecipeStep) -> list[str]:
    """Return the rules of the runs that a step takes; raises UserError for names that the recipe does not have."""
    tables = [listed for _, listed in tables_of(file.recipe)]
    names = [name for listed in tables if (name := getattr(listed[-1], "name", None))]
    for name in step.runs:
        if name not in names:
            there = f"There are: {', '.join(dict.fromkeys(names))}." if names else "None of its runs has a name."
            raise file.error(
                (*where, "runs"), f"the recipe has no runs with the name '{name}'.{did_you_mean(name, names)} {there}"
            )
    rules = [
        find_rule(next(str(table.rule) for table in reversed(listed) if table.rule is not None)).name
        for listed in tables
        if not step.runs or getattr(listed[-1], "name", None) in step.runs
    ]
    if step.rule is None:
        return list(dict.fromkeys(rules))
    try:
        rule = find_rule(step.rule).name
    except UserError as error:
        raise file.error((*where, "rule"), str(error)) from None
    if rule not in rules:
        there = ", ".join(dict.fromkeys(rules))
        raise file.error((*where, "rule"), f"the step takes no runs of {rule}. Its runs are of: {there}.")
    return [rule]


def _points(file: RecipeFile, where: Where, step: RecipeStep, rule: str) -> list[tuple[Config, dict[str, Any]]]:
    """Return for each combination of the grid the configuration, and the options that the recipe names."""
    function = load_function(find_rule(rule), step.verb)
    if function is None:
        able = [verb for verb in VERBS if verb != "train" and load_function(find_rule(rule), verb) is not None]
        there = f"It has {', '.join(able)}." if able else "It has none of eval, analyze and render."
        raise file.error((*where, "verb"), f"the rule '{rule}' has no {step.verb}. {there}")
    model = config_model(function)
    places: dict[str | None, Where] = {}
    known: dict[str, dict[str, Any]] = {}
    for kind, values in (("options", step.options), ("grid", step.grid)):
        try:
            known[kind] = model.read_names(values, file.name)
        except OptionError as error:
            raise file.error((*where, kind), str(error)) from None
        for name, written in zip(known[kind], values, strict=True):
            if name not in model.model_fields:
                guess = model.similar_option(name)
                raise file.error((*where, kind, written), f"{step.verb} of {rule} has no option '{name}'.{guess}")
            places[name] = (*where, kind, written)
    points = []
    for combination in itertools.product(*known["grid"].values()):
        typed = {**known["options"], **dict(zip(known["grid"], combination, strict=True))}
        try:
            config = resolve(model, typed)
        except OptionError as error:
            raise file.error(places.get(error.key, where), str(error)) from None
        read = config.model_dump(mode="json")
        points.append((config, {name: read.get(name, value) for name, value in typed.items()}))
    return points


def _first_seeds(runs: Sequence[PlannedRun], seeds: int | None) -> list[PlannedRun]:
    """Return the first `seeds` runs of each setting; None: all."""
    if seeds is None:
        return list(runs)
    taken: dict[str, int] = {}
    found = []
    for run in runs:
        setting = settings_text(run.rule, {name: value for name, value in run.config.items() if name != "seed"})
        taken[setting] = taken.get(setting, 0) + 1
        if taken[setting] <= seeds:
            found.append(run)
    return found
