"""Train a rule: create runs or open one to resume, and train each until it is completed, failed or interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from plastic_cli.config.describe import option_name
from plastic_cli.config.model import TrainConfig
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.folder import check_run_name, create_run, open_run
from plastic_cli.runs.record import now, read_record
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore
from plastic_cli.verbs.options import TrainingOptions
from plastic_cli.verbs.verb import RuleVerb, Session, check_device


def planned_config(verb: RuleVerb, typed: Mapping[str, Any], options: TrainingOptions) -> TrainConfig:
    """Return the configuration of new runs; raises UserError if one is wrong, the last seed included."""
    config = verb.resolve(typed, options.config)
    if not isinstance(config, TrainConfig):
        raise TypeError(f"{verb.model.__qualname__} is not a TrainConfig, so it has no seed")
    # Checked before the first run: seeds have a maximum.
    verb.model.from_values({**config.model_dump(), "seed": config.seed + options.seeds - 1})
    check_device(config.device)
    if options.name is not None:
        check_run_name(_name_of(options, config.seed))
    return config


def new_runs(verb: RuleVerb, config: TrainConfig, options: TrainingOptions, session: Session) -> Iterator[Run]:
    """Create one run after the other, with the seeds seed, seed + 1, ..."""
    from plastic_cli.numerics.machine import versions

    for index in range(options.seeds):
        seeded = config.model_copy(update={"seed": config.seed + index})
        yield create_run(
            session.runs,
            rule=verb.rule.name,
            config=seeded.model_dump(mode="json"),
            dataset=seeded.learns_from(),
            name=None if options.name is None else _name_of(options, seeded.seed),
            argv=session.argv,
            versions=versions(discover().origins.get(verb.rule.name)),
            console=session.console,
            data_folder=session.data,
            device=config.device,
            exports=session.exports,
        )


def _name_of(options: TrainingOptions, seed: int) -> str:
    return f"{options.name}-seed{seed}" if options.seeds > 1 else str(options.name)


def resumed_run(verb: RuleVerb, typed: Mapping[str, Any], options: TrainingOptions, session: Session) -> Run:
    """Open the run that `resume` names; raises UserError if an option differs from the stored configuration."""
    typed = verb.model.read_names(typed)
    for name in ("name", "seeds"):
        if name in options.model_fields_set:
            raise UserError(f"--resume continues one run as it was started: leave {option_name(name)} out.")
    folder = RunStore(session.runs).find(str(options.resume))
    device = str(typed.get("device") or read_record(folder).config.get("device", "auto"))
    run = open_run(folder, console=session.console, data_folder=session.data, device=device, exports=session.exports)
    if run.record.rule != verb.rule.name:
        raise UserError(
            f"run {run.id} is a run of {run.record.rule}: plastic train {run.record.rule} --resume {run.id}"
        )
    stored = verb.model.from_values(run.config, source=f"run {run.id}")
    check_device(getattr(stored, "device", None))
    given = verb.resolve(typed, options.config, stored=run.config)
    # Values that these imply were implied when the run started, and may have been overridden then.
    named = {*typed, *verb.read_options(options.config)}
    for name in type(given).model_fields:
        if name in named - {"device"} and getattr(given, name) != getattr(stored, name):
            raise UserError(
                f"--resume continues a run as it was started, with {name} = {getattr(stored, name)}:"
                f" leave {option_name(name)} out, or train a new run."
            )
    return run


def train_run(verb: RuleVerb, run: Run, signals: Sequence[int]) -> RunFailed | None:
    """Train one run until it is completed, failed or interrupted; its record says which. Return why it failed.

    Does nothing if the run is completed already. Raises UserError for wrong input, RunFailed if the run cannot be
    written, and KeyboardInterrupt if a signal came while the end of the run was exported.
    """
    run.signals = signals
    with run.locked():
        if run.record.status == "completed":
            return None
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
                # It came while the end of the run was written or exported: the record may not be on the disk yet.
                run.write_record(finished=run.record.finished or now())
                raise
            run.finish("interrupted")
        except RunFailed as error:
            run.finish("failed", str(error))
            return error
        except UserError as error:
            if fresh and run.is_untouched():
                # Wrong input was found before anything was learned: the folder would be of no use.
                run.discard()
            elif started:
                # A run that was resumed can be resumed again, with the right input.
                run.finish("failed" if fresh else "interrupted", str(error))
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
    return None


def _is_lack_of_memory(error: BaseException) -> bool:
    """Say whether Python, torch on the CPU or torch on a GPU ran out of memory; torch only says so in its message."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def _try_to_finish(run: Run, status: str, error: str) -> None:
    # On a full disk the last whole record stays, and a run without a living process counts as crashed.
    with suppress(OSError):
        run.finish(status, error)


@contextmanager
def _signals_stay_interrupts(signals: Sequence[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt again if a signal arrived and a library turned it into an exception of its own.

    Libraries that call Python from C, such as the writer of checkpoints, do so when a signal arrives during the call.
    """
    try:
        yield
    except Exception as error:
        if signals:
            raise KeyboardInterrupt from error
        raise
