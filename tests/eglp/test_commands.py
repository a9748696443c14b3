"""The commands of eglp, end to end in a temporary folder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch

from plastic_cli.classifier.data import described_data
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe
from plastic_cli.testing import plastic, write_tiny_dataset
from plastic_eglp.analysis.measures import event_raster
from plastic_eglp.config import Train
from plastic_eglp.training import build, network

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("eglp-*.toml"))
SMALL = ["--epochs", "2", "--hidden", "8,6", "--event-warmup", "3"]


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def only_run(runs_folder):
    (row,) = RunStore(runs_folder).rows()
    return runs_folder / row["run"]


def test_a_run_stores_its_control_and_its_costs(runs_folder):
    outcome = plastic("train", "eglp", *SMALL, "--json")
    assert outcome.code == 0
    metrics = json.loads(outcome.out)["metrics"]
    never = json.loads(plastic("train", "eglp", *SMALL[:4], "--events", "never", "--json").out)["metrics"]
    # The control is what a run without any event gives.
    assert metrics["control/accuracy"] == pytest.approx(never["test/accuracy"])
    assert never["train/synaptic_updates"] == 0
    assert "control/accuracy" not in never
    weights = 64 * 8 + 8 * 6
    assert metrics["train/synaptic_updates"] == metrics["train/events"] * weights
    assert metrics["train/forward_flops"] == 2 * (weights + 6 * 10) * 1437 * 2
    assert metrics["train/messages"] == metrics["train/event_images"] * 2 * (1 + 10)


def test_the_report_shows_the_control(runs_folder):
    assert plastic("train", "eglp", *SMALL, "--seeds", "2", "--quiet").code == 0
    table = plastic("report", "--format", "markdown").out
    assert "control" in table
    frame = RunStore(runs_folder).runs()
    assert frame["control/accuracy"].notna().all()


def test_every_command_on_a_run(runs_folder):
    assert plastic("train", "eglp", *SMALL, "--quiet").code == 0
    run = only_run(runs_folder)
    looks = ["--sensitivity", "--event-rates", "--rates", "0.1,1", "--features", "--events", "--cka"]
    assert plastic("analyze", "eglp", "--quiet", *looks).code == 0
    outcome = plastic("eval", "eglp", "--corruption", "gaussian-noise:0.3,rotation:30", "--json")
    assert {"zero events/gaussian-noise:0.3/accuracy", "zero events/rotation:30/accuracy"} <= set(
        json.loads(outcome.out)["metrics"]
    )
    assert plastic("analyze", "eglp", "--quiet", "--probe").code == 0
    probe = pd.read_csv(run / "tables" / "probe.csv")
    assert set(probe.loc[probe["layer"] == 2, "network"]) == {"trained", "untrained", "backprop"}
    cka = pd.read_csv(run / "tables" / "cka.csv")
    assert (cka["network"] == "untrained").sum() == 4
    assert plastic("render", "eglp", "--quiet").code == 0
    assert (run / "videos" / "learning.gif").stat().st_size > 0
    sensitivity = pd.read_csv(run / "tables" / "sensitivity.csv")
    assert list(sensitivity["condition"]) == ["all learn", "layer 1 fixed", "layer 2 fixed", "zero events"]
    # Training again with the run's own settings reproduces the run.
    trained = RunStore(run.parent).runs().loc[0, "test/accuracy"]
    assert sensitivity.loc[0, "accuracy"] == pytest.approx(trained)
    rates = pd.read_csv(run / "tables" / "event_rates.csv")
    assert set(rates["events by"]) == {"triggered", "fixed"}
    assert (rates.loc[rates["rate"] == 0, "share"] == 0).all()
    assert rates.loc[rates["rate"] == 1, "share"].gt(0.9).all()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_sampled_events_of_a_run(optimizer, runs_folder):
    small = ["--epochs", "2", "--hidden", "8,6", "--optimizer", optimizer, "--events", "sampled", "--event-rate", "0.2"]
    metrics = json.loads(plastic("train", "eglp", *small, "--json").out)["metrics"]
    assert metrics["train/event_images"] == pytest.approx(0.2 * 2 * 1437, rel=0.2)
    assert plastic("analyze", "eglp", "--event-rates", "--rates", "0.2", "--event-images", "--quiet").code == 0
    rates = pd.read_csv(only_run(runs_folder) / "tables" / "event_rates.csv").set_index(["events by", "rate"])
    assert rates.loc[("sampled", 0.2), "accuracy"] == pytest.approx(metrics["test/accuracy"])
    assert rates.loc[("sampled", 0.2), "events"] == metrics["train/events"]
    images = pd.read_csv(only_run(runs_folder) / "tables" / "event_images.csv")
    assert images["share"].sum() * 1437 == metrics["train/event_images"]
    assert rates.loc[("fixed", 0.2), "accuracy"] != rates.loc[("sampled", 0.2), "accuracy"]


@pytest.mark.parametrize("options", [["--events", "never"], ["--batch-size", "5000", "--event-warmup", "0"]])
def test_a_run_without_events_can_be_analyzed(options, runs_folder):
    outcome = plastic("train", "eglp", "--epochs", "2", "--hidden", "8", *options)
    assert outcome.code == 0
    assert ("no event" in outcome.err) == (options[0] == "--batch-size")
    assert plastic("analyze", "eglp", "--quiet").code == 0
    assert plastic("render", "eglp", "--quiet").code == 0


@pytest.mark.parametrize(
    "options", [[], ["--events", "fixed"], ["--event-scope", "batch"], ["--event-batch-size", "300"]]
)
def test_the_first_batches_are_events_also_incomplete_ones(options, runs_folder):
    """1437 images in batches of 128 are 12 batches an epoch, the last of 29 images."""
    assert plastic("train", "eglp", "--hidden", "8", "--epochs", "4", "--quiet", *options).code == 0
    assert plastic("analyze", "eglp", "--events", "--quiet").code == 0
    table = pd.read_csv(only_run(runs_folder) / "tables" / "events.csv").set_index("epoch")["events"]
    assert table.loc[:3].tolist() == [12, 12, 12]
    raster = event_raster(open_run(only_run(runs_folder), stage="analyze"))
    assert raster["event"].head(40).tolist() == [1] * 40
    assert list(raster.loc[raster["epoch"] == 1, "batch"]) == list(range(1, 13))


def test_a_missing_control_is_named(runs_folder):
    assert plastic("train", "eglp", *SMALL, "--quiet").code == 0
    (only_run(runs_folder) / "artifacts" / "zero-events.pt").unlink()
    outcome = plastic("eval", "eglp")
    assert outcome.code == 2
    assert "zero-events.pt" in outcome.err


def test_convolutions_are_trained_and_analyzed(runs_folder):
    small = ["--model", "cnn", "--hidden", "4,6", "--epochs", "1"]
    assert plastic("train", "eglp", *small, "--quiet").code == 0
    assert plastic("analyze", "eglp", "--features", "--cka", "--quiet").code == 0
    assert plastic("render", "eglp", "--quiet").code == 0
    outcome = plastic("train", "eglp", "--model", "cnn", "--hidden", "4,4,4")
    assert outcome.code == 2
    assert "can be halved 2 times" in outcome.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--events", "fixed", "--event-signal", "margin"], "--event-signal"),
        (["--update", "backprop", "--local-learning-rate", "0.1"], "--local-learning-rate"),
        (["--local-rule", "hebb"], "--feedback none"),
        (["--threshold-factor", "2", "--event-rate", "0.2"], "--event-rate"),
        (["--threshold-factor", "2", "--event-signal", "margin"], "--threshold-factor"),
        (["--update", "backprop", "--events", "fixed"], "--update"),
        (["--events", "sampled", "--event-signal", "margin"], "--event-signal margin"),
        (["--events", "sampled", "--event-strength", "surprise"], "--event-strength surprise"),
        (["--event-strength", "importance"], "use binary, surprise or normalized"),
        (["--event-strength", "normalized", "--event-signal", "margin"], "--event-signal margin"),
        (["--events", "sampled", "--event-warmup", "3"], "--event-warmup 3"),
        (["--event-uniform", "0.3"], "--event-uniform"),
        (["--readout", "local", "--learning-rate", "0.1"], "--learning-rate"),
        (["--hidden", "0"], "--hidden"),
    ],
)
def test_options_without_effect_are_refused(options, word, runs_folder):
    outcome = plastic("train", "eglp", *options)
    assert outcome.code == 2
    assert word in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_rates_need_event_rates(runs_folder):
    assert plastic("train", "eglp", *SMALL, "--quiet").code == 0
    outcome = plastic("analyze", "eglp", "--rates", "0.1")
    assert outcome.code == 2
    assert "--event-rates" in outcome.err


def test_published_networks_of_softhebb_have_no_event_rates(runs_folder):
    options = ["--dataset", "digits", "--model", "softhebb-mlp", "--hidden", "20", "--epochs", "1", "--quiet"]
    assert plastic("train", "eglp", *options).code == 0
    outcome = plastic("analyze", "eglp", "--event-rates")
    assert outcome.code == 2
    assert "no event rate" in outcome.err


def test_events_of_batches_have_no_images(runs_folder):
    assert plastic("train", "eglp", *SMALL, "--events", "fixed", "--quiet").code == 0
    outcome = plastic("analyze", "eglp", "--event-images")
    assert outcome.code == 2
    assert "no events of single images" in outcome.err


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_no_option_without_effect(recipe):
    for planned in plan_recipe(read_recipe(str(recipe))):
        config = Train.from_values(planned.config, source=str(recipe))
        config.refuse_unused()


def test_a_rate_of_zero_means_no_event(runs_folder):
    outcome = plastic("train", "eglp", *SMALL[:4], "--event-rate", "0", "--json")
    assert json.loads(outcome.out)["metrics"]["train/events"] == 0


def test_the_published_threshold_is_never_exceeded(runs_folder):
    options = ["--event-scope", "batch", "--threshold-factor", "2"]
    outcome = plastic("train", "eglp", *SMALL[:4], *options, "--json")
    assert json.loads(outcome.out)["metrics"]["train/events"] == 0
    written = tomllib.loads(plastic("train", "eglp", *options, "--dry-run").out)
    assert written["event_warmup"] == 0


LENET = ["--model", "lenet", "--epochs", "2", "--batch-size", "30", "--event-warmup", "2"]


def test_a_run_of_another_network_has_control_events_and_costs(runs_folder, tmp_path):
    data = ["--dataset", str(write_tiny_dataset(tmp_path / "data"))]
    (never,) = plastic("train", "eglp", *LENET[:6], *data, "--events", "never", "--json").results
    (result,) = plastic("train", "eglp", *LENET, *data, "--json").results
    found = result["metrics"]
    assert found["control/accuracy"] == never["metrics"]["test/accuracy"]
    assert found["control/loss"] == never["metrics"]["test/loss"]
    assert never["metrics"]["train/synaptic_updates"] == never["metrics"]["train/messages"] == 0
    run = open_run(Path(result["folder"]), stage="analyze")
    module = network(run)
    hidden = (module.conv1, module.conv2, module.conv3, module.fc1)
    weights = sum(layer.weight.numel() for layer in hidden)
    assert found["train/synaptic_updates"] == found["train/events"] * weights
    assert found["train/messages"] == found["train/event_images"] * 4 * (1 + 3)
    assert 0 < found["train/events"] < found["train/event_images"]
    raster = event_raster(run)
    assert raster["event"].sum() == found["train/events"]
    assert raster.groupby("epoch")["batch"].count().nunique() == 1
    assert plastic("eval", "eglp").code == 0
    looks = [
        "--sensitivity",
        "--event-rates",
        "--rates",
        "0.5,1",
        "--features",
        "--events",
        "--event-images",
        "--quiet",
    ]
    assert plastic("analyze", "eglp", *looks).code == 0
    tables = Path(result["folder"]) / "tables"
    sensitivity = pd.read_csv(tables / "sensitivity.csv").set_index("condition")["accuracy"]
    fixed = [f"{name} fixed" for name in ("conv1", "conv2", "conv3", "fc1")]
    assert list(sensitivity.index) == ["all learn", *fixed, "zero events"]
    assert sensitivity["all learn"] == pytest.approx(found["test/accuracy"])
    assert sensitivity["zero events"] == pytest.approx(found["control/accuracy"])
    assert plastic("render", "eglp", "--quiet").code == 0
    assert (Path(result["folder"]) / "videos" / "learning.gif").stat().st_size > 0


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("local_rule", ["oja", "softhebb"])
def test_credit_and_sgd_train_as_the_published_path(runs_folder, tmp_path, model, local_rule):
    """`--optimizer momentum --momentum 0` is SGD, with the credit rule of any module."""
    options = [
        *("--dataset", str(write_tiny_dataset(tmp_path / "data")), "--model", model, "--hidden", "6"),
        *("--feedback", "none", "--local-rule", local_rule, "--local-learning-rate", "0.02", "--events", "fixed"),
        *("--event-rate", "0.5", "--epochs", "3", "--batch-size", "20", "--json"),
    ]
    (plain,) = plastic("train", "eglp", *options).results
    (credit,) = plastic("train", "eglp", *options, "--optimizer", "momentum", "--momentum", "0").results
    for name in ("train/events", "train/event_images", "train/synaptic_updates"):
        assert credit["metrics"][name] == plain["metrics"][name] > 0, name
    for name in ("test/loss", "train/loss", "control/loss"):
        assert credit["metrics"][name] == pytest.approx(plain["metrics"][name], rel=1e-3), name


def test_the_gradient_teaches_other_networks_without_events(runs_folder, tmp_path):
    data = ["--dataset", str(write_tiny_dataset(tmp_path / "data"))]
    (result,) = plastic("train", "eglp", *LENET[:6], *data, "--update", "backprop", "--json").results
    assert "train/events" not in result["metrics"]
    assert "control/accuracy" not in result["metrics"]
    run = open_run(Path(result["folder"]), stage="analyze")
    before, after = (build(run, described_data(run), trained=trained).network for trained in (False, True))
    assert not torch.equal(before.conv1.weight, after.conv1.weight)


def test_options_of_the_published_networks_are_refused_on_others(runs_folder):
    for options, message in (
        (["--model", "lenet", "--activation", "relu"], "--activation relu does nothing with --model lenet"),
        (["--model", "lenet", "--event-batch-size", "5"], "--event-batch-size 5 does nothing with --model lenet"),
        (["--optimizer", "adam", "--readout", "local"], "--readout local does nothing with --optimizer adam"),
        (["--momentum", "0.5", "--readout", "local"], "--readout local does not go together with --momentum"),
        (["--update", "backprop", "--optimizer", "adam"], "--optimizer adam does nothing with --update backprop"),
    ):
        outcome = plastic("train", "eglp", *options)
        assert outcome.code == 2
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
