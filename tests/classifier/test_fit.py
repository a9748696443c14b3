"""Seeds, the supervised loop and the baseline."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.classifier import fit as fit_module
from plastic_cli.classifier.baselines import BackpropLearner
from plastic_cli.classifier.fit import (
    EVALUATION_BATCH,
    features,
    fit,
    predict,
    stratified_sample,
)
from plastic_cli.classifier.learner import Learner, ScheduledLearner, StreamLearner
from plastic_cli.data.datasets import Split, load_dataset
from plastic_cli.errors import RunFailed, UserError
from plastic_cli.numerics.devices import find_device
from plastic_cli.numerics.seeds import derived_seed, seed_sequence, torch_generator
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.store import RunStore

SEEDS = st.integers(0, 2**63 - 1)
PURPOSES = st.text(max_size=20)

# ---------------------------------------------------------------------------------------------------------- seeds


@given(SEEDS, PURPOSES)
def test_the_same_seed_and_purpose_give_the_same_stream(seed, purpose):
    assert derived_seed(seed, purpose) == derived_seed(seed, purpose)
    one, two = (torch.rand(5, generator=torch_generator(seed, purpose)) for _ in range(2))
    assert torch.equal(one, two)
    states = [seed_sequence(seed, purpose).generate_state(4).tolist() for _ in range(2)]
    assert states[0] == states[1]


@given(SEEDS, PURPOSES)
def test_derived_seeds_fit_into_an_integer(seed, purpose):
    assert 0 <= derived_seed(seed, purpose) < 2**63


def test_streams_differ_between_seeds_and_purposes():
    seeds, purposes = range(200), ("noise", "order", "weights", "eval", "")
    derived = {derived_seed(seed, purpose) for seed, purpose in itertools.product(seeds, purposes)}
    assert len(derived) == 1000


def test_neighbouring_seeds_and_purposes_are_uncorrelated():
    streams = [torch_generator(seed, purpose) for seed in range(6) for purpose in ("noise", "order")]
    draws = torch.stack([torch.randn(20_000, generator=stream, dtype=torch.float64) for stream in streams])
    correlation = torch.corrcoef(draws) - torch.eye(len(streams))
    # 66 pairs; a standard deviation is 1/sqrt(20000) = .007.
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_the_global_random_states_have_no_influence():
    expected = derived_seed(1, "noise"), torch.rand(3, generator=torch_generator(1, "noise")).tolist()
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    left = torch.get_rng_state()
    assert (derived_seed(1, "noise"), torch.rand(3, generator=torch_generator(1, "noise")).tolist()) == expected
    assert torch.equal(torch.get_rng_state(), left)
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


def test_the_streams_have_fixed_values():
    """A change here would give every stored seed another meaning."""
    assert derived_seed(0, "weights") == 8123138349646949767
    assert derived_seed(1, "noise") == 7676080414298300998


# -------------------------------------------------------------------------------------------------------- devices


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="Use --device cpu"):
            find_device("cuda")


# ------------------------------------------------------------------------------------------------------- backprop


def learner_of(sizes=(5, 4, 3), seed=0, **options):
    options = {"learning_rate": 0.1, "optimizer": "sgd", **options}
    return BackpropLearner(sizes, torch.Generator().manual_seed(seed), **options)


def batch(rows=7, inputs=5, classes=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, inputs, generator=generator), torch.randint(classes, (rows,), generator=generator)


def parameters_of(learner):
    return [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in learner.layers]


def gradients(parameters, x, y):
    """The chain rule by hand in float64: mean cross-entropy of a ReLU network."""
    activities = [x.double().numpy()]
    for number, (weights, biases) in enumerate(parameters):
        z = activities[-1] @ weights.double().numpy().T + biases.double().numpy()
        activities.append(z if number == len(parameters) - 1 else np.maximum(z, 0))
    logits = activities[-1]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    delta = shares / shares.sum(1, keepdims=True)
    delta[np.arange(len(y)), y.numpy()] -= 1
    delta /= len(y)
    found = []
    for number in reversed(range(len(parameters))):
        found.insert(0, (delta.T @ activities[number], delta.sum(0)))
        delta = (delta @ parameters[number][0].double().numpy()) * (activities[number] > 0)
    return found


@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3), (5, 6, 4, 3)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_the_gradient_computed_by_hand(sizes, momentum):
    learner = learner_of(sizes, momentum=momentum)
    velocity = [(0.0, 0.0)] * (len(sizes) - 1)
    for step in range(3):
        x, y = batch(seed=step)
        before = parameters_of(learner)
        expected = gradients(before, x, y)
        velocity = [
            tuple(momentum * old + new for old, new in zip(one, two, strict=True))
            for one, two in zip(velocity, expected, strict=True)
        ]
        learner.train_batch(x, y)
        for old, new, change in zip(before, parameters_of(learner), velocity, strict=True):
            for part in (0, 1):
                np.testing.assert_allclose(
                    new[part].double().numpy(), old[part].double().numpy() - 0.1 * change[part], rtol=1e-5, atol=1e-6
                )


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate():
    learner = learner_of(optimizer="adam", learning_rate=0.01)
    x, y = batch()
    before = parameters_of(learner)
    expected = gradients(before, x, y)
    learner.train_batch(x, y)
    for old, new, gradient in zip(before, parameters_of(learner), expected, strict=True):
        moved = (new[0] - old[0]).double().numpy()
        active = np.abs(gradient[0]) > 1e-5
        np.testing.assert_allclose(moved[active], -0.01 * np.sign(gradient[0])[active], rtol=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_trained_readout_does_not_change_the_other_layers(optimizer):
    learner = learner_of((5, 6, 4, 3), trained="readout", optimizer=optimizer)
    before = parameters_of(learner)
    for step in range(5):
        learner.train_batch(*batch(seed=step))
    after = parameters_of(learner)
    for old, new in zip(before[:-1], after[:-1], strict=True):
        assert torch.equal(old[0], new[0])
        assert torch.equal(old[1], new[1])
    assert not torch.equal(before[-1][0], after[-1][0])
    assert not torch.equal(before[-1][1], after[-1][1])


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(5)
    one = parameters_of(learner_of(seed=3))
    torch.manual_seed(6)
    two, other = parameters_of(learner_of(seed=3)), parameters_of(learner_of(seed=4))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0][0], other[0][0])
    assert all((biases == 0).all() for _, biases in one)


def test_hidden_weights_keep_the_size_of_activity():
    weights = learner_of((2000, 500, 3)).first_weights
    assert weights.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.01)


def test_prediction_and_features_agree_and_do_not_change_the_learner():
    learner = learner_of((5, 6, 4, 3))
    x, _ = batch()
    before = copy.deepcopy(learner.state_dict())
    hidden = learner.features(x)
    assert [layer.shape[1] for layer in hidden] == [6, 4]
    assert all((layer >= 0).all() for layer in hidden)
    assert torch.equal(learner.layers[-1](hidden[-1]), learner.predict(x))
    for name, value in learner.state_dict()["layers"].items():
        assert torch.equal(value, before["layers"][name])
    assert learner_of((5, 3)).features(x) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_restored_learner_continues_identically(optimizer):
    one, two = learner_of(optimizer=optimizer, momentum=0.5), learner_of(optimizer=optimizer, momentum=0.5, seed=8)
    one.train_batch(*batch(seed=1))
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, two):
        learner.train_batch(*batch(seed=2))
    for mine, its in zip(parameters_of(one), parameters_of(two), strict=True):
        assert torch.equal(mine[0], its[0])


def test_backprop_is_a_learner_without_optional_methods():
    learner = learner_of()
    assert isinstance(learner, Learner)
    assert not isinstance(learner, StreamLearner)
    assert not isinstance(learner, ScheduledLearner)


# ------------------------------------------------------------------------------------------------------------- fit


class Witness:
    """A learner that learns nothing and remembers what it was shown."""

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


class StreamWitness(Witness):
    """One that takes the stream."""

    def train_stream(self, x, y, order, progress):
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


@pytest.mark.parametrize("kind", [Witness, StreamWitness])
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
    learner = Witness()
    fit(learner, tiny, run, epochs=1, batch_size=8)
    assert [len(x) for x, _ in learner.batches[0]] == [8, 8, 8, 8, 8, 8, 3]


def test_logged_values_equal_an_independent_count(tiny, run, runs_folder):
    fit(Witness(), tiny, run, epochs=2, batch_size=8)
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
    fit(Witness(), by_class, run, epochs=1, batch_size=8)
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
    fit(Witness(), data, run, epochs=1, batch_size=8)
    frame = RunStore(runs_folder).metrics()
    found = frame[frame["metric"] == "accuracy"].groupby("split")["value"].unique()
    assert found["validation"].tolist() == [1.0]
    assert found["test"].tolist() == [0.0]
    assert found["train"].tolist() == [pytest.approx((tiny.train.y == 0).double().mean().item())]


def test_without_a_validation_split_none_is_logged(tiny_data, run, runs_folder):
    fit(Witness(), load_dataset(str(tiny_data), None), run, epochs=1, batch_size=8)
    assert set(RunStore(runs_folder).metrics()["split"]) == {"train", "test"}


def test_fit_describes_the_data_and_counts_samples(tiny, run):
    fit(Witness(), tiny, run, epochs=2, batch_size=8)
    assert run.record.data["checksum"] == tiny.checksum
    assert run.record.data["image_shape"] == [1, 6, 6]
    assert run.record.speed["samples"] == 2 * 51
    assert run.record.speed["seconds"] > 0


def test_a_learner_that_diverges_ends_the_run_with_its_epoch(tiny, run):
    class Diverges(Witness):
        def train_batch(self, x, y):
            if len(self.batches) == 2:
                raise FloatingPointError("a weight is no longer finite by step 60")

    with pytest.raises(RunFailed, match="epoch 2: a weight is no longer finite by step 60"):
        fit(Diverges(), tiny, run, epochs=3, batch_size=8)


def test_a_loss_that_is_not_finite_ends_the_run(tiny, run):
    class NotFinite(Witness):
        def predict(self, x):
            return super().predict(x) * (float("nan") if self.batches else 1)

    with pytest.raises(RunFailed, match="train/loss became nan at epoch 1"):
        fit(NotFinite(), tiny, run, epochs=3, batch_size=8)


def test_many_images_are_evaluated_in_batches_and_keep_their_order():
    sizes = []

    class Counts(Witness):
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
