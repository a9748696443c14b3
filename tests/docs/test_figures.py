"""The pictures of measured results: they show the numbers of the reference, and each is listed with its source."""

import re

import numpy as np
import pandas as pd
from plotnine import aes, geom_point, ggplot, labs

import figures
from docs.pages import ROOT
from measured import stored_reference

IMAGES = ROOT / "docs/images"


def test_the_pictures_show_the_numbers_of_the_reference():
    found = {name: figures.hash_of(figure.plot) for name, figure in figures.figures(stored_reference()).items()}
    differing = sorted(name for name in {*found, *figures.stored()} if found.get(name) != figures.stored().get(name))
    assert differing == [], "the reference has changed: run `python website/figures.py`"
    assert all((IMAGES / f"{name}.png").is_file() for name in found)


def test_every_picture_is_listed_with_its_source():
    text = (ROOT / "docs/measurements/index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[\w-]+\.png`(?:, )?)+) \| (.+) \|$", text, re.MULTILINE)
    listed = {name: source for names, source in rows for name in re.findall(r"`([\w-]+)\.png`", names)}
    assert sorted(listed) == sorted(path.stem for path in IMAGES.glob("*.png"))
    from_reference = {name for name, source in listed.items() if source.startswith("reference:")}
    assert from_reference == set(figures.stored())


def plot(values, title="a"):
    data = pd.DataFrame({"x": [1, 2], "y": values, "run": ["r", "s"]})
    return ggplot(data, aes("x", "y")) + geom_point(data=data.assign(low=[0.5, np.nan])) + labs(title=title)


def test_a_hash_changes_with_what_can_be_seen_and_with_nothing_else():
    first = figures.hash_of(plot([0.25, 0.5]))
    assert figures.hash_of(plot([0.25 + 1e-12, 0.5])) == first
    assert figures.hash_of(plot([0.2501, 0.5])) != first
    assert figures.hash_of(plot([0.25, 0.5], title="b")) != first
    other = plot([0.25, 0.5])
    other.layers[0]._data["low"] = [0.4, np.nan]
    assert figures.hash_of(other) != first, "an interval is in the data of a layer"
