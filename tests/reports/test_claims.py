import math
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from plastic_cli.errors import UserError
from plastic_cli.reports.claims import Claim, PublishedFigures, judge, read_claims, unknown_conditions
from plastic_cli.reports.grouping import group_runs
from plastic_cli.reports.results import judge_claims, summarize
from reports.report_frames import CLAIMS, run_row

PLUGINS = Path(__file__).parents[2] / "plugins"


def claim(value=0.9, tolerance=0.01, comparison="equal", about_control=False, **conditions):
    return Claim(
        id="X-1", statement="s", metric="test/accuracy", value=value, tolerance=tolerance, tolerance_reason="r",
        comparison=comparison, source="paper", evidence="V", conditions=conditions, about_control=about_control,
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


@pytest.mark.parametrize("comparison", ["equal", "at-least", "at-most"])
def test_an_interval_on_both_sides_of_an_end_of_the_band_is_inconclusive(comparison):
    end = 0.91 if comparison == "at-most" else 0.89
    verdict = judge(claim(comparison=comparison), [end - 0.001, end, end + 0.0012])
    assert verdict.word == "inconclusive"
    assert verdict.interval.low < end < verdict.interval.high
    assert verdict.side is None


@pytest.mark.parametrize("values", [[87, 478, 455], [490, 500, 90], [480, 500, 380]])
def test_returns_of_which_one_is_far_below_do_not_reproduce_a_bound(values):
    verdict = judge(claim(475, 0, "at-least"), values)
    assert verdict.word == "inconclusive"
    assert f"{verdict.seeds_needed}" in verdict.reason or "more than" in verdict.reason


def test_more_seeds_of_the_same_spread_decide_and_fewer_do_not():
    # A true mean of .92 with deviation .03 lies outside .95 +- .005; three seeds cannot show it, twenty can.
    random = np.random.default_rng(0)
    words = {n: [judge(claim(0.95, 0.005), random.normal(0.92, 0.03, n)).word for _ in range(200)] for n in (3, 20)}
    for n in (3, 20):
        assert words[n].count("reproduced") / 200 < 0.05, n
    assert words[20].count("not reproduced") / 200 > 0.9
    assert words[3].count("inconclusive") / 200 > 0.7


@pytest.mark.parametrize("comparison", ["equal", "at-least", "at-most"])
def test_at_the_edge_of_the_band_at_most_one_in_twenty_is_reproduced(comparison):
    random = np.random.default_rng(1)
    one = claim(comparison=comparison)
    edge = one.band.high if comparison == "at-most" else one.band.low
    shares = []
    for n in (3, 5, 10, 20):
        words = [judge(one, random.normal(edge, 0.002, n)).word for _ in range(600)]
        shares.append(words.count("reproduced") / len(words))
    # The share is .025, with a standard error of .0064; without the interval's width it would be a half.
    assert max(shares) <= 0.05, shares
    assert min(shares) > 0, shares


def test_outside_the_band_more_seeds_make_a_wrong_reproduced_less_likely():
    random = np.random.default_rng(2)
    shares = [
        np.mean([judge(claim(), random.normal(0.912, 0.006, n)).word == "reproduced" for _ in range(600)])
        for n in (3, 5, 10, 20)
    ]
    assert all(later <= earlier + 0.01 for earlier, later in pairwise(shares)), shares


def test_the_number_of_seeds_that_would_decide_decides_in_four_cases_of_five():
    values = np.array([0.903, 0.897, 0.906, 0.894])
    verdict = judge(claim(0.9, 0.005), values)
    assert verdict.word == "inconclusive"
    needed = verdict.seeds_needed
    assert f"about {needed} would probably decide" in verdict.reason
    random = np.random.default_rng(3)

    def decided(n):
        drawn = random.normal(0.9, values.std(ddof=1), (400, n))
        return np.mean([judge(claim(0.9, 0.005), row).word == "reproduced" for row in drawn])

    assert decided(needed) == pytest.approx(0.8, abs=0.07)
    assert decided(needed // 2) < 0.5


def test_a_mean_at_the_end_of_the_band_is_decided_by_no_number_of_seeds():
    verdict = judge(claim(0.9, 0.01), [0.905, 0.91, 0.915])
    assert verdict.word == "inconclusive"
    assert verdict.seeds_needed is None
    assert "more than 1000 would be needed" in verdict.reason


@pytest.mark.parametrize(
    ("values", "failed", "reason"),
    [
        ([], 0, "no run"),
        ([0.9], 0, "1 of 3 seeds"),
        ([0.9, 0.9], 0, "2 of 3 seeds"),
        ([0.9, np.nan, 0.9, np.inf], 0, "2 of 4 finished"),
        ([0.9, 0.9], 3, "2 of 5 finished"),
        ([], 2, "0 of 2 finished"),
    ],
)
def test_fewer_than_three_seeds_leave_it_untested(values, failed, reason):
    verdict = judge(claim(), values, failed=failed)
    assert (verdict.word, verdict.reason, verdict.side) == ("untested", reason, None)


@pytest.mark.parametrize(("values", "failed"), [([0.9, 0.9, 0.9], 2), ([0.9, 0.9, 0.9, np.nan, np.nan], 0)])
def test_seeds_that_failed_or_diverged_keep_a_claim_from_being_reproduced(values, failed):
    assert judge(claim(), [0.9] * 3).word == "reproduced"
    verdict = judge(claim(), values, failed=failed)
    assert (verdict.word, verdict.reason, verdict.lost) == ("inconclusive", "3 of 5 finished", 2)
    outside = judge(claim(), [0.5 if value == 0.9 else value for value in values], failed=failed)
    assert (outside.word, outside.reason) == ("not reproduced", "ours lies below, 3 of 5 finished")


def test_a_band_that_contains_the_measured_control_is_never_reproduced():
    inside = judge(claim(), [0.9] * 3, control=[0.905, 0.906, 0.904])
    assert inside.word == "inconclusive"
    assert "control" in inside.reason
    assert judge(claim(), [0.9] * 3, control=[0.8, 0.81, 0.79]).word == "reproduced"
    assert judge(claim(about_control=True), [0.9] * 3, control=[0.9] * 3).word == "reproduced"
    # One value of the control has no interval, and counts all the same.
    assert judge(claim(), [0.9] * 3, control=[0.905]).word == "inconclusive"
    # An interval that reaches the band is not known to lie outside.
    assert judge(claim(), [0.9] * 3, control=[0.85, 0.88, 0.87]).word == "inconclusive"


def test_with_the_control_in_the_band_more_seeds_can_only_refute():
    # The mean lies in the band: more seeds would take the interval into it, where the control is too.
    wide = [0.907, 0.911, 0.905, 0.913]
    assert judge(claim(), wide).seeds_needed is not None
    verdict = judge(claim(), wide, control=wide)
    assert (verdict.word, verdict.seeds_needed) == ("inconclusive", None)
    assert verdict.reason == "4 seeds; the control lies in the band too"
    # The mean lies above it.
    above = [value + 0.004 for value in wide]
    needed = judge(claim(), above).seeds_needed
    verdict = judge(claim(), above, control=above)
    assert verdict.seeds_needed == needed
    assert verdict.reason == f"4 seeds; the control lies in the band too, about {needed} would probably decide"


def test_with_a_lost_seed_more_seeds_can_only_refute():
    wide = [0.907, 0.911, 0.905, 0.913]
    verdict = judge(claim(), wide, failed=1)
    assert (verdict.word, verdict.reason, verdict.seeds_needed) == ("inconclusive", "4 of 5 finished", None)
    above = [value + 0.004 for value in wide]
    needed = judge(claim(), above).seeds_needed
    verdict = judge(claim(), above, failed=1)
    assert verdict.reason == f"4 of 5 finished; about {needed} would probably decide"


def test_another_setting_can_be_the_control_of_a_claim():
    with_control = Claim(**claim(epochs=3).model_dump() | {"control_setting": {"noise_layers": "readout"}})
    figures = {"grlu": PublishedFigures("grlu", (with_control,))}

    def verdicts(control, perturbations=1, rule="grlu"):
        settings = [("all", 1, seed, 0.9) for seed in range(3)]
        settings += [("readout", perturbations, seed, value) for seed, value in enumerate(control)]
        runs = pd.DataFrame(
            [
                run_row(
                    number,
                    rule="grlu" if layers == "all" else rule,
                    seed=seed,
                    accuracy=value,
                    epochs=3,
                    noise_layers=layers,
                    perturbations=count,
                )
                for number, (layers, count, seed, value) in enumerate(settings)
            ]
        )
        groups = group_runs(runs)
        judged = [result.verdict for result in judge_claims(runs, groups, figures) if result.group]
        summed = [result.verdict for result in summarize(runs, groups, figures) if result.verdict]
        assert [verdict.word for verdict in judged] == [verdict.word for verdict in summed]
        return [(verdict.word, verdict.reason) for verdict in judged]

    assert verdicts([0.9, 0.9, 0.9]) == [("inconclusive", "the control lies in the band too, 3 seeds")]
    assert verdicts([0.8, 0.8, 0.8]) == [("reproduced", "3 seeds")]
    assert verdicts([]) == [("reproduced", "3 seeds")]
    # Another setting is no control.
    assert verdicts([0.9, 0.9, 0.9], perturbations=2)[0][0] == "reproduced"
    # Nor is another rule.
    assert verdicts([0.9, 0.9, 0.9], rule="backprop")[0][0] == "reproduced"


def test_a_published_spread_gives_the_least_significant_difference():
    def published(**fields):
        return Claim(
            id="X", statement="s", metric="a/b", value=0.5, source="p", evidence="V", **{"published_runs": 10, **fields}
        )

    # t(.975, 18) = 2.1009; of two groups of ten with the standard deviation s the difference is t s sqrt(2 / 10).
    assert published(spread=0.03, spread_of="runs").margin == pytest.approx(2.10092 * 0.03 * math.sqrt(0.2), rel=1e-5)
    assert published(spread=0.01).margin == pytest.approx(2.10092 * 0.01 * math.sqrt(2), rel=1e-5)
    band = published(spread=0.01).band
    assert (band.low + band.high) / 2 == pytest.approx(0.5)
    # Two groups that are that far apart are just not significant at 5%.
    random = np.random.default_rng(0)
    first = random.normal(size=10)
    first = (first - first.mean()) / first.std(ddof=1) * 0.03
    second = first + published(spread=0.03, spread_of="runs").margin
    assert scipy_stats.ttest_ind(first, second).pvalue == pytest.approx(0.05, abs=1e-9)


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


def test_an_option_that_a_rule_got_later_must_have_its_plain_value_unless_a_condition_names_it():
    """Five classes are easier than ten, and a claim from before `dropout` was an option says nothing about dropout."""
    plain = {"classes": [], "dropout": 0.0, "shift": 0, "flip": False, "batch_norm": False, "rate_drops": []}
    changed = {"classes": [0, 1], "dropout": 0.1, "shift": 2, "flip": True, "batch_norm": True, "rate_drops": [0.5]}

    def group(**config):
        return group_runs(pd.DataFrame([run_row(0, rule="eglp", **config)]))[0]

    assert claim().holds_for(group(**plain))
    assert claim().holds_for(group()), "a run from before these options"
    for name, value in changed.items():
        other = group(**{**plain, name: value})
        assert not claim().holds_for(other), name
        assert claim(**{name: value}).holds_for(other), name
        assert not claim(**{name: value}).holds_for(group(**plain)), name


def test_an_option_that_a_rule_always_had_can_have_any_value():
    """The option `classes` of mpn is a number of classes, and not a choice of them."""
    for rule, config in (("mpn", {"classes": 2}), ("eglp", {"epochs": 3}), ("not-installed", {"classes": [0, 1]})):
        (group,) = group_runs(pd.DataFrame([run_row(0, rule=rule, **config)]))
        assert claim().holds_for(group), rule


def test_a_field_that_no_run_has_is_not_met():
    (group,) = group_runs(pd.DataFrame([run_row(0)]))
    assert not claim(no_such_field=1).holds_for(group)
    assert claim().holds_for(group)


def test_a_difference_judged_after_fewer_epochs_than_published_says_both_numbers():
    figures = read_claims("eglp", (PLUGINS / "plastic_eglp" / "claims.toml").read_text())
    published = {"LL-01-difference-mnist": 100, "LL-01-difference-fashion": 200}
    for entry in figures.claims:
        if entry.id in published:
            epochs = published.pop(entry.id)
            assert entry.statement.endswith(f"after {epochs} epochs; our runs have {entry.conditions['epochs']}")
    assert not published


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
        (('tolerance = 0.005\n', ''), "claim 1 (GR-02): the key 'tolerance' is missing; or give 'spread'"),
        (('tolerance = 0.005\n', 'spread = 0.005\n'), "claim 1 (GR-02): the key 'published_runs' is missing"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\nspread = 0.005\n'),
         "claim 1 (GR-02): 'tolerance' and 'spread' both define"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\nchance = 0.93\n'),
         "claim 1 (GR-02): its band from 0.9233 to 0.9333 contains its chance, 0.93. Make the tolerance smaller."),
        (('tolerance = 0.005\n', 'tolerance = 0.005\ncontrol = 0.9333\n'),
         "claim 1 (GR-02): its band from 0.9233 to 0.9333 contains its control, 0.9333"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\ncomparison = "at-most"\nchance = 0.1\n'),
         "claim 1 (GR-02): its band up to 0.9333 contains its chance, 0.1"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\nrelation = "ratio"\n'),
         "claim 1 (GR-02): 'relation' needs 'against'"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\nagainst = { k = 1.0 }\ncontrol_setting = { k = 0.1 }\n'),
         "claim 1 (GR-02): 'control_setting' is for a claim about a metric of training"),
        (('tolerance = 0.005\n', 'tolerance = 0.005\nunmeasured = "no code"\n'),
         "claim 1 (GR-02): there is no key 'tolerance'"),
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


def test_an_entry_that_nothing_measures_says_why_and_needs_no_band():
    text = """
[[claim]]
id = "GR-11"
statement = "s"
source = "paper"
evidence = "V"
unmeasured = "the analysis is not in this toolkit"
"""
    figures = read_claims("grlu", CLAIMS + text)
    assert [entry.id for entry in figures.claims] == ["GR-02", "GR-06"]
    assert [(entry.id, entry.unmeasured) for entry in figures.unmeasured] == [
        ("GR-11", "the analysis is not in this toolkit")
    ]
    assert read_claims("grlu", text.replace('"V"', '"R"')).unmeasured == ()
    with pytest.raises(UserError, match="'GR-02' is used twice"):
        read_claims("grlu", CLAIMS + text.replace("GR-11", "GR-02"))


SETTINGS = """
[settings.published]
dataset = "mnist"
hidden = [256]
k = 0.5

[settings.wide]
hidden = [1000]
batch_size = 64
"""


def with_settings(text):
    """Return claims whose first entry has the key `settings`, and its own conditions only for perturbations."""
    own = 'conditions = { dataset = "mnist", hidden = [256], perturbations = 16, k = 0.5 }'
    assert own in CLAIMS
    return SETTINGS + CLAIMS.replace(own, f"settings = {text}\nconditions = {{ perturbations = 16 }}")


def without_wide(text):
    return text.replace(SETTINGS[SETTINGS.index("[settings.wide]") :], "")


def test_named_settings_are_the_same_as_their_conditions_written_out():
    assert read_claims("grlu", without_wide(with_settings('"published"'))) == read_claims("grlu", CLAIMS)


def test_later_settings_and_then_an_entrys_own_conditions_take_precedence():
    text = with_settings('["published", "wide"]')
    conditions = {"dataset": "mnist", "hidden": [1000], "k": 0.5, "batch_size": 64, "perturbations": 16}
    assert read_claims("grlu", text).claims[0].conditions == conditions
    found = read_claims("grlu", text.replace("perturbations = 16 }", "perturbations = 16, k = 0.25 }")).claims[0]
    assert [found.conditions[name] for name in ("k", "batch_size", "perturbations")] == [0.25, 64, 16]
    (group,) = group_runs(pd.DataFrame([run_row(0, hidden=[1000], perturbations=16, k=0.25, batch_size=64)]))
    assert found.holds_for(group)
    (other,) = group_runs(pd.DataFrame([run_row(0, hidden=[256], perturbations=16, k=0.25, batch_size=64)]))
    assert not found.holds_for(other)


def test_settings_hold_for_context_and_for_what_is_not_measured():
    context = CLAIMS.replace('conditions = { dataset = "mnist" }', 'settings = "published"')
    unmeasured = """
[[claim]]
id = "GR-11"
statement = "s"
source = "paper"
evidence = "V"
unmeasured = "no code"
settings = ["published", "wide"]
"""
    figures = read_claims("grlu", SETTINGS + context + unmeasured)
    assert figures.context[0].conditions["dataset"] == "mnist"
    assert figures.unmeasured[0].conditions["batch_size"] == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_settings('"publshed"'),
         "claim 1 (GR-02): 'settings': there is no table [settings.publshed]. Did you mean 'published'?"),
        (with_settings("3"), "claim 1 (GR-02): 'settings' must be the name of a table [settings.NAME], or a list"),
        (with_settings('["published", 3]'), "claim 1 (GR-02): 'settings' must be the name"),
        (with_settings('"published"'), "no claim or context uses [settings.wide]. Remove the table."),
        (with_settings('["published", "wide"]').replace("settings = [", "setings = ["),
         "claim 1 (GR-02): there is no key 'setings'. Did you mean 'settings'?"),
        (with_settings('["published", "wide"]').replace("k = 0.5", "k = 2020-01-01", 1),
         "claim 1 (GR-02): 'conditions': 'k' must be"),
        (with_settings('["published", "wide"]').replace("conditions = { perturbations = 16 }", "conditions = 3"),
         "claim 1 (GR-02): 'conditions': input should be"),
        ("settings = 3\n" + CLAIMS, "write [settings.NAME], one table for each name."),
        ("settings = { wide = 3 }\n" + CLAIMS, "[settings.wide] must be a table of keys and values."),
        ("[setting.wide]\nk = 3\n" + CLAIMS, "there is no table 'setting'. Did you mean 'settings'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_settings_is_named(text, message):
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
    assert found == ["X-1: there is no option 'perturbatons'. Did you mean 'perturbations'?"]


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*/claims.toml")), ids=lambda path: path.parent.name)
class TestInstalledClaims:
    def test_is_read_without_a_mistake(self, path):
        figures = read_claims(path.parent.name, path.read_text())
        assert figures.claims

    def test_what_would_make_a_run_another_experiment_is_fixed(self, path):
        """Runs of `plastic tune` set images aside, and are no repetitions of runs that learn from all of them."""
        commands = pytest.importorskip(f"{path.parent.name}.commands")
        figures = read_claims(path.parent.name, path.read_text())
        for claim in figures.claims:
            if "validation" in commands.Train.model_fields:
                assert "validation" in claim.conditions, claim.id
            if claim.metric == "test/accuracy" and not claim.against:
                at_chance = "chance" in claim.statement + str(claim.tolerance_reason)
                assert claim.chance is not None or at_chance or claim.about_control, claim.id

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
