"""NumPy's files: valid ones are read, others are one-line errors, and no file runs code or fills memory."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from plastic_cli.data.formats.npz import npz_names, read_npy, read_npz
from plastic_cli.errors import UserError

_TYPES = [">f4", "<f8", "<f2", "u1", "<i4", ">i8", "?", "<c8", "<U5", ">U2", "S4", "<M8[s]"]


def _npy(array, header=None):
    """Return the .npy file of an array, with another header if given."""
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    if header is None:
        return content
    (length,) = struct.unpack("<H", content[8:10])
    text = header.encode("latin1") + b"\n"
    return content[:8] + struct.pack("<H", len(text)) + text + content[10 + length :]


def _header(descr="'<f8'", order="False", shape="(3, 4)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


@pytest.mark.parametrize("dtype", _TYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reads_what_numpy_writes(tmp_path_factory, dtype, data):
    letters = st.characters(codec="utf-8", exclude_characters="\0")
    elements = {"elements": st.text(letters, max_size=2)} if "U" in dtype else {}
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, max_side=5), **elements))
    array = np.asarray(array, order=data.draw(st.sampled_from("CF")))
    folder = tmp_path_factory.mktemp("npz")
    np.save(folder / "file.npy", array)
    np.savez(folder / "plain.npz", x=array, other=array)
    np.savez_compressed(folder / "packed.npz", x=array)
    archives = [folder / "plain.npz", folder / "packed.npz"]
    for read in (read_npy(folder / "file.npy"), *(read_npz(path, ["x"])[0] for path in archives)):
        assert read.dtype == array.dtype.newbyteorder("=")
        assert read.shape == array.shape
        np.testing.assert_array_equal(read, array)


def test_other_members_are_ignored(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, x=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("y", "no array")
    assert npz_names(path) == ["x"]
    assert read_npz(path, ["x"])[0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="has no array y: it holds x"):
        read_npz(path, ["y"])


class _Harmful:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def test_pickled_objects_are_not_loaded_and_the_message_says_what_to_save(tmp_path):
    mark, path = tmp_path / "it ran", tmp_path / "file.npz"
    harmful = np.array([_Harmful(mark)] * 3, object)
    np.savez(path, y=harmful)
    np.save(tmp_path / "y.npy", harmful)
    for read in (lambda: read_npz(path, ["y"]), lambda: read_npy(tmp_path / "y.npy")):
        with pytest.raises(UserError, match=r"holds Python objects.*y.astype\(str\) for names") as raised:
            read()
        assert "allow_pickle" not in str(raised.value)
        assert "damaged" not in str(raised.value)
    assert not mark.exists()
    np.load(tmp_path / "y.npy", allow_pickle=True)
    assert mark.exists(), "the pickle was harmless, so this test shows nothing"


_ARRAY = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_npy(_ARRAY, _header()[:-1]), "the header of x is invalid"),
        (_npy(_ARRAY, "[1, 2]"), "the header of x is invalid"),
        (_npy(_ARRAY, "(" * 9000), "the header of x is invalid"),
        (_npy(_ARRAY, "-" * 9000 + "1"), "the header of x is invalid"),
        (_npy(_ARRAY, _header() + " " * 20_000), "bytes"),
        (_npy(_ARRAY, _header(shape="(3000000000, 4000000000)")), "96 are there"),
        (_npy(_ARRAY, _header(shape=f"(0, {2**62}, {2**62})")), "96 are there"),
        (_npy(_ARRAY, _header(shape="(-3, -4)")), "gives an impossible shape"),
        (_npy(_ARRAY, _header(shape="(3, 4.0)")), "gives an impossible shape"),
        (_npy(_ARRAY, _header(shape="(True, 12)")), "gives an impossible shape"),
        (_npy(_ARRAY, _header(shape="12")), "gives an impossible shape"),
        (_npy(_ARRAY, _header(shape="(" + "1, " * 40 + "12)")), "gives an impossible shape"),
        (_npy(_ARRAY, _header(descr="'<z9'")), "gives an unknown type"),
        (_npy(_ARRAY, _header(descr="'<U0'", shape="(99999999999,)")), "96 are there"),
        (_npy(_ARRAY, _header(descr="'<f8,<f8'", shape="(6,)")), "holds records of several fields"),
        (_npy(_ARRAY, _header(descr="[('a', '<f8')]", shape="(12,)")), "holds records of several fields"),
        (_npy(_ARRAY, _header(descr="'<U2'", shape="(12,)")), "invalid characters"),
        (_npy(_ARRAY)[:-8], "96 bytes of data and 88 are there"),
        (_npy(_ARRAY) + b"\0", "96 bytes of data and 97 are there"),
        (_npy(_ARRAY)[:7], "does not start like an array"),
        (b"", "does not start like an array"),
        (b"\x93NUMPY\x09\x00" + _npy(_ARRAY)[8:], "has the unknown format version 9"),
    ],
)
def test_a_damaged_array_is_named(tmp_path, content, message):
    path = tmp_path / "file.npz"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("x.npy", content)
        with warnings.catch_warnings(), pytest.raises(UserError) as raised:
            warnings.simplefilter("ignore")
            read_npz(path, ["x"])
        text = str(raised.value)
        assert str(path) in text
        assert message in text
        assert "\n" not in text
        assert "allow_pickle" not in text


def _changed_zip(path, *, member=None, flag=None, method=None, size=None):
    """Write an .npz file with a wrong entry in its directory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", _npy(np.zeros((64, 64))))
    content = bytearray(path.read_bytes())
    for start, flags, methods, sizes in (
        (content.find(b"PK\x03\x04"), 6, 8, 22),
        (content.find(b"PK\x01\x02"), 8, 10, 24),
    ):
        if flag is not None:
            content[start + flags] |= flag
        if method is not None:
            content[start + methods : start + methods + 2] = struct.pack("<H", method)
        if size is not None:
            content[start + sizes : start + sizes + 4] = struct.pack("<I", size)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message", "sound"),
    [
        ({"flag": 1}, "is encrypted. Store it without a password", True),
        ({"method": 99}, "has an unknown compression (method 99)", True),
        ({"method": 12}, "the array x cannot be uncompressed", False),
        ({"size": 2**31}, "packed bytes cannot hold the 2,147,483,648 of x", False),
        ({"size": 40_000}, "bytes of data", False),
    ],
)
def test_an_archive_with_a_wrong_directory_entry(tmp_path, change, message, sound):
    path = tmp_path / "file.npz"
    _changed_zip(path, **change)
    with pytest.raises(UserError) as raised:
        read_npz(path, ["x"])
    assert message in str(raised.value)
    assert ("damaged" in str(raised.value)) != sound


def test_a_flipped_bit_of_the_data_is_found(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, x=np.arange(100.0))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: the array x cannot be uncompressed"):
        read_npz(path, ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"MATLAB 5.0 MAT-file", "is a MATLAB file"),
        (b"\x1f\x8b\x08", "is gzip data"),
    ],
)
def test_the_error_for_another_format_names_the_format(tmp_path, content, message):
    for name, read in (("file.npz", npz_names), ("file.npy", read_npy)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as raised:
            read(tmp_path / name)
        assert "damaged" not in str(raised.value)


_BOMB = """
import gzip, resource, struct, sys, zipfile
from pathlib import Path
from plastic_cli.data.sources import read_own_set
from plastic_cli.errors import UserError
folder, kind = Path(sys.argv[1]), sys.argv[2]

def write(stream, start):
    stream.write(start)
    for _ in range(300):
        stream.write(bytes(1_000_000))

if kind == "npz":
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (300, 1000, 1000)}\\n"
    with zipfile.ZipFile(folder / "train.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("y.npy", b"")
        with archive.open("x.npy", "w") as member:
            write(member, b"\\x93NUMPY\\1\\0" + struct.pack("<H", len(header)) + header)
    (folder / "test.npz").symlink_to(folder / "train.npz")
else:
    with gzip.open(folder / "train-images-idx3-ubyte", "wb", 1) as stream:
        write(stream, b"\\0\\0\\x08\\3" + struct.pack(">3I", 300, 1000, 1000))
    for name in ("train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").symlink_to(folder / "train-images-idx3-ubyte")
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 200 * 2**20, resource.RLIM_INFINITY))
try:
    read_own_set(folder)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_a_small_file_that_uncompresses_to_more_than_memory_is_an_error(tmp_path, kind):
    done = subprocess.run([sys.executable, "-c", _BOMB, str(tmp_path), kind], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{tmp_path} does not fit into the memory of this machine. Store fewer images.\n"
    assert all(path.stat().st_size < 5_000_000 for path in tmp_path.iterdir())


def test_more_than_the_memory_of_the_machine_is_an_error_before_allocation(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "file.npz", x=np.zeros((1000, 1000), np.uint8))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("it took the memory"))
    with pytest.raises(UserError, match=r"announces 1,000,000 numbers.*this machine has"):
        read_npz(tmp_path / "file.npz", ["x"])


def test_where_the_memory_of_the_machine_is_unknown_files_are_read(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    np.savez(tmp_path / "small.npz", x=np.arange(6))
    assert read_npz(tmp_path / "small.npz", ["x"])[0].tolist() == list(range(6))
