import math

import numpy as np
import pandas as pd

from plastic_cli.reports.claims import Context, read_claims
from plastic_cli.reports.frames import claims_frame
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.results import judge_claims, metric_columns, more_is_better, summarize
from plastic_cli.reports.tables import claims_table, results_table
from plastic_cli.statistics.intervals import mean_interval
from plastic_cli.tables import Detailed
from reports.report_frames import run_row


def test_each_group_gets_the_interval_of_its_own_runs(experiments):
    runs, _ = experiments
    groups = group_runs(runs)
    by_run = runs.set_index("run")
    for group, result in zip(groups, summarize(runs, groups), strict=True):
        assert result.metric == "test/accuracy"
        for interval, column in (
            (result.value, "test/accuracy"),
            (result.loss, "test/loss"),
            (result.seconds, "training_seconds"),
        ):
            assert interval == mean_interval([by_run.loc[run, column] for run in group.runs])


def test_the_main_metric_is_the_first_that_a_group_has():
    runs = pd.DataFrame(
        [
            run_row(0, rule="a") | {"train/loss": 1.0, "test/return": 5.0, "test/length": 9.0},
            run_row(1, rule="b") | {"train/loss": 1.0},
            run_row(2, rule="c") | {"test/return": 2.0, "test/accuracy": 0.5},
            run_row(3, rule="d"),
            run_row(4, rule="e") | {"test/accuracy": math.nan, "test/length": 3.0},
        ]
    )
    results = summarize(runs, group_runs(runs))
    assert [result.metric for result in results] == ["test/return", "train/loss", "test/accuracy", None, "test/length"]
    assert results[3].value.n == 0
    assert metric_columns(runs) == ["train/loss", "test/return", "test/length", "test/accuracy"]


def test_a_loss_that_is_the_main_metric_is_not_shown_twice():
    runs = pd.DataFrame([run_row(0, loss=0.5)])
    (result,) = summarize(runs, group_runs(runs))
    assert result.metric == "test/loss"
    assert result.loss.n == 0


def test_a_verdict_stands_beside_the_group_that_meets_the_conditions(experiments, claims_text):
    runs, _ = experiments
    groups = group_runs(runs)
    results = summarize(runs, groups, {"grlu": read_claims("grlu", claims_text)})
    verdicts = {result.group.setting: result.verdict for result in results if result.verdict}
    assert {setting: verdict.claim.id for setting, verdict in verdicts.items()} == {
        "perturbations = 16, activation = top-k, k = 0.5": "GR-02",
        "perturbations = 128, activation = relu": "GR-06",
    }
    assert verdicts["perturbations = 16, activation = top-k, k = 0.5"].word == "reproduced"
    assert verdicts["perturbations = 128, activation = relu"].side == "below"


def test_the_most_specific_claim_is_the_one_shown(experiments, claims_text):
    loose = claims_text.split("[[claim]]")[2].replace("GR-06", "GR-00").replace(', activation = "relu"', "")
    runs, _ = experiments
    groups = group_runs(runs)
    for text in (f"[[claim]]{loose}\n{claims_text}", f"{claims_text}\n[[claim]]{loose}"):
        results = summarize(runs, groups, {"grlu": read_claims("grlu", text)})
        assert [result.verdict.claim.id for result in results if result.verdict] == ["GR-02", "GR-06"]


def test_a_claim_is_judged_for_every_group_that_meets_it_and_listed_where_none_does(claims_text):
    common = {"hidden": [256], "perturbations": 16, "k": 0.5}
    rows = [run_row(3 * i + seed, seed=seed, accuracy=0.93 - i, epochs=epochs, **common)
            for i, epochs in enumerate((10, 20)) for seed in range(3)]  # fmt: skip
    runs = pd.DataFrame(rows)
    groups = group_runs(runs)
    found = judge_claims(runs, groups, {"grlu": read_claims("grlu", claims_text)})
    assert [(row.entry.id, row.group and row.group.setting, row.verdict and row.verdict.word) for row in found] == [
        ("GR-02", "epochs = 10", "reproduced"),
        ("GR-02", "epochs = 20", "not reproduced"),
        ("GR-06", None, "untested"),
        ("GR-21", None, None),
    ]


def test_a_claim_looks_at_its_own_metric_and_rule(claims_text):
    text = claims_text.replace("test/accuracy", "test/loss")
    runs = pd.DataFrame(
        [run_row(seed, seed=seed, accuracy=0.93, loss=0.93, hidden=[256], perturbations=16, k=0.5) for seed in range(3)]
    )
    groups = group_runs(runs)
    published = {"grlu": read_claims("grlu", text)}
    assert judge_claims(runs, groups, published)[0].verdict.word == "reproduced"
    # Beside the accuracy there is nothing published now.
    assert summarize(runs, groups, published)[0].verdict is None
    other = {"oja": read_claims("oja", text)}
    assert all(row.group is None for row in judge_claims(runs, groups, other))


def test_other_methods_are_shown_where_a_group_meets_their_conditions(claims_text):
    published = {"grlu": read_claims("grlu", claims_text)}
    for dataset, shown in (("mnist", 1), ("digits", 0)):
        runs = pd.DataFrame([run_row(0, dataset=dataset)])
        found = judge_claims(runs, group_runs(runs), published)
        assert sum(isinstance(row.entry, Context) for row in found) == shown


def test_which_way_is_better():
    assert more_is_better("test/accuracy")
    assert more_is_better("test/return")
    assert not more_is_better("test/loss")
    assert not more_is_better("test/error")


def test_missing_values_are_counted_out():
    runs = pd.DataFrame(
        [run_row(seed, seed=seed, accuracy=value) for seed, value in enumerate([0.5, np.nan, 0.6, 0.7])]
    )
    (result,) = summarize(runs, group_runs(runs))
    assert (result.value.n, result.value.dropped, len(result.group.runs)) == (3, 1, 4)


AGAINST = """
[[claim]]
id = "X-1"
statement = "lies below by .1"
metric = "test/accuracy"
value = -0.1
tolerance = 0.02
tolerance_reason = "r"
source = "paper"
evidence = "V"
conditions = { terms = 2 }
against = { terms = 3 }
"""


def of_two_settings(first, second, **fields):
    """Runs with terms 2 and with terms = 3, a value for each seed."""
    rows = [run_row(seed, seed=seed, accuracy=value, terms=2, rate=1.0) for seed, value in enumerate(first)]
    rows += [
        run_row(10 + seed, seed=seed, accuracy=value, **{"terms": 3, "rate": 1.0, **fields})
        for seed, value in enumerate(second)
    ]
    runs = pd.DataFrame(rows)
    return runs, group_runs(runs)


def judged_against(text, *levels, **fields):
    (row,) = judge_claims(*of_two_settings(*levels, **fields), {"grlu": read_claims("grlu", text)})
    return row.verdict


def test_a_claim_about_two_settings_is_judged_by_the_differences_seed_by_seed():
    # The seeds vary by much more than the difference does.
    first, second = [0.2, 0.5, 0.8], [0.301, 0.599, 0.9]
    verdict = judged_against(AGAINST, first, second)
    assert verdict.word == "reproduced"
    assert verdict.interval == mean_interval([0.2 - 0.301, 0.5 - 0.599, 0.8 - 0.9])
    assert judged_against(AGAINST, second, first).side == "above"
    # A seed that only one of the two has is left out.
    assert judged_against(AGAINST, [*first, 0.1], second).interval.n == 3


def test_a_claim_about_a_ratio_is_judged_by_the_ratios():
    text = AGAINST.replace("value = -0.1", "value = 0.5").replace("against", 'relation = "ratio"\nagainst')
    verdict = judged_against(text, [0.1, 0.201, 0.3], [0.2, 0.4, 0.6])
    assert verdict.interval == mean_interval([0.1 / 0.2, 0.201 / 0.4, 0.3 / 0.6])
    assert verdict.word == "reproduced"
    assert judged_against(text, [0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.6, 0.0]).reason == "3 of 4 finished"


def test_a_seed_that_failed_in_both_settings_is_lost_once():
    rows = [
        run_row(10 * terms + seed, seed=seed, accuracy=0.1 * terms, terms=terms)
        for terms in (2, 3)
        for seed in range(5)
    ]
    runs = pd.DataFrame(rows)
    is_lost = runs["run"].isin(["r00024", "r00034", "r00033"])
    groups = group_runs(runs[~is_lost], failed=runs[is_lost])
    (row,) = judge_claims(runs[~is_lost], groups, {"grlu": read_claims("grlu", AGAINST)})
    assert (row.verdict.lost, row.verdict.reason) == (2, "3 of 5 finished")


def test_the_other_setting_must_be_equal_in_all_else():
    untested = judged_against(AGAINST, [0.2, 0.5, 0.8], [0.3, 0.6, 0.9], rate=2.0)
    assert (untested.word, untested.reason) == ("untested", "no run with terms = 3, otherwise equal")
    # A field that the other setting does not have is no difference.
    assert judged_against(AGAINST, [0.2, 0.5, 0.8], [0.3, 0.6, 0.9], rate=None).interval.n == 3


def test_the_control_that_runs_carry_is_compared_with_the_band(claims_text):
    rows = [run_row(seed, seed=seed, accuracy=0.928, hidden=[256], perturbations=16, k=0.5) for seed in range(3)]
    runs = pd.DataFrame(rows)
    published = {"grlu": read_claims("grlu", claims_text)}
    words = {}
    for level in (0.85, 0.929):
        with_control = runs.assign(**{"control/accuracy": level})
        groups = group_runs(with_control)
        words[level] = judge_claims(with_control, groups, published)[0].verdict.word
        assert summarize(with_control, groups, published)[0].verdict.word == words[level]
    assert words == {0.85: "reproduced", 0.929: "inconclusive"}


def test_failed_seeds_reach_the_verdict_and_the_table(claims_text):
    rows = [run_row(seed, seed=seed, accuracy=0.928, hidden=[256], perturbations=16, k=0.5) for seed in range(5)]
    runs = pd.DataFrame(rows)
    groups = group_runs(runs.iloc[:3], failed=runs.iloc[3:])
    published = {"grlu": read_claims("grlu", claims_text)}
    row = judge_claims(runs.iloc[:3], groups, published)[0]
    assert (row.verdict.word, row.verdict.reason) == ("inconclusive", "3 of 5 finished")
    (result,) = summarize(runs.iloc[:3], groups, published)
    table = results_table([result])
    assert dict(zip([column.heading for column in table.columns], table.rows[0], strict=True))["n"] == "3 of 5 finished"
    assert claims_table([row]).rows[0][-3:-1] == ("3 of 5 finished", Detailed("inconclusive", "3 of 5 finished"))
    assert claims_frame([row])["failed"].tolist() == [2]
