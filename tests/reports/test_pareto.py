"""Results against a price: which settings are on the frontier, how they are numbered and drawn, and what is printed."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

import plastic_cli as plastic
from plastic_cli.analysis.cost import Cost
from plastic_cli.commands.report import Options, print_report
from plastic_cli.errors import UserError
from plastic_cli.figures.files import headless
from plastic_cli.figures.pareto import MOST_NAMED, apart, pareto_figure
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.metrics import Metric
from plastic_cli.plugins.models import train_model
from plastic_cli.reports import pareto as module
from plastic_cli.reports.grouping import Group
from plastic_cli.reports.options import Sources
from plastic_cli.reports.pareto import Priced, priced_results, with_frontier
from plastic_cli.reports.results import Result
from plastic_cli.statistics.intervals import mean_interval

SOURCES = Sources({}, lambda rule: None, {})


def row(price, value, dataset="digits", metric="test/accuracy"):
    group = Group("grlu", dataset, "", (f"{price} {value}",), {"price": price})
    nothing = mean_interval([])
    return Priced(Result(group, metric, mean_interval([value]), nothing, nothing), mean_interval([price]))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_frontier_is_the_running_maximum_over_the_price(pairs):
    marked = with_frontier([row(float(price), float(value)) for price, value in pairs])
    # The best value of each price, if it is better than everything that is cheaper.
    best, wanted = -math.inf, set()
    for price in sorted({price for price, _ in pairs}):
        top = max(value for other, value in pairs if other == price)
        if top > best:
            best = top
            wanted.add((price, top))
    assert [each.on_frontier for each in marked] == [pair in wanted for pair in pairs]


def test_less_is_better_for_a_loss_and_data_sets_have_frontiers_of_their_own():
    rows = [row(1.0, 0.5, metric="test/loss"), row(2.0, 0.4, metric="test/loss"), row(3.0, 0.6, metric="test/loss")]
    assert [each.on_frontier for each in with_frontier(rows)] == [True, True, False]
    rows = [row(1.0, 0.9), row(2.0, 0.5), row(2.0, 0.5, dataset="mnist"), row(2.0, 0.5, metric="test/return")]
    assert [each.on_frontier for each in with_frontier(rows)] == [True, False, True, True]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0.01, 2))
def test_numbers_are_moved_apart_as_little_as_possible(values, gap):
    given_values = np.array(values)
    moved = apart(given_values, gap)
    order = np.argsort(given_values, kind="stable")
    assert (np.diff(moved[order]) >= gap - 1e-9).all()
    # The change is least squared if no value and no group of touching values gains by moving alone.
    assert moved.mean() == pytest.approx(given_values.mean(), abs=1e-9)
    start = 0
    ordered, wished = moved[order], given_values[order]
    for end in range(1, len(values) + 1):
        if end == len(values) or ordered[end] - ordered[end - 1] > gap + 1e-9:
            assert ordered[start:end].mean() == pytest.approx(wished[start:end].mean(), abs=1e-9)
            start = end


# ------------------------------------------------------------------------------------------------------------- stores


def cost(price):
    return Cost(10, price, 2 * price, price, 5 * price, 7 * price, 11 * price)


@pytest.fixture
def store(make_runs, monkeypatch):
    """Four settings of grlu on two data sets and two of backprop; the option `price` is the cost of a run."""
    monkeypatch.setattr(module, "cost_of", lambda record: cost(record.config["price"]))
    for dataset, more in (("digits", 0.0), ("mnist", 0.1)):
        for price, value in ((10, 0.5), (100, 0.6), (1000, 0.55), (10_000, 0.7)):
            speed = {"speed": {"seconds": price / 10, "samples": 10}}
            make_runs(dataset=dataset, price=price, values=(0.1, value + more), facts=speed)
        make_runs(rule="backprop", dataset=dataset, trained="readout", price=0, values=(0.1, 0.3), facts=speed)
        made = make_runs(rule="backprop", dataset=dataset, trained="all", price=5000, values=(0.1, 0.8), facts=speed)
    return made


def folder(store):
    return store.runs["folder"].map(lambda path: path.rpartition("/")[0]).iloc[0]


def reported(store, **options):
    return plastic.report(folder(store), **options)


def printed(store, capsys, **options):
    print_report(Options.from_values({"runs": folder(store), **options}), SOURCES)
    return capsys.readouterr()


def test_each_price_is_read_from_the_cost(store):
    factors = {"messages": 1, "flops": 3, "updates": 5, "bytes": 18}
    for kind, factor in factors.items():
        frame = reported(store, pareto=kind).pareto
        grlu = frame[(frame["rule"] == "grlu") & (frame["dataset"] == "digits")]
        assert list(grlu["price_mean"]) == [factor * price for price in (10, 100, 1000, 10_000)]
        assert set(frame["price"]) == {kind}


def test_seconds_are_those_of_training(store):
    frame = reported(store, pareto="seconds", rule="grlu", dataset="digits").pareto
    assert list(frame["price_mean"]) == [1, 10, 100, 1000]
    assert list(frame["frontier"]) == [True, True, False, True]


def test_settings_have_one_number_on_all_data_sets_and_controls_are_marked(store):
    frame = reported(store, pareto="messages").pareto
    assert list(frame["number"]) == [1, 2, 3, 4, 5, 6] * 2
    assert list(frame["price_mean"])[:6] == [0, 10, 100, 1000, 5000, 10_000]
    assert list(frame["control"].fillna(""))[:6] == ["random features", "", "", "", "backprop", ""]
    assert list(frame["frontier"]) == [True, True, True, False, True, False] * 2
    # Intervals are those of the mean over seeds.
    first = frame.iloc[1]
    wanted = mean_interval([0.5, 0.51, 0.52])
    assert (first["mean"], first["low"], first["high"]) == pytest.approx((wanted.mean, wanted.low, wanted.high))


def test_a_result_without_a_known_price_is_left_out_and_counted(store, monkeypatch, capsys):
    runs = {store.runs["run"].iloc[0]}
    monkeypatch.setattr(module, "cost_of", lambda record: None if record.run in runs else cost(record.config["price"]))
    # One run without a price is enough: a mean of the others would be another price.
    made = reported(store, pareto="messages")
    assert len(made.pareto) == 11
    out, _ = printed(store, capsys, pareto="messages", format="markdown")
    assert "1 result has no known price, and is left out." in out
    monkeypatch.setattr(module, "cost_of", lambda record: None)
    out, err = printed(store, capsys, pareto="messages")
    assert out == ""
    assert "no result has a known price: the cost of backprop, grlu is not known for these runs" in err


def test_the_command_prints_the_table_in_every_format(store, capsys):
    out, _ = printed(store, capsys, pareto="updates", dataset="digits", format="markdown")
    assert out.splitlines()[0] == "### Results against the price: changes of single weights"
    assert "| no. | rule | data set | setting | n | test accuracy (%) | changes of single weights | frontier |" in out
    assert "| 6 | grlu | digits | price = 10000" in out
    assert "50,000" in out
    assert r"\toprule" in printed(store, capsys, pareto="updates", format="latex").out
    rows = list(csv.DictReader(io.StringIO(printed(store, capsys, pareto="updates", format="csv").out)))
    assert len(rows) == 12
    assert float(rows[1]["price_mean"]) == 50
    read = json.loads(printed(store, capsys, pareto="updates", format="json").out)
    assert list(read) == ["pareto"]
    assert read["pareto"][0]["frontier"] is True


def test_output_and_page_have_table_and_figure(store, tmp_path, capsys):
    chosen = {"dataset": "digits", "rule": "grlu"}
    printed(store, capsys, pareto="messages", output=tmp_path / "out", html=tmp_path / "page", **chosen)
    written = {path.name for path in (tmp_path / "out").rglob("*")}
    assert {"pareto.csv", "pareto.md", "pareto.tex", "table.csv", "pareto-messages-test-accuracy.png"} <= written
    page = (tmp_path / "page" / "index.html").read_text()
    assert 'id="pareto"' in page
    assert "The price of learning" in page
    assert "1  grlu: price = 10, digits: 51.00% for 10 messages to the hidden layers" in page
    printed(store, capsys, output=tmp_path / "without", **chosen)
    assert not any("pareto" in path.name for path in (tmp_path / "without").rglob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pareto": "money"}, "messages"),
        ({"pareto": "flops", "compare": True}, "leave --compare out"),
        ({"pareto": "flops", "table": "claims"}, "leave --table out"),
        ({"pareto": "flops", "columns": ("rule",)}, "leave --columns out"),
    ],
)
def test_wrong_combinations_are_one_line(store, options, message):
    with pytest.raises(UserError, match=message):
        reported(store, **options)


def test_plot_draws_the_same_figure(store):
    figure = plastic.plot(folder(store), pareto="messages", title="Mine", y_range=(50, 90))
    assert figure.labels.title == "Mine"
    assert list(figure.data["price"])[:6] == [0, 10, 100, 1000, 5000, 10_000]
    assert plastic.plot(folder(store), pareto="seconds").labels.x == "Time of training (s)"
    with pytest.raises(UserError, match="--by does nothing with --pareto"):
        plastic.plot(folder(store), pareto="messages", by="seed")
    with pytest.raises(UserError, match="--metric test/loss: no run has it as its main metric"):
        plastic.plot(folder(store), "test/loss", pareto="messages")


def test_plot_without_a_known_price_is_one_line(store, monkeypatch):
    monkeypatch.setattr(module, "cost_of", lambda record: None)
    with pytest.raises(UserError, match=r"--pareto flops: no run has a known price\. The cost of backprop, grlu"):
        plastic.plot(folder(store), pareto="flops")


def test_a_report_without_a_price_says_how_to_choose_one(store):
    with pytest.raises(UserError, match=r"plastic\.report\(pareto='messages'\)"):
        _ = reported(store).pareto


def test_a_real_cost_is_that_of_the_rule(make_runs):
    config = train_model(find_rule("backprop")).from_values({"hidden": "8", "epochs": 2})
    options = {name: value for name, value in config.model_dump(mode="json").items() if name not in ("seed", "dataset")}
    facts = {"data": {"image_shape": [1, 8, 8], "classes": 10}, "speed": {"samples": 2000, "seconds": 1.0}}
    store = make_runs(rule="backprop", facts=facts, **options)
    # Ten errors of the output for each image reach the only hidden layer.
    assert reported(store, pareto="messages").pareto["price_mean"].item() == 10 * 2000


# ------------------------------------------------------------------------------------------------------------ figures


def points(count):
    frame = pd.DataFrame({"number": range(1, count + 1), "price": [0.0, *10.0 ** np.arange(1, count)]})
    frame["label"] = [f"{number}  grlu: price = {number}" for number in frame["number"]]
    frame["mean"] = np.where(frame["number"] % 2, 0.5 + frame["number"] / 100, 0.4)
    return frame.assign(
        rule="grlu", panel="digits", low=frame["mean"] - 0.01, high=frame["mean"] + 0.01, n=3, hover="",
        is_control=False, on_frontier=frame["number"] % 2 == 1,
    )  # fmt: skip


def texts_of(frame):
    """All texts of the figure, each in one line."""
    with headless():
        drawn = pareto_figure(frame, Metric("test accuracy", "%"), Metric("messages")).draw()
    return {" ".join(text.get_text().split()) for text in drawn.findobj(Text)}


def test_a_price_of_zero_has_a_place_of_its_own():
    texts = texts_of(points(4))
    assert {"0", "1e1", "1e3", "1 grlu: price = 1", "4 grlu: price = 4"} <= texts
    assert not any("Hollow marks" in text for text in texts)
    assert any("Hollow marks: controls." in text for text in texts_of(points(4).assign(is_control=True)))
    assert "0" not in texts_of(points(4).assign(price=10.0))


def test_of_many_settings_the_frontier_and_the_controls_have_names():
    texts = texts_of(points(MOST_NAMED + 6))
    assert {"1 grlu: price = 1", "3 grlu: price = 3", "3"} <= texts
    assert "2 grlu: price = 2" not in texts
    assert any("Dots without a number: other settings." in text for text in texts)
    assert "2 grlu: price = 2" in texts_of(points(MOST_NAMED))


def test_results_of_one_price_and_one_setting_can_be_drawn():
    texts_of(points(1))
    texts_of(points(3).assign(price=5.0, low=math.nan, high=math.nan, n=1))
    texts_of(points(3).assign(price=0.0))


def test_priced_results_do_not_change_the_results(store):
    results = reported(store).content.results
    priced = priced_results(store.runs, results, "messages")
    assert {id(each.result) for each in priced.rows} == {id(result) for result in results}
    assert all(
        replace(each, number=0, on_frontier=False).control in (None, "backprop", "random features")
        for each in priced.rows
    )
