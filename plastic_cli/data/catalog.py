"""The data sets that are known by name, what `--dataset` means, and where the files are.

Help and completion import this module, so it imports no array library and reads no data.
"""

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
_DIGITS = tuple("0123456789")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_MERGED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
_CIFAR_FILES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set, known before it is read.

    folder: the folder of its files in the data folder, in torchvision's layout; empty if it has no files.
    files: for IDX sets training images, training labels, test images, test labels; each may also be stored as `.gz`.
    image_shape: (channels, height, width). train_images, test_images: of the official set.
    note: what a reader of results must know. download_note: what to know before the download.
    official: the name of the official version, which has these numbers of images.
    download_bytes: size of the download. disk_bytes: size of the uncompressed files.
    mean, std: per channel, of pixels scaled to [0, 1]; the input of a network is (pixel - mean) / std. Empty if they
    are computed from the training images.
    transposed: the files store images with rows and columns exchanged. first_label: the stored label of class 0.
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
    license: str
    source: str
    note: str
    download_note: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    official: str = "the official set"
    transposed: bool = False
    first_label: int = 0

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def _emnist(
    split: str,
    what: str,
    class_names: tuple[str, ...],
    train_images: int,
    test_images: int,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    *,
    first_label: int = 0,
) -> DatasetInfo:
    """Return one of the splits of Cohen et al. 2017 (arXiv 1702.05373). One archive holds all of them."""
    title = {"byclass": "ByClass", "bymerge": "ByMerge", "mnist": "MNIST"}.get(split, split.capitalize())
    return DatasetInfo(
        name="emnist" if split == "balanced" else f"emnist-{split}",
        title=f"EMNIST {title}, {what}",
        folder="EMNIST/raw",
        files=tuple(
            f"emnist-{split}-{part}-{kind}-ubyte"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        class_names=class_names,
        image_shape=(1, 28, 28),
        train_images=train_images,
        test_images=test_images,
        download_bytes=561_753_746,
        # 28 x 28 pixels and a label for each image, and the headers of four files.
        disk_bytes=(train_images + test_images) * 785 + 48,
        license="see source",
        source="https://www.nist.gov/itl/products-and-services/emnist-dataset",
        note="",
        download_note=f"the archive has every EMNIST split; only {title} is kept",
        mean=mean,
        std=std,
        official=f"the official {title} split",
        transposed=True,
        first_label=first_label,
    )


# Means and standard deviations of digits, mnist and fashion are those of the training pixels (a test computes them).
# Those of kmnist, emnist and cifar10 are the constants in common use with torchvision. The other splits of EMNIST have
# none: theirs are computed from the training images.
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="digits",
            title="Handwritten digits, 8 x 8, from scikit-learn",
            folder="",
            files=(),
            class_names=tuple("0123456789"),
            image_shape=(1, 8, 8),
            train_images=1437,
            test_images=360,
            download_bytes=0,
            disk_bytes=0,
            license="CC BY 4.0",
            source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            note="no official test split: a fixed, stratified one is used",
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
            license="CC BY-SA 3.0",
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
            license="MIT",
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
            license="CC BY-SA 4.0",
            source="https://github.com/rois-codh/kmnist",
            note="",
            download_note="",
            mean=(0.1918,),
            std=(0.3483,),
        ),
        _emnist("balanced", "handwritten digits and letters", _MERGED, 112_800, 18_800, (0.1751,), (0.3332,)),
        _emnist(
            "letters",
            "handwritten letters, upper and lower case in one class",
            _LETTERS,
            124_800,
            20_800,
            first_label=1,
        ),
        _emnist("digits", "handwritten digits", _DIGITS, 240_000, 40_000),
        _emnist("mnist", "handwritten digits, same number of images as MNIST", _DIGITS, 60_000, 10_000),
        _emnist(
            "byclass",
            "handwritten digits and letters, upper and lower case in separate classes",
            (*_DIGITS, *(letter.upper() for letter in _LETTERS), *_LETTERS),
            697_932,
            116_323,
        ),
        _emnist(
            "bymerge",
            "handwritten digits and letters, similar upper and lower case letters in one class",
            _MERGED,
            697_932,
            116_323,
        ),
        DatasetInfo(
            name="cifar10",
            title="CIFAR-10, small color photographs",
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
            license="none stated",
            source="https://www.cs.toronto.edu/~kriz/cifar.html",
            note="",
            download_note="",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
    )
}


def dataset_names() -> list[str]:
    """Return the names of the known data sets."""
    return list(DATASETS)


def known_dataset(name: str) -> str | None:
    """Return the name of a known data set, in any case; None for a path or an unknown name.

    An existing folder or file takes precedence over a name that differs in case.
    """
    if name in DATASETS:
        return name
    plain = {"emnist-balanced": "emnist"}.get(name.lower(), name.lower())
    return plain if plain in DATASETS and not _exists(name) else None


def check_dataset_name(name: str) -> None:
    """Raise UserError, in one line, unless `name` is a known data set, or an existing folder or .npz file."""
    if known_dataset(name) is not None:
        return
    if _exists(name):
        path = own_path(name)
        if not path.is_dir() and not (path.is_file() and path.suffix == ".npz"):
            raise UserError(f"{name} is neither a folder nor an .npz file. Give the folder with the data set.")
        return
    if os.sep in name:
        raise UserError(f"there is no folder {name}. Give a folder with a data set, or one of {', '.join(DATASETS)}.")
    raise UserError(
        f"unknown data set '{name}'.{did_you_mean(name.lower(), DATASETS)} "
        f"Known data sets: {', '.join(DATASETS)}. For your own data, give the path of its folder."
    )


def full_dataset_name(name: str) -> str:
    """Return the name of a known data set, or the absolute path of a folder or file with the user's own."""
    return known_dataset(name) or str(own_path(name).resolve())


def own_path(name: str) -> Path:
    """Return the path of the user's own data set, with `~` as the home folder if there is one."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:  # ~name of an unknown user
        return path


def _exists(name: str) -> bool:
    # A name with a null byte, or one that is too long, names no file.
    try:
        return bool(name) and own_path(name).exists()
    except (OSError, ValueError):
        return False


def data_folder(folder: Path | None = None) -> Path:
    """Return the data folder: the argument, else $PLASTIC_DATA, else a folder in the user cache directory."""
    if folder is not None:
        return folder.expanduser()
    if named := os.environ.get("PLASTIC_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("plastic") / "data"


def stored_file(folder: Path, name: str) -> Path | None:
    """Return the file called `name` in `folder`, or None.

    The file may end in `.gz`. IDX files may have a dot before `idx`, as in Kaggle's copies: train-images.idx3-ubyte.
    """
    for spelled in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelled, folder / f"{spelled}.gz"):
            if path.is_file():
                return path
    return None


def missing_files(info: DatasetInfo, folder: Path) -> tuple[str, ...]:
    """Return the files of a data set that are not in the data folder `folder`."""
    return tuple(name for name in info.files if stored_file(folder / info.folder, name) is None)


def where_to_put(info: DatasetInfo, folder: Path) -> str:
    """Return a sentence that explains how to provide a data set by hand."""
    files = ", ".join(missing_files(info, folder) or info.files)
    return (
        f"Put {files} into {folder / info.folder} (source: {info.source}), "
        f"or give the folder that contains {info.folder} with --data or PLASTIC_DATA."
    )
