"""What the steps of a recipe plan, and which errors name their line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plastic_cli.errors import UserError
from plastic_cli.sweeps.plan import filter_runs, plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.sweeps.steps import plan_steps, with_runs
from plastic_cli.verbs.suite import planned_suite

SUITE = """title = "t"
why = "w"
seeds = 3

[options]
dataset = "digits"
epochs = 1

[[runs]]
name = "control"
rule = "backprop"

[[runs]]
name = "local"
rule = "eglp"
grid = { events = ["always", "triggered"] }

[[steps]]
verb = "eval"

[[steps]]
verb = "analyze"
runs = ["local"]
seeds = 2
minutes = 0.5
options = { angles = true }
grid = { samples = [100, 200] }

[[steps]]
verb = "render"
rule = "eglp"
seeds = 1

[report]
compare = true
"""


@pytest.fixture
def suite(tmp_path):
    def write(text=SUITE):
        file = tmp_path / "suite.toml"
        file.write_text(text)
        return file

    return write


def planned(path, **chosen):
    file = read_recipe(str(path))
    return plan_steps(file, plan_recipe(file, **chosen))


def test_steps_are_planned_for_their_runs_seeds_and_grid(suite):
    steps = planned(suite())
    assert [step.verb for step in steps] == ["eval"] * 9 + ["analyze"] * 8 + ["render"] * 2
    analyses = [step for step in steps if step.verb == "analyze"]
    assert {step.of.names for step in analyses} == {frozenset({"local"})}
    assert {(step.seed, step.of.varied["events"], step.config["samples"]) for step in analyses} == {
        (seed, events, samples) for seed in (0, 1) for events in ("always", "triggered") for samples in (100, 200)
    }
    assert {step.minutes for step in analyses} == {0.5}
    assert analyses[0].label == "analyze local events=always seed=0 --angles --samples 100"
    assert len({step.key for step in steps}) == len(steps)
    assert [step.seed for step in steps if step.verb == "render"] == [0, 0]


def test_equal_steps_and_equal_runs_count_once(suite):
    text = SUITE.replace('verb = "render"\nrule = "eglp"', 'verb = "eval"\nrule = "eglp"')
    assert [step.verb for step in planned(suite(text))] == ["eval"] * 9 + ["analyze"] * 8
    # The second table repeats a run of the first under another name, and a step that names it takes this run.
    again = SUITE.replace("[[steps]]", '[[runs]]\nname = "again"\nrule = "backprop"\n\n[[steps]]\nruns = ["again"]', 1)
    steps = planned(suite(again))
    assert [(step.of.name, sorted(step.of.names)) for step in steps[:3]] == [("control", ["again", "control"])] * 3


def test_what_is_filtered_has_no_steps(suite):
    file = read_recipe(str(suite()))
    plan = plan_recipe(file, seeds=1)
    assert len(plan_steps(file, plan)) == 3 + 4 + 2
    assert {step.rule for step in planned(suite(), rules=["backprop"])} == {"backprop"}
    assert len(plan_steps(file, filter_runs(plan, ["events=always"]))) == 1 + 2 + 1
    assert plan_steps(file, []) == []


def test_a_step_is_another_for_other_data_or_versions(suite):
    file = read_recipe(str(suite()))
    plan = plan_recipe(file)
    steps = plan_steps(file, plan)
    other = with_runs(steps, [run.with_checksum("other") for run in plan[:1]])
    assert [step.of.seed for step in other] == [0], "runs that are left out take their steps with them"
    assert other[0].key != steps[0].key
    assert other[0].settings == steps[0].settings
    newer = replace(steps[0], versions={**steps[0].versions, "plastic": "99"})
    assert newer.key != steps[0].key


def test_a_step_takes_only_the_runs_that_it_names(suite):
    second = '[[runs]]\nname = "other size"\nrule = "eglp"\noptions = { hidden = [8] }\n\n[[steps]]'
    steps = [step for step in planned(suite(SUITE.replace("[[steps]]", second, 1))) if step.verb == "analyze"]
    assert len(steps) == 8
    assert {step.of.names for step in steps} == {frozenset({"local"})}, "not the other runs of the rule"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('verb = "eval"', 'verb = "evall"'), "line 19: steps.0.verb: it should be 'eval', 'analyze' or 'render'."),
        (('verb = "eval"', 'runs = ["local"]'), "line 18: the step has no verb. Say it in a line: verb = ..."),
        (('runs = ["local"]', 'runs = ["localx"]'), "line 23: the recipe has no runs with the name 'localx'. Did you"),
        (("seeds = 2", "seeds = 0"), "line 24: steps.1.seeds: it should be greater than or equal to 1."),
        (("seeds = 2", "seed = 2"), "line 24: a recipe has no key 'seed'. Did you mean 'seeds'?"),
        (("angles = true", "angle = true"), "line 26: analyze of eglp has no option 'angle'. Did you mean 'angles'?"),
        (("[100, 200]", "[100, 0]"), "line 27: --samples 0: it should be greater than or equal to"),
        (("samples", "angles"), "line 27: 'angles' is under options and under grid"),
        (("[100, 200]", "[]"), "line 27: the grid of 'samples' has no value."),
        (("samples =", "seed ="), "line 27: seeds are not part of a grid"),
        (('rule = "eglp"\nseeds = 1', 'rule = "eglq"\nseeds = 1'), "line 31: there is no rule 'eglq'."),
        (('rule = "eglp"\nseeds = 1', 'rule = "grlu"\nseeds = 1'), "line 31: the step takes no runs of grlu. Its runs"),
        (("compare = true", "compar = true"), "line 35: `plastic report` has no option 'compar'. Did you mean 'compar"),
        (("compare = true", "digits = 99"), "line 35: --digits 99: it should be less than or equal to 12."),
        (("compare = true", 'rule = "eglp"'), "line 35: a report of a recipe has no option 'rule'"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_an_error_in_a_step_names_its_line(suite, change, said):
    assert change[0] in SUITE
    path = suite(SUITE.replace(*change))
    with pytest.raises(UserError) as caught:
        planned_suite(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}, {said}")


def test_a_rule_without_the_verb_is_an_error_before_any_run(suite, monkeypatch):
    import plastic_eglp.commands

    monkeypatch.delattr(plastic_eglp.commands, "render")
    with pytest.raises(UserError, match=r"line 30: the rule 'eglp' has no render\. It has eval, analyze\."):
        planned(suite())


def test_a_suite_can_be_planned_without_its_steps(suite):
    whole = planned_suite(str(suite()), seeds=1, rules=["eglp"], only=["events=always"])
    assert (len(whole.plan), len(whole.steps), whole.report.compare) == (1, 4, True)
    alone = planned_suite(str(suite()), with_steps=False)
    assert (len(alone.plan), alone.steps, alone.report) == (9, [], None)
