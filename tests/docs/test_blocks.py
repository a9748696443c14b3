"""Every block of the documentation is run, or at least resolved; where that cannot be, a table here says why.

The command lines of a listing are run in their order: those of a rule with --dry-run, which resolves every option and
its value. The run that a line would train is then written without training, so that later lines of the listing find it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from unittest import mock

import pytest
from typer.main import get_command

from docs.pages import BLOCKS, PAGES, ROOT, blocks_of, commands_of, inline_commands
from docs.registered import RULE, register
from plastic_cli.app import app
from plastic_cli.commands.new_rule import contents
from plastic_cli.commands.tune import tune_command
from plastic_cli.commands.verbs import rule_command
from plastic_cli.plugins.rule import VERBS
from plastic_cli.reports.claims import read_claims
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.testing import plastic
from plastic_metafa.rule import TERMS

INDENTED = [block for block in BLOCKS if not block.kind]
FENCED = [block for block in BLOCKS if block.kind]

NOT_COMMANDS = {
    ("docs/architecture.md", "plastic_cli/"): "a picture of the tree; its names are checked below",
    ("docs/results.md", "runs/2026"): "a picture of a run's folder",
    ("docs/results.md", '{"stage"'): "lines of a metrics file, one of them shortened; read below",
}
"""Indented blocks that are no command lines, by page and beginning."""

OTHER_PROGRAMS = {
    "pip": "needs a network, or changes this environment; tests/contract installs a plugin with it",
    "python": "an environment of one's own; benchmarks take minutes and have a test of their own",
    ".": "activates that environment",
    "uv": "an installer that need not be here",
    "conda": "an installer that need not be here; activates that environment",
    "mkdocs": "builds the site; tests/docs/test_site.py does that",
    "pytest": "would start these tests again; the ones that a plugin comes with are run in tests/contract",
    ".ci/run": "runs all tests in a fresh environment",
}
"""Programs other than plastic that the pages call, and why the tests do not."""

PARSED_ONLY = {
    "fetch": "downloads data sets; its command line is parsed",
    "tune": "its search makes runs; its command line is parsed",
    "remove": "asks before it deletes; its command line is parsed",
    "slurm": "needs a batch system; its command line is parsed",
}
"""Commands of plastic that are not carried out here."""

PRELUDES = {
    "docs/rules/metafa.md": (
        "import torch\nW, y_pre, y_post, e_pre, e_post = (torch.rand(n) for n in ((3, 5), (5,), (3,), (5,), (3,)))\n"
        "theta = torch.tensor([0.01, 0.001])\n"
    ),
    "docs/rules/mpn.md": "import torch\nobs, x, M = torch.rand(1, 4), torch.rand(1, 10), torch.zeros(1, 100, 10)\n",
}
"""What a listing takes for granted, by page."""

SESSIONS = ("docs/python.md", "docs/any-network.md")
"""Pages whose listings belong together: they are run one after the other, as the cells of a notebook."""


FILES_WRITTEN = ("docs/writing-a-rule.md", "docs/exporters.md", "docs/rules/metafa.md")
"""Pages with listings that are files."""


def named(commands):
    return sorted({str(command): command for command in commands}.items())


def is_picture(block):
    return any(page == block.page and block.text.startswith(begin) for page, begin in NOT_COMMANDS)


SHELL = [block for block in INDENTED if not is_picture(block)]
SHELL += [block for block in FENCED if block.language in ("bash", "sh", "console")]
ALL = [command for block in SHELL for command in commands_of(block)]
LISTINGS = [block for block in SHELL if any(command.words[0] == "plastic" for command in commands_of(block))]
INLINE = named(command for path in PAGES for command in inline_commands(path))


def test_the_pages_show_something():
    assert sum(command.words[0] == "plastic" for command in ALL) > 50
    assert len(INLINE) > 10
    assert len(FENCED) > 10


@pytest.mark.parametrize("command", [command for command in ALL if command.words[0] != "plastic"], ids=str)
def test_another_program_is_one_that_we_know(command):
    assert command.words[0] in OTHER_PROGRAMS, f"{command.page}: {command}"
    if command.words[0] == "python" and command.words[1].startswith("benchmarks/"):
        assert (ROOT / command.words[1]).is_file()


def test_the_tables_name_nothing_that_is_gone():
    assert {command.words[0] for command in ALL} >= set(OTHER_PROGRAMS)
    for page, begin in NOT_COMMANDS:
        assert any(block.page == page and block.text.startswith(begin) for block in INDENTED), (page, begin)
    assert {block.page for block in FENCED if block.language == "python"} >= set(PRELUDES)


@pytest.mark.parametrize("block", LISTINGS, ids=str)
def test_the_command_lines_of_a_listing_work_in_their_order(block, place, make_run, request, monkeypatch, tiny_data):
    (place / "path/to").mkdir(parents=True)
    (place / "path/to/folder").symlink_to(tiny_data)
    commands = [command for command in commands_of(block) if command.words[0] == "plastic"]
    for command in commands:
        if RULE in command.words and command.words[1] != "new-rule":
            request.getfixturevalue("documented_rule")
        with monkeypatch.context() as variables:
            for variable in command.variables:
                variables.setenv(*variable.split("=", 1))
            _carry_out(command, place, make_run)


def _carry_out(command, place, make_run):
    """Carry out one command line of `plastic`, and write the run that it would train."""
    words = list(command.words[1:])
    if set(words) & set(PARSED_ONLY):
        options_of(words).make_context("plastic", arguments_of(words))
        return
    rule = words[1] if words[0] in VERBS else "backprop"
    if "--resume" in words:
        make_run(rule, status="interrupted")
    elif "--combinations" in words:
        for model in ("lenet", "resnet18"):
            for other in ("backprop", "feedback"):
                make_run(other, options={"model": model, "optimizer": "adam"})
    elif words[0] in ("report", "runs", "plot", "compare"):
        make_run(rule)
        make_run("grlu")
    if words[:2] == ["sweep", "mine.toml"]:
        (place / "mine.toml").write_text(plastic("recipes", "backprop-quick").out)
    elif "mine.toml" in words:
        (place / "mine.toml").write_text(plastic("train", rule, "--dry-run").out)
    if words[0] in (*VERBS, "sweep", "verify") and "--dry-run" not in words and "--help" not in words:
        words.append("--dry-run")
    outcome = plastic(*words)
    assert outcome.code == 0, f"{command.page}: {command}\n{outcome.err}"
    if outcome.out.startswith("# plastic train"):
        name = words[words.index("--name") + 1] if "--name" in words else None
        make_run(rule, options=tomllib.loads(outcome.out), name=name)


@pytest.mark.parametrize("command", [command for _, command in INLINE], ids=str)
def test_what_the_text_says_of_a_command_is_true(command, request):
    words = [word.replace("RULE", "grlu") for word in command.words[1:]]
    if "|" in words:
        words = [word for word in words if word != "|" and word not in ("eval", "analyze", "render")]
    if RULE in words:
        request.getfixturevalue("documented_rule")
    parameters = options_of(words).params
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, f"{command.page}: {command}"


def options_of(words):
    """The command that the words name, as Typer sees it; raises where there is none."""
    group = get_command(app)
    if not words or words[0].startswith("-"):
        return group
    if words[0] in VERBS and len(words) > 1 and not words[1].startswith("-"):
        return rule_command(words[0], words[1])
    if words[0] == "tune" and len(words) > 1 and not words[1].startswith("-"):
        return tune_command(words[1])
    command = group.resolve_command(None, list(words[:1]))[1]
    inner = getattr(command, "commands", {})
    return inner[words[1]] if len(words) > 1 and words[1] in inner else command


def arguments_of(words):
    """The words behind the command's name."""
    return list(words[2:]) if words[0] in (*VERBS, "tune", "runs") else list(words[1:])


@pytest.mark.parametrize("block", FENCED, ids=str)
def test_a_listing_works(block, place, make_run, monkeypatch):
    if block.file is not None:
        assert block.page in FILES_WRITTEN, "a file that no test writes"
    elif block.language == "python" and block.page not in SESSIONS:
        run = make_run("grlu")
        assert run
        for shown in FENCED:
            if shown.page == block.page and shown.file == "my_terms.py":
                (place / shown.file).write_text(shown.text)
                monkeypatch.syspath_prepend(place)
                monkeypatch.delitem(sys.modules, "my_terms", raising=False)
        with mock.patch.dict(TERMS):  # a listing adds a term, which no later test should find
            exec(compile(PRELUDES.get(block.page, "") + block.text, str(block), "exec"), {})
    elif block.language == "toml":
        values = tomllib.loads(block.text)
        if "claim" in values:
            assert read_claims("example", block.text).claims
        if "title" in values:
            (place / "recipe.toml").write_text(block.text)
            assert plan_recipe(read_recipe(str(place / "recipe.toml")))
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "bibtex":
        assert re.match(r"@\w+\{\w+,\n", block.text)
        assert block.text.count("{") == block.text.count("}")
    else:
        assert block.language in ("bash", "sh", "console", "python"), f"{block}: say what language it is"


@pytest.mark.parametrize("page", SESSIONS)
def test_the_listings_of_a_session_work_one_after_the_other(page, place):
    names = {}
    for block in [block for block in FENCED if block.page == page and block.language == "python"]:
        exec(compile(block.text, str(block), "exec"), names)
    assert names["runs"]


# ------------------------------------------------------------------------------------------------- page by page


def test_the_page_on_writing_a_rule_shows_what_is_written():
    shown = {block.file: block.text for block in blocks_of(ROOT / "docs/writing-a-rule.md") if block.file}
    files = contents(RULE)
    assert len(shown) == 8
    assert shown == {name: files[name] for name in shown}


def test_the_page_on_writing_a_rule_ends_with_a_row_in_the_report(documented_rule, place):
    page = (ROOT / "docs/writing-a-rule.md").read_text(encoding="utf-8")
    blocks = [block for block in INDENTED if block.page == "docs/writing-a-rule.md"]
    commands = [command for block in blocks for command in commands_of(block)]
    ours = [
        command
        for command in commands
        if command.words[0] == "plastic" and command.words[1] not in ("new-rule", "tune")
    ]
    assert [command.words[1] for command in ours] == [
        *("train", "train", "report", "eval", "analyze", "render", "train")
    ]
    for command in ours:
        outcome = plastic(*command.words[1:], *(["--quiet"] if command.words[1] in VERBS else []))
        assert outcome.code == 0, f"{command}\n{outcome.err}"
    # The page shows the report before the last command, with which there is another rule.
    report = plastic("report", "--rule", "alignment", "--format", "markdown", "--table", "results").out
    for shown in re.findall(r"^\| alignment \|.*$", page, re.MULTILINE):
        setting = [cell.strip() for cell in shown.split("|")[1:5]]
        [row] = [line for line in report.splitlines() if [cell.strip() for cell in line.split("|")[1:5]] == setting]
        numbers, measured = (
            [float(number) for number in re.findall(r"[\d.]+", line.split("|")[5])] for line in (shown, row)
        )
        # Another machine may come to another digit or two of 360.
        assert measured == pytest.approx(numbers, abs=2.0), shown


def test_the_exporter_that_is_shown_works(place, tmp_path, monkeypatch, tiny_data):
    shown = {block.file: block.text for block in blocks_of(ROOT / "docs/exporters.md") if block.file}
    entries = tomllib.loads(shown["pyproject.toml"])["project"]["entry-points"]["plastic"]
    assert entries == {"export-journal": "plastic_journal"}
    site = tmp_path / "site"
    register(site, "journal", "export-journal", "plastic_journal")
    (site / "plastic_journal.py").write_text(shown["plastic_journal.py"])
    monkeypatch.syspath_prepend(site)
    outcome = plastic(
        *("train", "backprop", "--dataset", tiny_data, "--hidden", 4, "--epochs", 1, "--export", "journal", "--json")
    )
    assert outcome.code == 0, outcome.err
    result = outcome.results[0]
    accuracy = result["metrics"]["test/accuracy"]
    assert (place / "journal.txt").read_text() == f"{result['run']} backprop completed {accuracy}\n"


def test_the_hooks_that_are_shown_are_those_that_there_are():
    from plastic_cli.plugins.hooks import HookSpecifications

    text = (ROOT / "docs/exporters.md").read_text(encoding="utf-8")
    found = re.findall(r"`(plastic_\w+)\((.*?)\)`", text)
    shown = {name: arguments.split(", ") if arguments else [] for name, arguments in found}
    there = {
        name: list(hook.__code__.co_varnames[1 : hook.__code__.co_argcount])
        for name, hook in vars(HookSpecifications).items()
        if name.startswith("plastic_") and name != "plastic_rule"
    }
    assert shown == there


def test_the_metrics_that_are_shown_can_be_read():
    from plastic_cli.runs.metrics import parse_rows

    [block] = [block for block in INDENTED if block.text.startswith('{"stage"')]
    rows, damaged = parse_rows(block.text.replace("...", "1.0").encode())
    assert (len(rows), damaged) == (2, 0)


def test_the_tree_that_is_shown_is_the_tree():
    [block] = [block for block in INDENTED if block.text.startswith("plastic_cli/")]
    folder = ROOT
    parents = [ROOT]
    for line in block.text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"((?:[\w.]+(?:\.py|/) ?)+)", line.lstrip())
        if names is None or depth > 2:
            continue
        for name in names[1].split():
            folder = parents[min(depth, len(parents) - 1)] / name
            assert folder.exists(), f"docs/architecture.md: {name}"
        if name.endswith("/"):
            parents[depth + 1 :] = [folder]
