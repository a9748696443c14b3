"""Films as files: GIF with one palette of colors, MP4 and WebM through ffmpeg."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plastic_cli.distribution import install_command
from plastic_cli.errors import UserError

FilmFormat = Literal["gif", "mp4", "webm"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "mp4": {"codec": "libx264"},
    "webm": {"codec": "libvpx-vp9", "quality": None, "output_params": ["-crf", "32", "-b:v", "0"]},
}
_NAMES = {"mp4": "MP4", "webm": "WebM"}

_COLORS, _FREQUENT, _SAMPLED = 255, 128, 8
"""Colors of a GIF; how many of them are the most frequent ones, unchanged; frames in which colors are counted."""

_PLACES = np.array([2**16, 2**8, 1], np.int32)
"""A color as one number, red, green and blue."""


def write_film(path: Path, frames: Sequence[NDArray[Any]], seconds_per_frame: float) -> None:
    """Write frames, arrays (height, width, 3) of uint8, as a film in the format of the suffix: .gif, .mp4 or .webm.

    A GIF repeats. MP4 (H.264) and WebM (VP9) have even sizes only: a frame of odd size gets a copy of its last row or
    column. They need what `check_film_can_be_written` checks.
    """
    file_format = path.suffix.lower().removeprefix(".")
    if file_format == "gif":
        _write_gif(path, frames, seconds_per_frame)
        return
    import imageio.v3 as imageio

    height, width = frames[0].shape[:2]
    # Without this imageio scales the frames to a multiple of 16, which blurs them.
    even = [np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") for frame in frames]
    options: dict[str, Any] = {"fps": 1 / seconds_per_frame, "macro_block_size": 2, **_OPTIONS[file_format]}
    imageio.imwrite(path, even, plugin="FFMPEG", **options)


def check_film_can_be_written(file_format: str) -> None:
    """Raise UserError, with what to install or correct, if imageio-ffmpeg or its ffmpeg program is missing.

    The environment variable IMAGEIO_FFMPEG_EXE can name another program, which imageio-ffmpeg does not check.
    """
    if file_format == "gif":
        return
    try:
        program = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise UserError(
            f"{_NAMES[file_format]} needs imageio-ffmpeg, which is not installed: `{install_command('video')}`, or"
            " choose GIF."
        ) from None
    if shutil.which(program) is None:
        raise UserError(
            f"IMAGEIO_FFMPEG_EXE names {program}, which is not a program here. Correct or unset it, or choose GIF."
        )


def _write_gif(path: Path, frames: Sequence[NDArray[Any]], seconds_per_frame: float) -> None:
    # One palette for all frames: equal pixels stay equal, and only what moves is stored.
    colors = _palette(frames)
    first, *others = _with_palette(frames, colors)
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=round(1000 * seconds_per_frame),
        loop=0,
        optimize=True,
    )


def _palette(frames: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return at most `_COLORS` colors (n, 3): the most frequent ones as they are, and others that represent the rest.

    Frequent colors, such as the background, must not change. An octree of all colors changes them.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, _SAMPLED).astype(int))
    numbers, counts = np.unique(
        np.concatenate([_numbers(frames[place]).ravel() for place in chosen]), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    colors = _as_colors(numbers).astype(np.uint8)
    if len(colors) <= _COLORS:
        return colors
    frequent, rest = order[:_FREQUENT], order[_FREQUENT:]
    sample = Image.fromarray(colors[rest].repeat(counts[rest].clip(max=50), axis=0)[None])
    octree = sample.quantize(_COLORS - _FREQUENT, method=Image.Quantize.FASTOCTREE)
    others = np.array(octree.getpalette(), np.uint8).reshape(-1, 3)
    return np.concatenate([colors[frequent], others])[:_COLORS]


def _with_palette(frames: Sequence[NDArray[Any]], colors: NDArray[np.uint8]) -> list[Image.Image]:
    """Return the frames as images whose pixels are the closest of `colors`."""
    # The place of each of the 2^24 colors in the palette, found when it is first needed.
    unknown = 255
    places = np.full(2**24, unknown, np.uint8)
    images = []
    for frame in frames:
        numbers = _numbers(frame)
        pixels = places[numbers]
        new = np.unique(numbers[pixels == unknown])
        for part in np.array_split(new, -(-len(new) // 4096)) if len(new) else []:
            distances = ((_as_colors(part)[:, None] - colors.astype(np.int64)) ** 2).sum(axis=-1)
            places[part] = distances.argmin(axis=1)
        image = Image.fromarray(places[numbers])
        image.putpalette(colors.tobytes())
        images.append(image)
    return images


def _numbers(frame: NDArray[Any]) -> NDArray[np.int32]:
    numbers: NDArray[np.int32] = frame.astype(np.int32) @ _PLACES
    return numbers


def _as_colors(numbers: NDArray[Any]) -> NDArray[np.int64]:
    return np.stack([numbers >> 16, (numbers >> 8) & 255, numbers & 255], axis=-1).astype(np.int64)
