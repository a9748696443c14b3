"""Eval, analyze and render: a function of a rule, applied to a trained run."""

from __future__ import annotations

from pathlib import Path

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.outputs import OUTPUTS, output_is_picture
from plastic_cli.runs.record import now
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore
from plastic_cli.verbs.options import StageOptions
from plastic_cli.verbs.verb import RuleVerb, Session


def opened_run(verb: RuleVerb, config: Config, options: StageOptions, session: Session) -> Run:
    """Open the run that the options name, else the newest completed run of the rule.

    Raises UserError if there is none, or if it is a run of another rule.
    """
    store = RunStore(session.runs)
    folder = store.find(options.run) if options.run is not None else store.newest(verb.rule.name)
    return run_in(folder, verb, config, session)


def run_in(folder: Path, verb: RuleVerb, config: Config, session: Session) -> Run:
    """Open the run in `folder` for a stage; raises UserError if it is a run of another rule."""
    run = open_run(
        folder,
        stage=verb.name,
        console=session.console,
        data_folder=session.data,
        device=getattr(config, "device", "auto"),
    )
    if run.record.rule != verb.rule.name:
        raise UserError(
            f"run {run.id} is a run of {run.record.rule}: plastic {verb.name} {run.record.rule} --run {run.id}"
        )
    return run


def carry_out_stage(verb: RuleVerb, config: Config, run: Run, output: Path | None = None) -> None:
    """Carry out eval, analyze or render on an open run; what it computes is in the run's `results` and `files`.

    The folder of the run gets a record of the stage, so that a sweep does not repeat it.
    output: the file for the first film that the rule draws, or for its first picture if the name ends with .png.
    Raises UserError if the rule drew none.
    """
    from plastic_cli.numerics.machine import versions

    run.output, started = output, now()
    with run.locked():
        verb.function(config, run)
        origin = discover().origins.get(verb.rule.name)
        run.complete_stage(config.model_dump(mode="json"), versions(origin), started)
    if run.output is not None:
        kind, other = ("picture", "film") if output_is_picture(run.output) else ("film", "picture")
        raise UserError(f"--output {output}: {run.record.rule} draws no {kind}. Choose a name for a {other}.")


def check_output(path: Path) -> None:
    """Raise UserError, before anything is drawn, if no film or picture can be written into this file."""
    from plastic_cli.figures.encoding import check_film_can_be_written

    if path.suffix.lower() not in OUTPUTS:
        raise UserError(f"--output {path}: the name must end with {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]}.")
    if path.is_dir():
        raise UserError(f"--output {path}: it is a folder. Add the name of a file.")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}. Create it, or choose another.")
    if not output_is_picture(path):
        check_film_can_be_written(path.suffix.lower().removeprefix("."))
