import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from data.tiny_sets import write_cifar, write_cifar_batch
from plastic_cli.data.datasets import load_dataset
from plastic_cli.data.formats.cifar import read_cifar_batch
from plastic_cli.errors import UserError


class _Harmful:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _batch(count=4):
    return np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)


def test_tiny_batches_are_like_those_of_python_2(tmp_path):
    write_cifar_batch(tmp_path / "batch", _batch(), [0, 1, 2, 3])
    with (tmp_path / "batch").open("rb") as stream:
        plain = pickle.load(stream, encoding="latin1")
    np.testing.assert_array_equal(plain["data"], _batch())
    assert b"numpy.core.multiarray" in (tmp_path / "batch").read_bytes()


def test_reads_a_batch(tmp_path):
    write_cifar_batch(tmp_path / "batch", _batch(), [0, 9, 2, 3])
    images = read_cifar_batch(tmp_path / "batch", 10)
    # The first 1024 bytes of a row are the red channel, row by row, then green, then blue.
    np.testing.assert_array_equal(images.x[2, 1, 3], _batch()[2, 1024 + 3 * 32 : 1024 + 4 * 32])
    assert images.y.tolist() == [0, 9, 2, 3]


def test_reads_a_batch_of_a_current_pickle(tmp_path):
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": _batch(), "labels": [0, 9, 2, 3]}, protocol=4))
    np.testing.assert_array_equal(read_cifar_batch(tmp_path / "batch", 10).x.reshape(4, -1), _batch())


def test_a_pickle_cannot_run_anything(tmp_path):
    mark = tmp_path / "it ran"
    for number, content in enumerate((_Harmful(f"touch '{mark}'"), {"data": _Harmful(f"touch '{mark}'")})):
        path = tmp_path / f"batch {number}"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"it asks for (posix|nt)\.system"):
            read_cifar_batch(path, 10)
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Harmful(f"touch '{mark}'")))
    assert mark.exists(), "the pickle was harmless, so this test shows nothing"


_MEMO = """
import struct, sys
from pathlib import Path
from plastic_cli.data.formats.cifar import read_cifar_batch
from plastic_cli.errors import UserError
path = Path(sys.argv[1])
path.write_bytes(b"\\x80\\x02}r" + struct.pack("<I", 2**24) + b".")
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
before = peak()
try:
    read_cifar_batch(path, 10)
except UserError:
    print(peak() - before)
"""


def test_a_pickle_cannot_make_python_allocate_memory_beyond_its_content(tmp_path):
    done = subprocess.run([sys.executable, "-c", _MEMO, str(tmp_path / "batch")], capture_output=True, text=True)
    # Python would allocate twice as many pointers as the index: 256 MB.
    assert int(done.stdout) < 64


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("labels", [[0, 9, 2, 3], np.array([0, 9, 2, 3]), list(np.array([0, 9, 2, 3]))])
def test_reads_a_batch_of_any_protocol(tmp_path, protocol, labels):
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": _batch(), b"labels": labels}, protocol=protocol))
    images = read_cifar_batch(tmp_path / "batch", 10)
    np.testing.assert_array_equal(images.x.reshape(4, -1), _batch())
    assert images.y.tolist() == [0, 9, 2, 3]


def _damages():
    good = pickle.dumps({"data": _batch(), "labels": [0, 1, 2, 3]}, protocol=4)
    yield "truncated", good[:-100], "is damaged"
    yield "empty", b"", "is damaged"
    yield "text", b"<html>", "is damaged"
    yield "another object", pickle.dumps([1, 2]), "not a CIFAR-10 batch"
    yield (
        "another shape",
        pickle.dumps({"data": _batch()[:, 1:], "labels": [0] * 4}, protocol=4),
        "not a CIFAR-10 batch",
    )
    yield "no labels", pickle.dumps({"data": _batch()}, protocol=4), "labels must be whole numbers"
    yield "ragged labels", pickle.dumps({"data": _batch(), "labels": [[0], [1, 2]]}, protocol=4), "its labels are not"
    yield "few labels", pickle.dumps({"data": _batch(), "labels": [0]}, protocol=4), "1 labels for 4 images"
    yield "label 10", pickle.dumps({"data": _batch(), "labels": [0, 1, 2, 10]}, protocol=4), "the label 10"


@pytest.mark.parametrize(("content", "message"), [pytest.param(*rest, id=name) for name, *rest in _damages()])
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_cifar_batch(path, 10)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_loads_as_a_data_set(tmp_path):
    images, labels = write_cifar(tmp_path / "cifar-10-batches-py")
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.train.x.shape == (50, 3072)
    assert dataset.test.x.shape == (10, 3072)
    assert dataset.image_shape == (3, 32, 32)
    assert dataset.train.y.tolist() == labels[:5].ravel().tolist()
    pixels = images[5].reshape(10, 3, 32, 32) / 255
    expected = (pixels - np.array(dataset.mean)[:, None, None]) / np.array(dataset.std)[:, None, None]
    torch.testing.assert_close(dataset.test.x.double(), torch.tensor(expected).flatten(1), atol=1e-6, rtol=1e-6)
    assert "not the official set" in dataset.note
