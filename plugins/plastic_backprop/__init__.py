"""Backpropagation, and random features with a trained readout: the two controls of all rules. Registers the rule."""

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register backpropagation."""
    return Rule(
        name="backprop",
        summary="Backpropagation, the control for all rules; with --trained readout, random features.",
        citation="Rumelhart, Hinton & Williams 1986",
        commands="plastic_backprop.commands",
        build="plastic_backprop.training:build",
        network="plastic_backprop.training:network",
        credit="plastic_backprop.training:make_credit",
        cost="plastic_backprop.cost:cost",
    )
