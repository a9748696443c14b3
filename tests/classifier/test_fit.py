"""The training loop of classifiers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.classifier import fit as fit_module
from plastic_cli.classifier.fit import (
    EVALUATION_BATCH,
    features,
    fit,
    predict,
    stratified_sample,
)
from plastic_cli.data.datasets import Split, load_dataset
from plastic_cli.errors import RunFailed
from plastic_cli.numerics.seeds import torch_generator
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.store import RunStore


class RecordingLearner:
    """A learner that learns nothing and records its inputs."""

    def __init__(self, classes=3):
        self.classes, self.batches, self.epochs = classes, [], []

    def begin_epoch(self, epoch, epochs):
        self.epochs.append((epoch, epochs))
        self.batches.append([])

    def train_batch(self, x, y):
        self.batches[-1].append((x.clone(), y.clone()))

    def predict(self, x):
        return torch.zeros(len(x), self.classes).index_fill_(1, torch.tensor([0]), 2.0)

    def features(self, x):
        return [x, x[:, :2]]

    def state_dict(self):
        return {"seen": len(self.batches)}

    def load_state_dict(self, state):
        self.batches = [[]] * state["seen"]


class RecordingEpochLearner(RecordingLearner):
    """The same, as a stream learner."""

    def train_epoch(self, x, y, order, progress):
        self.batches[-1] = [(x[order], y[order])]
        progress(len(order))


@pytest.fixture
def tiny(tiny_data):
    return load_dataset(str(tiny_data), None, validation=9)


@pytest.fixture
def run(runs_folder):
    run = create_run(runs_folder, rule="witness", config={"seed": 5})
    with run.locked():
        yield run


@pytest.mark.parametrize("kind", [RecordingLearner, RecordingEpochLearner])
def test_every_epoch_has_every_image_once_in_a_new_order(kind, tiny, run):
    learner = kind()
    called = []
    fit(learner, tiny, run, epochs=3, batch_size=8, after_epoch=called.append)
    assert called == [0, 1, 2, 3]
    assert learner.epochs == [(0, 3), (1, 3), (2, 3)]
    orders = []
    for batches in learner.batches:
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        # Every image is found once, with its own label.
        found = (x[:, None, :] == tiny.train.x[None]).all(2)
        assert (found.sum(0) == 1).all()
        order = found.double().argmax(1)
        assert torch.equal(tiny.train.y[order], y)
        orders.append(order.tolist())
    assert len({tuple(order) for order in orders}) == 3
    # The order is that of the run's stream for it, whatever else draws random numbers.
    expected = torch_generator(5, "order")
    assert orders == [torch.randperm(51, generator=expected).tolist() for _ in range(3)]


def test_batches_have_the_chosen_size(tiny, run):
    learner = RecordingLearner()
    fit(learner, tiny, run, epochs=1, batch_size=8)
    assert [len(x) for x, _ in learner.batches[0]] == [8, 8, 8, 8, 8, 8, 3]


def test_logged_values_equal_an_independent_count(tiny, run, runs_folder):
    fit(RecordingLearner(), tiny, run, epochs=2, batch_size=8)
    frame = RunStore(runs_folder).metrics()
    assert sorted(frame["step"].unique()) == [0, 1, 2]
    assert set(frame["stage"]) == {"train"}
    share = np.exp(2) / (np.exp(2) + 2)
    for name, split in (("train", tiny.train), ("validation", tiny.validation), ("test", tiny.test)):
        right = (split.y == 0).double().mean().item()
        loss = -(right * np.log(share) + (1 - right) * np.log((1 - share) / 2))
        rows = frame[frame["split"] == name].pivot_table(index="step", columns="metric", values="value")
        np.testing.assert_allclose(rows["accuracy"], right)
        np.testing.assert_allclose(rows["loss"], loss, rtol=1e-6)


def sorted_by_class(sizes):
    """A split stored class by class, its x the position in the store."""
    y = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    return Split(torch.arange(len(y), dtype=torch.float32)[:, None], y)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 100), st.booleans())
def test_a_stratified_sample_has_each_class_in_proportion_for_any_storage_order(sizes, images, mixed):
    split = sorted_by_class(sizes)
    if mixed:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        split = Split(split.x[order], split.y[order])
    sample = stratified_sample(split, images)
    assert len(sample) == len(sample.x) == min(images, len(split))
    assert len(sample.x.unique()) == len(sample)
    for label, size in enumerate(sizes):
        share = size * len(sample) / len(split) if len(split) else 0
        assert abs((sample.y == label).sum().item() - share) < 1
    # Every image with its own label, and the same sample each time.
    labels = dict(zip(split.x[:, 0].tolist(), split.y.tolist(), strict=True))
    assert [labels[position] for position in sample.x[:, 0].tolist()] == sample.y.tolist()
    assert torch.equal(stratified_sample(split, images).x, sample.x)


def test_a_stratified_sample_does_not_take_the_first_of_each_class():
    sample = stratified_sample(sorted_by_class([100, 100]), 20)
    assert sample.x[sample.y == 0].tolist() == [[10.0 * n] for n in range(10)]
    assert sample.x[sample.y == 1].tolist() == [[100 + 10.0 * n] for n in range(10)]


def test_train_accuracy_is_measured_on_a_stratified_sample(tiny, run, runs_folder, monkeypatch):
    """Of a set that is stored class by class the first images would all be of one class."""
    order = torch.argsort(tiny.train.y, stable=True)
    by_class = dataclasses.replace(tiny, train=Split(tiny.train.x[order], tiny.train.y[order]))
    monkeypatch.setattr(fit_module, "TRAINING_SAMPLE", 12)
    fit(RecordingLearner(), by_class, run, epochs=1, batch_size=8)
    frame = RunStore(runs_folder).metrics()
    found = frame.loc[(frame["split"] == "train") & (frame["metric"] == "accuracy"), "value"]
    share = (tiny.train.y == 0).double().mean().item()
    assert 0 < share < 0.6
    assert len(found) == 2
    assert all(abs(value - share) <= 1 / 12 for value in found)


def test_each_split_is_measured_on_its_own_images(tiny, run, runs_folder):
    """The learner always answers 0: right on all validation images, on no test image, on a third of the others."""

    def only(split, chosen):
        return Split(split.x[chosen], split.y[chosen])

    data = dataclasses.replace(
        tiny, validation=only(tiny.validation, tiny.validation.y == 0), test=only(tiny.test, tiny.test.y != 0)
    )
    fit(RecordingLearner(), data, run, epochs=1, batch_size=8)
    frame = RunStore(runs_folder).metrics()
    found = frame[frame["metric"] == "accuracy"].groupby("split")["value"].unique()
    assert found["validation"].tolist() == [1.0]
    assert found["test"].tolist() == [0.0]
    assert found["train"].tolist() == [pytest.approx((tiny.train.y == 0).double().mean().item())]


def test_without_a_validation_split_none_is_logged(tiny_data, run, runs_folder):
    fit(RecordingLearner(), load_dataset(str(tiny_data), None), run, epochs=1, batch_size=8)
    assert set(RunStore(runs_folder).metrics()["split"]) == {"train", "test"}


def test_fit_describes_the_data_and_counts_samples(tiny, run):
    fit(RecordingLearner(), tiny, run, epochs=2, batch_size=8)
    assert run.record.data["checksum"] == tiny.checksum
    assert run.record.data["image_shape"] == [1, 6, 6]
    assert run.record.speed["samples"] == 2 * 51
    assert run.record.speed["seconds"] > 0


def test_a_learner_that_diverges_ends_the_run_with_its_epoch(tiny, run):
    class Diverges(RecordingLearner):
        def train_batch(self, x, y):
            if len(self.batches) == 2:
                raise FloatingPointError("a weight is no longer finite by step 60")

    with pytest.raises(RunFailed, match="epoch 2: a weight is no longer finite by step 60"):
        fit(Diverges(), tiny, run, epochs=3, batch_size=8)


def test_a_loss_that_is_not_finite_ends_the_run(tiny, run):
    class NotFinite(RecordingLearner):
        def predict(self, x):
            return super().predict(x) * (float("nan") if self.batches else 1)

    with pytest.raises(RunFailed, match="train/loss became nan at epoch 1"):
        fit(NotFinite(), tiny, run, epochs=3, batch_size=8)


def test_many_images_are_evaluated_in_batches_and_keep_their_order():
    sizes = []

    class Counts(RecordingLearner):
        def predict(self, x):
            sizes.append(len(x))
            assert not torch.is_grad_enabled()
            return x

        def features(self, x):
            return [x, -x]

    x = torch.arange(2.0 * EVALUATION_BATCH + 3)[:, None]
    assert torch.equal(predict(Counts().predict, x), x)
    assert sizes == [EVALUATION_BATCH, EVALUATION_BATCH, 3]
    assert [torch.equal(one, two) for one, two in zip(features(Counts(), x), [x, -x], strict=True)] == [True, True]
