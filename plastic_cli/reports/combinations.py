"""The three parts of learning in a store of runs: which credit rule, which network and which update each run has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError
from plastic_cli.figures.combinations import combinations_figure, layers_figure
from plastic_cli.figures.metric_rows import label_values
from plastic_cli.figures.view import View
from plastic_cli.plugins.metrics import Metric, metric_of
from plastic_cli.reports.content import training_models
from plastic_cli.reports.curves import ChosenRuns, RunsPlot, main_metric
from plastic_cli.reports.grouping import Group, group_runs, plain_value, setting_text, short_data_names
from plastic_cli.reports.plots import Figure
from plastic_cli.reports.results import CHANCE_METRIC

NETWORK, UPDATE = "model", "optimizer"
"""The options that name the network and the update. All other options belong to the credit rule."""

SIZE = "hidden"
"""The option that belongs to the name of a network, if one network has several sizes."""

CHOSEN_FOR_EACH = ("learning_rate", "momentum", "weight_decay", "epochs", SIZE)
"""Options that are chosen for a network, an update or a data set: they name a credit rule only if nothing else does."""

ANGLE, LEARNING_COST, SECONDS = "train/angle", "train/learning_flops", "training_seconds"
RIGHT_ANGLE = 90.0
"""Degrees between an update and the gradient if the update has nothing to do with it."""

MOST_NETWORKS = 6
"""More panels than these for each data set cannot be read."""

PARTS = ["credit", "network", "update", "dataset"]


def combinations(runs: pd.DataFrame) -> pd.DataFrame:
    """Return run, credit, network, update and dataset of each run whose network and update are known.

    All but the run are categories, in the order in which the first run of each was created. Runs of one combination
    differ in their seed only; of several runs with one seed the newest counts. A credit rule has the name of its rule,
    and of the options that tell its combinations apart.
    runs: a frame as `RunStore.runs()` returns it.
    """
    models = training_models(runs["rule"].unique())
    groups = [
        _with_defaults(group, models.get(group.rule))
        for group in group_runs(runs, models)
        if group.config.get(NETWORK) is not None and group.config.get(UPDATE) is not None
    ]
    short = _short_names(str(group.config[NETWORK]) for group in groups)
    rows = []
    for rule in dict.fromkeys(group.rule for group in groups):
        own = [group for group in groups if group.rule == rule]
        for group, credit, network in zip(own, *_names(rule, own, short), strict=True):
            rows += [(run, credit, network, group.config[UPDATE], group.data or "") for run in group.runs]
    table = pd.DataFrame(rows, columns=["run", *PARTS])
    table["dataset"] = table["dataset"].map(short_data_names(table["dataset"]))
    table = table.merge(runs[["run", "seed", "created"]], on="run").sort_values("created", kind="stable")
    table = in_order(table).drop_duplicates([*PARTS, "seed"], keep="last")
    return table.drop(columns=["seed", "created"]).reset_index(drop=True)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their parts as categories, in the order of their appearance."""
    return table.assign(**{part: pd.Categorical(table[part], list(dict.fromkeys(table[part]))) for part in PARTS})


def _short_names(networks: Iterable[str]) -> dict[str, str]:
    """Return the shortest name of each network that no other has: "resnet18", "models:resnet18", or the whole name."""
    names = dict.fromkeys(networks)
    found = {name: name for name in names}
    for mark in (".", ":"):
        short = {name: name.rpartition(mark)[2] for name in names}
        times = Counter(short.values())
        found |= {name: text for name, text in short.items() if times[text] == 1}
    return found


def _names(rule: str, groups: Sequence[Group], short: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the name of the credit rule and of the network of each group of one rule."""
    kept = telling_options(groups, (NETWORK, UPDATE))
    sizes = Counter(network for network, _ in {(group.config[NETWORK], _text(group, SIZE)) for group in groups})
    networks = [_network(group, short, with_size=SIZE in kept and sizes[group.config[NETWORK]] > 1) for group in groups]
    return [name_by_options(rule, group, [name for name in kept if name != SIZE]) for group in groups], networks


def telling_options(groups: Sequence[Group], known: Sequence[str] = ()) -> list[str]:
    """Return few options that, with those in `known`, tell the groups of one rule apart on each data set.

    Options that are chosen for a network, an update or a data set are left out first.
    """
    fields = list(dict.fromkeys(name for group in groups for name in group.config if name not in known))
    kept = [name for name in fields if len({_text(group, name) for group in groups}) > 1]
    last = [name for name in CHOSEN_FOR_EACH if name in kept]
    for name in [*last, *(name for name in reversed(kept) if name not in last)]:
        others = [other for other in kept if other != name]
        if _are_told_apart(groups, [*known, *others]):
            kept = others
    return kept


def _with_defaults(group: Group, model: type[Config] | None) -> Group:
    """Return a group whose options without a value have their default: an older version did not have all options."""
    fields = {} if model is None else model.model_fields
    config = {
        name: plain_value(fields[name].default) if value is None and name in fields else value
        for name, value in group.config.items()
    }
    return replace(group, config=config)


def _text(group: Group, name: str) -> str:
    value = group.config.get(name)
    return json.dumps(None if value == group.dataset else value, sort_keys=True)


def _are_told_apart(groups: Sequence[Group], names: Sequence[str]) -> bool:
    keys, configurations = (
        {(group.data, *(_text(group, name) for name in chosen(group))) for group in groups}
        for chosen in (lambda _: names, lambda group: sorted(group.config))
    )
    return len(keys) == len(configurations)


def name_by_options(rule: str, group: Group, names: Sequence[str]) -> str:
    """Return the name of a group of a rule by the values of some options: "feedback: fixed"."""
    values = {name: group.config.get(name) for name in names}
    if not values:
        return rule
    words = [value for value in values.values() if isinstance(value, str)]
    # One word says enough: "feedback: fixed".
    return f"{rule}: {words[0] if len(values) == len(words) == 1 else setting_text(values)}"


def _network(group: Group, short: Mapping[str, str], *, with_size: bool) -> str:
    name = short[str(group.config[NETWORK])]
    size = {SIZE: group.config.get(SIZE)} if with_size and group.config.get(SIZE) is not None else {}
    return f"{name}, {setting_text(size)}" if size else name


def final_values(table: pd.DataFrame, runs: pd.DataFrame, metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of `combinations` with the final value of a metric; runs without it are left out.

    metric: "split/name", or a column of `runs` such as "training_seconds".
    """
    if metric in runs.columns and "/" not in metric:
        values = dict(zip(runs["run"], pd.to_numeric(runs[metric], errors="coerce"), strict=True))
    else:
        rows = _last_rows(metrics, metric)
        values = dict(rows[rows["labels"].isna()][["run", "value"]].itertuples(index=False))
    found = table.assign(value=[values.get(run, np.nan) for run in table["run"]]).dropna(subset=["value"])
    return _only_present(found)


def values_by_layer(table: pd.DataFrame, metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of `combinations` with layer, place and value: the final values of a metric of each layer.

    place: the number of the layer in the order of the network, from 1.
    """
    rows = _last_rows(metrics, metric)
    labels: list[Mapping[str, Any]] = [label_values(text) for text in rows["labels"]]
    layers: Any = [each.get("layer") for each in labels]
    rows = rows.assign(layer=layers).dropna(subset=["layer"])
    found = table.merge(rows[["run", "layer", "value"]], on="run")
    # A rule that leaves a layer out has the same places for the others.
    places: dict[str, dict[Any, int]] = {}
    for network, own in found.groupby("network", observed=True):
        longest = max((list(layers) for _, layers in own.groupby("run")["layer"]), key=len)
        order = list(dict.fromkeys([*longest, *own["layer"]]))
        places[str(network)] = {layer: number for number, layer in enumerate(order, start=1)}
    where = [places[str(network)][layer] for network, layer in zip(found["network"], found["layer"], strict=True)]
    return _only_present(found.assign(place=where))


def _last_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return run, labels and value of the last step of each series of one training metric."""
    split, _, name = metric.partition("/")
    rows: pd.DataFrame = metrics[
        (metrics["stage"] == "train") & (metrics["split"] == split) & (metrics["metric"] == name)
    ]
    finite: pd.DataFrame = rows[np.isfinite(rows["value"])].sort_values("step", kind="stable")
    return finite.drop_duplicates(["run", "labels"], keep="last").sort_index()[["run", "labels", "value"]]


def _only_present(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{part: table[part].cat.remove_unused_categories() for part in PARTS})


def is_matrix(table: pd.DataFrame) -> bool:
    """Return whether the runs have at least two credit rules and two networks."""
    return len(set(table["credit"])) > 1 and len(set(table["network"])) > 1


def combination_figures(runs: pd.DataFrame, metrics: pd.DataFrame, metric: str) -> dict[str, Figure]:
    """Return the figures of credit x update x network of a report, by file name; none without two of each.

    They show the main metric, the cost and the time of every combination, and the angle to the gradient of every layer.
    Networks that few credit rules taught are left out, see `compared`.
    """
    table = compared(combinations(runs))
    if not is_matrix(table):
        return {}
    figures = {}
    for name, key, view in (
        (metric.replace("/", "-"), metric, View()),
        ("cost", LEARNING_COST, View(log="x")),
        ("time", SECONDS, View(log="x")),
    ):
        values = final_values(table, runs, metrics, key)
        if is_matrix(values):
            drawn = combinations_figure(values, metric_of(key), view, chance=_chance(table, runs, key))
            figures[f"combinations-{name}"] = _figure(drawn, values, runs)
    layers = values_by_layer(table, metrics, ANGLE)
    for dataset, own in layers.groupby("dataset", observed=True):
        if is_matrix(own):
            drawn = layers_figure(_only_present(own), metric_of(ANGLE), reference=RIGHT_ANGLE, about=str(dataset))
            figures[f"combinations-angles-{dataset}"] = _figure(drawn, own, runs)
    return figures


def _figure(drawn: Any, values: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    own = runs[runs["run"].isin(values["run"])]
    datasets = tuple(sorted({str(name) for name in own["dataset"].dropna()}))
    return Figure(drawn, None, None, tuple(sorted(set(own["rule"]))), datasets)


def _chance(table: pd.DataFrame, runs: pd.DataFrame, metric: str) -> float | None:
    """Return the accuracy of a guess, if all combinations have the same."""
    if metric != "test/accuracy" or CHANCE_METRIC not in runs.columns:
        return None
    known = runs.loc[runs["run"].isin(table["run"]), CHANCE_METRIC].dropna()
    return float(known.mean()) if len(known) and np.ptp(known) < 0.01 else None


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `combinations` of the networks that many credit rules taught.

    A network has at least two credit rules, and half as many as the network with most. Of more than `MOST_NETWORKS`
    those with the most credit rules are kept.
    """
    rules = table.groupby("network", observed=True)["credit"].nunique().sort_values(ascending=False, kind="stable")
    kept = rules[(rules > 1) & (rules >= rules.max() / 2)].index[:MOST_NETWORKS]
    return _only_present(table[table["network"].isin(kept)])


def plot_combinations(chosen: ChosenRuns, metric: str | None, by: str | None, view: View) -> RunsPlot:
    """Draw the final values of a metric of every combination; by="layer": those of every layer.

    Raises UserError if the runs have fewer than two credit rules or networks, or no value of the metric.
    """
    everything = combinations(chosen.runs)
    table = compared(everything)
    if not is_matrix(table):
        raise UserError(
            "--combinations needs runs of at least two credit rules on the same network, and of two networks. Such runs"
            " have the options model and optimizer: plastic sweep combinations."
        )
    wanted = metric or (ANGLE if by == "layer" else main_metric(chosen, final=True))
    if by not in (None, "layer"):
        raise UserError(f"--by {by}: with --combinations it can only be layer.")
    if by is None:
        values = final_values(table, chosen.runs, chosen.metrics, wanted)
    else:
        values = values_by_layer(table, chosen.metrics, wanted)
    if values.empty:
        raise UserError(f"--metric {wanted}: no run of these combinations has it{' by layer' if by else ''}.")
    messages = [
        f"{left} {'run' if left == 1 else 'runs'} {what}: left out"
        for left, what in (
            (len(everything) - len(table), "of networks with few credit rules"),
            (len(table) - values["run"].nunique(), f"without {wanted}"),
        )
        if left
    ]
    named: Metric = metric_of(wanted)
    datasets = ", ".join(str(name) for name in values["dataset"].cat.categories)
    if by is None:
        figure = combinations_figure(values, named, view, chance=_chance(table, chosen.runs, wanted))
    else:
        right = RIGHT_ANGLE if named.unit == "degrees" else None
        figure = layers_figure(values, named, view, reference=right, about=datasets)
    return RunsPlot(figure, wanted, tuple(messages))
