"""Results against the price of learning: the settings that are better than all that cost no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from plastic_cli.analysis.cost import Cost, cost_of
from plastic_cli.errors import UserError
from plastic_cli.figures.pareto import pareto_figure
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric
from plastic_cli.reports.combinations import name_by_options, telling_options
from plastic_cli.reports.content import training_models
from plastic_cli.reports.curves import ChosenRuns, RunsPlot, main_metric
from plastic_cli.reports.frames import flat
from plastic_cli.reports.grouping import (
    OWN,
    Group,
    control_name,
    data_notes,
    group_runs,
    marked_data,
    setting_key,
    short_data_names,
    with_source,
)
from plastic_cli.reports.numbers import NumberStyle, possible_ends
from plastic_cli.reports.options import PriceName
from plastic_cli.reports.plots import Figure
from plastic_cli.reports.results import Result, more_is_better, summarize
from plastic_cli.reports.tables import SETTING_EXPLAINED, TIME_EXPLAINED, common_metric, runs_text, source_cells
from plastic_cli.runs.record import RunRecord, read_record
from plastic_cli.runs.reference import read_reference
from plastic_cli.statistics.intervals import Interval, mean_interval
from plastic_cli.tables import Cell, Column, Number, Table, number_text


@dataclass(frozen=True)
class Price:
    """A price of learning. metric: its name and unit. of_cost: reads it from a cost; None: it is measured."""

    metric: Metric
    of_cost: Callable[[Cost], float] | None = None


PRICES: Mapping[PriceName, Price] = {
    "messages": Price(Metric("messages to the hidden layers"), lambda cost: cost.messages),
    "flops": Price(Metric("operations of training", "FLOPs"), lambda cost: cost.inference_flops + cost.learning_flops),
    "updates": Price(Metric("changes of single weights"), lambda cost: cost.updates),
    "seconds": Price(Metric("time of training", "s")),
    "bytes": Price(Metric("memory of learning", "bytes"), lambda cost: cost.state_bytes + cost.step_bytes),
}
"""The choices of `--pareto`. All but the memory are totals of the training of one run."""

EXPLAINED: Mapping[PriceName, str] = {
    "messages": "Price: numbers that reach the hidden layers from outside in the whole training.",
    "flops": "Price: floating-point operations of the whole training, predictions included.",
    "updates": "Price: changes of single weights in the whole training.",
    "seconds": f"Price: seconds of training on the machine of each run. {TIME_EXPLAINED}",
    "bytes": "Price: bytes that are kept between two steps, and bytes that a step holds in addition.",
}


@dataclass(frozen=True)
class Priced:
    """A result with its price.

    price: mean over the runs of the group. number: the same for one setting on all data sets, from the cheapest on.
    control: the name of the control that the setting is; None for a rule. on_frontier: no setting of the same data set
    and metric is at least as good for at most this price, except an equal one.
    """

    result: Result
    price: Interval
    number: int = 0
    control: str | None = None
    on_frontier: bool = False


@dataclass(frozen=True)
class Pareto:
    """The priced results of a report.

    kind: a key of PRICES. not_priced: the results without a value or a price.
    """

    kind: PriceName
    rows: Sequence[Priced]
    not_priced: Sequence[Result]

    @property
    def price(self) -> Metric:
        """The name and unit of the price."""
        return PRICES[self.kind].metric


def priced_results(runs: pd.DataFrame, results: Sequence[Result], kind: PriceName) -> Pareto:
    """Return results with their price. runs: a frame with all runs of their groups."""
    records = _Records(runs)
    models = training_models(dict.fromkeys(result.group.rule for result in results))
    rows: list[Priced] = []
    not_priced: list[Result] = []
    for result in results:
        price = _price(result, PRICES[kind], records)
        if result.metric is None or not price.n or not math.isfinite(result.value.mean):
            not_priced.append(result)
            continue
        rows.append(Priced(result, price, control=control_name(result.group, models.get(result.group.rule))))
    return Pareto(kind, _numbered(with_frontier(rows)), not_priced)


class _Records:
    """The records of the runs of a report, each read once: of a store, or of the reference."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._folders = dict(zip(runs["run"], runs["folder"], strict=True))
        self._costs: dict[str, Cost | None] = {}

    def cost(self, run: str) -> Cost | None:
        """Return the cost of a run; None if it is not known."""
        if run not in self._costs:
            record = self._record(run)
            self._costs[run] = None if record is None else cost_of(record)
        return self._costs[run]

    def _record(self, run: str) -> RunRecord | None:
        folder, reference = Path(self._folders[run]), read_reference()
        try:
            return reference.record(folder.name) if folder.parent == reference.folder else read_record(folder)
        except UserError:
            return None


def _price(result: Result, price: Price, records: _Records) -> Interval:
    """Return the mean price of the runs of a result; with n = 0 if a run has none."""
    if price.of_cost is None:
        return result.seconds
    costs = [records.cost(run) for run in result.group.runs]
    known = [price.of_cost(cost) for cost in costs if cost is not None]
    return mean_interval(known if len(known) == len(costs) else [])


def with_frontier(rows: Sequence[Priced]) -> list[Priced]:
    """Mark the rows that no other row of the same data set and metric beats."""
    return [replace(row, on_frontier=not any(_beats(other, row) for other in rows)) for row in rows]


def _beats(one: Priced, other: Priced) -> bool:
    """Return whether a result is at least as good for at most the price of another, and better in one of the two."""
    if (one.result.group.data, one.result.metric) != (other.result.group.data, other.result.metric):
        return False
    sign = 1 if more_is_better(other.result.metric or "") else -1
    gain = sign * (one.result.value.mean - other.result.value.mean)
    saved = other.price.mean - one.price.mean
    return gain >= 0 and saved >= 0 and (gain > 0 or saved > 0)


def _numbered(rows: Sequence[Priced]) -> list[Priced]:
    """Number the settings, and sort the rows by data set, metric and number."""
    prices: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: (row.price.mean, row.result.value.mean)):
        prices.setdefault(setting_key(row.result.group), row.price.mean)
    numbers = {key: number for number, key in enumerate(prices, start=1)}
    numbered = [replace(row, number=numbers[setting_key(row.result.group)]) for row in rows]
    return sorted(numbered, key=lambda row: (row.result.group.data or "", row.result.metric or "", row.number))


# ------------------------------------------------------------------------------------------------- table and frame


def pareto_frame(pareto: Pareto) -> pd.DataFrame:
    """Return one row for each result with a price: its number, value, price, and whether it is on the frontier."""
    rows = [
        {
            "number": row.number,
            "rule": row.result.group.rule,
            "dataset": row.result.group.data,
            "setting": row.result.group.setting,
            "source": row.result.group.source or OWN,
            "control": row.control,
            "seeds": len(row.result.group.runs),
            "failed": row.result.group.failed,
            "metric": row.result.metric,
            **flat("", row.result.value),
            "price": pareto.kind,
            **flat("price_", row.price),
            "frontier": row.on_frontier,
        }
        for row in pareto.rows
    ]
    empty = Interval(math.nan, math.nan, math.nan, 0, "")
    names = ["number", "rule", "dataset", "setting", "source", "control", "seeds", "failed", "metric"]
    names += [*flat("", empty), "price"]
    return pd.DataFrame(rows, columns=[*names, *flat("price_", empty), "frontier"])


def pareto_table(pareto: Pareto, style: NumberStyle) -> Table:
    """Return the results with their prices, in the order of the figure."""
    rows = pareto.rows
    metrics = {row.result.metric for row in rows}
    shared = metrics.pop() if len(metrics) == 1 else None
    named = [common_metric(row.result.metric or "", [row.result.group.rule]) for row in rows]
    value = style.heading(common_metric(shared, [row.result.group.rule for row in rows])) if shared else "value"
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("no.", numeric=True), [row.number for row in rows]),
        (Column("rule", names_row=True), [row.result.group.rule for row in rows]),
        (Column("data set", names_row=True), [marked_data(row.result.group) for row in rows]),
        (Column("setting", names_row=True, lines=2), [row.result.group.setting or None for row in rows]),
        (Column("source"), source_cells([row.result for row in rows])),
        (Column("n", numeric=True), [runs_text(row.result) for row in rows]),
        (Column("metric"), [None if shared else style.heading(metric) for metric in named]),
        (
            Column(value, numeric=True),
            [style.estimate(row.result.value, metric) for row, metric in zip(rows, named, strict=True)],
        ),
        (Column(style.heading(pareto.price), numeric=True), [_price_cell(row.price, pareto.price) for row in rows]),
        (Column("frontier"), ["yes" if row.on_frontier else None for row in rows]),
        (Column("control"), [row.control for row in rows]),
    ]
    shown = [each for each in columns if any(cell is not None for cell in each[1])]
    sentences = [
        EXPLAINED[pareto.kind],
        "Frontier: no other setting on these data is at least as good for at most the same price.",
        style.caption([row.result.value for row in rows]),
        SETTING_EXPLAINED,
    ]
    if pareto.not_priced:
        count = len(pareto.not_priced)
        left_out = (
            "1 result has no known price, and is" if count == 1 else f"{count} results have no known price, and are"
        )
        sentences.append(f"{left_out} left out.")
    caption = " ".join(sentence for sentence in sentences if sentence) + data_notes(row.result.group for row in rows)
    return Table(
        f"Results against the price: {pareto.price.name}",
        caption,
        tuple(column for column, _ in shown),
        tuple(zip(*(cells for _, cells in shown), strict=True)),
    )


def _price_cell(price: Interval, metric: Metric) -> Cell:
    """Return a price: a time with two digits, a count in full up to a million."""
    if metric.unit == "s":
        return Number(number_text(price.mean), "", price.mean)
    text = f"{price.mean:,.0f}" if price.mean < 1e6 else f"{price.mean:.2e}".replace("e+0", "e").replace("e+", "e")
    return Number(text, "", price.mean)


# ---------------------------------------------------------------------------------------------------------- figures


def pareto_figures(pareto: Pareto, name_of: Callable[[str, Mapping[str, Any]], str] | None = None) -> dict[str, Figure]:
    """Return the figure of each metric by file name.

    name_of: names a setting by its rule and configuration; default: by the options that tell the settings apart.
    """
    figures = {}
    groups = [row.result.group for row in pareto.rows]
    if name_of is None:
        labels = _labels(groups)
    else:
        labels = {setting_key(group): name_of(group.rule, group.config) for group in groups}
    for key in dict.fromkeys(row.result.metric for row in pareto.rows):
        own = [row for row in pareto.rows if row.result.metric == key]
        figures[f"pareto-{pareto.kind}-{(key or '').replace('/', '-')}"] = _figure(pareto, own, labels, key or "")
    return figures


def _labels(groups: Sequence[Group]) -> dict[str, str]:
    """Return a short name of each setting: the rule, the options that tell its settings apart, and the reference."""
    names: dict[str, str] = {}
    for rule in dict.fromkeys(group.rule for group in groups):
        own = [group for group in groups if group.rule == rule]
        options = telling_options(own)
        names |= {setting_key(group): with_source(name_by_options(rule, group, options), group.source) for group in own}
    return names


def plot_pareto(chosen: ChosenRuns, metric: str | None, kind: PriceName, view: View) -> RunsPlot:
    """Draw the results of some runs against a price; raises UserError if no result has one.

    metric: the main metric of the results to draw; None: that of most runs.
    """
    wanted = metric or main_metric(chosen, final=True)
    groups = group_runs(chosen.runs, training_models(chosen.runs["rule"].unique()))
    results = [result for result in summarize(chosen.runs, groups) if result.metric == wanted]
    if not results:
        raise UserError(f"--metric {wanted}: no run has it as its main metric, and --pareto draws only this one.")
    pareto = priced_results(chosen.runs, results, kind)
    if not pareto.rows:
        rules = ", ".join(sorted({result.group.rule for result in results}))
        raise UserError(f"--pareto {kind}: no run has a known price. The cost of {rules} is not known for these runs.")
    labels = _labels([row.result.group for row in pareto.rows])
    left = len(pareto.not_priced)
    messages = (f"{'1 result has' if left == 1 else f'{left} results have'} no known price: left out",) if left else ()
    return RunsPlot(_figure(pareto, pareto.rows, labels, wanted, view).plot, wanted, messages)


def _figure(
    pareto: Pareto, rows: Sequence[Priced], labels: Mapping[str, str], key: str, view: View | None = None
) -> Figure:
    metric, price = common_metric(key, [row.result.group.rule for row in rows]), pareto.price
    panels = short_data_names(row.result.group.data for row in rows)
    frame = pd.DataFrame(
        {
            "number": [row.number for row in rows],
            "label": [f"{row.number}  {labels[setting_key(row.result.group)]}" for row in rows],
            "rule": [row.result.group.rule for row in rows],
            "panel": [panels.get(row.result.group.data, "") for row in rows],
            "price": [row.price.mean for row in rows],
            "mean": [row.result.value.mean for row in rows],
            "low": [possible_ends(row.result.value, metric)[0] for row in rows],
            "high": [possible_ends(row.result.value, metric)[1] for row in rows],
            "n": [row.result.value.n for row in rows],
            "is_control": [row.control is not None for row in rows],
            "on_frontier": [row.on_frontier for row in rows],
        }
    )
    frame["hover"] = [
        f"{row['label']}, {row['panel']}: {metric.text(row['mean'])} for {row['price']:.3g} {price.unit or price.name}"
        for row in frame.to_dict("records")
    ]
    best = frame[frame["on_frontier"]].sort_values(["panel", "price"])
    described = [f"{row['hover']}" for row in best.to_dict("records")]
    return Figure(
        pareto_figure(frame, metric, price, view, more_is_better=more_is_better(key)),
        f"The frontier: {'; '.join(described)}.",
        None,
        tuple(sorted(set(frame["rule"]))),
        tuple(sorted({row.result.group.data or "" for row in rows} - {""})),
    )
