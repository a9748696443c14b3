"""`plastic eval`, `analyze` and `render`: a function of a rule, applied to a trained run."""

from __future__ import annotations

from typing import Any

from plastic_cli.commands.invocation import RuleVerb, StageInvocation
from plastic_cli.commands.show import print_result, print_together, result_of
from plastic_cli.commands.train import check_device
from plastic_cli.config.toml import to_toml
from plastic_cli.errors import UserError
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.signals import signals_as_interrupts


def carry_out_stage(verb: RuleVerb, typed: dict[str, Any], invocation: StageInvocation) -> None:
    """Carry out eval, analyze or render on the run that was named, else on the newest completed run of the rule."""
    rule = verb.rule.name
    config = verb.resolve(typed, invocation.config)
    check_device(config)
    if invocation.dry_run:
        print(to_toml(config, heading=f"plastic {verb.name} {rule} --config FILE"), end="")  # noqa: T201
        return
    store = RunStore(invocation.runs_folder())
    folder = store.find(invocation.run) if invocation.run is not None else store.newest(rule)
    console = invocation.console()
    run = open_run(
        folder,
        stage=verb.name,
        console=console,
        data_folder=invocation.data,
        device=getattr(config, "device", "auto"),
    )
    if run.record.rule != rule:
        raise UserError(
            f"run {run.id} is a run of {run.record.rule}: plastic {verb.name} {run.record.rule} --run {run.id}"
        )
    console.message(f"{verb.name} {rule} on run {run.id}{f' ({run.record.name})' if run.record.name else ''}")
    with signals_as_interrupts(), run.locked():
        verb.function(config, run)
    result = result_of(run, run.results)
    result["seconds"] = round(run.seconds - run.record.seconds, 3)
    print_result(result, run, invocation)
    print_together([result], invocation)
