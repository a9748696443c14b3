"""The files of the reference that come with plastic: size, format, contents, and that the wheel contains them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import parquet

from plastic_cli.plugins.discovery import discover
from plastic_cli.runs.record import settings_text
from plastic_cli.runs.reference import CURVE_POINTS, ENDED, SCHEMA, SCHEMA_KEY, read_reference, setting_text
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipe_names

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "plastic_cli/reference"
FILES = ("metrics.parquet", "runs.parquet", "stages.parquet")
LARGEST = 10_000_000


@cache
def settings_of(recipe):
    """The settings of a recipe's runs, without their seeds."""
    return {setting_text(run.rule, run.config) for run in plan_recipe(read_recipe(recipe), seeds=1)}


def test_the_files_are_small_and_of_the_present_format():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(FILES)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LARGEST
    for name in ("runs.parquet", "stages.parquet"):
        assert parquet.read_schema(FOLDER / name).metadata[SCHEMA_KEY] == str(SCHEMA).encode(), name
    assert read_reference(FOLDER).problem is None


def test_every_run_belongs_to_a_recipe_that_has_it():
    reference = read_reference(FOLDER)
    assert set(reference.recipes()) <= set(recipe_names())
    for recipe in reference.recipes():
        stray = [
            row["run"]
            for row in reference.of_recipe(recipe)
            if setting_text(row["rule"], row["config"]) not in settings_of(recipe)
        ]
        assert stray == [], f"{recipe} has no such runs: write the reference again (benchmarks/reference.py)"
    named = {run for runs in reference.recipes().values() for run in runs}
    assert named == {row["run"] for row in reference.rows()}


def test_every_run_says_what_was_measured_where():
    reference = read_reference(FOLDER)
    rows = reference.rows()
    assert len(rows) > 500
    assert {row["rule"] for row in rows} == set(discover().rules)
    # One run for each setting and seed.
    texts = [settings_text(row["rule"], row["config"]) for row in rows]
    assert len(set(texts)) == len(texts)
    for row in rows:
        record = reference.record(row["run"])
        assert record.status in ENDED, row["run"]
        assert record.seconds > 0
        assert {"python", "plastic", "torch", "numpy"} <= record.versions.keys(), row["run"]
        assert {"processor", "system", "threads", "device"} <= record.machine.keys(), row["run"]
        assert record.machine["threads"] == 1, row["run"]
        if isinstance(record.config.get("dataset"), str) and record.status == "completed":
            assert row["data_checksum"], row["run"]
        # Nothing of the person or the machine that measured it.
        assert (record.argv, record.process) == ([], {})
        assert "/" not in str(record.project.get("commit") or "")
    texts = " ".join(str(row["config"]) for row in rows)
    assert "/home/" not in texts
    assert "/tmp/" not in texts


def test_curves_are_thin_and_end_with_the_final_values():
    reference = read_reference(FOLDER)
    metrics = reference.metrics(stage="train")
    keys = ["run", "split", "metric", "labels"]
    labeled = metrics.assign(labels=metrics["labels"].fillna(""))
    assert labeled.groupby(keys).size().max() <= CURVE_POINTS
    last = labeled[labeled["labels"] == ""].groupby(["run", "split", "metric"])["value"].last()
    completed = [row for row in reference.rows() if row["status"] == "completed"]
    checked = 0
    for row in completed[:: max(1, len(completed) // 100)]:
        for name, value in row["summary"].items():
            split, metric = name.split("/", 1)
            logged = last[row["run"], split, metric]
            assert logged == value or (value is None and pd.isna(logged)), (row["run"], name)
            checked += 1
    assert checked > 200


def test_the_wheel_contains_the_files():
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    builder = builders.WheelBuilder(str(ROOT))
    packed = {entry.distribution_path.replace("\\", "/") for entry in builder.recurse_included_files()}
    assert {f"plastic_cli/reference/{name}" for name in FILES} <= packed
    assert "plastic_cli/recipes/arena.toml" in packed
