"""From a typed configuration to the options of a Typer command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from plastic_cli.commands.completion import completions_for
from plastic_cli.config.describe import (
    bounds_text,
    is_switch,
    literal_choices,
    option_name,
    type_word,
)
from plastic_cli.config.model import Config


def command_function(
    models: Mapping[str, type[Config]], run: Callable[[dict[str, dict[str, Any]]], None]
) -> Callable[..., None]:
    """Build the function of a command whose options are the fields of all `models`.

    `run` receives, for each model by its key, the values that were typed and no others: every option's own default is
    "not typed", so that a typed value beats a file's even where it equals the default. Values arrive as text and are
    checked by the model, which checks a file's values too.
    """
    owners = {name: key for key, model in models.items() for name in model.model_fields}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name, info, panel))
        for name, info, panel in _in_order_of_panels(models)
    ]

    def command(**typed: Any) -> None:
        values: dict[str, dict[str, Any]] = {key: {} for key in models}
        for name, value in typed.items():
            # An option that may be repeated and was not typed is an empty list.
            if value is not None and value != []:
                values[owners[name]][name] = value
        run(values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _in_order_of_panels(models: Mapping[str, type[Config]]) -> list[tuple[str, FieldInfo, str]]:
    """Return name, field and panel, the rule's own options before those that all rules share."""
    listed = []
    for model in models.values():
        for name, info in model.model_fields.items():
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            listed.append((name, info, str(extra.get("panel") or model.panel)))
    shared = {"Data": 1, "Run": 2, "Output": 3}
    return sorted(listed, key=lambda entry: shared.get(entry[2], 0))


def _annotation(name: str, info: FieldInfo, panel: str) -> Any:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    option = str(extra.get("option") or option_name(name))
    text = _help_text(info)
    if is_switch(info):
        # What a file turned on can be turned off again; options of how a command runs stand in no file.
        declared = [option] if panel == "Output" else [f"{option}/--no-{option[2:]}"]
        if "/" in option:
            declared = [option, f" /--no-{option.partition('/')[0][2:]}"]
        return Annotated[
            bool | None,
            typer.Option(*declared, help=text, show_default=False, rich_help_panel=panel),
        ]
    return Annotated[
        list[str] | None if extra.get("repeat") else str | None,
        typer.Option(
            option,
            help=text,
            metavar=f"<{type_word(info)}>",
            show_default=False,
            rich_help_panel=panel,
            autocompletion=completions_for(str(extra["complete"])) if extra.get("complete") else _words(info),
        ),
    ]


def _words(info: FieldInfo) -> Callable[[str], list[str]] | None:
    choices = literal_choices(info)
    if not choices:
        return None
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _help_text(info: FieldInfo) -> str:
    """Return a field's help with what it admits and its default, since the default that Typer sees is "not typed"."""
    text, choices = info.description or "", literal_choices(info)
    unnamed = [word for word in choices if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
    facts = [f"one of {', '.join(choices)}" if unnamed and type_word(info) == "word" else "", bounds_text(info)]
    default = info.default
    if isinstance(default, tuple | list):
        default = ",".join(str(entry) for entry in default) or None
    if isinstance(default, bool):
        default = "on" if default else None
    if default is not None:
        facts.append(f"default: {default:g}" if isinstance(default, float) else f"default: {default}")
    shown = "; ".join(fact for fact in facts if fact)
    # Square brackets in a text are no markup.
    return escape(text) + (f" [dim]({escape(shown)})[/dim]" if shown else "")
