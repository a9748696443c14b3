"""Which stored eval or analyze of a run a claim is about."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from plastic_cli.plugins.discovery import find_rule, load_function
from plastic_cli.plugins.models import config_model
from plastic_cli.reports.grouping import plain_value
from plastic_cli.runs.record import BOOKKEEPING

_NOT_ABOUT_RESULTS = BOOKKEEPING - {"dataset"} | {"run", "config"}


def is_stage_of(options: Mapping[str, Any], config: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Return whether a stage with the configuration `config` was carried out with `options`.

    Options that are not named have their defaults. Switches are the exception: they select further measures, which do
    not change those that are named.
    """
    stored = {name: plain_value(value) for name, value in config.items()}
    if any(stored.get(name) != value for name, value in options.items()):
        return False
    free = {*options, *_NOT_ABOUT_RESULTS, *(name for name, value in stored.items() if isinstance(value, bool))}
    return all(name in free or name not in defaults or value == defaults[name] for name, value in stored.items())


@cache
def stage_defaults(rule: str, verb: str) -> Mapping[str, Any]:
    """Return the default of each option of a command of a rule; nothing if the rule does not load."""
    with suppress(Exception):
        function = load_function(find_rule(rule), verb)
        if function is not None:
            return {name: plain_value(info.default) for name, info in config_model(function).model_fields.items()}
    return {}
