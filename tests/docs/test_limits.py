"""The figures of docs/grlu-limits.md: every setting of their recipes is one point of one rule."""

import pandas as pd
import pytest

import limits
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe


def runs_of(recipe):
    """One run of each setting, with an accuracy of its own."""
    rows = []
    for number, planned in enumerate(plan_recipe(read_recipe(recipe), seeds=1)):
        config = {f"config.{name}": value for name, value in planned.config.items()}
        rows.append(
            {"rule": planned.rule, "run": str(number), "test/accuracy": number / 100, "name": planned.name, **config}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("limit", limits.LIMITS.values(), ids=limits.LIMITS)
def test_every_rule_has_a_point_at_every_value_of_the_option(limit):
    runs = runs_of(limit.recipe)
    drawn = limits.figure(runs, limit).plot.data
    points = set(zip(drawn["label"], drawn["step"], strict=True))
    values = set(drawn["step"])
    assert len(points) == len(runs) == len(limits.RULES) * len(values)
    assert {label for label, _ in points} == set(limits.RULES)
    assert len(values) == (4 if limit.recipe == "grlu-limits-time" else 6)


@pytest.mark.parametrize("limit", limits.LIMITS.values(), ids=limits.LIMITS)
def test_the_names_of_the_rules_are_those_of_the_recipes(limit):
    for row in runs_of(limit.recipe).to_dict("records"):
        assert row["name"].endswith(limits.rule_of(row))
