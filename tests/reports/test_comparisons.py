"""Which settings are compared over which data sets."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from plastic_cli.reports.comparisons import (
    MOST_COMPARED,
    compare,
    comparisons_frame,
    improvement_table,
    improvements_frame,
    iqm_table,
    not_compared,
    profiles,
    unique_name,
)
from plastic_cli.reports.grouping import group_runs, settings_across
from plastic_cli.reports.plots import looks, profile_figure
from plastic_cli.reports.results import summarize
from plastic_cli.statistics.aggregates import interquartile_mean, probability_of_improvement
from plastic_cli.tables import cell_text
from reports.report_frames import grlu_experiments, run_row


def store(*cases, metric="test/accuracy"):
    """Runs of (rule, data set, values over seeds)."""
    number, rows = itertools.count(), []
    for rule, dataset, values in cases:
        for seed, value in enumerate(values):
            rows.append(run_row(next(number), rule=rule, dataset=dataset, seed=seed) | {metric: value})
    return pd.DataFrame(rows)


def compared(runs):
    results = summarize(runs, group_runs(runs))
    return results, compare(runs, results)


def shape(comparisons):
    return [(each.datasets, sorted(one.setting.label for one in each.compared)) for each in comparisons]


def test_settings_are_compared_over_the_data_sets_that_all_of_them_have():
    runs = store(
        *((rule, dataset, [level, level + 0.01, level + 0.02]) for rule, level in (("a", 0.6), ("b", 0.7))
          for dataset in ("digits", "mnist"))
    )  # fmt: skip
    results, (comparison,) = compared(runs)
    assert comparison.datasets == ("digits", "mnist")
    assert [each.setting.label for each in comparison.compared] == ["b", "a"]
    assert comparison.compared[0].scores.shape == (3, 2)
    assert comparison.compared[0].iqm.mean == pytest.approx(interquartile_mean([[0.7, 0.7], [0.71] * 2, [0.72] * 2]))
    (pair,) = comparison.improvements
    assert (pair.first.rule, pair.second.rule, pair.probability.mean) == ("b", "a", 1.0)
    assert not_compared(results, [comparison]) == 0


def test_a_setting_with_fewer_data_sets_gets_a_comparison_over_those():
    three = ("digits", "fashion", "mnist")
    runs = store(*((rule, dataset, [0.5, 0.6, 0.7]) for rule in "ab" for dataset in three), ("c", "mnist", [0.9]))
    _, comparisons = compared(runs)
    assert shape(comparisons) == [(three, ["a", "b"]), (("mnist",), ["a", "b", "c"])]


def test_settings_that_overlap_in_part_are_compared_over_what_they_share():
    cases = [("a", "digits"), ("a", "mnist"), ("a", "kmnist"), ("b", "mnist"), ("b", "kmnist"), ("b", "fashion")]
    _, comparisons = compared(store(*((rule, dataset, [0.5, 0.6, 0.7]) for rule, dataset in cases)))
    assert shape(comparisons) == [(("kmnist", "mnist"), ["a", "b"])]


def test_a_setting_that_shares_no_data_set_is_not_compared():
    results, comparisons = compared(store(("a", "digits", [0.5, 0.6]), ("b", "mnist", [0.5])))
    assert comparisons == []
    assert not_compared(results, comparisons) == 2


def test_returns_are_compared_within_each_environment():
    # A point in one environment is not a point in another.
    runs = store(*((rule, task, [1.0, 2.0, 3.0]) for rule in "ab" for task in ("cart", "pole")), metric="test/return")
    _, comparisons = compared(runs)
    assert shape(comparisons) == [(("cart",), ["a", "b"]), (("pole",), ["a", "b"])]


def test_different_metrics_are_never_compared():
    runs = pd.concat([store(("a", "x", [0.5])), store(("b", "x", [3.0]), metric="test/return")], ignore_index=True)
    runs["run"] = [f"r{index}" for index in range(len(runs))]
    assert compared(runs)[1] == []


def test_less_is_better_for_an_error():
    runs = store(("a", "mnist", [0.1, 0.2, 0.3]), ("b", "mnist", [0.4, 0.5, 0.6]), metric="test/error")
    _, (comparison,) = compared(runs)
    assert [each.setting.label for each in comparison.compared] == ["a", "b"]
    assert comparison.improvements[0].probability.mean == 1
    assert "smaller is better" in iqm_table(comparison).caption
    best = {setting.label: profile for setting, profile in profiles(comparison)}["a"]
    assert best.share[0] == 0
    assert best.share[-1] == 1


def test_a_data_set_with_more_seeds_weighs_no_more_than_another():
    runs = store(
        ("a", "digits", [0.5, 0.5, 0.5]), ("a", "mnist", [0.9, np.nan, 0.9, 0.9, 0.1]),
        ("b", "digits", [0.6] * 3), ("b", "mnist", [0.6] * 3),
    )  # fmt: skip
    _, (comparison,) = compared(runs)
    first = next(each for each in comparison.compared if each.setting.label == "a")
    assert first.scores.tolist() == [[0.5, 0.9]] * 3
    assert first.left_out == 2
    assert "Left out: 2 runs without a finite value" in iqm_table(comparison).caption


def test_one_seed_gives_estimates_without_intervals():
    _, (comparison,) = compared(store(("a", "mnist", [0.5]), ("b", "mnist", [0.6, 0.7])))
    assert all(math.isnan(each.iqm.low) for each in comparison.compared)
    caption = iqm_table(comparison).caption
    assert "with n seeds on each data set" in caption
    assert "In brackets" not in caption


def test_a_setting_with_one_seed_is_in_no_pair():
    _, (comparison,) = compared(store(("a", "mnist", [0.5]), ("b", "mnist", [0.6, 0.7])))
    assert (comparison.improvements, improvement_table(comparison).rows) == ((), ())
    _, (comparison,) = compared(store(("a", "x", [0.5]), ("b", "x", [0.6, 0.7]), ("c", "x", [0.8, 0.9])))
    (pair,) = comparison.improvements
    assert (pair.first.rule, pair.second.rule) == ("c", "b")
    assert (pair.probability.mean, pair.probability.known) == (1.0, False)
    caption = improvement_table(comparison).caption
    assert "Left out: 1 setting with one seed." in caption
    assert "In brackets" not in caption
    assert "With 2 seeds each on every data set, this happens for two equal rules in one of 6 cases" in caption


def test_the_caption_explains_a_probability_of_1():
    # Of the orders of six distinct values one puts the first three on top, and for each data set anew.
    _, (comparison,) = compared(store(("a", "x", [1, 2, 3]), ("b", "x", [4, 5, 6])))
    assert "one of 20 cases" in improvement_table(comparison).caption
    _, (comparison,) = compared(store(*((r, d, v) for d in "xy" for r, v in (("a", [1, 2, 3]), ("b", [4, 5, 6])))))
    assert "one of 400 cases" in improvement_table(comparison).caption
    _, (comparison,) = compared(store(("a", "x", [1, 2, 5]), ("b", "x", [4, 5, 6])))
    assert "cases" not in improvement_table(comparison).caption


def test_pairs_are_those_of_the_best():
    settings = [i // 2 for i in range(2 * MOST_COMPARED + 8)]
    runs = pd.DataFrame([run_row(i, seed=i % 2, accuracy=lr / 100, lr=lr) for i, lr in enumerate(settings)])
    _, (comparison,) = compared(runs)
    assert len(comparison.compared) == MOST_COMPARED + 4
    assert len(comparison.improvements) == MOST_COMPARED * (MOST_COMPARED - 1) // 2
    assert comparison.improvements[0].first.label == f"grlu: lr = {MOST_COMPARED + 3}"
    assert f"the best {MOST_COMPARED} of {MOST_COMPARED + 4} settings" in improvement_table(comparison).caption
    assert len(profiles(comparison)) == MOST_COMPARED


def test_the_tables_show_intervals_and_the_mean_on_each_data_set():
    runs, _ = grlu_experiments(seeds=3, datasets=("fashion", "mnist"))
    _, (comparison,) = compared(runs)
    table = iqm_table(comparison)
    assert [column.heading for column in table.columns] == [
        "rule", "setting", "n", "interquartile mean (%)", "fashion", "mnist",
    ]  # fmt: skip
    assert "[" in cell_text(table.rows[0][3])
    assert table.rows[0][0] == "backprop"
    assert len(table.rows) == 5
    assert len(improvement_table(comparison).rows) == 10


def test_the_frames_hold_every_number():
    runs, _ = grlu_experiments(seeds=3)
    _, (comparison,) = compared(runs)
    frame = comparisons_frame([comparison])
    assert frame["interquartile_mean"].tolist() == [each.iqm.mean for each in comparison.compared]
    assert set(frame["seeds"]) == {3}
    pairs = improvements_frame([comparison])
    values = {each.setting.label: each.scores for each in comparison.compared}
    first = pairs.iloc[0]
    assert first["probability"] == probability_of_improvement(
        values[comparison.improvements[0].first.label], values[comparison.improvements[0].second.label]
    )
    assert list(comparisons_frame([]).columns) == list(frame.columns)
    assert list(improvements_frame([]).columns) == list(pairs.columns)


def test_a_setting_has_one_name_on_all_data_sets():
    # On one data set the two differ in lr, on the other there is only one: it is the same setting all the same.
    rows = [run_row(0, dataset="x", lr=1), run_row(1, dataset="x", lr=2), run_row(2, dataset="y", lr=1)]
    settings = settings_across(group_runs(pd.DataFrame(rows)))
    assert [(each.label, sorted(each.groups)) for each in settings] == [
        ("grlu: lr = 1", ["x", "y"]),
        ("grlu: lr = 2", ["x"]),
    ]


def test_a_field_that_names_the_data_set_is_no_difference():
    rows = [run_row(0, dataset="cart", env="cart", lr=1), run_row(1, dataset="pole", env="pole", lr=1)]
    (setting,) = settings_across(group_runs(pd.DataFrame(rows)))
    assert sorted(setting.groups) == ["cart", "pole"]
    assert setting.label == "grlu"


def test_the_profile_falls_from_all_runs_to_none():
    runs, _ = grlu_experiments(seeds=3)
    results, (comparison,) = compared(runs)
    figure = profile_figure(comparison, looks(results, settings_across([each.group for each in results])))
    for _, rows in figure.plot.data.groupby("label", observed=True):
        assert rows["share"].iloc[0] == 1
        assert rows["share"].iloc[-1] == 0
        assert (rows["share"].diff().dropna() <= 0).all()
    assert re.search(r"backprop: (67|33)% of runs better than \d\d\.\d\d%", figure.description)


def test_equal_scores_can_be_profiled():
    _, (comparison,) = compared(store(("a", "x", [0.0] * 3), ("b", "x", [0.0] * 3)))
    assert comparison.improvements[0].probability.mean == 0.5
    (_, profile), _ = profiles(comparison)
    assert (profile.share[0], profile.share[-1]) == (1, 0)


def test_the_name_of_a_comparison_is_one_of_a_file():
    _, (comparison,) = compared(store(("a", "/home/me/my set", [0.5]), ("b", "/home/me/my set", [0.6])))
    assert comparison.name == "test-accuracy-home-me-my-set"
    assert comparison.subject == "test accuracy on /home/me/my set"


def test_no_two_names_are_the_same():
    assert unique_name("a b", []) == "a-b"
    assert unique_name("a/b", ["a-b"]) == "a-b-2"
    assert unique_name("x" * 200, ["x" * 80, "x" * 80 + "-2"]) == "x" * 80 + "-3"
    assert unique_name("漢字", []) == "unnamed"
    runs = store(*((rule, task, [1.0, 2.0]) for rule in "ab" for task in ("my set", "my-set")), metric="test/return")
    names = [comparison.name for comparison in compared(runs)[1]]
    assert sorted(names) == ["test-return-my-set", "test-return-my-set-2"]
