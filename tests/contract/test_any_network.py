"""Every rule that classifies trains any network: evaluation, analysis, film, exact resume, and errors of one line."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from plastic_cli import RunStore
from plastic_cli.data.datasets import load_dataset
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.testing import interrupted_after, plastic, training_numbers, write_tiny_dataset

SMALL = {
    "backprop": [],
    "grlu": ["--perturbations", 2],
    "eglp": ["--no-control"],
    "feedback": [],
}
"""The rules that take any network, with options that make their steps cheap."""
RULES = list(SMALL)
OWN = """
import torch
from torch import nn

class Net(nn.Module):
    size = (1, 6, 6)

    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.dropout = nn.Dropout(0.3)
        self.readout = nn.Linear(4 * 4 * 4, num_classes)

    def forward(self, x):
        if x.shape[1:] != self.size:
            raise ValueError(f"images of {self.size[1]} x {self.size[2]} only")
        return self.readout(self.dropout(self.first(x).relu().flatten(1)))

def broken():
    raise RuntimeError("no weights here")

def picky():
    net = Net(3)
    net.size = (1, 7, 7)
    return net

def normalized():
    return nn.Sequential(nn.Linear(36, 3), nn.BatchNorm1d(3))

def narrow():
    return nn.Linear(36, 2)
"""


@pytest.fixture
def data(tmp_path):
    return write_tiny_dataset(tmp_path / "data")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield "own_nets:Net"
    sys.modules.pop("own_nets", None)


def done(*words):
    outcome = plastic(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def trained(rule, *options, **chosen):
    small = ["--json", "--epochs", 1, "--batch-size", 30, *SMALL[rule]]
    (result,) = done("train", rule, *small, *options).results
    return result


def network_of(rule, folder):
    return find_rule(rule).member("network")(open_run(Path(folder), stage="analyze"))


@pytest.mark.parametrize("rule", RULES)
def test_a_lenet_is_trained_evaluated_analyzed_and_drawn(rule):
    result = trained(rule, "--model", "lenet", "--dataset", "digits", "--optimizer", "adam", "--batch-size", 300)
    (evaluated,) = done("eval", rule, "--json").results
    assert evaluated["metrics"]["test/accuracy"] == result["metrics"]["test/accuracy"]
    test = load_dataset("digits").test
    network = network_of(rule, result["folder"])
    accuracy = (network(test.x).argmax(1) == test.y).double().mean().item()
    assert accuracy == result["metrics"]["test/accuracy"]
    done("eval", rule, "--corruption", "rotation:20")
    done("analyze", rule, "--sparsity")
    assert len(pd.read_csv(Path(result["folder"]) / "tables" / "sparsity.csv")) == 4
    (drawn,) = done("render", rule, "--json").results
    assert any(name.endswith(".gif") for name in drawn["files"])
    kernels = torch.load(Path(result["folder"]) / "artifacts" / "weights-000001.pt", weights_only=True)
    assert kernels["weights"].shape == (6, 25)
    assert torch.equal(kernels["weights"], network.conv1.weight.detach().flatten(1).half())


@pytest.mark.parametrize("rule", RULES)
def test_a_module_of_the_users_own_is_trained_and_loaded(rule, own, data):
    result = trained(rule, "--model", own, "--dataset", data)
    record = json.loads((Path(result["folder"]) / "run.json").read_text())
    assert record["config"]["model"] == own
    assert record["versions"]["own_nets"].startswith("sha256 ")
    network, test = network_of(rule, result["folder"]), load_dataset(str(data)).test
    assert type(network).__name__ == "Net"
    assert not network.training
    accuracy = (network(test.x.view(-1, 1, 6, 6)).argmax(1) == test.y).double().mean().item()
    assert accuracy == result["metrics"]["test/accuracy"]
    done("analyze", rule, "--sparsity")
    done("render", rule)
    RunStore("runs").run(result["run"]).load()


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        *((rule, []) for rule in RULES),
        *(("grlu", ["--credit", "learned", "--feedback", feedback]) for feedback in ("direct", "layer")),
    ],
)
def test_a_stopped_run_of_a_module_continues_to_the_same_bits(rule, more, own, data):
    """With dropout, whose random numbers are the global ones of torch, and with an optimizer that has a state."""
    options = [*more, "--model", own, "--dataset", data, "--optimizer", "selective", "--epochs", 3, "--batch-size", 30]
    whole = trained(rule, *options)
    with interrupted_after(1):
        outcome = plastic("train", rule, "--json", "--name", "stopped", *SMALL[rule], *options)
    assert outcome.code == 130
    torch.manual_seed(99)
    (continued,) = done("train", rule, "--json", "--resume", "stopped").results
    assert continued["metrics"] == whole["metrics"]
    pd.testing.assert_frame_equal(training_numbers(Path(continued["folder"])), training_numbers(Path(whole["folder"])))
    for left, right in zip(
        network_of(rule, continued["folder"]).parameters(), network_of(rule, whole["folder"]).parameters(), strict=True
    ):
        assert torch.equal(left, right)


@pytest.mark.parametrize("rule", RULES)
def test_the_initial_network_is_that_of_the_seed(rule, data):
    results = done(
        *("train", rule, "--json", "--model", "cnn", "--hidden", 4, "--dataset", data, "--epochs", 1),
        *("--seeds", 2, *SMALL[rule]),
    ).results
    build = find_rule(rule).member("build")
    networks = []
    for result in results:
        run = open_run(Path(result["folder"]), stage="analyze")
        before, after = (build(run, load_dataset(str(data)), trained=trained).network for trained in (False, True))
        assert not torch.equal(before.readout.weight, after.readout.weight)
        networks.append(before.readout.weight)
    assert not torch.equal(*networks)


MISTAKES = {
    "own_nets:broken": "making the module failed with RuntimeError: no weights here.",
    "own_nets:narrow": "returned (2, 2) for 2 images, not logits (2, 3)",
    "own_nets:picky": "it failed with ValueError: images of 7 x 7 only.",
    "own_nets:Nett": "has no Nett. Did you mean 'Net'?",
    "no_such_module:Net": "there is no module no_such_module to import.",
    "own_nets.py:Net": "own_nets.py is not the name of a module.",
    "resnet": "or MODULE:FACTORY such as torchvision.models:resnet18. Did you mean 'resnet18'?",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_model_that_cannot_be_trained_is_an_error_of_one_line(rule, own, data):
    for model, problem in MISTAKES.items():
        outcome = plastic("train", rule, "--model", model, "--dataset", data, "--epochs", 1)
        assert outcome.code == 2
        assert problem in outcome.err
        assert outcome.err.count("\n") == 1
    assert not list(RunStore("runs").folders())


@pytest.mark.parametrize("rule", RULES)
def test_batch_normalization_with_single_images_is_an_error_of_one_line(rule, own, data):
    small = ["--dataset", data, "--epochs", 1, "--batch-size", 1, *SMALL[rule]]
    outcome = plastic("train", rule, "--model", "own_nets:normalized", *small)
    assert outcome.code == 2
    (error,) = [line for line in outcome.err.splitlines() if "error:" in line]
    assert "batch normalization cannot learn from a batch of 1 image: choose a --batch-size above 1" in error


@pytest.mark.parametrize("rule", RULES)
def test_options_without_effect_are_refused(rule, data):
    outcome = plastic("train", rule, "--model", "lenet", "--hidden", 5, "--dataset", data)
    assert outcome.code == 2
    assert "--hidden 5 does nothing with --model lenet: it belongs to --model mlp or cnn. Leave it out." in outcome.err
    outcome = plastic("train", rule, "--optimizer", "adam", "--momentum", 0.5, "--dataset", data)
    assert outcome.code == 2
    assert "--momentum 0.5 does nothing with --optimizer adam" in outcome.err


@pytest.mark.parametrize("rule", ["backprop"])
def test_each_optimizer_makes_steps_of_its_own(rule, data):
    reached = []
    for optimizer in ("sgd", "momentum", "adam", "adamw", "selective"):
        options = ["--model", "cnn", "--hidden", 3, "--dataset", data, "--learning-rate", 0.001, "--batch-size", 20]
        reached.append(trained(rule, *options, "--optimizer", optimizer)["metrics"]["test/loss"])
    assert len(set(reached)) == 5


def test_grlu_on_its_own_network_with_the_gradient_is_backpropagation(data):
    """The control of grlu on any network: the gradient, with rates that follow half a cosine."""
    from plastic_grlu import rule as grlu
    from plastic_grlu.learner import GRLUNetwork

    options = ["--dataset", data, "--hidden", 5, "--update", "backprop", "--optimizer", "momentum", "--epochs", 2]
    (result,) = done("train", "grlu", "--json", "--batch-size", 25, *options).results
    run, split = open_run(Path(result["folder"]), stage="analyze"), load_dataset(str(data)).train
    network = GRLUNetwork(*grlu.initial_parameters([36, 5, 3], run.generator("weights"))).double()
    velocity = [torch.zeros_like(parameter) for parameter in network.parameters()]
    order = run.generator("order")
    for epoch in range(2):
        rate = grlu.cosine(0.003, 0, epoch / 2)
        edges = [*range(0, len(split), 25), len(split)]
        permutation = torch.randperm(len(split), generator=order)
        for begin, end in pairwise(edges):
            chosen = permutation[begin:end]
            network.zero_grad()
            nn.functional.cross_entropy(network(split.x[chosen].double()), split.y[chosen]).backward()
            with torch.no_grad():
                for parameter, v in zip(network.parameters(), velocity, strict=True):
                    v.mul_(0.9).add_(parameter.grad)
                    parameter -= rate * v
    for expected, found in zip(network.parameters(), network_of("grlu", result["folder"]).parameters(), strict=True):
        assert torch.allclose(expected, found.double(), atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_credit_of_a_rule_is_registered(rule, data):
    """Other code finds the credit rule of a run by `Rule.credit`; it is the one that trains the network."""
    options = {"model": "lenet", "dataset": str(data)}
    config = train_model(find_rule(rule)).from_values(options)
    run = create_run(Path("runs"), rule=rule, config=config.model_dump(mode="json"))
    learner = find_rule(rule).member("build")(run, load_dataset(str(data)), trained=False)
    credit = find_rule(rule).member("credit")(config, learner.network, run)
    assert type(credit) is type(learner.credit)
    assert credit is None or set(credit.parameters) <= dict(learner.network.named_parameters()).keys()
