"""GRLU: global reward, local updates. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

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


__getattr__ = lazy_names(__name__, _LAZY)
