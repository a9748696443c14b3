"""What the documentation shows works: commands exist, listings run, recipes are what the claims ask for."""

from __future__ import annotations

import re

import pytest

from docs.pages import PAGES, ROOT
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.reports.claims import read_claims
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names


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


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_is_a_whole_configuration(recipe):
    file = read_recipe(str(recipe))
    plan = plan_recipe(file)
    assert plan
    for id_ in file.recipe.claims:
        claims = [
            claim
            for rule in {planned.rule for planned in plan}
            for claim in read_claims(rule, find_rule(rule).claims_text() or "").claims
            if claim.id == id_
        ]
        assert claims, id_
        for claim in claims:
            met = [planned for planned in plan if claim.conditions.items() <= planned.config.items()]
            assert met, f"no run of it meets the conditions of {id_}"


def test_every_claim_that_can_be_repeated_has_a_recipe():
    tested = {claim for name in recipe_names() for claim in read_recipe(name).recipe.claims}
    for rule in discover().rules.values():
        claims = {claim.id for claim in read_claims(rule.name, rule.claims_text() or "").claims}
        assert claims <= tested, rule.name
