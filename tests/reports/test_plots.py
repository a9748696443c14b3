import math
import re

import numpy as np
import pandas as pd
import pytest

from plastic_cli.figures.files import svg_text
from plastic_cli.figures.theme import PALETTE
from plastic_cli.reports.claims import read_claims
from plastic_cli.reports.grouping import group_runs, setting_key, settings_across
from plastic_cli.reports.plots import MOST_CURVES, best_settings, claims_figures, learning_curves, looks
from plastic_cli.reports.results import judge_claims, summarize
from plastic_cli.statistics.intervals import mean_interval
from reports.report_frames import grlu_experiments, run_row


def layers(figure, name):
    """The data that a figure's layers of one kind bring along."""
    return [each._data for each in figure.layers if type(each.geom).__name__ == name]


def look_of(runs):
    groups = group_runs(runs)
    return looks(summarize(runs, groups), settings_across(groups))


def figures_of(runs, metrics):
    made = learning_curves(summarize(runs, group_runs(runs)), metrics, look_of(runs))
    return {name: figure.plot for name, figure in made.items()}


def curve_rows(run, values, metric="accuracy", **others):
    return [
        {"run": run, "stage": "train", "split": "test", "step": step, "metric": metric, "value": value, "labels": None,
         "time": 0.0, **others}
        for step, value in enumerate(values, start=1)
    ]  # fmt: skip


def test_a_line_is_the_mean_over_seeds_and_the_ribbon_its_interval(experiments):
    runs, metrics = experiments
    (figure,) = figures_of(runs, metrics).values()
    assert set(figure.data["label"]) == {
        "backprop",
        "grlu: perturbations = 1, activation = top-k, k = 0.5",
        "grlu: perturbations = 16, activation = top-k, k = 0.25",
        "grlu: perturbations = 16, activation = top-k, k = 0.5",
        "grlu: perturbations = 128, activation = relu",
    }
    backprop = runs[runs["rule"] == "backprop"]["run"]
    wanted = metrics[metrics["run"].isin(backprop) & (metrics["metric"] == "accuracy") & (metrics["step"] == 4)][
        "value"
    ]
    drawn = figure.data[(figure.data["label"] == "backprop") & (figure.data["step"] == 4)].iloc[0]
    interval = mean_interval(wanted)
    assert (drawn["mean"], drawn["low"], drawn["high"], drawn["n"]) == (interval.mean, interval.low, interval.high, 5)
    assert [len(data) for data in layers(figure, "geom_ribbon")] == [5 * 10]
    assert figure.labels.title == "Test accuracy"
    assert figure.labels.x == "epoch"
    assert figure.labels.subtitle == "mnist"
    assert "95% t interval" in " ".join(figure.labels.caption.split())


def test_fewer_than_three_seeds_get_a_line_without_a_ribbon():
    runs, metrics = grlu_experiments(seeds=2)
    (figure,) = figures_of(runs, metrics).values()
    assert len(figure.data) == 5 * 10
    assert [len(data) for data in layers(figure, "geom_ribbon")] == [0]


def test_each_data_set_has_a_panel():
    runs, metrics = grlu_experiments(seeds=1, datasets=("mnist", "fashion"))
    (figure,) = figures_of(runs, metrics).values()
    assert type(figure.facet).__name__ == "facet_wrap"
    assert set(figure.data["panel"]) == {"mnist", "fashion"}
    (single,) = figures_of(*grlu_experiments(seeds=1)).values()
    assert type(single.facet).__name__ == "facet_null"


def test_of_many_settings_the_best_are_drawn_and_the_caption_says_so():
    rows = [run_row(i, accuracy=i / 100, lr=i) for i in range(20)]
    runs = pd.DataFrame(rows)
    metrics = pd.DataFrame([row for each in rows for row in curve_rows(each["run"], [0.1, each["test/accuracy"]])])
    (figure,) = figures_of(runs, metrics).values()
    assert list(figure.data["label"].cat.categories) == [f"lr = {i}" for i in range(20 - MOST_CURVES, 20)]
    assert f"The best {MOST_CURVES} of 20 settings." in " ".join(figure.labels.caption.split())


def best_learning_rates(runs, count):
    results = summarize(runs, group_runs(runs))
    best = best_settings(results, count)
    return list(dict.fromkeys(each.group.config["lr"] for each in results if setting_key(each.group) in best))


def test_the_best_have_the_least_of_a_loss_and_the_best_mean_rank():
    runs = pd.DataFrame([run_row(i, loss=loss, lr=i) for i, loss in enumerate([0.3, 0.1, 0.2])])
    assert best_learning_rates(runs, 2) == [1, 2]
    # An easy data set must not decide alone: ranks count, not values.
    levels = {
        ("easy", 0): 0.99,
        ("easy", 1): 0.98,
        ("easy", 2): 0.97,
        ("hard", 0): 0.1,
        ("hard", 1): 0.3,
        ("hard", 2): 0.2,
    }
    runs = pd.DataFrame(
        [run_row(i, dataset=dataset, accuracy=value, lr=lr) for i, ((dataset, lr), value) in enumerate(levels.items())]
    )
    assert best_learning_rates(runs, 1) == [1]


def test_a_step_that_not_every_seed_reached_is_not_drawn():
    runs = pd.DataFrame([run_row(seed, seed=seed, accuracy=0.5) for seed in range(3)])
    rows = [
        row for run, steps in (("r00000", 4), ("r00001", 4), ("r00002", 2)) for row in curve_rows(run, [0.5] * steps)
    ]
    (figure,) = figures_of(runs, pd.DataFrame(rows)).values()
    assert figure.data["step"].tolist() == [1, 2]
    assert figure.labels.x == "step"


def test_only_finite_training_rows_without_labels_count():
    runs = pd.DataFrame([run_row(0, accuracy=0.5)])
    rows = [
        *curve_rows("r00000", [0.1, math.nan, 0.3]),
        *curve_rows("r00000", [0.9] * 9, stage="eval"),
        *curve_rows("r00000", [0.9] * 9, labels='{"noise": 0.3}'),
        *curve_rows("r00000", [0.9] * 9, split="train"),
        *curve_rows("r00000", [0.9] * 9, metric="loss"),
        *curve_rows("r00000", [0.2]),
    ]
    (figure,) = figures_of(runs, pd.DataFrame(rows)).values()
    # A step that was logged twice, as after a resumption, has its last value.
    assert list(zip(figure.data["step"], figure.data["mean"], strict=True)) == [(1, 0.2), (3, 0.3)]


def test_the_untrained_network_is_step_0_of_the_curve():
    runs = pd.DataFrame([run_row(0, accuracy=0.5)])
    rows = curve_rows("r00000", [0.1, 0.4, 0.5])
    for row in rows:
        row["step"] -= 1
    (figure,) = figures_of(runs, pd.DataFrame(rows)).values()
    assert list(figure.data["step"]) == [0, 1, 2]


def colors_in(figure):
    """The colors of lines and bars in a drawn figure."""
    return set(re.findall(r"stroke: (#\w{6})", svg_text(figure, "x").upper().replace("STROKE", "stroke")))


def test_a_setting_keeps_its_color_in_all_figures(claims_text):
    runs, metrics = grlu_experiments(seeds=3)
    groups = group_runs(runs)
    look = look_of(runs)
    results = summarize(runs, groups)
    named = {look.name(each.group, with_rule=True): look.style(each.group).color for each in results}
    assert len(set(named.values())) == 5
    # A figure of fewer settings does not start again with the first color.
    two = [each for each in results if each.group.rule == "backprop" or each.group.config.get("perturbations") == 128]
    (few,) = learning_curves(two, metrics, look).values()
    drawn = colors_in(few.plot)
    wanted = {color for name, color in named.items() if name == "backprop" or "128" in name}
    assert drawn & set(PALETTE) == wanted
    (claims,) = claims_figures(judged(runs, claims_text), look).values()
    measured = claims.plot.data[claims.plot.data["what"] == "measured"]
    assert set(measured["color"]) == {
        color for name, color in named.items() if "128" in name or "= 16, activation = top-k, k = 0.5" in name
    }


def test_the_same_setting_on_two_data_sets_has_one_name_and_one_color():
    rows = [run_row(0, dataset="x", lr=1, accuracy=0.5), run_row(1, dataset="x", lr=2, accuracy=0.6)]
    rows += [run_row(2, dataset="y", lr=1, accuracy=0.4)]
    runs = pd.DataFrame(rows)
    metrics = pd.DataFrame([row for each in rows for row in curve_rows(each["run"], [0.1, 0.3])])
    (figure,) = figures_of(runs, metrics).values()
    assert set(figure.data["label"]) == {"lr = 1", "lr = 2"}
    assert set(figure.data[figure.data["panel"] == "y"]["label"]) == {"lr = 1"}


def test_without_curves_there_is_no_figure():
    runs = pd.DataFrame([run_row(0, accuracy=0.5)])
    empty = pd.DataFrame(
        {column: [] for column in ("run", "stage", "split", "step", "metric", "value", "labels", "time")}
    )
    assert figures_of(runs, empty) == {}
    assert figures_of(runs, pd.DataFrame(curve_rows("r00000", [0.5]))) == {}
    assert figures_of(runs.iloc[:0], empty) == {}


def test_each_main_metric_has_a_figure_of_its_own():
    runs = pd.DataFrame([run_row(0, rule="a", accuracy=0.5), run_row(1, rule="b") | {"test/return": 3.0}])
    rows = [*curve_rows("r00000", [0.1, 0.2]), *curve_rows("r00001", [1.0, 2.0], metric="return")]
    assert list(figures_of(runs, pd.DataFrame(rows))) == [
        "learning-curves-test-accuracy",
        "learning-curves-test-return",
    ]


# ------------------------------------------------------------------------------------------------------------ claims


def claims_figure(claims):
    """The one figure of claims on one metric."""
    return only_claims_figure(claims).plot


def only_claims_figure(claims):
    groups = list({row.group.runs: row.group for row in claims if row.group is not None}.values())
    (figure,) = claims_figures(claims, looks([], settings_across(groups))).values()
    return figure


def judged(runs, text):
    return judge_claims(runs, group_runs(runs), {"grlu": read_claims("grlu", text)})


def test_published_stands_beside_measured(experiments, claims_text):
    runs, _ = experiments
    claims = judged(runs, claims_text)
    figure = claims_figure(claims)
    data = figure.data
    assert data["what"].tolist() == ["published", "measured"] * 2
    published = data[data["what"] == "published"]
    assert published["value"].tolist() == [0.9283, 0.9445]
    assert np.allclose(published["high"] - published["low"], 0.01)
    measured = data[data["what"] == "measured"]
    assert measured["low"].tolist() == [row.verdict.interval.low for row in claims[:2]]
    # The first claim is the last category, since the axis points upwards.
    assert str(data["claim"].cat.categories[-1]) == "GR-02: reproduced", "one setting meets it: the claim says which"
    assert "GR-06: not reproduced" in str(data["claim"].cat.categories[0])


def test_too_few_seeds_get_a_point_without_an_interval(claims_text):
    runs, _ = grlu_experiments(seeds=2)
    figure = claims_figure(judged(runs, claims_text))
    assert [len(data) for data in layers(figure, "geom_segment")] == [2, 0]
    assert any("untested, 2 of 3 seeds" in label for label in figure.data["claim"])


def test_a_bound_is_drawn_on_its_side_only(experiments, claims_text):
    runs, _ = experiments
    figure = claims_figure(
        judged(runs, claims_text.replace("value = 0.9283", 'comparison = "at-least"\nvalue = 0.9283'))
    )
    row = figure.data[figure.data["what"] == "published"].iloc[0]
    assert row["low"] == pytest.approx(0.9233)
    assert row["high"] == 0.9283


def test_without_a_tested_claim_there_is_no_figure(claims_text):
    runs = pd.DataFrame([run_row(0, dataset="digits", accuracy=0.9)])
    assert claims_figures([], look_of(runs)) == {}
    assert claims_figures(judged(runs, claims_text), look_of(runs)) == {}


def test_claims_on_several_metrics_have_figures_of_their_own(experiments, claims_text):
    runs, _ = experiments
    first, _, rest = claims_text.partition('id = "GR-06"')
    text = first + 'id = "GR-06"' + rest.replace("test/accuracy", "test/loss", 1)
    figures = {name: figure.plot for name, figure in claims_figures(judged(runs, text), look_of(runs)).items()}
    assert {name: figure.labels.x for name, figure in figures.items()} == {
        "claims-test-accuracy": "Test accuracy",
        "claims-test-loss": "Test loss",
    }
    assert all(len(figure.data) == 2 for figure in figures.values())


def test_claims_far_apart_are_drawn_as_differences_from_the_published_value(experiments, claims_text):
    runs, _ = experiments
    figure = only_claims_figure(judged(runs, claims_text.replace("value = 0.9445", "value = 0.2")))
    data = figure.plot.data
    published, measured = (data[data["what"] == what].set_index("claim") for what in ("published", "measured"))
    assert published["value"].tolist() == [0, 0]
    assert np.allclose(published["high"] - published["low"], 1.0), "in percentage points"
    far = next(label for label in measured.index if label.startswith("GR-06"))
    assert 70 < measured["value"][far] < 75
    assert far.endswith("%, published 20.00%")
    assert figure.plot.labels.x == "Difference from the published value (percentage points)"
    assert "published 20.00%, measured 9" in figure.description, "in words it is the values"


def test_claims_in_words_have_units(experiments, claims_text):
    runs, _ = experiments
    words = only_claims_figure(judged(runs, claims_text)).description
    assert "GR-02: reproduced: published 92.83%, measured 92." in words


def test_settings_that_meet_one_claim_are_told_apart_by_what_differs_between_them(claims_text):
    common = {"hidden": [256], "perturbations": 16, "k": 0.5}
    rows = [run_row(i, seed=i % 3, accuracy=0.93, epochs=10 + 10 * (i // 3), **common) for i in range(6)]
    rows += [run_row(6, accuracy=0.8, **{**common, "perturbations": 1, "epochs": 10})]
    figure = claims_figure(judged(pd.DataFrame(rows), claims_text))
    assert sorted(figure.data["claim"].astype(str).unique()) == [
        "GR-02: reproduced\nepochs = 10",
        "GR-02: reproduced\nepochs = 20",
    ]


def test_the_figures_can_be_drawn(experiments, claims_text, tmp_path):
    runs, metrics = experiments
    figures = [*figures_of(runs, metrics).values(), claims_figure(judged(runs, claims_text))]
    for number, figure in enumerate(figures):
        path = tmp_path / f"{number}.png"
        figure.save(path, verbose=False, dpi=40)
        assert path.stat().st_size > 1000
