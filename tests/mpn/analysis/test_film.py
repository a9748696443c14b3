"""The film of an episode: its frames and its files."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from plastic_cli.errors import RunFailed, UserError
from plastic_cli.runs.folder import create_run
from plastic_mpn.analysis.choice import choice_of
from plastic_mpn.analysis.cropping import content_window
from plastic_mpn.analysis.film import render_episode
from plastic_mpn.analysis.frames import _choice, _traces, caption, choose_steps, episode_frames
from plastic_mpn.analysis.recording import Episode, draws_pictures, record_episodes
from plastic_mpn.analysis.sorting import component_order, unit_order
from plastic_mpn.environments.names import Names
from plastic_mpn.networks.agents import MPNDQN, ActorCritic


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(runs_folder):
    return create_run(runs_folder, rule="mpn", config={"seed": 0, "core": "mpn"}, stage="render")


class Silent(gymnasium.Env):
    """An environment that draws nothing, of seven steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 7
        return self.observe(), {}

    def step(self, action):
        self.left -= 1
        return self.observe(), float(action), self.left == 0, False, {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)


@pytest.fixture
def silent():
    gymnasium.register("test/Silent-v0", entry_point=lambda render_mode=None: Silent())
    yield "test/Silent-v0"
    del gymnasium.registry["test/Silent-v0"]


def agent(core="mpn", kind=MPNDQN):
    return kind(4, 6, 2, core=core, generator=torch.Generator().manual_seed(0))


NAMES = Names(("x", "v", "angle", "spin"), ("left", "right"), 0.02)


def trained(network, env_id="CartPole-v1", max_steps=9):
    return SimpleNamespace(
        network=network, env_id=env_id, options={}, max_steps=max_steps, checkpoint="best", names=NAMES
    )


def frames_of(episode, steps, network=None, **changes):
    choice = choice_of(network or agent(), episode.outputs, NAMES.actions)
    return episode_frames(
        episode, steps, **{"title": "agent on CartPole-v1", "names": NAMES, "choice": choice, **changes}
    )


def asked(**changes):
    return SimpleNamespace(
        **{"episode": 0, "video": "gif", "frames": 150, "frame_seconds": 0.1, "still": (), **changes}
    )


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (OSError("no screen"), r"test/Drawing-v0: its render\(\) failed with OSError: no screen"),
        (None, r"test/Drawing-v0: the image of render\(\) has the shape \(\); it must be \(height, width, 3\)"),
        (np.zeros((4, 4)), r"the image of render\(\) has the shape \(4, 4\)"),
    ],
)
def test_an_environment_that_stops_drawing_is_named_with_its_error(picture, words):
    class Drawing(Silent):
        metadata: ClassVar = {"render_modes": ["rgb_array"]}

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def render(self):
            if self.left == 7:
                return np.zeros((4, 4, 3), np.uint8)
            if isinstance(picture, Exception):
                raise picture
            return picture

    gymnasium.register("test/Drawing-v0", entry_point=Drawing)
    try:
        with pytest.raises(RunFailed, match=words) as raised:
            record_episodes(agent(), "test/Drawing-v0", [1], render=True)
    finally:
        del gymnasium.registry["test/Drawing-v0"]
    assert "\n" not in str(raised.value)


# -------------------------------------------------------------------------------------------------------- frames


@given(st.integers(1, 700), st.integers(1, 200))
def test_chosen_steps_are_evenly_spaced_and_end_with_the_last(length, most):
    steps = choose_steps(length, most)
    assert len(steps) <= most
    assert steps[-1] == length - 1
    assert steps[0] < -(-length // most)
    assert len(set(np.diff(steps))) <= 1
    if length <= most:
        assert steps == tuple(range(length))


@pytest.mark.parametrize(("core", "kind"), [("mpn", MPNDQN), ("gru", MPNDQN), ("mpn", ActorCritic)])
def test_a_frame_depends_only_on_its_step(core, kind):
    (episode,) = record_episodes(agent(core, kind), "CartPole-v1", [0], max_steps=9, render=True)
    assert episode.frames.shape[0] == len(episode) == len(episode.frame_steps)
    together = frames_of(episode, [0, 4, len(episode) - 1, 4], agent(core, kind))
    assert all(frame.shape == (544, 800, 3) and frame.dtype == np.uint8 for frame in together)
    (alone,) = frames_of(episode, [4], agent(core, kind))
    np.testing.assert_array_equal(together[1], alone)
    np.testing.assert_array_equal(together[3], alone)
    assert np.any(together[0] != alone)
    # All that moves lies inside the panels: the labels at the edges stand still.
    np.testing.assert_array_equal(together[0][-12:], alone[-12:])


def test_m_is_shown_on_one_scale_that_is_symmetric_about_0():
    (episode,) = record_episodes(agent(), "CartPole-v1", [0], max_steps=9)
    flipped = episode.__class__(**{**vars(episode), "matrices": -episode.matrices})
    # The order of the units depends on the sign only if two weights are equally large.
    np.testing.assert_array_equal(unit_order(episode), unit_order(flipped))
    (frame,) = frames_of(episode, [8])
    (mirror,) = frames_of(flipped, [8])
    different = np.argwhere((frame != mirror).any(axis=-1))
    # Only the panel of M, top right, shows M.
    assert different[:, 0].max() < 330
    assert different[:, 1].min() > 380
    # Blue and vermilion change places, white stays: where one is more blue than red the other is more red.
    rows, columns = different.T
    balance = frame[rows, columns, 2].astype(int) - frame[rows, columns, 0]
    opposite = mirror[rows, columns, 2].astype(int) - mirror[rows, columns, 0]
    strong = np.abs(balance) > 40
    assert strong.sum() > 100
    assert np.mean(np.sign(balance[strong]) == -np.sign(opposite[strong])) > 0.99


def test_the_environment_draws_only_the_chosen_steps():
    (episode,) = record_episodes(agent(), "CartPole-v1", [0], max_steps=9, render=(2, 5))
    (whole,) = record_episodes(agent(), "CartPole-v1", [0], max_steps=9, render=True)
    assert episode.frame_steps == (2, 5)
    np.testing.assert_array_equal(episode.frames, whole.frames[[2, 5]])
    assert "SDL_VIDEODRIVER" not in os.environ


def test_an_environment_without_pictures_shows_its_observations(silent, run, monkeypatch):
    messages = []
    monkeypatch.setattr(run, "message", messages.append)
    assert draws_pictures("CartPole-v1")
    assert not draws_pictures(silent)
    render_episode(asked(), run, trained(agent(), silent, None))
    assert any("test/Silent-v0 cannot draw itself here" in message for message in messages)
    assert len(imageio.imread(run.folder / "videos" / "episode_0.gif")) >= 7


def test_pygame_that_is_missing_counts_as_no_picture(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pygame"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert not draws_pictures("CartPole-v1")


# --------------------------------------------------------------------------------------------------------- files


def test_a_gif_has_a_frame_for_each_step_and_holds_the_last(run):
    render_episode(asked(still=(0, 3)), run, trained(agent()))
    path = run.folder / "videos" / "episode_0.gif"
    frames = imageio.imread(path)
    # The last frame is also the first one, which programs show before the film is started.
    assert frames.shape == (10, 544, 800, 3)
    np.testing.assert_array_equal(frames[0], frames[9])
    durations = [imageio.immeta(path, index=index)["duration"] for index in range(10)]
    # The writer joins equal frames into one that stays.
    assert durations == [500, *[100] * 8, 600]
    stills = sorted(path.name for path in (run.folder / "figures").glob("*.png"))
    assert stills == ["episode_0_step_0.png", "episode_0_step_3.png"]
    still = imageio.imread(run.folder / "figures" / "episode_0_step_3.png")
    # A GIF has 256 colors.
    assert np.abs(still.astype(int) - frames[4]).mean() < 1
    assert run.results["render/return"] == 9


def test_a_long_episode_shows_fewer_steps_with_a_message(run, monkeypatch):
    messages = []
    monkeypatch.setattr(run, "message", messages.append)
    render_episode(asked(frames=4, episode=1), run, trained(agent()))
    assert any("showing 3 of 9 steps" in message for message in messages)
    assert len(imageio.imread(run.folder / "videos" / "episode_1.gif")) == 4
    assert (run.folder / "figures" / "episode_1_step_8.png").exists()


def test_a_still_of_no_step_is_refused_before_anything_is_written(run):
    with pytest.raises(UserError, match="--still 9: episode 0 has the steps 0 to 8"):
        render_episode(asked(still=(3, 9)), run, trained(agent()))
    assert not (run.folder / "videos").exists()


def test_an_mp4_has_the_frames_and_the_speed(run):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes MP4, is not installed")
    render_episode(asked(video="mp4", still=(3,)), run, trained(agent()))
    path = run.folder / "videos" / "episode_0.mp4"
    frames = list(imageio.imiter(path, plugin="FFMPEG"))
    assert len(frames) == 5 + 9 + 5
    assert frames[0].shape == (544, 800, 3)
    assert imageio.immeta(path, plugin="FFMPEG")["fps"] == pytest.approx(10)
    still = imageio.imread(run.folder / "figures" / "episode_0_step_3.png")
    assert np.abs(still.astype(int) - frames[5 + 3]).mean() < 6


def test_an_mp4_of_odd_size_grows_by_a_row_and_a_column_and_is_not_scaled(run):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes MP4, is not installed")
    frame = np.full((33, 65, 3), 255, np.uint8)
    frame[:, 32:] = 0
    path = run.save_video("odd", [frame] * 3, 0.5, "mp4")
    first = next(imageio.imiter(path, plugin="FFMPEG"))
    assert first.shape == (34, 66, 3)
    assert first[:, :31].min() > 230
    assert first[:, 34:].max() < 25


def test_without_ffmpeg_one_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for attempt in (
        lambda: run.save_video("film", [np.zeros((4, 4, 3), np.uint8)], 0.1, "mp4"),
        lambda: render_episode(asked(video="mp4"), run, trained(agent())),
    ):
        with pytest.raises(UserError, match=r"pip install 'plastic-cli\[video\]'") as raised:
            attempt()
        assert "\n" not in str(raised.value)
    assert not (run.folder / "videos").exists()
    run.save_video("film", [np.zeros((4, 4, 3), np.uint8)], 0.1)


def test_an_ffmpeg_that_is_named_and_is_not_there_is_refused(run, monkeypatch, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes MP4, is not installed")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    with pytest.raises(UserError, match=r"IMAGEIO_FFMPEG_EXE names .*no-ffmpeg, which is not a program here") as raised:
        render_episode(asked(video="mp4"), run, trained(agent()))
    assert "\n" not in str(raised.value)
    assert not (run.folder / "videos").exists()


def axes_of(draw, *arguments):
    axes = Figure().add_subplot()
    return axes, draw(axes, *arguments)


def made_up(outputs):
    outputs = np.asarray(outputs, np.float32)
    length = len(outputs)
    return Episode(
        seed=0, observations=np.zeros((length, 2), np.float32), actions=np.zeros(length, np.int64),
        rewards=np.ones(length), outputs=outputs, hidden=np.zeros((length, 1), np.float32), matrices=None,
        infos=({},) * length,
    )  # fmt: skip


def test_a_difference_of_large_q_values_has_ticks_of_few_digits():
    outputs = 100.02 + np.array([[0.0, 0.003], [0.002, 0.001], [0.0, 0.004]])
    choice = choice_of(agent(), outputs, ("left", "right"))
    axes, _ = axes_of(_choice, made_up(outputs), choice)
    FigureCanvasAgg(axes.figure).draw()
    assert axes.yaxis.get_offset_text().get_text() == ""
    digits = [sum(map(str.isdigit, label.get_text())) for label in axes.get_yticklabels()]
    assert 1 <= max(digits) <= 5
    np.testing.assert_allclose(choice.values[:, 0], [0.003, -0.001, 0.004], atol=1e-9)


@pytest.mark.parametrize("kind", [MPNDQN, ActorCritic])
def test_values_of_actions_leave_out_what_all_have_in_common(kind):
    outputs = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    one, other = (choice_of(agent(kind=kind), outputs + common, ("a", "b", "c")) for common in (0.0, 50.0))
    np.testing.assert_allclose(one.values, other.values)
    assert one.values.argmax(axis=1)[0] == 2
    totals = one.values.sum(axis=1)
    np.testing.assert_allclose(totals, 0 if kind is MPNDQN else 100, atol=1e-9)
    # Two actions have one value, whose sign or half says which is preferred.
    two = choice_of(agent(kind=kind), outputs[:, :2], ("a", "b"))
    assert two.values.shape == (2, 1)
    assert two.values[0, 0] > two.middle == two.values[1, 0]


@pytest.mark.parametrize("actions", [2, 3, 5, 12])
def test_the_choice_of_any_number_of_actions_is_drawn_up_to_the_step(actions):
    outputs = np.random.default_rng(0).normal(size=(40, actions))
    names = tuple(f"action {index}" for index in range(actions))
    axes, update = axes_of(_choice, made_up(outputs), choice_of(agent(), outputs, names))
    legend = axes.get_legend()
    assert (legend is None) == (actions > 8)
    if legend is not None:
        assert [text.get_text() for text in legend.get_texts()] == list(names)
    for step in (0, 20):
        update(step)
        if actions > 8:
            assert np.isfinite(axes.images[0].get_array().filled(np.nan)).sum() == actions * (step + 1)
        else:
            drawn = [len(line.get_xdata()) for line in axes.lines if line.get_animated()]
            assert max(drawn) == step + 1


@pytest.mark.parametrize("actions", [3, 5])
def test_overlapping_lines_are_all_visible(actions):
    names = tuple(f"action {index}" for index in range(actions))
    axes, update = axes_of(_choice, made_up(np.ones((40, actions))), choice_of(agent(), np.ones((40, actions)), names))
    update(39)
    canvas = FigureCanvasAgg(axes.figure)
    for line in axes.lines:
        line.set_animated(False)
    axes.get_legend().remove()
    canvas.draw()
    colors = {tuple(color) for color in np.asarray(canvas.buffer_rgba())[..., :3].reshape(-1, 3).tolist()}
    for line in axes.lines[:actions]:
        wanted = np.array(to_rgb(line.get_color())) * 255
        assert min(np.abs(np.array(color) - wanted).max() for color in colors) < 12, line.get_color()


def test_inputs_are_drawn_between_the_others_each_on_its_own_scale():
    values = np.stack([np.linspace(-3, 1, 50), np.linspace(0, 1e-3, 50), np.zeros(50)], axis=1)
    axes, update = axes_of(_traces, values, ("large", "small", "none"))
    update(49)
    traces = [line.get_ydata() for line in axes.lines if line.get_animated()]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["large", "small", "none"]
    for row, trace in enumerate(traces):
        assert 2 - row < trace.min() <= trace.max() < 3 - row
    assert np.ptp(traces[0]) == pytest.approx(np.ptp(traces[1]))
    assert len(traces[0]) == 50


def test_the_caption_names_step_time_trial_and_action():
    episode = made_up(np.zeros((5, 2)))
    assert caption(episode, 3, NAMES) == "step 3 of 4 (0.06 s)  ·  action: left  ·  reward 1"
    infos = tuple({"trial": step // 3, "period": "delay" if step % 3 else "go"} for step in range(5))
    trials = episode.__class__(**{**vars(episode), "infos": infos})
    assert "step 4 of 4  ·  trial 2 of 2: delay  ·  " in caption(trials, 4, Names((), ("left", "right")))


# ------------------------------------------------------------------------------------------------ sorting, cropping


def test_units_are_sorted_by_their_weight_in_the_first_component():
    rng = np.random.default_rng(0)
    weights = rng.permutation(np.linspace(-1, 2, 16))
    rows = np.outer(weights, rng.normal(size=5000)) + 1e-3 * rng.normal(size=(16, 5000))
    assert np.all(np.diff(weights[component_order(rows)]) < 0)
    np.testing.assert_array_equal(component_order(rows), component_order(-rows))
    np.testing.assert_array_equal(component_order(np.zeros((4, 7))), range(4))


def pictures(*places):
    """White pictures with a line across and a square at each of the places (top, left)."""
    frames = np.full((len(places), 100, 200, 3), 255, np.uint8)
    frames[:, 60] = 0
    for frame, (top, left) in zip(frames, places, strict=True):
        frame[top : top + 10, left : left + 10] = 50
    return frames


def test_the_empty_part_of_pictures_is_cut_off_and_a_line_across_is_not_content():
    rows, columns = content_window(pictures((50, 90), (50, 110)), 2.0)
    assert rows.start < 50 < 61 < rows.stop
    assert columns.start < 90 < 120 < columns.stop
    assert (columns.stop - columns.start, rows.stop - rows.start) == (80, 40)
    _, columns = content_window(pictures((50, 20), (50, 160)), 2.0)
    assert columns.start < 20 < 170 < columns.stop
    # What moves far apart is shown whole.
    rows, columns = content_window(pictures((2, 3), (80, 188)), 2.0)
    assert (rows.start, columns.start) == (0, 0)
    assert (rows.stop, columns.stop) == (100, 200)


def test_pictures_without_content_are_shown_whole():
    blank = np.full((2, 40, 60, 3), 255, np.uint8)
    assert content_window(blank, 1.5) == (slice(0, 40), slice(0, 60))
