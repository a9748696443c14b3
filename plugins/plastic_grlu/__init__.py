"""GRLU: global reward, local updates. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plastic_cli import Rule, hookimpl

if TYPE_CHECKING:
    from plastic_grlu.learner import GRLULearner
    from plastic_grlu.rule import forward, grlu_update

_LAZY = {"GRLULearner": "plastic_grlu.learner", "forward": "plastic_grlu.rule", "grlu_update": "plastic_grlu.rule"}

__all__ = ["GRLULearner", "forward", "grlu_update", "plastic_rule"]


@hookimpl
def plastic_rule() -> Rule:
    """Register GRLU."""
    return Rule(
        name="grlu",
        summary="Global reward, local updates: node perturbation with antithetic noise and one scalar reward.",
        citation="github.com/steve-z-wang/grlu",
        commands="plastic_grlu.commands",
    )


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'plastic_grlu' has no attribute '{name}'")
