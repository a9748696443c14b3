"""`plastic train RULE`: one run, or one for each of several seeds, or a grid of runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from plastic_cli.commands.invocation import RuleVerb, TrainInvocation
from plastic_cli.commands.show import print_result, print_together, result_of
from plastic_cli.config.describe import option_name
from plastic_cli.config.model import TrainConfig
from plastic_cli.config.toml import to_toml
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import Exports, find_exports
from plastic_cli.runs.folder import check_run_name, create_run, open_run
from plastic_cli.runs.record import read_record
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore
from plastic_cli.signals import signals_as_interrupts


def train(verb: RuleVerb, typed: dict[str, Any], invocation: TrainInvocation) -> None:
    """Train once for each seed, or continue a run; raises RunFailed if a run failed."""
    console = invocation.console()
    exports = find_exports(invocation.export, console.warning)
    if invocation.grid:
        _train_grid(verb, typed, invocation)
        return
    if invocation.typed_sweep_options():
        raise UserError(f"{invocation.typed_sweep_options()[0]} belongs to --grid. Add one, or leave it out.")
    resumed = None if invocation.resume is None else _resumed(verb, typed, invocation, console, exports)
    config = verb.resolve(typed, invocation.config) if resumed is None else verb.model.from_values(resumed.config)
    if not isinstance(config, TrainConfig):
        raise TypeError(f"{verb.model.__qualname__} is not a TrainConfig, so it has no seed")
    _check_seeds_and_device(config, invocation.seeds)
    if invocation.name is not None:
        check_run_name(_name_of(invocation.name, config.seed, invocation.seeds))
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic train {verb.rule.name} --config FILE"), end="")  # noqa: T201
        return
    runs = _new_runs(verb, config, invocation, console, exports) if resumed is None else iter([resumed])
    total = invocation.seeds
    results, failures = [], list[RunFailed]()
    with signals_as_interrupts() as signals:
        for index, run in enumerate(runs):
            if total > 1:
                console.message(f"run {index + 1} of {total}: seed {run.seed}")
            results.append(_carry_out_training(verb, run, signals, failures))
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


def check_device(config: Any) -> None:
    """Raise UserError if a configuration asks for a GPU that torch does not find."""
    device = getattr(config, "device", None)
    # The CPU is always there, and importing torch takes seconds.
    if device in ("cuda", "mps"):
        from plastic_cli.numerics.devices import find_device

        find_device(device)


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
    arguments = ("--export", ",".join(invocation.export)) if invocation.export else ()
    carry_out_plan(unique(plan), invocation, arguments)


def _new_runs(
    verb: RuleVerb, config: TrainConfig, invocation: TrainInvocation, console: Console, exports: Exports | None
) -> Iterator[Run]:
    from plastic_cli.numerics.machine import versions

    for index in range(invocation.seeds):
        seeded = config.model_copy(update={"seed": config.seed + index})
        name = None if invocation.name is None else _name_of(invocation.name, seeded.seed, invocation.seeds)
        yield create_run(
            invocation.runs_folder(),
            rule=verb.rule.name,
            config=seeded.model_dump(mode="json"),
            dataset=seeded.learns_from(),
            name=name,
            argv=sys.argv[1:],
            versions=versions(discover().origins.get(verb.rule.name)),
            console=console,
            data_folder=invocation.data,
            device=config.device,
            exports=exports,
        )


def _name_of(name: str, seed: int, seeds: int) -> str:
    return f"{name}-seed{seed}" if seeds > 1 else name


def _check_seeds_and_device(config: TrainConfig, seeds: int) -> None:
    """Raise UserError before the first run if the last seed is too large or the device is missing."""
    type(config).from_values({**config.model_dump(), "seed": config.seed + seeds - 1})
    check_device(config)


def _resumed(
    verb: RuleVerb, typed: dict[str, Any], invocation: TrainInvocation, console: Console, exports: Exports | None
) -> Run:
    """Open the run that `--resume` names; raises UserError if an option differs from the stored configuration."""
    for name in ("name", "seeds"):
        if name in invocation.model_fields_set:
            raise UserError(f"--resume continues one run as it was started: leave {option_name(name)} out.")
    folder = RunStore(invocation.runs_folder()).find(str(invocation.resume))
    device = str(typed.get("device") or read_record(folder).config.get("device", "auto"))
    run = open_run(folder, console=console, data_folder=invocation.data, device=device, exports=exports)
    if run.record.rule != verb.rule.name:
        raise UserError(
            f"run {run.id} is a run of {run.record.rule}: plastic train {run.record.rule} --resume {run.id}"
        )
    stored = verb.model.from_values(run.config, source=f"run {run.id}")
    given = verb.resolve(typed, invocation.config, stored=run.config)
    # Values that these imply were implied when the run started, and may have been overridden then.
    named = {*typed, *verb.read_options(invocation.config)}
    for name in type(given).model_fields:
        if name in named - {"device"} and getattr(given, name) != getattr(stored, name):
            raise UserError(
                f"--resume continues a run as it was started, with {name} = {getattr(stored, name)}:"
                f" leave {option_name(name)} out, or train a new run."
            )
    return run


def _carry_out_training(verb: RuleVerb, run: Run, signals: list[int], failures: list[RunFailed]) -> dict[str, Any]:
    """Train one run until it is completed, failed or interrupted, and return its result.

    The error of a failed run is appended to `failures`.
    """
    run.signals = signals
    with run.locked():
        if run.record.status == "completed":
            run.console.message(f"run {run.id} is already completed.")
            return result_of(run, dict(run.record.summary))
        fresh, started = run.record.started is None, False
        try:
            with _signals_stay_interrupts(signals):
                if not fresh:
                    run.resume()
                run.start()
                started = True
                verb.function(verb.model.from_values(run.config, source=f"run {run.id}"), run)
                run.finish("completed")
        except KeyboardInterrupt:
            if run.record.status == "completed":
                # It came while the end of the run was exported.
                raise
            run.finish("interrupted")
            run.console.message(f"stopped; finish it with: plastic train {run.record.rule} --resume {run.id}")
        except RunFailed as error:
            run.finish("failed", str(error))
            failures.append(error)
        except UserError as error:
            if fresh and run.is_untouched():
                # Wrong input was found before anything was learned: the folder would be of no use.
                run.discard()
            elif started:
                run.finish("failed", str(error))
            raise
        except OSError as error:
            what = f"{error.filename or run.folder}: {error.strerror or error}"
            _try_to_finish(run, "failed", what)
            raise RunFailed(
                f"{what}. Fix that and finish the run with: plastic train {run.record.rule} --resume {run.id}"
            ) from error
        except BaseException as error:
            if _is_lack_of_memory(error):
                _try_to_finish(run, "failed", "not enough memory")
                raise RunFailed("not enough memory: choose a smaller network, batch or number of samples.") from error
            _try_to_finish(run, "failed", f"{type(error).__name__}: {error}")
            raise
    return result_of(run, dict(run.record.summary))


def _is_lack_of_memory(error: BaseException) -> bool:
    """Say whether Python, torch on the CPU or torch on a GPU ran out of memory; torch only says so in its message."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def _try_to_finish(run: Run, status: str, error: str) -> None:
    # On a full disk the last whole record stays, and a run without a living process counts as crashed.
    with suppress(OSError):
        run.finish(status, error)


@contextmanager
def _signals_stay_interrupts(signals: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt again if a signal arrived and a library turned it into an exception of its own.

    Libraries that call Python from C, such as the writer of checkpoints, do so when a signal arrives during the call.
    """
    try:
        yield
    except Exception as error:
        if signals:
            raise KeyboardInterrupt from error
        raise
