"""The figures of `plastic analyze metafa`: units, and that no text is cut."""

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from plastic_cli.figures.files import save_figure
from plastic_metafa.analysis import figures

STEPS = range(1, 11)


def theta(terms):
    names = [f"{term} a term" for term in range(terms)]
    curves = pd.DataFrame({"step": step, "value": 0.01 * step, "name": name} for step in STEPS for name in names)
    return figures.theta_figure(curves, pd.DataFrame({"name": names, "mean": 0.1}), 1e-05)


def accuracy():
    curves = pd.DataFrame(
        {"step": step, "metric": metric, "value": value / step}
        for step in STEPS
        for metric, value in (("accuracy", 0.9), ("loss", 3.0))
    )
    levels = {"backprop": 0.7, "feedback alignment": 0.3, "chance among the episode's classes": 0.2}
    return figures.accuracy_figure(curves, levels, 30)


def angles():
    rows = [
        {"step": step, "metric": metric, "layer": layer, "value": 90 - step}
        for step in STEPS
        for metric in ("angle", "angle_by_sample")
        for layer in (1.0, 2.0, 3.0)
    ]
    return figures.angles_figure(pd.DataFrame(rows), 30)


def terms():
    table = pd.DataFrame({"term": [0, 2], "name": ["pseudo-gradient", "ehebb"], "share": [0.2, 0.8]})
    return figures.terms_figure(table.assign(difference=-0.3, low=-0.4, high=-0.2), 0.68)


FIGURES = {
    "theta of one term": lambda: theta(1),
    "theta of two terms": lambda: theta(2),
    "theta of seven terms": lambda: theta(7),
    "accuracy": accuracy,
    "angles": angles,
    "terms": terms,
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut(name, tmp_path):
    (path,) = save_figure(FIGURES[name](), tmp_path, "figure", ("png",))
    image = imageio.imread(path)[..., :3]
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() > 250


def test_accuracies_and_their_levels_are_in_per_cent():
    figure = accuracy()
    first = figure.data[(figure.data["step"] == 1) & (figure.data["metric"] == "accuracy")]
    assert first["value"].tolist() == [90]
    assert set(first["facet"]) == {"accuracy (%)"}
    losses = figure.data[figure.data["metric"] == "loss"]
    assert losses["value"].max() == 3
    (lines,) = [layer._data for layer in figure.layers if type(layer.geom).__name__ == "geom_hline"]
    assert np.allclose(lines["value"], [70, 30, 20])
