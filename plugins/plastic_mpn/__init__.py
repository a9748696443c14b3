"""MPN: multi-plasticity networks. Registers the rule; the names of the library are imported at first use."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register MPN."""
    return Rule(
        name="mpn",
        summary="Multi-plasticity networks: Hebbian modulation of the input weights as the memory of an agent.",
        citation="Aitken & Mihalas 2023",
        commands="plastic_mpn.commands",
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
