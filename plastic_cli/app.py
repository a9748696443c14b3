"""The Typer app: verbs and rules, put together when they are needed.

Listing verbs costs no plugin, listing rules costs the light registration of each, and a rule's options cost its
commands module; torch, pandas and matplotlib are imported by a command that runs.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from plastic_cli.errors import PlasticError, UserError, did_you_mean, match_choice
from plastic_cli.escapes import printable, printable_line
from plastic_cli.signals import INTERRUPTED, leave, leave_on_signals

WITH_A_RULE = "Work with a rule"
MANY_RUNS = "Make many runs"
RUNS_HELP = "folder of the runs"
VERB_HELP = {
    "train": "Learn; makes a run.",
    "eval": "Measure a trained run, on its own or on other data.",
    "analyze": "Look inside a trained run.",
    "render": "Show a trained run as pictures and a GIF.",
}


class _Debug:
    """Gives a command the option --debug, which `run_command_line` reads from the arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own options, --debug and --help."""
        *own, last = super().get_params(ctx)  # type: ignore[misc]
        return [*own, _debug_option(), last]


@cache
def _debug_option() -> Any:
    def stand_in(debug: bool = typer.Option(False, "--debug", help="show the traceback of an error")) -> None:
        pass

    holder = typer.Typer(add_completion=False)
    holder.command()(stand_in)
    (option,) = (option for option in get_command(holder).params if option.name == "debug")
    option.expose_value = False
    return option


class Command(_Debug, TyperCommand):
    """A command of the toolkit."""


class Group(_Debug, TyperGroup):
    """A group of commands of the toolkit."""


class RuleGroup(Group):
    """A verb: its commands are the installed rules."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the rules, warning of every plugin that is broken."""
        from plastic_cli.plugins.discovery import discover

        plugins = discover()
        _warn_of_broken_plugins()
        return list(plugins.rules)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in that only carries the rule's summary, for `--help`."""
        from plastic_cli.plugins.discovery import discover

        rule = discover().rules.get(cmd_name)
        if rule is None:
            return None
        stand_in = typer.Typer(add_completion=False)
        stand_in.command(cmd_name, help=rule.summary)(lambda: None)
        return get_command(stand_in)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command, which imports the rule's commands module."""
        if args and not args[0].startswith("-"):
            _warn_of_broken_plugins()
            return args[0], self.rule_command(args[0]), args[1:]
        return super().resolve_command(ctx, args)

    def rule_command(self, rule: str) -> Any:
        """Build the command of this verb for a rule."""
        from plastic_cli.commands.verbs import rule_command

        return rule_command(str(self.name), rule)


class TuneGroup(RuleGroup):
    """`plastic tune`: its commands are the installed rules, with the options of their train commands."""

    def rule_command(self, rule: str) -> Any:
        """Build the command for a rule."""
        from plastic_cli.commands.tune import tune_command

        return tune_command(rule)


class RootGroup(Group):
    """The command itself: an unknown verb gets the nearest one, and a rule's name in its place a hint."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help in panels, without rich, whose help module takes longer to import than all else here."""
        from plastic_cli.commands.overview import overview

        panels: dict[str, list[tuple[str, str]]] = {WITH_A_RULE: []}
        for name, command in self.commands.items():
            panels.setdefault(str(getattr(command, "rich_help_panel", "Commands")), []).append(
                (name, command.get_short_help_str(200))
            )
        panels["Options"] = [
            ("--version", "Show the version."),
            ("--install-completion", "Install completion of commands, rules, data sets and runs for this shell."),
            ("-h, --help", "Show this, or the help of a command: plastic train RULE --help"),
        ]
        formatter.write(overview(str(self.help), panels, _epilog()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from plastic_cli.plugins.discovery import plugin_names

            if args[0] in plugin_names():
                raise UserError(f"'{args[0]}' is a rule: say what to do with it, as in `plastic train {args[0]}`.")
            guess = did_you_mean(args[0], self.commands)
            raise UserError(f"there is no command '{args[0]}'.{guess} `plastic --help` lists the commands.")
        return super().resolve_command(ctx, args)


def _epilog() -> str:
    from plastic_cli.plugins.discovery import plugin_names

    return f"Rules: {', '.join(plugin_names())}.  See: plastic train RULE --help"


app = typer.Typer(
    name="plastic",
    cls=RootGroup,
    help="Train, evaluate, analyse and render biologically plausible learning rules.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Show the help where nothing is asked for."""
    if version:
        from plastic_cli.distribution import installed_version

        print(f"plastic {installed_version()}")  # noqa: T201
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())  # noqa: T201


def _verb(name: str) -> None:
    group = typer.Typer(cls=RuleGroup, help=VERB_HELP[name], no_args_is_help=False)
    group.callback(invoke_without_command=True)(_show_rules)
    app.add_typer(group, name=name, subcommand_metavar="RULE [OPTIONS]", rich_help_panel=WITH_A_RULE)


def _show_rules(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())  # noqa: T201


for _name in VERB_HELP:
    _verb(_name)

tune_app = typer.Typer(
    cls=TuneGroup, help="Search for a rule's best options, on validation images.", no_args_is_help=False
)
tune_app.callback(invoke_without_command=True)(_show_rules)


def _runs_folder_option() -> Any:
    return typer.Option("--runs", help=RUNS_HELP, envvar="PLASTIC_RUNS", metavar="<path>")


def _complete_run(incomplete: str) -> list[tuple[str, str]]:
    from plastic_cli.commands.completion import runs

    return runs(incomplete)


def _complete_rule(incomplete: str) -> list[str]:
    from plastic_cli.plugins.discovery import plugin_names

    return [name for name in plugin_names() if name.startswith(incomplete)]


def _complete_exporter(incomplete: str) -> list[tuple[str, str]]:
    from plastic_cli.commands.completion import exporters

    return exporters(incomplete)


def _complete_dataset(incomplete: str) -> list[tuple[str, str]]:
    from plastic_cli.commands.completion import datasets

    return datasets(incomplete)


def _one_of(*choices: str) -> Any:
    """Return the callback of an option that is one of `choices`, whatever the case of its letters."""

    def check(context: typer.Context, parameter: Any, value: str | None) -> str | None:  # noqa: ARG001
        if value is None:
            return None
        matched = match_choice(value, choices)
        if matched not in choices:
            raise UserError(f"{parameter.opts[0]} {value}: choose {', '.join(choices)}.{did_you_mean(value, choices)}")
        return matched

    return check


def _whole(text: Any) -> int:
    """Read a whole number, which may be written as 1e3."""
    from plastic_cli.config.parsing import whole_number

    try:
        return int(whole_number(str(text)))
    except ValueError:
        raise typer.BadParameter(f"{text or repr(text)} is no whole number") from None


def _rule_as_named(value: Any) -> Any:
    """Return rules by their names, whatever the case of the letters."""
    from plastic_cli.plugins.discovery import plugin_names

    if isinstance(value, list):
        return [match_choice(name, plugin_names()) for name in value]
    return None if value is None else match_choice(value, plugin_names())


def _dataset_as_named(value: str | None) -> str | None:
    from plastic_cli.data.catalogue import known_dataset

    return None if value is None else known_dataset(value) or value


RunsFolder = Annotated[Path, _runs_folder_option()]
RunsFolderAgain = Annotated[Path | None, typer.Option("--runs", help=RUNS_HELP, metavar="<path>")]
"""Of a command below `plastic runs`, which has read the environment already."""
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="table, markdown, csv or json",
        metavar="<format>",
        callback=_one_of("table", "markdown", "csv", "json"),
    ),
]
Json = Annotated[bool, typer.Option("--json", help="the same as --format json")]
OnlyRule = Annotated[
    str | None,
    typer.Option(
        "--rule", help="only this rule", metavar="<rule>", autocompletion=_complete_rule, callback=_rule_as_named
    ),
]
OnlyDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="only this data set",
        metavar="<name>",
        autocompletion=_complete_dataset,
        callback=_dataset_as_named,
    ),
]
ReportFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="table, markdown, latex, csv or json",
        metavar="<format>",
        callback=_one_of("table", "markdown", "latex", "csv", "json"),
    ),
]


def _complete_recipe(incomplete: str) -> list[str]:
    from plastic_cli.commands.completion import recipes

    return recipes(incomplete)


RecipeName = typer.Argument(
    metavar="RECIPE", help="name (`plastic recipes` lists them) or file", autocompletion=_complete_recipe
)
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="folder of the data sets", envvar="PLASTIC_DATA", metavar="<path>")
]


@app.command(cls=Command, rich_help_panel=MANY_RUNS)
def sweep(
    recipe: Annotated[str, RecipeName],
    workers: Annotated[
        int | None, typer.Option(help="runs at once (default: one for every two cores)", metavar="<int>", parser=_whole)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="address of a Dask scheduler, or slurm, pbs, sge, lsf, htcondor (default: this machine)",
            metavar="<text>",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="number of seeds, in place of the number in the recipe", metavar="<int>", parser=_whole),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="only the runs of this rule, or these",
            metavar="<rule>",
            autocompletion=_complete_rule,
            callback=_rule_as_named,
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="only the runs with NAME=VALUE, or NAME=VALUE,VALUE", metavar="<text>")
    ] = None,
    retry: Annotated[
        int, typer.Option(help="times that a failed run is tried again", metavar="<int>", parser=_whole)
    ] = 0,
    timeout: Annotated[float | None, typer.Option(help="seconds that one run may take", metavar="<float>")] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going/--stop-at-failure",
            " /--no-keep-going",
            help="go on when a run has failed, or stop (also --no-keep-going)",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs, what is done and left, and stop")] = False,
    runs: RunsFolder = Path("runs"),
    data: DataFolder = None,
    format: Format = "table",  # noqa: A002
    json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="no progress, and only the folders of runs at the end")
    ] = False,
) -> None:
    """Carry out a recipe: every run of it that is not in the store yet."""
    from plastic_cli.commands.sweep import SweepOptions
    from plastic_cli.commands.sweep import sweep as carry_out

    options = SweepOptions(
        runs=runs,
        data=data,
        workers=workers,
        scheduler=scheduler,
        retry=retry,
        timeout=timeout,
        keep_going=keep_going,
        dry_run=dry_run,
        format="json" if json else format,
        quiet=quiet,
    )
    carry_out(recipe, options, seeds=seeds, rules=rule or [], values=only or [])


app.add_typer(tune_app, name="tune", subcommand_metavar="RULE [OPTIONS]", rich_help_panel=MANY_RUNS)


@app.command(cls=Command, rich_help_panel=MANY_RUNS)
def recipes(
    recipe: Annotated[str | None, RecipeName] = None,
    runs: RunsFolder = Path("runs"),
    data: DataFolder = None,
    rule: OnlyRule = None,
    format: Format = "table",  # noqa: A002
    json: Json = False,
) -> None:
    """List the recipes that come with plastic, or show one."""
    from plastic_cli.commands.recipes import list_recipes, show_recipe

    if recipe is not None:
        show_recipe(recipe)
    else:
        list_recipes(runs, rule=rule, data=data, format="json" if json else format)


@app.command(cls=Command, rich_help_panel="See what is here")
def report(
    runs: RunsFolder = Path("runs"),
    rule: OnlyRule = None,
    dataset: OnlyDataset = None,
    status: Annotated[str, typer.Option(help="only runs of this status, or all", metavar="<status>")] = "completed",
    table: Annotated[str, typer.Option(help="results, claims or all", metavar="<table>")] = "all",
    format: ReportFormat = "table",  # noqa: A002
    json: Json = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="how the settings compare: interquartile means, who beats whom")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="also write tables and figures into this folder", metavar="<path>")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="also write all of it as one page into this folder", metavar="<path>")
    ] = None,
) -> None:
    """Compare all runs, with intervals, beside what was published."""
    from plastic_cli.commands.report import report as show
    from plastic_cli.report.options import ReportOptions

    options = ReportOptions(
        runs=runs,
        rule=rule,
        dataset=dataset,
        status=status,
        table=table,
        format="json" if json else format,
        compare=compare,
        output=output,
        html=html,
    )
    show(options)


runs_app = typer.Typer(cls=Group, help="List, show, remove and export runs.", no_args_is_help=False)
app.add_typer(runs_app, name="runs", rich_help_panel="See what is here")


@runs_app.callback(invoke_without_command=True)
def runs_list(
    ctx: typer.Context,
    runs: RunsFolder = Path("runs"),
    rule: OnlyRule = None,
    dataset: OnlyDataset = None,
    status: Annotated[
        str | None,
        typer.Option(help="only completed, running, failed, interrupted or crashed ones", metavar="<status>"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="only names or ids that begin like this", metavar="<text>")] = None,
    last: Annotated[
        int | None,
        typer.Option(help="only so many of the newest (default: 50; all in csv and json)", metavar="<int>"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all runs, however many")] = False,
    format: Format = "table",  # noqa: A002
    json: Json = False,
) -> None:
    """List runs, the newest last; `show` and `remove` work on one."""
    ctx.obj = runs
    if ctx.invoked_subcommand is None:
        from plastic_cli.commands.runs import list_runs

        list_runs(
            runs,
            rule=rule,
            dataset=dataset,
            status=status,
            name=name,
            format="json" if json else format,
            last=last,
            everything=everything,
        )


RunArgument = Annotated[str, typer.Argument(help="id, a unique beginning of it, or name", autocompletion=_complete_run)]


@runs_app.command("show", cls=Command)
def runs_show(
    run: RunArgument,
    runs: RunsFolderAgain = None,
    format: Format = "table",  # noqa: A002
    json: Json = False,
    *,
    ctx: typer.Context,
) -> None:
    """Show one run whole: configuration, results, files."""
    from plastic_cli.commands.runs import show_run

    show_run(runs or ctx.obj, run, format="json" if json else format)


@runs_app.command("remove", cls=Command)
def runs_remove(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="ids or names", autocompletion=_complete_run)],
    runs: RunsFolderAgain = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    *,
    ctx: typer.Context,
) -> None:
    """Delete runs, after asking."""
    from plastic_cli.commands.runs import remove_runs

    remove_runs(runs or ctx.obj, names, yes=yes)


@runs_app.command("export", cls=Command)
def runs_export(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="names of exporters with commas, such as tensorboard",
            metavar="<name,...>",
            autocompletion=_complete_exporter,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]", help="ids or names (default: all that are finished)", autocompletion=_complete_run
        ),
    ] = None,
    runs: RunsFolderAgain = None,
    *,
    ctx: typer.Context,
) -> None:
    """Write the metrics of runs for other programs."""
    from plastic_cli.commands.runs import export_runs

    export_runs(runs or ctx.obj, names or [], to=to)


@app.command(cls=Command, rich_help_panel="See what is here")
def rules(format: Format = "table", json: Json = False) -> None:  # noqa: A002
    """List the installed rules and where each comes from."""
    from plastic_cli.commands.rules import list_rules

    list_rules(format="json" if json else format)


@app.command(cls=Command, rich_help_panel="See what is here")
def data(
    folder: Annotated[
        Path | None,
        typer.Option("--data", help="folder of the data sets", envvar="PLASTIC_DATA", metavar="<path>"),
    ] = None,
    format: Format = "table",  # noqa: A002
    json: Json = False,
) -> None:
    """List the data sets, which of them are here, their size and licence."""
    from plastic_cli.commands.data import data as show

    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--data {folder}: it is no folder.")
    show(folder, "json" if json else format)


@app.command("new-rule", cls=Command, rich_help_panel="Write a rule")
def new_rule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="what the rule is called on the command line")],
    folder: Annotated[
        Path, typer.Option("--folder", help="where its folder plastic-NAME is made", metavar="<path>")
    ] = Path(),
) -> None:
    """Write a working rule as a plugin of its own, to put yours in its place."""
    from plastic_cli.commands.new_rule import new_rule as write

    write(name, folder)


@app.command(cls=Command, rich_help_panel="See what is here")
def doctor(runs: RunsFolder = Path("runs"), format: Format = "table", json: Json = False) -> None:  # noqa: A002
    """Check this installation: versions, devices, plugins, folders."""
    from plastic_cli.commands.doctor import examine

    examine(runs, format="json" if json else format)


@cache
def _warn_of_broken_plugins() -> None:
    """Once in a process: click asks for the rules several times."""
    from plastic_cli.plugins.discovery import discover

    for broken in discover().broken:
        _say(f"warning: the plugin '{broken.name}' ({broken.distribution}) does not load: {broken.error}")


def _say(line: str) -> None:
    print(printable_line(line), file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Run the command line and exit."""
    leave_on_signals()
    for name in ("stdin", "stdout", "stderr"):
        # Whoever closed it wants nothing of it.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8, or that the terminal's encoding lacks, is shown by its code.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A notebook tells its programs to draw inside itself; what is drawn here goes into files.
    os.environ["MPLBACKEND"] = "agg"
    try:
        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        # It came while an error or the end was told.
        code = INTERRUPTED
    leave(code)


def run_command_line(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 it failed, 2 wrong usage or input, 130 interrupted.

    An error that a person can cause is one line on stderr; with `--debug` its traceback comes before it.
    """
    stdout = sys.stdout
    try:
        code = get_command(app).main(arguments, prog_name="plastic", standalone_mode=False)
        # Here, where a closed pipe is still caught, and not when Python ends.
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_closed_pipe(stdout)
    except SystemExit:
        # The answer of Typer to a closed pipe, by which it replaces stdout, or of rich, which leads it nowhere; the
        # other one is the end of a completion.
        if sys.stdout is stdout and not _leads_nowhere(stdout):
            raise
        return _leave_closed_pipe(stdout)
    except (PlasticError, typer.TyperException, OSError) as error:
        if "--debug" in arguments:
            sys.stderr.write(printable(traceback.format_exc(), keep="\n\t"))
        _say(f"error: {_one_line(error)}")
        return int(getattr(error, "exit_code", 1))


def _leads_nowhere(stream: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), Path(os.devnull).stat())
    except (OSError, ValueError):
        return False


def _leave_closed_pipe(stdout: TextIO) -> int:
    """Whoever read our output has seen enough; a complaint when Python ends would only be noise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
    if not isinstance(error, typer.TyperException):
        return str(error)
    context: Any = getattr(error, "ctx", None)
    mistyped = getattr(error, "option_name", None)
    if mistyped is not None and context is not None:
        options = [option for parameter in context.command.params for option in parameter.opts]
        message = f"there is no option '{mistyped}'.{did_you_mean(mistyped, options)}"
    else:
        message = " ".join(error.format_message().split())
        message += "" if message.endswith((".", "?", "!")) else "."
    return message + (f" See `{context.command_path} --help`." if context is not None else "")


if __name__ == "__main__":
    main()
