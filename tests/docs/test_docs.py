"""What the documentation shows works: commands exist, listings run, recipes are what the claims ask for."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

from plastic_cli.commands.verbs import config_model, rule_command
from plastic_cli.config import read_toml
from plastic_cli.plugins import discover, find_rule
from plastic_cli.report.claims import read_claims
from plastic_cli.rule import VERBS
from plastic_cli.testing import plastic

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "recipes/README.md",
]
LISTING = re.compile(r"```\w+ file=(\S+)\n(.*?)```", re.DOTALL)


def commands_on(page):
    """The command lines of `plastic` in the indented blocks of a page, without their remarks."""
    for line in page.read_text(encoding="utf-8").splitlines():
        for part in line.split("&&"):
            found = re.match(r"(?:    )?\s*plastic (.*?)(?:\s{2,}#.*)?$", part)
            if line.startswith("    ") and found:
                yield found[1].split(" > ")[0].strip()


COMMANDS = sorted({command for page in PAGES for command in commands_on(page)})


def test_the_pages_show_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_exists(command):
    words = shlex.split(command)
    if words[0] in VERBS:
        if words[1] not in discover().rules:
            assert words[1] == "oja", "the rule of the page on writing one"
            return
        known = {option for parameter in rule_command(words[0], words[1]).params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} - {"--help"} <= known
    else:
        shown = plastic(words[0], "--help")
        assert shown.code == 0
        assert all(word in shown.out for word in words if word.startswith("--"))


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_rule_has_a_page_and_a_row_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in discover().rules:
        assert (ROOT / f"docs/rules/{name}.md").exists()
        assert f"| `{name}` |" in readme


def test_the_rule_of_the_page_on_writing_one_works(tmp_path):
    files = LISTING.findall((ROOT / "docs/writing-a-rule.md").read_text(encoding="utf-8"))
    assert len(files) == 5
    for name, content in files:
        path = tmp_path / "plastic-oja" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", target, tmp_path / "plastic-oja"], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "plastic-oja",
        env=environment(target),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_is_a_whole_configuration(recipe):
    rule = find_rule(recipe.stem.split("-")[0])
    train = rule.function("train")
    assert train is not None
    config = config_model(train).from_values(read_toml(recipe), source=str(recipe))
    match = re.match(r"# (\S+):", recipe.read_text(encoding="utf-8"))
    claims = {claim.id: claim for claim in read_claims(rule.name, str(rule.claims_text())).claims}
    if match and match[1] in claims:
        for key, value in claims[match[1]].conditions.items():
            given = getattr(config, key)
            assert (list(given) if isinstance(given, tuple) else given) == value, key
