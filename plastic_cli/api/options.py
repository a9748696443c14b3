"""Keyword arguments of the Python interface: which belong to the rule, which to the run, as on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from plastic_cli.config.model import Config
from plastic_cli.config.other_words import similar_option
from plastic_cli.errors import OptionError

Options = TypeVar("Options", bound=Config)


def split_options(
    given: Mapping[str, Any], rule_model: type[Config], run_model: type[Options]
) -> tuple[dict[str, Any], Options]:
    """Return the options of the rule and those of the run.

    A former name of an option gives a warning. Raises UserError, a ValueError, for a keyword argument that neither has,
    with the most similar name.
    """
    of_the_run = {name: value for name, value in given.items() if name in run_model.model_fields}
    typed = rule_model.read_names({name: value for name, value in given.items() if name not in of_the_run})
    fields = {**rule_model.model_fields, **run_model.model_fields}
    for name in typed:
        if name not in fields:
            guess = similar_option(name, fields, rule_model.published_names)
            raise OptionError(f"there is no option '{name}'.{guess}", name)
    return typed, run_model.from_values(of_the_run)
