import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_frames import CLAIMS, run_row

from plastic_cli.errors import UserError
from plastic_cli.report.claims import Claim, judge, read_claims, unknown_conditions
from plastic_cli.report.grouping import group_runs

PLUGINS = Path(__file__).parents[2] / "plugins"


def claim(value=0.9, tolerance=0.01, comparison="equal", **conditions):
    return Claim(
        id="X-1", statement="s", metric="test/accuracy", value=value, tolerance=tolerance, tolerance_reason="r",
        comparison=comparison, source="paper", evidence="V", conditions=conditions,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "level", "word", "side"),
    [
        ("equal", 0.90, "reproduced", None),
        ("equal", 0.9099, "reproduced", None),
        ("equal", 0.8901, "reproduced", None),
        ("equal", 0.92, "not reproduced", "above"),
        ("equal", 0.88, "not reproduced", "below"),
        ("at-least", 0.99, "reproduced", None),
        ("at-least", 0.8901, "reproduced", None),
        ("at-least", 0.88, "not reproduced", "below"),
        ("at-most", 0.1, "reproduced", None),
        ("at-most", 0.9099, "reproduced", None),
        ("at-most", 0.92, "not reproduced", "above"),
    ],
)
def test_verdict_on_every_side(comparison, level, word, side):
    verdict = judge(claim(comparison=comparison), [level] * 3)
    assert (verdict.word, verdict.side) == (word, side)
    if side:
        assert side in verdict.reason


def test_the_ends_belong_to_the_interval():
    # .9 + .01 and .91 differ in the last bit, which must not decide.
    assert judge(claim(), [0.91] * 3).word == "reproduced"
    assert judge(claim(), [0.89] * 3).word == "reproduced"
    assert judge(claim(tolerance=0.0), [0.9] * 3).word == "reproduced"
    assert judge(claim(tolerance=0.0), [0.9001] * 3).word == "not reproduced"


def test_the_interval_counts_and_not_the_mean():
    values = [0.86, 0.88, 0.905]
    verdict = judge(claim(), values)
    assert abs(np.mean(values) - 0.9) > 0.01
    assert verdict.interval.high + 0.01 > 0.9
    assert verdict.word == "reproduced"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no run"),
        ([0.9], "1 of 3 seeds"),
        ([0.9, 0.9], "2 of 3 seeds"),
        ([0.9, np.nan, 0.9, np.inf], "2 of 3 seeds"),
    ],
)
def test_fewer_than_three_seeds_leave_it_untested(values, reason):
    verdict = judge(claim(), values)
    assert (verdict.word, verdict.reason, verdict.side) == ("untested", reason, None)


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 0.1),
    st.sampled_from([("equal", "equal"), ("at-least", "at-most"), ("at-most", "at-least")]),
)
def test_turning_the_axis_round_keeps_the_verdict_and_changes_sides(level, value, tolerance, comparisons):
    verdict = judge(claim(value, tolerance, comparisons[0]), [level] * 3)
    turned = judge(claim(-value, tolerance, comparisons[1]), [-level] * 3)
    assert verdict.word == turned.word
    assert {verdict.side, turned.side} in ({None}, {"below", "above"})


def test_conditions_are_compared_as_values(claims_text):
    figures = read_claims("grlu", claims_text)
    first = figures.claims[0]
    rows = [
        run_row(0, hidden=[256], perturbations=16, k=0.5),
        run_row(1, hidden=[256, 128], perturbations=16, k=0.5),
        run_row(2, hidden=[256], perturbations=None, k=0.5),
        run_row(3, hidden=[256], perturbations=16, k=0.5, dataset="digits"),
        run_row(4, hidden=[256], perturbations=16, k=None),
    ]
    frame = pd.DataFrame(rows)
    assert frame["config.perturbations"].dtype == float
    met = [group.runs[0] for group in group_runs(frame) if first.holds_for(group)]
    assert met == ["r00000"]


def test_a_field_that_no_run_has_is_not_met():
    (group,) = group_runs(pd.DataFrame([run_row(0)]))
    assert not claim(no_such_field=1).holds_for(group)
    assert claim().holds_for(group)


def test_only_what_was_read_in_the_source_is_kept(claims_text):
    figures = read_claims("grlu", claims_text)
    assert [entry.id for entry in figures.claims] == ["GR-02", "GR-06"]
    assert [entry.id for entry in figures.context] == ["GR-21"]
    assert figures.context[0].link == "https://doi.org/10.0000/example"
    assert figures.claims[0].link == "https://example.org"
    assert figures.claims[1].link is None


def test_figures_about_one_data_set(claims_text):
    figures = read_claims("grlu", claims_text)
    assert figures.about("mnist") == figures
    assert figures.about("digits").claims == ()
    assert figures.about("digits").context == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('value = 0.9283', 'value = "high"'), "claim 1 (GR-02): 'value': input should be a valid number."),
        (('tolerance = 0.005', 'tolerance = -1.0'), "claim 1 (GR-02): 'tolerance': input should be greater than"),
        (('value = 0.9283', 'value = nan'), "claim 1 (GR-02): 'value': input should be a finite number."),
        (('tolerance_reason = "one published seed"\nsource = "configs.md, Run 1"', 'source = "x"'),
         "claim 1 (GR-02): the key 'tolerance_reason' is missing."),
        (('statement = "16', 'statment = "16'), "claim 1 (GR-02): there is no key 'statment'. Did you mean"),
        (('id = "GR-06"', 'id = "GR-02"'), "the id 'GR-02' is used twice."),
        (('id = "GR-02"\n', ''), "claim 1: the key 'id' is missing."),
        (('evidence = "V"', 'evidence = "X"'), "claim 1 (GR-02): 'evidence': input should be 'V', 'S', 'R' or 'I'."),
        (('metric = "test/accuracy"', 'metric = "accuracy"'), "claim 1 (GR-02): 'metric': string should match"),
        (('dataset = "mnist", hidden', 'dataset = 2020-01-01, hidden'),
         "claim 1 (GR-02): 'conditions': 'dataset' must be"),
        (('[[context]]', '[context]'), "write [[context]] with two brackets"),
        (('[[context]]', '[[contxt]]'), "there is no table 'contxt'. Did you mean 'context'?"),
        (('[[context]]', '[[context]'), "it is not valid TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_entry_and_key(change, message):
    text = CLAIMS.replace(*change, 1)
    assert text != CLAIMS
    with pytest.raises(UserError) as caught:
        read_claims("grlu", text)
    assert str(caught.value).startswith("claims.toml of rule 'grlu': ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_must_be_a_table():
    with pytest.raises(UserError, match="claim 1 must be a table"):
        read_claims("grlu", "claim = [3]")


def test_conditions_on_unknown_fields_are_found():
    found = unknown_conditions([claim(perturbatons=16, k=0.5)], ["perturbations", "k"])
    assert found == ["X-1: there is no field 'perturbatons'. Did you mean 'perturbations'?"]


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*/claims.toml")), ids=lambda path: path.parent.name)
class TestInstalledClaims:
    def test_is_read_without_a_mistake(self, path):
        figures = read_claims(path.parent.name, path.read_text())
        assert figures.claims

    def test_the_statement_says_the_value(self, path):
        for entry in tomllib.loads(path.read_text())["claim"]:
            if "words" in entry:
                assert not re.search(r"\d%|[.]\d", entry["statement"]), "no number was published, and none is stated"
                continue
            numbers = [float(number) for number in re.findall(r"(?<![\w-])-?\d+(?:\.\d+)?", entry["statement"])]
            percents = re.findall(r"([\d.]+)%", entry["statement"])
            said = [float(percent) / 100 for percent in percents] or numbers
            assert any(number == pytest.approx(entry["value"]) for number in said), entry["id"]


@pytest.mark.parametrize("rule", ["eglp", "grlu", "metafa", "mpn", "selective"])
def test_every_condition_names_a_field_of_the_rules_training(rule):
    commands = pytest.importorskip(f"plastic_{rule}.commands")
    figures = read_claims(rule, (PLUGINS / f"plastic_{rule}" / "claims.toml").read_text())
    fields = commands.Train.model_fields
    assert unknown_conditions(figures.claims, list(fields)) == []
    for entry in figures.claims:
        # The stored configuration must be able to hold the value: a misspelt choice would never be met.
        commands.Train.from_values(entry.conditions)
