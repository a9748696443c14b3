"""Queries of the documentation on the reference: what they mean, and the numbers that they give."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

import measured
from plastic_cli.distribution import installed_version
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.record import settings_text
from plastic_cli.runs.reference import Reference, setting_text, write_reference
from plastic_cli.runs.stages import StageRecord, commit_stage
from plastic_cli.runs.store import RunStore
from plastic_cli.verbs.outliers import outliers

ACCURACIES = {1: [0.5, 0.61, 0.55, 0.58], 16: [0.7, 0.74, 0.69, 0.8], 128: [0.9, 0.93]}
CONTROLS = [0.4, 0.41, 0.43, 0.39]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Runs of grlu: 4, 4 and 2 seeds with 1, 16 and 128 perturbations, with a control and a curve."""
    folder = tmp_path_factory.mktemp("store")
    texts = []
    for perturbations, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            config = config_of(perturbations=perturbations, seed=seed)
            versions = {"plastic": installed_version()}
            run = create_run(folder, rule="grlu", config=config, versions=versions)
            lines = [
                {"stage": "train", "split": split, "step": 10 * step, "metric": metric, "value": value, "time": 1.0}
                for step in range(1, 6)
                for split, metric, value in (
                    ("test", "accuracy", accuracy * step / 5),
                    ("train", "images", 7.0 * step),
                )
            ]
            (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            summary = {"test/accuracy": accuracy, "control/accuracy": CONTROLS[seed], "train/events": 4.0}
            run.write_record(status="completed", started=run.record.created, summary=summary)
            texts.append(settings_text("grlu", run.config))
    write_reference(RunStore(folder), folder / "reference", {"recipe": texts})
    return Reference(folder / "reference")


def config_of(**options):
    return train_model(find_rule("grlu"))(**options).model_dump(mode="json")


@pytest.fixture
def settings():
    return {
        str(number): measured.setting_of({"rule": "grlu", "options": {"perturbations": number}})
        for number in (1, 16, 128, 512)
    }


def value(settings, reference, **query):
    return measured.measured({"of": "1", "metric": "test/accuracy", **query}, settings, reference)


def t_interval(values):
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


def test_a_mean_has_the_t_interval_of_the_seeds(settings, reference):
    found = value(settings, reference, scale=100)
    expected = [100 * each for each in ACCURACIES[1]]
    assert (found.n, found.mean) == (4, pytest.approx(np.mean(expected)))
    assert (found.low, found.high) == pytest.approx(t_interval(expected))
    assert found.each == pytest.approx(expected)
    assert found.versions == {installed_version()}


def test_an_interval_ends_where_values_end_and_an_error_is_one_minus_the_accuracy(settings, reference):
    clipped = value(settings, reference, of="16", within=[0, 0.78])
    low, high = t_interval(ACCURACIES[16])
    assert high > 0.78
    assert (clipped.low, clipped.high) == (pytest.approx(low), 0.78)
    error = value(settings, reference, scale=-100, offset=100)
    assert (error.low, error.high) == pytest.approx(t_interval([100 - 100 * each for each in ACCURACIES[1]]))


def test_two_settings_are_compared_seed_by_seed(settings, reference):
    pairs = list(zip(ACCURACIES[16], ACCURACIES[1], strict=True))
    difference = value(settings, reference, of="16", against="1")
    assert (difference.low, difference.high) == pytest.approx(t_interval([a - b for a, b in pairs]))
    ratio = value(settings, reference, of="16", against="1", relation="ratio")
    assert (ratio.mean, ratio.low) == pytest.approx((np.mean(r := [a / b for a, b in pairs]), t_interval(r)[0]))
    few = value(settings, reference, of="16", against="128", seeds=2)
    assert few.each == pytest.approx([a - b for a, b in zip(ACCURACIES[16], ACCURACIES[128], strict=False)])
    assert few.low is None


def test_two_metrics_of_a_run_are_compared(settings, reference):
    gain = value(settings, reference, minus="control/accuracy")
    assert gain.each == pytest.approx([a - b for a, b in zip(ACCURACIES[1], CONTROLS, strict=True)])
    ratio = value(settings, reference, divided_by="control/accuracy")
    assert ratio.each == pytest.approx([a / b for a, b in zip(ACCURACIES[1], CONTROLS, strict=True)])


def test_a_slope_is_fitted_for_each_seed(settings, reference):
    found = value(settings, reference, of=["1", "16"], statistic="slope", over=[0, 2])
    assert found.each == pytest.approx([(b - a) / 2 for a, b in zip(ACCURACIES[1], ACCURACIES[16], strict=True)])


def test_other_statistics(settings, reference):
    assert value(settings, reference, statistic="count", at_least=0.58).count == 2
    assert value(settings, reference, statistic="minimum").mean == 0.5
    assert value(settings, reference, statistic="maximum", scale=10).mean == pytest.approx(6.1)
    assert value(settings, reference, statistic="each").each == tuple(ACCURACIES[1])


def test_a_value_at_a_step_is_the_last_one_until_then(settings, reference):
    assert value(settings, reference, at=20).each == pytest.approx([each * 2 / 5 for each in ACCURACIES[1]])
    assert value(settings, reference, at=29).each == pytest.approx([each * 2 / 5 for each in ACCURACIES[1]])
    along = value(settings, reference, at=21, along="train/images")
    assert along.each == pytest.approx([each * 3 / 5 for each in ACCURACIES[1]])


def test_a_query_means_exactly_one_setting(settings, reference):
    assert settings["16"].text == setting_text("grlu", config_of(perturbations=16))
    same = measured.setting_of({"rule": "grlu", "options": {"perturbations": 16, "learning_rate": 0.1}})
    assert same == settings["16"]
    of_recipe = measured.setting_of({"recipe": "grlu-gr-04"})
    assert (of_recipe.rule, of_recipe.config["batch_size"], of_recipe.recipes[0]) == ("grlu", 16, "grlu-gr-04")
    cells = {"recipe": "eglp-cnn", "where": {"dataset": "fashion"}}
    assert measured.setting_of(cells).config["dataset"] == "fashion"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"recipe": "eglp-cnn"}, "has 2 settings with any option: eglp dataset=mnist .*; eglp dataset=fashion"),
        ({"recipe": "eglp-cnn", "where": {"dataset": "digits"}}, "has no runs with dataset=digits"),
        ({"recipe": "eglp-cnn", "where": {"data_set": "digits"}}, "no rule has an option 'data_set'"),
        ({"recipe": "feedback-fig-1", "runs": "alignment"}, "has no runs named 'alignment'"),
        ({"recipe": "no-recipe"}, "there is no recipe 'no-recipe'"),
        ({"rule": "grlu", "options": {"perturbation": 1}}, "perturbations"),
        ({"options": {}}, "name a recipe, or a rule"),
        ({"recipe": "eglp-cnn", "wheree": {}}, "a setting has no key 'wheree'"),
    ],
)
def test_a_setting_that_is_none_or_several_is_named(entry, message):
    with pytest.raises(UserError, match=message):
        measured.setting_of(entry)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"of": "2"}, "there is no setting '2'. There are: 1, 16, 128, 512"),
        ({"statistic": "median"}, "statistic is one of mean"),
        ({"statistics": "mean"}, "a query has no key 'statistics'"),
        ({"minus": "control/loss"}, "has no control/loss"),
        ({"of": ["1", "16"]}, "have runs with the same seed"),
    ],
)
def test_a_wrong_query_is_named(query, message, settings, reference):
    with pytest.raises(UserError, match=message):
        value(settings, reference, **query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"of": "512"}, "grlu perturbations=512: the reference has 0 of 3 seeds"),
        ({"of": "128"}, "the reference has 2 of 3 seeds"),
        ({"seeds": 5}, "the reference has 4 of 5 seeds"),
        ({"metric": "test/return"}, "no run has the metric test/return"),
        ({"stage": "eval"}, "no run has the metric"),
    ],
)
def test_a_query_without_runs_says_what_is_missing(query, message, settings, reference):
    with pytest.raises(measured.NotMeasuredError, match=message):
        value(settings, reference, **query)


def test_a_query_can_show_fewer_seeds_than_an_interval_needs(settings, reference):
    whole = len(value(settings, reference).each)
    assert len(value(settings, reference, fewest=1).each) == whole
    with pytest.raises(measured.NotMeasuredError, match=f"{whole} of {whole + 1} seeds"):
        value(settings, reference, fewest=whole + 1)


def test_the_first_seeds_count_if_a_query_names_their_number(settings, reference):
    assert value(settings, reference, seeds=3).each == tuple(ACCURACIES[1][:3])


def test_data_of_two_contents_are_no_setting(settings, reference):
    class TwoContents:
        def with_setting(self, rule, config):
            rows = reference.with_setting(rule, config)
            return [{**row, "data_checksum": f"contents {row['seed'] % 2}"} for row in rows]

    with pytest.raises(UserError, match="different contents: contents 0, contents 1"):
        value(settings, TwoContents())


def test_a_result_of_a_stage_is_that_of_its_options(tmp_path):
    run = create_run(tmp_path, rule="grlu", config=config_of())
    run.write_record(status="completed", started=run.record.created, summary={"test/accuracy": 0.9})
    for minute, (corruption, accuracy) in enumerate((("a", 0.5), ("b", 0.6), ("c", 0.7))):
        options = {"corruption": corruption, "samples": 7}
        finished = f"2026-11-28T10:0{minute}:00.000+00:00"
        commit_stage(run.folder, StageRecord("eval", options, {"test/accuracy": accuracy}, finished=finished), "")
    write_reference(RunStore(tmp_path), tmp_path / "reference", {"recipe": [settings_text("grlu", run.config)]})
    settings = {"one": measured.setting_of({"rule": "grlu"})}
    query = {"of": "one", "stage": "eval", "metric": "test/accuracy", "seeds": 1}
    stored = Reference(tmp_path / "reference")
    assert measured.measured({**query, "with": {"corruption": "b"}}, settings, stored).mean == 0.6
    with pytest.raises(UserError, match="eval with several configurations"):
        measured.measured({**query, "with": {"samples": 7}}, settings, stored)


def test_a_claim_is_judged_by_the_runs_of_its_recipe():
    stored = measured.stored_reference()
    rows = [row for row in stored.of_recipe("grlu-gr-04") if row["status"] == "completed"]
    own = measured.setting_of({"recipe": "grlu-gr-04"})
    values = [row["summary"]["test/accuracy"] for row in rows if setting_text("grlu", row["config"]) == own.text]
    found = measured.claims(stored)["GR-04"]
    assert (found.n, found.mean) == (len(values), pytest.approx(np.mean(values)))
    assert (found.low, found.high) == pytest.approx(t_interval(values))
    assert found.word in ("not reproduced", "reproduced", "inconclusive")
    assert found.words.startswith(found.word)


def test_a_claim_without_runs_is_untested():
    untested = measured.claims(measured.stored_reference())["EG-02-cifar10"]
    assert (untested.mean, untested.word) == (None, "untested")


def test_each_claim_has_one_setting():
    """Conditions that two settings of a recipe meet would give one claim two verdicts."""
    for name, results in measured.judged_claims(measured.stored_reference()).items():
        assert len(results) <= 1, name
        assert all(math.isfinite(result.verdict.interval.mean) for result in results if result.verdict.interval.n)


def test_the_verdicts_on_a_rule_are_counted():
    stored = measured.stored_reference()
    words = [value.word for name, value in measured.claims(stored).items() if name.startswith("SP-")]
    for verdict in ("reproduced", "not reproduced", "inconclusive", "untested"):
        found = measured.count_of_verdicts({"claims": "selective", "verdict": verdict}, stored)
        assert (found.count, found.n) == (words.count(verdict), len(words))
    tested = measured.count_of_verdicts({"claims": "selective", "verdict": "tested"}, stored)
    assert tested.count == len(words) - words.count("untested")
    with pytest.raises(UserError, match="there is no verdict 'true'"):
        measured.count_of_verdicts({"claims": "selective", "verdict": "true"}, stored)


def test_the_share_of_outliers_is_that_of_the_reference():
    stored = measured.stored_reference()
    found = measured.share_of_outliers({"outliers": 20}, stored)
    expected = outliers(stored, 20)
    assert found.mean == pytest.approx(100 * expected.outside / expected.values)
    assert found.count == expected.values
    with pytest.raises(UserError, match="a share of outliers"):
        measured.share_of_outliers({"outliers": 20, "rule": "grlu"}, stored)
