"""Training on a stream: from the options to the components, through a training step, to the logged numbers.

Each logged number is recomputed from the images in the files of the data set and the stored networks. The recomputation
shares only the network's layers with the code under test.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from plastic_cli import RunFailed
from plastic_cli.data.datasets import load_dataset
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic
from plastic_selective import SelectivePlasticityOptimizer as Selective
from plastic_selective.config import Train
from plastic_selective.continual import components, replay, training
from plastic_selective.continual.components import make_components
from plastic_selective.continual.training import train_unlogged

CLASSES, IMAGES, SIZE = 3, 60, 6


@pytest.fixture
def noisy(tmp_path):
    """Images that are hard to distinguish. The test split has other images and other shares of classes."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    generator = np.random.default_rng(3)
    prototypes = generator.integers(0, 256, (CLASSES, SIZE, SIZE))
    for split, counts in (("train", (30, 20, 10)), ("test", (9, 17, 34))):
        y = generator.permutation(np.repeat(np.arange(CLASSES), counts))
        x = np.clip(prototypes[y] + generator.normal(0, 150, (len(y), SIZE, SIZE)), 0, 255).astype(np.uint8)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return folder


def config_of(folder, **options):
    small = {"dataset": str(folder), "tasks": 3, "batch_size": 5, "hidden": [8], "epochs": 2, "buffer_size": 12}
    if "iterations" in options:
        del small["epochs"]
    if options.get("replay") == "none" or options.get("joint"):
        del small["buffer_size"]
    return Train.from_values({**small, **options})


def run_of(config, folder):
    return create_run(folder, rule="selective", config=config.model_dump(mode="json"), stage="train")


def parts_of(config, tmp_path):
    run = run_of(config, tmp_path / "runs")
    return make_components(config, load_dataset(config.dataset, tmp_path), run), run


def learned(config, tmp_path):
    """Train without writing files, and return the accuracy matrix."""
    return train_unlogged(config, load_dataset(config.dataset, tmp_path), run_of(config, tmp_path / "runs"))


# ------------------------------------------------------------------------------------------------ options to parts


def test_every_option_of_the_optimizer_is_passed_to_it(noisy, tmp_path):
    options = {"plasticity_k": 7.0, "gating": "uniform", "warmup_steps": 17, "learning_rate": 0.03}
    for base, own in (
        ("adam", {"threshold_percentile": 40.0, "adaptive_threshold": False, "second_moment_decay": 0.9}),
        ("sgd", {"trace_decay": 0.8}),
    ):
        (group,) = parts_of(config_of(noisy, base=base, **options, **own), tmp_path)[0].optimizer.param_groups
        expected = {"base": base, **options, **own}
        expected["lr"] = expected.pop("learning_rate")
        if base == "adam":
            expected["betas"] = (0.9, expected.pop("second_moment_decay"))
        assert {name: group[name] for name in expected} == expected


# The table of docs/rules/selective.md with commands and their equivalents in Python. The first task has 12 steps.
IN_PYTHON = [
    ({}, lambda p: Selective(p, warmup_steps=round(0.1 * 12))),
    ({"warmup_share": 0.2}, lambda p: Selective(p, warmup_steps=round(0.2 * 12))),
    ({"warmup_steps": 500}, lambda p: Selective(p, warmup_steps=500)),
    ({"warmup_steps": 1000, "learning_rate": 0.003}, lambda p: Selective(p, lr=0.003)),
    ({"warmup_steps": 1000, "second_moment_decay": 0.99}, lambda p: Selective(p, betas=(0.9, 0.99))),
    (
        {"warmup_steps": 1000, "gating": "uniform", "threshold_percentile": 50.0, "adaptive_threshold": False},
        lambda p: Selective(p, gating="uniform", threshold_percentile=50.0, adaptive_threshold=False),
    ),
    (
        {"base": "sgd", "trace_decay": 0.9, "warmup_steps": 1000},
        lambda p: Selective(p, lr=0.01, base="sgd", trace_decay=0.9),
    ),
    ({"base": "sgd", "learning_rate": 0.001, "warmup_steps": 1000}, lambda p: Selective(p, base="sgd")),
    (
        {"base": "sgd", "learning_rate": 0.001, "plasticity_k": 10.0, "warmup_steps": 100},
        lambda p: Selective(p, base="sgd", plasticity_k=10, warmup_steps=100),
    ),
    ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=0.001)),
    ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.01)),
    ({"optimizer": "momentum"}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
]


@pytest.mark.parametrize(("options", "in_python"), IN_PYTHON, ids=[str(options) for options, _ in IN_PYTHON])
def test_the_command_makes_the_optimizer_of_the_docs_page(options, in_python, noisy, tmp_path):
    made = parts_of(config_of(noisy, **options), tmp_path)[0].optimizer
    named = in_python([torch.nn.Parameter(torch.zeros(2))])
    assert type(made) is type(named)
    (mine,), (theirs,) = made.param_groups, named.param_groups
    assert {**mine, "params": None} == {**theirs, "params": None}


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"optimizer": "sgd", "learning_rate": 0.2}, torch.optim.SGD, {"lr": 0.2, "momentum": 0}),
        ({"optimizer": "momentum", "momentum": 0.7}, torch.optim.SGD, {"lr": 0.01, "momentum": 0.7}),
        ({"optimizer": "adam", "second_moment_decay": 0.9}, torch.optim.Adam, {"lr": 0.001, "betas": (0.9, 0.9)}),
    ],
)
def test_controls_are_torchs_optimizers(options, kind, expected, noisy, tmp_path):
    optimizer = parts_of(config_of(noisy, **options), tmp_path)[0].optimizer
    assert type(optimizer) is kind
    assert {name: optimizer.param_groups[0][name] for name in expected} == expected
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_every_option_of_a_penalty_is_passed_to_it(noisy, tmp_path, monkeypatch):
    made = []
    for name in ("OnlineEWC", "SynapticIntelligence"):
        monkeypatch.setattr(components, name, lambda network, name=name, **options: made.append((name, options)))
    parts_of(config_of(noisy, penalty="ewc", penalty_strength=3.0, ewc_decay=0.5, fisher_samples=7), tmp_path)
    parts_of(config_of(noisy, penalty="si", penalty_strength=4.0, si_damping=0.3), tmp_path)
    del made[0][1]["generator"]
    assert made == [
        ("OnlineEWC", {"strength": 3.0, "decay": 0.5, "samples": 7}),
        ("SynapticIntelligence", {"strength": 4.0, "damping": 0.3}),
    ]


@pytest.mark.parametrize(
    ("options", "kind", "strata"),
    [
        ({"replay": "reservoir"}, replay.Reservoir, 1),
        ({"replay": "class-balanced"}, replay.Reservoir, CLASSES),
        ({"replay": "class-balanced", "stream": "permuted", "scenario": "domain"}, replay.Reservoir, 3 * CLASSES),
        ({"replay": "fifo"}, replay.FirstInFirstOut, None),
    ],
)
def test_the_buffer_has_the_kind_and_size_of_the_options(options, kind, strata, noisy, tmp_path):
    buffer = parts_of(config_of(noisy, **options), tmp_path)[0].buffer
    assert type(buffer) is kind
    if strata is not None:
        assert len(buffer._seen) == strata
        assert buffer.capacity == 12 // strata * strata
    else:
        assert buffer.capacity == 12


@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_without_a_gate_training_equals_the_control(base, noisy, tmp_path):
    shared = {"learning_rate": 0.02, "penalty": "si", "epochs": 4}
    gated, open_ = (
        learned(config_of(noisy, base=base, plasticity_k=k, warmup_steps=0, **shared), tmp_path) for k in (10.0, 0.0)
    )
    control = learned(config_of(noisy, optimizer=base, **shared), tmp_path)
    np.testing.assert_array_equal(open_, control)
    uniform = learned(
        config_of(noisy, base=base, plasticity_k=10.0, warmup_steps=0, gating="uniform", **shared), tmp_path
    )
    assert not np.array_equal(gated, uniform)


# ------------------------------------------------------------------------------------------------ images to a step


class Recorder:
    """A buffer that records the images that are added and the size of samples."""

    def __init__(self, buffer):
        self.buffer, self.added, self.counts = buffer, [], []

    def add(self, x, y, group):
        self.added.append((len(x), group.clone()))
        self.buffer.add(x, y, group)

    def sample(self, count):
        self.counts.append(count)
        return self.buffer.sample(count)


@pytest.mark.parametrize(("share", "replayed"), [(0.5, 5), (0.75, 15), (0.2, 1), (0.0, 0)])
@pytest.mark.parametrize("kind", ["reservoir", "class-balanced", "fifo"])
def test_only_the_published_loop_stores_replayed_images_again(kind, share, replayed, noisy, tmp_path, monkeypatch):
    """30 images of the first class, 20 of the second and 10 of the third, in batches of five, two passes."""
    recorders = []

    def recorded(*arguments):
        made = replay.make_buffer(*arguments)
        recorders.append(Recorder(made))
        if kind == "fifo":
            # The training loop checks the type of a first-in-first-out buffer.
            monkeypatch.setattr(training, "FirstInFirstOut", Recorder)
        return recorders[0]

    monkeypatch.setattr(components, "make_buffer", recorded)
    learned(config_of(noisy, replay=kind, buffer_size=60, replay_share=share), tmp_path)
    (recorder,) = recorders
    assert recorder.counts == [replayed] * 24
    groups = [group.tolist() for _, group in recorder.added]
    # New images come first, and belong to the present task.
    assert [group[:5] for group in groups] == [[0] * 5] * 12 + [[1] * 5] * 8 + [[2] * 5] * 4
    sizes = [count for count, _ in recorder.added]
    if kind != "fifo":
        assert sizes == [5] * 24
    else:
        assert sizes[0] == 5
        assert sizes[-1] == 5 + replayed
        assert sum(sizes) > 5 * 24 or not replayed


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [6] * 3), ({"stream": "permuted", "scenario": "domain"}, [2] * 9)],
    ids=["split", "permuted"],
)
def test_every_class_of_every_task_has_its_share_of_a_class_balanced_buffer(
    options, expected, noisy, tmp_path, monkeypatch
):
    """Tasks that share classes do not share places in the buffer."""
    made = []
    monkeypatch.setattr(components, "make_buffer", lambda *a: made.append(replay.make_buffer(*a)) or made[0])
    learned(config_of(noisy, replay="class-balanced", buffer_size=18, **options), tmp_path)
    assert made[0].groups().tolist() == expected


@pytest.mark.parametrize("joint", [False, True])
def test_the_data_of_a_task_are_its_training_images_or_those_of_all_tasks_so_far(joint, noisy, tmp_path, monkeypatch):
    collected = []
    made = training.task_data
    monkeypatch.setattr(training, "task_data", lambda *a: collected.append(made(*a)) or collected[-1])
    learned(config_of(noisy, joint=joint), tmp_path)
    counts = [torch.bincount(data.y, minlength=3).tolist() for data in collected]
    alone, together = [[30, 0, 0], [0, 20, 0], [0, 0, 10]], [[30, 0, 0], [30, 20, 0], [30, 20, 10]]
    assert counts == (together if joint else alone)


class RecordedPenalty:
    """A penalty that records its calls and adds a constant gradient."""

    def __init__(self, network):
        self.network, self.calls, self.ends = network, [], []
        self.at_backward = self.at_step = None

    def gradients(self):
        return torch.cat([p.grad.flatten() for p in self.network.parameters()])

    def after_backward(self):
        self.calls.append("after_backward")
        self.at_backward = self.gradients()

    def add_gradients(self):
        self.calls.append("add_gradients")
        for p in self.network.parameters():
            p.grad += 1.0
        self.before = [p.detach().clone() for p in self.network.parameters()]

    def after_step(self):
        self.calls.append("after_step")
        moved = torch.cat(
            [(b - p.detach()).flatten() for b, p in zip(self.before, self.network.parameters(), strict=True)]
        )
        # SGD at rate 0.5: the step follows the gradients of the loss and of the penalty.
        torch.testing.assert_close(moved, 0.5 * (self.at_backward + 1.0), rtol=1e-4, atol=1e-6)

    def end_task(self, x, logits):
        self.ends.append((len(x), logits(x)))


def test_a_penalty_gets_the_gradient_of_the_loss_and_the_step_follows_both(noisy, tmp_path, monkeypatch):
    penalties = []
    monkeypatch.setattr(
        components,
        "_make_penalty",
        lambda config, network, run: penalties.append(RecordedPenalty(network)) or penalties[0],
    )
    config = config_of(
        noisy, optimizer="sgd", learning_rate=0.5, replay="none", penalty="ewc", scenario="task", epochs=1
    )
    learned(config, tmp_path)
    (penalty,) = penalties
    assert penalty.calls == ["after_backward", "add_gradients", "after_step"] * 12
    # Each task ends once, with its own images and the outputs that were allowed in it.
    assert [count for count, _ in penalty.ends] == [30, 20, 10]
    for task, (_, logits) in enumerate(penalty.ends):
        assert torch.isfinite(logits).any(dim=0).tolist() == [output == task for output in range(3)]


@pytest.mark.parametrize(("active", "moves"), [("all", True), ("seen", False)])
def test_outputs_of_later_tasks_are_trained_only_if_all_compete(active, moves, noisy, tmp_path, monkeypatch):
    networks = []
    made = components.make_network
    monkeypatch.setattr(components, "make_network", lambda *a: networks.append(made(*a)) or networks[-1])
    biases = []
    config = config_of(noisy, active=active, optimizer="sgd", learning_rate=0.1, replay="none")
    run = run_of(config, tmp_path / "runs")
    train_unlogged(
        config,
        load_dataset(config.dataset, tmp_path),
        run,
        lambda: biases.append(networks[0].layers[-1].bias.detach().clone()),
    )
    start = (
        made(config, components.stream_of(config, load_dataset(config.dataset, tmp_path), run.seed), run)
        .layers[-1]
        .bias
    )
    after_first = biases[1]
    assert (not torch.equal(after_first[1:], start[1:])) == moves
    assert not torch.equal(after_first[:1], start[:1]) or not moves  # a single output has nothing to learn


# ------------------------------------------------------------------------------------------------ numbers logged


@pytest.mark.parametrize(("broken", "place"), [(8, "task 1: .* at step 8"), (12 + 5, "task 2: .* at step 5")])
def test_a_loss_that_is_not_finite_is_named_with_its_step_of_the_task(broken, place, noisy, tmp_path, monkeypatch):
    """30 and 20 images in batches of 5, two epochs: 12 and 8 steps, in two rounds for each task."""
    losses, cross_entropy = iter(range(1000)), training.functional.cross_entropy

    def of_step(*given, **options):
        # A measurement of accuracy sums, and a step of training takes the mean.
        breaks = not options and next(losses) == broken
        return cross_entropy(*given, **options) * (torch.nan if breaks else 1)

    monkeypatch.setattr(training.functional, "cross_entropy", of_step)
    with pytest.raises(RunFailed, match=place):
        learned(config_of(noisy, optimizer="sgd"), tmp_path)


def images(folder, split):
    stored = np.load(Path(folder) / f"{split}.npz")
    return stored["x"].reshape(len(stored["y"]), -1).astype(np.float64) / 255, stored["y"]


def counted_again(run, folder, split, task_classes):
    """Compute the accuracy on every task after every task from the stored networks, in float64.

    Images are scaled by the mean and standard deviation of all pixels of the training images, as the data set is.
    """
    of_training, _ = images(folder, "train")
    x, y = images(folder, split)
    x = (x - of_training.mean()) / of_training.std()
    matrix = []
    for learned_tasks in range(len(task_classes) + 1):
        state = torch.load(run / "artifacts" / f"network-{learned_tasks:03d}.pt", weights_only=True)["network"]
        layers = sorted({name.rpartition(".")[0] for name in state})
        hidden = x
        for number, layer in enumerate(layers):
            hidden = hidden @ state[f"{layer}.weight"].double().numpy().T + state[f"{layer}.bias"].double().numpy()
            if number < len(layers) - 1:
                hidden = np.maximum(hidden, 0)
        right = hidden.argmax(1) == y
        matrix.append([right[np.isin(y, classes)].mean() for classes in task_classes])
    return np.array(matrix)


def by_hand(matrix):
    """The measures after the last task, from their definitions."""
    tasks = matrix.shape[1]
    return {
        "accuracy": matrix[tasks].mean(),
        "backward_transfer": np.mean([matrix[tasks, j] - matrix[j + 1, j] for j in range(tasks - 1)]),
        "forward_transfer": np.mean([matrix[j, j] - matrix[0, j] for j in range(1, tasks)]),
        "forgetting": np.mean(
            [max(matrix[m, j] for m in range(1, tasks)) - matrix[tasks, j] for j in range(tasks - 1)]
        ),
        **{f"accuracy_task_{j + 1}": matrix[tasks, j] for j in range(tasks)},
    }


TYPED = ["--tasks", "3", "--hidden", "8", "--batch-size", "5", "--epochs", "3", "--learning-rate", "0.02"]


def train(folder, *options):
    outcome = plastic("train", "selective", "--quiet", "--dataset", folder, *TYPED, *options)
    assert outcome.code == 0, outcome.err
    return Path(outcome.out.strip())


@pytest.mark.parametrize("options", [(), ("--replay", "none"), ("--optimizer", "adam")], ids=" ".join)
def test_logged_test_results_are_recomputed_from_the_test_images(options, noisy):
    run = train(noisy, *options)
    matrix = counted_again(run, noisy, "test", [[0], [1], [2]])
    stored = pd.read_csv(run / "tables/accuracy_matrix.csv")
    np.testing.assert_allclose(stored["accuracy"].to_numpy().reshape(4, 3), matrix, atol=1e-6)
    summary = json.loads((run / "run.json").read_text())["summary"]
    expected = by_hand(matrix)
    assert {name: summary[f"test/{name}"] for name in expected} == pytest.approx(expected, abs=1e-6)
    # The two splits have different images and shares of classes, so that they cannot be confused.
    assert not np.allclose(counted_again(run, noisy, "train", [[0], [1], [2]]), matrix, atol=1e-3)


def test_eval_measures_the_split_of_its_option(noisy):
    run = train(noisy)
    for split in ("train", "test"):
        assert plastic("eval", "selective", "--quiet", "--split", split).code == 0
        found = pd.read_csv(run / f"tables/accuracy_matrix-{split}.csv")["accuracy"].to_numpy().reshape(4, 3)
        matrix = counted_again(run, noisy, split, [[0], [1], [2]])
        np.testing.assert_allclose(found, matrix, atol=1e-6)
        rows = RunStore(run.parent).metrics(runs=[run.name], stage="eval")
        logged = rows[rows["split"] == split].set_index("metric")["value"]
        expected = by_hand(matrix)
        assert {name: logged[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_validation_images_are_measured_and_not_trained_on(noisy):
    run = train(noisy, "--validation", "15")
    rows = RunStore(run.parent).metrics(runs=[run.name], stage="train")
    last = rows[rows["step"] == rows["step"].max()]
    by_split = last[last["metric"] == "accuracy"].groupby("split")["value"].max()
    assert set(by_split.index) >= {"test", "validation"}
    matrix = counted_again(run, noisy, "test", [[0], [1], [2]])
    summary = json.loads((run / "run.json").read_text())["summary"]
    assert summary["test/accuracy"] == pytest.approx(matrix[-1].mean(), abs=1e-6)
    assert summary["validation/accuracy"] != pytest.approx(summary["test/accuracy"], abs=1e-6)


def test_the_loss_of_the_test_split_is_the_mean_over_tasks_learned(noisy):
    run = train(noisy)
    rows = RunStore(run.parent).metrics(runs=[run.name], stage="train")
    rows = rows[(rows["split"] == "test") & (rows["metric"] == "loss")]
    summary = rows[rows["labels"].isna()].set_index("step")["value"]
    of_tasks = rows[rows["labels"].notna()]
    for after, step in enumerate((3, 6, 9), start=1):
        mine = of_tasks[of_tasks["step"] == step]
        tasks = mine["labels"].map(lambda text: json.loads(text)["task"])
        assert summary[step] == pytest.approx(mine[tasks <= after]["value"].mean())
