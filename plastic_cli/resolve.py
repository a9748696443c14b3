"""What a run is made with: the configuration class of a verb, and the merging of what is typed, a file and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from plastic_cli.config.model import Config, TrainConfig
from plastic_cli.errors import OptionError, UserError
from plastic_cli.plugins.discovery import load_function
from plastic_cli.plugins.rule import Rule


def config_model(function: Callable[..., Any]) -> type[Config]:
    """Return the configuration class in the signature of a verb's function; raises TypeError where there is none."""
    names = inspect.unwrap(function).__globals__
    for name, annotation in inspect.get_annotations(function).items():
        found = annotation
        if isinstance(annotation, str):
            # One by one: other annotations may name what is imported for type checking only, such as Run.
            with suppress(NameError):
                found = eval(annotation, names)
        if name != "return" and inspect.isclass(found) and issubclass(found, Config):
            return found
    raise TypeError(f"{function.__module__}.{function.__qualname__} takes no configuration (a subclass of Config)")


def train_model(rule: Rule) -> type[TrainConfig]:
    """Return the configuration class of a rule's train command; raises UserError where it has none."""
    function = load_function(rule, "train")
    if function is None:
        raise UserError(f"the rule '{rule.name}' has no train.")
    model = config_model(function)
    if not issubclass(model, TrainConfig):
        raise TypeError(f"{model.__qualname__} is no TrainConfig, so it has no seed")
    return model


def resolve(
    model: type[Config],
    typed: Mapping[str, Any],
    from_file: Mapping[str, Any] | None = None,
    source: str = "",
    below: Mapping[str, Any] | None = None,
) -> Config:
    """Merge: a typed option beats the file, the file beats what is `below`, the defaults otherwise.

    source: the file's name for messages. Raises UserError for an option or value that does not fit, and for one that
    has no effect beside the others; what is below was accepted before.
    """
    in_file = dict(from_file or {})
    if in_file:
        model.from_values(in_file, source=source)
    given = {**model.meant(in_file), **in_file, **model.meant(typed), **typed}
    config = model.from_values({**(below or {}), **given})
    if below is None:
        try:
            config.refuse_unused()
        except OptionError as error:
            from_source = source and error.key in in_file and error.key not in typed
            raise OptionError(f"{source}: {error}" if from_source else str(error), error.key) from None
    dataset = getattr(config, "dataset", None)
    if dataset is None:
        return config
    from plastic_cli.data.catalogue import check_dataset_name, full_dataset_name

    try:
        check_dataset_name(dataset)
    except UserError as error:
        raise OptionError(str(error), "dataset") from None
    # A folder is stored by its whole path: the run is looked at from elsewhere too.
    return config.model_copy(update={"dataset": full_dataset_name(dataset)})
