"""Selective plasticity: registers the rule, and gives the optimizer to other programs when they first use it."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register selective plasticity."""
    return Rule(
        name="selective",
        summary="An optimizer with a gate for each synapse, and experiments on continual learning with controls.",
        citation="Selective plasticity (published program)",
        commands="plastic_selective.commands",
        build="plastic_selective.continual.components:build",
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
