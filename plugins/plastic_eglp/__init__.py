"""EGLP: event-gated local plasticity. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

if TYPE_CHECKING:
    from plastic_eglp.events import AlwaysOnController, FixedRateController, NeverController, ThresholdController
    from plastic_eglp.layers import LocalConv2d, LocalLinear
    from plastic_eglp.learner import EGLPLearner
    from plastic_eglp.network import EGLPNetwork

_LAZY = {
    "AlwaysOnController": "plastic_eglp.events",
    "FixedRateController": "plastic_eglp.events",
    "NeverController": "plastic_eglp.events",
    "ThresholdController": "plastic_eglp.events",
    "LocalConv2d": "plastic_eglp.layers",
    "LocalLinear": "plastic_eglp.layers",
    "EGLPLearner": "plastic_eglp.learner",
    "EGLPNetwork": "plastic_eglp.network",
}

__all__ = [
    "AlwaysOnController",
    "EGLPLearner",
    "EGLPNetwork",
    "FixedRateController",
    "LocalConv2d",
    "LocalLinear",
    "NeverController",
    "ThresholdController",
    "plastic_rule",
]


@hookimpl
def plastic_rule() -> Rule:
    """Register EGLP."""
    return Rule(
        name="eglp",
        summary="Event-gated local plasticity: hidden layers learn locally, and only when a global event says so.",
        citation="github.com/debg48/EGLP",
        commands="plastic_eglp.commands",
    )


__getattr__ = lazy_names(__name__, _LAZY)
