"""`plastic eval`, `analyze` and `render`: a function of a rule, applied to a trained run."""

from __future__ import annotations

import shlex
from typing import Any

from plastic_cli.commands.invocation import RenderInvocation, StageInvocation
from plastic_cli.commands.show import print_next, print_result, print_together, result_of
from plastic_cli.config.toml import to_toml
from plastic_cli.signals import signals_as_interrupts
from plastic_cli.verbs.stage import carry_out_stage, check_output, opened_run
from plastic_cli.verbs.verb import RuleVerb, Session, check_device


def stage(verb: RuleVerb, typed: dict[str, Any], invocation: StageInvocation) -> None:
    """Carry out eval, analyze or render on the run that was named, else on the newest completed run of the rule."""
    rule = verb.rule.name
    config = verb.resolve(typed, invocation.config)
    check_device(getattr(config, "device", None))
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic {verb.name} {rule} --config FILE"), end="")  # noqa: T201
        return
    output = invocation.output if isinstance(invocation, RenderInvocation) else None
    if output is not None:
        check_output(output)
    console = invocation.console()
    run = opened_run(verb, config, invocation, Session(invocation.runs_folder(), console, invocation.data))
    console.message(f"{verb.name} {rule} on run {run.id}{f' ({run.record.name})' if run.record.name else ''}")
    with signals_as_interrupts():
        carry_out_stage(verb, config, run, output)
    result = result_of(run, run.results)
    result["seconds"] = round(run.seconds - run.record.seconds, 3)
    print_result(result, run, invocation)
    print_together([result], invocation, run.conditions)
    if invocation.format == "table":
        print_next(_next_commands(verb, invocation), invocation, console)


def _next_commands(verb: RuleVerb, invocation: StageInvocation) -> list[str]:
    """Return the commands of later stages on the same run, and the report."""
    later = {"eval": ("analyze", "render"), "analyze": ("render",)}.get(verb.name, ())
    run = "" if invocation.run is None else f" --run {shlex.quote(invocation.run)}"
    able = [f"plastic {name} {verb.rule.name}{run}" for name in later if verb.rule.function(name) is not None]
    return [*able, "plastic report"]
