"""Selective plasticity. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plastic_cli import Rule, hookimpl

if TYPE_CHECKING:
    from plastic_selective.optimizer import SelectivePlasticityOptimizer

_LAZY = {"SelectivePlasticityOptimizer": "plastic_selective.optimizer"}

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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'plastic_selective' has no attribute '{name}'")
