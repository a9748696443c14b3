"""`plastic render selective`: frames, panels and the film of a run."""

from __future__ import annotations

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.figures.theme import ordered_colors
from plastic_selective.analysis.film import Panel, draw_frames, evenly_spaced
from selective.analysis.runs import EPOCHS, TASKS, assert_refused, history_with, look


@given(st.lists(st.integers(), min_size=1, max_size=300, unique=True), st.integers(1, 70))
def test_evenly_spaced_names_include_the_last(names, most):
    chosen = evenly_spaced(names, most)
    assert len(chosen) <= most
    assert chosen[-1] == names[-1]
    places = [names.index(name) for name in chosen]
    assert len(set(np.diff(places))) <= 1
    if len(names) <= most:
        assert chosen == names


@pytest.mark.parametrize("image_shape", [(1, 4, 5), (3, 4, 5), None])
def test_a_frame_depends_on_its_step_only(image_shape):
    random = np.random.default_rng(0)
    features = int(np.prod(image_shape or (20,)))
    values = random.random((3, 7, features)).astype(np.float32)
    history = history_with(2, 3)

    def frames(steps):
        shown = {step: values[(1, 3, 6).index(step)] for step in steps}
        negative = {step: -matrix for step, matrix in shown.items()}
        return draw_frames(history, [Panel("a", shown, 1.0), Panel("b", negative, 1.0, signed=True)], image_shape)

    together, (alone,) = frames([1, 3, 6]), frames([3])
    assert all(frame.shape == (352, 960, 3) and frame.dtype == np.uint8 for frame in together)
    np.testing.assert_array_equal(together[1], alone)
    assert np.any(together[0] != together[1])
    assert np.any(together[1] != together[2])


def test_color_images_show_the_mean_of_their_channels():
    random = np.random.default_rng(1)
    history = history_with(2, 1)
    gray = random.random((1, 5, 16)).astype(np.float32)
    color = np.stack([gray - 0.125, gray, gray + 0.125], axis=2).reshape(1, 5, 48)
    one = draw_frames(history, [Panel("a", {1: gray[0]}, 1.0)] * 2, (1, 4, 4))
    three = draw_frames(history, [Panel("a", {1: color[0]}, 1.0)] * 2, (3, 4, 4))
    assert np.mean(one[0] != three[0]) < 0.01


def test_a_film_has_a_frame_for_each_round_and_its_last_frame_is_a_picture(trained):
    folder = trained()
    outcome = look("render", folder, "--layer", 1)
    assert outcome.code == 0, outcome.err
    film = imageio.imread(folder / "videos" / "plasticity_layer_1.gif")
    # The last frame also comes first.
    assert film.shape == (TASKS * EPOCHS + 1, 352, 960, 3)
    assert np.array_equal(film[0], film[-1])
    still = imageio.imread(folder / "figures" / "plasticity_layer_1.png")
    assert np.abs(still.astype(int) - film[-1]).mean() < 1
    # A GIF has 256 colors, and the panels must leave some for the curves.
    for color in ordered_colors(TASKS):
        wanted = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
        assert np.abs(film[-1][:, 600:].astype(int) - wanted).max(axis=-1).min() < 8
    assert look("render", folder, "--layer", 3).code == 0
    assert_refused(look("render", folder, "--layer", 4), "--layer 4", "has 3 layers")


def test_a_control_is_shown_by_its_weights_after_each_task(trained):
    folder = trained("--optimizer", "adam", "--replay", "none")
    outcome = look("render", folder)
    assert outcome.code == 0, outcome.err
    assert len(imageio.imread(folder / "videos" / "plasticity_layer_1.gif")) == TASKS + 2


def test_a_film_of_many_tasks_has_a_color_bar_of_tasks():
    values = np.zeros((1, 5, 20), dtype=np.float32)
    frame = draw_frames(history_with(12, 1), [Panel("a", {0: values[0]}, 1.0)] * 2, None)[0].astype(int)
    wanted = [[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in ordered_colors(12)]
    columns = [frame[:, x] for x in range(880, 960)]
    assert any(all(np.abs(column - color).max(axis=1).min() < 3 for color in wanted) for column in columns)
