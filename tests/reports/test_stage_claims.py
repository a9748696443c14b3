"""Claims about results of eval and analyze."""

import numpy as np
import pandas as pd
import pytest

from plastic_cli.errors import UserError
from plastic_cli.reports.claims import quantity, read_claims, unknown_stage_options
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.results import judge_claims, summarize
from plastic_cli.reports.stages import is_stage_of, stage_defaults
from plastic_cli.runs.stages import StageRecord, commit_stage
from reports.report_frames import run_row

CLAIM = """
[[claim]]
id = "X-1"
statement = "half of the units are silent"
metric = "layer 1/silent"
value = 0.51
tolerance = 0.02
tolerance_reason = "r"
source = "paper"
evidence = "V"
stage = "analyze"
options = { sparsity = true }
conditions = { dataset = "mnist" }
"""


def claims(*lines):
    return read_claims("grlu", CLAIM + "\n".join(lines))


@pytest.fixture
def judged(tmp_path):
    """Return the verdict of the claim: runs with one stage for each value; None for a run without it."""

    def judge(figures, values, verb="analyze", config=(("sparsity", True),), **columns):
        rows = []
        for seed, value in enumerate(values):
            row = run_row(seed, seed=seed, accuracy=0.9) | {"folder": str(tmp_path / f"r{seed}")}
            rows.append(row | {name: given[seed] for name, given in columns.items()})
            if value is not None:
                results = value if isinstance(value, dict) else {"layer 1/silent": value}
                save(tmp_path / f"r{seed}", verb, dict(config), results)
        runs = pd.DataFrame(rows)
        groups = group_runs(runs)
        (row,) = judge_claims(runs, groups, {"grlu": figures})
        # A result of a stage is never the one that the table of results shows.
        assert summarize(runs, groups, {"grlu": figures})[0].verdict is None
        return row.verdict

    return judge


def save(folder, verb, config, results, finished="2026-01-01T00:00:00"):
    (folder).mkdir(exist_ok=True)
    defaults = stage_defaults("grlu", verb)
    commit_stage(folder, StageRecord(verb, {**defaults, **config}, results, finished=finished), "")


def test_the_value_of_each_seed_is_that_of_its_stage(judged):
    verdict = judged(claims(), [0.505, 0.51, 0.512])
    assert verdict.word == "reproduced"
    assert verdict.interval.mean == pytest.approx(np.mean([0.505, 0.51, 0.512]))
    assert judged(claims(), [0.6, 0.61, 0.612]).side == "above"


def test_runs_without_the_stage_are_left_out_and_did_not_fail(judged):
    verdict = judged(claims(), [0.51, None, 0.512, 0.511])
    assert (verdict.word, verdict.interval.n, verdict.lost) == ("reproduced", 3, 0)


def test_a_claim_says_which_command_is_missing(judged):
    verdict = judged(claims(), [None, None, None])
    assert (verdict.word, verdict.reason) == ("untested", "no `plastic analyze with sparsity` of these runs")


def test_a_result_that_is_not_finite_is_a_lost_seed(judged):
    verdict = judged(claims(), [0.51, 0.511, 0.512, {"layer 1/silent": None}])
    assert (verdict.word, verdict.lost) == ("inconclusive", 1)


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ({"sparsity": True, "probe": True}, True),
        ({"sparsity": True, "device": "cpu"}, True),
        ({"sparsity": False}, False),
        ({"sparsity": True, "samples": 3}, False),
    ],
)
def test_options_that_are_not_named_have_their_defaults_except_further_measures(judged, config, counts):
    verdict = judged(claims(), [0.51, 0.51, 0.51], config=config.items())
    assert verdict.interval.n == (3 if counts else 0)


def test_another_command_does_not_count(judged):
    assert judged(claims(), [0.51, 0.51, 0.51], verb="eval", config=()).interval.n == 0


def test_the_newest_stage_with_the_result_counts(tmp_path, judged):
    for seed in range(3):
        save(tmp_path / f"r{seed}", "analyze", {"sparsity": True}, {"layer 1/silent": 0.9}, "2025-01-01T00:00:00")
        save(tmp_path / f"r{seed}", "analyze", {"sparsity": True, "probe": True}, {"probe/pixels": 0.9}, "2027-01-01")
    verdict = judged(claims(), [0.51, 0.51, 0.51], config=(("sparsity", True), ("cka", True)))
    assert verdict.interval.mean == 0.51


def test_a_control_is_another_result_of_the_same_stage(judged):
    figures = claims('control_metric = "layer 1/untrained"')
    near = [{"layer 1/silent": value, "layer 1/untrained": 0.5} for value in (0.51, 0.511, 0.512)]
    far = [{**values, "layer 1/untrained": 0.2} for values in near]
    assert judged(figures, near).word == "inconclusive"
    assert judged(figures, far).word == "reproduced"


def test_a_difference_from_another_result_is_taken_seed_by_seed(judged):
    text = CLAIM.replace("0.51", "0.0")
    figures = read_claims("grlu", text + 'against_metric = "layer 1/untrained"\n')
    # The seeds differ much more than the two results of one seed.
    values = [{"layer 1/silent": base + 0.001, "layer 1/untrained": base} for base in (0.1, 0.5, 0.9)]
    verdict = judged(figures, values)
    assert verdict.word == "reproduced"
    assert verdict.interval.mean == pytest.approx(0.001)
    ratio = read_claims("grlu", CLAIM + 'relation = "ratio"\nagainst_metric = "layer 1/untrained"\n')
    assert judged(ratio, [{"layer 1/silent": 1.0, "layer 1/untrained": 2.0}] * 3).interval.mean == 0.5
    assert quantity(figures.claims[0], "grlu").name.startswith("difference of")


def test_the_other_result_may_be_a_metric_of_training(judged):
    figures = read_claims("grlu", CLAIM.replace("0.51", "-0.4") + 'against_metric = "test/accuracy"\n')
    verdict = judged(figures, [0.5, 0.5, 0.5])
    assert verdict.interval.mean == pytest.approx(0.5 - 0.9)


def test_two_settings_are_compared_in_the_same_stage(tmp_path):
    text = CLAIM.replace("0.51", "0.1").replace('dataset = "mnist"', "terms = 2") + "against = { terms = 3 }\n"
    rows = []
    for number, (terms, seed, value) in enumerate(
        [(2, 0, 0.5), (2, 1, 0.7), (2, 2, 0.6), (2, 3, 0.1), (3, 0, 0.4), (3, 1, 0.6), (3, 2, 0.5), (3, 3, None)]
    ):
        folder = tmp_path / f"r{number}"
        rows.append(run_row(number, seed=seed, terms=terms) | {"folder": str(folder)})
        if value is not None:
            save(folder, "analyze", {"sparsity": True}, {"layer 1/silent": value})
    runs = pd.DataFrame(rows)
    (row,) = judge_claims(runs, group_runs(runs), {"grlu": read_claims("grlu", text)})
    assert row.verdict.word == "reproduced"
    assert (row.verdict.interval.n, row.verdict.interval.mean) == (3, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('stage = "analyze"\n', "", "'metric': 'layer 1/silent' is not the name of a metric of training"),
        ('stage = "analyze"\n', 'stage = "train"\n', "'stage': input should be 'eval' or 'analyze'"),
        ('metric = "layer 1/silent"', 'metric = "silent"', "'metric': string should match pattern"),
        ('stage = "analyze"\n', 'stage = "analyze"\nrelation = "ratio"\n', "'relation' needs 'against'"),
        (
            'stage = "analyze"\n',
            'stage = "analyze"\nagainst = { k = 1 }\nagainst_metric = "a/b"\n',
            "'against' and 'against_metric' both say",
        ),
    ],
)
def test_wrong_claims_are_one_line(old, new, message):
    with pytest.raises(UserError) as caught:
        read_claims("grlu", CLAIM.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_without_a_stage_are_an_error():
    text = CLAIM.replace('stage = "analyze"\n', "").replace("layer 1/silent", "test/accuracy")
    with pytest.raises(UserError, match=r"'options' needs 'stage'"):
        read_claims("grlu", text)


def test_an_option_that_the_command_does_not_have_is_named():
    figures = read_claims("grlu", CLAIM.replace("sparsity", "sparsty"))
    (line,) = unknown_stage_options(figures.claims, {"analyze": ["sparsity", "probe"]})
    assert line.startswith("X-1: analyze has no option 'sparsty'.")
    assert unknown_stage_options(claims().claims, {"analyze": ["sparsity"]}) == []


def test_lists_and_numbers_of_options_are_compared_by_value():
    defaults = {"corruption": [], "split": "test"}
    stored = {"corruption": ("pixel-noise:0.3",), "split": "test", "device": "cpu"}
    assert is_stage_of({"corruption": ["pixel-noise:0.3"]}, stored, defaults)
    assert not is_stage_of({}, stored, defaults)
    assert not is_stage_of({"corruption": ["pixel-noise:0.3"]}, {**stored, "split": "train"}, defaults)
