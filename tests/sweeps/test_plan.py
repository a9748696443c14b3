"""From a grid to single runs, each known by all that makes two runs the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.resolve import resolve
from plastic_cli.sweeps.plan import expand, filter_runs, plan_recipe, read_grid, unique
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.testing import plastic, write_tiny_dataset

MODEL = train_model(find_rule("backprop"))


def planned(grid, seeds=1, **options):
    return expand("backprop", lambda point: resolve(MODEL, {**options, **point}), grid, seeds)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=4),
    st.lists(st.sampled_from([1e-3, 1e-2, 0.1]), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_a_plan_is_every_combination_once(sizes, rates, seeds):
    plan = unique(planned({"batch_size": sizes, "learning_rate": rates}, seeds))
    found = [(run.config["batch_size"], run.config["learning_rate"], run.seed) for run in plan]
    assert len(found) == len(set(found))
    assert set(found) == {(size, rate, seed) for size in sizes for rate in rates for seed in range(seeds)}
    assert len({run.key for run in plan}) == len(plan)


def test_seeds_start_with_that_of_the_configuration():
    assert [run.seed for run in planned({}, 3, seed=7)] == [7, 8, 9]
    assert [run.seed for run in planned({}, [5, 2])] == [5, 2]
    with pytest.raises(UserError):
        planned({}, 2, seed=2**63 - 1)


def test_a_plan_that_is_too_large_is_refused():
    with pytest.raises(UserError, match="1,000,000 runs"):
        planned({"batch_size": list(range(1, 1001))}, 1000)


def test_equal_runs_have_equal_keys():
    (run,) = planned({})
    (other,) = planned({"batch_size": [7]})
    assert run.key == planned({"epochs": [10]})[0].key, "typed or not, the default is the default"
    others = [other, replace(run, version="x 1"), run.with_checksum("abc"), planned({}, [1])[0]]
    assert len({run.key, *(entry.key for entry in others)}) == 5


def test_the_toml_of_a_run_gives_its_configuration(tmp_path):
    from plastic_cli.sweeps.recipe import read_options

    for name in ("arena", "grlu-gr-03", "mpn-mr-03", "selective-five-tasks-controls", "eglp-eg-04"):
        for run in plan_recipe(read_recipe(name), seeds=1):
            file = tmp_path / "run.toml"
            file.write_text(run.toml)
            again = resolve(train_model(find_rule(run.rule)), {}, read_options(file, run.rule), "file")
            assert again.model_dump(mode="json") == run.config


def test_a_grid_is_read_as_it_is_typed():
    assert read_grid(["batch-size=1,16", "learning_rate=.1, 1e-3"], MODEL) == {
        "batch_size": ["1", "16"],
        "learning_rate": [".1", "1e-3"],
    }
    hidden = read_grid(["hidden=256;256,128"], MODEL)
    assert [run.config["hidden"] for run in planned(hidden)] == [[256], [256, 128]]
    assert [run.config["hidden"] for run in planned(read_grid(["hidden=8,4"], MODEL))] == [[8], [4]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (["batch_size"], "write NAME=VALUE"),
        (["=1"], "write NAME=VALUE"),
        (["batch_sise=1"], "Did you mean 'batch_size'?"),
        (["batch_size="], "has no value"),
        (["batch_size=1", "batch-size=2"], "has a grid already"),
        (["seed=1,2"], "--seeds"),
    ],
)
def test_a_wrong_grid_is_reported(text, said):
    with pytest.raises(UserError) as caught:
        read_grid(text, MODEL)
    assert said in str(caught.value)


def test_runs_can_be_filtered_by_values():
    arena = plan_recipe(read_recipe("arena"))
    assert {run.config["dataset"] for run in filter_runs(arena, ["dataset=digits, mnist"])} == {"digits", "mnist"}
    part = filter_runs(arena, ["dataset=digits", "batch-size=1"])
    assert {(run.rule, run.config["batch_size"]) for run in part} == {("grlu", 1)}
    depths = plan_recipe(read_recipe("eglp-eg-05"))
    assert {tuple(run.config["hidden"]) for run in filter_runs(depths, ["hidden=128,128;512,512"])} == {
        (128, 128),
        (512, 512),
    }
    assert {tuple(run.config["hidden"]) for run in filter_runs(depths, ["hidden=128,128"])} == {(128, 128)}
    for text, said in (
        ("dataset", "write NAME=VALUE"),
        ("datasets=digits", "Did you mean 'dataset'"),
        ("dataset=none", "There are: digits"),
    ):
        with pytest.raises(UserError) as caught:
            filter_runs(arena, [text])
        assert said in str(caught.value)


def test_runs_can_be_filtered_by_rule():
    arena = read_recipe("arena")
    assert {run.rule for run in plan_recipe(arena, rules=["grlu"])} == {"grlu"}
    with pytest.raises(UserError, match="Did you mean 'grlu'"):
        plan_recipe(arena, rules=["grul"])
    assert len(plan_recipe(arena, seeds=1)) * 5 == len(plan_recipe(arena))


def test_text_that_is_not_utf8_is_refused_before_any_run(tmp_path):
    folder = write_tiny_dataset(tmp_path / "caf\udce9")
    outcome = plastic("train", "backprop", "--dataset", folder, "--grid", "batch_size=1,2", "--dry-run")
    assert outcome.code == 2
    assert "takes only text in UTF-8" in outcome.err
    assert "caf\\udce9" in outcome.err
