"""Figures in words."""

import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from plotnine import aes, geom_line, geom_point, ggplot, labs

from plastic_cli.figures.alternatives import alternative
from plastic_cli.figures.files import save_figure, svg_text
from plastic_cli.reports.grouping import group_runs, settings_across
from plastic_cli.reports.plots import learning_curves, looks
from plastic_cli.reports.results import summarize
from reports.report_frames import grlu_experiments

SVG = "{http://www.w3.org/2000/svg}"
FRAME = pd.DataFrame({"step": [1, 2, 1, 2], "value": [0.1, 0.2, 0.3, 0.4], "rule": ["a", "a", "b", "b"]})


def figure(**words):
    return ggplot(FRAME, aes("step", "value", color="rule")) + geom_line() + labs(**words)


def test_the_description_names_labels_and_colors():
    words = alternative(
        figure(title="Curves", subtitle="digits", x="epoch", y="accuracy", caption="One\nseed."), "name"
    )
    assert words.title == "Curves: digits"
    assert words.description == "Horizontal: epoch; vertical: accuracy; colors: a, b. One seed."


def test_the_title_of_a_figure_without_one_is_its_name():
    words = alternative(ggplot(FRAME, aes("step", "value")) + geom_point(), "learning-curves_2", "Ends at 0.4.")
    assert words.title == "learning curves 2"
    assert words.description.endswith("Ends at 0.4.")


def test_many_colors_are_counted():
    frame = pd.DataFrame({"x": range(20), "rule": [f"rule {i}" for i in range(20)]})
    words = alternative(ggplot(frame, aes("x", "x", color="rule")) + geom_point(), "name")
    assert "20 colors" in words.description
    assert "rule 3" not in words.description


@pytest.mark.parametrize("title", ["a < b & c", '"quoted"', "]]> --> <script>", "naïve Ж", "bell \x07"])
@pytest.mark.filterwarnings("ignore:Glyph 7")
def test_every_svg_has_a_text_alternative(tmp_path, title):
    (path,) = save_figure(figure(title=title), tmp_path, "figure", formats=["svg"], description="Ends at 0.4 & stays.")
    root = ElementTree.parse(path).getroot()
    assert root.get("role") == "img"
    by_id = {element.get("id"): element for element in root.iter()}
    assert by_id[root.get("aria-labelledby")].text == title.replace("\x07", "\N{REPLACEMENT CHARACTER}")
    assert by_id[root.get("aria-describedby")].text.endswith("Ends at 0.4 & stays.")
    assert len(root.findall(f".//{SVG}title")) == 1
    # The first child, where readers look for it.
    assert root[0].tag == f"{SVG}title"


def test_one_figure_has_one_text():
    assert svg_text(figure(title="x"), "name") == svg_text(figure(title="x"), "name")


def test_the_description_of_learning_curves_has_their_last_values():
    runs, metrics = grlu_experiments(seeds=3)
    groups = group_runs(runs)
    results = summarize(runs, groups)
    (curves,) = learning_curves(results, metrics, looks(results, settings_across(groups))).values()
    rows = curves.plot.data
    last = rows[(rows["label"] == "backprop") & (rows["step"] == 10)].iloc[0]
    bounds = f"[{100 * last['low']:.2f}%, {100 * last['high']:.2f}%]"
    assert f"backprop on mnist {100 * last['mean']:.2f}% {bounds} at 10" in curves.description
    assert curves.description.count(";") == 4


def test_a_column_of_colors_is_not_read_aloud():
    data = pd.DataFrame({"x": [0, 1], "y": [0, 1], "color": ["#0072B2", "#767676"]})
    assert "#" not in alternative(ggplot(data, aes("x", "y", color="color")) + labs(x="x"), "name").description
