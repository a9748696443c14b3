"""The data sets that are known by name. Light: read for help and completion, so it imports no array library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from plastic_cli.errors import UserError, did_you_mean

_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_EMNIST_FILES = (
    "emnist-balanced-train-images-idx3-ubyte",
    "emnist-balanced-train-labels-idx1-ubyte",
    "emnist-balanced-test-images-idx3-ubyte",
    "emnist-balanced-test-labels-idx1-ubyte",
)
_CIFAR_FILES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    folder: where its files lie under the data folder, as torchvision lays them out; empty where there are none.
    files: for IDX sets training images, training labels, test images, test labels; each may be stored as `.gz` too.
    image_shape: (channels, height, width). train_images, test_images: of the official set.
    note: what a reader of figures made with it must know. download_note: what to know before fetching it.
    download_bytes: what comes over the network. disk_bytes: the files unpacked.
    mean, std: per channel, of pixels scaled to [0, 1]; a pixel p enters a network as (p - mean) / std.
    """

    name: str
    title: str
    folder: str
    files: tuple[str, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int
    download_bytes: int
    disk_bytes: int
    licence: str
    source: str
    note: str
    download_note: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


# The means and standard deviations of digits, mnist and fashion are those of their training pixels (a test computes
# them again); those of kmnist, emnist and cifar10 are the constants in common use with torchvision's copies.
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="digits",
            title="Handwritten digits, 8 x 8, that come with scikit-learn",
            folder="",
            files=(),
            class_names=tuple("0123456789"),
            image_shape=(1, 8, 8),
            train_images=1437,
            test_images=360,
            download_bytes=0,
            disk_bytes=0,
            licence="CC BY 4.0",
            source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            note="the test split is ours, stratified and always the same",
            download_note="",
            mean=(0.3054,),
            std=(0.3761,),
        ),
        DatasetInfo(
            name="mnist",
            title="MNIST handwritten digits",
            folder="MNIST/raw",
            files=_MNIST_FILES,
            class_names=tuple("0123456789"),
            image_shape=(1, 28, 28),
            train_images=60_000,
            test_images=10_000,
            download_bytes=11_594_722,
            disk_bytes=54_950_048,
            licence="CC BY-SA 3.0",
            source="http://yann.lecun.com/exdb/mnist/",
            note="",
            download_note="",
            mean=(0.1307,),
            std=(0.3081,),
        ),
        DatasetInfo(
            name="fashion",
            title="Fashion-MNIST, pictures of clothes",
            folder="FashionMNIST/raw",
            files=_MNIST_FILES,
            class_names=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            image_shape=(1, 28, 28),
            train_images=60_000,
            test_images=10_000,
            download_bytes=30_878_645,
            disk_bytes=54_950_048,
            licence="MIT",
            source="https://github.com/zalandoresearch/fashion-mnist",
            note="",
            download_note="",
            mean=(0.2860,),
            std=(0.3530,),
        ),
        DatasetInfo(
            name="kmnist",
            title="Kuzushiji-MNIST, cursive Japanese characters",
            folder="KMNIST/raw",
            files=_MNIST_FILES,
            class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            image_shape=(1, 28, 28),
            train_images=60_000,
            test_images=10_000,
            download_bytes=21_240_888,
            disk_bytes=54_950_048,
            licence="CC BY-SA 4.0",
            source="https://github.com/rois-codh/kmnist",
            note="",
            download_note="",
            mean=(0.1918,),
            std=(0.3483,),
        ),
        DatasetInfo(
            name="emnist",
            title="EMNIST Balanced, handwritten digits and letters, shown upright",
            folder="EMNIST/raw",
            files=_EMNIST_FILES,
            class_names=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
            image_shape=(1, 28, 28),
            train_images=112_800,
            test_images=18_800,
            download_bytes=561_753_746,
            disk_bytes=103_306_048,
            licence="see source",
            source="https://www.nist.gov/itl/products-and-services/emnist-dataset",
            note="",
            download_note="there is one archive of every EMNIST split, of which Balanced alone is kept",
            mean=(0.1751,),
            std=(0.3332,),
        ),
        DatasetInfo(
            name="cifar10",
            title="CIFAR-10, small colour photographs",
            folder="cifar-10-batches-py",
            files=_CIFAR_FILES,
            class_names=(
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
            image_shape=(3, 32, 32),
            train_images=50_000,
            test_images=10_000,
            download_bytes=170_498_071,
            disk_bytes=186_213_868,
            licence="none stated",
            source="https://www.cs.toronto.edu/~kriz/cifar.html",
            note="",
            download_note="",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
    )
}


def dataset_names() -> list[str]:
    """Return the names that `--dataset` takes, besides a folder of one's own."""
    return list(DATASETS)


def check_dataset_name(name: str) -> None:
    """Raise UserError, in one line, where `name` is neither a known data set nor a folder or .npz file that exists."""
    path = Path(name).expanduser()
    if name in DATASETS or (name and (path.is_dir() or (path.is_file() and path.suffix == ".npz"))):
        return
    if name and path.exists():
        raise UserError(f"{name} is neither a folder nor an .npz file. Name the folder that holds the data set.")
    if os.sep in name:
        raise UserError(f"there is no folder {name}. Name a folder with a data set, or one of {', '.join(DATASETS)}.")
    raise UserError(
        f"unknown data set '{name}'.{did_you_mean(name, DATASETS)} "
        f"There are {', '.join(DATASETS)}, or the path of a folder with one of your own."
    )


def full_dataset_name(name: str) -> str:
    """Return a known name as it is, and the whole path of a folder or file of one's own."""
    return name if name in DATASETS else str(Path(name).expanduser().resolve())
