"""The command of one verb and one rule, such as `plastic train grlu`."""

from __future__ import annotations

import inspect
from typing import Any

from plastic_cli.commands.invocation import RenderInvocation, StageInvocation, TrainInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.verbs.verb import find_verb


def rule_command(name: str, rule_name: str) -> Any:
    """Build the command of one verb and one rule; raises UserError if the rule or the verb does not exist."""
    verb = find_verb(name, rule_name)
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
