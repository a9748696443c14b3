"""Continual learning of any network: loading it, exact resume, the four verbs, and penalties that do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from plastic_cli.classifier.data import trained_on
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import interrupted_after, plastic, training_numbers, write_tiny_dataset
from plastic_selective import load_stream
from plastic_selective.config import Train
from plastic_selective.continual.components import build, make_optimizer
from plastic_selective.continual.trained import network

OWN = """
from torch import nn

def net(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, num_classes)
    )
"""


@pytest.fixture
def data(tmp_path):
    return write_tiny_dataset(tmp_path / "data", classes=6, images=61)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, with batch statistics and dropout."""
    (tmp_path / "continual_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield "continual_nets:net"
    sys.modules.pop("continual_nets", None)


def trained(data, *options):
    small = ["--epochs", 2, "--batch-size", 16, "--buffer-size", 20, "--tasks", 3]
    outcome = plastic("train", "selective", "--json", "--dataset", data, *small, *options)
    assert outcome.code == 0, outcome.err
    return open_run(Path(outcome.results[0]["folder"]), stage="analyze")


@pytest.mark.parametrize(("stream", "scenario"), [("split", "class"), ("permuted", "task")])
def test_the_loaded_network_has_the_accuracy_of_the_run(stream, scenario, own, data):
    run = trained(data, "--stream", stream, "--scenario", scenario, "--model", own)
    loaded, tasks = network(run), load_stream(run, load_dataset(str(data))).tasks
    assert isinstance(loaded.network, nn.Sequential)
    for number, task in enumerate(tasks, start=1):
        logits = loaded(task.test.x, task=number)
        accuracy = float((logits.argmax(1) == task.test.y).double().mean())
        assert accuracy == run.record.summary[f"test/accuracy_task_{number}"]
        assert torch.equal(loaded(task.test.x.view(-1, 1, 6, 6), task=number), logits)
    # An answer to a task uses its outputs only.
    assert torch.isneginf(logits).any() == (scenario == "task")
    assert run.record.versions["continual_nets"].startswith("sha256")


def test_a_stopped_run_continues_to_the_same_bits(own, data):
    options = ["--dataset", data, "--model", own, "--epochs", 2, "--batch-size", 16, "--buffer-size", 20, "--tasks", 3]
    whole = trained(data, "--model", own)
    with interrupted_after(2):
        assert plastic("train", "selective", "--name", "stopped", *options).code == 130
    torch.manual_seed(7)
    (continued,) = plastic("train", "selective", "--json", "--resume", "stopped").results
    assert continued["metrics"] == whole.record.summary
    pd.testing.assert_frame_equal(training_numbers(Path(continued["folder"])), training_numbers(whole.folder))
    again = network(open_run(Path(continued["folder"]), stage="analyze"))
    for left, right in zip(again.parameters(), network(whole).parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.slow
def test_every_verb_works_on_a_convolutional_network(data):
    run = trained(data, "--model", "cnn", "--hidden", "3")
    for words in (
        ["eval", "--corruption", "gaussian-noise:0.3"],
        ["analyze", "--eligibility", "--gates", "--overlap", "--sparsity", "--probe"],
        ["render"],
        ["render", "--layer", 2],
    ):
        outcome = plastic(words[0], "selective", *words[1:])
        assert outcome.code == 0, outcome.err
    # A filter is a row of weights.
    names = pd.read_csv(run.folder / "tables" / "overlap.csv")["layer_name"].unique()
    assert list(names) == ["9 to 3 units", "27 to 6 units"]
    initial, after = (build(run, trained_on(run), trained=trained) for trained in (False, True))
    assert not torch.equal(initial.network.readout.weight, after.network.readout.weight)
    repeated = plastic("analyze", "selective", "--sweep-k", "--k", "5", "--json")
    assert repeated.results[0]["metrics"]["k=5/accuracy"] == run.record.summary["test/accuracy"]


def test_elastic_weight_consolidation_needs_linear_layers(data):
    outcome = plastic("train", "selective", "--dataset", data, "--model", "lenet", "--penalty", "ewc", "--tasks", 3)
    assert outcome.code == 2
    assert "--penalty ewc: the Fisher information is implemented for linear layers" in outcome.err
    assert "Use --model mlp or --penalty si." in outcome.err
    trained(data, "--model", "cnn", "--hidden", "2", "--penalty", "si", "--optimizer", "adam", "--epochs", 1)


def test_batch_normalization_with_single_images_is_an_error_of_one_line(own, data):
    (Path.cwd() / "single_nets.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Linear(36, num_classes), nn.BatchNorm1d(num_classes))\n"
    )
    small = ["--batch-size", 1, "--replay", "none", "--epochs", 1, "--tasks", 3]
    outcome = plastic("train", "selective", "--dataset", data, "--model", "single_nets:net", *small)
    assert outcome.code == 2
    assert "batch normalization cannot learn from a batch of 1 image: choose a --batch-size above 1" in outcome.err


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "selective"])
def test_weight_decay_reaches_every_optimizer(optimizer):
    config = Train.from_values({"optimizer": optimizer, "weight_decay": 0.2, "learning_rate": 0.1})
    network = nn.Linear(2, 2, bias=False)
    made = make_optimizer(config, network, 10)
    assert made.param_groups[0]["weight_decay"] == 0.2
    before = network.weight.detach().clone()
    network.weight.grad = torch.zeros(2, 2)
    made.step()
    decayed = before - 0.1 * before.sign() if optimizer == "adam" else before * (1 - 0.1 * 0.2)
    assert torch.allclose(network.weight, decayed, atol=1e-6)
