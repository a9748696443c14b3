"""`plastic train RULE`: one run, or one for each of several seeds, or a grid of runs."""

from __future__ import annotations

import sys
from typing import Any

from plastic_cli.commands.invocation import TrainInvocation
from plastic_cli.commands.show import print_next, print_result, print_together, result_of
from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config
from plastic_cli.config.toml import to_toml
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.runs.exports import find_exports
from plastic_cli.runs.run import Run
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.train import new_runs, planned_config, resumed_run, train_run
from plastic_cli.verbs.verb import RuleVerb, Session


def train(verb: RuleVerb, typed: dict[str, Any], invocation: TrainInvocation) -> None:
    """Train once for each seed, or continue a run; raises RunFailed if a run failed."""
    console = invocation.console()
    exports = find_exports(invocation.export, console.warning)
    if invocation.grid:
        _train_grid(verb, typed, invocation)
        return
    if invocation.typed_sweep_options():
        raise UserError(f"{invocation.typed_sweep_options()[0]} belongs to --grid. Add one, or leave it out.")
    session = Session(invocation.runs_folder(), console, invocation.data, exports, tuple(sys.argv[1:]))
    config: Config
    if invocation.resume is None:
        config = planned = planned_config(verb, typed, invocation)
        runs = new_runs(verb, planned, invocation, session)
    else:
        resumed = resumed_run(verb, typed, invocation, session)
        config, runs = verb.model.from_values(resumed.config), iter([resumed])
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic train {verb.rule.name} --config FILE"), end="")  # noqa: T201
        return
    total = invocation.seeds
    results, failures = [], list[RunFailed]()
    with signals_as_interrupts() as signals:
        for index, run in enumerate(runs):
            if total > 1:
                console.message(f"run {index + 1} of {total}: seed {run.seed}")
            if run.record.status == "completed":
                console.message(f"run {run.id} is already completed.")
            failure = train_run(verb, run, signals)
            if failure is not None:
                failures.append(failure)
            if run.record.status == "interrupted":
                console.message(f"stopped; finish it with: plastic train {verb.rule.name} --resume {run.id}")
            if invocation.plot and run.record.status == "completed":
                _draw_curves(run)
            results.append(result_of(run, dict(run.record.summary)))
            print_result(results[-1], run, invocation)
            if run.record.status == "interrupted":
                # The remaining runs are given up as well.
                raise KeyboardInterrupt
    print_together(results, invocation)
    failed = [result for result in results if result["status"] == "failed"]
    if failed:
        raise RunFailed(
            str(failed[0]["error"]) if total == 1 else f"{len(failed)} of {total} runs failed: {failed[0]['error']}"
        ) from (failures[0] if failures else None)
    if invocation.format == "table":
        rule = verb.rule
        able = [f"plastic {name} {rule.name}" for name in ("analyze", "render") if rule.function(name) is not None]
        print_next([*able, "plastic report"], invocation, console)


def _draw_curves(run: Run) -> None:
    """Write the learning curves of a run into its folder."""
    from plastic_cli.runs.stored import StoredRun

    try:
        run.save_figure("curves", StoredRun(run.folder).plot())
    except UserError as error:
        # The run is done; a rule need not log a metric that can be drawn.
        run.console.warning(f"--plot: {error}")


def _train_grid(verb: RuleVerb, typed: dict[str, Any], invocation: TrainInvocation) -> None:
    """Train once for each point of the grid and each seed, except for runs that the store holds already."""
    from plastic_cli.commands.sweep import carry_out_plan
    from plastic_cli.sweeps.plan import expand, read_grid, unique

    for name in ("name", "resume"):
        if name in invocation.model_fields_set:
            raise UserError(
                f"{option_name(name)} applies to one run, but --grid creates several. Leave one of them out."
            )
    grid = read_grid(invocation.grid, verb.model)
    for name in grid:
        if name in typed:
            raise UserError(f"{option_name(name)} is also in --grid. Leave one of them out.")
    plan = expand(
        verb.rule.name, lambda point: verb.resolve({**typed, **point}, invocation.config), grid, invocation.seeds
    )
    arguments = ["--export", ",".join(invocation.export)] if invocation.export else []
    carry_out_plan(unique(plan), invocation, (*arguments, *["--plot"] * invocation.plot))
