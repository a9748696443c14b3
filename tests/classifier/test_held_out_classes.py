"""`--classes` of train, and the analyses of the classes that a run has not seen."""

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_backprop.config import Train as BackpropTrain
from plastic_backprop.training import build
from plastic_cli.classifier import analyze, few_shot, normalization
from plastic_cli.classifier.data import data_for, trained_on
from plastic_cli.classifier.few_shot import fine_tuned_accuracies, held_out_data
from plastic_cli.classifier.fit import fit
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.config.classifier import ClassifierAnalyzeConfig
from plastic_cli.data.datasets import Split, load_dataset
from plastic_cli.errors import UserError
from plastic_cli.figures.few_shot import few_shot_figure
from plastic_cli.plugins.models import with_added_options
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.run import Run
from plastic_cli.testing import plastic

QUICK = ["--classes", "0-4", "--hidden", 16, "--epochs", 2, "--json"]
ANALYSIS = ["--few-shot", "--incremental", "--ways", 3, "--shots", "1,4", "--episodes", 4, "--images-per-class", 20]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held-out") / "runs"
    outcome = plastic("train", "backprop", *QUICK, "--runs", folder)
    assert outcome.code == 0, outcome.err
    return folder / outcome.results[0]["run"]


def no_figure(*_):
    """Take the place of `Run.save_figure` where a test reads tables only: figures take seconds."""
    return []


def images(split):
    return {row.tobytes() for row in split.x.numpy()}


def test_the_held_out_classes_are_not_trained_validated_or_tested(monkeypatch, tmp_path):
    """Fails if the split is swapped: what the training loop receives has the chosen classes, and no other."""
    seen = {}

    def watched(learner, data, run, **options):
        seen.update(train=data.train, validation=data.validation, test=data.test)
        fit(learner, data, run, **options)

    monkeypatch.setattr("plastic_backprop.training.fit", watched)
    outcome = plastic("train", "backprop", *QUICK, "--validation", 100, "--runs", tmp_path / "runs")
    assert outcome.code == 0, outcome.err
    assert {int(y) for split in seen.values() for y in split.y.unique()} == {0, 1, 2, 3, 4}
    run = open_run(tmp_path / "runs" / outcome.results[0]["run"], stage="analyze")
    held = held_out_data(run)
    assert held.only_classes == (5, 6, 7, 8, 9)
    assert set(held.test.y.tolist()) == set(held.train.y.tolist()) == {5, 6, 7, 8, 9}
    for part in (held.train, held.test):
        assert not any(images(part) & images(split) for split in seen.values())
    assert run.record.data["only_classes"] == [0, 1, 2, 3, 4]
    assert run.record.data["classes"] == 10


def test_splits_of_some_classes_are_those_of_the_whole():
    whole, some = load_dataset("digits", validation=200), load_dataset("digits", validation=200, classes=(7, 2))
    assert some.only_classes == (2, 7)
    for name in ("train", "validation", "test"):
        part, all_of = some.split(name), whole.split(name)
        mask = (all_of.y == 2) | (all_of.y == 7)
        assert torch.equal(part.x, all_of.x[mask])
        assert torch.equal(part.y, all_of.y[mask])
    assert (some.checksum, some.mean, some.classes) == (whole.checksum, whole.mean, whole.classes)


def test_the_readout_learns_and_is_analyzed_on_the_chosen_classes_only(trained):
    run = open_run(trained, stage="analyze")
    for data in (trained_on(run), data_for(run, None)):
        assert set(data.test.y.tolist()) == {0, 1, 2, 3, 4}
    assert set(data_for(run, "digits").test.y.tolist()) == {0, 1, 2, 3, 4}
    outcome = plastic("analyze", "backprop", "--confusion", "--runs", trained.parent)
    assert outcome.code == 0, outcome.err
    by_class = pd.read_csv(trained / "tables/accuracy_by_class.csv")
    assert (by_class["images"] > 0).tolist() == [True] * 5 + [False] * 5


def test_stored_configurations_without_the_option_are_those_of_all_classes():
    config = BackpropTrain.from_values({}).model_dump(mode="json")
    assert config.pop("classes") == []
    assert with_added_options("backprop", config) == BackpropTrain.from_values({}).model_dump(mode="json")


@pytest.mark.parametrize(("typed", "found"), [("0-4", [0, 1, 2, 3, 4]), ("7,2", [2, 7]), ("8-9,0", [0, 8, 9])])
def test_ranges_of_classes(typed, found):
    assert BackpropTrain.from_values({"classes": typed}).classes == tuple(found)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("3", "needs at least two classes"),
        ("4-2", "needs ranges from a lower to a higher class"),
        ("0,12", "there is no class 12 in digits"),
        ("a,b", "whole number"),
    ],
)
def test_wrong_classes_are_refused(typed, message):
    outcome = plastic("train", "backprop", "--classes", typed)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") <= 2


@pytest.mark.parametrize("typed", [[], ["--classes", "0-2"]])
def test_a_run_on_all_classes_has_no_held_out_ones(train, typed):
    train(*typed)
    for option in ("--few-shot", "--incremental"):
        outcome = plastic("analyze", "backprop", option)
        assert outcome.code == 2
        assert "was trained on all classes" in outcome.err


def test_more_than_there_is_is_refused(trained):
    for options, message in (
        (["--few-shot", "--ways", 6], "ask for fewer ways"),
        (["--incremental", "--images-per-class", 5000], "--images-per-class 5000"),
    ):
        outcome = plastic("analyze", "backprop", *options, "--runs", trained.parent)
        assert outcome.code == 2
        assert message in outcome.err


def test_the_analysis_writes_tables_and_repeats_exactly(trained, monkeypatch):
    tables = []
    for repeated in (False, True):
        if repeated:
            monkeypatch.setattr(Run, "save_figure", no_figure)
        outcome = plastic("analyze", "backprop", *ANALYSIS, "--runs", trained.parent)
        assert outcome.code == 0, outcome.err
        tables.append([(trained / f"tables/{name}.csv").read_text() for name in ("few_shot", "incremental")])
    assert tables[0] == tables[1]
    few = pd.read_csv(trained / "tables/few_shot.csv")
    assert set(few["network"]) == {"pixels", "untrained", "trained"}
    assert set(few.loc[few["reader"] == "fine-tuning", "network"]) == {"trained"}
    assert (few["chance"] == 1 / 3).all()
    assert (few["low"] <= few["accuracy"]).all()
    # Four examples of a class are worth more than one, on digits, for every reader of every feature.
    by_shots = few.pivot_table(index=["network", "reader"], columns="shots", values="accuracy")
    assert (by_shots[4] > by_shots[1]).mean() > 0.7
    incremental = pd.read_csv(trained / "tables/incremental.csv")
    assert sorted(set(incremental["classes"])) == [2, 3, 4, 5]
    assert incremental["chance"].to_numpy() == pytest.approx(1 / incremental["classes"].to_numpy())


def test_labels_that_do_not_belong_to_the_images_are_learned_at_chance(trained, monkeypatch):
    """The analysis reads the images: with shuffled labels, nothing is above chance."""
    run = open_run(trained, stage="analyze")
    held = held_out_data(run)
    shuffled = held.test.y[torch.randperm(len(held.test), generator=torch.Generator().manual_seed(0))]
    network = ModuleLearner(torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)))
    task = few_shot.FewShotTask(ways=3, shots=2, queries=10, episodes=20, seed=0)
    accuracies = fine_tuned_accuracies(task, Split(held.test.x, shuffled), network, steps=5)
    assert np.mean(accuracies) == pytest.approx(1 / 3, abs=0.08)


def test_fine_tuning_starts_from_the_network_in_each_episode(trained):
    run = open_run(trained, stage="analyze")
    held, data = held_out_data(run), trained_on(run)
    learner = few_shot._module_of(run, build(run, data))
    assert torch.equal(learner.predict(data.test.x), build(run, data).predict(data.test.x))
    hidden = learner.features(data.test.x)[0]
    one = few_shot.FewShotTask(ways=3, shots=2, queries=10, episodes=3, seed=0)
    first = fine_tuned_accuracies(one, held.test, learner, steps=10)
    assert torch.equal(learner.features(data.test.x)[0], hidden)
    assert (learner.predict(data.test.x) == 0).all()
    assert (fine_tuned_accuracies(one, held.test, learner, steps=10) == first).all()
    # Without a step the readout is zero, and all queries are called class 0.
    assert (fine_tuned_accuracies(one, held.test, learner, steps=0) == 1 / 3).all()


@pytest.mark.parametrize(
    ("rule", "options", "networks"),
    [
        ("grlu", ["--backbone", "autoencoder", "--latent", 8, "--backbone-epochs", 1], {"code"}),
        ("grlu", ["--perturbations", 1], set()),
        ("feedback", [], set()),
        ("eglp", [], set()),
    ],
)
def test_every_classifier_rule_has_the_analysis(rule, options, networks, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "save_figure", no_figure)
    outcome = plastic("train", rule, *QUICK, *options)
    assert outcome.code == 0, outcome.err
    outcome = plastic("analyze", rule, "--few-shot", "--ways", 3, "--shots", 1, "--episodes", 3)
    assert outcome.code == 0, outcome.err
    few = pd.read_csv(next((tmp_path / "runs").glob("*/tables/few_shot.csv")))
    assert set(few["network"]) == {"pixels", "untrained", "trained"} | networks
    assert "fine-tuning" in set(few["reader"])


def test_an_unknown_class_is_named():
    with pytest.raises(UserError, match="there is no class 12 in digits"):
        load_dataset("digits", classes=(3, 12))


def test_batch_normalization_of_the_untrained_network_has_the_moments_of_the_training_images(monkeypatch):
    """By NumPy, in two batches of one size; without it, the network would differ from a trained one in its moments."""
    monkeypatch.setattr(normalization, "EVALUATION_BATCH", 30)
    x = 3 + 2 * torch.randn(61, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = [torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)]
    learner = ModuleLearner(torch.nn.Sequential(*layers).double())
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    normalization.adapt_normalization(learner, x)
    z = (x[:60] @ layers[0].weight.T + layers[0].bias).detach().numpy().reshape(2, 30, 5)
    after = learner.network.state_dict()
    assert after["1.running_mean"].numpy() == pytest.approx(z.mean(1).mean(0))
    assert after["1.running_var"].numpy() == pytest.approx(z.var(1, ddof=1).mean(0))
    assert all(torch.equal(before[name], after[name]) for name in before if "running" not in name and "num" not in name)
    assert layers[1].momentum == 0.1
    learner.predict(x)
    assert torch.equal(layers[1].running_mean, after["1.running_mean"]), "a prediction changes nothing"


@pytest.mark.parametrize("option", ["few_shot", "probe", "cka"])
def test_the_untrained_network_of_an_analysis_is_adapted_to_the_images_of_the_run(option, trained, monkeypatch):
    run = open_run(trained, stage="analyze")
    adapted = []
    monkeypatch.setattr(analyze, "adapt_normalization", lambda learner, x: adapted.append((learner, len(x))))
    for name in ("_analyze_probe", "_analyze_cka"):
        monkeypatch.setattr(analyze, name, lambda run, subject, layers: subject.untrained())
    monkeypatch.setattr(analyze, "analyze_held_out", lambda config, run, learner, untrained: untrained())
    analyze.analyze_classifier(ClassifierAnalyzeConfig(**{option: True}), run, build)
    assert [images for _, images in adapted] == [len(trained_on(run).train)]


def test_the_figure_of_few_examples_says_over_what_its_bars_are():
    row = {
        "ways": 3,
        "shots": 1,
        "network": "pixels",
        "reader": "nearest class mean",
        "accuracy": 0.98,
        "chance": 1 / 3,
    }
    with_bars = few_shot_figure(pd.DataFrame([{**row, "low": 0.95, "high": 1.01}]))
    assert "over episodes of one network" in with_bars.labels.caption
    assert with_bars.data["high"].max() == 100, "no accuracy is above 100%"
    one_episode = few_shot_figure(pd.DataFrame([{**row, "low": np.nan, "high": np.nan}]))
    assert "Bars" not in one_episode.labels.caption
