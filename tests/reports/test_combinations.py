"""Credit x update x network: which runs are one combination, and what the figures of all of them show."""

import pandas as pd
import pytest

from plastic_cli.errors import UserError
from plastic_cli.figures.files import headless, svg_text
from plastic_cli.reports.chosen_plot import plot_chosen
from plastic_cli.reports.combinations import combination_figures, combinations, compared
from plastic_cli.reports.plot_options import PlotOptions


@pytest.fixture
def store(make_runs):
    """Three credit rules, two updates and two networks on digits; the accuracies say which run it is."""
    rules = (("backprop", {}), ("forward", {"noise": "node"}), ("forward", {"noise": "weight"}))
    made = None
    for number, (rule, options) in enumerate(rules):
        for network, layers in (("mlp", ["0", "2"]), ("torchvision.models:resnet18", ["conv1", "layer1", "fc"])):
            for update, rate in (("sgd", 0.1), ("adam", 0.001)):
                value = 0.1 * number + (0.5 if network == "mlp" else 0.3) + (0.05 if update == "adam" else 0)
                angles = [
                    ("train", "angle", 1, 10.0 * number + place, {"layer": name}) for place, name in enumerate(layers)
                ]
                angles.append(("train", "angle", 1, 45.0 + number, None))
                made = make_runs(
                    rule=rule, values=(0.1, value), model=network, optimizer=update, learning_rate=rate, **options,
                    rows=[("train", "learning_flops", 1, 2e9, None), *angles],
                )  # fmt: skip
    return made


def test_runs_of_one_combination_differ_in_their_seed_only(store):
    table = combinations(store.runs)
    cells = table.groupby(["credit", "network", "update", "dataset"], observed=True).size()
    assert len(cells) == 12
    assert set(cells) == {3}
    assert list(table["credit"].cat.categories) == ["backprop", "forward: node", "forward: weight"]
    assert set(table["network"].cat.categories) == {"mlp", "resnet18"}


def test_a_run_of_an_older_version_without_a_new_option_is_the_same_combination(make_runs):
    options = {"rule": "backprop", "model": "mlp", "optimizer": "sgd"}
    make_runs(**options, trained="readout")
    make_runs(**options, trained="all", values=(0.1, 0.2))
    chosen = make_runs(**options, trained="all", rate_drops=[], momentum=0.0, values=(0.1, 0.7))
    table = combinations(chosen.runs)
    assert set(table["credit"]) == {"backprop: readout", "backprop: all"}
    newest = chosen.runs.sort_values("created")["run"].tail(3)
    assert set(table.loc[table["credit"] == "backprop: all", "run"]) == set(newest)


def test_sizes_of_one_network_are_networks_and_rates_that_compete_are_credit_rules(make_runs):
    for hidden in ([64], [64, 64]):
        for rate in (0.1, 0.2):
            chosen = make_runs(rule="backprop", model="mlp", optimizer="sgd", hidden=hidden, learning_rate=rate)
    table = combinations(chosen.runs)
    assert set(table["network"]) == {"mlp, hidden = 64", "mlp, hidden = 64,64"}
    assert set(table["credit"]) == {"backprop: learning rate = 0.1", "backprop: learning rate = 0.2"}


def test_networks_with_few_credit_rules_are_left_out(store, make_runs):
    for hidden in ([8], [16], [32]):
        for update in ("sgd", "adam"):
            for noise in ("node", "weight"):
                chosen = make_runs(rule="forward", model="tiny", optimizer=update, hidden=hidden, noise=noise, seeds=1)
    assert set(compared(combinations(chosen.runs))["network"]) >= {"mlp", "resnet18", "tiny, hidden = 8"}
    assert combinations(chosen.runs)["network"].nunique() == 5
    for kind in range(3):
        chosen = make_runs(rule="other", model="mlp", optimizer="sgd", kind=f"kind-{kind}", seeds=1)
    drawn = plot_chosen(chosen, PlotOptions(combinations=True))
    assert set(drawn.figure.data["network"]) == {"mlp", "resnet18"}
    assert drawn.messages == ("12 runs of networks with few credit rules: left out",)


def test_two_networks_of_one_name_keep_their_modules(make_runs):
    make_runs(rule="backprop", model="mlp", optimizer="sgd")
    make_runs(rule="backprop", model="my.networks:mlp", optimizer="sgd")
    chosen = make_runs(rule="backprop", model="my.networks:other", optimizer="sgd")
    assert set(combinations(chosen.runs)["network"]) == {"mlp", "networks:mlp", "other"}


def test_the_size_of_one_network_does_not_name_others(make_runs):
    for hidden in ([8], [16]):
        make_runs(rule="backprop", model="mlp", optimizer="sgd", hidden=hidden)
    chosen = make_runs(rule="backprop", model="lenet", optimizer="sgd", hidden=[16])
    assert set(combinations(chosen.runs)["network"]) == {"mlp, hidden = 8", "mlp, hidden = 16", "lenet"}


def test_runs_without_a_network_or_an_update_are_not_combinations(make_runs):
    make_runs(rule="grlu", perturbations=2)
    assert combinations(make_runs(rule="eglp", model="mlp").runs).empty
    assert combination_figures(make_runs(rule="eglp", model="mlp").runs, pd.DataFrame(), "test/accuracy") == {}


def test_the_figure_has_the_mean_of_every_combination_and_the_best_credit_rule_at_the_top(store):
    drawn = plot_chosen(store, PlotOptions(combinations=True))
    data = drawn.figure.data
    assert drawn.metric == "test/accuracy"
    assert len(data) == 12
    row = data[(data["credit"] == "forward: node") & (data["panel"] == "resnet18") & (data["update"] == "adam")]
    assert row["mean"].item() == pytest.approx(0.1 + 0.3 + 0.05 + 0.01)
    assert row["n"].item() == 3
    places = data.groupby("credit", observed=True)["place"].mean()
    assert places.sort_values(ascending=False).index.tolist() == ["forward: weight", "forward: node", "backprop"]
    assert data["place"].nunique() == 6


def test_by_layer_the_layers_are_in_the_order_of_the_network(store):
    data = plot_chosen(store, PlotOptions(combinations=True, by="layer")).figure.data
    fixed = data[(data["credit"] == "forward: weight") & (data["panel"] == "resnet18, sgd")]
    assert dict(zip(fixed["place"], fixed["mean"], strict=True)) == {1: 20.0, 2: 21.0, 3: 22.0}


def test_another_metric_and_a_time_of_the_run_can_be_drawn(store):
    angles = plot_chosen(store, PlotOptions(combinations=True, metric="train/angle")).figure
    assert set(angles.data["mean"]) == {45.0, 46.0, 47.0}
    assert angles.labels.x == "Angle to the gradient (degrees)"


def test_the_report_has_a_figure_of_each_measure_and_draws_it(store):
    figures = combination_figures(store.runs, store.metrics, "test/accuracy")
    assert {"combinations-test-accuracy", "combinations-cost", "combinations-angles-digits"} <= set(figures)
    assert figures["combinations-cost"].rules == ("backprop", "forward")
    for name in ("combinations-angles-digits", "combinations-cost"):
        assert "<path" in svg_text(figures[name].plot, name)


def test_a_narrow_figure_has_one_column_of_panels(store):
    wide = plot_chosen(store, PlotOptions(combinations=True)).figure
    narrow = plot_chosen(store, PlotOptions(combinations=True, width=3.15)).figure
    with headless():
        columns = [len({round(axes.get_position().x0, 3) for axes in each.draw().axes}) for each in (wide, narrow)]
    assert columns == [2, 1]
    assert narrow.theme.getp("figure_size")[0] == 3.15


def test_what_cannot_be_drawn_is_said_in_one_line(store, make_runs, tmp_path):
    with pytest.raises(UserError, match="no run of these combinations has it"):
        plot_chosen(store, PlotOptions(combinations=True, metric="test/loss"))
    with pytest.raises(UserError, match="it can only be layer"):
        plot_chosen(store, PlotOptions(combinations=True, by="seed"))
    alone = type(store)(store.runs[store.runs["rule"] == "backprop"], store.metrics, store.records, "epoch")
    with pytest.raises(UserError, match="at least two credit rules"):
        plot_chosen(alone, PlotOptions(combinations=True))
