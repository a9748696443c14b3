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
    element_line,
    element_text,
    facet_wrap,
    geom_errorbarh,
    geom_line,
    geom_point,
    geom_ribbon,
    ggplot,
    guide_legend,
    guides,
    labs,
    scale_color_manual,
    scale_fill_manual,
    scale_shape_manual,
    scale_x_continuous,
    scale_y_discrete,
    theme,
)

from plastic_cli.analysis.intervals import MINIMUM_VALUES, interval_method, mean_intervals
from plastic_cli.report.claims import Claim
from plastic_cli.report.results import ClaimResult, Result, more_is_better
from plastic_cli.report.theme import discrete_colours, theme_plastic

MOST_CURVES = 8
"""More curves than this in one figure cannot be told apart."""

CURVE_RESAMPLES = 1999
"""A ribbon has an interval at every step; its edge is drawn, not read off to the third digit."""

_LEGEND_WIDTH = 44


def learning_curves(results: Sequence[Result], metrics: pd.DataFrame) -> dict[str, ggplot]:
    """Return a figure of each main metric against the step, by file name; groups without a curve are left out.

    metrics: a frame as `RunStore.metrics()` gives it. A line is the mean over a group's seeds, the ribbon around it the
    bootstrap interval. Data sets have panels of their own. Of more than `MOST_CURVES` settings the best are drawn, by
    their mean rank over the data sets.
    """
    figures = {}
    for metric in dict.fromkeys(result.metric for result in results if result.metric):
        chosen = [result for result in results if result.metric == metric]
        curves = curve_data(chosen, metrics, metric)
        # A single point is no curve, and the tables have it already.
        if curves.empty or curves["step"].nunique() < 2:
            continue
        figures[f"learning-curves-{metric.replace('/', '-')}"] = _curves_figure(chosen, curves, metric)
    return figures


def curve_data(results: Sequence[Result], metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean curve of each result's group: label, dataset, step, mean, low, high, n.

    A step counts where every seed of the group that has a curve reached it, so that no line bends because its seeds
    change.
    """
    split, _, name = metric.partition("/")
    rows = metrics[
        (metrics["stage"] == "train")
        & (metrics["split"] == split)
        & (metrics["metric"] == name)
        & metrics["labels"].isna()
        & np.isfinite(metrics["value"])
    ]
    parts = []
    for result in results:
        own = rows[rows["run"].isin(result.group.runs)].drop_duplicates(["run", "step"], keep="last")
        table = own.pivot_table(index="step", columns="run", values="value").dropna()
        intervals = mean_intervals(list(table.to_numpy()), resamples=CURVE_RESAMPLES)
        parts.append(
            pd.DataFrame(
                {
                    "label": result.group.label,
                    "dataset": result.group.dataset or "",
                    "step": table.index,
                    "mean": [interval.mean for interval in intervals],
                    "low": [interval.low for interval in intervals],
                    "high": [interval.high for interval in intervals],
                    "n": [interval.n for interval in intervals],
                }
            )
        )
    columns = ["label", "dataset", "step", "mean", "low", "high", "n"]
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


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
    measured = frame[frame["what"] == "measured"]
    with_interval = measured.dropna(subset=["low", "high"])
    metrics = list(dict.fromkeys(frame["metric"]))
    colours = {"published": "#888888", "measured": discrete_colours(1)[0]}
    rows = frame["claim"].nunique()
    lines = sum(label.count("\n") + 1 for label in frame["claim"].cat.categories)
    figure: ggplot = (
        ggplot(frame, aes("value", "claim", colour="what"))
        + geom_errorbarh(aes(xmin="low", xmax="high"), data=published, height=0, size=4, alpha=0.35)
        + geom_errorbarh(aes(xmin="low", xmax="high"), data=with_interval, height=0.25, size=0.9)
        + geom_point(aes(shape="what"), size=3)
        + scale_color_manual(values=colours, breaks=list(colours))
        + scale_shape_manual(values={"published": "|", "measured": "o"}, breaks=list(colours))
        + scale_y_discrete(limits=list(frame["claim"].cat.categories)[::-1])
        + labs(
            title="Published and measured",
            x=metrics[0] if len(metrics) == 1 else "value",
            y="",
            colour="",
            shape="",
            caption=_wrapped(
                f"Grey bar: published value with the tolerance of the claim. Dot: our mean over seeds, with the"
                f" {interval_method()} from {MINIMUM_VALUES} seeds on.",
                100,
            ),
        )
        + theme_plastic(figure_size=(7.5, 1.8 + 0.16 * lines + 0.12 * rows))
        + theme(
            legend_position="top",
            panel_grid_major_y=element_line(colour="#EEEEEE"),
            axis_text_y=element_text(ha="right"),
        )
    )
    if len(metrics) > 1:
        figure += facet_wrap("metric", scales="free", ncol=1)
    return figure


def _claims_data(tested: Sequence[ClaimResult]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in tested:
        assert isinstance(row.entry, Claim)
        assert row.verdict is not None
        assert row.group is not None
        claim, interval = row.entry, row.verdict.interval
        setting = f"{row.group.setting}\n" if row.group.setting else ""
        mark = claim.id if len({other.rule for other in tested}) == 1 else f"{row.rule} {claim.id}"
        label = f"{mark}  {_wrapped(setting, 40)}{row.verdict.word}, n = {interval.n}"
        common = {"claim": label, "metric": claim.metric}
        low = claim.value if claim.comparison == "at-most" else claim.value - claim.tolerance
        high = claim.value if claim.comparison == "at-least" else claim.value + claim.tolerance
        rows.append({**common, "what": "published", "value": claim.value, "low": low, "high": high})
        rows.append({**common, "what": "measured", "value": interval.mean, "low": interval.low, "high": interval.high})
    frame = pd.DataFrame(rows)
    frame["claim"] = pd.Categorical(frame["claim"], categories=list(dict.fromkeys(frame["claim"])))
    return frame


def _curves_figure(results: Sequence[Result], curves: pd.DataFrame, metric: str) -> ggplot:
    drawn = [result for result in results if result.group.label in set(curves["label"])]
    count = len({result.group.label for result in drawn})
    labels = best_labels(drawn, MOST_CURVES)
    curves = curves[curves["label"].isin(labels)]
    # With one rule its name in front of every setting says nothing.
    rules = {result.group.rule for result in drawn}
    shown = {result.group.label: (result.group.setting or result.group.rule) for result in drawn}
    if len(rules) > 1:
        shown = {label: label for label in shown}
    legend = [_wrapped(shown[label], _LEGEND_WIDTH) for label in labels]
    curves = curves.assign(
        label=pd.Categorical([_wrapped(shown[label], _LEGEND_WIDTH) for label in curves["label"]], categories=legend)
    )
    datasets = curves["dataset"].nunique()
    ribbons = curves.dropna(subset=["low", "high"])
    colours = discrete_colours(max(len(legend), 1))
    caption = (
        f"Line: mean over seeds. Ribbon: {interval_method(resamples=CURVE_RESAMPLES)}, from {MINIMUM_VALUES} seeds on."
    )
    if count > len(labels):
        caption += f" The best {len(labels)} of {count} settings are shown."
    lines = sum(label.count("\n") + 1 for label in legend)
    columns = min(datasets, 2)
    panels = -(-datasets // columns)
    legend_below = lines <= 3
    width = 4.2 * columns + 1.0 + (0 if legend_below else 3.0)
    height = max(3.0 * panels + 1.2, 1.4 + 0.2 * lines + 0.1 * len(legend)) + (0.25 * lines if legend_below else 0)
    figure: ggplot = (
        ggplot(curves, aes("step", "mean", colour="label", fill="label"))
        + geom_ribbon(aes(ymin="low", ymax="high"), data=ribbons, alpha=0.2, colour="none", size=0)
        + geom_line(size=0.9)
        + scale_color_manual(values=colours, drop=False)
        + scale_fill_manual(values=colours, drop=False)
        + scale_x_continuous(breaks=_whole_breaks)
        + guides(colour=guide_legend(ncol=1), fill=guide_legend(ncol=1))
        + labs(
            title=" ".join(["Learning", *(sorted(rules) if len(rules) == 1 else [])]),
            x=_step_name(results, curves),
            y=metric,
            colour="",
            fill="",
            caption=_wrapped(caption, int(13 * width)),
        )
        + theme_plastic(figure_size=(width, height))
        + theme(legend_position="bottom" if legend_below else "right", legend_title=element_blank())
    )
    if datasets > 1:
        figure += facet_wrap("dataset", ncol=columns, scales="free_y")
    elif only := str(curves["dataset"].iloc[0]):
        figure += labs(subtitle=only)
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


def _wrapped(text: str, width: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width) or [""])
