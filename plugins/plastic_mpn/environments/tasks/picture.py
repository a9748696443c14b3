"""An image of a trial task: the time within the trial, named values, and the last action. Needs no display."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 464, 320
"""In pixels. Video encoders need multiples of 16."""

_MARGIN, _LABELS, _TOP, _BOTTOM = 8, 150, 86, 40
_STRIP = (32, 58)
_TALLEST_BAR = 46.0
_LARGE, _SMALL = 19, 15
"""Font sizes in pixels: names and sentences, periods in the strip."""

_INK, _PALE, _BAR = (34, 38, 43), (205, 210, 216), (0, 114, 178)
_VERDICTS = {None: _INK, True: (0, 130, 95), False: (190, 70, 0)}
_PERIODS = {
    "fixation": (214, 216, 220),
    "delay": (236, 237, 239),
    "test": (246, 200, 155),
    "cue": (216, 190, 240),
    "decision": (150, 215, 185),
    "go": (150, 215, 185),
}
_STIMULUS = (160, 205, 235)


def draw(
    entries: Sequence[str],
    values: Sequence[float] | NDArray[np.floating],
    *,
    limits: tuple[float, float] = (-0.5, 1.5),
    timeline: Sequence[str],
    step: int | None,
    title: str,
    action: str,
    correct: bool | None,
) -> NDArray[np.uint8]:
    """Draw one step as an image of shape (HEIGHT, WIDTH, 3).

    The strip shows the periods of the trial and marks the present step (None: the episode has ended). Each of the
    entries has a value, a bar from 0 that is clipped to `limits`, with a line at 1. The last action is below.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.text((_MARGIN, 14), title, fill=_INK, font=_font(_LARGE), anchor="lm")
    _draw_strip(pen, timeline, step)
    _draw_bars(pen, entries, np.asarray(values, np.float64).tolist(), limits)
    verdict = {None: "", True: "  (correct)", False: "  (wrong)"}[correct]
    words = f"last action: {action}{verdict}"
    pen.text((_MARGIN, HEIGHT - 16), words, fill=_VERDICTS[correct], font=_font(_LARGE), anchor="lm")
    return np.asarray(image, np.uint8).copy()


def _draw_strip(pen: ImageDraw.ImageDraw, timeline: Sequence[str], step: int | None) -> None:
    top, bottom = _STRIP
    unit = (WIDTH - 2 * _MARGIN) / len(timeline)
    start = 0
    for name, group in groupby(timeline):
        end = start + len(list(group))
        left, right = _MARGIN + start * unit, _MARGIN + end * unit - 1
        pen.rectangle((left, top, right, bottom), fill=_PERIODS.get(name, _STIMULUS))
        if pen.textlength(name, _font(_SMALL)) < right - left - 4:
            pen.text(((left + right) / 2, (top + bottom) / 2), name, fill=_INK, font=_font(_SMALL), anchor="mm")
        start = end
    if step is not None:
        center = _MARGIN + (step + 0.5) * unit
        pen.polygon([(center, bottom + 2), (center - 7, bottom + 14), (center + 7, bottom + 14)], fill=_INK)


def _draw_bars(
    pen: ImageDraw.ImageDraw, entries: Sequence[str], values: Sequence[float], limits: tuple[float, float]
) -> None:
    low, high = limits
    left, right = _MARGIN + _LABELS, WIDTH - _MARGIN
    height = min(_TALLEST_BAR, (HEIGHT - _TOP - _BOTTOM) / len(entries))
    bottom = _TOP + height * len(entries)

    def across(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    if high < 10:
        pen.line((across(1.0), _TOP, across(1.0), bottom), fill=_PALE)
    for index, (name, value) in enumerate(zip(entries, values, strict=True)):
        top = _TOP + index * height
        size = min(_LARGE, int(0.9 * height))
        if size >= 9:
            pen.text((_MARGIN, top + height / 2), name, fill=_INK, font=_font(size), anchor="lm")
        ends = sorted((across(0.0), across(value)))
        pen.rectangle((ends[0], top + 0.15 * height, ends[1], top + 0.85 * height), fill=_BAR)
    pen.line((across(0.0), _TOP, across(0.0), bottom), fill=_INK)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
