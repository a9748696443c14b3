"""What runs of eglp log and show, each number against an independent count: events, cost, controls, event rates."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from plotnine import geom_hline

from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.probe import linear_probe
from plastic_cli.classifier.analyze import CKA_IMAGES
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.data.corruptions import apply_corruption, parse_corruption
from plastic_cli.data.datasets import Split, load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic
from plastic_eglp import control
from plastic_eglp.analysis import figures, film, measures
from plastic_eglp.analysis.measures import doubtful_images, event_image_table, event_raster, images_with_events
from plastic_eglp.config import Train
from plastic_eglp.control import backprop_baseline, load_control, train_variant
from plastic_eglp.training import build, make_learner

HIDDEN, EPOCHS, BATCH = (8, 6), 3, 100
WEIGHTS, READOUT = 64 * 8 + 8 * 6, 6 * 10


def trained_run(runs, *options):
    small = ["--hidden", "8,6", "--epochs", EPOCHS, "--batch-size", BATCH, "--learning-rate", "0.01"]
    outcome = plastic("train", "eglp", *small, *options, "--runs", runs, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    return open_run(runs / found["run"], stage="analyze"), found["metrics"]


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A run that triggers on single images, with its control."""
    runs = tmp_path_factory.mktemp("runs")
    run, metrics = trained_run(runs, "--local-learning-rate", "0.5", "--event-warmup", "4")
    return SimpleNamespace(runs=runs, run=run, metrics=metrics, learner=build(run, digits), data=digits)


def accuracy(learner, split):
    return (learner.predict(split.x).argmax(1) == split.y).double().mean().item()


def analyzed(trained, *options):
    outcome = plastic("analyze", "eglp", *options, "--runs", trained.runs, "--run", trained.run.id, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["metrics"]


def table(trained, name):
    return pd.read_csv(trained.run.folder / "tables" / f"{name}.csv")


# ------------------------------------------------------------------------------------------------ what is logged


def test_events_and_cost_are_those_of_the_run(trained):
    metrics = RunStore(trained.runs).metrics(runs=[trained.run.id], stage="train")
    wide = metrics[metrics["split"] == "train"].pivot_table(index="step", columns="metric", values="value")
    raster = event_raster(trained.run)
    for epoch in range(EPOCHS + 1):
        row = wide.loc[epoch]
        events, images, seen = row["events"], row["event_images"], 1437 * epoch
        assert events == raster.loc[raster["epoch"] <= epoch, "event"].sum()
        assert row["synaptic_updates"] == events * WEIGHTS
        assert row["messages"] == images * 2 * (1 + 10)
        assert row["forward_flops"] == seen * 2 * (WEIGHTS + READOUT)
        # The readout learns from every image; an event is looked at again, with the error sent to 14 units.
        of_event = 2 * WEIGHTS + 2 * 10 * 14 + 2 * (WEIGHTS + READOUT)
        assert row["learning_flops"] == seen * 2 * READOUT + images * of_event
    assert 4 * BATCH < wide.loc[EPOCHS, "event_images"] < 1437
    assert trained.learner.events == wide.loc[EPOCHS, "events"]


@pytest.mark.parametrize(
    ("options", "events", "images"),
    [
        (["--events", "always"], 45, 3 * 1437),
        (["--events", "never"], 0, 0),
        (["--update", "backprop"], 45, 3 * 1437),
        (["--events", "fixed", "--event-warmup", "9", "--event-budget", "7"], 7, 7 * BATCH),
        (["--event-scope", "batch", "--event-rate", "0", "--event-warmup", "4"], 4, 4 * BATCH),
    ],
)
def test_every_kind_of_event_is_counted(options, events, images, tmp_path):
    _, metrics = trained_run(tmp_path, *options)
    assert metrics["train/events"] == events
    assert metrics["train/event_images"] == images
    assert metrics["train/synaptic_updates"] == events * WEIGHTS


def test_the_network_of_a_run_has_the_chosen_initial_weights_and_units(tmp_path, digits):
    run, _ = trained_run(tmp_path, "--events", "never", "--initial-weights", "xavier", "--activation", "relu")
    drawn = build(run, digits, trained=False).network
    for layer, (inputs, units) in zip(drawn.layers(), ((64, 8), (8, 6)), strict=True):
        assert not layer.bias.any()
        limit = (6 / (inputs + units)) ** 0.5
        assert 0.8 * limit < layer.weight.abs().max() <= limit
        assert layer.activation == "relu"


def test_accuracies_are_measured_on_the_split_that_they_name(trained):
    for name in ("train", "test"):
        assert trained.metrics[f"{name}/accuracy"] == pytest.approx(accuracy(trained.learner, trained.data.split(name)))
    assert trained.metrics["train/accuracy"] != trained.metrics["test/accuracy"]


# ------------------------------------------------------------------------------------------------ controls


def test_the_control_has_initial_hidden_weights_and_a_trained_readout_and_is_measured_on_test_images(trained):
    (control,) = load_control(trained.run, trained.data).values()
    drawn = build(trained.run, trained.data, trained=False)
    for mine, first, learned in zip(
        control.network.layers(), drawn.network.layers(), trained.learner.network.layers(), strict=True
    ):
        assert torch.equal(mine.weight, first.weight)
        assert torch.equal(mine.bias, first.bias)
        assert not torch.equal(learned.weight, first.weight)
    assert not torch.equal(control.network.readout.weight, drawn.network.readout.weight)
    found = accuracy(control, trained.data.test)
    assert trained.metrics["control/accuracy"] == pytest.approx(found)
    assert found != accuracy(control, trained.data.train)
    assert found != trained.metrics["test/accuracy"]


@pytest.mark.parametrize("options", [["--no-control"], ["--events", "never"], ["--update", "backprop"]])
def test_a_run_without_a_control_logs_none(options, tmp_path, digits):
    run, metrics = trained_run(tmp_path, *options)
    assert "control/accuracy" not in metrics
    assert load_control(run, digits) == {}


def test_eval_and_analyze_also_measure_the_control(trained):
    outcome = plastic("eval", "eglp", "--runs", trained.runs, "--run", trained.run.id, "--json")
    metrics = json.loads(outcome.out)["metrics"]
    assert metrics["test/accuracy"] == pytest.approx(trained.metrics["test/accuracy"])
    assert metrics["zero events/accuracy"] == pytest.approx(trained.metrics["control/accuracy"])
    assert analyzed(trained)["zero events/accuracy"] == pytest.approx(trained.metrics["control/accuracy"])


def test_the_backprop_baseline_equals_a_run_of_backprop(trained, tmp_path):
    _, metrics = trained_run(tmp_path, "--update", "backprop")
    config = Train.from_values(trained.run.config, source="test")
    (baseline,) = backprop_baseline(config, trained.data, trained.run).values()
    assert accuracy(baseline, trained.data.test) == pytest.approx(metrics["test/accuracy"])
    assert baseline.events == metrics["train/events"]


@pytest.mark.parametrize("model", ["softhebb", "softhebb-mlp"])
def test_the_backprop_baseline_of_softhebb_has_the_initial_weights_of_backprop(model, trained, monkeypatch):
    made = []
    monkeypatch.setattr(control, "train_unlogged", lambda config, *_: made.append(config))

    def radius(**options):
        backprop_baseline(Train.from_values({"model": model, **options}), trained.data, trained.run)
        return made[-1].initial_radius

    assert radius() == Train.from_values({"model": model, "update": "backprop"}).initial_radius
    assert radius(initial_radius=7.0) == 7.0


# ------------------------------------------------------------------------------------------------ analyses


def test_sensitivity_names_the_layer_without_learning(trained):
    results = analyzed(trained, "--sensitivity")
    rows = table(trained, "sensitivity").set_index("condition")["accuracy"]
    config = Train.from_values(trained.run.config, source="test")
    assert rows["all learn"] == pytest.approx(trained.metrics["test/accuracy"])
    assert rows["zero events"] == pytest.approx(trained.metrics["control/accuracy"])
    for layer in (1, 2):
        one = train_variant(config, trained.data, trained.run, frozen=(layer - 1,))
        assert rows[f"layer {layer} fixed"] == pytest.approx(accuracy(one, trained.data.test))
    assert len(set(rows.round(6))) > 2
    for condition, value in rows.items():
        assert results[f"{condition}/accuracy"] == pytest.approx(value)


def test_event_rates_name_the_kind_of_event_and_the_measured_fraction_of_images(trained, tmp_path):
    results = analyzed(trained, "--event-rates", "--rates", "0.1,0.5")
    rows = table(trained, "event_rates").set_index(["events by", "rate"])
    config = Train.from_values(trained.run.config, source="test")
    for by in ("triggered", "fixed"):
        assert rows.loc[(by, 0.0), "accuracy"] == pytest.approx(trained.metrics["control/accuracy"])
        for rate in (0.1, 0.5):
            one = train_variant(config, trained.data, trained.run, events=by, event_rate=rate, event_budget=0)
            row = rows.loc[(by, rate)]
            assert row["accuracy"] == pytest.approx(accuracy(one, trained.data.test))
            assert row["share"] == pytest.approx(one.event_stimuli / (EPOCHS * 1437))
            assert (row["events"], row["synaptic_updates"]) == (one.events, one.events * WEIGHTS)
            assert results[f"{by} {rate:g}/accuracy"] == pytest.approx(row["accuracy"])
    assert rows.loc[("triggered", 0.1), "accuracy"] != rows.loc[("fixed", 0.1), "accuracy"]
    assert rows.loc[("triggered", 0.5), "share"] > rows.loc[("triggered", 0.1), "share"]


def test_the_figure_of_event_rates_draws_the_control_as_a_line():
    rows = [
        {"events by": by, "rate": rate, "share": rate, "synaptic_updates": 1000 * rate, "accuracy": value}
        for by, values in (("triggered", (0.6, 0.7, 0.8)), ("fixed", (0.6, 0.65, 0.75)))
        for rate, value in zip((0.0, 0.1, 1.0), values, strict=True)
    ]
    figure = figures.event_rates_figure(pd.DataFrame(rows))
    (line,) = (layer for layer in figure.layers if isinstance(layer.geom, geom_hline))
    assert line._data["yintercept"].tolist() == [60.0]
    share = figure.data[figure.data["facet"] == "images in events (%)"]
    assert share[share["by"] == "triggered"].set_index("x")["accuracy"].to_dict() == pytest.approx({10: 70, 100: 80})
    assert share[share["by"] == "fixed"].set_index("x")["accuracy"].to_dict() == pytest.approx({10: 65, 100: 75})


def test_the_figure_of_sensitivity_draws_its_last_condition_as_the_control():
    frame = pd.DataFrame({"condition": ["all learn", "zero events"], "accuracy": [0.9, 0.7]})
    figure = figures.sensitivity_figure(frame)
    (line,) = (layer for layer in figure.layers if isinstance(layer.geom, geom_hline))
    assert line._data["yintercept"].tolist() == [70.0]


def test_the_raster_counts_events_and_their_fraction(trained):
    analyzed(trained, "--events")
    raster = event_raster(trained.run)
    subtitle = figures.raster_figure(raster).labels.subtitle
    assert f"{raster['event'].sum()} events in {EPOCHS * 15} batches" in subtitle
    assert f"({100 * raster['event'].mean():.1f}%)" in subtitle
    assert table(trained, "events")["events"].sum() == trained.metrics["train/events"]


def test_probe_and_cka_compare_with_the_backprop_baseline_and_the_untrained_network(trained):
    results = analyzed(trained, "--probe", "--cka")
    config = Train.from_values(trained.run.config, source="test")
    data = trained.data
    (baseline,) = backprop_baseline(config, data, trained.run).values()
    networks = {"trained": trained.learner, "untrained": build(trained.run, data, trained=False), "backprop": baseline}
    probes = table(trained, "probe").set_index(["layer", "network"])["accuracy"]
    for name, learner in networks.items():
        for layer, pair in enumerate(zip(*(learner.features(s.x) for s in (data.train, data.test)), strict=True), 1):
            probe = linear_probe(pair[0], data.train.y, pair[1], data.test.y, seed=trained.run.seed)
            # Up to which sixth of the training images the L2 was chosen on.
            assert probes[layer, name] == pytest.approx(probe.accuracy, abs=0.02)
            assert results[f"probe/layer {layer} {name}"] == probes[layer, name]
    x = stratified_sample(data.test, CKA_IMAGES).x
    for prefix, name in (("cka", "trained"), ("cka of the untrained", "untrained")):
        expected = cka_matrix(networks[name].features(x), baseline.features(x), debiased=True)
        for row in (1, 2):
            for column in (1, 2):
                found = results[f"{prefix}/{row}-{column}"]
                assert found == pytest.approx(expected[row - 1, column - 1].item(), abs=1e-6)
    assert results["cka/2-2"] != pytest.approx(results["cka of the untrained/2-2"], abs=1e-3)


def test_robustness_is_measured_for_the_network_and_its_control(trained):
    results = analyzed(trained, "--robustness")
    (control,) = load_control(trained.run, trained.data).values()
    x = trained.data.test.x
    for text in ("gaussian-noise:0.5", "rotation:30"):
        generator = torch.Generator().manual_seed(trained.run.seed)
        corrupted = apply_corruption(trained.data, x, parse_corruption(text), generator)
        split = SimpleNamespace(x=corrupted, y=trained.data.test.y)
        assert results[f"{text}/accuracy"] == pytest.approx(accuracy(trained.learner, split))
        assert results[f"zero events/{text}/accuracy"] == pytest.approx(accuracy(control, split))
    assert results["clean:0/accuracy"] == pytest.approx(trained.metrics["test/accuracy"])
    assert results["zero events/clean:0/accuracy"] == pytest.approx(trained.metrics["control/accuracy"])


def test_receptive_fields_are_shown_before_and_after_learning_in_one_picture(trained, monkeypatch):
    drawn, saved = {}, {}
    monkeypatch.setattr(measures, "weights_picture", lambda weights, shape, title: drawn.update(weights) or title)
    monkeypatch.setattr(trained.run, "save_image", saved.__setitem__)
    measures.save_features(trained.run)
    assert list(drawn) == ["before training", "after training"]
    assert torch.equal(drawn["after training"], trained.learner.first_weights)
    assert torch.equal(drawn["before training"], build(trained.run, trained.data, trained=False).first_weights)
    assert saved["features"].startswith("Receptive fields of ")


def test_the_ticks_of_the_raster_have_equal_distances():
    for last in (3, 12, 15, 60, 469, 938):
        ticks = figures._whole_numbers(last)
        assert len(set(np.diff(ticks))) == 1
        assert 1 <= ticks[0] <= ticks[-1] <= last
    assert figures._whole_numbers(3) == [1, 2, 3]


def test_the_film_shows_accuracy_the_control_and_the_events_up_to_its_epoch(trained):
    curves, control = film._accuracies(trained.run)
    assert control == pytest.approx(trained.metrics["control/accuracy"])
    assert set(curves["split"]) == {"test", "train"}
    curve = curves[curves["split"] == "test"].set_index("step")["value"]
    assert curve[EPOCHS] == pytest.approx(trained.metrics["test/accuracy"])
    assert 0 in curve.index, "the untrained network"
    raster = event_raster(trained.run)
    axes = Figure().subplots()
    show = film._show_events(axes, raster)
    for epoch in range(EPOCHS + 1):
        show(epoch)
        cells = axes.images[0].get_array()
        assert cells.shape == (EPOCHS, 15)
        for number in range(EPOCHS):
            expected = raster.loc[raster["epoch"] == number + 1, "event"].to_numpy() * (number < epoch)
            assert cells[number].tolist() == expected.tolist()
        assert axes.get_title(loc="left") == f"events: {int(cells.sum())}"


def test_the_table_of_images_with_events_counts_them():
    had_event = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    y, doubtful = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)
    rows = event_image_table(had_event, y, doubtful).set_index("epoch")
    assert rows["share"].tolist() == pytest.approx([1 / 2, 2 / 3, 0])
    assert rows["doubtful"].tolist() == pytest.approx([1 / 3, 1 / 2, math.nan], nan_ok=True)
    assert rows["again"].tolist() == pytest.approx([math.nan, 1 / 2, math.nan], nan_ok=True)
    assert rows["largest_class"].tolist() == pytest.approx([2 / 3, 1 / 2, math.nan], nan_ok=True)
    assert rows["random_doubtful"].tolist() == pytest.approx([1 / 3] * 3)
    assert rows["random_again"].tolist() == pytest.approx([math.nan, 1 / 2, 2 / 3], nan_ok=True)
    assert rows["random_largest_class"].tolist() == pytest.approx([1 / 2] * 3)


def test_images_with_events_are_those_that_the_controller_saw(trained):
    """The signal is the number of the image, so the highest half of the numbers has events."""
    run, images = trained.run, 40
    x = torch.arange(images, dtype=torch.float32)[:, None].expand(images, 64)
    data = replace(trained.data, train=Split(x.clone(), torch.zeros(images, dtype=torch.long)))
    config = Train.from_values({**run.config, "epochs": 3, "batch_size": 40, "event_warmup": 0}, source="test")
    learner = make_learner(config, data, run)
    learner._signals = lambda *_: learner.network.hidden[0].stored.pre[:, 0]
    learner.controller.rate = 0.5
    found = images_with_events(learner, learner.controller, config, data, run)
    # In the first batch nothing is known of the signal.
    assert found.sum(1).tolist() == [0, 19, 19] or found.sum(1).tolist() == [0, 20, 20]
    assert bool(found[1:, 21:].all())
    assert not bool(found[:, :20].any())


def test_doubtful_images_are_those_whose_label_is_wrong(trained):
    y = trained.data.train.y.clone()
    wrong = torch.arange(0, len(y), 50)
    y[wrong] = (y[wrong] + 1) % 10
    data = replace(trained.data, train=Split(trained.data.train.x, y))
    config = Train.from_values({**trained.run.config, "epochs": 5, "hidden": [32], "batch_size": 16}, source="test")
    config = config.model_copy(update={"learning_rate": 0.01})
    doubtful = doubtful_images(config, data, trained.run)
    assert doubtful[wrong].double().mean() > 0.9
    assert doubtful.double().mean() < 0.15


def test_which_images_have_events_of_a_run(trained):
    results = analyzed(trained, "--event-images")
    rows = table(trained, "event_images").set_index("epoch")
    assert list(rows.index) == list(range(1, EPOCHS + 1))
    assert results["images with events/doubtful"] == pytest.approx(rows["doubtful"].iloc[-1])
    assert rows.loc[1, "share"] > 0
