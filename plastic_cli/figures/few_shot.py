"""The figures of the analyses of held-out classes: few examples, and classes that come one after another."""

# plotnine declares types, but not that of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

import pandas as pd
from plotnine import (
    aes,
    facet_wrap,
    geom_hline,
    geom_line,
    geom_linerange,
    geom_point,
    ggplot,
    labs,
    position_dodge,
    scale_x_continuous,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.theme import GRAY, percent, series_scales, series_styles, theme_plastic

BARS = "Bars: 95% t interval of the mean over episodes of one network. "


def few_shot_figure(table: pd.DataFrame) -> ggplot:
    """Draw accuracy by features, one panel for each number of examples and one color for each reader.

    table: columns ways, shots, network, reader, accuracy, low, high (over episodes of one network), chance, all from 0
    to 1.
    """
    data = table.copy()
    data[["accuracy", "low", "high", "chance"]] *= 100
    # No accuracy lies outside.
    data[["low", "high"]] = data[["low", "high"]].clip(0, 100)
    data["network"] = pd.Categorical(data["network"], list(dict.fromkeys(data["network"])))
    readers = list(dict.fromkeys(data["reader"]))
    data["reader"] = pd.Categorical(data["reader"], readers)
    titles = {shots: f"{shots} example{'s' if shots > 1 else ''} of each class" for shots in sorted(set(data["shots"]))}
    data["panel"] = pd.Categorical(data["shots"].map(titles), list(titles.values()))
    styles, dodge = series_styles(readers), position_dodge(width=0.5)
    return (
        ggplot(data, aes("network", "accuracy", color="reader", shape="reader"))
        + geom_hline(aes(yintercept="chance"), linetype="dashed", color=GRAY, size=0.6)
        + geom_linerange(aes(ymin="low", ymax="high"), data=data.dropna(subset=["low"]), position=dodge, size=0.8)
        + geom_point(position=dodge, size=2.6)
        + facet_wrap("panel", nrow=1)
        + series_scales(styles, readers, ("color", "shape"), name="Reader")
        + scale_y_continuous(labels=percent)
        + labs(
            x="Features",
            y="Accuracy",
            title=f"{data['ways'].iloc[0]} held-out classes from a few examples",
            caption=(BARS if data["low"].notna().any() else "") + "Dashed line: chance.",
        )
        + theme_plastic(figure_size=(2.2 + 3.4 * len(titles), 4.4))
        + theme(legend_position="bottom")
    )


def incremental_figure(table: pd.DataFrame) -> ggplot:
    """Draw accuracy on all classes so far against their number, one line for each reader.

    table: columns classes, reader, accuracy, chance, from 0 to 1.
    """
    data = table.copy()
    data[["accuracy", "chance"]] *= 100
    readers = list(dict.fromkeys(data["reader"]))
    data["reader"] = pd.Categorical(data["reader"], readers)
    styles = series_styles(readers)
    chance = data.drop_duplicates("classes")
    return (
        ggplot(data, aes("classes", "accuracy", color="reader", shape="reader", linetype="reader"))
        + geom_line(aes("classes", "chance"), data=chance, inherit_aes=False, linetype="dashed", color=GRAY, size=0.6)
        + geom_line(size=0.8)
        + geom_point(size=2.2)
        + series_scales(styles, readers, ("color", "shape", "linetype"), name="Reader")
        + scale_x_continuous(breaks=_whole_numbers(int(data["classes"].max())))
        + scale_y_continuous(labels=percent, limits=(0, 100))
        + labs(
            x="Classes learned so far",
            y="Accuracy on all of them",
            title="Held-out classes, one after another",
            caption="Dashed gray line: chance.",
        )
        + theme_plastic(figure_size=(9.2, 4.6))
        + theme(legend_position="right")
    )


def _whole_numbers(highest: int) -> list[int]:
    step = max(1, round(highest / 8))
    return list(range(2, highest + 1, step))
