"""Figures of chosen runs, from made-up stores."""

import pandas as pd
import pytest

from plastic_cli.errors import UserError
from plastic_cli.figures.theme import ORDERED
from plastic_cli.figures.view import View
from plastic_cli.reports.curves import main_metric, plot_runs, read_runs
from plastic_cli.reports.side_by_side import Comparison


def last_values(figure):
    data = figure.data
    return data[data["step"] == data["step"].max()].set_index("label")["mean"].round(6).to_dict()


def test_each_setting_is_the_mean_over_its_seeds(make_runs):
    make_runs(perturbations=1, values=(0.1, 0.5, 0.6))
    drawn = plot_runs(make_runs(perturbations=16, values=(0.1, 0.8, 0.9)))
    assert drawn.metric == "test/accuracy"
    assert last_values(drawn.figure) == {"perturbations = 1": 0.61, "perturbations = 16": 0.91}
    assert set(drawn.figure.data["n"]) == {3}
    assert drawn.figure.labels.x == "epoch"
    assert drawn.figure.labels.subtitle == "grlu on digits"
    assert drawn.messages == ()


def test_by_an_option_has_a_color_for_each_value_in_numeric_order_and_a_line_type_for_the_rest(make_runs):
    for perturbations in (16, 2):
        for k in (0.5, 0.25):
            chosen = make_runs(perturbations=perturbations, k=k)
    figure = plot_runs(chosen, by="perturbations").figure
    assert list(figure.data["label"].cat.categories) == ["perturbations = 2", "perturbations = 16"]
    assert set(figure.data["style"]) == {"k = 0.25", "k = 0.5"}
    colors = next(scale for scale in figure.scales if "color" in scale.aesthetics)
    assert colors.palette(2)["perturbations = 2"] == ORDERED[0]


def test_by_rule_and_by_data_set(make_runs):
    make_runs(rule="backprop", epochs=2)
    make_runs(rule="grlu", dataset="mnist", epochs=2)
    chosen = make_runs(rule="grlu", epochs=2)
    by_rule = plot_runs(chosen, by="rule").figure.data
    assert {(row.label, row.panel) for row in by_rule.itertuples()} == {
        ("backprop", "digits"), ("grlu", "mnist"), ("grlu", "digits"),
    }  # fmt: skip
    by_data = plot_runs(chosen, by="dataset").figure.data
    assert set(by_data["panel"]) == {""}
    assert {(row.label, row.style) for row in by_data.itertuples()} == {
        ("digits", "backprop"), ("mnist", "grlu"), ("digits", "grlu"),
    }  # fmt: skip


def test_by_rule_a_rule_with_one_setting_is_its_name_alone(make_runs):
    make_runs(rule="grlu", perturbations=16)
    make_runs(rule="backprop", trained="all")
    chosen = make_runs(rule="backprop", trained="readout", values=(0.1, 0.3, 0.4))
    figure = plot_runs(chosen, by="rule").figure
    names = ["backprop, trained = all", "backprop, trained = readout", "grlu"]
    assert list(figure.data["label"].cat.categories) == names
    assert set(figure.data["style"]) == {""}
    assert figure.labels.subtitle == "backprop, grlu on digits"
    final = plot_runs(chosen, by="rule", final=True).figure
    (axis,) = (scale for scale in final.scales if "x" in scale.aesthetics)
    assert list(axis.labels) == names
    assert final.data["label"].nunique() == 1


def test_by_rule_the_subtitle_of_rules_with_one_setting_each_has_no_dash(make_runs):
    make_runs(rule="backprop")
    figure = plot_runs(make_runs(rule="grlu"), by="rule").figure
    assert figure.labels.subtitle == "backprop, grlu on digits"


def colors_of(figure):
    """The color of each label of a figure."""
    (scale,) = (scale for scale in figure.scales if "color" in scale.aesthetics)
    return scale.palette(len(scale.limits))


def test_a_rule_has_one_color_in_all_figures(make_runs):
    make_runs(rule="grlu")
    chosen = make_runs(rule="eglp")
    color = colors_of(plot_runs(chosen, by="rule").figure)["grlu"]
    more = make_runs(rule="backprop")
    assert colors_of(plot_runs(more, by="rule").figure)["grlu"] == color
    assert colors_of(plot_runs(more).figure)["grlu"] == color
    assert colors_of(Comparison(more).figure())["A: grlu"] == color
    assert colors_of(plot_runs(more, by="seed", final=True).figure)["grlu"] == color


def test_final_values_at_one_place_of_the_axis_have_a_message(make_runs):
    drawn = plot_runs(make_runs(epochs=2), by="epochs", final=True)
    assert drawn.messages == ("all runs have the same value of epochs, so there is one point on the axis",)


def test_a_data_set_that_is_a_file_has_the_name_of_the_file(make_runs):
    chosen = make_runs(dataset="/tmp/x/parity.npz")
    assert plot_runs(chosen).figure.labels.subtitle == "grlu on parity.npz"
    chosen = make_runs(dataset="/tmp/y/other.npz")
    assert set(plot_runs(chosen).figure.data["panel"]) == {"parity.npz", "other.npz"}
    assert set(plot_runs(chosen, by="dataset").figure.data["label"]) == {"parity.npz", "other.npz"}
    chosen = make_runs(dataset="/tmp/z/other.npz")
    names = {"parity.npz", "/tmp/y/other.npz", "/tmp/z/other.npz"}
    assert set(plot_runs(chosen).figure.data["panel"]) == names


def test_a_run_that_is_named_twice_counts_once(make_runs, monkeypatch, tmp_path):
    chosen = make_runs(seeds=2)
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / "store" / run for run in chosen.runs["run"]]
    again = read_runs([*folders, *(folder.relative_to(tmp_path) for folder in folders)])
    assert list(again.runs["run"]) == list(chosen.runs["run"])
    assert len(again.metrics) == len(chosen.metrics)


def test_final_values_are_drawn_against_a_number(make_runs):
    make_runs(perturbations=1, values=(0.1, 0.5, 0.6))
    make_runs(rule="backprop", seeds=1)
    drawn = plot_runs(make_runs(perturbations=16), by="perturbations", final=True, view=View(log="x"))
    assert drawn.figure.data[["step", "mean", "n"]].round(6).to_numpy().tolist() == [[1, 0.61, 3], [16, 0.91, 3]]
    assert drawn.figure.labels.x == "perturbations"
    assert drawn.messages == ("1 run without perturbations: left out",)
    assert "Small points: single seeds. Bar: 95% t interval" in " ".join(drawn.figure.labels.caption.split())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("log", ["x", "both"])
def test_a_logarithmic_axis_leaves_epoch_0_out_without_a_warning(make_runs, log):
    drawn = plot_runs(make_runs(values=(0.5, 0.52, 0.6)), view=View(log=log))
    drawn.figure.draw()
    assert "0" in " ".join(drawn.figure.labels.caption.split())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("log", [None, "x", "y", "both"])
def test_a_single_value_of_an_option_can_be_drawn(make_runs, log):
    plot_runs(make_runs(seeds=1, perturbations=16), by="perturbations", final=True, view=View(log=log)).figure.draw()


def test_final_values_without_an_option_are_drawn_for_each_setting(make_runs):
    make_runs(activation="relu", values=(0.1, 0.5, 0.6))
    figure = plot_runs(make_runs(activation="tanh"), final=True).figure
    # The first setting is at the top.
    assert figure.data[["step", "mean"]].round(6).to_numpy().tolist() == [[-1, 0.91], [0, 0.61]]
    figure.draw()


def test_what_was_logged_once_is_drawn_as_final_value_with_a_message(make_runs):
    rows = [("test", "spread", 2, 0.5, None)]
    make_runs(perturbations=1, rows=rows)
    drawn = plot_runs(make_runs(perturbations=2, rows=rows), "test/spread", by="perturbations")
    assert drawn.messages == ("test/spread was logged once per run, so the final values are drawn",)
    assert list(drawn.figure.data["step"]) == [1, 2]


def test_all_splits_of_one_setting_are_colors_and_of_several_line_types(make_runs):
    rows = [("train", "accuracy", step, 0.3 + step / 10, None) for step in range(3)]
    chosen = make_runs(perturbations=1, rows=rows)
    assert list(plot_runs(chosen, "accuracy").figure.data["label"].cat.categories) == ["training", "test"]
    chosen = make_runs(perturbations=2, rows=rows)
    figure = plot_runs(chosen, "accuracy").figure
    assert set(figure.data["style"]) == {"training", "test"}
    assert set(figure.data["label"]) == {"perturbations = 1", "perturbations = 2"}


def test_labels_of_a_metric_are_colors_of_one_setting_and_panels_of_several(make_runs):
    rows = [("train", "angle", step, 90.0 - step, {"layer": layer}) for step in range(3) for layer in (1, 2)]
    chosen = make_runs(perturbations=1, rows=rows)
    assert list(plot_runs(chosen, "train/angle").figure.data["label"].cat.categories) == ["layer 1", "layer 2"]
    chosen = make_runs(perturbations=2, rows=rows)
    assert list(plot_runs(chosen, "train/angle").figure.data["panel"].cat.categories) == ["layer 1", "layer 2"]
    by_layer = plot_runs(chosen, "train/angle", by="layer").figure.data
    assert list(by_layer["label"].cat.categories) == ["layer 1", "layer 2"]
    assert set(by_layer["style"]) == {"perturbations = 1", "perturbations = 2"}


def test_a_repeated_seed_counts_once(make_runs):
    make_runs(seeds=1, values=(0.1, 0.2, 0.3), perturbations=1)
    drawn = plot_runs(make_runs(seeds=1, perturbations=1))
    assert drawn.messages == ("1 run repeated with the same seed: the newest one counts",)
    assert last_values(drawn.figure) == {"test": 0.9}
    assert len(last_values(plot_runs(make_runs(seeds=0), by="run").figure)) == 2


def test_runs_without_the_metric_are_named(make_runs):
    make_runs(seeds=2, rows=[("test", "loss", step, 1.0, None) for step in range(2)])
    assert plot_runs(make_runs(seeds=1, k=1), "test/loss").messages == ("1 run without test/loss: left out",)


def test_the_main_metric_is_that_of_validation_if_only_that_has_a_curve(make_runs):
    chosen = make_runs(values=(0.9,), rows=[("validation", "accuracy", step, 0.5, None) for step in range(3)])
    chosen.runs["validation/accuracy"] = 0.5
    assert main_metric(chosen) == "validation/accuracy"
    assert main_metric(chosen, final=True) == "test/accuracy"


def test_of_many_settings_the_best_are_drawn_and_the_caption_says_so(make_runs):
    for number in range(15):
        chosen = make_runs(seeds=1, lr=number, values=(0.1, number / 100, number / 50))
    figure = plot_runs(chosen).figure
    assert list(figure.data["label"].cat.categories) == [f"lr = {number}" for number in range(3, 15)]
    assert "The best 12 of 15 settings are shown." in " ".join(figure.labels.caption.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": "test/acc"}, "no run has the metric 'test/acc'. Did you mean 'test/accuracy'?"),
        (
            {"by": "pertubations"},
            "--by pertubations: the chosen runs have no such option. Did you mean 'perturbations'?",
        ),
    ],
)
def test_what_no_run_has_is_an_error(make_runs, arguments, words):
    with pytest.raises(UserError) as error:
        plot_runs(make_runs(perturbations=1), **arguments)
    assert words in str(error.value)


def test_no_run_is_an_error():
    with pytest.raises(UserError, match="there is no run to plot"):
        plot_runs(read_runs([]))


def test_a_hyphen_and_a_former_name_are_understood(make_runs):
    make_runs(learning_rate=0.1, values=(0.1, 0.2))
    chosen = make_runs(learning_rate=0.2, values=(0.1, 0.2))
    for name in ("learning-rate", "lr_max"):
        assert len(plot_runs(chosen, by=name).figure.data["label"].cat.categories) == 2


def test_runs_are_read_in_their_order_from_several_stores(make_runs, tmp_path):
    chosen = make_runs(seeds=2)
    (tmp_path / "other").mkdir()
    folders = sorted((tmp_path / "store").glob("2*"))
    folders[0].rename(tmp_path / "other" / folders[0].name)
    read = read_runs([folders[1], tmp_path / "other" / folders[0].name, folders[1]])
    assert list(read.runs["run"]) == [folders[1].name, folders[0].name]
    assert len(read.metrics) == len(chosen.metrics)
    assert read.step_name == "epoch"
    assert isinstance(read.runs, pd.DataFrame)


def test_a_part_of_a_metric_has_its_general_name(make_runs):
    rows = [("test", "accuracy", step, 0.5, {"task": task}) for step in range(3) for task in (1, 2)]
    chosen = make_runs(rule="selective", rows=rows)
    assert plot_runs(chosen).figure.labels.title == "Test accuracy, mean of the tasks"
    assert plot_runs(chosen, by="task").figure.labels.title == "Test accuracy"


@pytest.mark.parametrize("final", [False, True])
def test_an_option_can_be_a_list_or_a_switch(make_runs, final):
    make_runs(hidden=[256], skip=True, values=(0.1, 0.5, 0.6))
    chosen = make_runs(hidden=[256, 128], skip=True)
    figure = plot_runs(chosen, by="hidden", final=final).figure
    figure.draw()
    if final:
        assert figure.data["mean"].round(6).tolist() == [0.91, 0.61]
    else:
        assert list(figure.data["label"].cat.categories) == ["hidden = 256", "hidden = 256,128"]
    chosen = make_runs(hidden=[256], skip=False)
    assert len(plot_runs(chosen, by="skip", final=final).figure.data["mean"]) == (3 if final else 9)


def test_a_run_without_the_option_is_called_none_and_has_no_place_among_numbers(make_runs):
    make_runs(width=8)
    make_runs(activation="relu", width=32)
    chosen = make_runs(rule="backprop")
    figure = plot_runs(chosen, by="width").figure
    assert list(figure.data["label"].cat.categories) == ["width = 8", "width = 32", "width = none"]
    assert plot_runs(chosen, by="width", final=True).messages == ("3 runs without width: left out",)
    names = plot_runs(chosen, by="activation", final=True)
    assert names.messages == ()
    assert next(scale for scale in names.figure.scales if "x" in scale.aesthetics).labels == ["none", "relu"]


def test_by_depth_and_by_width_of_hidden_layers(make_runs):
    for depth in (1, 3):
        for width in (8, 32):
            chosen = make_runs(rule="backprop", hidden=[width] * depth, values=(0.1, depth / 10 + width / 1000))
    by_depth = plot_runs(chosen, by="depth", final=True).figure.data
    assert {(row.label, row.step): round(row.mean, 6) for row in by_depth.itertuples()} == {
        (f"width = {width}", depth): round(depth / 10 + width / 1000 + 0.01, 6) for depth in (1, 3) for width in (8, 32)
    }
    by_width = plot_runs(chosen, by="width", final=True).figure
    assert set(by_width.data["step"]) == {8, 32}
    assert by_width.labels.x == "width"
    with pytest.raises(UserError, match="hidden layers of one size"):
        plot_runs(make_runs(rule="backprop", hidden=[8, 4]), by="width", final=True)
