"""metafa: meta-learned plasticity. Registers the rule; the public names are imported when first used."""

from __future__ import annotations

import lazy_loader

from plastic_cli import Rule, hookimpl


@hookimpl
def plastic_rule() -> Rule:
    """Register metafa."""
    return Rule(
        name="metafa",
        summary="Meta-learned plasticity rules for networks with random feedback.",
        citation="Shervani-Tabar & Rosenbaum 2023",
        commands="plastic_metafa.commands",
    )


# `__init__.pyi` lists the names; each is imported when it is first used. pluggy finds hooks in the unchanged `dir`.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
