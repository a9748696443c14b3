"""What the installed rules and recipes contribute to a report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover
from plastic_cli.reports.options import ReportOptions, Sources

if TYPE_CHECKING:
    from plastic_cli.reports.options import Headline


def installed_sources(options: ReportOptions) -> Sources:
    """Return the claims and figures of the installed rules, and the recipes if a page lists them."""
    claims = {name: text for name, rule in discover().rules.items() if (text := rule.claims_text())}
    sources = Sources(claims, _installed_headline, {})
    return with_recipes(sources) if options.html is not None else sources


def with_recipes(sources: Sources) -> Sources:
    """Return sources with the recipes that a page names, unless it has recipes already."""
    return sources if sources.recipes else replace(sources, recipes=recipes_by_claim(), recipes_of=recipes_by_setting())


def _installed_headline(rule: str) -> Headline | None:
    installed = discover().rules.get(rule)
    return installed.member("headline_figures") if installed else None


def recipes_by_claim() -> dict[tuple[str, str], list[str]]:
    """Return the names of the recipes that test a claim, by rule and id of the claim; broken recipes are skipped."""
    from plastic_cli.sweeps.recipe import read_recipe, recipe_names

    found: dict[tuple[str, str], list[str]] = {}
    for name in recipe_names():
        with suppress(UserError, OSError):
            recipe = read_recipe(name).recipe
            rules = {str(table.rule) for table in (recipe, *recipe.runs) if table.rule is not None}
            for claim in recipe.claims:
                for rule in sorted(rules):
                    found.setdefault((rule, claim), []).append(name)
    return found


def recipes_by_setting() -> dict[str, list[str]]:
    """Return the names of the recipes that have a setting, by `setting_and_data`; broken recipes are skipped."""
    from plastic_cli.reports.grouping import setting_and_data
    from plastic_cli.sweeps.plan import plan_recipe
    from plastic_cli.sweeps.recipe import read_recipe, recipe_names

    found: dict[str, list[str]] = {}
    for name in recipe_names():
        with suppress(UserError, OSError):
            runs = plan_recipe(read_recipe(name))
            for key in dict.fromkeys(setting_and_data(run.rule, run.dataset, run.config) for run in runs):
                found.setdefault(key, []).append(name)
    return found
