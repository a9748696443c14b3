"""MPN: multi-plasticity networks. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

if TYPE_CHECKING:
    from plastic_mpn.cores import MPN, Core, make_core
    from plastic_mpn.networks import MPNDQN, ActorCritic, Readout

_LAZY = {
    "MPN": "plastic_mpn.cores",
    "Core": "plastic_mpn.cores",
    "make_core": "plastic_mpn.cores",
    "MPNDQN": "plastic_mpn.networks",
    "ActorCritic": "plastic_mpn.networks",
    "Readout": "plastic_mpn.networks",
}

__all__ = ["MPN", "MPNDQN", "ActorCritic", "Core", "Readout", "make_core", "plastic_rule"]


@hookimpl
def plastic_rule() -> Rule:
    """Register MPN."""
    return Rule(
        name="mpn",
        summary="Multi-plasticity networks: Hebbian modulation of the input weights as the memory of an agent.",
        citation="Aitken & Mihalas 2023",
        commands="plastic_mpn.commands",
    )


__getattr__ = lazy_names(__name__, _LAZY)
