"""The command line: the table of commands, and the exit code of each.

Listing commands imports none of them. Listing rules imports the light registration of each plugin, and the help of a
rule imports its commands module. Only a command that runs imports torch, pandas or matplotlib.
"""

from __future__ import annotations

import gc
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.main import get_command

from plastic_cli.commands.groups import Entry, RootGroup, show_help
from plastic_cli.errors import FormerName, PlasticError
from plastic_cli.escapes import printable, printable_line
from plastic_cli.signals import INTERRUPTED, leave, leave_on_signals

WITH_A_RULE, MANY_RUNS, INSPECT, WRITE = "Work with a rule", "Make many runs", "Inspect", "Write a rule"

RootGroup.entries = {
    "train": Entry("Train a rule and store the result as a run.", WITH_A_RULE, "groups:verb_group"),
    "eval": Entry("Evaluate a trained run on any data set or task.", WITH_A_RULE, "groups:verb_group"),
    "analyze": Entry(
        "Analyze what a trained run, or a network of your own, has learned.", WITH_A_RULE, "network:analyze_group"
    ),
    "render": Entry("Draw a trained run as pictures and an animation.", WITH_A_RULE, "groups:verb_group"),
    "sweep": Entry("Run every part of a recipe that has not been run yet.", MANY_RUNS, "sweep:command"),
    "tune": Entry("Search for the best options of a rule on validation data.", MANY_RUNS, "groups:tune_group"),
    "verify": Entry("Run recipes again and check the results against the reference.", MANY_RUNS, "verify:command"),
    "recipes": Entry("List the recipes that come with plastic, or show one.", MANY_RUNS, "recipes:command"),
    "report": Entry(
        "Summarize all runs with confidence intervals and compare them with published results.",
        INSPECT,
        "report:command",
    ),
    "runs": Entry("List, show, remove and export runs.", INSPECT, "runs:command"),
    "compare": Entry("Compare runs side by side, or one run with the reference.", INSPECT, "compare:command"),
    "plot": Entry("Draw learning curves or final values of chosen runs.", INSPECT, "plot:command"),
    "rules": Entry("List the installed rules and their origin.", INSPECT, "rules:command"),
    "data": Entry("List the data sets, their size and license, or download them.", INSPECT, "data:command"),
    "cite": Entry("Print BibTeX of rules and of plastic.", INSPECT, "cite:command"),
    "doctor": Entry("Check this installation: versions, devices, plugins, folders.", INSPECT, "doctor:command"),
    "new-rule": Entry("Create a working plugin to turn into your own rule.", WRITE, "new_rule:command"),
}

app = typer.Typer(
    name="plastic",
    cls=RootGroup,
    help="Train, evaluate, analyze and render biologically plausible learning rules.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Show the version, or the help if there is no command."""
    if version:
        from plastic_cli.distribution import installed_version

        print(f"plastic {installed_version()}")  # noqa: T201
        raise typer.Exit
    show_help(ctx)


def main() -> None:
    """Run the command line and exit."""
    leave_on_signals()
    for name in ("stdin", "stdout", "stderr"):
        # A stream that was closed before the program started.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8, or that the terminal's encoding lacks, is shown by its code.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A notebook sets a backend that draws into the notebook; figures of this program go into files.
    os.environ["MPLBACKEND"] = "agg"
    try:
        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C arrived while an error was printed.
        code = INTERRUPTED
    if not gc.isenabled():
        # No command ran: all objects come from imports, and need no collection when Python ends.
        gc.freeze()
    leave(code)


def run_command_line(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.

    An expected error is one line on stderr; with `--debug` its traceback comes before it.
    """
    stdout = sys.stdout
    try:
        with _former_names_as_notices(quiet="--quiet" in arguments or "--json" in arguments):
            code = get_command(app).main(arguments, prog_name="plastic", standalone_mode=False)
        # Flushed here, where a closed pipe is handled, and not when Python ends.
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        _print_error("interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_closed_pipe(stdout)
    except SystemExit:
        # Typer exits at a closed pipe after replacing stdout, rich after redirecting it to nowhere; shell completion
        # exits as well.
        if sys.stdout is stdout and not _is_null(stdout):
            raise
        return _leave_closed_pipe(stdout)
    except (PlasticError, typer.TyperException, OSError) as error:
        if "--debug" in arguments:
            import traceback

            sys.stderr.write(printable(traceback.format_exc(), keep="\n\t"))
        _print_error(f"error: {_one_line(error, arguments)}")
        return int(getattr(error, "exit_code", 1))


@contextmanager
def _former_names_as_notices(*, quiet: bool) -> Iterator[None]:
    """Show each warning about a former name of an option once, as one line on stderr, unless a program reads stdout."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, FormerName):
            before(message, category, *place, **more)
        elif not quiet and str(message) not in shown:
            shown.add(str(message))
            _print_error(f"note: {message}")

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", FormerName)
        yield


def _print_error(line: str) -> None:
    print(printable_line(line), file=sys.stderr, flush=True)  # noqa: T201


def _is_null(stream: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), Path(os.devnull).stat())
    except (OSError, ValueError):
        return False


def _leave_closed_pipe(stdout: TextIO) -> int:
    """End without an error: the reader of the output has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    return 0


def _one_line(error: Exception, arguments: Sequence[str]) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
    if not isinstance(error, typer.TyperException):
        return str(error)
    context: Any = getattr(error, "ctx", None)
    message = _about_words(error, context, arguments) if context is not None else ""
    if not message:
        message = " ".join(error.format_message().split())
        message += "" if message.endswith((".", "?", "!")) else "."
    return message + (f" See `{context.command_path} --help`." if context is not None else "")


_EXTRA_WORDS = re.compile(r"unexpected extra argument(?:\(s\)|s?) \((.*)\)")


def _about_words(error: Exception, context: Any, arguments: Sequence[str]) -> str:
    """Return what is wrong with an option that does not exist, or with a word too many; "" for other errors."""
    from plastic_cli.config.other_words import similar_option

    options = [
        option
        for parameter in context.command.params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("-")
    ]
    published = getattr(context.command, "published_names", None)
    mistyped = getattr(error, "option_name", None)
    if mistyped is not None:
        # Of "-epochs", a word with one hyphen, only "-e" is reported.
        whole = (word.partition("=")[0] for word in arguments if word.startswith(mistyped) and len(mistyped) == 2)
        mistyped = next(whole, mistyped)
        return f"there is no option '{mistyped}'.{similar_option(mistyped, options, published)}"
    words = _EXTRA_WORDS.search(str(error))
    if words is None:
        return ""
    name, equals, value = words[1].split()[0].partition("=")
    if not equals:
        return f"'{words[1]}' is not expected here."
    guess = similar_option(name, options, published)
    takes_value = value and not any(
        f"'{option}'" in guess and getattr(parameter, "is_flag", False)
        for parameter in context.command.params
        for option in parameter.opts
    )
    return f"'{words[1]}' is not an option." + (guess.replace("'?", f" {value}'?") if takes_value else guess)


if __name__ == "__main__":
    main()
