"""A rule lists the functions that a plugin offers; a missing or misspelled one is named."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import Rule
from plastic_cli.testing import check_rule, plastic


@pytest.fixture
def rule(monkeypatch):
    """Make a rule whose commands module has these functions."""

    def make(*names, **members):
        module = ModuleType("plastic_listed.commands")
        exec("".join(f"def {name}(config, run):\n    pass\n" for name in names), vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return Rule("listed", "A rule.", "nobody", module.__name__, **members)

    return make


VERBS = ("train", "evaluate", "analyze", "render")


def test_a_rule_with_all_functions_has_no_problem(rule):
    assert rule(*VERBS, "build", "helper", build="plastic_listed.commands:build").problems() == []
    for installed in discover().rules.values():
        assert installed.problems() == []


def test_optional_functions_are_found(rule):
    assert rule(*VERBS).member("build") is None
    assert rule("make", build="plastic_listed.commands:make").member("build").__name__ == "make"


@pytest.mark.parametrize(
    ("names", "members", "problem"),
    [
        (("train", "evalute"), {}, "plastic_listed.commands.evalute is not a command. Did you mean 'evaluate'?"),
        (("train", "analyse"), {}, "plastic_listed.commands.analyse is not a command. Did you mean 'analyze'?"),
        ((), {}, "plastic_listed.commands has none of train, evaluate, analyze, render."),
        (
            ("train", "build"),
            {},
            "plastic_listed.commands has build: register it with Rule(build='plastic_listed.commands:build').",
        ),
        (
            ("train", "network"),
            {},
            "plastic_listed.commands has network: register it with Rule(network='plastic_listed.commands:network').",
        ),
        (
            ("train", "netwrok"),
            {"network": "plastic_listed.commands:network"},
            "but plastic_listed.commands has no 'network'. Did you mean 'netwrok'?",
        ),
        (
            ("train", "biuld"),
            {"build": "plastic_listed.commands:build"},
            "but plastic_listed.commands has no 'build'. Did you mean 'biuld'?",
        ),
    ],
)
def test_a_missing_or_misspelled_function_is_named(names, members, problem, rule):
    (found,) = rule(*names, **members).problems()
    assert found.endswith(problem)


def test_an_optional_function_that_does_not_exist_is_an_error_of_one_line(rule):
    with pytest.raises(UserError, match="has no 'build'"):
        rule("train", build="plastic_listed.commands:build").member("build")


def test_doctor_and_the_contract_name_it(monkeypatch, tmp_path):
    from plastic_backprop import commands

    monkeypatch.delattr(commands, "evaluate")

    def evalute(config, run):
        pass

    evalute.__module__ = commands.__name__
    monkeypatch.setattr(commands, "evalute", evalute, raising=False)
    outcome = plastic("doctor", "--format", "csv")
    assert outcome.code == 1
    assert "rule backprop,broken,plastic_backprop.commands.evalute is not a command." in outcome.out
    with pytest.raises(AssertionError, match="Did you mean 'evaluate'"):
        check_rule("backprop", tmp_path)
