"""Oja's rule."""

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register the rule."""
    return Rule(
        name="oja", summary="Oja's rule, one linear unit.", citation="Oja 1982", commands="plastic_oja.commands"
    )
