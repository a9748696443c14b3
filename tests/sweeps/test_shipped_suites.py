"""The recipes that come with plastic and hold steps: what they measure, and that it is what their claims need."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import plastic_cli
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.reports.claims import read_claims
from plastic_cli.reports.stages import is_stage_of, stage_defaults
from plastic_cli.runs.stages import read_stage, read_stages
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.sweeps.steps import plan_steps

ROOT = Path(__file__).parents[2]
SUITES = [name for name in recipe_names() if name.endswith("-all")]
WITH_STEPS = [name for name in recipe_names() if read_recipe(name).recipe.steps]
SIZES = {"samples", "images", "episodes", "rates", "k", "window"}
"""Options of analyze that say how much is measured, not what."""


def test_every_rule_but_the_control_has_a_suite():
    assert {f"{rule}-all" for rule in discover().rules} - {"backprop-all"} == set(SUITES)


@pytest.mark.parametrize("name", [*SUITES, *(f"{name}-quick" for name in SUITES)])
def test_a_suite_evaluates_analyzes_renders_and_reports_its_rule_and_controls(name):
    file = read_recipe(name)
    plan = plan_recipe(file)
    assert {step.verb for step in plan_steps(file, plan)} == {"eval", "analyze", "render"}
    assert file.recipe.report is not None
    model = train_model(find_rule(plan[0].rule))
    controls = {model.control_of(planned.config) for planned in plan}
    assert None in controls, "no run of the rule itself"
    assert len(controls) > 1, "no control"


@pytest.mark.parametrize("name", SUITES)
def test_the_quick_suite_takes_the_same_measures_on_small_data(name):
    def measures(recipe):
        file = read_recipe(recipe)
        return {
            option
            for step in plan_steps(file, plan_recipe(file))
            if step.verb == "analyze"
            for option in step.typed
            if option not in SIZES
        }

    assert measures(name) == measures(f"{name}-quick")
    quick = plan_recipe(read_recipe(f"{name}-quick"))
    assert {planned.config.get("dataset", "digits") for planned in quick} == {"digits"}
    file = read_recipe(f"{name}-quick")
    minutes = sum(planned.minutes or 0 for planned in quick)
    assert minutes + sum(step.minutes for step in plan_steps(file, quick)) <= 20


@pytest.mark.parametrize("name", SUITES)
def test_the_page_of_the_rule_has_a_section_on_its_suite(name):
    rule = name.removesuffix("-all")
    page = (ROOT / f"docs/rules/{rule}.md").read_text()
    section = page.partition("\n## The whole evaluation\n")[2].partition("\n## ")[0]
    assert f"plastic sweep {name} " in section
    assert f"plastic sweep {name}-quick " in section
    assert f"<!-- measured: evaluations/{rule} -->" in section


@pytest.mark.parametrize("name", WITH_STEPS)
def test_every_step_says_how_long_it_takes(name):
    file = read_recipe(name)
    assert all(step.minutes for step in plan_steps(file, plan_recipe(file)))


@pytest.mark.parametrize("name", recipe_names())
def test_a_claim_about_a_stage_has_a_step_on_three_runs_that_meet_it(name):
    file = read_recipe(name)
    plan = plan_recipe(file)
    steps = plan_steps(file, plan)
    for rule in {planned.rule for planned in plan}:
        for claim in read_claims(rule, find_rule(rule).claims_text() or "").claims:
            if claim.id not in file.recipe.claims or claim.stage is None:
                continue
            defaults = stage_defaults(rule, claim.stage)
            assert set(claim.options) <= defaults.keys(), claim.id
            carried_out = [
                step
                for step in steps
                if step.verb == claim.stage
                and claim.conditions.items() <= step.of.config.items()
                and is_stage_of(claim.options, step.config, defaults)
            ]
            assert len({step.of.settings for step in carried_out}) >= 3, claim.id


SHARED = {
    "eglp-all": "eglp-backprop eglp-fixed eglp-local eglp-triggered",
    "feedback-all": "feedback-lenet",
    "grlu-all": "grlu-gr-01 grlu-gr-02",
    "metafa-all": "metafa-direct metafa-mf-01 metafa-mf-02 metafa-mf-07 metafa-mf-08 metafa-mf-09",
    "mpn-all": "mpn-mp-03 mpn-mp-06-gru mpn-mp-06-mpn-pre mpn-mp-06-rnn",
    "selective-all": "selective-sp-01 selective-sp-02 selective-sp-03-reservoir selective-sp-04-reservoir",
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_shares_its_runs_with_the_recipes_of_single_results(suite):
    own = {planned.settings for planned in plan_recipe(read_recipe(suite))}
    for name in SHARED[suite].split():
        assert {planned.settings for planned in plan_recipe(read_recipe(name))} <= own, name


SHORT = {
    "eglp": {"epochs": 1},
    "feedback": {"epochs": 1},
    "grlu": {"epochs": 1},
    "metafa": {"episodes": 2, "test_episodes": 2},
    "mpn": {"minimum_batches": 2, "maximum_batches": 2},
    "selective": {"epochs": 1},
}


@pytest.mark.parametrize(
    "rule", ["eglp", *(pytest.param(rule, marks=pytest.mark.slow) for rule in SHORT if rule != "eglp")]
)
def test_every_step_of_a_quick_suite_works_on_a_run_of_its_rule(rule, runs_folder):
    file = read_recipe(f"{rule}-all-quick")
    plan = plan_recipe(file, seeds=1)
    steps = plan_steps(file, plan)
    # The run that most steps take, which also has the films.
    of = max(plan, key=lambda planned: sum(step.of == planned for step in steps))
    options = {**of.config, **SHORT[rule]}
    run = plastic_cli.train(rule, quiet=True, **{name: value for name, value in options.items() if value is not None})
    carry_out = {"eval": plastic_cli.evaluate, "analyze": plastic_cli.analyze, "render": plastic_cli.render}
    done = [step for step in steps if step.of == of]
    assert {step.verb for step in done} == carry_out.keys()
    for step in done:
        carry_out[step.verb](run, **step.typed)
        record = read_stage(run.folder, step.verb, step.config)
        assert record is not None, "the sweep would carry the step out again"
        if step.verb == "render":
            assert any(name.endswith(".gif") for name in record.files)
        else:
            assert record.results
            assert all(math.isfinite(value) for value in record.results.values() if value is not None)
    drawn = {name for record in read_stages(run.folder) for name in record.files if name.endswith(".png")}
    assert len(drawn) >= 3
