"""Few examples and classes in sequence: chance, perfect features, exact repetition, and an independent computation."""

import numpy as np
import pytest
import torch

from plastic_cli.analysis.few_shot import (
    DECORRELATED,
    HEBBIAN,
    MIXED_READOUT,
    READOUT,
    FewShotTask,
    IncrementalTask,
    few_shot_accuracies,
    incremental_accuracies,
    learn_readout,
    readers,
)
from plastic_cli.data.datasets import Split

TASK = FewShotTask(ways=4, shots=2, queries=5, episodes=40, seed=3)


def blobs(seed, n=240, classes=6, units=10, spread=0.3):
    generator = np.random.default_rng(seed)
    centers = np.abs(np.random.default_rng(99).normal(size=(classes, units)))
    y = np.arange(n) % classes
    x = np.abs(centers[y] + spread * generator.normal(size=(n, units)))
    return torch.from_numpy(x), torch.from_numpy(y) + 10


@pytest.mark.parametrize("reader", readers().values(), ids=readers())
def test_one_hot_features_are_read_perfectly_and_noise_at_chance(reader):
    y = torch.arange(240) % 6 + 10
    one_hot = torch.nn.functional.one_hot(y).double()
    assert (few_shot_accuracies(TASK, one_hot, y, reader) == 1).all()
    noise = torch.rand(240, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # 800 queries at a chance level of 25 percent: a standard error of 1.5 points.
    assert few_shot_accuracies(TASK, noise, y, reader).mean() == pytest.approx(0.25, abs=0.08)


def test_all_features_are_measured_on_the_same_episodes_and_repeat_exactly():
    x, y = blobs(0)
    drawn = [[episode.x for episode in TASK.draw(Split(features, y))] for features in (x, x, 2 * x)]
    for first, again, doubled in zip(*drawn, strict=True):
        assert torch.equal(first, again)
        assert torch.equal(2 * first, doubled)
    for reader in readers().values():
        first, again = (few_shot_accuracies(TASK, x, y, reader) for _ in range(2))
        assert (first == again).all()


def test_the_memory_equals_a_cosine_classifier_of_numpy():
    x, y = blobs(0, spread=0.8)
    expected = []
    for episode in TASK.draw(Split(x, y)):
        unit = episode.x.numpy() / np.linalg.norm(episode.x.numpy(), axis=1, keepdims=True)
        sums = np.stack([unit[episode.y.numpy() == label].sum(0) for label in range(4)])
        cosines = episode.query_x.numpy() @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T
        expected.append((cosines.argmax(1) == episode.query_y.numpy()).mean())
    assert few_shot_accuracies(TASK, x, y, readers()[HEBBIAN]) == pytest.approx(np.array(expected))
    assert 0.3 < np.mean(expected) < 1


def incremental(rate=0.05, classes=(12, 10, 15, 11), images=30):
    (train, train_y), (test, test_y) = blobs(0), blobs(1)
    return IncrementalTask(Split(train, train_y), Split(test, test_y), classes, images, rate, rate, seed=4)


def test_memories_do_not_forget_and_a_readout_by_sgd_does():
    found = incremental_accuracies(incremental())
    assert {len(values) for values in found.values()} == {3}
    assert found[READOUT][-1] < found[MIXED_READOUT][-1] - 0.2
    assert found[HEBBIAN][-1] > 0.8
    assert found[DECORRELATED][-1] > 0.8
    assert found == incremental_accuracies(incremental())


def test_the_last_memory_is_that_of_all_classes_in_any_order():
    orders = (12, 10, 15, 11), (15, 11, 10, 12)
    task = incremental(images=40)  # All images of each class, so that both orders learn the same images.
    first, other = (
        incremental_accuracies(IncrementalTask(task.train, task.test, order, 40, 0.05, 0.05, seed=4))
        for order in orders
    )
    for reader in (HEBBIAN, DECORRELATED):
        assert first[reader][-1] == pytest.approx(other[reader][-1])


def test_a_step_of_the_readout_is_the_gradient_of_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 6, generator=generator, dtype=torch.float64)
    start = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    weights = start.clone().requires_grad_(True)
    inputs = torch.cat([(x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt(), torch.ones(1, 1)], dim=1)
    torch.nn.functional.cross_entropy(inputs @ weights[:2].T, torch.tensor([1])).backward()
    found = start.numpy().copy()
    learn_readout(found, x, torch.tensor([1]), classes=2, rate=0.3)
    np.testing.assert_allclose(found, (start - 0.3 * weights.grad).numpy(), rtol=1e-10)
