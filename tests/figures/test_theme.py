"""The palette: contrast on both backgrounds, color vision deficiency, and one style for each name."""

import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from plotnine import aes, facet_wrap, geom_line, geom_point, ggplot, labs

from plastic_cli.figures.files import svg_text
from plastic_cli.figures.theme import (
    CELL_INK,
    CELL_INK_ON_DARK,
    CELL_SOFT_INK,
    DARK_PAPER,
    DIVERGING,
    GRAY,
    INK,
    ON_DARK,
    ORDERED,
    PALETTE,
    PAPER,
    SEQUENTIAL,
    SOFT_INK,
    discrete_colors,
    ordered_colors,
    rule_styles,
    series_scales,
    series_styles,
    theme_plastic,
)

# Machado, Oliveira and Fernandes (2009), severity 1, for linear red, green and blue.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def linear(color: str) -> np.ndarray:
    """Return linear red, green and blue, 0 to 1."""
    values = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """Return the contrast of WCAG 2, 1 to 21."""
    light, dark = sorted((linear(color) @ [0.2126, 0.7152, 0.0722] + 0.05 for color in (first, second)), reverse=True)
    return float(light / dark)


def difference(first: str, second: str, deficiency: str) -> float:
    """Return the distance of two colors in OKLab, in hundredths."""
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    one, other = (
        to_lab @ np.cbrt(to_cones @ np.clip(DEFICIENCIES[deficiency] @ linear(color), 0, 1))
        for color in (first, second)
    )
    return float(100 * np.linalg.norm(one - other))


@pytest.mark.parametrize("background", [PAPER, DARK_PAPER])
@pytest.mark.parametrize("color", [*PALETTE, *ORDERED, *ordered_colors(30), GRAY])
def test_lines_have_contrast_on_white_and_on_dark_pages(color: str, background: str) -> None:
    assert contrast(color, background) >= 3


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_differ_with_any_color_vision_deficiency(deficiency: str) -> None:
    closest = min(difference(*pair, deficiency) for pair in combinations(PALETTE, 2))
    assert closest >= 9


def test_the_closest_colors_differ_more_than_those_of_okabe_and_ito() -> None:
    def least(palette: tuple[str, ...]) -> float:
        pairs = list(combinations(palette, 2))
        return min(difference(*pair, deficiency) for pair in pairs for deficiency in DEFICIENCIES)

    assert least(PALETTE) > least(OKABE_ITO)


def test_ordered_colors_become_lighter_and_their_ends_differ_for_everybody() -> None:
    contrasts = [contrast(color, PAPER) for color in ordered_colors(12)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert min(difference(ORDERED[0], ORDERED[-1], deficiency) for deficiency in DEFICIENCIES) >= 20


def test_text_is_readable_on_both_backgrounds() -> None:
    for ink in (INK, SOFT_INK):
        assert contrast(ink, PAPER) >= 4.5
        assert contrast(ON_DARK[ink], ON_DARK[PAPER]) >= 4.5
    assert contrast(CELL_INK, SEQUENTIAL[1]) >= 4.5
    assert contrast(CELL_SOFT_INK, SEQUENTIAL[1]) >= 4.5
    assert contrast(CELL_INK_ON_DARK, SEQUENTIAL[3]) >= 4.5


def test_no_data_has_a_color_that_changes_on_a_dark_page() -> None:
    data = {*PALETTE, *ORDERED, *SEQUENTIAL, *DIVERGING, GRAY, CELL_INK, CELL_INK_ON_DARK, CELL_SOFT_INK}
    assert data.isdisjoint(ON_DARK)
    assert len(set(ON_DARK.values())) == len(ON_DARK)


def test_up_to_eight_colors_are_those_of_the_palette() -> None:
    assert discrete_colors(3) == list(PALETTE[:3])
    assert len(set(discrete_colors(20))) == 20
    assert ordered_colors(1) == [ORDERED[0]]


def test_every_setting_has_its_own_style() -> None:
    names = [f"setting {number}" for number in range(32)]
    styles = series_styles([*names, *names])
    assert list(styles) == names
    assert len({(style.color, style.linetype) for style in styles.values()}) == 32
    assert len({(style.color, style.marker) for style in styles.values()}) == 32
    assert len({style.color for style in list(styles.values())[:8]}) == 8


def test_a_setting_keeps_its_color_in_a_figure_of_some_settings() -> None:
    styles = series_styles(["first", "second", "third"])
    data = pd.DataFrame({"x": [0, 1] * 2, "y": [0, 1, 1, 0], "name": ["third"] * 2 + ["second"] * 2})
    figure = ggplot(data, aes("x", "y", color="name", linetype="name", shape="name")) + geom_line() + geom_point()
    figure += series_scales(styles, ["third", "second"], ("color", "linetype", "shape"))
    drawn = svg_text(figure + theme_plastic(), "few").upper()
    assert PALETTE[2] in drawn
    assert PALETTE[1] in drawn
    assert PALETTE[0] not in drawn


def test_every_text_has_a_color_that_a_dark_page_can_change() -> None:
    data = pd.DataFrame(
        {"x": [0.0, 1.0, 0.0, 1.0], "y": [0.0, 1.0, 1.0, 0.0], "name": list("aabb"), "part": list("abab")}
    )
    figure = ggplot(data, aes("x", "y", color="name")) + geom_point() + facet_wrap("part")
    figure += labs(title="title", subtitle="subtitle", caption="caption", x="x axis", y="y axis")
    drawn = svg_text(figure + theme_plastic(), "text")
    texts = re.findall(r'<g id="text_\d+">.*?<g ([^>]*)>', drawn, flags=re.DOTALL)
    assert len(texts) > 10
    for attributes in texts:
        (color,) = re.findall(r"fill: (#\w{6})", attributes)
        assert color.upper() in {INK, SOFT_INK}


def test_a_rule_has_one_color_whatever_else_is_drawn():
    two = rule_styles({"grlu": "grlu", "eglp": "eglp"})
    several = rule_styles({"A: mpn": "mpn", "B: grlu": "grlu", "C": "own", "D: grlu, k = 1": "grlu", "E: eglp": "eglp"})
    assert list(several) == ["A: mpn", "B: grlu", "C", "D: grlu, k = 1", "E: eglp"]
    assert several["B: grlu"] == two["grlu"]
    assert several["E: eglp"] == two["eglp"]
    assert len({style.color for style in several.values()}) == 5


def test_settings_of_one_rule_have_the_colors_in_order():
    assert rule_styles({"k = 1": "grlu", "k = 2": "grlu"}) == series_styles(["k = 1", "k = 2"])


def test_more_settings_of_several_rules_than_colors_have_other_line_types():
    styles = rule_styles({str(number): "grlu" if number else "eglp" for number in range(12)})
    assert len({(style.color, style.linetype) for style in styles.values()}) == 12
