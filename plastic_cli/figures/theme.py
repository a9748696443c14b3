"""The style of all figures: one theme and one palette, for white and dark pages and for color vision deficiency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib
from plotnine import (
    element_blank,
    element_line,
    element_rect,
    element_text,
    scale_color_manual,
    scale_fill_manual,
    scale_linetype_manual,
    scale_shape_manual,
    theme,
    theme_minimal,
)
from plotnine.themes.elements import margin

from plastic_cli.plugins.discovery import discover

PALETTE = ("#0072B2", "#E07828", "#00A878", "#A020F8", "#E00000", "#C070F8", "#A85078", "#8888B8")
"""Blue, orange, green, violet, red, lilac, plum, slate: for things without an order.

The contrast of each is at least 3 on white and on `DARK_PAPER`. With any color vision deficiency, two of them differ by
at least 9 hundredths in OKLab; the closest two colors of Okabe and Ito differ by 7.6.
"""

ORDERED = ("#0071BD", "#4F68E4", "#8660E2", "#AE58D0", "#CE52B1", "#E3508C", "#EF5462", "#F16029", "#D97B0C")
"""Blue over purple to orange, from dark to light: for things with an order, such as tasks. Contrast as in `PALETTE`."""

SEQUENTIAL = ("#FBFDFE", "#C6DEF0", "#6AAED6", "#0072B2", "#00375A")
"""White to dark blue, for counts and fractions."""

DIVERGING = ("#003F63", "#0072B2", "#8FC3E3", "#FCFCFC", "#F2B184", "#D55E00", "#6E3000")
"""Blue for negative, white for 0, vermilion for positive."""

GRAY = "#767676"
"""For lines that are not data; its contrast is at least 4 on white and on `DARK_PAPER`."""

PAPER, INK, SOFT_INK, GRID = "#FFFFFF", "#22262B", "#545B64", "#E2E5E9"
"""Background; axes and titles; subtitles and captions; grid lines. Only these change on a dark page: see `ON_DARK`."""

DARK_PAPER = "#141414"

ON_DARK: Mapping[str, str] = MappingProxyType(
    {PAPER: DARK_PAPER, INK: "#E8EAED", SOFT_INK: "#A9B1BC", GRID: "#33383F"},
)
"""What the neutral colors become on a dark page.

Data have none of these colors, except INK for a line with which all others are compared.
"""

CELL_INK, CELL_INK_ON_DARK, CELL_SOFT_INK = "#202020", "#FDFDFD", "#50565E"
"""Numbers in the cells of a matrix: on light cells, on dark cells, and numbers on light cells that matter less.

They stay as they are on a dark page.
"""

DPI = 150

_LINETYPES = ("solid", "dashed", "dotted", "dashdot")
_SCALES: dict[str, tuple[Any, str]] = {
    "color": (scale_color_manual, "color"),
    "fill": (scale_fill_manual, "color"),
    "linetype": (scale_linetype_manual, "linetype"),
    "shape": (scale_shape_manual, "marker"),
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class SeriesStyle:
    """How one setting is drawn in every figure. linetype, marker: names that plotnine and matplotlib know."""

    color: str
    linetype: str
    marker: str


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Return the style of each name, in order of appearance.

    Call it once with the names of all figures of a report, so that a name looks the same in each of them. The first
    eight names have eight colors; the next eight have the same colors with dashed lines, and so on.
    """
    return {name: _style(place) for place, name in enumerate(dict.fromkeys(names))}


def rule_styles(rules: Mapping[str, str]) -> dict[str, SeriesStyle]:
    """Return the style of each name of a figure that compares rules, in the order of the names.

    rules: the rule of each name. The first name of an installed rule has the color of this rule in every figure. Other
    names have the remaining colors, at first those of no installed rule. If all names are of one rule, the styles are
    those of `series_styles`.
    """
    if len(set(rules.values())) < 2:
        return series_styles(rules)
    own = {rule: place for place, rule in enumerate(sorted(discover().rules)) if place < len(PALETTE)}
    places: dict[str, int] = {}
    for name, rule in rules.items():
        if rule in own and own[rule] not in places.values():
            places[name] = own[rule]
    taken = {*places.values()}
    colors = range(len(PALETTE))
    free = [place for place in colors if place not in own.values()]
    free += [place for place in colors if place in own.values() and place not in taken]
    rest = [name for name in rules if name not in places]
    places |= dict(zip(rest, [*free, *range(len(PALETTE), len(PALETTE) + len(rest))], strict=False))
    return {name: _style(places[name]) for name in rules}


def _style(place: int) -> SeriesStyle:
    return SeriesStyle(
        PALETTE[place % len(PALETTE)],
        _LINETYPES[place // len(PALETTE) % len(_LINETYPES)],
        _MARKERS[(place + place // len(PALETTE)) % len(_MARKERS)],
    )


def series_scales(
    styles: Mapping[str, SeriesStyle], shown: Sequence[str], aesthetics: Sequence[str] = ("color",), **options: Any
) -> list[Any]:
    """Return plotnine scales that draw the names `shown` in their style, in this order in the legend.

    aesthetics: those that the figure maps to the name: color, fill, linetype, shape. options: as for
    `scale_color_manual`, such as `labels` or `name`.
    """
    each = {"breaks": list(shown), "limits": list(shown), **options}
    return [
        _SCALES[aesthetic][0](values={name: getattr(styles[name], _SCALES[aesthetic][1]) for name in shown}, **each)
        for aesthetic in aesthetics
    ]


def discrete_colors(count: int) -> list[str]:
    """Return `count` colors: up to eight those of `PALETTE`, for more evenly spaced colors of `ORDERED`."""
    return list(PALETTE[:count]) if count <= len(PALETTE) else ordered_colors(count)


def ordered_colors(count: int) -> list[str]:
    """Return `count` evenly spaced colors of `ORDERED`, for values with an order."""
    scale = matplotlib.colors.LinearSegmentedColormap.from_list("ordered", ORDERED)
    colors = scale([index / max(count - 1, 1) for index in range(count)])
    return [matplotlib.colors.to_hex(color).upper() for color in colors]


def theme_plastic(base_size: float = 10, figure_size: tuple[float, float] = (6, 4)) -> theme:
    """Return the theme of all figures. base_size: in points. figure_size: (width, height) in inches."""
    return theme_minimal(base_size=base_size) + theme(
        figure_size=figure_size,
        dpi=DPI,
        text=element_text(color=INK),
        plot_background=element_rect(fill=PAPER, color=PAPER),
        plot_margin=0.02,
        plot_title=element_text(size=1.2 * base_size, weight="bold", ha="left", margin=margin(b=3, unit="pt")),
        plot_subtitle=element_text(size=base_size, color=SOFT_INK, ha="left", margin=margin(b=6, unit="pt")),
        plot_title_position="plot",
        plot_caption=element_text(size=0.8 * base_size, color=SOFT_INK, ha="left", ma="left"),
        plot_caption_position="plot",
        axis_title=element_text(size=base_size),
        axis_text=element_text(size=0.9 * base_size, color=INK),
        axis_line=element_line(color=INK, size=0.6),
        axis_ticks=element_line(color=INK, size=0.6),
        axis_ticks_minor=element_blank(),
        panel_grid_major=element_line(color=GRID, size=0.5),
        panel_grid_minor=element_blank(),
        strip_text=element_text(size=base_size, weight="bold"),
        legend_title=element_text(size=0.9 * base_size),
        legend_text=element_text(size=0.9 * base_size, ma="left"),
        legend_key=element_blank(),
        legend_box_spacing=0.02,
    )


def percent(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return labels for an axis in percent: 50 as "50%"."""
    return [f"{float(value):g}%" for value in values]


def percent_of_one(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return labels in percent, with two digits, for an axis of shares: 0.5 as "50%"."""
    return [f"{float(f'{100 * float(value):.2g}'):g}%" for value in values]
