"""The network and the tasks of a stored run, as another program loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import interrupted_after, plastic, write_tiny_dataset
from plastic_selective import load_stream
from plastic_selective.continual.trained import network


@pytest.fixture
def data(tmp_path):
    return write_tiny_dataset(tmp_path / "data", classes=6, images=61)


def command(data, *options):
    small = ["--hidden", 8, "--epochs", 2, "--batch-size", 16, "--buffer-size", 20]
    return ["train", "selective", "--json", "--dataset", data, *small, *options]


def trained(data, *options):
    outcome = plastic(*command(data, *options))
    assert outcome.code == 0, outcome.err
    return open_run(Path(outcome.results[0]["folder"]), stage="analyze")


@pytest.mark.parametrize(
    ("stream", "scenario"),
    [("split", "class"), ("split", "domain"), ("split", "task"), ("permuted", "domain"), ("rotated", "task")],
)
def test_the_loaded_network_has_the_accuracy_of_the_run(data, stream, scenario):
    run = trained(data, "--stream", stream, "--scenario", scenario, "--tasks", 3, "--seed", 4)
    loaded, tasks = network(run), load_stream(run, load_dataset(str(data))).tasks
    accuracies = []
    for number, task in enumerate(tasks, start=1):
        logits = loaded(task.test.x, task=number)
        accuracies.append(float((logits.argmax(1) == task.test.y).double().mean()))
        assert accuracies[-1] == run.record.summary[f"test/accuracy_task_{number}"]
        assert torch.equal(loaded(task.test.x, task=torch.full((len(logits),), number)), logits)
        if scenario != "task":
            assert torch.equal(loaded(task.test.x), logits)
    assert np.mean(accuracies) == run.record.summary["test/accuracy"]


def test_the_outputs_of_other_tasks_do_not_answer(data):
    run = trained(data, "--scenario", "task", "--tasks", 3, "--shuffle-classes")
    loaded, x = network(run), load_dataset(str(data)).test.x
    whole = loaded(x)
    for number, task in enumerate(load_stream(run, load_dataset(str(data))).tasks, start=1):
        logits = loaded(x.view(-1, 1, 6, 6), task=number)
        assert logits.isfinite().all(0).nonzero().flatten().tolist() == sorted(task.outputs)
        assert torch.equal(logits[:, task.outputs], whole[:, task.outputs])
    for wrong in (0, 4, torch.tensor([1, 4])):
        with pytest.raises(ValueError, match="the tasks are 1 to 3"):
            loaded(x, task=wrong)
    assert list(loaded.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


def test_a_stopped_run_answers_with_the_outputs_that_it_has_seen(data, tmp_path):
    with interrupted_after(3):
        assert plastic(*command(data, "--active", "seen", "--tasks", 3, "--runs", tmp_path / "stopped")).code == 130
    [folder] = [path for path in (tmp_path / "stopped").iterdir() if path.name.startswith("2")]
    logits = network(open_run(folder, stage="analyze"))(load_dataset(str(data)).test.x, task=1)
    assert logits.isfinite().all(0).tolist() == [True, True, True, True, False, False]
