"""An image of a trial task: the time within the trial, the observation, and the last action. Needs no display."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 384, 288
"""In pixels. Video encoders need multiples of 16."""

_MARGIN, _LABELS, _TOP, _BOTTOM = 12, 128, 66, 36
_LOW, _HIGH = -0.5, 1.5
_INK, _PALE, _BAR = (40, 40, 40), (225, 225, 225), (0, 114, 178)
_VERDICTS = {None: _INK, True: (0, 130, 95), False: (190, 70, 0)}
_PERIODS = {"fixation": (204, 204, 204), "delay": (170, 210, 240), "test": (255, 200, 120), "decision": (150, 210, 180)}
_STIMULUS = (240, 228, 66)


def draw(
    entries: Sequence[str],
    observation: NDArray[np.float32],
    *,
    timeline: Sequence[str],
    step: int | None,
    title: str,
    action: str,
    correct: bool | None,
) -> NDArray[np.uint8]:
    """Draw one step as an image of shape (HEIGHT, WIDTH, 3).

    The strip shows the periods of the trial and marks the present step (None: the episode has ended). Each entry of the
    observation (entries,) is a bar from 0, clipped to -0.5 and 1.5, with a tick at 1. The last action is below.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.text((_MARGIN, 16), title, fill=_INK, font=_font(), anchor="lm")

    unit = (WIDTH - 2 * _MARGIN) / len(timeline)
    start = 0
    for name, group in groupby(timeline):
        end = start + len(list(group))
        color = _PERIODS.get(name, _STIMULUS)
        pen.rectangle((_MARGIN + start * unit, 30, _MARGIN + end * unit - 1, 44), fill=color)
        start = end
    if step is not None:
        center = _MARGIN + (step + 0.5) * unit
        pen.polygon([(center, 45), (center - 5, 54), (center + 5, 54)], fill=_INK)

    left, right = _MARGIN + _LABELS, WIDTH - _MARGIN
    height = min(26.0, (HEIGHT - _TOP - _BOTTOM) / len(entries))

    def across(value: float) -> float:
        return left + (right - left) * (min(max(value, _LOW), _HIGH) - _LOW) / (_HIGH - _LOW)

    bottom = _TOP + height * len(entries)
    for index, (name, value) in enumerate(zip(entries, observation.tolist(), strict=True)):
        top = _TOP + index * height
        if height >= 9:
            pen.text((_MARGIN, top + height / 2), name, fill=_INK, font=_font(), anchor="lm")
        ends = sorted((across(0.0), across(value)))
        pen.rectangle((ends[0], top + 0.15 * height, ends[1], top + 0.8 * height), fill=_BAR)
    for value, color in ((0.0, _INK), (1.0, _PALE)):
        pen.line((across(value), _TOP, across(value), bottom), fill=color)

    verdict = {None: "", True: "  (correct)", False: "  (wrong)"}[correct]
    words = f"last action: {action}{verdict}"
    pen.text((_MARGIN, HEIGHT - 16), words, fill=_VERDICTS[correct], font=_font(), anchor="lm")
    return np.asarray(image, np.uint8).copy()


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
