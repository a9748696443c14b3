"""Figures of a meta-learned rule."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from plotnine import (
    aes,
    coord_flip,
    element_blank,
    element_text,
    facet_wrap,
    geom_col,
    geom_hline,
    geom_label,
    geom_line,
    geom_linerange,
    geom_point,
    ggplot,
    labs,
    scale_color_manual,
    scale_linetype_manual,
    scale_x_discrete,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.curves import wrapped
from plastic_cli.figures.theme import GRAY, INK, PALETTE, PAPER, ordered_colors, theme_plastic
from plastic_metafa.rule import term_label


def accuracy_figure(curves: pd.DataFrame, levels: Mapping[str, float], window: int) -> ggplot:
    """Draw accuracy in percent and loss on the queries against episodes, and test accuracies as horizontal lines.

    curves: columns step, metric (accuracy or loss), value. levels: accuracies by name, from 0 to 1.
    """
    names = {"accuracy": "accuracy (%)", "loss": "cross-entropy"}
    data = curves.assign(facet=pd.Categorical(curves["metric"].map(names), list(names.values())))
    data["value"] = data["value"].where(data["metric"] != "accuracy", 100 * data["value"])
    lines = pd.DataFrame({"level": list(levels), "value": [100 * value for value in levels.values()]})
    lines["facet"] = pd.Categorical([names["accuracy"]] * len(lines), list(names.values()))
    lines["level"] = pd.Categorical(lines["level"], list(levels))
    figure = ggplot(data, aes("step", "value")) + geom_line(size=0.8, color=PALETTE[0])
    if len(lines):
        figure += geom_hline(aes(yintercept="value", linetype="level"), data=lines, color=GRAY, size=0.7)
        figure += scale_linetype_manual(values=["dashed", "dashdot", "dotted"][: len(lines)])
    return (
        figure
        + facet_wrap("facet", scales="free_y")
        + labs(
            title="Accuracy and loss on queries after adaptation",
            subtitle=f"moving average over {window} episodes; gray lines: final test",
            x="Episode",
            y="",
            linetype="",
        )
        + theme_plastic(figure_size=(8.4, 3.8))
        + theme(legend_position="bottom", strip_text=element_text(size=10))
    )


def theta_figure(curves: pd.DataFrame, final: pd.DataFrame, l1: float) -> ggplot:
    """Draw theta against episodes, one panel per term. curves: columns step, value, name; final: columns name, mean."""
    names = list(final["name"])
    data = curves.assign(name=pd.Categorical(curves["name"], names))
    marks = final.assign(name=pd.Categorical(final["name"], names))
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    width = max(5.0, 2.6 * columns)
    subtitle = f"dashed: mean of the last tenth of the episodes; weight of the L1 penalty: {l1:g}"
    return (
        ggplot(data, aes("step", "value"))
        + geom_hline(yintercept=0, color=GRAY, size=0.5)
        + geom_line(size=0.8, color=PALETTE[0])
        + geom_hline(aes(yintercept="mean"), data=marks, linetype="dashed", color=PALETTE[1], size=0.6)
        + facet_wrap("name", scales="free_y", ncol=columns)
        + scale_y_continuous(labels=_plain)
        + labs(
            title="Strength theta of each term",
            subtitle=wrapped(subtitle, int(11.5 * width)),
            x="Episode",
            y="theta",
        )
        + theme_plastic(figure_size=(width, 2.2 * rows + 1.3))
        + theme(strip_text=element_text(size=9))
    )


def angles_figure(curves: pd.DataFrame, window: int) -> ggplot:
    """Draw angles against episodes by layer: columns step, metric (angle or angle_by_sample), layer, value."""
    names = {"angle": "of the mean error over queries (published)", "angle_by_sample": "of each query, averaged"}
    data = curves.assign(
        facet=pd.Categorical(curves["metric"].map(names), list(names.values())), layer=_layers(curves["layer"])
    )
    return (
        ggplot(data, aes("step", "value", color="layer"))
        + geom_hline(yintercept=90, linetype="dashed", color=GRAY, size=0.6)
        + geom_line(size=0.8)
        + facet_wrap("facet")
        + scale_color_manual(values=ordered_colors(data["layer"].nunique()), name="Hidden layer")
        + labs(
            title="Angle between the errors by this feedback and by backprop",
            subtitle=f"moving average over {window} episodes; dashed: 90\N{DEGREE SIGN}, unrelated directions",
            x="Episode",
            y="Angle (degrees)",
        )
        + theme_plastic(figure_size=(8.4, 3.9))
        + theme(legend_position="bottom", strip_text=element_text(size=10))
    )


def orthonormality_figure(curves: pd.DataFrame, window: int) -> ggplot:
    """Draw E_W against episodes for each hidden layer: columns step, layer, value.

    The last layer is not drawn: (12) holds for sigma, and its units are a softmax.
    """
    data = curves[(curves["value"] > 0) & (curves["layer"] < curves["layer"].max())].assign(
        layer=lambda frame: _layers(frame["layer"])
    )
    return (
        ggplot(data, aes("step", "value", color="layer"))
        + geom_line(size=0.8)
        + scale_y_continuous(trans="log10", labels=_plain)
        + scale_color_manual(values=ordered_colors(data["layer"].nunique()), name="Layer of weights")
        + labs(
            title="Distance of weights from the fixed point of Oja's rule",
            subtitle=f"E_W after adaptation, 0 for orthonormal rows; moving average over {window} episodes;\n"
            "the softmax layer is not shown",
            x="Episode",
            y="E_W",
        )
        + theme_plastic(figure_size=(6.6, 4))
        + theme(legend_position="bottom")
    )


def terms_figure(table: pd.DataFrame, whole: float) -> ggplot:
    """Draw the contribution of each term to the weight change, and the accuracy lost without it.

    table: columns as in `measures.analyze_terms`. whole: accuracy with all terms.
    """
    names = [term_label(term) for term in table["term"]]
    panels = ["share of the weight change (%)", "accuracy lost without the term (points)"]
    parts = []
    for panel, value, low, high in (
        (panels[0], 100 * table["share"], None, None),
        (panels[1], -100 * table["difference"], -100 * table["high"], -100 * table["low"]),
    ):
        part = pd.DataFrame({"name": names, "panel": panel, "value": value})
        parts.append(part.assign(low=value if low is None else low, high=value if high is None else high))
    data = pd.concat(parts)
    data["name"] = pd.Categorical(data["name"], names[::-1])
    data["panel"] = pd.Categorical(data["panel"], panels)
    data["text"] = [f"{value:z.1f}" for value in data["value"]]
    bars = data[data["panel"] == panels[0]]
    points = data[data["panel"] == panels[1]]
    return (
        ggplot(data, aes("name", "value"))
        + geom_col(data=bars, fill=PALETTE[0], width=0.5)
        + geom_hline(yintercept=0, color=GRAY, size=0.5)
        + geom_linerange(aes(ymin="low", ymax="high"), data=points, color=PALETTE[1], size=0.9)
        + geom_point(data=points, color=PALETTE[1], size=2.6)
        + geom_label(aes(label="text"), nudge_x=0.42, size=8, label_size=0, label_padding=0.1, fill=PAPER, color=INK)
        + scale_x_discrete()
        + coord_flip()
        + facet_wrap("panel", scales="free_x")
        + labs(
            title="Contribution and importance of each term",
            subtitle=f"accuracy with all terms: {100 * whole:.1f}%",
            x="",
            y="",
        )
        + theme_plastic(figure_size=(8.4, 0.5 * len(names) + 1.7))
        + theme(panel_grid_major_y=element_blank(), strip_text=element_text(size=10))
    )


def _layers(values: pd.Series[float]) -> pd.Categorical[str]:
    numbers = sorted({int(value) for value in values})
    return pd.Categorical([str(int(value)) for value in values], [str(number) for number in numbers])


def _plain(values: Sequence[float] | Sequence[str]) -> list[str]:
    return [f"{float(value):g}" for value in values]
