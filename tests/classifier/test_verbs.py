"""What eval and analyze say of a classifier, each number against an independent count on the split it names."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from plastic_backprop.training import build
from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.probe import linear_probe
from plastic_cli.classifier.analyze import CKA_IMAGES
from plastic_cli.classifier.data import trained_on
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.data.corruptions import apply_corruption, parse_corruption
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network on the digits with validation images set aside, as it was drawn and as it has learned."""
    runs = tmp_path_factory.mktemp("runs")
    options = ["--hidden", "14,9", "--epochs", "4", "--learning-rate", "0.01", "--validation", "150", "--seed", "3"]
    outcome = plastic("train", "backprop", *options, "--runs", runs, "--json")
    assert outcome.code == 0, outcome.err
    run = open_run(runs / json.loads(outcome.out)["run"], stage="analyze")
    data = trained_on(run)
    assert len(data.validation) == 150
    return SimpleNamespace(
        run=run,
        data=data,
        learner=build(run, data),
        untrained=build(run, data, trained=False),
        metrics=json.loads(outcome.out)["metrics"],
    )


def counted(learner, split):
    """Accuracy and mean cross-entropy in double precision."""
    logits = learner.predict(split.x).detach().double()
    return (logits.argmax(1) == split.y).double().mean().item(), functional.cross_entropy(logits, split.y).item()


def table(trained, name):
    return pd.read_csv(trained.run.folder / "tables" / f"{name}.csv")


def analyzed(trained, *options):
    outcome = plastic("analyze", "backprop", *options, "--runs", trained.run.folder.parent, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["metrics"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_eval_measures_the_chosen_split(split, trained):
    outcome = plastic("eval", "backprop", "--split", split, "--runs", trained.run.folder.parent, "--json")
    assert outcome.code == 0
    accuracy, loss = counted(trained.learner, trained.data.split(split))
    metrics = json.loads(outcome.out)["metrics"]
    assert metrics[f"{split}/accuracy"] == pytest.approx(accuracy)
    assert metrics[f"{split}/loss"] == pytest.approx(loss, rel=1e-5)
    # The training run logged the same, of its last epoch; its training split is small enough to be taken whole.
    assert trained.metrics[f"{split}/accuracy"] == pytest.approx(accuracy)
    others = {counted(trained.learner, trained.data.split(name)) for name in ("train", "validation", "test")}
    assert len(others) == 3


def test_eval_has_a_row_for_each_corruption(trained):
    texts = ["gaussian-noise:0.001", "gaussian-noise:30", "rotation:30"]
    runs = trained.run.folder.parent
    outcome = plastic("eval", "backprop", "--corruption", ",".join(texts), "--runs", runs, "--json")
    assert outcome.code == 0, outcome.err
    metrics = json.loads(outcome.out)["metrics"]
    test = trained.data.test
    for text in texts:
        corruption = parse_corruption(text)
        generator = torch.Generator().manual_seed(trained.run.seed)
        x = apply_corruption(trained.data, test.x, corruption, generator)
        accuracy, loss = counted(trained.learner, SimpleNamespace(x=x, y=test.y))
        assert metrics[f"test+{corruption}/accuracy"] == pytest.approx(accuracy)
        assert metrics[f"test+{corruption}/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["test+gaussian-noise:30/accuracy"] < 0.4 < metrics["test+gaussian-noise:0.001/accuracy"]


@pytest.mark.parametrize("texts", [["gaussian-noise:0.3"], ["gaussian-noise:0.3", "rotation:30"]])
@pytest.mark.parametrize("layout", ["table", "markdown"])
def test_eval_names_the_corruption_of_an_accuracy(texts, layout, trained):
    runs = trained.run.folder.parent
    outcome = plastic("eval", "backprop", "--corruption", ",".join(texts), "--runs", runs, "--format", layout)
    assert outcome.code == 0, outcome.err
    for text in texts:
        assert f"test accuracy under {text}" in outcome.out
        assert f"test loss under {text}" in outcome.out
    assert outcome.out.count("test accuracy") == len(texts)


def test_confusion_and_accuracy_by_class_use_the_test_images(trained):
    analyzed(trained, "--confusion")
    answers, y = trained.learner.predict(trained.data.test.x).argmax(1), trained.data.test.y
    confusion = table(trained, "confusion").set_index("true").to_numpy()
    by_class = table(trained, "accuracy_by_class")
    for true in range(10):
        mine = y == true
        for given in range(10):
            assert confusion[true, given] == (mine & (answers == given)).sum()
        assert by_class.loc[true, "accuracy"] == pytest.approx((answers[mine] == true).double().mean().item())
        assert by_class.loc[true, "images"] == mine.sum()
    logged = RunStore(trained.run.folder.parent).metrics(stage="analyze")
    rows = logged[(logged["split"] == "test") & (logged["metric"] == "accuracy")]
    assert rows["value"].iloc[-1] == pytest.approx((answers == y).double().mean().item())


def test_sparsity_counts_silent_units_of_the_trained_network_on_test_images(trained):
    metrics = analyzed(trained, "--sparsity")
    rows = table(trained, "sparsity").set_index("layer")
    for layer, activity in enumerate(trained.learner.features(trained.data.test.x), start=1):
        silent = (activity == 0).double()
        assert rows.loc[layer, "silent"] == pytest.approx(silent.mean().item())
        assert rows.loc[layer, "dead"] == pytest.approx((silent.mean(0) == 1).double().mean().item())
        for name in ("silent", "dead"):
            assert metrics[f"layer {layer}/{name}"] == rows.loc[layer, name]


def test_the_probe_trains_on_training_images_and_is_measured_on_test_images(trained):
    metrics = analyzed(trained, "--probe")
    rows = table(trained, "probe").set_index(["layer", "network"])
    data = trained.data
    expected = {}
    for network, learner in (("trained", trained.learner), ("untrained", trained.untrained)):
        pairs = zip(learner.features(data.train.x), learner.features(data.test.x), strict=True)
        for layer, (train, test) in enumerate(pairs, start=1):
            probe = linear_probe(train.detach(), data.train.y, test.detach(), data.test.y, seed=trained.run.seed)
            expected[layer, network] = probe.accuracy
            # Up to which sixth of the training images the L2 was chosen on.
            assert rows.loc[(layer, network), "accuracy"] == pytest.approx(probe.accuracy, abs=0.015)
            assert metrics[f"probe/layer {layer} {network}"] == rows.loc[(layer, network), "accuracy"]
    assert abs(expected[2, "trained"] - expected[2, "untrained"]) > 0.04
    pixels = linear_probe(data.train.x, data.train.y, data.test.x, data.test.y, seed=trained.run.seed)
    assert rows.loc[(0, "pixels"), "accuracy"] == metrics["probe/pixels"] == pytest.approx(pixels.accuracy)


def test_robustness_has_the_clean_accuracy_and_one_for_each_corruption(trained):
    metrics = analyzed(trained, "--robustness")
    rows = table(trained, "robustness").set_index(["kind", "strength"])
    assert rows.loc[("clean", 0.0), "accuracy"] == pytest.approx(counted(trained.learner, trained.data.test)[0])
    assert rows["examples"].eq(len(trained.data.test)).all()
    for (kind, strength), row in rows.iterrows():
        assert metrics[f"{kind}:{strength:g}/accuracy"] == pytest.approx(row["accuracy"])
    rotated = rows.loc["rotation"].sort_index()["accuracy"]
    assert rotated.iloc[0] > rotated.iloc[-1]


@pytest.mark.parametrize("other", [False, True])
def test_cka_compares_with_the_untrained_network_or_with_another_run(other, trained):
    options = []
    against = trained.untrained
    if other:
        runs = trained.run.folder.parent
        small = ["--hidden", "7", "--epochs", "1", "--validation", "150", "--runs", runs]
        name = json.loads(plastic("train", "backprop", *small, "--json").out)["run"]
        second = open_run(runs / name, stage="analyze")
        against = build(second, trained.data)
        options = ["--run", trained.run.id, "--other", name]
    metrics = analyzed(trained, "--cka", *options)
    x = stratified_sample(trained.data.test, CKA_IMAGES).x
    expected = cka_matrix(
        [layer.detach() for layer in trained.learner.features(x)],
        [layer.detach() for layer in against.features(x)],
        debiased=True,
    )
    rows = table(trained, "cka").set_index(["layer", "other layer"])["cka"]
    for (row, column), value in np.ndenumerate(expected.numpy()):
        assert rows.loc[(row + 1, column + 1)] == pytest.approx(value, abs=1e-6)
        assert metrics[f"cka/{row + 1}-{column + 1}"] == pytest.approx(value, abs=1e-6)


def test_backprop_with_a_trained_readout_is_random_features(tmp_path):
    options = ["--hidden", "14", "--epochs", "2", "--trained", "readout", "--runs", tmp_path]
    outcome = plastic("train", "backprop", *options, "--json")
    run = open_run(tmp_path / json.loads(outcome.out)["run"], stage="analyze")
    data = load_dataset("digits")
    before, after = build(run, data, trained=False), build(run, data)
    for mine, its in zip(before.features(data.test.x), after.features(data.test.x), strict=True):
        assert torch.equal(mine, its)
    assert not torch.equal(before.predict(data.test.x), after.predict(data.test.x))
    assert json.loads(outcome.out)["metrics"]["test/accuracy"] == pytest.approx(counted(after, data.test)[0])
