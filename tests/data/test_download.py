"""Downloads from local files: torchvision's addresses are replaced by a folder."""

import gzip
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torchvision import datasets as vision

from data.tiny_sets import idx_bytes, write_cifar, write_idx, write_mnist
from plastic_cli.data.catalog import DATASETS
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError
from plastic_cli.testing import plastic

_real_urlopen = urllib.request.urlopen


@pytest.fixture
def opened(monkeypatch):
    """Allow file:// addresses only; return the list of requested addresses."""
    asked = []

    def urlopen(request, timeout):
        asked.append(request.full_url)
        assert request.full_url.startswith("file://"), "a test reached for the network"
        assert timeout > 0
        return _real_urlopen(request, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder with a tiny MNIST, in the place of torchvision's server."""
    folder = tmp_path / "server"
    write_mnist(folder, suffix=".gz")
    monkeypatch.setattr(vision.MNIST, "mirrors", [f"{folder.as_uri()}/"])
    names = [f"{name}.gz" for name in DATASETS["mnist"].files]
    monkeypatch.setattr(vision.MNIST, "resources", [(name, _md5(folder / name)) for name in names])
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def _contents(folder):
    """The visible files of a data folder: no locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".lock"))


def test_downloads_and_unpacks(server, opened, folder, capsys):
    dataset = load_dataset("mnist", folder)
    assert len(dataset.train) == 40
    assert _contents(folder) == ["MNIST", "MNIST/raw", *sorted(f"MNIST/raw/{name}" for name in DATASETS["mnist"].files)]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"downloading mnist (11.6 MB) into {folder}/MNIST/raw" in captured.err
    assert len(opened) == 4
    load_dataset("mnist", folder)
    assert len(opened) == 4


def test_fetch_downloads_and_checks_in_advance(server, opened, folder):
    outcome = plastic("data", "fetch", "MNIST", "digits", "--data", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == [
        {"set": "mnist", "status": "downloaded", "training": 40, "test": 20, "folder": f"{folder}/MNIST/raw"},
        {"set": "digits", "status": "already here", "training": 1437, "test": 360, "folder": "scikit-learn"},
    ]
    assert len(opened) == 4
    again = plastic("data", "fetch", "mnist", "--data", folder)
    assert again.code == 0
    assert "already here" in again.out
    assert again.err == "next: `plastic train RULE --dataset mnist`\n"
    assert len(opened) == 4


def test_a_download_that_fails_does_not_keep_fetch_from_the_other_sets(server, opened, folder, monkeypatch):
    monkeypatch.setattr(vision.FashionMNIST, "mirrors", [f"{server.as_uri()}/gone/"])
    outcome = plastic("data", "fetch", "fashion", "mnist", "--data", folder, "--json")
    assert outcome.code == 1
    assert [row["set"] for row in json.loads(outcome.out)] == ["mnist"]
    assert "warning: fashion: fashion could not be downloaded" in outcome.err
    assert outcome.err.endswith("error: 1 of 2 data sets could not be fetched.\n")
    alone = plastic("data", "fetch", "fashion", "--data", folder)
    assert (alone.code, alone.out) == (1, "")
    assert alone.err.splitlines()[-1].startswith("error: fashion could not be downloaded")
    assert "Put train-images-idx3-ubyte, " in alone.err


def test_fetch_reports_a_damaged_file(server, opened, folder):
    load_dataset("mnist", folder)
    damaged = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    outcome = plastic("data", "fetch", "mnist", "--data", folder)
    assert (outcome.code, outcome.out) == (1, "")
    assert str(damaged) in outcome.err


@pytest.mark.parametrize(
    ("name", "words"),
    [("mnits", "unknown data set 'mnits'. Did you mean 'mnist'?"), (".", "your own data set needs no download")],
)
def test_fetch_checks_all_names_before_it_downloads(server, opened, folder, name, words):
    outcome = plastic("data", "fetch", "mnist", name, "--data", folder)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err
    assert opened == []
    assert not folder.exists()


def test_downloads_only_missing_files(server, opened, folder):
    load_dataset("mnist", folder)
    opened.clear()
    ours = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    write_idx(ours, np.full(40, 7, np.uint8))
    (folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    assert load_dataset("mnist", folder).train.y.tolist() == [7] * 40
    assert [address.rpartition("/")[2] for address in opened] == ["t10k-images-idx3-ubyte.gz"]


def test_goes_to_the_next_mirror(server, opened, folder, monkeypatch):
    monkeypatch.setattr(vision.MNIST, "mirrors", [f"{server.as_uri()}/gone/", f"{server.as_uri()}/"])
    assert len(load_dataset("mnist", folder).train) == 40
    assert len(opened) == 8


def test_wrong_content_is_an_error_and_nothing_is_stored(server, opened, folder):
    write_idx(server / "t10k-labels-idx1-ubyte.gz", np.full(20, 1, np.uint8))
    with pytest.raises(UserError, match="sent wrong or incomplete data"):
        load_dataset("mnist", folder)
    assert _contents(folder) == []


def test_after_an_interrupt_nothing_is_stored(server, folder, monkeypatch):
    class Interrupted(io.BytesIO):
        headers = {"Content-Length": "10"}  # noqa: RUF012

        def read(self, size=-1):
            if self.tell() > 0:
                raise KeyboardInterrupt
            return super().read(4)

    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: Interrupted(b"0123456789"))
    with pytest.raises(KeyboardInterrupt):
        load_dataset("mnist", folder)
    assert _contents(folder) == []


def test_two_threads_download_once(server, opened, folder):
    with ThreadPoolExecutor(2) as pool:
        datasets = list(pool.map(lambda _: load_dataset("mnist", folder), range(2)))
    assert datasets[0].checksum == datasets[1].checksum
    assert len(opened) == 4


def test_files_of_a_killed_process_are_removed(server, opened, folder):
    left = folder / ".downloading-mnist"
    left.mkdir(parents=True)
    (left / "train-images-idx3-ubyte").write_bytes(b"half")
    assert len(load_dataset("mnist", folder).train) == 40
    assert not left.exists()


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("[Errno -3] Temporary failure in name resolution"),
        TimeoutError("timed out"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
@pytest.mark.parametrize("name", ["mnist", "fashion", "kmnist", "emnist", "emnist-byclass", "cifar10"])
def test_without_a_network_one_line_says_what_to_put_where(folder, monkeypatch, name, error):
    def fail(*_args, **_keywords):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(UserError) as raised:
        load_dataset(name, folder)
    text = str(raised.value)
    info = DATASETS[name]
    assert text.startswith(f"{name} could not be downloaded (")
    assert str(error).split()[-1] in text
    assert f"Put {', '.join(info.files)} into {folder / info.folder}" in text
    assert "PLASTIC_DATA" in text
    assert "\n" not in text
    assert _contents(folder) == []


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="could not be downloaded"):
        load_dataset("mnist", tmp_path / "file" / "data")


@pytest.mark.parametrize("name", [name for name in DATASETS if name.startswith("emnist")])
def test_emnist_takes_one_split_out_of_the_one_archive(tmp_path, opened, folder, monkeypatch, capsys, name):
    archive = tmp_path / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for part in ("train", "test"):
            for split in vision.EMNIST.splits:
                x = np.zeros((10, 28, 28), np.uint8)
                y = np.arange(10, dtype=np.uint8) + (split == "letters")
                packed.writestr(f"gzip/emnist-{split}-{part}-images-idx3-ubyte.gz", gzip.compress(idx_bytes(x)))
                packed.writestr(f"gzip/emnist-{split}-{part}-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(y)))
    monkeypatch.setattr(vision.EMNIST, "url", archive.as_uri())
    monkeypatch.setattr(vision.EMNIST, "md5", _md5(archive))
    dataset = load_dataset(name, folder)
    assert len(dataset.train) == 10
    assert dataset.test.y.tolist() == list(range(10))
    files = sorted(f"EMNIST/raw/{file}" for file in DATASETS[name].files)
    assert _contents(folder) == ["EMNIST", "EMNIST/raw", *files]
    captured = capsys.readouterr().err
    assert f"downloading {name} (561.8 MB)" in captured
    assert "the archive has every EMNIST split" in captured


def _cifar_archive(tmp_path, monkeypatch, extra=()):
    source = tmp_path / "source" / "cifar-10-batches-py"
    write_cifar(source)
    (source / "batches.meta").write_bytes(b"not needed")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(source, "cifar-10-batches-py")
        for entry in extra:
            packed.addfile(entry)
    monkeypatch.setattr(vision.CIFAR10, "url", archive.as_uri())
    monkeypatch.setattr(vision.CIFAR10, "tgz_md5", _md5(archive))


def test_cifar10_takes_the_batches_out_of_its_archive(tmp_path, opened, folder, monkeypatch):
    _cifar_archive(tmp_path, monkeypatch)
    assert len(load_dataset("cifar10", folder).train) == 50
    batches = sorted(f"cifar-10-batches-py/{name}" for name in DATASETS["cifar10"].files)
    assert _contents(folder) == ["cifar-10-batches-py", *batches]


def test_an_archive_cannot_write_outside_its_folder(tmp_path, opened, folder, monkeypatch):
    _cifar_archive(tmp_path, monkeypatch, [tarfile.TarInfo("../../escaped"), tarfile.TarInfo("/tmp/../escaped")])
    load_dataset("cifar10", folder)
    assert not list(tmp_path.rglob("escaped"))
