"""Films as files."""

import sys

import imageio.v3 as imageio
import numpy as np
import pytest

from plastic_cli.errors import UserError
from plastic_cli.figures.encoding import check_film_can_be_written, write_film


def drawn(count=6, size=(40, 60)):
    """White frames with a moving blue square and a still, smooth ramp of red."""
    frames = []
    for place in range(count):
        frame = np.full((*size, 3), 255, np.uint8)
        frame[5:15, 5 * place : 5 * place + 10] = (0, 114, 178)
        frame[20:30, :, 1:] = np.linspace(0, 255, size[1]).astype(np.uint8)[:, None]
        frames.append(frame)
    return frames


def test_frames_of_few_colors_are_unchanged_in_a_gif(tmp_path):
    frames = drawn()
    write_film(tmp_path / "film.gif", frames, 0.1)
    np.testing.assert_array_equal(imageio.imread(tmp_path / "film.gif"), np.stack(frames))
    assert imageio.immeta(tmp_path / "film.gif")["duration"] == 100
    assert imageio.immeta(tmp_path / "film.gif")["loop"] == 0


def test_frequent_colors_of_many_are_unchanged_and_the_others_are_close(tmp_path):
    frames = drawn(size=(64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 3), np.uint8)
    for frame in frames:
        frame[40:60] = noise
    write_film(tmp_path / "film.gif", frames, 0.1)
    read = imageio.imread(tmp_path / "film.gif")
    np.testing.assert_array_equal(read[:, :20], np.stack(frames)[:, :20])
    assert np.abs(read[:, 40:60].astype(int) - noise).mean() < 25


def test_a_still_part_takes_no_room_in_a_gif(tmp_path):
    still = drawn(1, (120, 160))[0]
    still[:] = np.random.default_rng(0).integers(0, 255, still.shape, np.uint8)
    for name, count in (("one", 1), ("many", 30)):
        frames = [still.copy() for _ in range(count)]
        for place, frame in enumerate(frames):
            frame[0, place] = 255
        write_film(tmp_path / f"{name}.gif", frames, 0.1)
    one, many = ((tmp_path / f"{name}.gif").stat().st_size for name in ("one", "many"))
    # Each further frame has its palette of 256 colors.
    assert many < one + 30 * 1024 < 3 * one


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_video_has_the_frames_and_the_speed(suffix, tmp_path, capfd):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes videos, is not installed")
    path = tmp_path / f"film.{suffix}"
    write_film(path, drawn(size=(33, 65)), 0.25)
    frames = list(imageio.imiter(path, plugin="FFMPEG"))
    assert [frame.shape for frame in frames] == [(34, 66, 3)] * 6
    assert imageio.immeta(path, plugin="FFMPEG")["fps"] == pytest.approx(4)
    assert np.abs(frames[3][:33, :65].astype(int) - drawn(size=(33, 65))[3]).mean() < 12
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("file_format", "name"), [("mp4", "MP4"), ("webm", "WebM")])
def test_a_format_that_needs_ffmpeg_is_named(file_format, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=f"{name} needs imageio-ffmpeg, which is not installed: .*, or choose GIF"):
        check_film_can_be_written(file_format)
    check_film_can_be_written("gif")
