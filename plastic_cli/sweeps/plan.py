"""The plan of a sweep: a recipe, or a grid on the command line, as a list of single runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

from plastic_cli.config.describe import holds_several
from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.config.toml import to_toml
from plastic_cli.errors import OptionError, UserError, did_you_mean
from plastic_cli.escapes import valid_text
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import former_names, train_model
from plastic_cli.resolve import resolve
from plastic_cli.runs.record import settings_text
from plastic_cli.sweeps.recipe import RecipeFile, Where, tables_of

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")

LARGEST_PLAN = 100_000
"""The largest number of runs of one sweep; more are probably a mistake."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    config: the whole configuration as a run stores it; toml: the same as text for `--config`. version: the distribution
    of the rule. varied: the options that distinguish this run from the others of its sweep. checksum: of the data; None
    if it is not known. minutes: the expected time. other_names: those of the recipe's further runs that are equal.
    """

    rule: str
    config: dict[str, Any]
    toml: str
    version: str
    dataset: str | None
    varied: dict[str, Any]
    name: str | None = None
    minutes: float | None = None
    checksum: str | None = None
    other_names: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The names of the recipe's [[runs]] that this run belongs to."""
        return self.other_names if self.name is None else self.other_names | {self.name}

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @cached_property
    def settings(self) -> str:
        """Rule and configuration as one text; equal settings have equal texts."""
        return settings_text(self.rule, self.config)

    @property
    def key(self) -> str:
        """A short name; runs with the same rule, configuration, seed, rule version and data have the same."""
        return sha256(f"{self.settings}\n{self.version}\n{self.checksum}".encode()).hexdigest()[:24]

    @property
    def kind(self) -> str:
        """What takes about the same time."""
        return self.rule

    @property
    def setting(self) -> str:
        """A few words that runs have in common if they differ only in their seed."""
        varied = [f"{name}={option_text(value)}" for name, value in self.varied.items() if name != "seed"]
        return " ".join([self.name or self.rule, *varied])

    @property
    def label(self) -> str:
        """A few words for tables."""
        return f"{self.setting} seed={self.seed}"

    def with_checksum(self, checksum: str | None) -> PlannedRun:
        """Return this run with the checksum of its data."""
        return replace(self, checksum=checksum)


def option_text(value: Any) -> str:
    """Return a value as text of the command line."""
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)


def plan_recipe(file: RecipeFile, *, seeds: int | None = None, rules: Sequence[str] = ()) -> list[PlannedRun]:
    """Return the runs of a recipe, each once; raises UserError, with the line, for names and values that are wrong.

    seeds: number of seeds, instead of the recipe's. rules: only the runs of these rules.
    """
    runs: list[PlannedRun] = []
    present = []
    for where, tables in tables_of(file.recipe):
        place, rule_name = _last(tables, where, "rule")
        try:
            rule = find_rule(str(rule_name))
        except UserError as error:
            raise file.error((*place, "rule"), str(error)) from None
        present.append(rule.name)
        if rules and rule.name not in rules:
            continue
        model = train_model(rule)
        merged = _merged(file, where, tables, rule.name, model)
        wanted = seeds if seeds is not None else _last(tables, where, "seeds")[1] or 1
        _, minutes = _last(tables, where, "minutes")

        point = partial(_point, file, model, merged)
        name = getattr(tables[-1], "name", None)
        # Sets of runs without a name are distinguished by their own options.
        own = (
            {}
            if name or not where
            else {key: merged.options[key] for key in tables[-1].options if key in merged.options}
        )
        runs += expand(rule.name, point, merged.grid, wanted, name=name, minutes=minutes, own=own)
    for name in rules:
        if name not in present:
            raise UserError(
                f"--rule {name}: {file.name} has no runs of it.{did_you_mean(name, present)}"
                f" There are: {', '.join(dict.fromkeys(present))}."
            )
    return unique(runs)


def expand(
    rule: str,
    point: Callable[[Mapping[str, Any]], Config],
    grid: Mapping[str, Sequence[Any]],
    seeds: int | Sequence[int],
    *,
    name: str | None = None,
    minutes: float | None = None,
    own: Mapping[str, Any] | None = None,
) -> list[PlannedRun]:
    """Return one run for each combination of the grid's values and each seed.

    point: returns the configuration for some values. seeds: the number of seeds, starting with that of the
    configuration, or a list of seeds. own: other options that distinguish these runs from others of their sweep.
    """
    if isinstance(seeds, int) and seeds < 1:
        raise UserError(f"--seeds {seeds}: at least 1.")
    size = len(range(seeds) if isinstance(seeds, int) else seeds)
    for values in grid.values():
        size *= len(values)
    if size > LARGEST_PLAN:
        raise UserError(f"that would be {size:,} runs, and one sweep takes at most {LARGEST_PLAN:,}.")
    version = discover().origins.get(rule, "")
    runs = []
    for combination in itertools.product(*grid.values()):
        varied = dict(zip(grid, combination, strict=True))
        first = point(varied)
        assert isinstance(first, TrainConfig)
        for seed in range(first.seed, first.seed + seeds) if isinstance(seeds, int) else seeds:
            # Checked with its seed, because seeds have a maximum.
            config = type(first).from_values({**first.model_dump(), "seed": seed})
            runs.append(planned(rule, config, version, {**(own or {}), **varied, "seed": seed}, name, minutes))
    return runs


def planned(
    rule: str,
    config: TrainConfig,
    version: str,
    varied: dict[str, Any],
    name: str | None = None,
    minutes: float | None = None,
) -> PlannedRun:
    """Return the run of one configuration."""
    stored = config.model_dump(mode="json")
    toml = to_toml(config)
    if valid_text(toml) != toml:
        named = next(name for name, value in stored.items() if valid_text(str(value)) != str(value))
        raise OptionError(
            f"{named} {valid_text(str(stored[named]))}: a sweep takes only text in UTF-8. Rename it, or train the runs"
            " one by one.",
            named,
        )
    return PlannedRun(
        rule=rule,
        config=stored,
        toml=toml,
        version=version,
        dataset=config.learns_from(),
        # The values as they were read, not as they were typed.
        varied={option: stored.get(option, value) for option, value in varied.items()},
        name=name,
        minutes=minutes,
    )


def filter_runs(runs: Sequence[PlannedRun], texts: Sequence[str]) -> list[PlannedRun]:
    """Return the runs that match every text `NAME=VALUE,VALUE`: the option has one of these values.

    Raises UserError if no run is left.
    """
    left = list(runs)
    for text in texts:
        typed, equals, values = text.partition("=")
        name = typed.strip().removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise UserError(f"--only {text}: write NAME=VALUE or NAME=VALUE,VALUE, as in --only dataset=digits.")
        if not any(_name_in(run, name) in run.config for run in left):
            known = {key for run in left for key in run.config}
            raise UserError(f"--only {text}: no run has an option '{name}'.{did_you_mean(name, known)}")
        separator = ";" if ";" in values else ","
        # The value of a list is its entries with commas, so the whole text may be one value.
        wanted = {values.strip(), *(value.strip() for value in values.split(separator))}
        having = [(run, option_text(run.config[key])) for run in left if (key := _name_in(run, name)) in run.config]
        present = dict.fromkeys(value for _, value in having)
        folded = {value.casefold() for value in wanted}
        left = [run for run, value in having if value.casefold() in folded]
        if not left:
            raise UserError(f"--only {text}: no run has that value. There are: {', '.join(present)}.")
    return left


def _name_in(run: PlannedRun, name: str) -> str:
    """Return the present name that an option of a run has."""
    return former_names(run.rule).get(name, name)


def unique(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Return each run once: of equal runs the first, which gets the names of the others too."""
    found: dict[str, PlannedRun] = {}
    for run in runs:
        first = found.setdefault(run.settings, run)
        if run.names - first.names:
            found[run.settings] = replace(first, other_names=first.other_names | run.names)
    return list(found.values())


def read_grid(texts: Sequence[str], model: type[Config]) -> dict[str, list[Any]]:
    """Read `--grid NAME=VALUE,VALUE,...`, once for each option.

    For an option that holds a list, values are separated by semicolons: `hidden=256;256,128`. Raises UserError for an
    option that does not exist, is named twice or has no value.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        typed, equals, values = text.partition("=")
        name = typed.strip().removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise UserError(f"--grid {text}: write NAME=VALUE,VALUE, as in --grid batch_size=1,16.")
        if name == "seed":
            raise UserError(f"--grid {text}: seeds are not part of a grid. Give their number with --seeds.")
        (name,) = model.read_names({name: values}, "--grid")
        if name not in model.model_fields:
            guess = model.similar_option(name)
            raise UserError(f"--grid {text}: there is no option '{name}'.{guess}")
        if name in grid:
            raise UserError(f"--grid {text}: '{name}' has a grid already. Name all its values in one.")
        separator = ";" if ";" in values and holds_several(model.model_fields[name]) else ","
        grid[name] = list(dict.fromkeys(value.strip() for value in values.split(separator)))
        if "" in grid[name]:
            what = "it has no value" if grid[name] == [""] else f"there is an empty value next to a '{separator}'"
            raise UserError(f"--grid {text}: {what}.")
    return grid


def checked_grid(values: Mapping[str, Sequence[Any]], model: type[Config]) -> dict[str, list[Any]]:
    """Return the values of a grid by option; raises UserError for an unknown option and for one without values."""
    if not isinstance(values, Mapping):
        raise OptionError(
            f"grid: give a dictionary such as {{'epochs': [1, 2]}}, not a {type(values).__name__}.", "grid"
        )
    grid: dict[str, list[Any]] = {}
    for name, listed in model.read_names(values, "grid").items():
        if name == "seed":
            raise OptionError("grid: seeds are not part of a grid. Give their number with seeds.", name)
        if name not in model.model_fields:
            raise OptionError(f"grid: there is no option '{name}'.{model.similar_option(name)}", name)
        if isinstance(listed, str) or not isinstance(listed, Iterable):
            raise OptionError(f"grid: {name} needs a list of values, as in grid={{'{name}': [{listed!r}]}}.", name)
        grid[name] = list(listed)
        if not grid[name]:
            raise OptionError(f"grid: {name} has no value.", name)
    return grid


@dataclass(frozen=True)
class _Case:
    """Options of the runs in which an option has a value. place: where the file says so."""

    name: str
    value: str
    options: Mapping[str, Any]
    place: Where

    def holds_for(self, values: Mapping[str, Any]) -> bool:
        """Return whether the option has the value, as it is typed on the command line."""
        return self.name in values and _same_text(values[self.name], self.value)


def _same_text(value: Any, text: str) -> bool:
    return option_text(value).casefold() == text.casefold()


@dataclass(frozen=True)
class _Merged:
    """One set of runs: its options, grid and cases, and the place of each key in the file."""

    options: dict[str, Any]
    grid: dict[str, list[Any]]
    cases: list[_Case]
    origins: dict[str | None, Where]


def _point(file: RecipeFile, model: type[TrainConfig], merged: _Merged, values: Mapping[str, Any]) -> Config:
    chosen = {**merged.options, **values}
    origins = dict(merged.origins)
    for case in merged.cases:
        if case.holds_for(chosen):
            # What a case adds holds for the cases after it, and not for options of the grid.
            chosen |= case.options
            origins |= {name: (*case.place, name) for name in case.options}
    try:
        return resolve(model, {**chosen, **values})
    except OptionError as error:
        # An error about several options has no key, but its message names them.
        named = [error.key] if error.key else [name.replace("-", "_") for name in _OPTION.findall(str(error))]
        raise file.error(next((origins[name] for name in named if name in origins), ()), str(error)) from None


def _last(tables: Sequence[Any], where: Where, name: str) -> tuple[Where, Any]:
    """Return place and value of `name` in the most specific table that has it."""
    places: list[Where] = [(), where]
    found = [(places[number], getattr(table, name)) for number, table in enumerate(tables)]
    return next(((place, value) for place, value in reversed(found) if value is not None), ((), None))


def _merged(file: RecipeFile, where: Where, tables: Sequence[Any], rule: str, model: type[TrainConfig]) -> _Merged:
    """Return options, grid and cases of one set of runs; more specific tables take precedence."""
    options: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    origins: dict[str | None, Where] = {}
    for number, table in enumerate(tables):
        place = where if number else ()
        here: set[str] = set()
        for kind, values in (("options", table.options), ("grid", table.grid)):
            try:
                present = model.read_names(values, file.name)
            except OptionError as error:
                raise file.error((*place, kind), str(error)) from None
            for (name, value), written in zip(present.items(), values, strict=True):
                if name not in model.model_fields:
                    guess = model.similar_option(name)
                    raise file.error((*place, kind, written), f"{rule} has no option '{name}'.{guess}")
                if name in here:
                    raise file.error(
                        (*place, kind, written), f"'{name}' is under options and under grid: keep one of them."
                    )
                here.add(name)
                origins[name] = (*place, kind, written)
                options.pop(name, None)
                grid.pop(name, None)
                if kind == "options":
                    options[name] = value
                else:
                    grid[name] = value
    cases = [
        _case(file, (*(where if number else ()), "where", name, value), added, rule, model)
        for number, table in enumerate(tables)
        for name, by_value in table.where.items()
        for value, added in by_value.items()
    ]
    for case in cases:
        values = grid.get(case.name, [options[case.name]] if case.name in options else [])
        if not any(_same_text(value, case.value) for value in values):
            listed = ", ".join(option_text(value) for value in values)
            what = f"There are: {listed}." if values else "Name its values under grid, or one of them under options."
            raise file.error(case.place, f"no run of {rule} has {case.name} = {case.value}. {what}")
    return _Merged(options, grid, cases, origins)


def _case(file: RecipeFile, place: Where, added: Mapping[str, Any], rule: str, model: type[TrainConfig]) -> _Case:
    """Return the options of one value of an option; raises UserError for names that the rule does not have."""
    *_, name, value = place
    try:
        (known,) = model.read_names({str(name): value}, file.name)
        options = model.read_names(added, file.name)
    except OptionError as error:
        raise file.error(place, str(error)) from None
    for option in (known, *options):
        if option not in model.model_fields:
            raise file.error(place, f"{rule} has no option '{option}'.{model.similar_option(option)}")
    return _Case(known, str(value), options, place)
