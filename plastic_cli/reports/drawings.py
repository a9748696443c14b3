"""Figures on the page: SVG elements that take the colors of the page and say their values."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from plotnine import coord_flip, ggplot, labs

from plastic_cli.figures.alternatives import alternative, with_alternative
from plastic_cli.figures.files import headless
from plastic_cli.figures.theme import GRID, INK, ON_DARK, PAPER, SOFT_INK

MOST_VALUES = 600
"""A figure with more points says only evenly spaced ones of them."""

COLOR_NAMES: Mapping[str, str] = {
    PAPER: "--figure-paper",
    INK: "--figure-ink",
    SOFT_INK: "--figure-soft-ink",
    GRID: "--figure-grid",
}
"""The variables of the page's style that hold the neutral colors of figures."""

WIDE = 7.6
"""Inches from which on a figure takes the whole width of the page."""

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_UNWANTED = ("metadata", "script", "style", "foreignObject", "a", "animate", "set", "title", "desc")


@dataclass(frozen=True)
class PageFigure:
    """A figure for the page.

    anchor: its id, of letters, digits and hyphens.
    title, subtitle, caption, description: its words, which are text of the page and not part of the drawing. rules,
    datasets: those that it shows; empty: not known. wide: whether it needs the whole width.
    """

    name: str
    anchor: str
    svg: Markup
    title: str
    subtitle: str = ""
    caption: str = ""
    description: str = ""
    rules: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    wide: bool = False


def page_figure(
    figure: ggplot,
    name: str,
    anchor: str,
    description: str | None = None,
    rules: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
) -> PageFigure:
    """Return a figure as the page shows it. name: also the title of a figure without one.

    The drawing has no title, subtitle and caption. Its points are covered by circles with their values, which are shown
    when the pointer is on them.
    """
    # The caption is text of the page already.
    words = alternative(figure + labs(caption=""), name, description)
    texts = {key: " ".join(str(figure.labels.get(key, "") or "").split()) for key in ("title", "subtitle", "caption")}
    svg, places = _draw(figure + labs(title="", subtitle="", caption=""), hover_values(figure))
    return PageFigure(
        name=name,
        anchor=anchor,
        svg=inline_svg(with_alternative(svg, words), f"drawing-{anchor}", places),
        title=texts["title"] or words.title,
        subtitle=texts["subtitle"],
        caption=texts["caption"],
        description=words.description,
        rules=rules,
        datasets=datasets,
        wide=figure.theme.getp("figure_size")[0] > WIDE,
    )


def hover_values(figure: ggplot) -> pd.DataFrame | None:
    """Return the points of a figure with a column `hover`: the values of each in words.

    A figure can bring this column in its data. Otherwise its words are made from the columns that the figure maps to
    its axes and colors. None: the figure maps no columns of its own data to both axes.
    """
    data, x, y = figure.data, figure.mapping.get("x"), figure.mapping.get("y")
    if not isinstance(data, pd.DataFrame) or x not in data.columns or y not in data.columns:
        return None
    known = data.dropna(subset=[x, y])
    if "hover" not in known.columns:
        names = [figure.mapping.get(key) for key in ("color", "fill", "shape", "linetype")]
        series = next((name for name in names if name in known.columns and not _is_numeric(known[name])), None)
        named = [(str(figure.labels.get(key, "") or column), str(column)) for key, column in (("x", x), ("y", y))]
        known = known.assign(hover=[_words(row, series, named) for row in known.to_dict("records")])
    step = max(1, math.ceil(len(known) / MOST_VALUES))
    return known.iloc[::step]


def _is_numeric(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))


def _words(row: Mapping[Hashable, Any], series: str | None, named: Sequence[tuple[str, str]]) -> str:
    """Return the words of one point: its series, and the name and value of each axis."""
    parts = [f"{name}: {value:.4g}" if isinstance(value := row[column], float) else f"{name}: {value}"
             for name, column in named]  # fmt: skip
    first = [" ".join(str(row[series]).split())] if series is not None and str(row[series]) else []
    return ", ".join([*first, *parts])


@dataclass(frozen=True)
class _Place:
    """Where a point of a drawing is, in the units of its SVG, and the values there."""

    x: float
    y: float
    text: str


def _draw(figure: ggplot, values: pd.DataFrame | None) -> tuple[str, list[_Place]]:
    """Return a figure as an SVG, and the places of `values` in it."""
    drawn = deepcopy(figure)
    content = BytesIO()
    with headless():
        canvas = drawn.draw()
        canvas.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue().decode()
    if values is None:
        return svg, []
    height, scale = canvas.get_figheight() * 72, 72 / canvas.dpi
    places = []
    for axes, x, y, text in _points(drawn, values):
        across, up = axes.transData.transform((x, y))
        # A point outside of the axes is not drawn.
        if np.isfinite([across, up]).all() and axes.bbox.padded(1).contains(across, up):
            places.append(_Place(float(across * scale), float(height - up * scale), text))
    return svg, places


def _points(drawn: ggplot, values: pd.DataFrame) -> Iterator[tuple[Axes, float, float, str]]:
    """Return for each row of `values` the axes of a drawn figure, the coordinates on them, and the words.

    They are read from the scales of the figure. A further layer would change these scales.
    """
    layout = drawn.layout
    flipped = isinstance(drawn.coordinates, coord_flip)
    placed = drawn.facet.map(values, layout.layout)
    for number, rows in placed.groupby(placed["PANEL"].astype(int)):
        panel = int(str(number))
        details: Any = layout.layout[layout.layout["PANEL"].astype(int) == panel].iloc[0]
        coordinates = []
        for axis, scales in (("x", layout.panel_scales_x), ("y", layout.panel_scales_y)):
            scale = scales[int(details[f"SCALE_{axis.upper()}"]) - 1]
            column = rows[drawn.mapping[axis]]
            coordinates.append(np.asarray(scale.map(scale.transform(column)), dtype=float))
        if flipped:
            coordinates.reverse()
        for x, y, text in zip(*coordinates, rows["hover"], strict=True):
            yield drawn.axs[panel - 1], x, y, str(text)


def inline_svg(svg: str, name: str, places: Sequence[_Place] = ()) -> Markup:
    """Return an SVG file as an element of a page, with ids that begin with `name`.

    The file is read as XML and written without comments, metadata, styles, scripts, event handlers and foreign content.
    The neutral colors of `theme_plastic` become variables of the page. The title and the description are the elements
    `name-title` and `name-words` of the page.
    """
    root = ElementTree.fromstring(svg)
    # A figure with another theme keeps its own colors, and with them its white background.
    in_theme = INK.lower() in svg.lower()
    _strip(root)
    root.attrib.pop("width", None)
    height = root.attrib.pop("height", None)
    box = root.get("viewBox", "").split()
    if height is not None and len(box) == 4:
        # The width at which it was drawn; matplotlib uses points.
        root.set("width", f"{float(box[2]) * 4 / 3:.0f}")
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == f"{_XLINK}href":
                del element.attrib[key]
                if value.startswith("#"):
                    element.set("href", f"#{name}-{value[1:]}")
                elif value.startswith("data:image/png;base64,"):
                    element.set("href", value)
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
            if key == "style" and in_theme:
                element.set(key, _with_page_colors(element.attrib[key]))
        element.tag = element.tag.removeprefix(_SVG)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title", "aria-describedby": f"{name}-words"})
    if places:
        values = ElementTree.SubElement(root, "g", {"class": "values"})
        for place in places:
            circle = ElementTree.SubElement(
                values, "circle", {"cx": f"{place.x:.1f}", "cy": f"{place.y:.1f}", "r": "5"}
            )
            ElementTree.SubElement(circle, "title").text = place.text
    # Names have no namespace, because HTML needs none.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _with_page_colors(style: str) -> str:
    """Return a style in which the neutral colors of figures are variables of the page."""
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: _page_color(found[0]), style)


def _page_color(color: str) -> str:
    variable = COLOR_NAMES.get(color.upper())
    return f"var({variable})" if variable else color


def page_colors() -> str:
    """Return the style that gives the variables of COLOR_NAMES their values, also on a dark screen."""
    light = "; ".join(f"{variable}: {color}" for color, variable in COLOR_NAMES.items())
    dark = "; ".join(f"{variable}: {ON_DARK[color]}" for color, variable in COLOR_NAMES.items())
    return f":root {{ {light}; }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}; }} }}\n"


def _strip(element: ElementTree.Element) -> None:
    for key in list(element.attrib):
        if key.lower().startswith("on"):
            del element.attrib[key]
    for child in list(element):
        if not child.tag.startswith(_SVG) or child.tag.removeprefix(_SVG) in _UNWANTED:
            element.remove(child)
        else:
            _strip(child)
