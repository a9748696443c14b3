"""From typed configurations to a Typer command with their options."""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo
from typer.main import get_command

from plastic_cli.commands.groups import Command, Group
from plastic_cli.config.describe import bounds_text, is_switch, literal_choices, option_name, type_word
from plastic_cli.config.model import Config
from plastic_cli.errors import OptionError

Values = dict[str, dict[str, Any]]
Options = TypeVar("Options", bound=Config)


def build_command(name: str, about: str, models: Mapping[str, type[Config]], run: Callable[[Values], None]) -> Any:
    """Build a command whose options are the fields of all `models`; see `command_function`."""
    command = _command(name, about, command_function(models, run))
    command.published_names = {word: own for model in models.values() for word, own in model.published_names.items()}
    return command


def _command(name: str, about: str, function: Callable[..., None]) -> Any:
    # Options may be typed with underscores, as in many programs.
    settings = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda text: text.replace("_", "-")}
    single = typer.Typer(add_completion=False, context_settings=settings)
    single.command(name, cls=Command, help=about)(function)
    return get_command(single)


def toolkit_command(name: str, about: str, model: type[Options], run: Callable[[Options], None]) -> Any:
    """Build a command of the toolkit, whose options are the fields of one model."""
    return _command(name, about, toolkit_function(model, run))


def toolkit_group(
    name: str,
    about: str,
    alone: Callable[..., None],
    commands: Mapping[str, tuple[str, Callable[..., None]]],
    cls: type[Group] = Group,
) -> Any:
    """Build a group of the toolkit: `alone` runs if no command follows; commands: help and function by name."""
    group = typer.Typer(
        name=name,
        cls=cls,
        help=about,
        no_args_is_help=False,
        subcommand_metavar="[COMMAND]",
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.callback(invoke_without_command=True)(alone)
    for command_name, (text, function) in commands.items():
        group.command(command_name, cls=Command, help=text)(function)
    return get_command(group)


def toolkit_function(model: type[Options], run: Callable[[Options], None]) -> Callable[..., None]:
    """Build the function of a command of the toolkit."""
    return command_function({"options": model}, lambda values: run(read_options_of(model, values["options"])))


def read_options_of(model: type[Options], typed: Mapping[str, Any]) -> Options:
    """Return the typed options and those of the file of `--config`; typed options take precedence."""
    file, from_file = typed.get("config"), dict[str, Any]()
    if file:
        from plastic_cli.config.toml import read_toml

        from_file = model.read_names(read_toml(Path(file)), str(file))
    try:
        return model.from_values({**from_file, **typed})
    except OptionError as error:
        in_file = error.key in from_file and error.key not in typed
        raise OptionError(f"{file}: {error}" if in_file else str(error), error.key) from None


def command_function(models: Mapping[str, type[Config]], run: Callable[[Values], None]) -> Callable[..., None]:
    """Build the function of a command whose options are the fields of all `models`.

    `run` receives, for each model by its key, only the values that were typed: the default of every option is "not
    typed", so that a typed value takes precedence over a file even if it equals the default. Values arrive as text; the
    model checks them as it checks those of a file. Former names of options are hidden options, and `run`
    receives the present names. A command of a group also takes the options that were typed before its name. The
    function of a group does nothing if one of its commands follows.
    """
    owners = {name: key for key, model in models.items() for name in model.former_names()}
    owners |= {name: key for key, model in models.items() for name in model.model_fields}
    # No field can have this name: fields begin with a letter.
    parameters = [_parameter("_context", typer.Context, inspect.Parameter.empty)]
    parameters += [
        _parameter(name, _annotation(name, info, panel), inspect.Parameter.empty if info.is_required() else None)
        for name, info, panel in _in_order_of_panels(models)
    ]
    for model in models.values():
        for former, name in model.former_names().items():
            parameters.append(_parameter(former, _annotation(former, model.model_fields[name], "", hidden=True), None))

    def command(_context: typer.Context, **typed: Any) -> None:
        if _context.invoked_subcommand is not None:
            return
        if not gc.isenabled():
            # It was off while the program imported; the objects of these imports live until the program ends.
            gc.freeze()
            gc.enable()
        before = _context.parent.params if _context.parent is not None else {}
        values: Values = {key: {} for key in models}
        for name, value in typed.items():
            # A repeated option that was not typed is an empty list.
            given = before.get(name) if value in (None, [], ()) else value
            if given not in (None, [], ()):
                values[owners[name]][name] = given
        run({key: models[key].read_names(given, typed=True) for key, given in values.items()})

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _in_order_of_panels(models: Mapping[str, type[Config]]) -> list[tuple[str, FieldInfo, str]]:
    """Return name, field and panel, with the command's own options before those that all commands share."""
    listed = []
    for model in models.values():
        for name, info in model.model_fields.items():
            listed.append((name, info, str(_extra(info).get("panel") or model.panel)))
    shared = {"Sweep": 1, "Data": 2, "Run": 3, "Output": 4}
    return sorted(listed, key=lambda entry: shared.get(entry[2], 0))


def _extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _annotation(name: str, info: FieldInfo, panel: str, *, hidden: bool = False) -> Any:
    extra = _extra(info)
    option = option_name(name)
    declared = [option] if hidden else str(extra.get("option") or option).split(",")
    text = _help_text(info)
    if is_switch(info):
        if "/" in declared[0]:
            declared.append(f" /--no-{declared[0].partition('/')[0][2:]}")
        elif hidden or (panel != "Output" and not extra.get("option")):
            # The command line can turn off a switch that a file turned on.
            declared = [f"{option}/--no-{option[2:]}"]
        return Annotated[
            bool | None,
            typer.Option(*declared, help=text, show_default=False, rich_help_panel=panel, hidden=hidden),
        ]
    completion = _completion(str(extra["complete"])) if extra.get("complete") else _words(info)
    several = bool(extra.get("repeat"))
    if extra.get("argument"):
        declaration: Any = typer.Argument(
            help=text, metavar=str(extra["argument"]), show_default=False, autocompletion=completion
        )
    else:
        declaration = typer.Option(
            *declared,
            help=text,
            metavar=f"<{type_word(info).removesuffix(',...') if several else type_word(info)}>",
            show_default=False,
            rich_help_panel=panel,
            autocompletion=completion,
            hidden=hidden,
        )
    return Annotated[list[str] | None if several else str | None, declaration]


def _completion(kind: str) -> Callable[[str], list[tuple[str, str]]]:
    def complete(incomplete: str) -> list[tuple[str, str]]:
        from plastic_cli.commands.completion import completions_for

        return completions_for(kind)(incomplete)

    return complete


def _words(info: FieldInfo) -> Callable[[str], list[str]] | None:
    choices = literal_choices(info)
    if not choices:
        return None
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _help_text(info: FieldInfo) -> str:
    """Return a field's help, and in parentheses its choices, its bounds and its default.

    Typer does not know the default: for Typer it is "not typed".
    """
    text, choices = info.description or "", literal_choices(info)
    unnamed = [word for word in choices if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
    facts = [f"one of {', '.join(choices)}" if unnamed and type_word(info) == "word" else "", bounds_text(info)]
    default = None if info.is_required() else info.default
    if isinstance(default, tuple | list):
        default = ",".join(str(entry) for entry in default) or None
    if isinstance(default, bool):
        default = "on" if default else None
    if default is not None:
        facts.append(f"default: {default:g}" if isinstance(default, float) else f"default: {default}")
    shown = "; ".join(fact for fact in facts if fact)
    if shown and re.search(r"\((default: |or )[^()]*\)$", text):
        return f"{text[:-1]}; {shown})"
    return f"{text} ({shown})" if shown else text
