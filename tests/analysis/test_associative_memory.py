"""Hebbian memories against independent float64 computations, in their limits, and by their symmetries."""

import numpy as np
import pytest
import torch

from plastic_cli.analysis.associative_memory import (
    decorrelated_recall,
    decorrelated_scores,
    empty_memory,
    learn_example,
    learned,
    nearest_mean_scores,
    normalized,
    recall,
)


def examples(seed, n=12, units=7, classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, units, generator=generator, dtype=dtype).abs()
    return x, torch.arange(n) % classes


def learn_one_by_one(u, y, classes=3):
    memory = empty_memory(classes, u)
    for row, label in zip(u, y.tolist(), strict=True):
        learn_example(memory, row, label)
    return memory


def test_learning_one_by_one_gives_the_sums_of_outer_products():
    x, y = examples(0)
    u = x.numpy() / np.sqrt((x.numpy() ** 2).sum(1))[:, None]
    associations, inhibition = np.zeros((3, 7)), np.zeros((7, 7))
    for row, label in zip(u, y.numpy(), strict=True):
        associations += np.outer(np.eye(3)[label], row)
        inhibition += np.outer(row, row)
    memory = learn_one_by_one(normalized(x), y)
    np.testing.assert_allclose(memory.associations, associations, rtol=1e-13)
    np.testing.assert_allclose(memory.inhibition, inhibition, rtol=1e-13)
    for one_by_one, at_once in zip(memory, learned(empty_memory(3, x), normalized(x), y), strict=True):
        torch.testing.assert_close(one_by_one, at_once)


def test_recall_is_the_cosine_with_the_sum_of_the_examples_of_a_class():
    (x, y), (queries, _) = examples(0), examples(1)
    scores = recall(learn_one_by_one(normalized(x), y), normalized(queries)).numpy()
    for place, query in enumerate(queries.numpy()):
        for label in range(3):
            stored = sum(row / np.linalg.norm(row) for row in x[y == label].numpy())
            cosine = stored @ query / np.linalg.norm(stored) / np.linalg.norm(query)
            assert scores[place, label] == pytest.approx(cosine, rel=1e-12)


def test_decorrelated_recall_is_the_steady_state_of_lateral_inhibition():
    (x, y), (queries, _) = examples(0), examples(1)
    memory, u, ridge = learn_one_by_one(normalized(x), y), normalized(queries), 0.3
    v = torch.zeros_like(u)
    for _ in range(4000):
        v += 0.1 * (u - ridge * v - v @ memory.inhibition)
    torch.testing.assert_close(decorrelated_recall(memory, u, ridge), v @ memory.associations.T)


def test_decorrelated_recall_is_ridge_regression_on_the_codes():
    (x, y), (queries, _) = examples(0), examples(1)
    u, ridge = normalized(x).numpy(), 0.3
    # Ridge regression as least squares on rows that are appended.
    design = np.vstack([u, np.sqrt(ridge) * np.eye(7)])
    targets = np.vstack([np.eye(3)[y.numpy()], np.zeros((7, 3))])
    weights = np.linalg.lstsq(design, targets, rcond=None)[0]
    expected = normalized(queries).numpy() @ weights
    memory = learn_one_by_one(normalized(x), y)
    np.testing.assert_allclose(decorrelated_recall(memory, normalized(queries), ridge), expected, atol=1e-12)
    np.testing.assert_allclose(
        decorrelated_scores(normalized(x), y, normalized(queries), 3, ridge), expected, atol=1e-12
    )


def test_orthogonal_patterns_are_recalled_exactly():
    generator = torch.Generator().manual_seed(0)
    patterns = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    memory = learn_one_by_one(patterns, labels, classes=8)
    torch.testing.assert_close(recall(memory, patterns), torch.eye(8, dtype=torch.float64))
    # A = I, so that all scores are divided by 1 + lambda.
    torch.testing.assert_close(decorrelated_recall(memory, patterns, 0.5), torch.eye(8, dtype=torch.float64) / 1.5)


def test_capacity_interference_of_correlated_patterns_and_its_removal():
    """A component that all patterns share makes Hebbian recall err; inhibition removes the component."""
    generator = torch.Generator().manual_seed(0)
    units, stored = 200, 60
    random = torch.randn(stored, units, generator=generator, dtype=torch.float64)
    noise = torch.randn(stored, units, generator=generator, dtype=torch.float64)
    labels = torch.arange(stored) % 2
    common = 5 * torch.randn(units, generator=generator, dtype=torch.float64)

    def error(patterns):
        memory = learn_one_by_one(normalized(patterns), labels, classes=2)
        queries = normalized(patterns + 0.2 * noise)
        plain, inhibited = recall(memory, queries), decorrelated_recall(memory, queries, 1e-3)
        return [float((scores.argmax(1) != labels).double().mean()) for scores in (plain, inhibited)]

    assert error(random)[1] == 0
    plain, inhibited = error(random + common)
    assert plain > 0.02
    assert inhibited == 0
    # Beyond the capacity, the number of units, even the decorrelated memory errs on random labels.
    many = torch.randn(1000, units, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (1000,), generator=generator)
    memory = learn_one_by_one(normalized(many), y, classes=2)
    assert float((decorrelated_recall(memory, normalized(many), 1e-6).argmax(1) != y).double().mean()) > 0.1


def test_a_large_ridge_leaves_the_sum_memory():
    (x, y), (queries, _) = examples(0), examples(1)
    memory = learn_one_by_one(normalized(x), y)
    found = 1e9 * decorrelated_recall(memory, normalized(queries), 1e9)
    torch.testing.assert_close(found, normalized(queries) @ memory.associations.T, rtol=1e-6, atol=1e-6)


def test_neither_the_order_nor_the_brightness_of_examples_matters():
    (x, y), (queries, _) = examples(0), examples(1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    first = learn_one_by_one(normalized(x), y)
    other = learn_one_by_one(normalized(7 * x[order]), y[order])
    u = normalized(queries)
    torch.testing.assert_close(recall(first, u), recall(other, u))
    torch.testing.assert_close(decorrelated_recall(first, u, 0.1), decorrelated_recall(other, u, 0.1))


def test_a_rotation_of_the_units_changes_nothing():
    (x, y), (queries, _) = examples(0), examples(1)
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    for function in (
        lambda a, b: recall(learn_one_by_one(normalized(a), y), normalized(b)),
        lambda a, b: decorrelated_scores(normalized(a), y, normalized(b), 3, 0.1),
        lambda a, b: nearest_mean_scores(a, y, b, 3),
    ):
        torch.testing.assert_close(function(x, queries), function(x @ rotation, queries @ rotation))


def test_with_one_example_each_the_memory_finds_the_nearest_mean_of_normalized_features():
    (x, _), (queries, _) = examples(0, n=3), examples(1)
    y = torch.arange(3)
    memory = learn_one_by_one(normalized(x), y)
    distances = nearest_mean_scores(normalized(x), y, normalized(queries), 3)
    # For vectors of norm 1, |a - b|^2 = 2 - 2 a . b.
    torch.testing.assert_close(2 * recall(memory, normalized(queries)) - 2, distances)


def test_silent_units_and_empty_classes_score_zero():
    x, y = examples(0)
    x[3] = 0
    memory = empty_memory(4, x)
    for row, label in zip(normalized(x), y.tolist(), strict=True):
        learn_example(memory, row, label)
    scores = recall(memory, normalized(x))
    assert torch.isfinite(scores).all()
    assert (scores[3] == 0).all()
    assert (scores[:, 3] == 0).all()
