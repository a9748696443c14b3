"""Selective plasticity: registers the rule, and gives the optimizer to other programs when they first use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

if TYPE_CHECKING:
    from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer

_LAZY = {"SelectivePlasticityOptimizer": "plastic_selective.optimizer.optimizer"}

__all__ = ["SelectivePlasticityOptimizer", "plastic_rule"]


@hookimpl
def plastic_rule() -> Rule:
    """Register selective plasticity."""
    return Rule(
        name="selective",
        summary="An optimizer that protects busy synapses, and continual learning with its controls.",
        citation="Selective plasticity (published program)",
        commands="plastic_selective.commands",
    )


__getattr__ = lazy_names(__name__, _LAZY)
