"""Comparisons of chosen runs, from made-up stores."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from plastic_cli.errors import UserError
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.reports.side_by_side import RESULT_COLUMNS, Comparison
from plastic_cli.reports.side_tables import (
    as_html,
    as_json,
    comparison_page,
    equal_text,
    option_text,
    options_table,
    results_table,
    settings_table,
    tables_of,
)
from plastic_cli.statistics.intervals import difference_interval, mean_interval
from plastic_cli.tables import NOTHING, cell_text


@pytest.fixture
def two(make_runs):
    make_runs(perturbations=1, values=(0.1, 0.5, 0.6), step_of_seed=0.02)
    return Comparison(make_runs(perturbations=16, k=0.5))


def texts(table):
    return [[cell_text(cell) for cell in row] for row in table.rows]


def test_runs_that_differ_in_their_seed_are_one_setting(two):
    assert [(side.letter, side.title, side.seeds) for side in two.sides] == [
        ("A", "grlu on digits, perturbations = 1", (0, 1, 2)),
        ("B", "grlu on digits, perturbations = 16, k = 0.5", (0, 1, 2)),
    ]
    assert texts(settings_table(two))[0] == ["A", "grlu on digits, perturbations = 1", "3", "0 to 2"]


def test_differences_are_taken_seed_by_seed(two):
    row = two.results.set_index(["metric", "setting"]).loc[("test/accuracy", "B")]
    expected = mean_interval([0.3, 0.29, 0.28])
    assert row["difference"] == pytest.approx(expected.mean)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high))
    assert row["pairs"] == 3
    assert list(two.results.columns) == RESULT_COLUMNS
    assert texts(results_table(two))[0] == [
        "test accuracy", "62.00% [57.03, 66.97]", "91.00% [88.52, 93.48]", "+29.00 points [+26.52, +31.48]",
    ]  # fmt: skip
    assert "taken seed by seed: 95% paired t interval" in results_table(two).caption


def test_settings_without_common_seeds_have_the_interval_of_welch(make_runs):
    make_runs(perturbations=1, values=(0.6,), seeds=4)
    chosen = make_runs(perturbations=2, values=(0.9,), seeds=3)
    for place in range(4, 7):
        record = chosen.records[f"20261101-{place:04d}"]
        record.seed += 10
        chosen.runs.loc[place, "seed"] += 10
    comparison = Comparison(chosen)
    row = comparison.results.set_index(["metric", "setting"]).loc[("test/accuracy", "B")]
    expected = difference_interval([0.6, 0.61, 0.62, 0.63], [0.9, 0.91, 0.92])
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high))
    assert pd.isna(row["pairs"])
    assert "95% Welch t interval of the difference" in results_table(comparison).caption


def test_single_runs_have_a_difference_without_an_interval_and_a_note(make_runs):
    make_runs(perturbations=1, seeds=1, values=(0.6,))
    comparison = Comparison(make_runs(perturbations=2, seeds=1, values=(0.9,)))
    assert texts(results_table(comparison))[0] == ["test accuracy", "60.00%", "90.00%", "+30.00 points"]
    assert comparison.notes == ("Each setting has one run. The differences may be due to the seed.",)
    assert texts(settings_table(comparison))[0][2] == "20261101-0000"


def test_runs_of_one_setting_are_compared_one_by_one(make_runs):
    comparison = Comparison(make_runs(seeds=3, perturbations=1))
    assert [side.distinction for side in comparison.sides] == ["seed 0", "seed 1", "seed 2"]
    assert comparison.notes == ("All runs have the same options, so each run is compared.", "They differ in the seed.")
    assert comparison.options.empty
    assert comparison.results["difference"].dropna().round(6).tolist()[:2] == [0.01, 0.02]


def test_the_first_chosen_run_is_the_first_setting(make_runs):
    make_runs(perturbations=1)
    chosen = make_runs(perturbations=2)
    turned = replace(chosen, runs=chosen.runs.iloc[::-1])
    assert [side.distinction for side in Comparison(turned).sides] == ["perturbations = 2", "perturbations = 1"]


def test_a_repeated_seed_counts_once(make_runs):
    make_runs(perturbations=1, seeds=1, values=(0.2,))
    make_runs(perturbations=1, seeds=1, values=(0.3,))
    comparison = Comparison(make_runs(perturbations=2, seeds=1))
    assert comparison.results["mean"].iloc[0] == 0.3
    assert "1 run is left out: a newer run has the same options and seed." in comparison.notes


def test_options_that_differ_have_their_default_next_to_them(two):
    assert list(two.options.index) == ["perturbations", "k"]
    assert two.options.loc["perturbations"].tolist() == [1, 16, 16]
    assert two.options.loc["k", "A"] is pd.NA
    assert two.options.loc["k", "B"] == 0.5
    table = options_table(two)
    assert [column.heading for column in table.columns] == ["option", "A", "B", "default"]
    assert texts(table) == [["perturbations", "1", "16", "16"], ["k", NOTHING, "0.5", "none"]]


def test_of_two_rules_the_defaults_are_marked_and_those_of_one_rule_left_out(make_runs):
    make_runs(rule="grlu", perturbations=16, k=0.5, epochs=10, batch_size=1)
    comparison = Comparison(make_runs(rule="backprop", epochs=3, batch_size=64, optimizer="sgd"))
    table = options_table(comparison)
    assert texts(table) == [
        ["rule", "grlu", "backprop"],
        ["k", "0.5", NOTHING],
        ["epochs", "10 *", "3"],
        ["batch-size", "1 *", "64 *"],
        ["optimizer", NOTHING, "sgd"],
    ]
    assert "with their defaults: perturbations." in table.caption
    assert comparison.options.loc["epochs", "default of backprop"] == 10
    assert [comparison.label(side) for side in comparison.sides] == ["A: grlu", "B: backprop"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        ([256, 128], "256,128"),
        ([], "empty"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (pd.NA, NOTHING),
    ],
)
def test_a_value_is_shown_as_it_is_typed(value, text):
    assert option_text(value) == text


def test_more_than_two_settings_are_below_each_other_and_differ_from_the_first(make_runs):
    make_runs(perturbations=1, values=(0.5,), seeds=1)
    make_runs(perturbations=2, values=(0.4,), seeds=1)
    comparison = Comparison(make_runs(perturbations=3, values=(), seeds=1))
    assert texts(results_table(comparison))[:2] == [
        ["test accuracy", "A", "50.00%", NOTHING],
        ["", "B", "40.00%", "-10.00 points"],
    ]
    repeated = results_table(comparison, repeat_names=True)
    assert [row[0] for row in repeated.rows][:3] == ["test accuracy", "test accuracy", "time of the run"]


def test_differences_of_times_agree_with_the_times(make_runs):
    make_runs(perturbations=1, facts={"speed": {"seconds": 0.36}}, seeds=1)
    make_runs(perturbations=2, facts={"speed": {"seconds": 0.14}}, seeds=1)
    comparison = Comparison(make_runs(perturbations=3, facts={"speed": {"seconds": 0.0}}, seeds=1))
    assert [row[1:] for row in texts(results_table(comparison, repeat_names=True)) if row[0] == "time of training"] == [
        ["A", "0.36 s", NOTHING], ["B", "0.14 s", "-0.22 s"], ["C", "0.00 s", "-0.36 s"],
    ]  # fmt: skip


def test_long_times_have_the_unit_of_the_longest(make_runs):
    make_runs(perturbations=1, facts={"speed": {"seconds": 7200.0}}, seeds=1)
    comparison = Comparison(make_runs(perturbations=2, facts={"speed": {"seconds": 3.8}}, seeds=1))
    assert ["time of training", "2.00 h", "3.8 s", "-2.00 h"] in texts(results_table(comparison))


def test_an_interval_has_the_decimals_of_its_difference_and_constant_values_have_none(make_runs):
    for perturbations, losses in ((1, (1.0, 1.0, 1.0)), (2, (2.0, 2.1, 2.2))):
        for seed, loss in enumerate(losses):
            summary = {"test/loss": loss, "train/reward": 41.0, "train/messages": 4950 + 10 * loss * seed}
            chosen = make_runs(
                rule="eglp", perturbations=perturbations, seeds=1, facts={"summary": summary, "seed": seed}
            )
    rows = {row[0]: row[1:] for row in texts(results_table(Comparison(chosen)))}
    assert rows["test loss"] == ["1.000", "2.100 [1.852, 2.348]", "+1.10 [+0.85, +1.35]"]
    assert rows["messages to hidden layers"][0] == "4,960 [4,935, 4,985]"
    assert rows["training reward"] == ["41.00", "41.00", "0"]


def test_a_result_of_one_rule_has_the_name_that_this_rule_gives_it(make_runs):
    make_runs(rule="grlu")
    comparison = Comparison(make_runs(rule="eglp", facts={"summary": {"test/accuracy": 0.9, "train/events": 41.0}}))
    assert comparison.metric("train/events") == metric_of("train/events", "eglp") != metric_of("train/events")


def test_versions_machine_data_and_commit_that_differ_are_told(make_runs):
    facts = {
        "versions": {"torch": "2.1", "python": "3.11"}, "machine": {"device": "cpu", "cores": 2},
        "data": {"checksum": "a" * 64}, "project": {"commit": "c" * 40, "dirty": True},
    }  # fmt: skip
    make_runs(perturbations=1, facts=facts)
    other = {**facts, "versions": {"torch": "2.2", "python": "3.11"}, "machine": {"device": "cuda", "cores": 2}}
    comparison = Comparison(make_runs(perturbations=2, facts=other, values=(0.1, 0.2)))
    assert comparison.circumstances.to_dict("index") == {
        "version of torch": {"A": "2.1", "B": "2.2"},
        "device": {"A": "cpu", "B": "cuda"},
        "epochs trained": {"A": "2", "B": "1"},
    }
    assert equal_text(comparison) == "The same in all settings: data, commit."
    changed = Comparison(make_runs(perturbations=3, facts={**facts, "project": {"commit": "d" * 40}}))
    assert changed.circumstances.loc["commit"].tolist() == [
        "cccccccc with changes",
        "cccccccc with changes",
        "dddddddd",
    ]


def test_what_makes_results_less_comparable_is_a_note(make_runs):
    make_runs(dataset="digits")
    comparison = Comparison(make_runs(dataset="mnist", facts={"status": "interrupted"}))
    assert comparison.notes == (
        "The settings were trained on different data, so their results are not directly comparable.",
        "B has runs that are interrupted: their last values are shown.",
    )


def test_the_curves_of_the_settings_are_over_each_other(two):
    figure = two.figure()
    assert list(figure.data["label"].cat.categories) == ["A: perturbations = 1", "B: perturbations = 16, k = 0.5"]
    assert figure.labels.subtitle == "on digits"
    assert two.curves.columns.tolist() == ["setting", "step", "mean", "low", "high", "n"]
    assert two.curves["setting"].tolist() == ["A"] * 3 + ["B"] * 3


def test_what_was_logged_once_is_drawn_as_final_values(make_runs):
    make_runs(perturbations=1, values=(0.3,))
    figure = Comparison(make_runs(perturbations=2, values=(0.5,))).figure("test/accuracy")
    assert figure.data["mean"].round(6).tolist() == [0.51, 0.31]
    figure.draw()


def test_its_text_fits_80_columns_and_shows_everything(two):
    text = repr(two)
    assert max(map(len, text.splitlines())) <= 80
    for part in ("A  ", "perturbations = 16", "test accuracy", "+29.00", "[+26.52, +31.48]", "default"):
        assert part in text
    assert "<td" in as_html(two)
    assert "+29.00" in two._repr_html_()


def test_json_holds_all_tables(two):
    read = json.loads(as_json(two))
    assert list(read) == ["settings", "options", "results", "circumstances"]
    assert read["settings"][1]["seeds"] == [0, 1, 2]
    assert read["options"][1] == {"option": "k", "A": None, "B": 0.5, "default": None}
    assert math.isclose(read["results"][1]["difference"], 0.29)


def test_a_page_holds_tables_and_curves_and_no_markup_of_runs(make_runs):
    make_runs(rule="grlu", note="<b>bold</b>")
    page = comparison_page(Comparison(make_runs(rule="grlu", note="plain")))
    assert "<svg" in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert 'id="results-table"' in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_tables_without_rows_are_left_out(two):
    assert [table.title for table in tables_of(two).values()] == ["Compared", "Options that differ", "Results"]


def test_one_run_cannot_be_compared(make_runs):
    with pytest.raises(UserError, match="at least two runs"):
        Comparison(make_runs(seeds=1))


def test_a_result_without_logged_values_has_no_curve(make_runs):
    make_runs(perturbations=1, facts={"summary": {"test/accuracy": 0.5, "test/loss": 1.0}})
    comparison = Comparison(make_runs(perturbations=2, facts={"summary": {"test/loss": 2.0}}))
    assert comparison.metrics[:2] == ["test/loss", "test/accuracy"]
    assert comparison_page(comparison).count("<figure") == 1
    assert comparison.figure().labels.title == "Test accuracy"
