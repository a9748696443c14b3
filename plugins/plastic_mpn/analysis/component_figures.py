"""The figures of `plastic analyze mpn --pca`: explained variance, and the states in the plane of two components."""

# plotnine does not declare the type of a figure plus a layer.
# mypy: no-warn-return-any

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    facet_wrap,
    geom_line,
    geom_path,
    geom_point,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_color_gradientn,
    scale_color_manual,
    scale_fill_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_continuous,
    theme,
)

from plastic_cli.figures.theme import INK, ORDERED, PAPER, SOFT_INK, discrete_colors, percent_of_one, theme_plastic
from plastic_mpn.analysis.figures import COLOR_BAR, STATE_SHAPES, STATES, state_colors, with_state_names
from plastic_mpn.analysis.principal_components import PrincipalComponents

EPISODES = 8
"""Maximum number of episodes in a figure; more would be hard to distinguish."""

LONG = 150
"""Steps of longer episodes are not connected: lines that cross each other many times hide where the states are."""

MAX_CATEGORIES = 8

_PERIOD_SHAPES = ("o", "^", "s", "D", "P", "X")


def variance_figure(table: pd.DataFrame, found: Mapping[str, PrincipalComponents], run_name: str) -> ggplot:
    """Draw the cumulative explained variance of the first components, for h and M. table: `variance_table`."""
    data = with_state_names(table)
    dimensions = [f"{state}: {components.participation_ratio:.2f}" for state, components in found.items()]
    last = int(data["component"].max())
    return (
        ggplot(data, aes("component", "cumulative", color="state", shape="state"))
        + geom_line(size=0.9)
        + geom_point(size=2.4)
        + state_colors()
        + scale_shape_manual(values=STATE_SHAPES)
        + scale_x_continuous(breaks=[1, *range(5, last + 1, 5)] if last > 5 else list(range(1, last + 1)))
        + scale_y_continuous(labels=percent_of_one, limits=(0, 1))
        + labs(
            title="Principal components",
            subtitle=f"{run_name}\neffective dimension (participation ratio): {', '.join(dimensions)}",
            x="Number of components",
            y="Cumulative explained variance",
        )
        + theme_plastic(figure_size=(6.5, 4))
        + theme(legend_position="bottom", legend_title=element_blank())
    )


def states_figure(
    table: pd.DataFrame, found: Mapping[str, PrincipalComponents], color: str, run_name: str, names: Sequence[str] = ()
) -> ggplot:
    """Draw the states of the first episodes in the plane of two components. table: `trajectory_table`.

    Dots are steps. Steps of short episodes are connected. color: the name of the value that colors the dots. names:
    those of its values if it counts something, such as actions.
    """
    data = _with_panels(table[table["episode"] < EPISODES], found)
    short = int(data["step"].max()) < LONG
    episodes = data.groupby(["panel", "episode"], observed=True)
    first, last = (episodes.nth(place).drop(columns="value") for place in (0, -1))
    data["value"], colors = _value_colors(data["value"], color, names)
    figure = ggplot(data, aes("PC1", "PC2"))
    if short:
        figure += geom_path(aes(group="episode"), size=0.4, color=SOFT_INK, alpha=0.35)
    return (
        figure
        # As an image, because thousands of dots take megabytes in an SVG.
        + geom_point(aes(color="value"), size=1.4 if short else 0.9, stroke=0, raster=True)
        + geom_point(data=first, size=2.4, shape="o", fill=PAPER, color=INK, stroke=0.7)
        + geom_point(data=last, size=2.2, shape="s", fill=INK, color=PAPER, stroke=0.4)
        + facet_wrap("panel", scales="free")
        + colors
        + labs(
            title="States in the plane of two principal components",
            subtitle=f"{run_name}\n{data['episode'].nunique()} episodes; circle: first step, square: last step",
            x="PC1",
            y="PC2",
        )
        + theme_plastic(figure_size=(1.4 + 3.7 * len(found), 4.4))
    )


def trials_figure(
    table: pd.DataFrame, found: Mapping[str, PrincipalComponents], run_name: str, names: Sequence[str]
) -> ggplot:
    """Draw the trajectories of trials and their mean for each correct answer, in the plane of two components.

    table: `trial_table`. names: those of the answers.
    """
    answers = sorted(table["answer"].unique())
    data = _with_panels(table, found)
    data["answer"] = pd.Categorical([names[answer] for answer in data["answer"]], [names[answer] for answer in answers])
    data["path"] = data["episode"].astype(str) + "/" + data["trial"].astype(str)
    mean = _mean_of_trials(data)
    starts = mean.groupby(["panel", "answer", "period"], observed=True).first().reset_index()
    periods = list(dict.fromkeys(starts.sort_values("trial_step")["period"]))
    starts["period"] = pd.Categorical(starts["period"], periods)
    colors, trials = discrete_colors(len(answers)), data["path"].nunique()
    carried = "; M goes on from trial to trial" if "M" in found and data["trial"].max() > 0 else ""
    return (
        ggplot(mean, aes("PC1", "PC2", color="answer"))
        + geom_path(aes(group="path"), data=data[data["episode"] < EPISODES], size=0.3, alpha=0.2)
        + geom_path(aes(group="answer"), size=1.3)
        + geom_point(aes(shape="period", fill="answer"), data=starts, size=3, color=INK, stroke=0.6)
        + facet_wrap("panel", scales="free")
        + scale_color_manual(values=colors, name="correct answer")
        + scale_fill_manual(values=colors, guide=None)
        + scale_shape_manual(values=_PERIOD_SHAPES[: len(periods)], name="start of")
        + labs(
            title="Trials in the plane of two principal components",
            subtitle=f"{run_name}\nthick: mean of {trials} trials by correct answer; thin: single trials{carried}",
            x="PC1",
            y="PC2",
        )
        + theme_plastic(figure_size=(1.6 + 3.7 * len(found), 4.4))
    )


def _mean_of_trials(data: pd.DataFrame) -> pd.DataFrame:
    """Return the mean place at each step of a trial, for steps that half of the trials have: others would jump."""
    steps = data.groupby(["panel", "answer", "trial_step", "period"], observed=True)
    mean = steps.agg(PC1=("PC1", "mean"), PC2=("PC2", "mean"), trials=("PC1", "size")).reset_index()
    most = mean.groupby(["panel", "answer"], observed=True)["trials"].transform("max")
    return mean[mean["trials"] >= most / 2].sort_values("trial_step")


def _value_colors(values: pd.Series[Any], color: str, names: Sequence[str]) -> tuple[pd.Series[Any], list[Any]]:
    """Return the values to draw and their scale: one color each for texts and few whole numbers, else a gradient."""
    categories = sorted(values.dropna().unique())
    texts = all(isinstance(value, str) for value in categories)
    if not texts and not (len(categories) <= MAX_CATEGORIES and all(float(value).is_integer() for value in categories)):
        gradient = scale_color_gradientn(ORDERED, name=color)
        return values.astype(float), [gradient, guides(color=COLOR_BAR)]
    labels = {value: value if texts else names[int(value)] if names else f"{value:.0f}" for value in categories}
    shown = pd.Series(pd.Categorical(values.map(labels), list(labels.values())), index=values.index)
    scale = scale_color_manual(values=discrete_colors(len(categories)), name=color)
    return shown, [scale, guides(color=guide_legend(override_aes={"size": 3}))]


def _with_panels(table: pd.DataFrame, found: Mapping[str, PrincipalComponents]) -> pd.DataFrame:
    panels = {state: _panel(state, components) for state, components in found.items()}
    return table.assign(panel=pd.Categorical(table["state"].map(panels), list(panels.values())))


def _panel(state: str, components: PrincipalComponents) -> str:
    shares = [f"PC{index + 1} {100 * share:.0f}%" for index, share in enumerate(components.variance_ratios[:2])]
    return f"{STATES[state]} ({', '.join(shares)})"
