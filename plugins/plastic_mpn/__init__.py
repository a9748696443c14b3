"""MPN: multi-plasticity networks. Registration, and the library's names, which are imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Rule, hookimpl
from plastic_cli.lazy import lazy_names

if TYPE_CHECKING:
    from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Readout
    from plastic_mpn.networks.cores import MPN, Core, make_core

_LAZY = {
    "MPN": "plastic_mpn.networks.cores",
    "Core": "plastic_mpn.networks.cores",
    "make_core": "plastic_mpn.networks.cores",
    "MPNDQN": "plastic_mpn.networks.agents",
    "ActorCritic": "plastic_mpn.networks.agents",
    "Readout": "plastic_mpn.networks.agents",
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
