import gzip
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from data.tiny_sets import idx_bytes
from plastic_cli.data.formats.idx import read_idx, read_idx_shape
from plastic_cli.errors import UserError

_ARRAYS = st.sampled_from(["uint8", "int8", "int16", "int32", "float32", "float64"]).flatmap(
    lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_dims=1, max_dims=3, max_side=6))
)


@given(array=_ARRAYS, packed=st.booleans())
def test_reads_back_what_was_written(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    assert read_idx_shape(path) == array.shape


def test_agrees_with_torchvision(real_data):
    path = real_data / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    np.testing.assert_array_equal(read_idx(path), read_sn3_pascalvincent_tensor(str(path)).numpy())


def _damages():
    whole = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    packed = gzip.compress(whole)
    yield "truncated", "file", whole[:-1], "announces 24 bytes of data and 23 are there"
    yield "too long", "file", whole + b"\0", "announces 24 bytes of data and 25 are there"
    yield "ends in its header", "file", whole[:9], "ends within its header"
    yield "empty", "file", b"", "does not start like an IDX file"
    yield "unknown type", "file", b"\0\0\x0a" + whole[3:], "does not start like an IDX file"
    yield "no dimensions", "file", b"\0\0\x08\0", "does not start like an IDX file"
    yield "too many dimensions", "file", b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0", "does not start like an IDX file"
    yield "announces far too much", "file", whole[:4] + b"\xff" * 12 + whole[16:], "and 24 are there"
    yield "announces far too much, packed", "file", gzip.compress(whole[:4] + b"\xff" * 12 + whole[16:]), "can hold"
    yield "too long, packed", "file.gz", gzip.compress(whole + b"\0\0"), "24 bytes of data and more are there"
    yield "truncated, packed", "file.gz", gzip.compress(whole[:-2]), "announces 24 bytes of data and 22 are there"
    yield "cut while packed", "file.gz", packed[:-12], "cannot be uncompressed"
    yield "a bit flipped", "file.gz", packed[:20] + bytes([packed[20] ^ 255]) + packed[21:], "cannot be uncompressed"


@pytest.mark.parametrize(("name", "content", "message"), [pytest.param(*rest, id=name) for name, *rest in _damages()])
def test_damage_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_idx(path)
    text = str(raised.value)
    assert str(path) in text
    assert message in text
    assert "Replace it" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "is a web page"),
        (b"\n<!DOCTYPE html>", "is a web page"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"\x89PNG\r\n", "is a PNG picture"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (gzip.compress(b"PK\x03\x04", mtime=0), "is a zip archive"),
    ],
)
def test_the_error_for_another_format_names_the_format(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_idx(tmp_path / "file")
    assert "damaged" not in str(raised.value)


@pytest.mark.parametrize(("name", "packed"), [("file", True), ("file.gz", False)])
def test_compression_is_recognized_by_content(tmp_path, name, packed):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / name).write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)
    assert read_idx_shape(tmp_path / name) == (2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_more_than_the_memory_of_the_machine_is_an_error_before_allocation(tmp_path, monkeypatch, pack):
    (tmp_path / "file").write_bytes(pack(idx_bytes(np.zeros((1000, 1000), np.uint8))))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("it took the memory"))
    with pytest.raises(UserError, match=r"announces 1,000,000 numbers.*this machine has"):
        read_idx(tmp_path / "file")


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_idx(tmp_path)
