"""The figures of the report and their descriptions: learning curves, claims, performance profiles."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
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
    geom_step,
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

from plastic_cli.figures.theme import discrete_colors, theme_plastic
from plastic_cli.reports.claims import Claim
from plastic_cli.reports.comparisons import MOST_COMPARED, Comparison, profiles, unique_name
from plastic_cli.reports.grouping import setting_text
from plastic_cli.reports.results import ClaimResult, Result, more_is_better
from plastic_cli.statistics.aggregates import profile_method
from plastic_cli.statistics.intervals import MINIMUM_VALUES, interval_method, mean_intervals

MOST_CURVES = 8
"""More curves than this in one figure cannot be distinguished."""

_LEGEND_WIDTH = 44


def learning_curves(results: Sequence[Result], metrics: pd.DataFrame) -> dict[str, ggplot]:
    """Return a figure of each main metric against the step, by file name; groups without a curve are left out.

    metrics: a frame as `RunStore.metrics()` returns it. A line is the mean over the seeds of a group and the ribbon its
    interval. Each data set has its own panel. Of more than `MOST_CURVES` settings the best are drawn, by their mean
    rank over the data sets.
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
    """Return the metric of the curve and its rows: `metric`, or if it is measured only once, that of validation."""
    name = metric.partition("/")[2]
    for shown in (metric, f"validation/{name}"):
        rows = _training_rows(metrics, shown)
        rows = rows[rows.groupby("run")["step"].transform("size") > 1]
        if not rows.empty:
            return shown, rows
    return metric, rows


def _training_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return run, step and value of one training metric, each step of a run once."""
    split, _, name = metric.partition("/")
    # Step 0 is the untrained network. With its chance level the curves would fill only the top of the figure.
    learned = metrics["step"] > 0
    wanted = (metrics["stage"] == "train") & (metrics["split"] == split) & (metrics["metric"] == name)
    rows: pd.DataFrame = metrics[wanted & learned & metrics["labels"].isna() & np.isfinite(metrics["value"])]
    return rows.drop_duplicates(["run", "step"], keep="last")[["run", "step", "value"]]


def _mean_curves(results: Sequence[Result], rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean curve of each result's group: label, dataset, step, mean, low, high, n.

    A step counts if all seeds of the group with a curve reached it, so that each point of a line has the same seeds.
    """
    parts = [pd.DataFrame(columns=["label", "dataset", "step", "mean", "low", "high", "n"])]
    for result in results:
        own = rows[rows["run"].isin(result.group.runs)]
        table = own.pivot_table(index="step", columns="run", values="value").dropna()
        if table.empty:
            continue
        intervals = mean_intervals(list(table.to_numpy()))
        part = pd.DataFrame(
            [(each.mean, each.low, each.high, each.n) for each in intervals], columns=["mean", "low", "high", "n"]
        )
        parts.append(part.assign(label=result.group.label, dataset=result.group.data or "", step=table.index))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def best_labels(results: Sequence[Result], count: int) -> list[str]:
    """Return the labels of the `count` best settings, in the order of `results`.

    Settings are ranked by their mean within each data set, and then by their mean rank.
    """
    frame = pd.DataFrame(
        {
            "label": [result.group.label for result in results],
            "dataset": [result.group.data or "" for result in results],
            "value": [result.value.mean * (1 if more_is_better(result.metric or "") else -1) for result in results],
        }
    )
    frame["rank"] = frame.groupby("dataset")["value"].rank(ascending=False)
    ranks = frame.groupby("label", sort=False)["rank"].mean()
    best = set(ranks.sort_values(kind="stable").index[:count])
    return [str(label) for label in ranks.index if label in best]


def claims_figures(claims: Sequence[ClaimResult]) -> dict[str, ggplot]:
    """Return a figure for each metric, by file name, with published values and tolerances and our measurements.

    Only claims with a measurement are drawn.
    """
    tested: dict[str, list[ClaimResult]] = {}
    for row in claims:
        if isinstance(row.entry, Claim) and row.verdict is not None and row.verdict.interval.n:
            tested.setdefault(_axis(row.entry), []).append(row)
    if len(tested) == 1:
        return {"claims": _claims_figure(*next(iter(tested.items())))}
    return {unique_name(f"claims-{axis}", []): _claims_figure(axis, rows) for axis, rows in tested.items()}


def _axis(claim: Claim) -> str:
    """Return the quantity of a claim: a metric, or its difference or ratio between two settings."""
    return f"{claim.relation} of {claim.metric}" if claim.against else claim.metric


def _claims_figure(axis: str, tested: Sequence[ClaimResult]) -> ggplot:
    frame = _claims_data(tested)
    published = frame[frame["what"] == "published"]
    with_interval = frame[frame["what"] == "measured"].dropna(subset=["low", "high"])
    colors = {"published": "#777777", "measured": discrete_colors(1)[0]}
    labels = [str(label) for label in frame["claim"].cat.categories]
    # All rows have the height of the label with most lines.
    height = 1.9 + len(labels) * (0.17 * max(label.count("\n") + 1 for label in labels) + 0.12)
    caption = (
        "Gray: published value and the band that counts as equal; for a bound, its tolerance. Blue: our mean over seeds"
        f" with the {interval_method()}, from {MINIMUM_VALUES} seeds on."
    )
    figure: ggplot = (
        ggplot(frame, aes("value", "claim", color="what"))
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=published, size=4, alpha=0.3, show_legend=False)
        + geom_segment(aes(x="low", xend="high", yend="claim"), data=with_interval, size=1.3, show_legend=False)
        + geom_point(aes(shape="what"), size=2.6)
        + scale_color_manual(values=colors, breaks=list(colors))
        + scale_shape_manual(values={"published": "|", "measured": "o"}, breaks=list(colors))
        + labs(
            title=f"Published and measured: {axis}",
            x=axis,
            y="",
            color="",
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
    return figure


def profile_figure(comparison: Comparison) -> ggplot:
    """Return a figure of the performance profiles of the best settings of a comparison."""
    drawn = profiles(comparison)
    rules = {setting.rule for setting, _ in drawn}
    names = [
        _wrapped_setting(setting.label if len(rules) > 1 else setting.text or setting.rule, _LEGEND_WIDTH)
        for setting, _ in drawn
    ]
    frame = pd.concat(
        [
            pd.DataFrame(
                {
                    "label": name,
                    "threshold": profile.thresholds,
                    "share": profile.share,
                    "low": profile.low,
                    "high": profile.high,
                }
            )
            for name, (_, profile) in zip(names, drawn, strict=True)
        ],
        ignore_index=True,
    )
    frame["label"] = pd.Categorical(frame["label"], categories=list(dict.fromkeys(names)))
    colors = discrete_colors(len(frame["label"].cat.categories))
    caption = (
        f"Share of runs whose {comparison.metric} is better than the threshold. Ribbon:"
        f" {profile_method()}, from {MINIMUM_VALUES} seeds on."
    )
    if len(comparison.compared) > MOST_COMPARED:
        caption += f" The best {MOST_COMPARED} of {len(comparison.compared)} settings are shown."
    lines = sum(name.count("\n") + 1 for name in names)
    figure: ggplot = (
        ggplot(frame, aes("threshold", "share", color="label", fill="label"))
        + geom_ribbon(aes(ymin="low", ymax="high"), data=frame.dropna(subset=["low", "high"]), alpha=0.15, size=0)
        + geom_step(size=0.9)
        + scale_color_manual(values=colors, drop=False)
        + scale_fill_manual(values=colors, drop=False)
        + guides(color=guide_legend(ncol=1), fill=guide_legend(ncol=1))
        + labs(
            title="Performance profiles",
            subtitle=_wrapped(comparison.subject, 60),
            x=f"threshold of {comparison.metric}",
            y="share of runs that are better",
            color="",
            fill="",
            caption=_wrapped(caption, 62),
        )
        + theme_plastic(figure_size=(8.2, max(4.1, 1.4 + 0.2 * lines + 0.1 * len(names))))
        + theme(
            legend_position="right",
            legend_title=element_blank(),
            legend_text=element_text(ma="left"),
            plot_caption=element_text(ha="left", ma="left"),
        )
    )
    return figure


def describe_curves(figure: ggplot) -> str:
    """Return the last values of a figure of `learning_curves` as text."""
    ends = _data(figure).sort_values("step").groupby(["label", "dataset"], observed=True, sort=False).tail(1)
    return _listed("Last values", [_curve_end(row) for row in ends.to_dict("records")])


def describe_claims(figure: ggplot) -> str:
    """Return the published and measured values of a figure of `claims_figures` as text."""
    lines = []
    for label, rows in _data(figure).groupby("claim", observed=True, sort=False):
        (published,) = rows[rows["what"] == "published"]["value"]
        measured = rows[rows["what"] == "measured"].iloc[0].to_dict()
        lines.append(f"{label!s}: published {published:.4g}, measured {_mean_and_bounds(measured, 'value')}")
    return _listed("Values", lines)


def describe_profile(figure: ggplot) -> str:
    """Return for each line of `profile_figure` the threshold that half of the runs pass, as text."""
    lines = []
    for label, rows in _data(figure).groupby("label", observed=True, sort=False):
        closest = rows.iloc[int(np.argmin(np.abs(rows["share"].to_numpy() - 0.5)))]
        lines.append(f"{label!s}: {closest['share']:.0%} of runs better than {closest['threshold']:.4g}")
    return _listed("Near the median", lines)


def _data(figure: ggplot) -> pd.DataFrame:
    assert isinstance(figure.data, pd.DataFrame)
    return figure.data


def _listed(heading: str, entries: Sequence[str]) -> str:
    return f"{heading}: {'; '.join(' '.join(entry.split()) for entry in entries)}." if entries else ""


def _curve_end(row: Mapping[Any, Any]) -> str:
    where = f" on {row['dataset']}" if row["dataset"] else ""
    return f"{row['label']}{where} {_mean_and_bounds(row, 'mean')} at {row['step']:g}"


def _mean_and_bounds(row: Mapping[Any, Any], name: str) -> str:
    bounds = "" if pd.isna(row["low"]) else f" [{row['low']:.4g}, {row['high']:.4g}]"
    return f"{row[name]:.4g}{bounds}"


def _claims_data(tested: Sequence[ClaimResult]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in tested:
        assert isinstance(row.entry, Claim)
        assert row.verdict is not None
        assert row.group is not None
        claim, interval = row.entry, row.verdict.interval
        mark = claim.id if len({other.rule for other in tested}) == 1 else f"{row.rule} {claim.id}"
        word = row.verdict.word if interval.known else f"{row.verdict.word}, {row.verdict.reason}"
        setting = _wrapped_setting(_distinguishing(row, tested), 40)
        ours = "no number was published: our own line" if claim.words else ""
        label = "\n".join(part for part in (f"{mark}: {word}", ours, setting) if part)
        common = {"claim": label, "metric": claim.metric}
        # A bound has one end: the bar goes from it to the published value.
        low = claim.value if claim.comparison == "at-most" else claim.band.low
        high = claim.value if claim.comparison == "at-least" else claim.band.high
        rows.append({**common, "what": "published", "value": claim.value, "low": low, "high": high})
        rows.append({**common, "what": "measured", "value": interval.mean, "low": interval.low, "high": interval.high})
    frame = pd.DataFrame(rows)
    frame["claim"] = pd.Categorical(frame["claim"], categories=list(dict.fromkeys(frame["claim"]))[::-1])
    return frame


def _distinguishing(row: ClaimResult, tested: Sequence[ClaimResult]) -> str:
    """Return the fields that distinguish a group from the other groups of one claim, as text."""
    groups = [other.group for other in tested if other.rule == row.rule and other.entry.id == row.entry.id]
    assert row.group is not None
    values = {
        name: row.group.config.get(name)
        for name in row.group.differing
        if any(group is not None and group.config.get(name) != row.group.config.get(name) for group in groups)
    }
    datasets = {group.data for group in groups if group is not None}
    setting = setting_text(values) if values else ""
    return ", ".join(part for part in (str(row.group.data) if len(datasets) > 1 else "", setting) if part)


def _curves_figure(drawn: Sequence[Result], labels: Sequence[str], curves: pd.DataFrame, metric: str) -> ggplot:
    count = len({result.group.label for result in drawn})
    # With only one rule, its name in front of each setting is redundant.
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
    colors = discrete_colors(len(legend))
    caption = f"Line: mean over seeds. Ribbon: {interval_method()}, from {MINIMUM_VALUES} seeds on."
    if count > len(labels):
        caption += f" The best {len(labels)} of {count} settings are shown."
    lines = sum(label.count("\n") + 1 for label in legend)
    columns = min(len(datasets), 2)
    with_legend = len(legend) > 1
    width = 4.4 * columns + 0.6 + (3.2 if with_legend else 0)
    height = max(2.9 * -(-len(datasets) // columns) + 1.2, 1.4 + 0.2 * lines + 0.1 * len(legend))
    about = [*(rules if len(rules) == 1 else []), *(legend if not with_legend and legend != list(rules) else [])]
    about += datasets if len(datasets) == 1 and datasets[0] else []
    figure: ggplot = (
        ggplot(curves, aes("step", "mean", color="label", fill="label"))
        + geom_ribbon(aes(ymin="low", ymax="high"), data=curves.dropna(subset=["low", "high"]), alpha=0.2, size=0)
        + geom_line(size=0.9)
        + scale_color_manual(values=colors, drop=False)
        + scale_fill_manual(values=colors, drop=False)
        + scale_x_continuous(breaks=_whole_breaks)
        + guides(color=guide_legend(ncol=1), fill=guide_legend(ncol=1))
        + labs(
            title="Learning curves",
            subtitle=_wrapped(", ".join(about), 22 * columns * 2) or None,
            x=_step_name(drawn, curves),
            y=metric,
            color="",
            fill="",
            caption=_wrapped(caption, 62 * columns),
        )
        + theme_plastic(figure_size=(width, height))
        + theme(
            legend_position="right" if with_legend else "none",
            legend_title=element_blank(),
            legend_text=element_text(ma="left"),
            plot_caption=element_text(ha="left", ma="left"),
        )
    )
    if len(datasets) > 1:
        # With a common scale, long runs would make short curves unreadable.
        figure += facet_wrap("dataset", ncol=columns, scales="free")
    return figure


def _step_name(results: Sequence[Result], curves: pd.DataFrame) -> str:
    """Return "epoch" if the last step of the runs is their number of epochs, else "step"."""
    epochs = {result.group.config.get("epochs") for result in results}
    last = set(curves.groupby(["label", "dataset"], observed=True)["step"].max())
    return "epoch" if last <= epochs else "step"


def _whole_breaks(limits: tuple[float, float]) -> list[float]:
    """Return up to six breaks at integer steps."""
    low, high = int(np.ceil(limits[0])), int(np.floor(limits[1]))
    rough = max((high - low) / 5, 1)
    power = 10 ** int(np.floor(np.log10(rough)))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [float(value) for value in range(-(-low // step) * step, high + 1, step)]


def _wrapped_setting(setting: str, width: int) -> str:
    """Break the text of a setting between its fields."""
    fields = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in setting.split(", "))
    return _wrapped(fields, width).replace("\N{NO-BREAK SPACE}", " ")


def _wrapped(text: str, width: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width) or [""])
