"""Which training options mean nothing beside the others that were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plastic_cli.options import Users, unused_beside

_USERS: Users = (
    ("update", ("local",), ("feedback", "local_rule", "local_lr", "inverse_temperature", "control")),
    ("feedback", ("none",), ("local_rule", "inverse_temperature")),
    ("local_rule", ("softhebb",), ("inverse_temperature",)),
    (
        "events",
        ("triggered",),
        ("event_scope", "event_signal", "event_strength", "threshold_factor", "gather"),
    ),
    ("events", ("triggered", "fixed"), ("event_rate", "event_warmup")),
    ("events", ("triggered", "fixed", "always"), ("event_budget", "local_lr", "feedback", "local_rule", "control")),
    ("event_scope", ("stimulus",), ("gather",)),
    ("readout", ("supervised",), ("readout_lr",)),
)


def unused_options(chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that mean nothing beside `chosen`, each with why; what is not chosen rules nothing out."""
    found = unused_beside(chosen, _USERS)
    if chosen.get("threshold_factor") and chosen.get("events") == "triggered":
        found["event_rate"] = "with --threshold-factor, which says what triggers an event"
    return found
