"""The figures of the shared analyses: plotnine figures that `plastic_cli.figures.files` writes.

Accuracies are passed as 0 to 1 and shown in percent.
"""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from plotnine import (
    aes,
    coord_cartesian,
    coord_fixed,
    coord_flip,
    element_blank,
    element_text,
    facet_wrap,
    geom_hline,
    geom_label,
    geom_line,
    geom_linerange,
    geom_point,
    geom_text,
    geom_tile,
    ggplot,
    guide_colorbar,
    guides,
    labs,
    position_dodge,
    scale_color_identity,
    scale_color_manual,
    scale_fill_gradientn,
    scale_fill_manual,
    scale_x_continuous,
    scale_y_continuous,
    scale_y_reverse,
    theme,
)

from plastic_cli.figures.theme import (
    CELL_INK,
    CELL_INK_ON_DARK,
    DIVERGING,
    GRAY,
    GRID,
    INK,
    PALETTE,
    PAPER,
    SEQUENTIAL,
    discrete_colors,
    percent,
    series_scales,
    series_styles,
    theme_plastic,
)

PIXELS = "pixels"
"""The name of the network without a layer, whose probe sees the images."""

_MOST_CELLS_WITH_COUNTS = 12
_MOST_PLACES_WITH_NUMBERS = 10
_SEPARATOR = "#404040"
# As an image: a gradient would take megabytes in an SVG.
_COLOR_BAR = guide_colorbar(display="raster", nbin=100)

_CORRUPTIONS = {
    "gaussian-noise": "Gaussian noise (SD, normalized)",
    "pixel-noise": "Pixel noise (SD, pixels 0 to 1)",
    "rotation": "Rotation, random (up to ± degrees)",
    "fixed-rotation": "Rotation, fixed (degrees)",
}


def confusion_matrix_figure(
    confusion: ArrayLike, class_names: Sequence[str], title: str = "Confusion matrix"
) -> ggplot:
    """Draw counts (classes, classes), rows are true classes, shaded by the percentage of the true class.

    With up to twelve classes every cell shows its percentage and count. With more, only cells of at least one percent
    show their percentage. The shade is proportional to the square root, so that rare confusions are visible.
    """
    counts = np.asarray(confusion)
    classes = len(class_names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.maximum(totals, 1)
    true, predicted = np.indices(counts.shape)
    cells = pd.DataFrame({"true": true.ravel(), "predicted": predicted.ravel(), "share": shares.ravel()})
    cells["ink"] = np.where(cells["share"] > 25, CELL_INK_ON_DARK, CELL_INK)
    few = classes <= _MOST_CELLS_WITH_COUNTS
    if few:
        cells["text"] = [
            f"{count}\n{share:.1f}%" if count else ""
            for count, share in zip(counts.ravel(), shares.ravel(), strict=True)
        ]
    else:
        cells["text"] = [f"{share:.0f}" if share >= 1 else "" for share in shares.ravel()]
    overall = 100 * counts.diagonal().sum() / max(int(counts.sum()), 1)
    numbers = "count and percentage of the true class" if few else "numbers: percentage of the true class, from 1%"
    width = max(4.0, 0.6 * classes if few else 0.2 * classes) + 1.5
    longest = max(len(str(name)) for name in class_names)
    names = [str(name) for name in class_names]
    return (
        ggplot(cells, aes("predicted", "true", fill="share"))
        + geom_tile(color=GRID, size=0.3)
        + geom_text(
            aes(label="text", color="ink"), data=cells[cells["text"] != ""], size=7.5 if few else 5.5, lineheight=1.15
        )
        + scale_color_identity()
        + scale_fill_gradientn(
            SEQUENTIAL,
            limits=(0, 100),
            trans="sqrt",
            breaks=[0, 1, 5, 20, 50, 100],
            name="% of the\ntrue class",
        )
        + scale_x_continuous(breaks=list(range(classes)), labels=names, expand=(0, 0))
        + scale_y_reverse(breaks=list(range(classes)), labels=names, expand=(0, 0))
        + guides(fill=_COLOR_BAR)
        + coord_fixed()
        + labs(
            title=_wrapped(title, width),
            subtitle=_wrapped(f"{overall:.2f}% correct; {numbers}", width),
            x="Predicted",
            y="True",
        )
        + theme_plastic(figure_size=(width, width - 0.4))
        + theme(
            panel_grid_major=element_blank(),
            axis_text_x=element_text(rotation=90 if longest > 2 else 0),
            axis_text=element_text(size=9 if few else 7),
        )
    )


def class_accuracy_figure(
    accuracies: ArrayLike,
    class_names: Sequence[str],
    title: str = "Accuracy by class",
) -> ggplot:
    """Draw the accuracy of each class (classes,)."""
    values = 100 * np.asarray(accuracies, dtype=float)
    table = pd.DataFrame({"class": range(len(values)), "accuracy": values})
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
    bottom = _floor(values)
    height = max(4.0, 0.17 * len(values) + 1.2)
    names = [str(name) for name in class_names]
    return (
        ggplot(table, aes("class", "accuracy"))
        + geom_hline(yintercept=mean, linetype="dashed", color=GRAY, size=0.6)
        + geom_point(data=table.dropna(subset=["accuracy"]), size=2.4, color=PALETTE[0])
        + scale_x_continuous(
            breaks=list(range(len(names))),
            labels=names,
            trans="reverse",
            limits=(len(names) - 0.4, -0.6),
            expand=(0, 0),
        )
        + scale_y_continuous(labels=percent, expand=(0.02, 0))
        + coord_flip(ylim=(bottom, 100))
        + labs(title=_wrapped(title, 6), subtitle=f"dashed: mean over classes, {mean:.1f}%", x="Class", y="Accuracy")
        + theme_plastic(figure_size=(6, height))
    )


def robustness_figure(table: pd.DataFrame, title: str = "Accuracy under corruption") -> ggplot:
    """Draw accuracy as a function of strength, with a panel for each kind of corruption and a curve for each `label`.

    table: columns kind, strength, accuracy and optionally label, such as `pandas.DataFrame(rows)` of
    `robustness` rows. Rows of kind "clean" start every curve at strength 0.
    """
    clean = table[table["kind"] == "clean"]
    corrupted = table[table["kind"] != "clean"]
    kinds = list(dict.fromkeys(corrupted["kind"]))
    if not kinds:
        raise ValueError("A robustness figure needs at least one corruption.")
    # The clean rows are first: the sorting below keeps the order of the labels.
    parts = [*(clean.assign(kind=kind, strength=0.0) for kind in kinds), corrupted]
    data = _in_percent(pd.concat(parts, ignore_index=True)).sort_values("strength", kind="stable")
    names = [_CORRUPTIONS.get(kind, kind) for kind in kinds]
    data["facet"] = pd.Categorical([_CORRUPTIONS.get(kind, kind) for kind in data["kind"]], names)
    labels = _labels(data)
    columns = min(3, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    width = max(6.0, 2.9 * columns + 0.6)
    return (
        ggplot(data, aes("strength", "accuracy", color="label", linetype="label", shape="label"))
        + geom_line(size=0.9)
        + geom_point(size=2)
        + facet_wrap("facet", ncol=columns, scales="free_x")
        + series_scales(series_styles(labels), labels, ("color", "linetype", "shape"))
        + scale_y_continuous(labels=percent)
        + labs(title=_wrapped(title, width), x="Strength", y="Accuracy")
        + theme_plastic(figure_size=(width, 2.7 * rows + 0.9))
        + theme(strip_text=element_text(size=9, weight="bold"), **_legend(labels))
    )


def cka_figure(
    similarity: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    rows: str = "Layer",
    columns: str = "Layer",
    debiased: bool = False,
    title: str = "Similarity of representations",
) -> ggplot:
    """Draw linear CKA (len(row_names), len(column_names)) as shades with numbers; `rows`, `columns` name the axes.

    A single value is a dot on a scale from 0 to 1, because one square of a matrix says nothing.
    """
    values = np.asarray(similarity, dtype=float)
    kind = "linear CKA, debiased" if debiased else "linear CKA"
    if values.size == 1:
        return _single_cka_figure(values.item(), f"{kind}, of {rows.lower()} and {columns.lower()}", title)
    row, column = np.indices(values.shape)
    cells = pd.DataFrame({"row": row.ravel(), "column": column.ravel(), "cka": values.ravel()})
    cells["ink"] = np.where(cells["cka"] > 0.6, CELL_INK_ON_DARK, CELL_INK)
    cells["text"] = ["nan" if math.isnan(value) else f"{value:.2f}" for value in cells["cka"]]
    # Shades start at 0: a debiased value can be slightly negative.
    cells["shade"] = cells["cka"].clip(0, 1)
    side, size = (0.62, 8.5) if max(values.shape) <= _MOST_CELLS_WITH_COUNTS else (0.42, 6.5)
    longest = max(len(str(name)) for name in column_names)
    # Names longer than the number of a layer need room.
    beside = 0.07 * max(0, *(len(str(name)) - 2 for name in row_names))
    width = max(4.6, side * len(column_names) + 2.6 + beside)
    height = max(3.6, side * len(row_names) + 1.8 + (0.07 * longest if longest > 5 else 0))
    return (
        ggplot(cells, aes("column", "row", fill="shade"))
        + geom_tile(color=GRID, size=0.3)
        + geom_text(aes(label="text", color="ink"), size=size)
        + scale_color_identity()
        + scale_fill_gradientn(SEQUENTIAL, limits=(0, 1), name="CKA", na_value=GRID)
        + scale_x_continuous(breaks=list(range(len(column_names))), labels=list(map(str, column_names)), expand=(0, 0))
        + scale_y_reverse(breaks=list(range(len(row_names))), labels=list(map(str, row_names)), expand=(0, 0))
        + guides(fill=_COLOR_BAR)
        + coord_fixed()
        + labs(
            title=_wrapped(title, width),
            subtitle=kind,
            x=columns,
            y=rows,
        )
        + theme_plastic(figure_size=(width, height))
        + theme(
            panel_grid_major=element_blank(),
            axis_text_x=element_text(rotation=90 if longest > 5 else 0),
        )
    )


def _single_cka_figure(value: float, subtitle: str, title: str) -> ggplot:
    """Draw one similarity on a scale from 0 (unrelated) to 1 (the same)."""
    # A debiased value can be slightly negative.
    point = pd.DataFrame({"cka": [value], "row": [0.0], "text": [f"{value:.2f}"]})
    line = pd.DataFrame({"cka": [min(0.0, value), 1.0], "row": [0.0, 0.0]})
    return (
        ggplot(point, aes("cka", "row"))
        + geom_line(data=line, color=GRAY, size=0.8)
        + geom_point(color=PALETTE[0], size=4)
        + geom_text(aes(label="text"), nudge_y=0.45, size=10, color=PALETTE[0])
        + scale_x_continuous(
            breaks=[0, 0.25, 0.5, 0.75, 1],
            labels=["0: unrelated", "0.25", "0.5", "0.75", "1: the same"],
            expand=(0.12, 0),
        )
        + scale_y_continuous(limits=(-0.6, 0.9), breaks=[])
        + labs(title=_wrapped(title, 6), subtitle=_wrapped(subtitle, 6.6), x="CKA", y="")
        + theme_plastic(figure_size=(6, 2.3))
        + theme(axis_line_y=element_blank())
    )


def probe_figure(table: pd.DataFrame, title: str = "Linear probe of each layer") -> ggplot:
    """Draw the test accuracy of the probe from the pixels through the layers, with a line for each network.

    table: columns layer, network ("trained", "untrained" or another name), accuracy, such as `pandas.DataFrame(rows)`
    of `probe_layers` rows, and optionally name (of the layer). The row of network "pixels", if there is one, is where
    all lines begin. Accuracies are written next to the points of up to `_MOST_PLACES_WITH_NUMBERS` places.
    """
    pixels, probed = table[table["network"] == PIXELS], table[table["network"] != PIXELS]
    networks = list(dict.fromkeys(probed["network"]))
    layers = [f"layer {layer}" for layer in probed["layer"]] if "name" not in probed else probed["name"].astype(str)
    places = [*[PIXELS] * (len(pixels) > 0), *dict.fromkeys(layers)]
    begin = [pixels.assign(network=name, place=PIXELS) for name in networks if len(pixels)]
    data = _in_percent(pd.concat([*begin, probed.assign(place=layers)]))
    few = len(places) <= _MOST_PLACES_WITH_NUMBERS
    data["x"] = data["place"].map(places.index)
    data["network"] = pd.Categorical(data["network"], networks)
    shift = max(0.1, 0.07 * float(np.ptp(data["accuracy"])))
    numbers = _probe_numbers(data, shift) if few else _probe_numbers(data.iloc[:0], shift)
    shown = [*data["accuracy"], *numbers["y"]]
    styles = series_styles(map(str, networks))
    width = max(5.6, (1.2 if few else 0.4) * len(places) + 1)
    return (
        ggplot(data, aes("x", "accuracy", color="network", shape="network", linetype="network"))
        + ([geom_line(size=0.7)] if len(places) > 1 else [])
        + geom_point(size=3)
        + [
            geom_label(
                aes("x", "y", label="text"),
                data=rows,
                inherit_aes=False,
                size=8.5,
                ha=side,
                color=INK,
                fill=PAPER,
                label_size=0,
                label_padding=0.08,
            )
            for side, rows in numbers.groupby("side")
        ]
        + series_scales(styles, list(styles), ("color", "shape", "linetype"), name="Network")
        + scale_x_continuous(breaks=list(range(len(places))), labels=places, limits=(-0.4, len(places) - 0.6))
        + scale_y_continuous(labels=percent, limits=(min(shown) - 0.4 * shift, max(shown) + 0.4 * shift))
        + labs(title=_wrapped(title, width), x="", y="Test accuracy of the probe")
        + theme_plastic(figure_size=(width, 4 + (_height_of_names(places) if "name" in probed else 0)))
        + theme(legend_position="bottom", **(_layer_names(places) if "name" in probed else {}))
    )


def _probe_numbers(data: pd.DataFrame, shift: float) -> pd.DataFrame:
    """Return the numbers at the points of `probe_figure`: x, y, text and side.

    At each place the highest is above its point, the lowest below and the others to the right; that of the pixels is to
    the left of all lines.
    """
    numbers = data.drop_duplicates(["x", "accuracy"])
    at_place = numbers.groupby("x")["accuracy"]
    begin = numbers["place"] == PIXELS
    highest = (numbers["accuracy"] == at_place.transform("max")) & ~begin
    lowest = (numbers["accuracy"] == at_place.transform("min")) & ~highest & ~begin
    between = ~highest & ~lowest & ~begin
    return pd.DataFrame(
        {
            "x": numbers["x"] + 0.09 * between - 0.09 * begin,
            "y": numbers["accuracy"] + shift * (highest.astype(int) - lowest.astype(int)),
            "text": [f"{value:.1f}%" for value in numbers["accuracy"]],
            "side": np.select([between, begin], ["left", "right"], "center"),
        }
    )


def angle_figure(table: pd.DataFrame, title: str = "Angle between the update and the gradient") -> ggplot:
    """Draw angles in degrees for each layer, with a color for each `label` (such as the number of perturbations).

    table: columns layer, angle and optionally label, low, high, all angles in degrees.
    """
    data = table.assign(layer=_in_order(table["layer"])).dropna(subset=["angle"])
    labels = _labels(data)
    dodge = position_dodge(width=0.6)
    figure = ggplot(data, aes("layer", "angle", color="label", fill="label", group="label"))
    figure += geom_hline(yintercept=90, linetype="dashed", color=GRAY, size=0.6)
    if {"low", "high"} <= set(data.columns):
        figure += geom_linerange(aes(ymin="low", ymax="high"), data=data, size=0.8, position=dodge, show_legend=False)
    top, step = (180, 30) if data["angle"].max() > 95 else (100, 15)
    width = max(6.0, 0.9 * data["layer"].nunique() + 2)
    return (
        figure
        + geom_point(size=3, position=dodge)
        + scale_color_manual(values=discrete_colors(len(labels)))
        + scale_fill_manual(values=discrete_colors(len(labels)))
        + scale_y_continuous(breaks=list(range(0, top + 1, step)), expand=(0.02, 0))
        + coord_cartesian(ylim=(0, top))
        + labs(
            title=_wrapped(title, width),
            subtitle="0°: same direction; dashed, 90°: no better than a random direction",
            x="Layer",
            y="Angle (degrees)",
        )
        + theme_plastic(figure_size=(width, 4))
        + theme(**_legend(labels))
    )


def layer_angles_figure(table: pd.DataFrame, title: str = "Angle of the update to the gradient") -> ggplot:
    """Draw the angle to the gradient in each layer, from the first layer to the last, with a line for each network.

    table: columns name (of the layer), network, angle and angle_sd, in degrees, in the order of the layers.
    """
    layers = list(dict.fromkeys(table["name"].astype(str)))
    networks = list(dict.fromkeys(table["network"].astype(str)))
    data = table.assign(
        x=[layers.index(str(name)) for name in table["name"]],
        low=table["angle"] - table["angle_sd"],
        high=table["angle"] + table["angle_sd"],
        network=pd.Categorical(table["network"].astype(str), networks),
    ).dropna(subset=["angle"])
    # Networks stand side by side, so that their ranges do not hide each other.
    data["x"] += 0.16 * (data["network"].cat.codes - (len(networks) - 1) / 2)
    styles = series_styles(networks)
    highest = float(data["high"].fillna(data["angle"]).max()) if len(data) else 90.0
    top, step = (180, 30) if highest > 95 else (100, 15)
    width = max(5.6, 0.36 * len(layers) + 1.8)
    return (
        ggplot(data, aes("x", "angle", color="network", shape="network", linetype="network"))
        + geom_hline(yintercept=90, linetype="dashed", color=GRAY, size=0.6)
        + ([geom_line(size=0.7)] if len(layers) > 1 else [])
        + geom_linerange(
            aes(ymin="low", ymax="high"),
            data=data.dropna(subset=["low"]),
            linetype="solid",
            size=0.7,
            show_legend=False,
        )
        + geom_point(size=2.4)
        + series_scales(styles, networks, ("color", "shape", "linetype"), name="Network")
        + scale_x_continuous(breaks=list(range(len(layers))), labels=layers, limits=(-0.5, len(layers) - 0.5))
        + scale_y_continuous(breaks=list(range(0, top + 1, step)), expand=(0.02, 0))
        + coord_cartesian(ylim=(0, top))
        + labs(
            title=_wrapped(title, width),
            subtitle=_wrapped("0°: same direction; dashed, 90°: no better than a random direction", width),
            x="Layer",
            y="Angle (degrees)",
        )
        + theme_plastic(figure_size=(width, 4 + _height_of_names(layers)))
        + theme(legend_position="bottom", **_layer_names(layers))
    )


def _height_of_names(layers: Sequence[str]) -> float:
    """Return how much higher a figure is, in inches, for the names of layers below its axis."""
    return 0.08 * max((len(name) for name in layers), default=0) if _layer_names(layers) else 0.0


def _layer_names(layers: Sequence[str]) -> dict[str, object]:
    """Return how the names of layers stand below an axis: upright if they are long or many."""
    if len(layers) > 8:
        return {"axis_text_x": element_text(rotation=90, ha="center", va="top")}
    if max((len(name) for name in layers), default=0) > 8:
        return {"axis_text_x": element_text(rotation=45, ha="right")}
    return {}


def image_grid(
    weights: ArrayLike,
    image_shape: Sequence[int],
    columns: int | None = None,
    *,
    limit: float | None = None,
    gap: int = 1,
    zoom: int = 1,
) -> NDArray[np.uint8]:
    """Tile each unit's weights (units, features) as images: red, green and blue, uint8 (height, width, 3).

    weights: an array, or a CPU tensor without gradient. image_shape: (height, width), or (channels, height, width) with
    1 or 3 channels. One channel is drawn from blue (-limit) through white (0) to vermilion (limit), three channels as
    red, green and blue around medium gray. limit: weights beyond it have its color; by default the 99.5th percentile of
    all absolute weights, so that a few large weights do not make all others pale. Pass it for the frames of a film, so
    that they share one scale. gap: width of the separators in weights. zoom: width of a weight in pixels. columns: by
    default about as many as rows.

    Raises ValueError if the weights are not images of that shape.
    """
    tiled = _tile(_images(weights, image_shape), columns, gap)
    return _colors(tiled, _limit(weights, limit)).repeat(zoom, axis=0).repeat(zoom, axis=1)


def _images(weights: ArrayLike, image_shape: Sequence[int]) -> NDArray[np.float64]:
    """Return `weights` as (units, height, width, channels)."""
    values = np.asarray(weights, dtype=np.float64)
    channels, height, width = (1, *image_shape) if len(image_shape) == 2 else tuple(image_shape)
    if channels not in (1, 3) or values.ndim != 2 or values.shape[1] != channels * height * width:
        raise ValueError(f"Weights of shape {values.shape} are not images of shape {tuple(image_shape)}.")
    return values.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)


def _limit(weights: ArrayLike, limit: float | None) -> float:
    """Return `limit`, or if it is None the 99.5th percentile of the absolute weights, or 1 if that is 0."""
    if limit is None:
        limit = float(np.nanpercentile(np.abs(np.asarray(weights, dtype=np.float64)), 99.5))
    return limit if limit > 0 else 1.0


def _tile(images: NDArray[np.float64], columns: int | None, gap: int) -> NDArray[np.float64]:
    """Arrange images (units, height, width, channels) in rows, with nan in the gaps and in empty places."""
    units, height, width, channels = images.shape
    columns = columns or max(1, math.ceil(math.sqrt(units)))
    rows = math.ceil(units / columns)
    padded = np.full((rows * columns, height + gap, width + gap, channels), np.nan)
    padded[:units, :height, :width] = images
    sheet = padded.reshape(rows, columns, height + gap, width + gap, channels).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    return np.pad(sheet, ((gap, 0), (gap, 0), (0, 0)), constant_values=np.nan)


def _colors(values: NDArray[np.float64], limit: float) -> NDArray[np.uint8]:
    """Return the colors of values (height, width, 1 or 3) from -limit to limit, dark gray for nan."""
    position = np.clip(values / limit, -1, 1)
    if values.shape[2] == 1:
        anchors = np.array([[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in DIVERGING])
        places = np.linspace(-1, 1, len(anchors))
        rgb = np.stack([np.interp(position[..., 0], places, anchors[:, channel]) for channel in range(3)], axis=-1)
    else:
        rgb = 127.5 * (1 + position)
    return np.where(np.isnan(rgb), int(_SEPARATOR[1:3], 16), rgb.round()).astype(np.uint8)


def _in_percent(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(accuracy=100 * table["accuracy"])


def _in_order(values: pd.Series[Any]) -> pd.Categorical[str]:
    """Return `values` as text in their order of appearance, which plotnine would otherwise sort."""
    text = values.astype(str)
    return pd.Categorical(text, list(dict.fromkeys(text)))


def _labels(data: pd.DataFrame) -> list[str]:
    """Make `label` a column of text in order of appearance, empty if it is missing; return the labels."""
    data["label"] = _in_order(data["label"]) if "label" in data.columns else pd.Categorical([""] * len(data))
    return list(data["label"].cat.categories)


def _legend(labels: Sequence[str]) -> dict[str, object]:
    return {"legend_position": "none" if len(labels) < 2 else "bottom", "legend_title": element_blank()}


def _floor(accuracies: NDArray[np.float64]) -> float:
    """Return the start of a percentage axis: a multiple of five below the smallest value, so that differences show."""
    finite = accuracies[np.isfinite(accuracies)]
    return max(0.0, 5 * math.floor((finite.min() - 2) / 5)) if len(finite) else 0.0


def _wrapped(title: str, width: float) -> str:
    """Break `title` into lines that fit a figure `width` inches wide, in the default font size of the theme."""
    return textwrap.fill(title, int(10 * (width - 0.4)))
