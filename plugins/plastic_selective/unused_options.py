"""Which training options mean nothing beside the others that were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plastic_cli import UserError
from plastic_cli.options import as_typed, asked_values, option_name

if TYPE_CHECKING:
    from plastic_selective.commands import Train

_USERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "optimizer",
        ("selective",),
        (
            *("base", "plasticity_k", "gating", "threshold_percentile", "adaptive_threshold"),
            *("trace_decay", "warmup_steps"),
        ),
    ),
    ("optimizer", ("selective", "adam"), ("second_moment_decay",)),
    ("optimizer", ("momentum",), ("momentum",)),
    ("base", ("adam",), ("threshold_percentile", "adaptive_threshold", "second_moment_decay")),
    ("base", ("sgd",), ("trace_decay",)),
    ("stream", ("rotated",), ("max_degrees",)),
    ("scenario", ("class",), ("active",)),
    ("replay", ("reservoir", "class-balanced", "fifo"), ("buffer_size", "replay_share")),
    ("penalty", ("ewc", "si"), ("penalty_strength",)),
    ("penalty", ("ewc",), ("ewc_decay", "fisher_samples")),
    ("penalty", ("si",), ("si_damping",)),
)
"""A choice, the words of it that look at some options, and these options."""


def unused_options(chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that mean nothing beside `chosen`, each with why; what is not chosen rules nothing out."""
    found = {}
    for choice, words, names in _USERS:
        if choice in chosen and chosen[choice] not in words:
            users = " or ".join(f"{option_name(choice)} {word}" for word in words)
            reason = f"with {as_typed(choice, chosen[choice])}: it belongs to {users}"
            found.update({name: reason for name in names if name not in found})
    if chosen.get("iterations"):
        found["epochs"] = f"with {as_typed('iterations', chosen['iterations'])}, which says how long a task is"
    return found


def refuse_unused_options(config: Train) -> None:
    """Raise UserError where an option was given a value, not its default, that means nothing beside the others."""
    unused = unused_options(config.model_dump())
    for name, value in asked_values(config).items():
        if name in unused:
            raise UserError(f"{as_typed(name, value)} does nothing {unused[name]}. Leave it out.")
