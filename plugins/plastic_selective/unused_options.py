"""Which training options mean nothing beside the others that were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plastic_cli.options import Users, as_typed, unused_beside

_USERS: Users = (
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


def unused_options(chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that mean nothing beside `chosen`, each with why; what is not chosen rules nothing out."""
    found = unused_beside(chosen, _USERS)
    if chosen.get("iterations"):
        found["epochs"] = f"with {as_typed('iterations', chosen['iterations'])}, which says how long a task is"
    return found
