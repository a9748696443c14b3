import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.analysis.classification import accuracy_by_class, confusion_matrix, evaluate


def evaluated(logits, y):
    return evaluate(lambda inputs: inputs, logits, y)


def test_accuracy_counts_the_largest_logit():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 4.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]])
    assert evaluated(logits, torch.tensor([0, 2, 2, 1])).accuracy.item() == 0.5


def test_cross_entropy_by_hand(tmp_path):
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(7, 4, generator=generator), torch.randint(0, 4, (7,), generator=generator)
    expected = 0.0
    for row, label in zip(logits.double().numpy(), y.tolist(), strict=True):
        expected += math.log(sum(math.exp(value) for value in row)) - row[label]
    assert evaluated(logits, y).loss.item() == pytest.approx(expected / 7, rel=1e-6)


def test_cross_entropy_of_equal_logits_is_log_of_the_number_of_classes():
    assert evaluated(torch.zeros(3, 10), torch.tensor([0, 4, 9])).loss.item() == pytest.approx(math.log(10))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_confusion_counts_every_pair(pairs):
    expected = np.zeros((4, 4), dtype=int)
    for label, prediction in pairs:
        expected[label][prediction] += 1
    y = torch.tensor([label for label, _ in pairs], dtype=torch.int64)
    predictions = torch.tensor([prediction for _, prediction in pairs], dtype=torch.int64)
    np.testing.assert_array_equal(confusion_matrix(predictions, y, 4).numpy(), expected)


def test_confusion_refuses_a_class_that_does_not_exist():
    with pytest.raises(IndexError):
        confusion_matrix(torch.tensor([3]), torch.tensor([0]), 3)


def test_accuracy_by_class_and_a_class_without_examples():
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    by_class = accuracy_by_class(confusion)
    assert by_class[[0, 2]].tolist() == [0.75, 0.5]
    assert by_class[1].isnan()


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation_does_not_depend_on_the_batch_size(batch_size):
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(50, 5, generator=generator), torch.randn(5, 3, generator=generator)
    y = torch.randint(0, 3, (50,), generator=generator)
    result = evaluate(lambda inputs: inputs @ weights, x, y, batch_size)
    assert result.accuracy.item() == ((x @ weights).argmax(1) == y).double().mean().item()
    expected = torch.nn.functional.cross_entropy(x @ weights, y).item()
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)


def test_evaluation_without_images_is_nan():
    result = evaluate(lambda inputs: inputs, torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert result.accuracy.isnan() and result.loss.isnan()
