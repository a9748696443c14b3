import pandas as pd
import pytest
import torch

from plastic_cli.analysis.robustness import default_corruptions, robustness
from plastic_cli.data.corruptions import Corruption, gaussian_noise
from plastic_cli.data.datasets import Dataset, Split
from plastic_cli.errors import UserError

SIDE = 6


def images(pixels, y, image_shape=(1, SIDE, SIDE)):
    split = Split((pixels - 0.2) / 0.5, y)
    return Dataset(
        name="bars",
        train=split,
        test=split,
        validation=None,
        classes=2,
        class_names=("horizontal", "vertical"),
        image_shape=image_shape,
        mean=(0.2,),
        std=(0.5,),
        checksum="",
        note="",
    )


@pytest.fixture
def bars():
    """Horizontal and vertical bars through the middle, and a classifier of templates that is right on all of them."""
    templates = torch.zeros(2, SIDE, SIDE)
    templates[0, 2:4, :] = 1
    templates[1, :, 2:4] = 1
    y = torch.arange(2).repeat(100)
    dataset = images(templates.flatten(1)[y], y)
    weights = (templates - 0.5).flatten(1).T

    return dataset, lambda x: x @ weights


def test_clean_row_first_then_every_corruption(bars):
    dataset, predict = bars
    rows = robustness(predict, dataset, [Corruption("gaussian-noise", 0.5), Corruption("rotation", 15)], seed=1)
    assert [(row.kind, row.strength) for row in rows] == [("clean", 0), ("gaussian-noise", 0.5), ("rotation", 15)]
    assert rows[0].accuracy == 1
    assert {row.examples for row in rows} == {200}
    assert list(pd.DataFrame(rows).columns) == ["kind", "strength", "accuracy", "loss", "examples"]


def test_a_quarter_turn_swaps_the_bars_and_no_corruption_changes_nothing(bars):
    dataset, predict = bars
    clean, turned, still = robustness(
        predict, dataset, [Corruption("fixed-rotation", 90), Corruption("gaussian-noise", 0)]
    )
    assert turned.accuracy == 0
    assert (still.accuracy, still.loss) == (clean.accuracy, clean.loss)


def test_noise_has_the_stated_strength_and_decreases_accuracy(bars):
    dataset, predict = bars
    noisy = [Corruption("gaussian-noise", sigma) for sigma in (1, 4, 100)]
    accuracies = [row.accuracy for row in robustness(predict, dataset, noisy, seed=7)]
    assert accuracies[0] > accuracies[2] > accuracies[3]
    assert abs(accuracies[3] - 0.5) < 0.15
    x = gaussian_noise(dataset.test.x, 4, torch.Generator().manual_seed(7))
    expected = sum(int(row.argmax()) == int(label) for row, label in zip(predict(x), dataset.test.y, strict=True)) / 200
    assert accuracies[2] == expected


def test_a_row_depends_on_the_seed_and_not_on_other_corruptions(bars):
    dataset, predict = bars
    noise, pixels = Corruption("gaussian-noise", 3), Corruption("pixel-noise", 1)
    both = robustness(predict, dataset, [noise, pixels], seed=3)
    assert robustness(predict, dataset, [pixels], seed=3)[1] == both[2]
    assert robustness(predict, dataset, [noise], seed=3, batch_size=17)[1].accuracy == both[1].accuracy
    assert robustness(predict, dataset, [noise], seed=4)[1].loss != both[1].loss


def test_default_corruptions_apply_to_the_data_set(bars):
    dataset, _ = bars
    kinds = {}
    for corruption in default_corruptions(dataset):
        kinds.setdefault(corruption.kind, []).append(corruption.strength)
    assert kinds == {
        "gaussian-noise": [0.1, 0.2, 0.3, 0.5],
        "pixel-noise": [0.1, 0.2, 0.3],
        "rotation": [15, 30, 45],
    }
    y = torch.tensor([0, 1])
    table = images(torch.tensor([[5.0, -3.0], [0.0, 1.0]]), y, image_shape=(1, 1, 2))
    assert {corruption.kind for corruption in default_corruptions(table)} == {"gaussian-noise"}
    assert len(robustness(lambda x: x, table)) == 5


def test_a_missing_split_is_refused(bars):
    dataset, predict = bars
    assert len(robustness(predict, dataset, [], split="train")) == 1
    with pytest.raises(UserError, match="validation"):
        robustness(predict, dataset, [], split="validation")
