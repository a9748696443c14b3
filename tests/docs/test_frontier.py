"""The figures of the page about the price of teaching: every setting of the recipe has a name of its own."""

import frontier
import measurements
from plastic_cli.runs.reference import setting_text
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe


def test_every_setting_of_the_recipe_has_a_name_and_a_row():
    names = {}
    for planned in plan_recipe(read_recipe(frontier.RECIPE)):
        own = {name: value for name, value in planned.config.items() if name != "dataset"}
        names.setdefault(setting_text(planned.rule, own), set()).add(frontier.name_of(planned.rule, planned.config))
    assert all(len(each) == 1 for each in names.values())
    assert len({name for each in names.values() for name in each}) == len(names) == 21
    content = measurements.measurements("frontier")["results"]
    assert len(content["rows"]) == len(names)
    # One setting for each data set.
    assert len(content["settings"]) == 2 * len(names)
