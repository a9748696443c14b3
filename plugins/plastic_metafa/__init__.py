"""Meta-learned plasticity with random feedback. Registration, and the library's names, imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

if TYPE_CHECKING:
    from plastic_metafa.adaptation import Network, Plasticity, adapt, adapt_to, draw_network
    from plastic_metafa.rule import TERMS, Term, plasticity_update

_LAZY = {
    "Network": "plastic_metafa.adaptation",
    "Plasticity": "plastic_metafa.adaptation",
    "TERMS": "plastic_metafa.rule",
    "Term": "plastic_metafa.rule",
    "adapt": "plastic_metafa.adaptation",
    "adapt_to": "plastic_metafa.adaptation",
    "draw_network": "plastic_metafa.adaptation",
    "plasticity_update": "plastic_metafa.rule",
}

__all__ = [
    "TERMS",
    "Network",
    "Plasticity",
    "Term",
    "adapt",
    "adapt_to",
    "draw_network",
    "plastic_rule",
    "plasticity_update",
]


@hookimpl
def plastic_rule() -> Rule:
    """Register metafa."""
    return Rule(
        name="metafa",
        summary="Meta-learned plasticity rules that make up for fixed random feedback.",
        citation="Shervani-Tabar & Rosenbaum 2023",
        commands="plastic_metafa.commands",
    )


__getattr__ = lazy_names(__name__, _LAZY)
