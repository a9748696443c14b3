"""What the steps of a recipe computed on its runs: a table over seeds, and the figures of one seed."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from plastic_cli.plugins.metrics import metric_of
from plastic_cli.reports.comparisons import unique_name
from plastic_cli.reports.drawings import PageFigure
from plastic_cli.reports.frames import flat
from plastic_cli.reports.numbers import NumberStyle
from plastic_cli.reports.tables import common_metric
from plastic_cli.statistics.intervals import Interval, mean_interval
from plastic_cli.tables import Cell, Column, Table

LARGEST_FIGURE = 2 << 20
"""Bytes of a picture; a larger one is not put into the page."""
MOST_RESULTS = 5
"""Columns of results in one table, which fit on a page of 1200 pixels."""
WIDE_FROM = 1.6
"""Width over height from which on a picture takes the whole width of the page."""


@dataclass(frozen=True)
class StepOnRun:
    """A step that was carried out on one run.

    setting: words for the runs that differ only in their seed. step: the command with its options. folder: of the run.
    results: the last value of each metric, None if it was not finite. files: what it wrote, relative to the folder.
    """

    setting: str
    rule: str
    dataset: str | None
    seed: int
    step: str
    folder: Path
    results: Mapping[str, float | None]
    files: Sequence[str]


@dataclass(frozen=True)
class StepResult:
    """One metric of a step on a setting, over its seeds."""

    first: StepOnRun
    metric: str
    value: Interval


def with_settings(steps: Sequence[StepOnRun], settings: Mapping[str, str]) -> tuple[StepOnRun, ...]:
    """Return steps whose settings have the names of the table of results. settings: the name of each run."""
    return tuple(replace(step, setting=settings.get(step.folder.name) or step.setting) for step in steps)


def step_results(steps: Sequence[StepOnRun]) -> list[StepResult]:
    """Return each metric of each step on each setting with its mean and interval over seeds."""
    return [
        StepResult(members[0], metric, mean_interval(_values(members, metric)))
        for members in _groups(steps)
        for metric in dict.fromkeys(name for member in members for name in member.results)
    ]


def steps_frame(steps: Sequence[StepOnRun]) -> pd.DataFrame:
    """Return one row per setting, step and metric; shares from 0 to 1."""
    columns = ["setting", "rule", "dataset", "step", "metric", "mean", "low", "high", "n", "sd"]
    rows = [
        {
            "setting": result.first.setting,
            "rule": result.first.rule,
            "dataset": result.first.dataset,
            "step": result.first.step,
            "metric": result.metric,
            **flat("", result.value),
        }
        for result in step_results(steps)
    ]
    return pd.DataFrame(rows, columns=columns)


def steps_tables(steps: Sequence[StepOnRun], style: NumberStyle) -> list[Table]:
    """Return the tables for a reader: one for each step, with one row per setting and one column per result.

    A step with many results has several tables of at most `MOST_RESULTS` columns each.
    """
    by_step: dict[str, list[StepResult]] = {}
    for result in step_results(steps):
        by_step.setdefault(result.first.step, []).append(result)
    tables = []
    for step, results in by_step.items():
        metrics = list(dict.fromkeys(result.metric for result in results))
        parts = [metrics[begin : begin + MOST_RESULTS] for begin in range(0, len(metrics), MOST_RESULTS)]
        for number, part in enumerate(parts, start=1):
            title = step if len(parts) == 1 else f"{step} ({number} of {len(parts)})"
            tables.append(_step_table(title, results, part, style))
    return tables


def _step_table(title: str, results: Sequence[StepResult], metrics: Sequence[str], style: NumberStyle) -> Table:
    """Return some results of one step on all settings that have one of them."""
    shown = [result for result in results if result.metric in metrics]
    cells: dict[tuple[str, str, str | None], dict[str, StepResult]] = {}
    for result in shown:
        cells.setdefault((result.first.rule, result.first.setting, result.first.dataset), {})[result.metric] = result
    rules = list(dict.fromkeys(rule for rule, _, _ in cells))
    columns = [
        Column("setting", names_row=True),
        Column("rule", optional=True),
        Column("data set", optional=True),
        Column("n", numeric=True),
        *(Column(style.heading(common_metric(metric, rules)), numeric=True) for metric in metrics),
    ]
    rows = []
    for (rule, setting, dataset), of_metric in cells.items():
        values: list[Cell] = [
            style.estimate(of_metric[metric].value, metric_of(metric, rule)) if metric in of_metric else None
            for metric in metrics
        ]
        rows.append((setting, rule, dataset, max(result.value.n for result in of_metric.values()), *values))
    return Table(title, style.caption([result.value for result in shown]), tuple(columns), tuple(rows))


def step_figures(steps: Sequence[StepOnRun]) -> Iterator[PageFigure]:
    """Yield the pictures of each step on each setting, of the first seed that has some."""
    anchors: list[str] = []
    for members in _groups(steps):
        member = next((each for each in members if any(map(_is_picture, each.files))), None)
        for name in [] if member is None else filter(_is_picture, member.files):
            assert member is not None
            with suppress(OSError):
                yield _figure(member, member.folder / name, anchors)


def _groups(steps: Sequence[StepOnRun]) -> list[list[StepOnRun]]:
    """Return the steps that differ only in their seed, ordered by it, in the order of the recipe."""
    groups: dict[tuple[str, str, str], list[StepOnRun]] = {}
    for step in steps:
        groups.setdefault((step.rule, step.setting, step.step), []).append(step)
    return [sorted(members, key=lambda member: member.seed) for members in groups.values()]


def _values(members: Sequence[StepOnRun], metric: str) -> list[float]:
    values = [member.results[metric] for member in members if metric in member.results]
    return [np.nan if value is None else value for value in values]


def _is_picture(name: str) -> bool:
    return name.startswith("figures/") and name.endswith(".png")


def _figure(member: StepOnRun, path: Path, anchors: list[str]) -> PageFigure:
    if path.stat().st_size > LARGEST_FIGURE:
        raise OSError(f"{path} is too large")
    content = path.read_bytes()
    words = _description(path.with_suffix(".svg")) or f"The picture {path.stem} of run {member.folder.name}."
    picture = base64.b64encode(content).decode()
    anchors.append(unique_name(f"step-{path.stem}", anchors))
    return PageFigure(
        name=path.stem,
        anchor=anchors[-1],
        svg=Markup('<img style="max-width:100%" src="data:image/png;base64,{}" alt="{}">').format(picture, words),
        title=f"{member.setting}: {path.stem.replace('-', ' ').replace('_', ' ')}",
        subtitle=f"{member.step}, seed {member.seed}",
        description=words,
        rules=(member.rule,),
        datasets=() if member.dataset is None else (member.dataset,),
        wide=_is_wide(content),
    )


def _is_wide(png: bytes) -> bool:
    """Return whether a picture needs the whole width of the page; the header of PNG has width and height."""
    width, height = (int.from_bytes(png[begin : begin + 4], "big") for begin in (16, 20))
    return width > WIDE_FROM * height


def _description(svg: Path) -> str:
    """Return the text alternative that a figure has as an SVG; an empty text without one."""
    with suppress(OSError, UnicodeDecodeError):
        found = re.search(r"<desc[^>]*>(.*?)</desc>", svg.read_text(encoding="utf-8")[:100_000], re.DOTALL)
        return html.unescape(" ".join(found[1].split())) if found else ""
    return ""
