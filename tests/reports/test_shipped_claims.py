"""The claims that recipes name: their runs meet the conditions, so that no changed option leaves a claim untested."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

import pytest

from plastic_cli.plugins.discovery import discover
from plastic_cli.reports.claims import read_claims
from plastic_cli.reports.grouping import Group
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names

RULES = discover().rules
CLAIMS = {
    claim.id: (rule, claim) for rule in RULES for claim in read_claims(rule, RULES[rule].claims_text() or "").claims
}
NAMED = [(recipe, claim) for recipe in recipe_names() for claim in read_recipe(recipe).recipe.claims]


@cache
def plan(recipe):
    return plan_recipe(read_recipe(recipe), seeds=1)


def groups_of(recipe, rule) -> list[Group]:
    """The settings of a recipe, as a report groups its runs."""
    runs = plan(recipe)
    return [Group(run.rule, run.dataset, "", (run.key,), config_of(run.config)) for run in runs if run.rule == rule]


def config_of(config: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name not in ("seed", "device")}


@pytest.mark.parametrize(("recipe", "name"), NAMED, ids="-".join)
def test_runs_of_a_recipe_meet_the_conditions_of_its_claims(recipe, name):
    rule, claim = CLAIMS[name]
    groups = groups_of(recipe, rule)
    controls = controls_of(rule, claim)
    assert any(claim.holds_for(group) or any(are_equal(group.config, one) for one in controls) for group in groups), (
        "no run meets the conditions or is the control"
    )


def controls_of(rule, claim) -> list[dict[str, object]]:
    """The controls of a claim: its `control_setting` on each setting in recipes that meets its conditions."""
    if not claim.control_setting:
        return []
    recipes = [recipe for recipe, name in NAMED if name == claim.id]
    groups = [group for recipe in recipes for group in groups_of(recipe, rule) if claim.holds_for(group)]
    return [{**group.config, **claim.control_setting} for group in groups]


def test_both_settings_of_a_claim_that_compares_two_are_in_recipes():
    groups = defaultdict(list)
    # The documentation judges claims by the recipes that name any.
    for recipe in dict.fromkeys(recipe for recipe, _ in NAMED):
        for rule in RULES:
            groups[rule] += groups_of(recipe, rule)
    for name in {claim for _, claim in NAMED}:
        rule, claim = CLAIMS[name]
        if second := claim.against or claim.control_setting:
            wanted = [{**group.config, **second} for group in groups[rule] if claim.holds_for(group)]
            assert any(are_equal(group.config, one) for group in groups[rule] for one in wanted), name


def are_equal(first: Mapping[str, object], second: Mapping[str, object]) -> bool:
    """As in a report, a field may differ that has no value in one of the two."""
    pairs = [(first.get(name), second.get(name)) for name in {*first, *second}]
    return all(one == other or one is None or other is None for one, other in pairs)
