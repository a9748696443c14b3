"""The tables of rules, data sets and recipes are those of the shell."""

from __future__ import annotations

import json

import plastic_cli as plastic
from plastic_cli.testing import plastic as shell


def test_the_rules_are_those_of_the_shell():
    assert plastic.rules().to_dict("records") == json.loads(shell("rules", "--json").out)


def test_the_data_sets_are_those_of_the_shell(tiny_data):
    table = plastic.datasets()
    listed = json.loads(shell("data", "--json").out)
    assert table["name"].tolist() == [row["name"] for row in listed]
    assert table["here"].tolist() == [row["here"] for row in listed]
    assert table.set_index("name")["train_images"]["mnist"] == 60_000


def test_the_recipes_count_what_is_done(runs_folder):
    table = plastic.recipes()
    assert set(table["recipe"]) >= {"grlu-quick", "arena"}
    assert not table["done"].any()
    listed = json.loads(shell("recipes", "--json").out)
    assert table["runs"].tolist() == [row["runs"] for row in listed]
