"""`plastic.train`: the command `plastic train RULE` as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from plastic_cli.api.chosen import with_resumed
from plastic_cli.api.console import PythonConsole
from plastic_cli.api.options import split_options
from plastic_cli.api.sweep import carry_out
from plastic_cli.api.training import train_all
from plastic_cli.config.describe import option_name
from plastic_cli.errors import UserError
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.stored import StoredRun
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import checked_grid, expand, unique
from plastic_cli.verbs.options import GridOptions
from plastic_cli.verbs.train import new_runs, planned_config, resumed_run
from plastic_cli.verbs.verb import RuleVerb, Session, find_verb


@overload
def train(rule: str, *, seeds: None = None, grid: None = None, **options: Any) -> StoredRun: ...
@overload
def train(rule: str, *, seeds: int, grid: None = None, **options: Any) -> list[StoredRun]: ...
@overload
def train(
    rule: str, *, seeds: int | None = None, grid: Mapping[str, Sequence[Any]], **options: Any
) -> list[StoredRun]: ...
def train(
    rule: str,
    *,
    seeds: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> StoredRun | list[StoredRun]:
    """Train a rule and store the result as a run.

    The run is the one that `plastic train RULE` makes with the same options, to the bit.

    rule: the name of an installed rule, such as "grlu". seeds: the number of runs, with the seeds seed, seed + 1, ...
    grid: values by option; there is one run for each combination, and runs that the store holds already are not
    repeated. options: those of `plastic train RULE --help`, with underscores: options of the rule such as `epochs=5`,
    and `name`, `runs` and `data` (folders), `resume` (a run or its id), `config` (a file), `export`, `quiet`; for a
    grid also `workers`, `retry`, `timeout`, `scheduler`.

    Returns a StoredRun, or with `seeds` or `grid` a list of them. Interrupting a cell leaves a run that `resume`
    continues.

    Raises UserError, a ValueError, for an unknown rule or a wrong option; RunFailed if a run failed.
    """
    verb = find_verb("train", rule)
    given = {**options, **({} if seeds is None else {"seeds": seeds})}
    typed, chosen = split_options(with_resumed(given), verb.model, GridOptions)
    console = PythonConsole(quiet=chosen.quiet)
    if grid is not None:
        return _train_grid(verb, typed, grid, chosen, console)
    for name in SweepOptions.model_fields:
        if name in chosen.model_fields_set:
            raise UserError(f"{name} belongs to grid. Add one, or leave it out.")
    exports = find_exports(chosen.export, console.warning)
    session = Session(chosen.runs_folder(), console, chosen.data, exports, (_call("train", verb.rule.name, options),))
    if chosen.resume is None:
        runs = new_runs(verb, planned_config(verb, typed, chosen), chosen, session)
    else:
        runs = iter([resumed_run(verb, typed, chosen, session)])
    stored = train_all(verb, runs, chosen.data, lambda run: f'plastic.train("{run.record.rule}", resume="{run.id}")')
    return stored[0] if seeds is None else stored


def _train_grid(
    verb: RuleVerb,
    typed: Mapping[str, Any],
    values: Mapping[str, Sequence[Any]],
    options: GridOptions,
    console: PythonConsole,
) -> list[StoredRun]:
    for name in ("name", "resume"):
        if name in options.model_fields_set:
            raise UserError(f"{name} applies to one run, but grid creates several. Leave one of them out.")
    grid = checked_grid(values, verb.model)
    for name in grid:
        if name in typed:
            raise UserError(f"{name} is also in grid. Leave one of them out.")
    plan = expand(verb.rule.name, lambda point: verb.resolve({**typed, **point}, options.config), grid, options.seeds)
    arguments = (option_name("export"), ",".join(options.export)) if options.export else ()
    return carry_out(unique(plan), options, options.runs_folder(), options.data, console, arguments)


def _call(function: str, rule: str, options: Mapping[str, Any]) -> str:
    """Return the call as text, for the record of the run."""
    return f"plastic.{function}({', '.join([repr(rule), *(f'{name}={value!r}' for name, value in options.items())])})"
