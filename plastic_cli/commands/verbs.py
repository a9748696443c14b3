"""The verbs of a rule: from typed options and a configuration file to one or several runs."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import typer
from rich.markup import escape
from typer.main import get_command

from plastic_cli.commands.options import command_function
from plastic_cli.config.describe import option_name
from plastic_cli.config.model import Config, TrainConfig, field
from plastic_cli.config.toml import to_toml
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.plugins.discovery import discover, find_rule, load_function
from plastic_cli.plugins.rule import Rule
from plastic_cli.resolve import config_model, resolve
from plastic_cli.runs.console import Console
from plastic_cli.runs.exports import Exports, find_exports
from plastic_cli.runs.folder import check_run_name, create_run, open_run
from plastic_cli.runs.record import read_record
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.sweeps.recipe import read_options

KEEP_GOING = "--keep-going/--stop-at-failure"
KEEP_GOING_HELP = "go on when a run has failed, or stop (also --no-keep-going)"


class Invocation(Config):
    """Options of how a command runs, which are no part of what it computes."""

    runs: Path | None = field(None, "folder of the runs (or PLASTIC_RUNS; default: ./runs)", panel="Run")
    data: Path | None = field(
        None, "folder of the data sets (or PLASTIC_DATA; default: a cache of yours)", panel="Data"
    )
    config: Path | None = field(None, "TOML file with options; typed ones beat it", panel="Run")
    dry_run: bool = field(False, "print the resolved configuration as TOML and stop", panel="Output")
    format: Literal["table", "markdown", "csv", "json"] = field("table", "how results are printed", panel="Output")
    json_lines: bool = field(
        False, "print one JSON object per run on stdout and nothing else", panel="Output", option="--json"
    )
    quiet: bool = field(False, "no progress, and only the run's folder at the end", panel="Output")
    debug: bool = field(False, "show the traceback of an error", panel="Output")

    def output_format(self) -> str:
        """Return the format, which is JSON for --json."""
        return "json" if self.json_lines else self.format

    def console(self) -> Console:
        """Return where progress and messages go: nowhere, where stdout is for a program to read."""
        return Console(quiet=self.quiet or self.output_format() == "json")

    def runs_folder(self) -> Path:
        """Return the folder of the runs: the option, the environment's or ./runs."""
        return self.runs or Path(os.environ.get("PLASTIC_RUNS") or "runs")


class _TrainInvocation(Invocation):
    seeds: int = field(1, "make this many runs, with the seeds SEED, SEED + 1, ...", ge=1, panel="Run")
    name: str | None = field(None, "a name to find the run by", panel="Run")
    resume: str | None = field(None, "finish this run, with its own configuration", panel="Run", complete="run")
    export: tuple[str, ...] | None = field(
        None,
        "write metrics for these programs too, such as tensorboard (or PLASTIC_EXPORT)",
        panel="Output",
        complete="exporter",
    )
    grid: list[str] = field(
        [], "NAME=VALUE,VALUE,...: a run for each, with several --grid for each combination", panel="Sweep", repeat=True
    )
    workers: int | None = field(None, "runs at once (default: one for every two cores)", ge=1, panel="Sweep")
    scheduler: str | None = field(
        None, "address of a Dask scheduler, or slurm, pbs, sge, lsf, htcondor (default: this machine)", panel="Sweep"
    )
    retry: int = field(0, "times that a failed run is tried again", ge=0, panel="Sweep")
    timeout: float | None = field(None, "seconds that one run may take", gt=0, panel="Sweep")
    keep_going: bool = field(True, KEEP_GOING_HELP, panel="Sweep", option=KEEP_GOING)

    def of_sweeps_only(self) -> list[str]:
        """Return the options that were typed and mean something beside --grid alone."""
        names = ("workers", "scheduler", "retry", "timeout", "keep_going")
        typed = [name for name in names if name in self.model_fields_set]
        return [
            "--stop-at-failure" if name == "keep_going" and not self.keep_going else option_name(name) for name in typed
        ]


class _StageInvocation(Invocation):
    run: str | None = field(
        None, "id, a unique beginning of it, or name (default: the newest completed run)", panel="Run", complete="run"
    )


def rule_command(verb: str, rule_name: str) -> Any:
    """Build the command of one verb and one rule; raises UserError where either does not exist."""
    rule = find_rule(rule_name)
    function = load_function(rule, verb)
    if function is None:
        from plastic_cli.plugins.rule import VERBS

        able = [f"`plastic {other} {rule_name}`" for other in VERBS if rule.function(other) is not None]
        raise UserError(f"the rule '{rule_name}' has no {verb}. It has {', '.join(able) or 'no command at all'}.")
    model = config_model(function)
    invocation = _TrainInvocation if verb == "train" else _StageInvocation

    def run(values: dict[str, dict[str, Any]]) -> None:
        if verb == "train":
            _train(rule, function, model, values["config"], values["invocation"])
        else:
            _stage(verb, rule, function, model, values["config"], values["invocation"])

    single = typer.Typer(
        add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
    )
    about = inspect.getdoc(model) or inspect.getdoc(function) or rule.summary
    single.command(rule.name, help=f"{escape(about)}\n\n[dim]{escape(f'{rule.summary} ({rule.citation})')}[/dim]")(
        command_function({"config": model, "invocation": invocation}, run)
    )
    return get_command(single)


def _resolve(
    rule: Rule,
    model: type[Config],
    typed: Mapping[str, Any],
    file: Path | None,
    below: Mapping[str, Any] | None = None,
) -> Config:
    return resolve(model, typed, read_options(file, rule.name) if file else {}, str(file or ""), below)


def _train(
    rule: Rule,
    function: Callable[..., Any],
    model: type[Config],
    typed: dict[str, Any],
    invocation_values: dict[str, Any],
) -> None:
    invocation = _TrainInvocation.from_values(invocation_values)
    console = invocation.console()
    exports = find_exports(invocation.export, console.warning)
    if invocation.grid:
        _sweep(rule, model, typed, invocation)
        return
    if invocation.of_sweeps_only():
        raise UserError(f"{invocation.of_sweeps_only()[0]} belongs to --grid. Add one, or leave it out.")
    resumed = None if invocation.resume is None else _resumed(rule, model, typed, invocation, console, exports)
    config = _resolve(rule, model, typed, invocation.config) if resumed is None else model.from_values(resumed.config)
    if not isinstance(config, TrainConfig):
        raise TypeError(f"{model.__qualname__} is no TrainConfig, so it has no seed")
    _check_seeds_and_device(config, invocation.seeds)
    if invocation.name is not None:
        check_run_name(_name_of(invocation.name, config.seed, invocation.seeds))
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic train {rule.name} --config FILE"), end="")  # noqa: T201
        return
    runs = _new_runs(rule, config, invocation, console, exports) if resumed is None else iter([resumed])
    total = invocation.seeds
    results, failures = [], list[RunFailed]()
    with signals_as_interrupts() as signals:
        for index, run in enumerate(runs):
            if total > 1:
                console.message(f"run {index + 1} of {total}: seed {run.seed}")
            results.append(_carry_out_training(function, model, run, signals, failures))
            _print_result(results[-1], run, invocation)
            if run.record.status == "interrupted":
                # The runs still to come are given up as well.
                raise KeyboardInterrupt
    _print_together(results, invocation)
    failed = [result for result in results if result["status"] == "failed"]
    if failed:
        raise RunFailed(
            str(failed[0]["error"]) if total == 1 else f"{len(failed)} of {total} runs failed: {failed[0]['error']}"
        ) from (failures[0] if failures else None)


def _sweep(rule: Rule, model: type[Config], typed: dict[str, Any], invocation: _TrainInvocation) -> None:
    """Train once for each point of the grid and each seed, what is in the store already left out."""
    from plastic_cli.commands.sweep import SweepOptions, carry_out_plan
    from plastic_cli.sweeps.plan import expand, read_grid, unique

    for name in ("name", "resume"):
        if name in invocation.model_fields_set:
            raise UserError(f"{option_name(name)} is about one run, and --grid makes several. Leave one of them out.")
    grid = read_grid(invocation.grid, model)
    for name in grid:
        if name in typed:
            raise UserError(f"{option_name(name)} stands beside a grid of it. Leave one of them out.")
    from_file = read_options(invocation.config, rule.name) if invocation.config else {}
    plan = expand(
        rule.name,
        lambda point: resolve(model, {**typed, **point}, from_file, str(invocation.config or "")),
        grid,
        invocation.seeds,
    )
    options = SweepOptions(
        runs=invocation.runs_folder(),
        data=invocation.data,
        workers=invocation.workers,
        scheduler=invocation.scheduler,
        retry=invocation.retry,
        timeout=invocation.timeout,
        keep_going=invocation.keep_going,
        dry_run=invocation.dry_run,
        format=invocation.output_format(),
        quiet=invocation.quiet,
        arguments=("--export", ",".join(invocation.export)) if invocation.export else (),
    )
    carry_out_plan(unique(plan), options)


def _new_runs(
    rule: Rule, config: TrainConfig, invocation: _TrainInvocation, console: Console, exports: Exports | None
) -> Iterator[Run]:
    from plastic_cli.numerics.machine import versions

    for index in range(invocation.seeds):
        one = config.model_copy(update={"seed": config.seed + index})
        name = None if invocation.name is None else _name_of(invocation.name, one.seed, invocation.seeds)
        yield create_run(
            invocation.runs_folder(),
            rule=rule.name,
            config=one.model_dump(mode="json"),
            dataset=one.learns_from(),
            name=name,
            argv=sys.argv[1:],
            versions=versions(discover().origins.get(rule.name)),
            console=console,
            data_folder=invocation.data,
            device=config.device,
            exports=exports,
        )


def _name_of(name: str, seed: int, seeds: int) -> str:
    return f"{name}-seed{seed}" if seeds > 1 else name


def _check_seeds_and_device(config: TrainConfig, seeds: int) -> None:
    """Raise UserError, before the first run is made, for a last seed that is too large and a device that is absent."""
    type(config).from_values({**config.model_dump(), "seed": config.seed + seeds - 1})
    check_device(config)


def check_device(config: Any) -> None:
    """Raise UserError where a configuration asks for a GPU that torch does not find."""
    device = getattr(config, "device", None)
    # The CPU is always there, and torch takes seconds to import.
    if device in ("cuda", "mps"):
        from plastic_cli.numerics.devices import find_device

        find_device(device)


def _resumed(
    rule: Rule,
    model: type[Config],
    typed: dict[str, Any],
    invocation: _TrainInvocation,
    console: Console,
    exports: Exports | None,
) -> Run:
    for name in ("name", "seeds"):
        if name in invocation.model_fields_set:
            raise UserError(f"--resume finishes one run as it was begun: leave {option_name(name)} out.")
    folder = RunStore(invocation.runs_folder()).find(str(invocation.resume))
    device = str(typed.get("device") or read_record(folder).config.get("device", "auto"))
    run = open_run(folder, console=console, data_folder=invocation.data, device=device, exports=exports)
    if run.record.rule != rule.name:
        raise UserError(
            f"run {run.id} is a run of {run.record.rule}: plastic train {run.record.rule} --resume {run.id}"
        )
    stored = model.from_values(run.config, source=f"run {run.id}")
    given = _resolve(rule, model, typed, invocation.config, below=run.config)
    # What these imply was implied when the run was begun, and may have been overruled then.
    said = {*typed, *(read_options(invocation.config, rule.name) if invocation.config else {})}
    for name in type(given).model_fields:
        if name in said - {"device"} and getattr(given, name) != getattr(stored, name):
            raise UserError(
                f"--resume finishes a run as it was begun, with {name} = {getattr(stored, name)}:"
                f" leave {option_name(name)} out, or train a new run."
            )
    return run


def _carry_out_training(
    function: Callable[..., Any], model: type[Config], run: Run, signals: list[int], failures: list[RunFailed]
) -> dict[str, Any]:
    """Train one run to its end, whatever the end is, and return its result; `failures` gets what made it fail."""
    run.signals = signals
    with run.locked():
        if run.record.status == "completed":
            run.console.message(f"run {run.id} is completed already.")
            return _result(run, dict(run.record.summary))
        fresh, begun = run.record.started is None, False
        try:
            with _nothing_but_interrupts(signals):
                if not fresh:
                    run.resume()
                run.start()
                begun = True
                function(model.from_values(run.config, source=f"run {run.id}"), run)
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
                # Wrong input found before anything was learned: a folder that says so would only be in the way.
                run.discard()
            elif begun:
                run.finish("failed", str(error))
            raise
        except OSError as error:
            what = f"{error.filename or run.folder}: {error.strerror or error}"
            _try_to_finish(run, "failed", what)
            raise RunFailed(
                f"{what}. Mend that and finish the run with: plastic train {run.record.rule} --resume {run.id}"
            ) from error
        except BaseException as error:
            if _is_lack_of_memory(error):
                _try_to_finish(run, "failed", "not enough memory")
                raise RunFailed("not enough memory: choose a smaller network, batch or number of samples.") from error
            _try_to_finish(run, "failed", f"{type(error).__name__}: {error}")
            raise
    return _result(run, dict(run.record.summary))


def _is_lack_of_memory(error: BaseException) -> bool:
    """Say whether Python, torch on the CPU or torch on a GPU found no memory; torch says so in words alone."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def _try_to_finish(run: Run, status: str, error: str) -> None:
    # On a full disk the last whole record stands, and a run without a living process reads as crashed.
    with suppress(OSError):
        run.finish(status, error)


def _stage(
    verb: str,
    rule: Rule,
    function: Callable[..., Any],
    model: type[Config],
    typed: dict[str, Any],
    invocation_values: dict[str, Any],
) -> None:
    invocation = _StageInvocation.from_values(invocation_values)
    config = _resolve(rule, model, typed, invocation.config)
    check_device(config)
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic {verb} {rule.name} --config FILE"), end="")  # noqa: T201
        return
    store = RunStore(invocation.runs_folder())
    folder = store.find(invocation.run) if invocation.run is not None else store.newest(rule.name)
    console = invocation.console()
    run = open_run(
        folder, stage=verb, console=console, data_folder=invocation.data, device=getattr(config, "device", "auto")
    )
    if run.record.rule != rule.name:
        raise UserError(f"run {run.id} is a run of {run.record.rule}: plastic {verb} {run.record.rule} --run {run.id}")
    console.message(f"{verb} {rule.name} on run {run.id}{f' ({run.record.name})' if run.record.name else ''}")
    with signals_as_interrupts(), run.locked():
        function(config, run)
    result = _result(run, run.results)
    result["seconds"] = round(run.seconds - run.record.seconds, 3)
    _print_result(result, run, invocation)
    _print_together([result], invocation)


def _result(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    finite = {key: value if value is not None and math.isfinite(value) else None for key, value in metrics.items()}
    return {
        "run": run.id,
        "rule": run.record.rule,
        "seed": run.seed,
        "status": run.record.status,
        "folder": str(run.folder),
        "seconds": run.record.seconds,
        "metrics": finite,
        **({"files": run.files} if run.files else {}),
        **({"error": run.record.error} if run.record.error else {}),
    }


def _print_result(result: dict[str, Any], run: Run, invocation: Invocation) -> None:
    """Print one run's result as soon as it is there."""
    if invocation.output_format() == "json":
        print(json.dumps(result), flush=True)  # noqa: T201
    elif invocation.quiet:
        print(result["folder"], flush=True)  # noqa: T201
    elif invocation.format == "table":
        from plastic_cli.commands.show import show_result

        show_result(result, run)


def _print_together(results: list[dict[str, Any]], invocation: Invocation) -> None:
    """Print what only all runs together can show: one table for a program, or the mean over seeds."""
    if invocation.output_format() == "json" or invocation.quiet:
        return
    from plastic_cli.commands.show import print_results, show_over_seeds

    if invocation.format != "table":
        print_results(results, invocation.format)
    elif len(results) > 1:
        show_over_seeds(results)


@contextmanager
def _nothing_but_interrupts(signals: list[int]) -> Iterator[None]:
    """Turn what a signal was made into back into an interrupt.

    Libraries that call Python from C, such as the writer of checkpoints, report an exception of their own when a signal
    comes in the middle.
    """
    try:
        yield
    except Exception as error:
        if signals:
            raise KeyboardInterrupt from error
        raise
