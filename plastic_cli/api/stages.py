"""`plastic.evaluate`, `plastic.analyze` and `plastic.render`: the commands eval, analyze and render as functions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from plastic_cli.api.chosen import AnyRun, named_run
from plastic_cli.api.console import PythonConsole
from plastic_cli.api.fit import learner_verb
from plastic_cli.api.network import analyze_module
from plastic_cli.api.options import split_options
from plastic_cli.api.outcome import Analysis, Film
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import plugin_names
from plastic_cli.runs.run import Run
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.options import RenderOptions, StageOptions
from plastic_cli.verbs.stage import carry_out_stage, check_output, run_in
from plastic_cli.verbs.verb import Session, check_device, find_verb

if TYPE_CHECKING:
    from torch import nn


def evaluate(run: AnyRun, *, learner: Any = None, **options: Any) -> dict[str, float]:
    """Evaluate a trained run, and return its metrics by name, such as "test/accuracy".

    run: a StoredRun, or the id, name or folder of a run. learner: for a run of `plastic.fit`, the learner or module,
    built as for training. options: those of `plastic eval RULE --help`, with underscores, and `runs` and `data`
    (folders), `config` (a file), `quiet`.

    Raises UserError, a ValueError, for a run that does not exist and for a wrong option.
    """
    return carried_out("eval", run, learner, options).results


def analyze(run: AnyRun | nn.Module, *, learner: Any = None, **options: Any) -> Analysis:
    """Analyze a trained run; the arguments are those of `evaluate`, the options those of `plastic analyze RULE --help`.

    The tables and figures are also files in the folder of the run.

    run: can also be a trained torch module that belongs to no run. Its options are those of `plastic analyze --help`:
    `dataset`, the measures `confusion`, `sparsity`, `probe`, `robustness` and `cka`, `mean`, `std`, `image_size`,
    `output` (the folder for tables and figures; default: analysis/NAME, with the name of the class), `seed`, `device`,
    `data` and `quiet`. The module returns logits (batch, classes) of images (batch, channels, height, width), or of
    rows of pixels. `probe` and `cka` compare it with `untrained`, a module before training or a function that makes
    one; by default a copy whose layers draw their weights again with `reset_parameters()`. `other`: a module with which
    `cka` compares instead. The module is not changed.
    """
    if is_module(run):
        if learner is not None:
            raise UserError("learner is for a run of plastic.fit. A module is analyzed as it is.")
        return analyze_module(run, options)
    return Analysis.of(carried_out("analyze", cast("AnyRun", run), learner, options))


def is_module(thing: Any) -> TypeGuard[nn.Module]:
    """Return whether something is a torch module; a program that has not imported torch has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def render(run: AnyRun, **options: Any) -> Film:
    """Draw a trained run as a film, and return its path; in a notebook the film shows itself.

    The arguments are those of `evaluate`, the options those of `plastic render RULE --help`, such as
    `output="film.mp4"`. For a rule that draws only pictures, the path is that of the first picture.
    """
    drawn = carried_out("render", run, None, options)
    if options.get("output") is not None:
        return Film(options["output"])
    films = [name for name in drawn.files if name.startswith("videos/")] or drawn.files
    if not films:
        raise UserError(f"the rule '{drawn.record.rule}' drew nothing for run {drawn.id}.")
    return Film(drawn.folder / films[0])


def carried_out(name: str, run: AnyRun, learner: Any, options: dict[str, Any]) -> Run:
    """Carry out a verb on a run, and return the run with what the verb computed."""
    chosen_run = named_run(run, StageOptions.from_values({"runs": options.get("runs")}).runs)
    record = chosen_run.record
    if learner is None:
        module, credit = chosen_run.learner, chosen_run.credit
        learner = (module, None, credit) if is_module(module) and credit is not None else module
    if learner is None and record.rule not in plugin_names():
        raise UserError(
            f"run {record.run} is of '{record.rule}', not an installed rule. Build the learner as for training,"
            " and pass it with learner=..."
        )
    verb = find_verb(name, record.rule) if learner is None else learner_verb(name, record.rule, learner)
    typed, chosen = split_options(
        {name: value for name, value in options.items() if name != "runs"},
        verb.model,
        RenderOptions if name == "render" else StageOptions,
    )
    output = chosen.output if isinstance(chosen, RenderOptions) else None
    if output is not None:
        check_output(output)
    config = verb.resolve(typed, chosen.config)
    check_device(getattr(config, "device", None))
    session = Session(
        chosen_run.folder.parent, PythonConsole(quiet=chosen.quiet), chosen.data or chosen_run.data_folder
    )
    opened = run_in(chosen_run.folder, verb, config, session)
    with signals_as_interrupts():
        carry_out_stage(verb, config, opened, output)
    return opened
