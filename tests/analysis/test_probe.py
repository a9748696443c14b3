import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from plastic_cli.analysis.probe import L2_CHOICES, linear_probe, probe_layers
from plastic_cli.data.datasets import Dataset, Split
from plastic_cli.errors import PlasticError


def blobs(seed, n, classes=4, units=6, spread=0.3):
    """Features around one center per class; the centers are the same for every seed."""
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, units))
    y = generator.integers(0, classes, n)
    return torch.from_numpy(centers[y] + spread * generator.normal(size=(n, units))).float(), torch.from_numpy(y)


def test_separable_classes_are_predicted_and_random_labels_are_not():
    (train, train_y), (test, test_y) = blobs(0, 600, spread=0.05), blobs(1, 400, spread=0.05)
    result = linear_probe(train, train_y, test, test_y, seed=0)
    assert result.accuracy == 1
    assert result.validation_accuracy == 1
    assert result.examples == 600
    (train, train_y), (test, test_y) = (blobs(seed, 2000, spread=5) for seed in (0, 1))
    generator = torch.Generator().manual_seed(2)
    shuffled, test_shuffled = (y[torch.randperm(2000, generator=generator)] for y in (train_y, test_y))
    chance = linear_probe(train, shuffled, test, test_shuffled, seed=0)
    # Of four classes: 25 percent, with a standard deviation of 1 for 2000 test examples.
    assert abs(chance.accuracy - 0.25) < 0.05


def test_is_softmax_regression_with_the_stated_penalty():
    (train, train_y), (test, test_y) = blobs(0, 300, spread=1.0), blobs(1, 1000, spread=1.0)
    result = linear_probe(train, train_y, test, test_y, seed=3)
    x = train.double().numpy()
    mean, deviation = x.mean(0), x.std(0)
    x, y = (x - mean) / deviation, train_y.numpy()

    def loss(parameters):
        weights, biases = parameters[:24].reshape(4, 6), parameters[24:]
        logits = x @ weights.T + biases
        return np.mean(logsumexp(logits, axis=1) - logits[np.arange(300), y]) + result.l2 / 2 * (weights**2).sum()

    best = minimize(loss, np.zeros(28), method="BFGS", options={"gtol": 1e-6}).x
    logits = (test.double().numpy() - mean) / deviation @ best[:24].reshape(4, 6).T + best[24:]
    # Tolerances of the two fits may turn a test example that lies on a border.
    assert result.accuracy == pytest.approx(np.mean(logits.argmax(1) == test_y.numpy()), abs=0.004)
    assert result.converged


def test_l2_is_chosen_without_the_test_split():
    (train, train_y), (test, test_y) = blobs(0, 120, spread=1.5), blobs(1, 100, spread=1.5)
    one = linear_probe(train, train_y, test, test_y, seed=0)
    other = linear_probe(train, train_y, test, (test_y + 1) % 4, seed=0)
    assert (one.l2, one.validation_accuracy) == (other.l2, other.validation_accuracy)
    assert one.l2 in L2_CHOICES
    assert one.accuracy > 2 * other.accuracy


def test_noise_needs_a_strong_penalty_and_much_data_a_weak_one():
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(120, 200, generator=generator)
    y = (noisy[:, 0] + torch.randn(120, generator=generator) > 0).long()
    strong = linear_probe(noisy, y, noisy, y, seed=0).l2
    clear = torch.randn(3000, 5, generator=generator)
    weak = linear_probe(clear, (clear[:, 0] > 0).long(), clear, (clear[:, 0] > 0).long(), seed=0).l2
    assert strong > weak


def test_same_seed_same_result_and_the_subset_is_stated():
    (train, train_y), (test, test_y) = blobs(0, 500, spread=1.0), blobs(1, 500, spread=1.0)
    results = [linear_probe(train, train_y, test, test_y, seed=seed, examples=60) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0] != results[2]
    assert results[0].examples == 60
    assert linear_probe(train, train_y, test, test_y, seed=0, examples=10_000).examples == 500


def test_does_not_depend_on_scale_shift_or_constant_units():
    (train, train_y), (test, test_y) = blobs(0, 300, spread=0.8), blobs(1, 300, spread=0.8)
    plain = linear_probe(train, train_y, test, test_y, seed=0)
    scale = torch.tensor([1e-3, 10, 1, 1e3, 0.1, 1])

    def moved(x):
        return torch.cat([x * scale + 5, torch.full((len(x), 1), 0.1), torch.zeros(len(x), 1)], dim=1)

    result = linear_probe(moved(train), train_y, moved(test), test_y, seed=0)
    assert result.accuracy == pytest.approx(plain.accuracy, abs=0.01)
    assert result.l2 == plain.l2


def test_features_without_information_predict_the_most_frequent_class():
    y = torch.tensor([0] * 40 + [1] * 20)
    result = linear_probe(torch.zeros(60, 3), y, torch.ones(60, 3), y, seed=0)
    assert result.accuracy == pytest.approx(2 / 3)


def test_a_class_that_only_the_validation_part_has(recwarn):
    train, train_y = blobs(0, 60, classes=2, spread=0.1)
    held_out = np.random.default_rng(0).permutation(60)[0]
    train_y[held_out] = 2
    assert linear_probe(train, train_y, train, train_y, seed=0).accuracy > 0.9
    assert not [warning for warning in recwarn if issubclass(warning.category, ConvergenceWarning)]


def test_refuses_one_class_and_features_that_are_not_finite():
    with pytest.raises(ValueError, match="two classes"):
        linear_probe(torch.rand(20, 3), torch.zeros(20), torch.rand(5, 3), torch.zeros(5), seed=0)
    train, train_y = blobs(0, 60)
    for bad in (float("nan"), float("inf")):
        broken = train.clone()
        broken[3, 2] = bad
        with pytest.raises(PlasticError, match="not finite"):
            linear_probe(broken, train_y, train, train_y, seed=0)


def test_layers_of_both_networks_are_probed_on_the_same_examples():
    (train, train_y), (test, test_y) = blobs(0, 300, spread=0.6), blobs(1, 200, spread=0.6)
    dataset = Dataset(
        name="blobs",
        train=Split(train, train_y),
        test=Split(test, test_y),
        validation=None,
        classes=4,
        class_names=tuple("abcd"),
        image_shape=(1, 1, 6),
        mean=(0.0,),
        std=(1.0,),
        checksum="",
        note="",
    )

    def trained(x):
        return [x, x[:, :3]]

    def untrained(x):
        return [x[:, :1], x[:, :1] * 0]

    probes = probe_layers({"trained": trained, "untrained": untrained}, dataset, seed=5, examples=200, batch_size=64)
    assert [(probe.layer, probe.network) for probe in probes] == [
        (0, "trained"),
        (0, "untrained"),
        (1, "trained"),
        (1, "untrained"),
    ]
    assert {probe.examples for probe in probes} == {200}
    assert probes[0].accuracy > probes[1].accuracy > probes[3].accuracy
    chosen = torch.from_numpy(np.random.default_rng(5).permutation(300)[:200])
    direct = linear_probe(train[chosen], train_y[chosen], test, test_y, seed=5)
    assert probes[0].accuracy == direct.accuracy
