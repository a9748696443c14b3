import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.config.model import Config
from plastic_cli.reports.content import training_models
from plastic_cli.reports.grouping import (
    NotInstalled,
    control_name,
    group_runs,
    plain_value,
    setting_text,
    settings_across,
)
from reports.report_frames import run_row


def frame(*rows):
    return pd.DataFrame(list(rows))


def test_runs_that_differ_only_in_seed_device_and_name_are_one_group():
    runs = frame(
        run_row(0, seed=0, perturbations=16),
        run_row(1, seed=1, perturbations=16) | {"config.device": "cuda", "name": "mine"},
    )
    (group,) = group_runs(runs)
    assert group.runs == ("r00000", "r00001")
    assert (group.rule, group.dataset, group.setting, group.label) == ("grlu", "mnist", "", "grlu")
    assert group.config["perturbations"] == 16


def test_the_setting_names_what_differs_within_the_rule_and_nothing_else():
    runs = frame(
        run_row(0, perturbations=16, k=0.5, epochs=10),
        run_row(1, perturbations=128, k=0.5, epochs=10),
        run_row(2, rule="backprop", epochs=3),
    )
    assert [group.label for group in group_runs(runs)] == [
        "backprop",
        "grlu: perturbations = 16",
        "grlu: perturbations = 128",
    ]


def test_data_sets_are_groups_of_their_own_and_may_be_missing():
    runs = frame(run_row(0, dataset="mnist"), run_row(1, dataset="digits"), run_row(2, dataset=None))
    assert [group.dataset for group in group_runs(runs)] == [None, "digits", "mnist"]


def test_other_data_of_the_same_name_is_no_repetition():
    rows = [run_row(number, seed=number) | {"data_checksum": checksum * 64} for number, checksum in enumerate("aab")]
    first, second = group_runs(frame(*rows))
    assert (first.runs, second.runs) == (("r00000", "r00001"), ("r00002",))
    assert (first.dataset, first.data, second.data) == ("mnist", "mnist (aaaaaaaa)", "mnist (bbbbbbbb)")
    (setting,) = settings_across([first, second])
    assert set(setting.groups) == {"mnist (aaaaaaaa)", "mnist (bbbbbbbb)"}


def test_a_run_that_does_not_know_its_data_goes_with_the_only_one_there_is():
    rows = [run_row(number, seed=number) | {"data_checksum": checksum} for number, checksum in enumerate(["a", None])]
    (group,) = group_runs(frame(*rows))
    assert (len(group.runs), group.data) == (2, "mnist")


def test_missing_none_and_nan_are_one_value_and_whole_floats_are_integers():
    runs = frame(
        run_row(0, seed=0, k=None, perturbations=16),
        run_row(1, seed=1, k=math.nan, perturbations=16),
        run_row(2, seed=2, perturbations=16),
        run_row(3, seed=0, k=0.5, perturbations=16),
        run_row(4, rule="oja"),
    )
    assert runs["config.perturbations"].dtype == float
    without, with_k, _ = group_runs(runs)
    assert len(without.runs) == 3
    assert without.setting == "k = none"
    assert with_k.setting == "k = 0.5"
    assert with_k.config["perturbations"] == 16
    assert isinstance(with_k.config["perturbations"], int)


def test_lists_are_compared_by_content():
    rows = [run_row(i, seed=i, hidden=hidden) for i, hidden in enumerate([[256], [256], [256, 128], []])]
    runs = frame(*rows)
    groups = group_runs(runs)
    assert [group.setting for group in groups] == ["hidden = 256", "hidden = 256,128", "hidden = empty"]
    assert groups[0].config["hidden"] == [256]


def test_true_and_one_are_different_values():
    groups = group_runs(frame(run_row(0, skip=True), run_row(1, skip=False), run_row(2, skip=1)))
    assert sorted(group.setting for group in groups) == ["no skip", "skip", "skip = 1"]


def test_settings_are_in_the_order_of_their_numbers():
    runs = frame(*(run_row(i, perturbations=value) for i, value in enumerate([128, 1, 16, 2])))
    assert [group.config["perturbations"] for group in group_runs(runs)] == [1, 2, 16, 128]


def test_of_runs_with_one_seed_the_last_to_start_counts():
    runs = frame(run_row(5, seed=0), run_row(2, seed=0), run_row(3, seed=1))
    (group,) = group_runs(runs)
    assert group.runs == ("r00005", "r00003")
    assert group.repeated == 1


def test_runs_without_a_seed_all_count():
    (group,) = group_runs(frame(run_row(0, seed=None), run_row(1, seed=None)))
    assert len(group.runs) == 2
    assert group.repeated == 0


def test_no_runs_are_no_groups():
    assert group_runs(frame(run_row(0)).iloc[:0]) == []


@settings(max_examples=25)
@given(st.permutations(range(8)))
def test_the_order_of_the_runs_does_not_matter(order):
    rows = [run_row(i, seed=i % 2, perturbations=[1, 16][i // 2 % 2], hidden=[[8], [8, 4]][i // 4]) for i in range(8)]
    assert group_runs(frame(*(rows[i] for i in order))) == group_runs(frame(*rows))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(
                st.none(), st.booleans(), st.floats(0, 1), st.text("ab", max_size=2), st.lists(st.integers(0, 2))
            ),
            st.sampled_from([0.1, 0.2, math.nan]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_run_is_in_the_group_of_its_values(drawn):
    rows = [run_row(i, seed=i, a=a, b=b, c=c) for i, (a, b, c) in enumerate(drawn)]
    groups = group_runs(frame(*rows))
    members = [run for group in groups for run in group.runs]
    assert sorted(members) == sorted(row["run"] for row in rows)

    # By hand: two runs are together where their plain values are equal, with True told from 1.
    def key(row):
        return repr([plain_value(row[f"config.{name}"]) for name in "abc"])

    of_run = {run: number for number, group in enumerate(groups) for run in group.runs}
    for first in rows:
        for second in rows:
            assert (of_run[first["run"]] == of_run[second["run"]]) == (key(first) == key(second))
    labels = [group.setting for group in groups]
    assert len(labels) == len(set(labels))


def test_text_of_a_setting():
    values = {
        "perturbations": 16,
        "k": 0.5,
        "batch_size": 1,
        "skip": False,
        "bias": True,
        "hidden": [256, 128],
        "none": None,
    }
    assert setting_text(values) == "perturbations = 16, k = 0.5, batch size = 1, no skip, bias, hidden = 256,128"
    assert setting_text({"lr": 0.12345678}) != setting_text({"lr": 0.12345679})
    assert setting_text({}) == ""


def test_plain_values():
    assert plain_value(np.float64(3.0)) == 3
    assert plain_value(np.int64(3)) == 3
    assert plain_value((1.0, 2.5)) == [1, 2.5]
    assert plain_value(pd.NA) is None
    assert plain_value(math.inf) == math.inf
    assert plain_value({"a": np.array([1.0])}) == {"a": [1]}


def test_ten_thousand_runs_take_a_moment():
    random = np.random.default_rng(0)
    count = 10_000
    runs = pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(count)],
            "rule": random.choice(["grlu", "oja"], count),
            "seed": np.arange(count) % 5,
            "dataset": random.choice(["mnist", "digits"], count),
            "config.lr": random.choice(np.linspace(0, 1, 50), count),
            "config.hidden": [[256, int(width)] for width in random.integers(0, 4, count)],
            **{f"config.same{i}": ["text"] * count for i in range(20)},
        }
    )
    began = time.perf_counter()
    groups = group_runs(runs)
    # Far above what it takes, far below what a loop over pairs or rows of pandas would.
    assert time.perf_counter() - began < 3
    assert sum(len(group.runs) + group.repeated for group in groups) == count


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_values_are_kept_apart(value):
    assert len(group_runs(frame(run_row(0, lr=value), run_row(1, lr=0.1)))) == 2


class Algorithm(Config):
    """A rule with two ways to learn, one of which means other values than the defaults."""

    algorithm: str = "plain"
    rate: float = 0.1
    width: int = 64
    copies: int = 10
    share: float = 0.5
    memory: float = 0.9
    delay: int | None = 3

    @classmethod
    def implied(cls, typed):
        meant = {"rate": 0.3, "width": 128} if typed.get("algorithm") == "deep" else {}
        return {**meant, "share": 0.0} if "copies" in typed else meant


def test_only_what_differs_within_a_data_set_is_named():
    runs = frame(
        run_row(0, dataset="digits", k=0.5, epochs=3),
        run_row(1, dataset="mnist", k=0.25, epochs=10),
        run_row(2, dataset="mnist", k=0.75, epochs=10),
    )
    assert [(group.dataset, group.setting) for group in group_runs(runs)] == [
        ("digits", ""),
        ("mnist", "k = 0.25"),
        ("mnist", "k = 0.75"),
    ]


def settings_of(*configurations):
    rows = [run_row(number, **{**Algorithm().model_dump(), **given}) for number, given in enumerate(configurations)]
    return [group.setting for group in group_runs(frame(*rows), {"grlu": Algorithm})]


def test_what_another_option_implies_is_not_named():
    deep = {"algorithm": "deep", "rate": 0.3, "width": 128}
    assert settings_of(deep, {}) == ["algorithm = deep", "algorithm = plain"]
    # Somebody chose the width: then all say theirs.
    assert settings_of({**deep, "width": 16}, {}, deep) == [
        "algorithm = deep, width = 16",
        "algorithm = deep, width = 128",
        "algorithm = plain, width = 64",
    ]
    assert settings_of({"copies": 5, "share": 0.0}, {}) == ["copies = 5", "copies = 10"]
    assert settings_of({"copies": 10, "share": 0.0}, {}) == ["share = 0", "share = 0.5"]


def test_an_option_that_older_runs_do_not_know_is_named_only_where_it_tells_runs_apart():
    assert settings_of({"memory": None, "width": 8}, {"width": 16}) == ["width = 8", "width = 16"]
    assert sorted(settings_of({"memory": None}, {})) == ["memory = 0.9", "memory = none"]


def test_where_many_options_differ_a_row_names_what_it_has_changed():
    changed = {"algorithm": "deep", "rate": 0.2, "width": 8, "copies": 5, "share": 0.1, "delay": None}
    assert settings_of(changed, {}, {"delay": None}) == [
        "algorithm = deep, rate = 0.2, width = 8, copies = 5, share = 0.1, delay = none",
        "delay = none",
        "defaults",
    ]


def test_the_setting_names_what_differs_from_the_defaults():
    assert settings_of({}) == ["defaults"]
    assert settings_of({"width": 16}) == ["width = 16"]
    # What distinguishes the groups comes first, also where it has its default.
    assert settings_of({"rate": 0.3, "width": 16}, {"width": 16}) == [
        "rate = 0.1, width = 16",
        "rate = 0.3, width = 16",
    ]
    # A value that follows from another option was not chosen; a default against such a value was.
    deep = {"algorithm": "deep", "rate": 0.3, "width": 128}
    assert settings_of(deep) == ["algorithm = deep"]
    assert settings_of({**deep, "rate": 0.1}) == ["algorithm = deep, rate = 0.1"]


class Sparse(Config):
    """A rule with two options that imply each other."""

    activation: str = "relu"
    k: float | None = None
    width: int = 64

    @classmethod
    def implied(cls, typed):
        return {"activation": "top-k"} if "k" in typed else {"k": 0.5} if typed.get("activation") == "top-k" else {}


def test_of_two_options_that_imply_each_other_one_is_named():
    values = [("relu", None), ("top-k", 0.5), ("top-k", 0.25)]
    rows = [run_row(number, activation=activation, k=k, width=8) for number, (activation, k) in enumerate(values)]
    groups = group_runs(frame(*rows), {"grlu": Sparse})
    assert [group.setting for group in groups] == ["k = none, width = 8", "k = 0.25, width = 8", "k = 0.5, width = 8"]
    (alone,) = group_runs(frame(rows[1]), {"grlu": Sparse})
    assert alone.setting == "activation = top-k, width = 8"


def test_a_rule_that_is_not_installed_names_its_few_options():
    rows = [run_row(number, seed=number, epochs=2, batch_size=64, rate=0.1, images=False) for number in range(2)]
    (group,) = group_runs(frame(*rows), {"grlu": NotInstalled})
    assert (group.setting, group.label) == ("rate = 0.1, epochs = 2", "grlu")
    many = {f"option_{number}": number for number in range(1, 8)}
    first, second = group_runs(frame(run_row(0, rate=1, **many), run_row(1, rate=2, **many)), {"grlu": NotInstalled})
    assert (first.setting, second.setting) == ("rate = 1", "rate = 2")
    (alone,) = group_runs(frame(run_row(0, **many)), {"grlu": NotInstalled})
    assert alone.setting == ""


def test_what_follows_from_an_option_that_all_groups_share_is_not_named():
    deep = {"algorithm": "deep", "rate": 0.3, "width": 128}
    assert settings_of({**deep, "copies": 5, "share": 0.0}, deep) == [
        "copies = 5, algorithm = deep",
        "copies = 10, algorithm = deep",
    ]


def test_labels_name_only_what_distinguishes():
    rows = [
        run_row(number, **{**Algorithm().model_dump(), "copies": 5, "width": width})
        for number, width in enumerate((8, 16))
    ]
    groups = group_runs(frame(*rows), {"grlu": Algorithm})
    assert [group.label for group in groups] == ["grlu: width = 8", "grlu: width = 16"]
    assert [each.label for each in settings_across(groups, {"grlu": Algorithm})] == [
        "grlu: width = 8",
        "grlu: width = 16",
    ]
    (alone,) = group_runs(frame(rows[0]), {"grlu": Algorithm})
    assert (alone.label, alone.setting) == ("grlu", "width = 8, copies = 5, share = 0.5")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "delay": st.sampled_from([3, 4, None]),
                "memory": st.sampled_from([0.9, 0.5]),
                "algorithm": st.sampled_from(["plain", "deep"]),
                "rate": st.sampled_from([0.1, 0.3]),
                "width": st.sampled_from([64, 128, None]),
                "copies": st.sampled_from([10, 5]),
                "share": st.sampled_from([0.0, 0.5]),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_settings_tell_all_groups_apart_whatever_is_left_out(drawn):
    found = settings_of(*drawn)
    assert len(set(found)) == len(found) == len({repr(sorted(each.items())) for each in drawn})


def test_seeds_that_only_failed_are_counted_with_their_setting():
    runs = pd.DataFrame([run_row(i, seed=seed, accuracy=0.9, epochs=10) for i, seed in enumerate((0, 1, 2))])
    failed = pd.DataFrame(
        [
            run_row(10, seed=2, epochs=10),  # the seed was completed by another run
            run_row(11, seed=3, epochs=10),
            run_row(12, seed=3, epochs=10),  # the same seed failed twice
            run_row(13, seed=4, epochs=10),
            run_row(14, seed=0, epochs=20),  # a setting that has only this
        ]
    ).assign(status="failed")
    ten, twenty = group_runs(runs, failed=failed)
    assert (ten.setting, len(ten.runs), ten.failed, ten.repeated) == ("epochs = 10", 3, 2, 0)
    assert (twenty.setting, twenty.runs, twenty.failed) == ("epochs = 20", (), 1)
    assert [group.failed for group in group_runs(runs)] == [0]


def test_runs_of_two_versions_of_plastic_are_two_settings():
    runs = pd.DataFrame([run_row(i, seed=i % 3, accuracy=0.9) for i in range(6)])
    assert len(group_runs(runs)) == 1
    runs["version"] = ["0.1.0"] * 3 + ["0.2.0"] * 3
    runs["rule_version"] = ["plastic 0.1.0"] * 3 + ["plastic 0.2.0"] * 3
    first, second = group_runs(runs)
    assert [first.setting, second.setting] == ["plastic version = 0.1.0", "plastic version = 0.2.0"]
    assert (len(first.runs), len(second.runs), first.repeated) == (3, 3, 0)


def test_runs_of_two_versions_of_a_rules_own_package_are_two_settings():
    runs = pd.DataFrame([run_row(i, seed=i % 3, accuracy=0.9) for i in range(6)])
    runs["rule_version"] = ["oja 1.0"] * 3 + ["oja 1.1"] * 3
    assert [group.setting for group in group_runs(runs)] == ["rule version = oja 1.0", "rule version = oja 1.1"]
    # Versions of another rule are no difference.
    runs["rule"] = ["a"] * 3 + ["b"] * 3
    assert [group.setting for group in group_runs(runs)] == ["", ""]


def test_a_rule_with_failed_runs_only_is_a_group_without_runs():
    failed = frame(run_row(10, seed=0, epochs=10), run_row(11, seed=1, epochs=10)).assign(status="failed")
    (alone,) = group_runs(failed.iloc[:0], failed=failed)
    assert (alone.rule, alone.runs, alone.failed) == ("grlu", (), 2)
    other, lost = group_runs(frame(run_row(0, rule="backprop", epochs=10)), failed=failed)
    assert [(group.rule, len(group.runs), group.failed) for group in (other, lost)] == [
        ("backprop", 1, 0),
        ("grlu", 0, 2),
    ]


def test_a_large_round_number_of_a_setting_is_short():
    assert setting_text({"lr": plain_value(1e30), "samples": 10**9}) == "lr = 1e+30, samples = 1e+09"
    assert setting_text({"samples": 1_000_000_007}) == "samples = 1000000007"
    assert setting_text({"samples": 60_000}) == "samples = 60000"


def test_a_setting_of_fit_is_named_also_if_it_is_zero_and_the_defaults_of_fit_are_not():
    fit = {"epochs": 5, "batch_size": 64, "images": False}
    rates = [{"rate": 0.0}, {"rate": 0.1}, {}]
    (alone,) = group_runs(frame(run_row(0, **fit, rate=0.0, skip=False)), {"grlu": NotInstalled})
    assert alone.setting == "rate = 0, no skip, epochs = 5"
    groups = group_runs(frame(*(run_row(i, **fit, **each) for i, each in enumerate(rates))), {"grlu": NotInstalled})
    assert [group.setting for group in groups] == ["epochs = 5", "rate = 0, epochs = 5", "rate = 0.1, epochs = 5"]
    assert [group.label for group in groups] == ["grlu: defaults", "grlu: rate = 0", "grlu: rate = 0.1"]
    (plain,) = group_runs(frame(run_row(0, **{**fit, "epochs": 10})), {"grlu": NotInstalled})
    assert plain.setting == "defaults"


class Other(Config):
    """A second rule, which has two of the options of `Algorithm`, with other defaults."""

    rate: float = 0.2
    width: int = 128
    depth: int = 2


def test_an_option_that_one_rule_names_is_named_by_each_rule_that_has_it():
    rows = [
        run_row(0, **{**Algorithm().model_dump(), "width": 128, "memory": 0.5}),
        run_row(1, rule="other", **Other().model_dump()),
    ]
    models = {"grlu": Algorithm, "other": Other}
    groups = group_runs(frame(*rows), models)
    assert [group.setting for group in groups] == ["width = 128, memory = 0.5", "width = 128"]
    assert [each.text for each in settings_across(groups, models)] == ["width = 128, memory = 0.5", "width = 128"]
    assert [group.setting for group in group_runs(frame(rows[1]), models)] == ["defaults"]


def test_what_a_user_named_in_fit_is_not_named_by_other_rules():
    rows = [
        run_row(0, epochs=5, images=False, rate=0.3),
        run_row(1, rule="other", **Other().model_dump()),
    ]
    groups = group_runs(frame(*rows), {"grlu": NotInstalled, "other": Other})
    assert [group.setting for group in groups] == ["rate = 0.3, epochs = 5", "defaults"]


def test_controls_are_named_by_the_options_of_their_rule():
    models = training_models(["backprop", "eglp", "grlu"])
    runs = pd.DataFrame(
        [
            {"run": "a", "rule": "eglp", "dataset": "mnist", "seed": 0, "config.events": "never"},
            {"run": "b", "rule": "eglp", "dataset": "mnist", "seed": 0, "config.events": "always"},
            {"run": "c", "rule": "backprop", "dataset": "mnist", "seed": 0, "config.trained": "readout"},
            {"run": "d", "rule": "backprop", "dataset": "mnist", "seed": 0, "config.trained": "all"},
            {"run": "e", "rule": "grlu", "dataset": "mnist", "seed": 0, "config.update": "backprop"},
            {"run": "f", "rule": "not-here", "dataset": "mnist", "seed": 0},
        ]
    )
    groups = group_runs(runs, models)
    named = {group.runs[0]: control_name(group, models.get(group.rule)) for group in groups}
    assert named == {
        "a": "no events", "b": None, "c": "random features", "d": "backprop", "e": "the gradient", "f": None,
    }  # fmt: skip


def test_with_the_reference_a_version_is_named_only_if_it_tells_runs_apart():
    def rows(*versions, source="reference", **config):
        return [
            {"run": f"{source}/{config}{seed}", "rule": "grlu", "dataset": "digits", "seed": seed, "source": source,
             "version": version, "rule_version": f"plastic {version}",
             **{f"config.{name}": value for name, value in config.items()}}
            for seed, version in enumerate(versions)
        ]  # fmt: skip

    apart = [*rows("0.1.0", "0.1.0", perturbations=1), *rows("0.2.0", "0.2.0", perturbations=16)]
    assert not any("version" in group.setting for group in group_runs(pd.DataFrame(apart)))
    both = [*apart, *rows("0.2.0", source="own", perturbations=1)]
    assert all("version" in group.setting for group in group_runs(pd.DataFrame(both)))
