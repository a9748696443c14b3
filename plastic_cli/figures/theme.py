"""The style of all figures: one theme, and colors for readers with color vision deficiency."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from plotnine import element_blank, element_line, element_rect, element_text, theme, theme_minimal

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""The eight colors of Okabe and Ito, sorted by contrast on white."""

SEQUENTIAL = ("#FFFFFF", "#C6DEF0", "#6AAED6", "#0072B2", "#00375A")
"""White to dark blue, for counts and fractions."""

DIVERGING = ("#003F63", "#0072B2", "#8FC3E3", "#FFFFFF", "#F2B184", "#D55E00", "#6E3000")
"""Blue for negative, white for 0, vermilion for positive."""

GRAY = "#767676"
"""For lines and labels that are not data."""

DPI = 150


def discrete_colors(count: int) -> list[str]:
    """Return `count` colors: up to eight those of Okabe and Ito, for more evenly spaced colors of viridis."""
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    # The last tenth of viridis is a yellow that is hardly visible on white.
    colors = matplotlib.colormaps["viridis"]([0.9 * index / (count - 1) for index in range(count)])
    return [matplotlib.colors.to_hex(color) for color in colors]


def theme_plastic(base_size: float = 10, figure_size: tuple[float, float] = (6, 4)) -> theme:
    """Return the theme of all figures. base_size: in points. figure_size: (width, height) in inches."""
    return theme_minimal(base_size=base_size) + theme(
        figure_size=figure_size,
        dpi=DPI,
        plot_background=element_rect(fill="white", color="white"),
        plot_margin=0.02,
        plot_title=element_text(size=1.2 * base_size, weight="bold", ha="left"),
        plot_subtitle=element_text(size=base_size, color="#444444", ha="left"),
        plot_title_position="plot",
        plot_caption=element_text(size=0.8 * base_size, color="#666666"),
        axis_title=element_text(size=base_size),
        axis_text=element_text(size=0.9 * base_size, color="#333333"),
        axis_line=element_line(color="#333333", size=0.6),
        axis_ticks=element_line(color="#333333", size=0.6),
        axis_ticks_minor=element_blank(),
        panel_grid_major=element_line(color="#E3E3E3", size=0.5),
        panel_grid_minor=element_blank(),
        strip_text=element_text(size=base_size, weight="bold"),
        legend_title=element_text(size=0.9 * base_size),
        legend_text=element_text(size=0.9 * base_size),
        legend_key=element_blank(),
        legend_box_spacing=0.02,
    )


def percent(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return labels for an axis in percent: 50 as "50%"."""
    return [f"{float(value):g}%" for value in values]


def percent_of_one(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Return labels in percent, with two digits, for an axis of shares: 0.5 as "50%"."""
    return [f"{float(f'{100 * float(value):.2g}'):g}%" for value in values]
