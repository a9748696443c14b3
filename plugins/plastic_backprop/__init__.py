"""Backpropagation, and random features with a trained readout: the two controls, as a rule of their own."""

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register the controls."""
    return Rule(
        name="backprop",
        summary="Backpropagation, the control of every comparison; --trained readout gives random features.",
        citation="Rumelhart, Hinton & Williams 1986",
        commands="plastic_backprop.commands",
    )
