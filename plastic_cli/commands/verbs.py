"""The command of one verb and one rule, such as `plastic train grlu`."""

from __future__ import annotations

import inspect
from typing import Any

from plastic_cli.commands.invocation import RuleVerb, StageInvocation, TrainInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule, load_function
from plastic_cli.plugins.rule import VERBS
from plastic_cli.resolve import config_model


def rule_command(verb: str, rule_name: str) -> Any:
    """Build the command of one verb and one rule; raises UserError if the rule or the verb does not exist."""
    rule = find_rule(rule_name)
    function = load_function(rule, verb)
    if function is None:
        able = [f"`plastic {other} {rule_name}`" for other in VERBS if rule.function(other) is not None]
        raise UserError(f"the rule '{rule_name}' has no {verb}. It has {', '.join(able) or 'no command'}.")
    model = config_model(function)
    rule_verb = RuleVerb(verb, rule, function, model)
    invocation = TrainInvocation if verb == "train" else StageInvocation

    def run(values: dict[str, dict[str, Any]]) -> None:
        if verb == "train":
            from plastic_cli.commands.train import train

            train(rule_verb, values["config"], TrainInvocation.from_values(values["invocation"]))
        else:
            from plastic_cli.commands.stage import carry_out_stage

            carry_out_stage(rule_verb, values["config"], StageInvocation.from_values(values["invocation"]))

    about = inspect.getdoc(model) or inspect.getdoc(function) or rule.summary
    return build_command(
        rule.name,
        f"{about}\n\n{rule.summary} ({rule.citation})",
        {"config": model, "invocation": invocation},
        run,
    )
