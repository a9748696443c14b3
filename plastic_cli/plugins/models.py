"""The configuration model of each verb of a rule, and the former names of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule, load_function
from plastic_cli.plugins.rule import Rule


def config_model(function: Callable[..., Any]) -> type[Config]:
    """Return the configuration class in the signature of a verb's function; raises TypeError if there is none."""
    names = inspect.unwrap(function).__globals__
    for name, annotation in inspect.get_annotations(function).items():
        found = annotation
        if isinstance(annotation, str):
            # Only this annotation: others may name types that are imported for type checking only, such as Run.
            with suppress(NameError):
                found = eval(annotation, names)
        if name != "return" and inspect.isclass(found) and issubclass(found, Config):
            return found
    raise TypeError(f"{function.__module__}.{function.__qualname__} takes no configuration (a subclass of Config)")


def train_model(rule: Rule) -> type[TrainConfig]:
    """Return the configuration class of a rule's train command; raises UserError if it has none."""
    function = load_function(rule, "train")
    if function is None:
        raise UserError(f"the rule '{rule.name}' has no train command.")
    model = config_model(function)
    if not issubclass(model, TrainConfig):
        raise TypeError(f"{model.__qualname__} is not a TrainConfig, so it has no seed")
    return model


@cache
def former_names(rule: str) -> Mapping[str, str]:
    """Return the former names of the options with which a rule is trained, and the present ones.

    There are none for a rule that is not installed or does not load: its runs are read as they are stored.
    """
    with suppress(Exception):
        return train_model(find_rule(rule)).former_names()
    return {}


def added_options(rule: str) -> Mapping[str, Any]:
    """Return the plain values of the options that a rule got later; nothing if it is not installed or does not load."""
    return _fields_and_added(rule)[1]


def with_added_options(rule: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the options that it lacks only because the previous version had none."""
    fields, added = _fields_and_added(rule)
    missing = fields - config.keys()
    return {**config, **{name: added[name] for name in missing}} if missing and missing <= added.keys() else config


@cache
def _fields_and_added(rule: str) -> tuple[frozenset[str], Mapping[str, Any]]:
    """Return the names of a rule's options of training, and `Config.added_fields`; nothing if it does not load."""
    with suppress(Exception):
        model = train_model(find_rule(rule))
        return frozenset(model.model_fields), model.added_fields()
    return frozenset(), {}
