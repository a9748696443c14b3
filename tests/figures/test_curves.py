import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from plastic_cli.errors import UserError
from plastic_cli.figures.curves import (
    curves_figure,
    mean_curves,
    number_labels,
    run_figure,
    share_labels,
    smoothed,
    smoothing_text,
)
from plastic_cli.figures.theme import PALETTE
from plastic_cli.figures.view import View, read_range, shown
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.statistics.intervals import mean_interval

ACCURACY = metric_of("test/accuracy")


def rows(*runs, label="a", panel="digits", first=0):
    return pd.DataFrame(
        [
            {"label": label, "panel": panel, "run": f"{label}{number}", "step": step, "value": value}
            for number, values in enumerate(runs)
            for step, value in enumerate(values, start=first)
        ]
    )


def curve(values, first=0, label="a"):
    return mean_curves(rows(values, label=label, first=first))


def test_a_point_is_the_mean_over_the_runs_with_its_interval():
    curves = mean_curves(rows([0.1, 0.5, 0.7], [0.2, 0.6, 0.9], [0.1, 0.4, 0.8]))
    interval = mean_interval([0.5, 0.6, 0.4])
    point = curves[curves["step"] == 1].iloc[0]
    assert (point["mean"], point["low"], point["high"], point["n"]) == (
        interval.mean, interval.low, interval.high, 3,
    )  # fmt: skip
    assert len(curves) == 3


def test_a_step_that_one_run_lacks_is_left_out():
    curves = mean_curves(rows([0.1, 0.5, 0.7], [0.2, 0.6]))
    assert list(curves["step"]) == [0, 1]
    assert set(curves["n"]) == {2}


def test_runs_without_common_steps_are_separate_lines():
    both = pd.concat([rows([1.0, 2.0]), rows([3.0, 4.0], first=5).assign(run="other")])
    curves = mean_curves(both)
    assert curves.groupby("line")["mean"].apply(list).to_dict() == {"a0": [1.0, 2.0], "other": [3.0, 4.0]}


def test_the_axis_shows_where_the_curves_differ_and_marks_the_untrained_network():
    curves = curve([0.1, 0.93, 0.94, 0.95])
    view = shown(curves, View(), share=True)
    low, high = view.edges["mean"]
    assert low == pytest.approx(0.93 - 0.05 * 0.02)
    assert high == pytest.approx(0.95 + 0.05 * 0.02)
    (hidden,) = view.hidden.to_dict("records")
    assert (hidden["step"], hidden["value"], hidden["below"]) == (0, 0.1, True)
    assert low < hidden["mean"] < low + 0.05 * (high - low)
    # The way from the untrained network to the first epoch would look vertical.
    assert list(view.lines["step"]) == [1, 2, 3]


def test_a_line_enters_at_the_edge_if_it_does_not_look_vertical():
    view = shown(curve([0.1, 0.5, 0.65, 0.7]), View(), share=True)
    low = view.edges["mean"].min()
    assert low == pytest.approx(0.5 - 0.05 * 0.2)
    wide = shown(curve([0.1, 0.6, 0.5, 0.65, 0.7]), View(), share=True)
    first = wide.lines.sort_values("step").iloc[0]
    assert first["mean"] == pytest.approx(low)
    assert first["step"] == pytest.approx((low - 0.1) / (0.6 - 0.1))


def test_a_ribbon_runs_to_the_edge_along_its_own_edges():
    runs = [[0.0, 0.5 + shift, 0.5 + shift, 0.5 + shift] for shift in (-0.1, 0.0, 0.1)]
    interval = mean_interval([0.4, 0.5, 0.6])
    ribbon = shown(mean_curves(rows(*runs)), View(y_range=(0.4, 0.6)), share=True).ribbons
    # The upper edge enters first, then the lower edge, which is below the view: it stays there.
    assert interval.low < 0.4 < 0.6 < interval.high
    entry = ribbon[ribbon["step"] < 1].sort_values("step")
    assert list(entry["step"]) == pytest.approx([0, 0.4 / interval.high, 0.6 / interval.high])
    assert list(entry["high"]) == pytest.approx([0.4, 0.4, 0.6])
    assert list(entry["low"]) == pytest.approx([0.4, 0.4, 0.4])


def test_the_ribbon_of_a_line_that_looks_vertical_is_left_out_with_it():
    view = shown(mean_curves(rows([0.1, 0.92, 0.94], [0.1, 0.93, 0.95], [0.1, 0.94, 0.96])), View(), share=True)
    assert view.ribbons["step"].min() == view.lines["step"].min() == 1


@pytest.mark.parametrize("spread", [0.001, 0.1])
def test_whether_the_untrained_network_is_shown_does_not_depend_on_the_intervals(spread):
    runs = [[0.1, 0.8 + shift, 0.85, 0.9] for shift in (-spread, 0, spread)]
    assert list(shown(mean_curves(rows(*runs)), View(), share=True).hidden["step"]) == [0]


def test_a_ribbon_does_not_widen_the_axis_to_means_outside_it():
    slow = rows([0.1, 0.75, 0.8, 0.9], [0.1, 0.8, 0.85, 0.9], [0.1, 0.85, 0.9, 0.9])
    fast = rows([0.08, 0.93, 0.94, 0.95], [0.1, 0.94, 0.95, 0.96], [0.12, 0.95, 0.96, 0.97], label="b")
    means = mean_curves(pd.concat([slow, fast]))
    view = shown(means, View(), share=True)
    assert view.ribbons["mean"].min() < view.edges["mean"].min(), "from where an end of the interval enters"
    (axes,) = curves_figure(means, ACCURACY).draw().axes
    assert axes.get_ylim() == pytest.approx((view.edges["mean"].min(), view.edges["mean"].max()))


def test_the_caption_says_the_value_outside_the_axis():
    figure = curves_figure(curve([0.1, 0.93, 0.94, 0.95]), ACCURACY, step_name="epoch")
    assert "Epoch 0, below the axis: 10.00%." in " ".join(figure.labels.caption.split())
    assert figure.labels.title == "Test accuracy"
    falling = curves_figure(curve([300.0, 0.5, 0.4, 0.3]), metric_of("test/loss"), step_name="epoch")
    assert "Epoch 0, above the axis: 300.0." in falling.labels.caption


def test_an_untrained_network_that_does_not_flatten_the_curves_is_on_the_axis():
    view = shown(curve([0.5, 0.6, 0.7, 0.8]), View(), share=True)
    assert view.hidden.empty
    assert view.edges["mean"].min() < 0.5
    assert list(view.lines["step"]) == [0, 1, 2, 3]


def test_a_curve_at_chance_is_never_cut_off():
    curves = pd.concat([curve([0.1, 0.93, 0.94, 0.95]), curve([0.1, 0.1, 0.1, 0.1], label="b")])
    curves = curves.assign(label=pd.Categorical(curves["label"]))
    view = shown(curves, View(), share=True)
    assert view.hidden.empty
    assert view.edges["mean"].min() < 0.1


def test_one_epoch_shows_both_of_its_points():
    assert shown(curve([0.1, 0.9]), View(), share=True).hidden.empty


def test_an_interval_does_not_widen_the_axis_of_a_share_beyond_100_percent():
    curves = mean_curves(rows([0.99, 1.0], [0.9, 1.0], [1.0, 0.9]))
    assert curves["high"].max() > 1
    assert shown(curves, View(), share=True).edges["mean"].max() == 1


def test_a_range_is_the_view_and_cuts_lines_at_its_ends():
    view = shown(curve([0.1, 0.5, 0.9]), View(x_range=(0.5, None), y_range=(20, 70)), share=True)
    assert list(view.edges["mean"]) == [0.2, 0.7]
    assert list(view.lines["step"].round(6)) == [0.5, 1, 1.5]
    assert list(view.lines["mean"].round(6)) == [0.3, 0.5, 0.7]
    assert view.hidden.empty
    assert list(view.points["step"]) == [1]
    curves_figure(curve([0.1, 0.5, 0.9]), ACCURACY, View(x_range=(0.5, None), y_range=(20, 70))).draw()


def test_a_curve_that_leaves_the_view_and_returns_has_two_pieces():
    view = shown(curve([1.0, 5.0, 1.0]), View(y_range=(0, 2)), share=False)
    assert view.lines.groupby("piece")["step"].apply(list).to_dict() == {0: [0, 0.25], 1: [1.75, 2]}


@pytest.mark.parametrize("view", [View(x_range=(10, 20)), View(y_range=(5, None))])
def test_a_range_without_values_is_an_error(view):
    with pytest.raises(UserError, match="no value lies in the range"):
        shown(curve([0.1, 0.5, 0.9]), view, share=False)


def test_a_logarithmic_axis_leaves_out_step_0_and_says_so():
    figure = curves_figure(curve([0.1, 0.5, 0.9]), ACCURACY, View(log="x"), step_name="epoch")
    assert "Epoch 0 has no place on a logarithmic axis." in " ".join(figure.labels.caption.split())
    view = shown(curve([100.0, 10.0, 1.0]), View(log="both"), share=False)
    assert list(view.lines["step"]) == pytest.approx([1, 2])


def test_a_cut_on_a_logarithmic_axis_is_on_the_straight_line_of_this_axis():
    view = shown(curve([1.0, 100.0]), View(log="y", y_range=(1, 10)), share=False)
    assert list(view.lines["step"]) == pytest.approx([0, 0.5])
    assert list(view.lines["mean"]) == pytest.approx([1, 10])


def test_each_panel_has_its_own_axis():
    curves = mean_curves(pd.concat([rows([0.1, 0.93, 0.95]), rows([0.4, 0.5, 0.6], panel="mnist")]))
    edges = shown(curves, View(), share=True).edges.groupby("panel", observed=True)["mean"].min()
    assert edges["digits"] > 0.9
    assert edges["mnist"] < 0.4


def test_a_drawn_figure_has_a_color_for_each_label_and_a_line_type_for_each_style():
    both = [rows([0.1, 0.8, 0.9], label=label).assign(style=style) for label in "ab" for style in ("test", "train")]
    figure = curves_figure(mean_curves(pd.concat(both)), ACCURACY)
    (panel,) = figure.draw().axes
    lines = [line for line in panel.get_lines() if len(line.get_xdata()) > 1]
    looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in lines}
    assert len(looks) == 4
    assert {color for color, _ in looks} == {color.lower() for color in PALETTE[:2]}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 5, 10], ["0", "5", "10"]),
        ([0.5, 0.75, 1], ["0.50", "0.75", "1.00"]),
        ([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"]),
        ([0, 20_000, 40_000], ["0", "20,000", "40,000"]),
        ([1e-5, 2e-5], ["1e-05", "2e-05"]),
        ([np.nan, 1], ["", "1"]),
    ],
)
def test_labels_have_the_digits_that_they_need(values, labels):
    assert number_labels(values) == labels


def test_labels_of_shares_are_in_per_cent():
    assert share_labels([0.92, 0.925, 0.93]) == ["92.0%", "92.5%", "93.0%"]


@pytest.mark.parametrize(
    ("text", "ends"), [("0.9,1", (0.9, 1)), ("90%,95%", (0.9, 0.95)), ("2,", (2, None)), (",-1e-2", (None, -0.01))]
)
def test_a_range_is_read(text, ends):
    assert read_range(text, "--y-range") == ends


@pytest.mark.parametrize("text", ["1", "a,b", "2,1", "1,2,3", "nan,1"])
def test_another_text_is_no_range(text):
    with pytest.raises(UserError, match="--y-range"):
        read_range(text, "--y-range")


def logged(split, metric, values, labels=None, run="r", stage="train", first=0):
    return [
        {"run": run, "stage": stage, "split": split, "step": step, "metric": metric, "value": value, "labels": labels}
        for step, value in enumerate(values, start=first)
    ]


def test_one_run_is_drawn_with_a_curve_for_each_split():
    metrics = pd.DataFrame(
        logged("test", "accuracy", [0.1, 0.8])
        + logged("train", "accuracy", [0.1, 0.9])
        + logged("test", "loss", [2, 1])
    )
    figure = run_figure(metrics, about="grlu on digits")
    assert figure.data.groupby("label", observed=True)["mean"].apply(list).to_dict() == {
        "training": [0.1, 0.9],
        "test": [0.1, 0.8],
    }
    assert (figure.labels.title, figure.labels.subtitle) == ("Accuracy", "grlu on digits")
    assert run_figure(metrics, "test/loss").labels.title == "Test loss"


def test_what_is_measured_once_is_a_point_next_to_the_curves():
    metrics = pd.DataFrame(logged("train", "return", range(100)) + logged("test", "return", [99.0], first=99))
    figure = run_figure(metrics)
    (points,) = [layer for layer in figure.layers if type(layer.geom).__name__ == "geom_point"]
    assert points._data[["label", "step"]].to_numpy().tolist() == [["test", 99]]


def test_a_metric_of_layers_has_a_curve_for_each_in_their_order():
    layers = [logged("train", "angle", [90, 50], json.dumps({"layer": layer})) for layer in (10, 2)]
    metrics = pd.DataFrame(sum(layers, logged("test", "angle", [60.0])))
    assert list(run_figure(metrics, "angle").data["label"].cat.categories) == ["layer 2", "layer 10"]


def test_the_mean_of_tasks_is_drawn_rather_than_each_of_them():
    tasks = logged("test", "accuracy", [0.5, 0.7], json.dumps({"task": 1}))
    metrics = pd.DataFrame(logged("test", "accuracy", [0.4, 0.6]) + tasks)
    assert list(run_figure(metrics, "test/accuracy").data["mean"]) == [0.4, 0.6]


def test_only_training_rows_are_drawn_and_of_a_step_the_last_value():
    again = logged("test", "accuracy", [0.3])
    metrics = pd.DataFrame(
        logged("test", "accuracy", [0.1, 0.2]) + again + logged("test", "accuracy", [0.9], stage="eval")
    )
    assert list(run_figure(metrics).data["mean"]) == [0.3, 0.2]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (
            "test/acuracy",
            "no run has the metric 'test/acuracy'. Did you mean 'test/accuracy'? There are: test/accuracy.",
        ),
        ("los", "There are: test/accuracy."),
    ],
)
def test_an_unknown_metric_is_an_error_that_lists_what_there_is(metric, words):
    with pytest.raises(UserError) as error:
        run_figure(pd.DataFrame(logged("test", "accuracy", [0.1, 0.2])), metric)
    assert words in str(error.value)


def test_smoothing_takes_the_mean_of_the_last_steps():
    frame = rows([1.0, 2.0, 6.0, 4.0]).assign(style="")
    frame["step"] = [0, 1, 2, 10]
    assert list(smoothed(frame, 2)["value"]) == [1, 1.5, 4, 4]
    assert smoothed(frame, 1) is frame
    assert "mean of the last 2 steps" in smoothing_text(2, "step")


@pytest.mark.parametrize(
    ("view", "place"),
    [(View(), "right"), (View(width=3.5), "bottom"), (View(width=4), "bottom"), (View(width=4, height=3), "right")],
)
def test_the_legend_is_where_it_leaves_room_for_the_panel(view, place):
    curves = mean_curves(pd.concat([rows([0.1, 0.8, 0.9], label=label) for label in "ab"]))
    figure = curves_figure(curves, ACCURACY, view)
    assert figure.theme.getp("legend_position") == place
    assert figure.theme.getp("figure_size")[0] == (view.width or figure.theme.getp("figure_size")[0])
