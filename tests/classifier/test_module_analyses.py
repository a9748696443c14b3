"""Analyses of networks that are modules: each number against an independent computation, each layer by its name."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from plastic_backprop.training import build as build_backprop
from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.sparsity import sparsity
from plastic_cli.classifier.angles import analyze_angles
from plastic_cli.classifier.data import trained_on
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.normalization import adapt_normalization
from plastic_cli.numerics.seeds import derived_seed
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic, write_tiny_dataset
from plastic_grlu.training import build as build_grlu

NETWORK = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.hidden, self.drop, self.fc = nn.Linear(16, 5), nn.Dropout(0.5), nn.Linear(5, num_classes)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.fc(self.drop(torch.tanh(self.hidden(x.flatten(1)))))
"""
LAYERS = ["conv", "hidden"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train the same module by the gradient and by node perturbation."""
    folder = tmp_path_factory.mktemp("module-analyses")
    (folder / "module_of_analyses.py").write_text(NETWORK)
    data = write_tiny_dataset(folder / "tiny")
    small = ["--dataset", data, "--epochs", 2, "--batch-size", 15, "--runs", folder / "runs", "--json"]
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for rule, options in (("backprop", []), ("grlu", ["--perturbations", 2])):
            outcome = plastic("train", rule, "--model", "module_of_analyses:Small", *small, *options)
            assert outcome.code == 0, outcome.err
            found[rule] = open_run(folder / "runs" / outcome.results[0]["run"], stage="analyze")
    return SimpleNamespace(folder=folder, data=trained_on(found["grlu"]), **found)


def analyzed(trained, rule, *options):
    outcome = plastic("analyze", rule, *options, "--runs", trained.folder / "runs", "--json")
    assert outcome.code == 0, outcome.err
    return outcome.results[0]["metrics"]


def table(run, name):
    return pd.read_csv(run.folder / "tables" / f"{name}.csv")


def activity(learner, x):
    """The activity of both hidden layers, by hand."""
    network = learner.network.eval()
    with torch.no_grad():
        conv = torch.relu(network.norm(network.conv(x.unflatten(1, (1, 6, 6)))))
        return [conv, torch.tanh(network.hidden(torch.max_pool2d(conv, 2).flatten(1)))]


def test_sparsity_has_the_activity_after_the_nonlinearity_by_name(trained):
    metrics = analyzed(trained, "grlu", "--sparsity")
    rows = table(trained.grlu, "sparsity")
    assert rows["name"].tolist() == LAYERS
    assert rows["layer"].tolist() == [1, 2]
    for row, layer in zip(rows.to_dict("records"), activity(learner_of(trained), trained.data.test.x), strict=True):
        for measure, value in vars(sparsity(layer)).items():
            assert row[measure] == pytest.approx(value, rel=1e-5), measure
        assert metrics[f"layer {row['layer']}/silent"] == row["silent"]
    assert rows["silent"][0] > 0.1


def learner_of(trained, *, untrained=False):
    learner = build_grlu(trained.grlu, trained.data, trained=not untrained)
    if untrained:
        adapt_normalization(learner, trained.data.train.x)
    return learner


def test_cka_and_probe_name_the_layers(trained):
    analyzed(trained, "grlu", "--cka", "--probe")
    cka = table(trained.grlu, "cka").set_index(["name", "other name"])["cka"]
    x = stratified_sample(trained.data.test, 2000).x
    mine, theirs = (activity(learner_of(trained, untrained=untrained), x) for untrained in (False, True))
    expected = cka_matrix(mine, theirs, debiased=True).numpy()
    for (row, column), value in np.ndenumerate(expected):
        assert cka[LAYERS[row], LAYERS[column]] == pytest.approx(value, abs=1e-5)
    probe = table(trained.grlu, "probe")
    assert probe[probe["network"] != "pixels"].groupby("network")["name"].agg(list).to_dict() == {
        "trained": LAYERS,
        "untrained": LAYERS,
    }
    logged = RunStore(trained.folder / "runs").metrics(stage="analyze")
    named = {json.loads(labels).get("name") for labels in logged.loc[logged["split"] == "probe", "labels"]}
    assert named == {*LAYERS, None}


def test_results_in_the_terminal_name_the_layers(trained):
    outcome = plastic("analyze", "grlu", "--sparsity", "--runs", trained.folder / "runs")
    assert outcome.code == 0, outcome.err
    assert "share of silent activity, layer 1 (conv)" in outcome.out
    assert "share of dead units, layer 2 (hidden)" in outcome.out


def test_angles_equal_an_independent_computation(trained):
    images, samples = 30, 3
    metrics = analyzed(trained, "grlu", "--angles", "--images", images, "--samples", samples)
    rows = table(trained.grlu, "angles").set_index(["network", "name"])
    sample = stratified_sample(trained.data.train, images)
    batches = torch.randperm(images, generator=trained.grlu.generator("angles")).split(15)
    for kind in ("trained", "untrained"):
        learner = learner_of(trained, untrained=kind == "untrained")
        network, credit = learner.network, learner.credit
        network.eval()
        network.norm.train()
        angles, ratios = {}, {}
        for number, batch in enumerate(batches):
            x, y = sample.x[batch].unflatten(1, (1, 6, 6)), sample.y[batch]
            network.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            exact = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
            credit.generator.manual_seed(derived_seed(trained.grlu.seed, f"angles {kind} {number}"))
            updates = {name: [] for name in exact}
            for _ in range(samples):
                network.zero_grad()
                credit.backward(x, lambda logits, y=y: functional.cross_entropy(logits, y, reduction="none"))
                for name, parameter in network.named_parameters():
                    updates[name].append(parameter.grad.clone())
            for name, of_draws in updates.items():
                angles.setdefault(name, []).extend(degrees(update, exact[name]) for update in of_draws)
                stacked = torch.stack(of_draws).double().flatten(1)
                noise = stacked.var(0).sum()
                signal = (stacked.mean(0).square().sum() - noise / samples).clamp_min(0)
                ratios.setdefault(name, []).append(float(signal / noise))
        for name in exact:
            row = rows.loc[kind, name]
            assert row["angle"] == pytest.approx(np.mean(angles[name]), abs=1e-3), name
            assert row["angle_sd"] == pytest.approx(np.std(angles[name], ddof=1), abs=1e-3), name
            assert row["signal_to_noise"] == pytest.approx(np.mean(ratios[name]), rel=1e-4, abs=1e-6), name
            assert (row["draws"], row["batches"]) == (samples, 2)
    weights = {"conv.weight": 1, "hidden.weight": 2, "fc.weight": 3}
    for name, row in rows.loc["trained"].iterrows():
        assert row["layer"] == weights.get(name) if name in weights else math.isnan(row["layer"])
    for name, layer in weights.items():
        assert metrics[f"layer {layer}/angle"] == pytest.approx(rows.loc[("trained", name), "angle"])
    assert metrics["train/angle"] == pytest.approx(rows.loc[("trained", "all"), "angle"])
    logged = RunStore(trained.folder / "runs").metrics(stage="analyze")
    logged = logged[(logged["metric"] == "angle") & (logged["split"] == "train")]
    assert sorted(logged["value"]) == pytest.approx(
        sorted([*(metrics[f"layer {n}/angle"] for n in (1, 2, 3)), metrics["train/angle"]])
    )
    assert (trained.grlu.folder / "figures" / "angles.png").is_file()


def degrees(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return float(torch.rad2deg(torch.arccos((a @ b / a.norm() / b.norm()).clamp(-1, 1))))


class Doubled:
    """The gradient of the first parameters, with the opposite sign for one of them: a rule without noise."""

    def __init__(self, network):
        self.network = network
        self.parameters = {name: value for name, value in network.named_parameters() if name != "norm.bias"}

    def backward(self, inputs, loss):
        losses = loss(self.network(inputs))
        gradients = torch.autograd.grad(losses.mean(), list(self.parameters.values()))
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            parameter.grad = -gradient if name == "hidden.weight" else 2 * gradient
        return losses.detach()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def detach(self):
        pass


def test_a_rule_without_noise_has_one_update_and_the_run_stays_as_it_was(trained):
    run, data = trained.backprop, trained.data
    learner = build_backprop(run, data)
    assert isinstance(learner, ModuleLearner)
    learner.credit = Doubled(learner.network)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    analyze_angles(run, data, {"trained": learner}, images=None, samples=5)
    rows = table(run, "angles").set_index("name")
    assert rows["draws"].eq(1).all()
    assert rows["batches"].eq(4).all(), "four batches of the run's size by default"
    assert rows["signal_to_noise"].isna().all()
    assert rows.loc[["conv.weight", "norm.weight", "fc.weight"], "angle"].tolist() == pytest.approx([0] * 3, abs=1e-3)
    assert rows.loc["hidden.weight", "angle"] == pytest.approx(180)
    assert "norm.bias" not in rows.index
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in learner.network.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "module_of_analyses:Small"], "learned by the gradient itself, so there is no angle"),
        ([], "has no credit rule whose update could be compared with the gradient. Rules that have one"),
    ],
)
def test_angles_of_a_run_without_a_credit_rule_are_refused_in_one_line(options, words, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.folder)
    small = ["--dataset", trained.folder / "tiny", "--epochs", 1, "--runs", tmp_path, "--quiet"]
    assert plastic("train", "backprop", *small, *options).code == 0
    outcome = plastic("analyze", "backprop", "--angles", "--runs", tmp_path, "--quiet")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not (next(tmp_path.glob("2*")) / "tables").exists(), "it is refused before anything is measured"


def test_a_network_without_hidden_layers_has_no_measures_of_layers(tmp_path, monkeypatch, tiny_data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linear_of_analyses.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, num_classes))\n"
    )
    outcome = plastic(
        "train", "backprop", "--model", "linear_of_analyses:make", "--dataset", tiny_data, "--epochs", 1, "--quiet"
    )
    assert outcome.code == 0, outcome.err
    assert plastic("analyze", "backprop", "--quiet").code == 0
    outcome = plastic("analyze", "backprop", "--probe", "--quiet")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "the network has no hidden layer" in outcome.err
