"""The canvas of films, and the film of a classifier's weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from plastic_cli.classifier.render import show_accuracy, weight_changes, weight_frames
from plastic_cli.figures.film import (
    FULL_SCALE,
    add_caption,
    add_color_bar,
    animate,
    as_loop,
    full_scale,
    growing_curve,
    new_figure,
    pace,
    show_weights,
    style_curves,
    style_image,
)
from plastic_cli.figures.measures import image_grid
from plastic_cli.figures.theme import DIVERGING
from plastic_cli.figures.weights import weights_picture, wide_columns

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = {epoch: torch.randn((5, 12), generator=GENERATOR) for epoch in (0, 2, 7)}
ACCURACY = pd.DataFrame(
    [
        {"split": split, "step": step, "value": 0.5 + 0.05 * step + 0.01 * (split == "train")}
        for split in ("train", "test")
        for step in range(8)
    ]
)


def film(steps, title="a film"):
    figure = new_figure(title)
    left, right = figure.subplots(1, 2)
    updates = [
        show_weights(left, WEIGHTS, None, "weights"),
        growing_curve(right, range(8), np.arange(8) ** 2, color="black", label="square"),
        add_caption(figure, lambda step: f"step {step}"),
    ]
    style_curves(right, "step", "value")
    right.set_xlim(0, 8)
    right.set_ylim(0, 50)
    return animate(figure, updates, steps)


def test_a_frame_depends_on_its_step_only():
    together = film([0, 2, 7, 2])
    (alone,) = film([2])
    assert all(frame.shape == (352, 960, 3) and frame.dtype == np.uint8 for frame in together)
    np.testing.assert_array_equal(together[1], alone)
    np.testing.assert_array_equal(together[3], alone)
    assert np.any(together[0] != together[1])
    assert np.any(together[1] != together[2])


def test_only_moving_parts_change_and_the_title_stands_above_them():
    first, last = film([0, 7])
    np.testing.assert_array_equal(first[-12:], last[-12:])
    np.testing.assert_array_equal(first[:24], last[:24])
    assert np.any(first[:24] != film([0], title="")[0][:24])
    # The caption lies between the title and the panels.
    assert np.any(first[30:44] != last[30:44])


@pytest.mark.parametrize("image_shape", [(1, 3, 4), (3, 2, 2), None])
def test_weights_of_a_step_are_shown_on_one_scale(image_shape):
    axes = Figure().subplots()
    update = show_weights(axes, WEIGHTS, image_shape, "weights")
    limit = full_scale(list(WEIGHTS.values()))
    assert axes.get_title(loc="left") == f"weights (±{limit:.2g})"
    shown = []
    for step in WEIGHTS:
        update(step)
        shown.append(np.array(axes.images[0].get_array()))
    assert np.any(shown[0] != shown[1])
    if image_shape is None:
        np.testing.assert_array_equal(shown[2], WEIGHTS[7].numpy())
        assert axes.images[0].get_clim() == (-limit, limit)


def test_a_curve_grows_to_the_step_and_ends_in_a_dot():
    axes = Figure().subplots()
    update = growing_curve(axes, [1, 2, 4], [10, 20, 40])
    line, end = axes.lines
    for step, shown in ((0, 0), (1, 1), (3, 2), (4, 3), (9, 3)):
        update(step)
        assert list(line.get_xdata()) == [1, 2, 4][:shown]
        assert list(line.get_ydata()) == [10, 20, 40][:shown]
        assert list(end.get_ydata()) == [10, 20, 40][:shown][-1:]


def test_a_film_shows_its_last_frame_first_and_holds_it_for_half_a_second_at_both_ends():
    frames = [np.full((2, 2, 3), value, np.uint8) for value in range(3)]
    assert [int(frame[0, 0, 0]) for frame in as_loop(frames, 0.2)] == [2, 2, 0, 1, 2, 2, 2]
    assert [int(frame[0, 0, 0]) for frame in as_loop(frames, 2.0)] == [2, 0, 1, 2, 2]


@pytest.mark.parametrize(("frames", "seconds"), [(1, 0.5), (10, 0.5), (20, 0.4), (100, 0.08), (1000, 0.06)])
def test_a_film_takes_about_eight_seconds_if_a_frame_can_be_seen_for_that_long(frames, seconds):
    assert pace(frames) == seconds


def test_a_note_is_below_the_panels_and_leaves_them_room():
    figure = new_figure("a film", note="each frame is 4 steps\nand more")
    axes = figure.subplots()
    axes.set_xlabel("step")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    note = next(text for text in figure.texts if text.get_text().startswith("each frame"))
    assert 0 < note.get_window_extent().y0 < note.get_window_extent().y1 < axes.get_tightbbox().y0


def test_the_full_scale_is_the_largest_quantile_and_never_0():
    values = np.linspace(-1, 1, 1001)
    assert full_scale([values, values / 2]) == pytest.approx(np.quantile(np.abs(values), FULL_SCALE))
    assert full_scale([torch.zeros(3, 3)]) == 1.0
    # A few values in an array of zeros: their magnitude, because the quantile is 0.
    sparse = np.zeros(10_000)
    sparse[0] = -3.0
    assert full_scale([sparse]) == 3.0


def test_a_color_bar_names_what_it_shows_and_an_image_has_whole_numbers_at_its_ticks():
    figure = Figure()
    axes = figure.subplots()
    axes.imshow(np.zeros((3, 40)))
    style_image(axes, "input", "unit")
    bar = add_color_bar(axes, ScalarMappable(), "gate", extend="both")
    assert bar.ax.get_ylabel() == "gate"
    assert bar.extend == "both"
    for ticks in (axes.get_xticks(), axes.get_yticks()):
        assert np.array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize("image_shape", [(1, 3, 4), None])
def test_the_film_of_weights_has_a_frame_for_each_stored_epoch(image_shape):
    frames = weight_frames(WEIGHTS, image_shape, ACCURACY, "rule on data")
    assert len(frames) == 3
    (last,) = weight_frames({0: WEIGHTS[0], 7: WEIGHTS[7]}, image_shape, ACCURACY, "rule on data")[-1:]
    assert last.shape == frames[-1].shape
    # Accuracy is not shown before it is measured.
    early = weight_frames(WEIGHTS, image_shape, ACCURACY[ACCURACY["step"] <= 2], "rule on data")
    assert np.any(early[2][:, 640:] != frames[2][:, 640:])


def accuracy_axes(values, levels=None, last=5):
    """Axes with the test accuracy of the epochs from 0 on, at the last epoch."""
    axes = Figure().subplots()
    accuracy = pd.DataFrame({"split": "test", "step": range(len(values)), "value": values})
    for update in show_accuracy(axes, accuracy, last, levels):
        update(last)
    return axes


def test_the_untrained_network_is_part_of_the_curve():
    axes = accuracy_axes([0.1, 0.5, 0.7, 0.8, 0.85, 0.9])
    line, _ = axes.lines
    assert line.get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    assert axes.get_ylim()[0] < 0.1
    assert len(axes.texts) == 0
    assert [label.get_text() for label in axes.get_yticklabels()][-1].endswith("%")


def test_an_accuracy_that_would_flatten_the_curve_is_named_below_it():
    axes = accuracy_axes([0.1, 0.90, 0.91, 0.92, 0.925, 0.93])
    assert axes.get_ylim()[0] > 0.8
    (text,) = axes.texts
    assert text.get_text().endswith("epoch 0: 10%")


def test_a_control_is_inside_of_the_panel_and_in_the_legend():
    axes = accuracy_axes([0.5, 0.90, 0.91, 0.92, 0.925, 0.93], {"zero events": 0.4})
    low, high = axes.get_ylim()
    assert low < 0.4 < high
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["test", "zero events"]


@pytest.mark.parametrize(
    ("units", "aspect", "columns"), [(36, 1.95, 9), (36, 1.0, 6), (64, 1.0, 8), (1, 2.0, 1), (7, 1.0, 2)]
)
def test_images_of_units_fill_their_panel(units, aspect, columns):
    assert wide_columns(units, (1, 28, 28), aspect) == columns


def test_one_picture_shows_several_weights_on_one_scale():
    small, large = torch.full((4, 4), 0.1), torch.full((4, 4), 1.0)
    picture = weights_picture({"before": small, "after": large}, (1, 2, 2), "Weights")
    assert picture.dtype == np.uint8
    colors = {tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}
    assert tuple(int(DIVERGING[-1][start : start + 2], 16) for start in (1, 3, 5)) in colors
    # A tenth of the largest weight is pale.
    pale = image_grid(small, (2, 2), limit=1.0)[1, 1]
    assert tuple(pale) in colors


def test_a_run_without_accuracy_after_its_first_epoch_can_be_shown():
    frames = weight_frames({0: WEIGHTS[0]}, None, ACCURACY[ACCURACY["step"] == 0], "rule on data")
    assert len(frames) == 1


def test_changes_are_those_since_the_first_epoch():
    changes = weight_changes(WEIGHTS)
    assert list(changes) == [0, 2, 7]
    assert not changes[0].any()
    torch.testing.assert_close(changes[7], WEIGHTS[7] - WEIGHTS[0])
