"""The report's figures: learning curves over seeds, and published values beside measured ones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotnine import (
    aes,
    element_blank,
    element_text,
    facet_wrap,
    geom_line,
    geom_point,
    geom_ribbon,
    geom_segment,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_color_manual,
    scale_fill_manual,
    scale_shape_manual,
    scale_x_continuous,
    theme,
)

from plastic_cli.analysis.intervals import MINIMUM_VALUES, interval_method, mean_intervals
from plastic_cli.figures.theme import discrete_colours, theme_plastic
from plastic_cli.report.claims import Claim
from plastic_cli.report.results import ClaimResult, Result, more_is_better

MOST_CURVES = 8
"""More curves than this in one figure cannot be told apart."""

CURVE_RESAMPLES = 1999
"""A ribbon has an interval at every step; its edge is drawn, not read off to the third digit."""

_LEGEND_WIDTH = 44


def learning_curves(results: Sequence[Result], metrics: pd.DataFrame) -> dict[str, ggplot]:
    """Return a figure of each main metric against the step, by file name; groups without a curve are left out.

    metrics: a frame as `RunStore.metrics()` gives it. A line is the mean over a group's seeds, the ribbon around it the
    bootstrap interval, from the first step on. Data sets have panels of their own. Of more than `MOST_CURVES` settings
    the best are drawn, by their mean rank over the data sets.
    """
    figures = {}
    for metric in dict.fromkeys(result.metric for result in results if result.metric):
        shown, rows = _curve_rows(metrics, metric)
        with_curve = set(rows["run"])
        drawn = [
            result for result in results if result.metric == metric and not with_curve.isdisjoint(result.group.runs)
        ]
        labels = best_labels(drawn, MOST_CURVES)
        curves = _mean_curves([result for result in drawn if result.group.label in labels], rows)
        if not curves.empty:
            figures[f"learning-curves-{shown.replace('/', '-')}"] = _curves_figure(drawn, labels, curves, shown)
    return figures


def _curve_rows(metrics: pd.DataFrame, metric: str) -> tuple[str, pd.DataFrame]:
    """Return the metric that has a curve, and its rows: `metric` itself or, where it is measured once, validation's."""
    name = metric.partition("/")[2]
    for shown in (metric, f"validation/{name}"):
        rows = _training_rows(metrics, shown)
        rows = rows[rows.groupby("run")["step"].transform("size") > 1]
        if not rows.empty:
            return shown, rows
    return metric, rows


def _training_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return run, step and value of one metric while training, each step of a run once."""
    split, _, name = metric.partition("/")
    # Step 0 is the untrained network: its chance level would squeeze what there is to see into a strip at the top.
    learned = metrics["step"] > 0
    wanted = (metrics["stage"] == "train") & (metrics["split"] == split) & (metrics["metric"] == name)
    rows: pd.DataFrame = metrics[wanted & learned & metrics["labels"].isna() & np.isfinite(metrics["value"])]
    return rows.drop_duplicates(["run", "step"], keep="last")[["run", "step", "value"]]


def _mean_curves(results: Sequence[Result], rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean curve of each result's group: label, dataset, step, mean, low, high, n.

    A step counts where every seed of the group that has a curve reached it, so that no line bends because its seeds
    change.
    """
    parts = [pd.DataFrame(columns=["label", "dataset", "step", "mean", "low", "high", "n"])]
    for result in results:
        own = rows[rows["run"].isin(result.group.runs)]
        table = own.pivot_table(index="step", columns="run", values="value").dropna()
        if table.empty:
            continue
        intervals = mean_intervals(list(table.to_numpy()), resamples=CURVE_RESAMPLES)
        part = pd.DataFrame(
            [(each.mean, each.low, each.high, each.n) for each in intervals], columns=["mean", "low", "high", "n"]
        )
        parts.append(part.assign(label=result.group.label, dataset=result.group.dataset or "", step=table.index))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def best_labels(results: Sequence[Result], count: int) -> list[str]:
    """Return the labels of the `count` best settings, in the order of `results`.

    Settings are ranked within each data set by their mean, and then by their mean rank.
    """
    frame = pd.DataFrame(
        {
            "label": [result.group.label for result in results],
            "dataset": [result.group.dataset or "" for result in results],
            "value": [result.value.mean * (1 if more_is_better(result.metric or "") else -1) for result in results],
        }
    )
    frame["rank"] = frame.groupby("dataset")["value"].rank(ascending=False)
    ranks = frame.groupby("label", sort=False)["rank"].mean()
    best = set(ranks.sort_values(kind="stable").index[:count])
    return [str(label) for label in ranks.index if label in best]


def claims_figure(claims: Sequence[ClaimResult]) -> ggplot | None:
    """Return a figure with each tested claim's published value and tolerance beside what we measured.

    None where no claim has a measurement.
    """
    tested = [row for row in claims if row.verdict is not None and row.verdict.interval.n]
    if not tested:
        return None
    frame = _claims_data(tested)
    published = frame[frame["what"] == "published"]
    with_interval = frame[frame["what"] == "measured"].dropna(subset=["low", "high"])
    metrics = list(dict.fromkeys(frame["metric"]))
    colours = {"published": "#777777", "measured": discrete_colours(1)[0]}
    # Panels are of one height: the one with most lines decides.
    tallest = max(
        sum(0.17 * (label.count("\n") + 1) + 0.12 for label in own["claim"].astype(str).unique())
        for _, own in frame.groupby("metric")
    )
    height = 1.9 + len(metrics) * tallest + (0.45 * len(metrics) if len(metrics) > 1 else 0)
    caption = (
        "Grey: published value and the tolerance of its claim. Blue: our mean over seeds, with the"
        f" {interval_method()} from {MINIMUM_VALUES} seeds on."
    )
    figure: ggplot = (
        ggplot(frame, aes("value", "claim", colour="what"))
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=published, size=4, alpha=0.3, show_legend=False)
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=with_interval, size=1.3, show_legend=False)
        + geom_point(aes(shape="what"), size=2.6)
        + scale_color_manual(values=colours, breaks=list(colours))
        + scale_shape_manual(values={"published": "|", "measured": "o"}, breaks=list(colours))
        + labs(
            title="Published and measured",
            x=metrics[0] if len(metrics) == 1 else "value",
            y="",
            colour="",
            shape="",
            caption=_wrapped(caption, 62),
        )
        + theme_plastic(figure_size=(7.5, height))
        + theme(
            legend_position="top",
            legend_title=element_blank(),
            plot_caption=element_text(ha="left", ma="left"),
            axis_text_y=element_text(ma="right"),
        )
    )
    if len(metrics) > 1:
        figure += facet_wrap("metric", scales="free", ncol=1)
        # A panel's heading belongs to what is below it.
        figure += theme(panel_spacing_y=0.45 / height)
    return figure


def _claims_data(tested: Sequence[ClaimResult]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in tested:
        assert isinstance(row.entry, Claim)
        assert row.verdict is not None
        assert row.group is not None
        claim, interval = row.entry, row.verdict.interval
        mark = claim.id if len({other.rule for other in tested}) == 1 else f"{row.rule} {claim.id}"
        word = row.verdict.word if interval.known else f"{row.verdict.word}, {row.verdict.reason}"
        # The setting tells apart what one claim is held against; alone, the claim says it.
        several = sum(other.rule == row.rule and other.entry.id == claim.id for other in tested) > 1
        setting = _wrapped_setting(row.group.setting, 40) if several else ""
        label = "\n".join(part for part in (f"{mark}: {word}", setting) if part)
        common = {"claim": label, "metric": claim.metric}
        low = claim.value if claim.comparison == "at-most" else claim.value - claim.tolerance
        high = claim.value if claim.comparison == "at-least" else claim.value + claim.tolerance
        rows.append({**common, "what": "published", "value": claim.value, "low": low, "high": high})
        rows.append({**common, "what": "measured", "value": interval.mean, "low": interval.low, "high": interval.high})
    frame = pd.DataFrame(rows)
    frame["claim"] = pd.Categorical(frame["claim"], categories=list(dict.fromkeys(frame["claim"]))[::-1])
    return frame


def _curves_figure(drawn: Sequence[Result], labels: Sequence[str], curves: pd.DataFrame, metric: str) -> ggplot:
    count = len({result.group.label for result in drawn})
    # With one rule its name in front of every setting says nothing.
    rules = {result.group.rule for result in drawn}
    names = {
        result.group.label: _wrapped_setting(
            result.group.label if len(rules) > 1 else result.group.setting or result.group.rule, _LEGEND_WIDTH
        )
        for result in drawn
    }
    legend = [names[label] for label in labels]
    curves = curves.assign(label=pd.Categorical(curves["label"].map(names), categories=legend))
    datasets = sorted(set(curves["dataset"]))
    colours = discrete_colours(len(legend))
    caption = (
        f"Line: mean over seeds. Ribbon: {interval_method(resamples=CURVE_RESAMPLES)}, from {MINIMUM_VALUES} seeds on."
    )
    if count > len(labels):
        caption += f" The best {len(labels)} of {count} settings are shown."
    lines = sum(label.count("\n") + 1 for label in legend)
    columns = min(len(datasets), 2)
    beside = len(legend) > 1
    width = 4.4 * columns + 0.6 + (3.2 if beside else 0)
    height = max(2.9 * -(-len(datasets) // columns) + 1.2, 1.4 + 0.2 * lines + 0.1 * len(legend))
    about = [*(rules if len(rules) == 1 else []), *(legend if not beside and legend != list(rules) else [])]
    about += datasets if len(datasets) == 1 and datasets[0] else []
    figure: ggplot = (
        ggplot(curves, aes("step", "mean", colour="label", fill="label"))
        + geom_ribbon(aes(ymin="low", ymax="high"), data=curves.dropna(subset=["low", "high"]), alpha=0.2, size=0)
        + geom_line(size=0.9)
        + scale_color_manual(values=colours, drop=False)
        + scale_fill_manual(values=colours, drop=False)
        + scale_x_continuous(breaks=_whole_breaks)
        + guides(colour=guide_legend(ncol=1), fill=guide_legend(ncol=1))
        + labs(
            title="Learning curves",
            subtitle=_wrapped(", ".join(about), 22 * columns * 2) or None,
            x=_step_name(drawn, curves),
            y=metric,
            colour="",
            fill="",
            caption=_wrapped(caption, 62 * columns),
        )
        + theme_plastic(figure_size=(width, height))
        + theme(
            legend_position="right" if beside else "none",
            legend_title=element_blank(),
            legend_text=element_text(ma="left"),
            plot_caption=element_text(ha="left", ma="left"),
        )
    )
    if len(datasets) > 1:
        figure += facet_wrap("dataset", ncol=columns, scales="free_y")
    return figure


def _step_name(results: Sequence[Result], curves: pd.DataFrame) -> str:
    """Return "epoch" where the runs count epochs: their last step is the number of epochs asked for."""
    epochs = {result.group.config.get("epochs") for result in results}
    last = set(curves.groupby(["label", "dataset"], observed=True)["step"].max())
    return "epoch" if last <= epochs else "step"


def _whole_breaks(limits: tuple[float, float]) -> list[float]:
    """Return up to six breaks on whole steps."""
    low, high = int(np.ceil(limits[0])), int(np.floor(limits[1]))
    rough = max((high - low) / 5, 1)
    power = 10 ** int(np.floor(np.log10(rough)))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [float(value) for value in range(-(-low // step) * step, high + 1, step)]


def _wrapped_setting(setting: str, width: int) -> str:
    """Break the text of a setting between its fields, not within one."""
    fields = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in setting.split(", "))
    return _wrapped(fields, width).replace("\N{NO-BREAK SPACE}", " ")


def _wrapped(text: str, width: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width) or [""])
