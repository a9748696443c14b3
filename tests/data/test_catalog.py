import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets as vision

from plastic_cli.commands.completion import datasets
from plastic_cli.config.classifier import ClassifierTrainConfig
from plastic_cli.data.arrays import checksum, stratified_split
from plastic_cli.data.catalog import DATASETS, dataset_names
from plastic_cli.data.formats.idx import read_idx
from plastic_cli.data.sources import dataset_checksum, read_dataset


def test_names():
    emnist = ["emnist", "emnist-letters", "emnist-digits", "emnist-mnist", "emnist-byclass", "emnist-bymerge"]
    assert dataset_names() == ["digits", "mnist", "fashion", "kmnist", *emnist, "cifar10"]
    assert all(name == info.name for name, info in DATASETS.items())


def test_catalog_and_listing_import_nothing_heavy():
    code = (
        "import sys, plastic_cli.data.catalog, plastic_cli.commands.data\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'sklearn', 'torchvision', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", dataset_names())
def test_one_mean_and_std_per_channel(name):
    info = DATASETS[name]
    # The other splits of EMNIST use those of their training images.
    assert len(info.mean) == len(info.std) == (0 if name.startswith("emnist-") else info.image_shape[0])
    assert all(std > 0 for std in info.std)
    assert len(set(info.class_names)) == info.classes


@pytest.mark.parametrize("name", [name for name in dataset_names() if name not in ("digits", "cifar10")])
def test_size_on_disk_follows_from_the_format(name):
    info = DATASETS[name]
    images = info.train_images + info.test_images
    assert info.disk_bytes == images * (28 * 28 + 1) + 2 * (16 + 8)


def test_class_names_are_those_of_torchvision():
    assert DATASETS["fashion"].class_names == tuple(vision.FashionMNIST.classes)
    assert DATASETS["kmnist"].class_names == tuple(vision.KMNIST.classes)
    for split, names in vision.EMNIST.classes_split_dict.items():
        expected = tuple(name for name in names if name != "N/A")
        assert DATASETS["emnist" if split == "balanced" else f"emnist-{split}"].class_names == expected
    assert DATASETS["emnist"].classes == 47


def test_file_names_are_those_of_torchvision():
    for name, like in (("mnist", vision.MNIST), ("fashion", vision.FashionMNIST), ("kmnist", vision.KMNIST)):
        assert DATASETS[name].folder == f"{like.__name__}/raw"
        assert {f"{file}.gz" for file in DATASETS[name].files} == {file for file, _ in like.resources}
    for split in vision.EMNIST.splits:
        info = DATASETS["emnist" if split == "balanced" else f"emnist-{split}"]
        names = [f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in ("images", "labels")]
        assert [file.removesuffix("-ubyte").rpartition("-")[0] for file in info.files] == names
        assert info.folder == "EMNIST/raw"
    assert DATASETS["cifar10"].folder == vision.CIFAR10.base_folder
    assert list(DATASETS["cifar10"].files) == [file for file, _ in vision.CIFAR10.train_list + vision.CIFAR10.test_list]


def test_help_and_completion_offer_every_name():
    helped = str(ClassifierTrainConfig.model_fields["dataset"].description).replace(" ", "").split(",")
    assert set(dataset_names()) < set(helped)
    assert [name for name, _ in datasets("emnist-")] == [name for name in dataset_names() if name.startswith("emnist-")]


def test_the_page_lists_every_set_as_it_is():
    lines = (Path(__file__).parents[2] / "docs" / "data.md").read_text().splitlines()
    for info in DATASETS.values():
        (row,) = [line for line in lines if line.startswith(f"| `{info.name}` |")]
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (info.mean, info.std))
        counts = f"{info.train_images:,} + {info.test_images:,} | {info.classes}"
        shape = " x ".join(map(str, info.image_shape))
        of_images = "computed"
        assert row == (
            f"| `{info.name}` | {info.title} | {counts} | {shape} | {mean or of_images} | {std or of_images} "
            f"| {info.license} |"
        )


def test_digits_are_all_images_of_scikit_learn():
    info = DATASETS["digits"]
    assert info.train_images + info.test_images == len(load_digits().target)
    digits = load_digits()
    kept, held = stratified_split(digits.target, info.test_images)
    stored = read_dataset("digits")
    for split, positions in ((stored.train, kept), (stored.test, held)):
        assert split.x.dtype == np.uint8
        np.testing.assert_array_equal(split.x[:, 0], digits.images[positions])
        np.testing.assert_array_equal(split.y, digits.target[positions])


def test_digits_are_the_same_without_the_file_of_scikit_learn(monkeypatch):
    expected = dataset_checksum("digits")
    monkeypatch.setattr("plastic_cli.data.sources.find_spec", lambda name: None)
    stored = read_dataset("digits")
    assert checksum((stored.train, stored.test)) == expected


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_stated_mean_and_std_are_those_of_the_training_pixels(real_data, name):
    info = DATASETS[name]
    counts = np.bincount(read_idx(real_data / info.folder / info.files[0]).ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = (counts * values).sum() / counts.sum()
    std = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
    assert abs(info.mean[0] - mean) < 6e-5
    assert abs(info.std[0] - std) < 6e-5
