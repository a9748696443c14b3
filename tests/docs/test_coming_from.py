"""The pages for users of the published programs name options and functions of plastic that exist."""

from __future__ import annotations

import importlib
import re

import pytest

from docs.pages import ROOT
from plastic_cli.commands.verbs import rule_command
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import VERBS
from plastic_cli.sweeps.recipe import recipe_names

RULES = [name for name in discover().rules if name != "backprop"]


def page_of(rule):
    return (ROOT / f"docs/coming-from/{rule}.md").read_text(encoding="utf-8")


def options_of(rule):
    return {
        option.strip()
        for verb in VERBS
        for parameter in rule_command(verb, rule).params
        if not getattr(parameter, "hidden", False)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("rule", RULES)
def test_an_option_of_plastic_exists(rule):
    shown = []
    for line in page_of(rule).splitlines():
        if not re.match(r"\| *:?-|\|-", line):
            # The first column of a table is about the published program.
            ours = line.split("|", 2)[2] if line.startswith("|") else line
            shown += re.findall(r"(?<![\w/.])(--[a-z][a-z0-9-]*)", " ".join(re.findall(r"`([^`]*)`", ours)))
    known = options_of(rule) | {"--html", "--help", "--rule"}
    assert len(shown) > 10
    assert set(shown) <= known, sorted(set(shown) - known)


@pytest.mark.parametrize("rule", RULES)
def test_a_name_in_python_exists(rule):
    names = re.findall(r"`(plastic_\w+(?:\.\w+)+)`", page_of(rule))
    assert names
    for name in names:
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name


@pytest.mark.parametrize("rule", RULES)
def test_a_recipe_exists(rule):
    named = set(re.findall(rf"`({rule}-(?:[a-z]+-\d[\w-]*|quick|fixed|backprop|first-version))`", page_of(rule)))
    assert named
    assert named <= set(recipe_names())
