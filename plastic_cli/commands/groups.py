"""Classes of commands and of groups: `plastic` itself, a verb with the rules as its commands, and `plastic tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from plastic_cli.commands.help import command_help, help_text
from plastic_cli.errors import UserError, did_you_mean
from plastic_cli.escapes import printable_line


class Entry(NamedTuple):
    """A command of `plastic`: one line about it, its panel in the help, and what builds it.

    builder: "module:function", a module of `plastic_cli.commands` and a function of name and line. Listing commands
    imports none of these modules.
    """

    about: str
    panel: str
    builder: str

    def build(self, name: str) -> Any:
        """Build the command."""
        module, function = self.builder.split(":")
        return getattr(import_module(f"plastic_cli.commands.{module}"), function)(name, self.about)


def _convert_typed_only(parameter: Any) -> None:
    """Let Typer convert an option only if it was typed: the library that converts values takes long to import."""
    convert = parameter.process_value
    if getattr(convert, "typed_only", False):
        return

    def process(context: Any, value: Any) -> Any:
        if value not in (None, (), []) or parameter.required:
            return convert(context, value)
        return value if parameter.callback is None else parameter.callback(context, parameter, value)

    process.typed_only = True  # type: ignore[attr-defined]
    parameter.process_value = process


class Command(TyperCommand):
    """A command whose help is drawn without rich."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's options."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            _convert_typed_only(parameter)
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(command_help(self, ctx))


class Group(TyperGroup):
    """A group of commands, with the option --debug that `run_command_line` reads from the arguments."""

    commands_panel = "Commands"

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the group's own options, --debug and --help."""
        *own, last = super().get_params(ctx)
        present = any(parameter.name == "debug" for parameter in own)
        parameters = [*own, *([] if present else [_debug_option()]), last]
        for parameter in parameters:
            _convert_typed_only(parameter)
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: the commands, then the options."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [
            (name, "" if command is None else command.get_short_help_str(200)) for name, command in commands.items()
        ]
        formatter.write(command_help(self, ctx, {self.commands_panel: rows}))


class VerbGroup(Group):
    """A verb: its commands are the installed rules."""

    commands_panel = "Rules"

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the rules, with a warning for every broken plugin."""
        from plastic_cli.plugins.discovery import discover

        plugins = discover()
        _warn_of_broken_plugins()
        return list(plugins.rules)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a placeholder with the rule's summary, for `--help` and completion."""
        from plastic_cli.plugins.discovery import discover

        rule = discover().rules.get(cmd_name)
        return None if rule is None else _placeholder(cmd_name, rule.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of a rule, which imports the rule's commands module."""
        if args and not args[0].startswith("-"):
            _warn_of_broken_plugins()
            return args[0], self.rule_command(args[0]), args[1:]
        return super().resolve_command(ctx, args)

    def rule_command(self, rule: str) -> Any:
        """Build the command of this verb for a rule."""
        from plastic_cli.commands.verbs import rule_command

        return rule_command(str(self.name), rule)


class TuneGroup(VerbGroup):
    """`plastic tune`: its commands are the installed rules, with the options of their train commands."""

    def rule_command(self, rule: str) -> Any:
        """Build the command for a rule."""
        from plastic_cli.commands.tune import tune_command

        return tune_command(rule)


class RootGroup(Group):
    """`plastic` itself. Its commands are the entries of a table, and are imported when one of them is called."""

    entries: dict[str, Entry]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a placeholder with one line about the command, for completion."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else _placeholder(cmd_name, entry.about)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command; raises UserError with the nearest one if it does not exist."""
        if not args or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        name = args[0]
        if name in self.entries:
            return name, self.entries[name].build(name), args[1:]
        from plastic_cli.plugins.discovery import plugin_names

        if name in plugin_names():
            raise UserError(
                f"'{name}' is a rule, not a command. Put a command before it, as in `plastic train {name}`."
            )
        guess = did_you_mean(name, self.entries)
        raise UserError(f"there is no command '{name}'.{guess} `plastic --help` lists the commands.")

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the names of the rules below it."""
        from plastic_cli.plugins.discovery import plugin_names

        panels: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.entries.items():
            panels.setdefault(entry.panel, []).append((name, entry.about))
        panels["Options"] = [
            ("--version", "Show the version."),
            ("--install-completion", "Install shell completion of commands, rules, data sets and runs."),
            ("-h, --help", "Show this help, or that of a command: plastic train RULE --help"),
        ]
        closing = f"Rules: {', '.join(plugin_names())}.  See: plastic train RULE --help"
        formatter.write(help_text("Usage: plastic COMMAND [RULE] [OPTIONS]", str(self.help), panels, closing))


def verb_group(name: str, about: str) -> Any:
    """Build the group of a verb."""
    return group_of(VerbGroup, name, about, show_help)


def tune_group(name: str, about: str) -> Any:
    """Build the group of `plastic tune`."""
    return group_of(TuneGroup, name, about, show_help)


def group_of(
    kind: type[Group], name: str, about: str, without_command: Callable[..., Any], metavar: str = "RULE"
) -> Any:
    """Build a group of commands. without_command: called if no command is typed. metavar: what the help calls one."""
    holder = typer.Typer(
        name=name,
        cls=kind,
        help=about,
        no_args_is_help=False,
        add_completion=False,
        subcommand_metavar=metavar,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    holder.callback(invoke_without_command=True)(without_command)
    return get_command(holder)


def show_help(ctx: typer.Context) -> None:
    """Print the help of a group if it is called without a command."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())  # noqa: T201


def _placeholder(name: str, about: str) -> Any:
    holder = typer.Typer(add_completion=False)
    holder.command(name, help=about)(lambda: None)
    return get_command(holder)


@cache
def _debug_option() -> Any:
    def declare(debug: bool = typer.Option(False, "--debug", help="show the traceback of an error")) -> None:
        pass

    holder = typer.Typer(add_completion=False)
    holder.command()(declare)
    (option,) = (option for option in get_command(holder).params if option.name == "debug")
    option.expose_value = False
    return option


@cache
def _warn_of_broken_plugins() -> None:
    """Warn once per process: click asks for the rules several times."""
    from plastic_cli.plugins.discovery import discover

    for broken in discover().broken:
        line = f"warning: the plugin '{broken.name}' ({broken.distribution}) does not load: {broken.error}"
        print(printable_line(line), file=sys.stderr, flush=True)  # noqa: T201
