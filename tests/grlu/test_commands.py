"""The commands of grlu: its options, the analysis of updates, the autoencoder, and the figure of the report."""

import json
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from plotnine import geom_hline

from plastic_cli.analysis.angles import signal_to_noise
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.data.datasets import load_dataset
from plastic_cli.numerics.clock import compilation_begins, compilation_ends
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic
from plastic_grlu import GRLULearner, rule, training
from plastic_grlu.analysis import measures
from plastic_grlu.analysis.figures import perturbations_figure
from plastic_grlu.analysis.measures import PERTURBATIONS
from plastic_grlu.backbone import make_autoencoder, train_autoencoder
from plastic_grlu.training import build

SMALL = ["--hidden", "6", "--epochs", "3"]


@pytest.fixture
def trained(tiny_data, tmp_path, monkeypatch):
    """Train on the tiny set with options; return the run's folder."""
    monkeypatch.chdir(tmp_path)

    def train(*options):
        outcome = plastic("train", "grlu", "--dataset", tiny_data, *SMALL, *options, "--json")
        assert outcome.code == 0, outcome.err
        return tmp_path / "runs" / json.loads(outcome.out)["run"]

    return train


def angle_by_arc_cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return float(torch.rad2deg(torch.arccos(a @ b / a.norm() / b.norm())))


def test_the_angle_to_the_gradient_decreases_with_perturbations(trained):
    folder = trained("--perturbations", "4", "--credit", "preactivation", "--noise", "0.01", "--learning-rate", "3")
    outcome = plastic("analyze", "grlu", "--angles", "--images", "6", "--samples", "8", "--json")
    assert outcome.code == 0
    table = pd.read_csv(folder / "tables" / "angles.csv")
    assert set(table["perturbations"]) == {*PERTURBATIONS, 4}
    for _, rows in table.groupby(["network", "layer"]):
        by_count = rows.set_index("perturbations").sort_index()
        # Updates by node perturbation point along the gradient; the angle decreases with the number of perturbations.
        assert (np.diff(by_count["angle"]) < 0).all()
        assert by_count.loc[1, "angle"] < 85
        assert by_count.loc[128, "angle"] < 30
        assert (np.diff(by_count["signal_to_noise"]) > 0).all()
    # The log has the trained network with the run's own number of perturbations.
    mine = table[(table["network"] == "trained") & (table["perturbations"] == 4)].set_index("layer")
    metrics = json.loads(outcome.out)["metrics"]
    logged = RunStore(folder.parent).metrics(stage="analyze")
    for layer in (1, 2):
        assert metrics[f"layer {layer}/angle"] == pytest.approx(mine.loc[layer, "angle"])
        assert metrics[f"layer {layer}/signal_to_noise"] == pytest.approx(mine.loc[layer, "signal_to_noise"])
    angles = logged[logged["metric"] == "angle"]
    assert set(angles["split"]) == {"train"}
    np.testing.assert_allclose(sorted(angles["value"]), sorted(mine["angle"]))


@pytest.mark.parametrize("options", [[], ["--k", "0.5"]])
def test_hidden_layers_without_noise_have_no_angle(trained, options):
    folder = trained("--perturbations", "2", "--noise-layers", "readout", *options)
    assert plastic("analyze", "grlu", "--angles", "--images", 3, "--samples", 4, "--quiet").code == 0
    table = pd.read_csv(folder / "tables" / "angles.csv").set_index("layer")
    assert table.loc[1, ["angle", "signal_to_noise"]].isna().all(axis=None)
    assert table.loc[2, "angle"].between(1, 89).all()


@pytest.mark.parametrize("options", [["--optimizer", "adam"], ["--model", "cnn"]])
def test_noise_in_the_readout_alone_teaches_the_readout_of_any_network(trained, options, tiny_data):
    folder = trained("--perturbations", "2", "--noise-layers", "readout", *options)
    run = open_run(folder, stage="analyze")
    data = load_dataset(str(tiny_data), None)
    before, after = (dict(build(run, data, trained=trained).network.named_parameters()) for trained in (False, True))
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    # The last two parameters of both networks are the weight and the bias of the readout.
    assert changed == set(list(after)[-2:])
    assert plastic("analyze", "grlu", "--angles", "--images", 3, "--samples", 4, "--quiet").code == 0
    table = pd.read_csv(folder / "tables" / "angles.csv")
    assert set(table["layer"].dropna()) == {2}


@pytest.mark.parametrize("options", [[], ["--k", "0.5"], ["--reward-groups", "3"]])
def test_angles_and_signal_to_noise_equal_an_independent_computation(trained, options, tiny_data):
    folder = trained("--perturbations", "2", *options)
    images, samples = 5, 6
    assert plastic("analyze", "grlu", "--angles", "--images", images, "--samples", samples, "--quiet").code == 0
    table = pd.read_csv(folder / "tables" / "angles.csv").set_index(["network", "perturbations", "layer"])
    run = open_run(folder, stage="analyze")
    data = load_dataset(str(tiny_data), None)
    chosen = stratified_sample(data.train, images)
    for network in ("trained", "untrained"):
        learner = build(run, data, trained=network == "trained")
        angles, ratios = {1: [], 2: []}, {1: [], 2: []}
        for image in range(images):
            x, y = chosen.x[image, None], chosen.y[image, None]
            noises, gumbels = learner.draw(2 * samples, measures.derived_seed(run.seed, f"{network} 2 {image}"))
            updates = {1: [], 2: []}
            for draw in range(samples):
                rows = slice(2 * draw, 2 * draw + 2)
                n = [part[rows] for part in noises]
                masks = learner.masks(x, n, None if gumbels is None else [part[rows] for part in gumbels])
                parameters = learner.weights, learner.biases
                if "--reward-groups" in options:
                    up, _, _ = rule.update_of_groups(*parameters, x, y, n, 3)
                else:
                    up, _, _ = rule.grlu_update(*parameters, x, y, n, masks)
                repeat = 1 if masks is None else 2
                down, _, _ = rule.gradient_update(
                    learner.weights, learner.biases, x.expand(repeat, -1), y.expand(repeat), masks
                )
                for layer in (1, 2):
                    updates[layer].append(up[layer - 1])
                    angles[layer].append(angle_by_arc_cosine(up[layer - 1], down[layer - 1]))
            for layer in (1, 2):
                ratios[layer].append(signal_to_noise(torch.stack(updates[layer])))
        for layer in (1, 2):
            row = table.loc[(network, 2, layer)]
            assert row["angle"] == pytest.approx(np.nanmean(angles[layer]), abs=1e-3)
            assert row["angle_sd"] == pytest.approx(np.nanstd(angles[layer], ddof=1), abs=1e-3)
            assert row["signal_to_noise"] == pytest.approx(np.nanmean(ratios[layer]), rel=1e-5)


def test_a_run_with_another_form_of_noise_is_analyzed_and_loaded(trained, tiny_data):
    options = ["--credit", "preactivation", "--perturbations", "1", "--noise-layers", "one", "--noise-units", "active"]
    folder = trained(*options, "--noise-sources", "readout", "--readout-noise", "0.5", "--decorrelation", "0.01")
    assert plastic("analyze", "grlu", "--angles", "--images", "8", "--samples", "8", "--quiet").code == 0
    table = pd.read_csv(folder / "tables" / "angles.csv").set_index(["network", "perturbations", "layer"])
    # A layer has an update in every second turn, and its angle is that of these updates.
    assert table["angle"].notna().all()
    assert table.loc[("untrained", 128, 2), "angle"] < table.loc[("untrained", 1, 2), "angle"] < 90
    run, data = open_run(folder, stage="analyze"), load_dataset(str(tiny_data), None)
    learner, untrained = build(run, data), build(run, data, trained=False)
    assert not torch.equal(learner.decorrelation.matrices[0], torch.eye(data.train.x.shape[1]))
    assert torch.equal(learner.form.sources[0], untrained.form.sources[0])
    found = training.network(run)(data.test.x)
    torch.testing.assert_close(found, learner.predict(data.test.x))
    accuracy = float((found.argmax(1) == data.test.y).double().mean())
    assert accuracy == RunStore(folder.parent).runs()["test/accuracy"].item()


def test_the_control_decreases_the_loss(trained):
    folder = trained("--update", "backprop", "--noise", "0.5", "--learning-rate", "0.5")
    metrics = RunStore(folder.parent).metrics(stage="train")
    loss = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")].set_index("step")["value"]
    assert loss.loc[3] < loss.loc[0]


def stored(**changes):
    """Rows as `RunStore.runs()` returns them."""
    row = {
        "dataset": "mnist",
        "test/accuracy": 0.9,
        "config.hidden": (256,),
        "config.skip": False,
        "config.activation": "relu",
        "config.k": None,
        "config.credit": "output",
        "config.backbone": "none",
        "config.update": "grlu",
        "config.perturbations": 1,
        "config.epochs": 10,
        "config.batch_size": 1,
        "config.noise": 0.1,
        "config.learning_rate": 0.1,
    }
    return {**row, **{name.replace("__", "."): value for name, value in changes.items()}}


def test_the_figure_has_the_mean_of_each_network_and_the_control():
    rows = []
    for count, accuracies in ((1, (0.80, 0.82)), (16, (0.90, 0.94))):
        rows += [stored(config__perturbations=count) | {"test/accuracy": value} for value in accuracies]
    rows += [stored(config__update="backprop") | {"test/accuracy": value} for value in (0.97, 0.99)]
    # A run with other settings is not on the line.
    rows.append(stored(config__perturbations=16, config__epochs=3) | {"test/accuracy": 0.1})
    # Nor is a control in which hidden layers have no noise, or a rule with several rewards.
    for name, value in (("noise_layers", "readout"), ("reward_groups", 4), ("final_noise", 0.1)):
        rows.append(stored(config__perturbations=16, **{f"config__{name}": value}) | {"test/accuracy": 0.1})
    figure = perturbations_figure(pd.DataFrame(rows))
    points = figure.data.set_index("config.perturbations")
    assert points["mean"].to_dict() == pytest.approx({1: 0.81, 16: 0.92})
    assert set(points["network"]) == {"256, ReLU then noise"}
    controls = [layer._data for layer in figure.layers if isinstance(layer.geom, geom_hline)]
    assert [data["mean"].tolist() for data in controls] == [[pytest.approx(0.98)]]
    assert figure.labels.caption == "", "two seeds have no interval"
    rows += [stored(config__perturbations=16) | {"test/accuracy": 0.92}]
    assert perturbations_figure(pd.DataFrame(rows)).labels.caption.startswith("Bars: 95% t interval of the mean, if")


def test_other_networks_have_lines_of_their_own_and_other_optimizers_none():
    rows = [stored(config__perturbations=count, config__model=model) for count in (1, 16) for model in ("mlp", "lenet")]
    rows += [stored(config__perturbations=count, config__model="cnn", config__hidden=(8, 9)) for count in (1, 16)]
    # Stored before there were other networks and choices of classes.
    rows.append(stored(config__perturbations=128))
    for name, value in (("optimizer", "adam"), ("momentum", 0.9), ("weight_decay", 0.1), ("classes", (0, 1))):
        rows.append(stored(config__perturbations=16, **{f"config__{name}": value}) | {"test/accuracy": 0.1})
    points = perturbations_figure(pd.DataFrame(rows)).data
    lines = {name: sorted(line["config.perturbations"]) for name, line in points.groupby("network")}
    assert lines == {
        "256, ReLU then noise": [1, 16, 128],
        "lenet, ReLU then noise": [1, 16],
        "cnn 8-9, ReLU then noise": [1, 16],
    }
    assert set(points["mean"]) == {0.9}


def test_kinds_of_feedback_have_a_line_each():
    kinds = {
        ("direct", 1.0): "256, ReLU, learned feedback",
        ("layer", 0.5): "256, ReLU, learned feedback, layer to layer",
        ("direct", 0.0): "256, ReLU, random feedback",
        ("transposed", 1.0): "256, ReLU, transposed weights",
        ("none", 1.0): "256, ReLU, random features",
    }
    rows = [
        stored(config__credit="learned", config__perturbations=count, config__feedback=path, config__feedback_rate=rate)
        for path, rate in kinds
        for count in (1, 16)
    ]
    assert set(perturbations_figure(pd.DataFrame(rows)).data["network"]) == set(kinds.values())


def test_a_data_set_without_a_line_has_no_panel():
    rows = [stored(config__perturbations=count) for count in (1, 16)]
    rows.append(stored(config__perturbations=16) | {"dataset": "digits"})
    assert set(perturbations_figure(pd.DataFrame(rows)).data["dataset"]) == {"mnist"}


def test_there_is_no_figure_if_no_line_has_two_points():
    assert perturbations_figure(pd.DataFrame([stored(), stored()])) is None


def test_the_report_asks_for_the_figure():
    figures = find_rule("grlu").member("headline_figures")
    two_points = pd.DataFrame([stored(), stored(config__perturbations=16)])
    assert set(figures(two_points, pd.DataFrame())) == {"perturbations"}
    assert figures(two_points[:1], pd.DataFrame()) == {}


def test_learners_with_other_options_are_not_in_the_figure():
    other = {"dataset": "mnist", "test/accuracy": 0.1, "config.epochs": 10, "config.batch_size": 1}
    assert perturbations_figure(pd.DataFrame([other, other])) is None
    rows = [stored(), stored(config__perturbations=16), other]
    assert perturbations_figure(pd.DataFrame(rows)).data["mean"].tolist() == [0.9, 0.9]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["--k", "0.3"], ("top-k", 0.3)),
        (["--activation", "top-k"], ("top-k", 0.5)),
        ([], ("relu", None)),
    ],
)
def test_k_implies_top_k(typed, found, trained):
    config = json.loads((trained(*typed) / "run.json").read_text())["config"]
    assert (config["activation"], config["k"]) == found


def test_the_learner_of_a_run_has_all_its_options(trained, tiny_data):
    schedules = ["--noise", "0.3", "--final-noise", "0.2", "--learning-rate", "0.05", "--final-learning-rate", "0.01"]
    other = ["--perturbations", "3", "--k", "0.4", "--credit", "preactivation", "--batch-size", "4"]
    data = load_dataset(str(tiny_data), None)
    for options, update, skip in (
        (schedules + other, "grlu", False),
        (["--skip", "--hidden", "6,6", "--update", "backprop"], "backprop", True),
    ):
        run = open_run(trained(*options), stage="analyze")
        learner = build(run, data, trained=False)
        assert (learner.update, learner.skip) == (update, skip)
        if update == "grlu":
            assert (learner.noise_range, learner.learning_rate_range) == ((0.3, 0.2), (0.05, 0.01))
            assert (learner.perturbations, learner.top_k, learner.credit) == (3, 0.4, "preactivation")
            assert learner.batch_size == 4
        sizes = [36, 6, 6, 3] if skip else [36, 6, 3]
        assert [tuple(weights.shape) for weights in learner.weights] == [(n, m) for m, n in pairwise(sizes)]


@pytest.mark.parametrize(("options", "lines"), [([], 1), (["--quiet"], 0), (["--json"], 0)])
def test_compilation_is_announced_before_it_begins(tiny_data, monkeypatch, options, lines):
    announced = []

    def compile_kernels(*_):
        compilation_begins()
        announced.append(sys.stderr.getvalue().count("compiling the kernels of grlu"))
        compilation_ends()

    monkeypatch.setattr(GRLULearner, "prepare", compile_kernels)
    assert plastic("train", "grlu", "--dataset", tiny_data, *SMALL, *options).code == 0
    assert announced == [lines]


def test_the_autoencoder_learns_to_reconstruct_and_is_then_frozen(trained, tiny_data):
    folder = trained("--backbone", "autoencoder", "--latent", "7", "--backbone-epochs", "20")
    metrics = RunStore(folder.parent).metrics(stage="train")
    loss = metrics[metrics["split"] == "backbone"].sort_values("step")["value"]
    assert (loss > 0).all()
    assert len(loss) == 20
    assert loss.iloc[-1] < 0.9 * loss.iloc[0]
    run = open_run(folder, stage="analyze")
    data = load_dataset(str(tiny_data), None)
    learners = [build(run, data, trained=trained) for trained in (True, False)]
    for learner in learners:
        assert learner.weights[0].shape == (6, 7)
        assert not any(parameter.requires_grad for parameter in learner.encoder.parameters())
    # The untrained network receives the same code, from the trained autoencoder.
    codes = [learner.encode(data.test.x) for learner in learners]
    assert torch.equal(*codes)
    drawn = make_autoencoder(36, 7, run.generator("backbone"), "cpu")["encoder"](data.test.x)
    assert not torch.allclose(codes[0], drawn, atol=1e-3)


def test_an_autoencoder_is_frozen_before_grlu_learns(tiny_data, runs_folder):
    data = load_dataset(str(tiny_data), None)
    run = create_run(runs_folder, rule="grlu", config={"seed": 0})
    autoencoder = make_autoencoder(36, 7, run.generator("backbone"), "cpu")
    with run.locked():
        train_autoencoder(autoencoder, data, run, 2)
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())
