"""The command of one verb and one rule, such as `plastic train grlu`."""

from __future__ import annotations

import inspect
from typing import Any

from plastic_cli.commands.invocation import RenderInvocation, StageInvocation, TrainInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import plugin_names
from plastic_cli.verbs.verb import find_verb


def rule_command(name: str, rule_name: str) -> Any:
    """Build the command of one verb and one rule; raises UserError if the rule or the verb does not exist."""
    try:
        verb = find_verb(name, rule_name)
    except UserError as error:
        raise UserError(f"{error}{_in_python(name, rule_name)}") from None
    of_stage = RenderInvocation if name == "render" else StageInvocation
    invocation = TrainInvocation if name == "train" else of_stage

    def run(values: dict[str, dict[str, Any]]) -> None:
        if name == "train":
            from plastic_cli.commands.train import train

            train(verb, values["config"], TrainInvocation.from_values(values["invocation"]))
        else:
            from plastic_cli.commands.stage import stage

            stage(verb, values["config"], of_stage.from_values(values["invocation"]))

    about = inspect.getdoc(verb.model) or inspect.getdoc(verb.function) or verb.rule.summary
    return build_command(
        verb.rule.name,
        f"{about}\n\n{verb.rule.summary} ({verb.rule.citation})",
        {"config": verb.model, "invocation": invocation},
        run,
    )


def _in_python(name: str, rule_name: str) -> str:
    """Return what to do with the runs of a rule that is not installed, and an empty text if there are none."""
    # The help of a rule does not need the store.
    from plastic_cli.runs.store import RunStore
    from plastic_cli.verbs.options import RunsOptions

    calls = {"train": "fit(learner, resume=...)", "eval": "evaluate(run, learner=...)"}
    calls["analyze"] = "analyze(run, learner=...)"
    call = calls.get(name)
    if call is None or rule_name in plugin_names():
        return ""
    if all(row["rule"] != rule_name for row in RunStore(RunsOptions().runs_folder()).rows()):
        return ""
    return f" The runs of plastic.fit have no command. In Python: plastic.{call}."
