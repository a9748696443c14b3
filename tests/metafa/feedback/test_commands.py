"""`plastic train feedback`: strengths from every source, the stream, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import plastic_cli
from plastic_cli.classifier import render
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import interrupted_after, plastic, training_numbers
from plastic_metafa.feedback import stream, training
from plastic_metafa.feedback.strengths import ARTIFACT

SMALL = ["--activation", "softplus", "--hidden", "8", "--epochs", "1", "--batch-size", "1", "--quiet"]


@pytest.fixture
def small(tiny_data):
    return [*SMALL, "--dataset", str(tiny_data)]


def results(*arguments):
    outcome = plastic("train", "feedback", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def refused(*arguments):
    outcome = plastic("train", "feedback", *arguments)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    return outcome.err


def test_strengths_scale_the_rate(small):
    by_rate = results(*small, "--learning-rate", 0.02)
    by_theta = results(*small, "--theta", 0.02)
    assert by_theta["metrics"] == pytest.approx(by_rate["metrics"], rel=1e-5)
    half = results(*small, "--theta", 0.04, "--learning-rate", 0.5)
    assert half["metrics"]["test/loss"] == pytest.approx(by_rate["metrics"]["test/loss"], rel=1e-5)


def test_a_learned_theta_comes_from_a_file_and_from_a_run(small, tiny_data, tmp_path):
    episodes = {"ways": 3, "held_out_classes": 0, "shots": 5, "queries": 3, "episodes": 2, "test_episodes": 2}
    learned = plastic_cli.train("metafa", dataset=tiny_data, hidden=4, name="learned", **episodes, quiet=True)
    file = learned.folder / "artifacts/theta.toml"
    by_name, by_file = results(*small, "--theta", "learned"), results(*small, "--theta", file)
    assert by_name["metrics"] == by_file["metrics"]
    config = json.loads((Path(by_file["folder"]) / "run.json").read_text())["config"]
    assert config["theta"] == str(file)
    assert config["learning_rate"] == 1.0
    run = open_run(Path(by_name["folder"]), stage="analyze")
    assert list(run.load_tensors(ARTIFACT)["theta"]) == [0, 2, 9]
    file.unlink()
    assert plastic("eval", "feedback", "--run", by_file["run"], "--quiet").code == 0
    own = tmp_path / "theta.toml"
    own.write_text('feedback = "direct"\n[theta]\noja = 0.001\npseudo-gradient = 0.02\n')
    one = results(*small, "--theta", own, "--terms", "pseudo-gradient")
    assert one["metrics"] == results(*small, "--theta", 0.02)["metrics"]
    outcome = plastic("train", "feedback", *small[:-3], "--dataset", str(tiny_data), "--theta", own)
    assert "theta was learned with direct feedback; this run has fixed feedback" in outcome.err


def test_measuring_along_the_stream_changes_no_weight(small):
    epochs = [*small, "--epochs", 2]
    whole, along = results(*epochs), results(*epochs, "--measure-every", 7)
    assert {key: along["metrics"][key] for key in whole["metrics"]} == whole["metrics"]
    metrics = RunStore().metrics(runs=[along["run"]])
    accuracy = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")]
    assert accuracy["step"].tolist() == list(range(19))  # 60 images: nine stretches in each epoch
    assert 0 <= along["metrics"]["test/begins"] <= 127
    assert along["metrics"]["test/accuracy_along"] == pytest.approx(accuracy["value"].iloc[1:].mean())
    assert along["metrics"]["test/best_accuracy"] == accuracy["value"].max()


def test_a_loss_that_is_not_finite_is_named_with_its_step_of_the_run(small, monkeypatch):
    seen = []
    monkeypatch.setattr(stream, "raise_if_not_finite", lambda losses, first: seen.append((first, len(losses))))
    # Batches of several images: single images are learned by compiled code.
    results(*small, "--epochs", 2, "--batch-size", 5, "--measure-every", 20)
    assert seen == [(4 * number, 4) for number in range(6)]


def test_a_stream_is_resumed_in_the_middle_of_an_epoch(small):
    options = [*small, "--epochs", 2, "--measure-every", 7]
    whole = results(*options)
    with interrupted_after(12):
        plastic("train", "feedback", *options, "--name", "stopped")
    resumed = results("--resume", "stopped")
    assert resumed["metrics"] == whole["metrics"]
    first, second = (training_numbers(Path(each["folder"])) for each in (whole, resumed))
    assert first.equals(second)


@pytest.fixture
def drawn(monkeypatch):
    """The epochs of the weights and the steps of the accuracy of each film."""
    found, draw = [], render.weight_frames

    def noting(weights, shape, accuracy, *more):
        found.append((list(weights), sorted(set(accuracy["step"]))))
        return draw(weights, shape, accuracy, *more)

    monkeypatch.setattr(render, "weight_frames", noting)
    return found


def test_the_film_of_a_stream_counts_epochs(small, drawn):
    along = results(*small, "--epochs", 2, "--measure-every", 7)
    plastic_cli.render(along["run"])
    assert drawn == [([0, 1, 2], [number / 9 for number in range(19)])]


def test_the_film_of_a_stopped_stream_counts_epochs_too(small, drawn):
    with interrupted_after(20):
        plastic("train", "feedback", *small, "--epochs", 50, "--measure-every", 7, "--name", "stopped")
    plastic_cli.render("stopped")
    ((epochs, steps),) = drawn
    assert epochs == [0, 1, 2]
    assert steps == [number / 9 for number in range(len(steps))]
    assert 2 <= steps[-1] < 3


def test_fewer_images_are_a_part_of_the_training_images(small):
    run = plastic_cli.train("feedback", **options(small), images=20, measure_every=5, quiet=True)
    assert run.record.speed["samples"] == 20
    assert "has 60 training images" in refused(*small, "--images", 61)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--terms", "0,9"], "--terms needs the strengths of the terms: add --theta"),
        (["--theta", "0.1,0.2"], "has 2 numbers and --terms 0 names 1"),
        (["--theta", "0.1", "--terms", "0,2"], "has 1 numbers and --terms 0,2 names 2"),
        (["--theta", "missing"], "there is no run 'missing'"),
        (["--theta", "missing.toml"], "there is no file"),
        (["--terms", "0,ojja", "--theta", "1,2"], "there is no term 'ojja'"),
        (["--feedback-decay", "0.1"], "--feedback-decay"),
        (["--feedback", "kolen-pollack", "--mirror-rate", "0.1"], "--mirror-rate"),
        (["--feedback", "kolen-pollack", "--feedback-decay", "2"], "less than or equal to 1"),
        (["--measure-every", "7", "--batch-size", "2"], "--measure-every must be a multiple of --batch-size"),
    ],
)
def test_wrong_input_is_one_line(arguments, complaint, runs_folder):
    assert complaint in refused(*arguments)


def test_a_run_of_another_rule_has_no_theta(small):
    plastic_cli.train("backprop", epochs=1, hidden=4, name="other", quiet=True)
    assert "it is a run of backprop. Choose a run of metafa, or a theta.toml" in refused(*small, "--theta", "other")


def test_symmetric_feedback_on_one_image_is_a_step_along_the_gradient(small):
    alone = options(small) | {"images": 1, "feedback": "symmetric", "learning_rate": 0.1}
    run = plastic_cli.train("feedback", **alone, quiet=True)
    opened = open_run(run.folder, stage="analyze")
    data = load_dataset(opened.record.dataset)
    before = training.build(opened, data, trained=False).network
    [image] = torch.randperm(60, generator=opened.generator("images"))[:1]
    loss = torch.nn.functional.cross_entropy(before(data.train.x[image][None]), data.train.y[image][None])
    gradients = torch.autograd.grad(loss, list(before.parameters()))
    for W, old, gradient in zip(run.load().parameters(), before.parameters(), gradients, strict=True):
        assert torch.allclose(W, old - 0.1 * gradient, atol=1e-6)
        assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("feedback", ["uniform-sign", "batchwise-sign", "kolen-pollack", "weight-mirror"])
def test_every_kind_of_feedback_teaches_and_resumes(feedback, tiny_data):
    words = ["--dataset", tiny_data, "--hidden", 16, "--epochs", 6, "--batch-size", 8, "--feedback", feedback]
    words += ["--optimizer", "momentum", "--weight-decay", 0.001, "--rate-drops", 0.5]
    whole = results(*words)
    metrics = RunStore().metrics(runs=[whole["run"]])
    losses = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")].sort_values("step")["value"]
    assert losses.iloc[-1] < 0.7 * losses.iloc[0]
    assert whole["metrics"]["test/best_accuracy"] >= whole["metrics"]["test/accuracy"]
    with interrupted_after(2):
        plastic("train", "feedback", *words, "--name", "stopped")
    resumed = results("--resume", "stopped")
    assert resumed["metrics"] == whole["metrics"]


def stored_feedback(run):
    """Return what the rule of a trained run keeps of its feedback: W - B for kolen-pollack, else B."""
    opened = open_run(run.folder, stage="analyze")
    return training.build(opened, load_dataset(opened.record.dataset)).credit.state_dict()["feedback"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"feedback_decay": 0.2}, 0.8**16),
        ({}, 0.999**16),
        ({"learning_rate": 0.2, "weight_decay": 0.1}, 0.98**16),
        ({"learning_rate": 0.2, "weight_decay": 0.1, "rate_drops": 0.5}, 0.98**8 * 0.998**8),
        ({"feedback_decay": 0.2, "weight_decay": 0.1, "rate_drops": 0.5}, 0.8**16),
    ],
)
def test_the_decay_of_learned_feedback(options, left, tiny_data):
    """W - B is lost by the same share in each step, whatever the weights learn: 60 images are 8 steps of 8."""
    shared = {"dataset": tiny_data, "hidden": 8, "epochs": 2, "batch_size": 8, "quiet": True}
    first = plastic_cli.train("feedback", **shared, feedback="kolen-pollack", feedback_decay=0)
    later = plastic_cli.train("feedback", **{**shared, **options}, feedback="kolen-pollack")
    for name, difference in stored_feedback(first).items():
        assert torch.allclose(stored_feedback(later)[name], left * difference, rtol=1e-4, atol=1e-6)
        assert difference.abs().max() > 0.1


def test_the_rate_of_the_weight_mirror(tiny_data):
    words = ["--dataset", tiny_data, "--hidden", 8, "--epochs", 2, "--batch-size", 8]
    still = results(*words, "--feedback", "weight-mirror", "--mirror-rate", 0)
    fixed = results(*words, "--feedback", "fixed")
    for key in ("train/loss", "test/loss", "test/accuracy"):
        assert still["metrics"][key] == fixed["metrics"][key]
    moving = results(*words, "--feedback", "weight-mirror", "--mirror-rate", 0.1)
    assert moving["metrics"]["train/loss"] != still["metrics"]["train/loss"]
    default = results(*words, "--feedback", "weight-mirror")
    assert default["metrics"] == results(*words, "--feedback", "weight-mirror", "--mirror-rate", 0.003)["metrics"]


def test_symmetric_feedback_of_any_network_is_backpropagation(tiny_data):
    words = ["--dataset", tiny_data, "--model", "lenet", "--epochs", 2, "--optimizer", "adam"]
    own = results(*words, "--feedback", "symmetric")
    [backprop] = plastic("train", "backprop", "--json", *words).results
    for key in ("train/loss", "test/loss", "test/accuracy"):
        assert own["metrics"][key] == pytest.approx(backprop["metrics"][key], rel=1e-4)


def test_strengths_teach_any_network(tiny_data):
    words = ["--dataset", tiny_data, "--hidden", 8, "--epochs", 2, "--batch-size", 4]
    plain, with_oja = (
        results(*words, "--theta", "0.02", "--terms", 0),
        results(*words, "--theta", "0.02,0.01", "--terms", "0,9"),
    )
    by_rate = results(*words, "--learning-rate", 0.02)
    assert plain["metrics"]["test/loss"] == pytest.approx(by_rate["metrics"]["test/loss"], rel=1e-5)
    assert with_oja["metrics"]["test/loss"] != pytest.approx(plain["metrics"]["test/loss"], rel=1e-3)


def test_the_options_of_published_settings_change_the_training(tiny_data):
    words = ["--dataset", tiny_data, "--hidden", 8, "--epochs", 4, "--optimizer", "momentum"]
    plain = results(*words)["metrics"]["test/loss"]
    for more in (["--initial-weights", "xavier"], ["--rate-drops", 0.5], ["--weight-decay", 0.1]):
        assert results(*words, *more)["metrics"]["test/loss"] != pytest.approx(plain, rel=1e-3), more


def test_xavier_weights_have_the_size_of_the_feedback():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.Flatten(), torch.nn.Linear(300, 200))
    training.draw_xavier(model, torch.Generator().manual_seed(0))
    for layer, fans in ((model[0], 5 * 5 * (3 + 8)), (model[2], 300 + 200)):
        bound = (6 / fans) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not layer.bias.any()


def options(words):
    pairs = dict(zip(words[:-3:2], words[1:-3:2], strict=True))
    return {name[2:].replace("-", "_"): value for name, value in pairs.items()} | {"dataset": words[-1]}
