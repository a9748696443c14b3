"""`plastic analyze --model --weights --dataset`: a network that was trained elsewhere, and belongs to no run."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.data.datasets import load_dataset
from plastic_cli.testing import plastic

NETWORK = """
import torch
from torch import nn


class LeNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(24, 12), nn.Linear(12, num_classes)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.relu(self.norm(self.conv2(x)))
        return self.fc2(torch.tanh(self.fc1(x.flatten(1))))


class Raw(LeNet):
    def forward(self, x):
        return super().forward(x[:, :1]) + x.mean((1, 2, 3))[:, None]


class Color(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 5), nn.Linear(4, 10)

    def forward(self, x):
        assert x.shape[1:] == (3, 12, 12), x.shape
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""
LAYERS = ["conv1", "conv2", "fc1"]
NET = ["--weights", "net.pt", "--dataset", "digits"]
LENET = ["--model", "network_of_my_own:LeNet"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a module and its weights, trained for an instant without plastic."""
    folder = tmp_path_factory.mktemp("own-network")
    (folder / "network_of_my_own.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    try:
        import network_of_my_own as source
    finally:
        sys.path.remove(str(folder))
    data = load_dataset("digits")
    torch.manual_seed(0)
    network = source.LeNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for batch in torch.randperm(len(data.train)).split(32):
        loss = functional.cross_entropy(network(images(data.train.x[batch])), data.train.y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    torch.save(network.state_dict(), folder / "net.pt")
    return SimpleNamespace(folder=folder, network=network, data=data, source=source)


@pytest.fixture(autouse=True)
def _without_drawing(request, monkeypatch):
    """Figures take seconds to draw: only the tests that look at their files draw them."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("plastic_cli.figures.files.save_figure", lambda *arguments: [])


@pytest.fixture
def drawn():
    """Draw the figures."""


def images(x):
    return x.unflatten(1, (1, 8, 8))


@pytest.fixture(autouse=True)
def _in_its_folder(own, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(own.folder))


def analyzed(own, *options, model="LeNet", weights="net.pt"):
    outcome = plastic(
        *("analyze", "--model", f"network_of_my_own:{model}", "--weights", own.folder / weights),
        *("--dataset", "digits", "--json", *options),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome.results[0]


def test_without_a_choice_it_measures_accuracy_and_sparsity(own, tmp_path, drawn):
    result = analyzed(own)
    assert result["folder"] == "analysis/net", "the name of the file of weights"
    logits = own.network(images(own.data.test.x)).detach()
    correct = (logits.argmax(1) == own.data.test.y).double()
    assert result["metrics"]["test/accuracy"] == pytest.approx(correct.mean().item())
    assert result["metrics"]["test/accuracy"] > 0.5
    by_class = pd.read_csv(tmp_path / "analysis/net/tables/accuracy_by_class.csv")["accuracy"]
    for number, accuracy in enumerate(by_class):
        assert accuracy == pytest.approx(correct[own.data.test.y == number].mean().item())
    sparsity = pd.read_csv(tmp_path / "analysis/net/tables/sparsity.csv")
    assert sparsity["name"].tolist() == LAYERS
    first = torch.relu(own.network.conv1(images(own.data.test.x)))
    assert sparsity["silent"][0] == pytest.approx((first == 0).double().mean().item(), rel=1e-5)
    assert "figures/confusion.png" in result["files"]
    assert {(tmp_path / "analysis/net" / name).is_file() for name in result["files"]} == {True}
    assert not (tmp_path / "runs").exists(), "there is no run"


def test_the_folder_says_what_was_analyzed(own, tmp_path):
    result = analyzed(own, "--confusion", "--output", tmp_path / "mine" / "lenet")
    facts = json.loads((tmp_path / "mine" / "lenet" / "analysis.json").read_text())
    assert facts["weights_sha256"] == hashlib.sha256((own.folder / "net.pt").read_bytes()).hexdigest()
    assert facts["dataset_checksum"] == own.data.checksum
    assert facts["model"] == "network_of_my_own:LeNet"
    assert facts["results"] == result["metrics"]
    assert facts["options"]["confusion"] is True
    assert not (tmp_path / "analysis").exists()


def stored():
    return json.loads(Path("analysis/net/analysis.json").read_text())


def test_results_of_other_measures_of_the_same_network_are_kept(own):
    accuracy = analyzed(own, "--confusion")
    cka = analyzed(own, "--cka", "--seed", 5)
    facts = stored()
    assert facts["results"] == {**accuracy["metrics"], **cka["metrics"]}
    assert set(facts["files"]) == {*accuracy["files"], *cka["files"]}
    assert (facts["options"]["cka"], facts["options"]["seed"]) == (True, 5)
    (first,) = facts["earlier"]
    assert first["results"] == list(accuracy["metrics"])
    assert (first["options"]["confusion"], first["options"]["cka"]) == (True, False)
    sparsity = analyzed(own, "--sparsity")
    again = analyzed(own, "--cka", "--seed", 6)
    facts = stored()
    assert facts["results"] == {**accuracy["metrics"], **sparsity["metrics"], **again["metrics"]}
    assert [entry["results"] for entry in facts["earlier"]] == [list(accuracy["metrics"]), list(sparsity["metrics"])]


@pytest.mark.parametrize("damaged", [False, True])
def test_an_analysis_of_other_images_is_replaced_with_a_message(damaged, own):
    typed = [*LENET, "--weights", own.folder / "net.pt", "--dataset", "digits", "--sparsity"]
    assert "replaces" not in plastic("analyze", *typed[:-1], "--confusion").err
    if damaged:
        Path("analysis/net/analysis.json").write_text("{")
    outcome = plastic("analyze", *typed, "--mean", 0, "--std", 1)
    assert outcome.code == 0, outcome.err
    assert (
        "replaces analysis/net/analysis.json, whose results may be of another network, data set, --mean" in outcome.err
    )
    assert "test/accuracy" not in stored()["results"]
    assert "earlier" not in stored()


def test_probe_and_cka_compare_with_the_network_that_the_factory_makes(own, tmp_path):
    result = analyzed(own, "--probe", "--cka", "--seed", 5)
    probe = pd.read_csv(tmp_path / "analysis/net/tables/probe.csv").set_index(["network", "name"])["accuracy"]
    assert sorted(set(probe.index.get_level_values(0))) == ["pixels", "trained", "untrained"]
    assert probe["trained", "fc1"] > probe["untrained", "fc1"] + 0.1
    assert result["metrics"]["probe/layer 3 trained"] == probe["trained", "fc1"]
    cka = pd.read_csv(tmp_path / "analysis/net/tables/cka.csv")
    assert cka["other"].unique().tolist() == ["the untrained network"]
    assert cka.set_index(["name", "other name"])["cka"]["fc1", "fc1"] < 0.9
    again = analyzed(own, "--cka", "--seed", 5)["metrics"]
    assert again == {name: value for name, value in result["metrics"].items() if name.startswith("cka")}
    assert analyzed(own, "--cka", "--seed", 6)["metrics"] != again


def test_cka_compares_with_other_weights(own, tmp_path):
    torch.manual_seed(1)
    other = own.source.LeNet().eval()
    torch.save(other.state_dict(), own.folder / "other.pt")
    analyzed(own, "--cka", "--other", own.folder / "other.pt")
    x = images(stratified_sample(own.data.test, 2000).x)

    def activity(network):
        first = torch.relu(network.conv1(x))
        second = torch.relu(network.norm(network.conv2(torch.max_pool2d(first, 2))))
        return [part.detach() for part in (first, second, torch.tanh(network.fc1(second.flatten(1))))]

    expected = cka_matrix(activity(own.network), activity(other), debiased=True).numpy()
    rows = pd.read_csv(tmp_path / "analysis/net/tables/cka.csv")
    assert rows["other"].unique().tolist() == ["other.pt"]
    cka = rows.set_index(["name", "other name"])["cka"]
    for (row, column), value in np.ndenumerate(expected):
        assert cka[LAYERS[row], LAYERS[column]] == pytest.approx(value, abs=1e-5)


def test_robustness_begins_with_the_clean_accuracy(own, tmp_path):
    metrics = analyzed(own, "--robustness")["metrics"]
    assert metrics["clean:0/accuracy"] == pytest.approx(
        (own.network(images(own.data.test.x)).argmax(1) == own.data.test.y).double().mean().item()
    )
    rows = pd.read_csv(tmp_path / "analysis/net/tables/robustness.csv")
    assert set(rows["kind"]) == {"clean", "gaussian-noise", "pixel-noise", "rotation"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("parallel", lambda state: {f"module.{name}": part for name, part in state.items()}),
        ("compiled", lambda state: {f"_orig_mod.module.{name}": part for name, part in state.items()}),
        ("checkpoint", lambda state: {"epoch": 3, "state_dict": state}),
        (
            "half",
            lambda state: {name: part.half() if part.is_floating_point() else part for name, part in state.items()},
        ),
        ("old", lambda state: {name: part for name, part in state.items() if "num_batches" not in name}),
    ],
)
def test_weights_are_found_as_other_programs_store_them(name, content, own):
    torch.save(content(own.network.state_dict()), own.folder / f"{name}.pt")
    found = analyzed(own, "--confusion", weights=f"{name}.pt")["metrics"]["test/accuracy"]
    plain = analyzed(own, "--confusion")["metrics"]["test/accuracy"]
    assert found == pytest.approx(plain, abs=0.01 if name == "half" else 0)


def test_images_have_the_normalization_and_the_size_that_the_network_was_trained_with(own):
    # The same weights on pixels from 0 to 1: with the mean and deviation of the data set it is the same network.
    mean, std = own.data.mean[0], own.data.std[0]
    plain = analyzed(own, "--confusion")["metrics"]
    same = analyzed(own, "--confusion", "--mean", mean, "--std", std)["metrics"]
    assert same["test/accuracy"] == pytest.approx(plain["test/accuracy"], abs=0.003)
    pixels = own.data.to_pixels(own.data.test.x)
    expected = (own.network(images((pixels - 0.5) / 0.25)).argmax(1) == own.data.test.y).double().mean().item()
    other = analyzed(own, "--confusion", "--mean", 0.5, "--std", 0.25)["metrics"]["test/accuracy"]
    assert other == pytest.approx(expected, abs=0.003)
    assert other != pytest.approx(plain["test/accuracy"], abs=0.003)


def test_gray_images_are_resized_and_get_three_channels(own):
    color = own.source.Color()
    torch.save(color.state_dict(), own.folder / "color.pt")
    options = ["--image-size", 12, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.1"]
    found = analyzed(own, "--confusion", *options, model="Color", weights="color.pt")["metrics"]["test/accuracy"]
    pixels = images(own.data.to_pixels(own.data.test.x)).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(part)[:, None, None] for part in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    x = functional.interpolate((pixels - mean) / std, (12, 12), mode="bilinear", antialias=True)
    expected = (color(x).argmax(1) == own.data.test.y).double().mean().item()
    assert found == pytest.approx(expected, abs=0.003)


def test_a_network_with_a_name_takes_weights_too(own):
    network = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(64, 5), nn.Linear(5, 10)])})
    torch.save(network.state_dict(), own.folder / "mlp.pt")
    outcome = plastic(
        *("analyze", "--model", "mlp", "--hidden", 5, "--weights", own.folder / "mlp.pt"),
        *("--dataset", "digits", "--confusion", "--json"),
    )
    assert outcome.code == 0, outcome.err
    hidden, readout = network["layers"]
    correct = readout(torch.relu(hidden(own.data.test.x))).argmax(1) == own.data.test.y
    assert outcome.results[0]["metrics"]["test/accuracy"] == pytest.approx(correct.double().mean().item())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (NET, "needs --model, as in `plastic analyze"),
        ([*LENET, "--dataset", "digits"], "needs --weights, as in"),
        ([*LENET, "--weights", "net.pt"], "needs --dataset, as in"),
        (["--probe"], "needs --model and --weights and --dataset"),
        ([*LENET, "--weights", "missing.pt", "--dataset", "digits"], "--weights missing.pt: there is no such file."),
        ([*LENET, "--weights", "whole.pt", "--dataset", "digits"], "torch.save(model.state_dict(), 'weights.pt')"),
        ([*LENET, "--weights", "whole.pt", "--dataset", "digits"], "They can run code and are not loaded"),
        ([*LENET, "--weights", "text.pt", "--dataset", "digits"], "text.pt is not a file of weights"),
        ([*LENET, "--weights", "list.pt", "--dataset", "digits"], "list.pt holds a list"),
        ([*LENET, "--weights", "numbers.pt", "--dataset", "digits"], "holds other things than weights by name"),
        ([*LENET, "--weights", "w.safetensors", "--dataset", "digits"], "w.safetensors"),
        (
            [*LENET, "--weights", "smaller.pt", "--dataset", "digits"],
            "it has no conv1.weight, conv1.bias, conv2.weight and 4 more; the network has no fc3.weight; fc2.weight",
        ),
        ([*LENET, "--weights", "net.pt", "--dataset", "digit"], "Did you mean 'digits'?"),
        (["--model", "network_of_my_own:LeNett", *NET], "Did you mean 'LeNet'?"),
        (["--model", "lenett", *NET], "or MODULE:FACTORY such as torchvision.models:resnet18. Did you mean 'lenet'?\n"),
        (["--model", "vgg", *NET], "or MODULE:FACTORY such as torchvision.models:resnet18.\n"),
        ([*LENET, *NET, "--other", "net.pt"], "does nothing without --cka"),
        ([*LENET, *NET, "--mean", "0.5"], "--mean and --std belong together"),
        (
            [*LENET, *NET, "--mean", "0.5", "--std", "0"],
            "--std needs numbers above 0",
        ),
        ([*LENET, *NET, "--hidden", "3"], "--hidden 3 does nothing"),
        ([*LENET, *NET, "--image-size", "2"], "with images of 1 x 2 x 2 it failed with"),
        ([*LENET, *NET, "--output", "text.pt"], "cannot write to text.pt"),
        ([*LENET, *NET, "--prob"], "Did you mean '--probe'?"),
        ([*LENET, "backprop"], "--model before 'backprop': type the options of a run after its rule"),
        (["--probe", "backprop"], "--probe before 'backprop'"),
        (["backpro"], "there is no rule 'backpro'"),
    ],
)
def test_wrong_input_is_one_line(options, words, own, monkeypatch):
    monkeypatch.chdir(own.folder)
    torch.save(own.network, "whole.pt")
    torch.save([1, 2], "list.pt")
    torch.save({"epoch": 3}, "numbers.pt")
    state = own.network.state_dict()
    names = ["conv2.bias", "norm.weight", "norm.bias", "fc1.weight"]
    torch.save(
        {**{name: state[name] for name in names}, "fc2.weight": state["fc2.weight"][:7], "fc3.weight": torch.ones(2)},
        "smaller.pt",
    )
    for name in ("text.pt", "w.safetensors"):
        (own.folder / name).write_text("not weights")
    outcome = plastic("analyze", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not (own.folder / "analysis").exists(), "nothing is written"


def test_the_help_lists_rules_and_the_options_of_a_network(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = plastic("analyze", "--help").out
    assert out == plastic("analyze").out
    for word in (
        "backprop",
        "grlu",
        "--model",
        "--weights",
        "--dataset",
        "--mean",
        "--image-size",
        "--output",
        "--json",
    ):
        assert word in out
    assert "plastic analyze --model my_file:Net --weights net.pt --dataset mnist" in out


def test_results_are_printed_with_the_names_of_layers(own):
    outcome = plastic("analyze", *LENET, "--weights", own.folder / "net.pt", "--dataset", "digits")
    assert outcome.code == 0, outcome.err
    assert "share of silent activity, layer 2 (conv2)" in outcome.out
    assert "of 360 images" in outcome.out
    assert "tables and figures in analysis/net" in outcome.out
    quiet = plastic("analyze", *LENET, "--weights", own.folder / "net.pt", "--dataset", "digits", "--quiet")
    assert (quiet.out, quiet.err) == ("analysis/net\n", "")
    lines = plastic(
        *("analyze", *LENET, "--weights", own.folder / "net.pt", "--dataset", "digits", "--confusion"),
        *("--format", "csv"),
    )
    assert lines.out.splitlines()[0] == "model,dataset,metric,value"
    assert lines.out.splitlines()[1].startswith("network_of_my_own:LeNet,digits,test/accuracy,0.")


def test_options_come_from_a_file_and_typed_ones_take_precedence(own, tmp_path):
    typed = [*LENET, "--weights", own.folder / "net.pt", "--dataset", "digits", "--probe", "--mean", 0.5, "--std", 0.5]
    shown = plastic("analyze", *typed, "--dry-run")
    assert shown.code == 0, shown.err
    (tmp_path / "mine.toml").write_text(shown.out)
    assert plastic("analyze", "--config", "mine.toml", "--dry-run").out == shown.out
    assert not (tmp_path / "analysis").exists()
    result = plastic("analyze", "--config", "mine.toml", "--no-probe", "--confusion", "--json").results[0]["metrics"]
    assert result == analyzed(own, "--confusion", "--mean", 0.5, "--std", 0.5)["metrics"]
    (tmp_path / "mine.toml").write_text("probee = true\n")
    outcome = plastic("analyze", "--config", "mine.toml")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "Did you mean 'probe'?" in outcome.err
