"""The claims of metafa: values that reproduce them, values that do not, and the runs and recipes that test them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import plastic_metafa
from plastic_cli.reports.claims import read_claims, unknown_conditions
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.results import judge_claims
from plastic_cli.runs.record import read_record
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names
from plastic_cli.testing import plastic
from plastic_metafa import results
from plastic_metafa.config import Train

FIGURES = read_claims("metafa", (Path(plastic_metafa.__file__).parent / "claims.toml").read_text(encoding="utf-8"))
CLAIMS = {claim.id: claim for claim in FIGURES.claims}

AS_PUBLISHED = {
    "MF-01": (0.70, None),
    "MF-02": (0.25, None),
    "MF-01-reference": (0.70, None),
    "MF-02-reference": (0.25, None),
    "MF-03": (100, None),
    "MF-04": (10, None),
    "MF-05": (300, None),
    "MF-06": (1, None),
    "MF-04-nine": (10, None),
    "MF-05-nine": (300, None),
    "MF-06-nine": (1, None),
    "MF-07": (0.69, 0.69),
    "MF-08": (0.55, 0.25),
    "MF-08-below": (0.55, 0.69),
    "MF-09": (0.60, 0.25),
    "MF-09-loss": (1.1, 1.6),
    "MF-10": (50.0, 85.0),
    "MF-10-bio": (50.0, 60.0),
    "MF-11": (80.0, 85.0),
    "MF-12": (-2.0, 0.0),
    "MF-14-above": (0.40, 0.25),
    "MF-14-below": (0.40, 0.70),
}
"""The published values in the units of the claim's metric: of the setting, and of the one that it is compared with."""

OTHERWISE = {
    "MF-01": [(0.60, None), (0.80, None)],
    "MF-02": [(0.20, None), (0.30, None)],
    "MF-01-reference": [(0.60, None), (0.80, None)],
    "MF-02-reference": [(0.20, None), (0.30, None)],
    "MF-03": [(20, None), (200, None)],
    "MF-04": [(60, None)],
    "MF-05": [(500, None), (601, None)],
    "MF-06": [(0.9, None), (0.0, None)],
    "MF-04-nine": [(60, None)],
    "MF-05-nine": [(500, None), (601, None)],
    "MF-06-nine": [(8 / 9, None), (0.0, None)],
    "MF-07": [(0.60, 0.69), (0.69, 0.60)],
    "MF-08": [(0.30, 0.25), (0.25, 0.55)],
    "MF-08-below": [(0.70, 0.69)],
    "MF-09": [(0.28, 0.25), (0.25, 0.60)],
    "MF-09-loss": [(1.6, 1.1)],
    "MF-10": [(83.0, 85.0), (100.0, 85.0)],
    "MF-10-bio": [(61.0, 60.0)],
    "MF-11": [(85.0, 85.0), (70.0, 85.0), (90.0, 85.0)],
    "MF-12": [(0.5, 0.0)],
    "MF-14-above": [(0.24, 0.25)],
    "MF-14-below": [(0.71, 0.70)],
}
"""Values that the publication excludes."""


def configuration(fields):
    return Train.from_values(fields).model_dump(mode="json")


def verdict(claim, ours, theirs):
    """Return the verdict on settings of five seeds with almost equal values."""
    settings = [(claim.conditions, ours)]
    if claim.against:
        settings.append(({**claim.conditions, **claim.against}, theirs))
    rows = [
        {
            "run": f"{number}-{seed}",
            "rule": "metafa",
            "seed": seed,
            "dataset": "emnist",
            "started": pd.Timestamp("2026-01-01", tz="UTC"),
            # An exact count or share does not vary.
            claim.metric: value + (1e-4 * (seed - 2) if claim.tolerance or claim.against else 0),
            **{f"config.{name}": entry for name, entry in {**configuration(fields), "seed": seed}.items()},
        }
        for number, (fields, value) in enumerate(settings)
        for seed in range(5)
    ]
    runs = pd.DataFrame(rows)
    groups = group_runs(runs, {"metafa": Train})
    judged = judge_claims(runs, groups, {"metafa": FIGURES})
    (word,) = {row.word for row in judged if row.entry is claim and row.group is not None}
    return word


def test_every_claim_has_an_example():
    assert CLAIMS.keys() == AS_PUBLISHED.keys() == OTHERWISE.keys()
    assert [entry.id for entry in FIGURES.unmeasured] == ["MF-15"]


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_published_values_are_reproduced(name):
    assert verdict(CLAIMS[name], *AS_PUBLISHED[name]) == "reproduced"


@pytest.mark.parametrize(
    ("name", "values"), [(name, values) for name, cases in OTHERWISE.items() for values in cases], ids=str
)
def test_values_that_the_publication_excludes_are_not_reproduced(name, values):
    assert verdict(CLAIMS[name], *values) == "not reproduced"


def test_conditions_name_every_option_that_changes_results():
    assert unknown_conditions([*FIGURES.claims, *FIGURES.unmeasured], list(Train.model_fields)) == []
    free = set(Train.model_fields) - {"seed", "device", "theta"}
    for claim in FIGURES.claims:
        assert claim.conditions.keys() == free, claim.id


def test_recipes_train_both_settings_of_every_claim():
    planned = {}
    for name in recipe_names():
        if name.startswith("metafa-"):
            recipe = read_recipe(name)
            for run in plan_recipe(recipe):
                planned.setdefault(_key(run.config), []).append(recipe.recipe)
    for claim in FIGURES.claims:
        own = planned[_key(configuration(claim.conditions))]
        assert any(claim.id in recipe.claims for recipe in own), claim.id
        if claim.against:
            assert _key(configuration({**claim.conditions, **claim.against})) in planned, claim.id


def _key(config):
    return json.dumps({name: value for name, value in config.items() if name not in ("seed", "device")}, sort_keys=True)


@pytest.mark.parametrize("terms", sorted({tuple(claim.conditions["terms"]) for claim in CLAIMS.values()}))
def test_a_run_logs_the_metric_of_every_claim_about_its_terms(terms, monkeypatch, runs_folder):
    monkeypatch.setattr(results, "TUNING_EPISODES", 1)
    options = ["--hidden", 6, "--episodes", 2, "--test-episodes", 1, "--ways", 2, "--shots", 2, "--queries", 1]
    text = ",".join(map(str, terms))
    outcome = plastic("train", "metafa", "--json", "--terms", text, "--held-out-classes", 2, *options)
    assert outcome.code == 0, outcome.err
    summary = read_record(Path(outcome.results[0]["folder"])).summary
    for claim in CLAIMS.values():
        if tuple(claim.conditions["terms"]) == terms:
            assert summary.get(claim.metric) is not None, claim.id
