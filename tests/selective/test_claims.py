"""The published results, and the recipes that measure them: which runs are compared, with which settings."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from plastic_cli.reports.claims import read_claims, unknown_conditions
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.results import judge_claims
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_selective.config import Train

TEXT = resources.files("plastic_selective").joinpath("claims.toml").read_text(encoding="utf-8")
FIGURES = read_claims("selective", TEXT)
CLAIMS = {claim.id: claim for claim in FIGURES.claims}
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("selective-sp-*.toml"))
ACCURACIES = ("test/accuracy", "test/accuracy_task_1", "test/accuracy_task_2")


def configurations():
    """The configuration of every recipe with claims, by the recipe's name."""
    found = {}
    for path in RECIPES:
        first = plan_recipe(read_recipe(str(path)))[0]
        found[path.stem] = Train.from_values(first.config, source=str(path)).model_dump(mode="json")
    return found


def runs_of(settings, values):
    """Three runs of each recipe with the metrics in `values`, in the form of a store of runs."""
    rows = []
    for setting, config in settings.items():
        for seed in range(3):
            started = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(minutes=len(rows))
            row = {"run": f"r{len(rows):03d}", "name": None, "rule": "selective", "verb": "train", "seed": seed}
            row |= {"status": "completed", "dataset": config["dataset"], "started": started, "duration": 1.0}
            row |= {"version": "1", "rule_version": "1"}
            row |= {f"config.{name}": value for name, value in {**config, "seed": seed}.items()}
            noise = 1e-4 * seed
            rows.append(row | {metric: value * (1 + noise) for metric, value in values.get(setting, {}).items()})
    return pd.DataFrame(rows)


def verdicts(settings, values):
    runs = runs_of(settings, values)
    judged = judge_claims(runs, group_runs(runs, {"selective": Train}), {"selective": FIGURES})
    return {row.entry.id: row.verdict.word for row in judged if row.entry.id in CLAIMS and row.group is not None}


def test_conditions_are_fields_and_fix_everything_that_an_accuracy_depends_on():
    assert not unknown_conditions([*FIGURES.claims, *FIGURES.context], list(Train.model_fields))
    free = {"seed", "device", "dataset"}
    for claim in FIGURES.claims:
        conditions = {**claim.conditions}
        assert conditions["validation"] == 0, claim.id
        config = Train.from_values({name: value for name, value in conditions.items() if name in Train.model_fields})
        unused = config.unused_options(config.model_dump())
        left = set(Train.model_fields) - set(conditions) - set(unused) - free
        # The kinds of buffer and task determine the rest.
        assert left <= {"max_degrees", "class_order", "shuffle_classes", "warmup_steps", "warmup_share"}, (
            claim.id,
            left,
        )


def test_every_accuracy_has_its_chance_and_every_method_its_control():
    for claim in FIGURES.claims:
        assert claim.chance == (0.1 if claim.metric in ACCURACIES else None if claim.against else 0.0), claim.id
    compared = [claim for claim in FIGURES.claims if claim.conditions["optimizer"] == "selective"]
    without = {claim.id for claim in compared if claim.control is None}
    # Here the published control has the same figure.
    assert without == {"SP-02-A", "SP-02-code-A", "SP-08-A", "SP-08-code-A"}
    assert all(claim.about_control for claim in FIGURES.claims if claim.conditions["optimizer"] == "adam")


def test_each_figure_is_judged_with_the_settings_of_the_readmes_and_of_the_code():
    for claim in FIGURES.claims:
        if claim.conditions["optimizer"] != "selective" or "-code" in claim.id:
            continue
        number, *rest = claim.id.removeprefix("SP-").split("-")
        other = CLAIMS["-".join(["SP", number, "code", *rest])]
        assert (claim.conditions["plasticity_k"], claim.conditions["warmup_steps"]) == (5, 1000)
        assert (other.conditions["plasticity_k"], other.conditions["warmup_steps"]) == (10, 100)
        same = {name: value for name, value in claim.conditions.items() if name not in ("plasticity_k", "warmup_steps")}
        assert {name: other.conditions[name] for name in same} == same
        assert (other.value, other.metric, other.band) == (claim.value, claim.metric, claim.band)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_measures_the_claims_that_it_names_and_no_others(recipe):
    named = set(tomllib.loads(recipe.read_text())["claims"])
    settings = {recipe.stem: configurations()[recipe.stem]}
    values = {recipe.stem: dict.fromkeys({claim.metric for claim in FIGURES.claims}, 0.5)}
    assert set(verdicts(settings, values)) == named


def test_together_the_recipes_measure_every_claim():
    named = {claim for recipe in RECIPES for claim in tomllib.loads(recipe.read_text())["claims"]}
    assert named == set(CLAIMS)


def test_the_published_figures_would_be_reproduced_in_both_settings():
    settings = configurations()
    published = {
        "adam": ((0.4664, 0.0, 0.9328, 0.9751), (0.4796, 0.0282, 0.9311, 0.964)),
        "selective": ((0.4633, 0.0, 0.9266, 0.973), (0.8936, 0.8655, 0.9216, 0.1082)),
    }
    names = ("test/accuracy", "test/accuracy_task_1", "test/accuracy_task_2", "test/forgetting")
    values = {}
    for name, config in settings.items():
        if config["stream"] == "permuted":
            transfer = -0.56 if config["optimizer"] == "adam" else -0.07
            values[name] = {"test/accuracy": 0.7615, "test/backward_transfer": transfer}
        else:
            values[name] = dict(zip(names, published[config["optimizer"]][config["replay"] != "none"], strict=True))
    words = verdicts(settings, values)
    first_readme = {name: word for name, word in words.items() if not name.startswith("SP-08")}
    assert set(first_readme.values()) == {"reproduced"}
    assert len(first_readme) == sum(not name.startswith("SP-08") for name in CLAIMS)


@pytest.mark.parametrize("setting", ["", "-code"])
@pytest.mark.parametrize(
    ("claim", "mine", "theirs", "metric"),
    [
        ("", "selective-sp-05{}", "selective-sp-05-adam", "test/backward_transfer"),
        ("-fifo", "selective-sp-04{}-fifo", "selective-sp-03-fifo", "test/forgetting"),
        ("-reservoir", "selective-sp-04{}-reservoir", "selective-sp-03-reservoir", "test/forgetting"),
    ],
)
def test_the_ratio_of_forgetting_uses_adam_with_the_same_buffer(setting, claim, mine, theirs, metric):
    settings = configurations()
    mine, name = mine.format(setting), f"SP-06{setting}{claim}"
    sign = -1 if "transfer" in metric else 1

    def word(ours, others):
        return verdicts(settings, {mine: {metric: sign * ours}, theirs: {metric: sign * others}})[name]

    assert word(0.065, 0.5) == "reproduced"
    assert word(0.5, 0.065) == "not reproduced"
    assert word(0.5, 0.5) == "not reproduced"
    assert word(0.43, 0.5) == "not reproduced"  # forgetting 13% less is not forgetting 13% as much
