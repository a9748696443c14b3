"""Every installed rule keeps the contract, with options small enough for seconds."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

import plastic_cli
from plastic_cli import testing
from plastic_cli.classifier import fit
from plastic_cli.config.model import FilmConfig
from plastic_cli.data.datasets import load_dataset
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.metrics import metric_of
from plastic_cli.plugins.models import config_model
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.stages import stage_file
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import check_rule, plastic, write_tiny_dataset

SMALL = {
    "backprop": {"hidden": [8], "epochs": 3},
    "eglp": {"hidden": [8, 6], "epochs": 3, "batch_size": 16, "event_warmup": 5},
    "feedback": {"hidden": [8], "epochs": 3},
    "grlu": {"hidden": [8], "epochs": 3, "perturbations": 2},
    "metafa": {
        "hidden": [8, 6],
        "episodes": 3,
        "ways": 3,
        "held_out_classes": 0,
        "shots": 5,
        "queries": 3,
        "test_episodes": 3,
    },
    "mpn": {"episodes": 3, "hidden": 4, "batch_size": 8, "max_episode_steps": 20, "test_episodes": 3},
    "selective": {"hidden": [8], "epochs": 2, "batch_size": 16},
}
"""By rule; one that is not named here is checked with its defaults and three epochs."""


@pytest.mark.parametrize("name", list(discover().rules))
def test_rule_keeps_the_contract(name, tmp_path):
    check_rule(name, tmp_path, SMALL.get(name, {"epochs": 3}))
    logged = RunStore(tmp_path / "runs").metrics()[["split", "metric"]].drop_duplicates().itertuples(index=False)
    keys = [f"{split}/{metric}" for split, metric in logged]
    assert keys
    assert [key for key in keys if metric_of(key, name).name == key] == [], "these metrics have no name for a reader"
    if issubclass(config_model(find_rule(name).function("render")), FilmConfig):
        check_film(name, tmp_path / "runs")


def check_film(name, runs):
    """The option --frame-seconds of a film has an effect; equal frames are one frame that is shown longer."""
    [rendered] = plastic("render", name, "--json", "--runs", runs, "--frame-seconds", 0.07).results
    [film] = [file for file in rendered["files"] if file.endswith(".gif")]
    with Image.open(Path(rendered["folder"]) / film) as frames:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(frames)]
    assert sum(durations) > 0
    assert [duration for duration in durations if duration % 70] == []


@pytest.mark.parametrize("name", [name for name, rule in discover().rules.items() if rule.network])
def test_the_network_of_a_run_is_loaded_without_its_data(name, tmp_path):
    data = write_tiny_dataset(tmp_path / "data")
    options = SMALL.get(name, {"epochs": 3})
    if "dataset" in train_options(name):
        options = {"dataset": data, **options}
    [trained] = plastic("train", name, "--json", *typed(options)).results
    shutil.rmtree(data)
    network = load_network(trained["folder"])
    assert isinstance(network, torch.nn.Module)
    again = load_network(trained["folder"])
    assert network.state_dict().keys() == again.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("backprop", {}),
        ("backprop", {"trained": "readout"}),
        ("eglp", {}),
        ("eglp", {"model": "cnn", "hidden": [4], "events": "triggered"}),
        ("eglp", {"readout": "local", "feedback": "none", "local_rule": "softhebb", "activation": "triangle"}),
        ("feedback", {}),
        ("feedback", {"activation": "softplus", "measure_every": 20}),
        ("feedback", {"model": "lenet", "feedback": "weight-mirror", "optimizer": "adam", "hidden": None}),
        ("grlu", {}),
        ("grlu", {"k": 0.5, "skip": True, "hidden": [8, 8]}),
        ("grlu", {"backbone": "autoencoder", "latent": 4, "backbone_epochs": 1}),
    ],
)
def test_a_loaded_network_has_the_accuracy_of_the_run(name, options, tmp_path):
    data = write_tiny_dataset(tmp_path / "data")
    [trained] = plastic("train", name, "--json", *typed({"dataset": data, **SMALL[name], **options})).results
    network, test = load_network(trained["folder"]), load_dataset(str(data)).test
    correct = network(test.x).argmax(1) == test.y
    assert float(correct.double().mean()) == trained["metrics"]["test/accuracy"]
    assert all(parameter.requires_grad for parameter in network.parameters())
    loss = torch.nn.functional.cross_entropy(network(test.x), test.y)
    torch.optim.SGD(network.parameters(), lr=0.01).zero_grad()
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(copy.deepcopy(network)(test.x), network(test.x))
    assert torch.equal(pickle.loads(pickle.dumps(network))(test.x), network(test.x))


def test_a_network_that_does_not_answer_as_its_learner_breaks_the_contract(tmp_path, monkeypatch):
    from plastic_backprop import training

    load = training.network
    monkeypatch.setattr(training, "network", lambda run: torch.nn.Sequential(load(run), torch.nn.Softmax(1)).eval())
    with pytest.raises(AssertionError, match="does not give the logits of the learner"):
        check_rule("backprop", tmp_path, SMALL["backprop"])


def load_network(folder):
    run = open_run(Path(folder), stage="analyze")
    return find_rule(run.record.rule).member("network")(run)


def train_options(name):
    return config_model(find_rule(name).function("train")).model_fields


def typed(options):
    """The options as words of a command line."""
    words = []
    for name, value in options.items():
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [option] if value is True else [option, text]
    return words


def test_a_stage_without_a_record_of_its_options_breaks_the_contract(train):
    folder = train()
    model = config_model(find_rule("backprop").function("eval"))
    with pytest.raises(AssertionError, match="eval left no record with its options"):
        testing._check_record(model, "eval", folder)
    plastic_cli.evaluate(folder, split="train", quiet=True)
    with pytest.raises(AssertionError, match="eval left no record with its options"):
        testing._check_record(model, "eval", folder)
    plastic_cli.evaluate(folder, quiet=True)
    testing._check_record(model, "eval", folder)
    path = stage_file(folder, "eval", model.from_values({}).model_dump(mode="json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": ["tables/gone.csv"]}))
    with pytest.raises(AssertionError, match=r"eval says that it wrote tables/gone.csv"):
        testing._check_record(model, "eval", folder)


@pytest.mark.parametrize("marked", [False, True])
def test_a_number_from_test_images_that_counts_as_training_data_breaks_the_contract(marked, tmp_path, monkeypatch):
    measure = fit._log_splits

    def leaking(learner, splits, run):
        measure(learner, splits, run)
        run.log("train", None, "test" if marked else None, leak=splits["test"].x.sum())

    monkeypatch.setattr(fit, "_log_splits", leaking)
    if marked:
        check_rule("backprop", tmp_path, SMALL["backprop"])
    else:
        with pytest.raises(AssertionError, match=r"train/leak: they depend on test images"):
            check_rule("backprop", tmp_path, SMALL["backprop"])
