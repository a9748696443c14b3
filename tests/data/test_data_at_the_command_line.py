"""A command with unsuitable data ends with a one-line error and code 2, and makes no run."""

import struct
import zipfile

import numpy as np
import pytest

from data.tiny_sets import write_idx
from plastic_cli.runs.store import RunStore
from plastic_cli.testing import plastic

_Y = np.arange(30) % 3
_X = np.random.default_rng(0).integers(0, 256, (30, 6, 6), dtype=np.uint8)


def _save(folder, **changed):
    folder.mkdir(exist_ok=True)
    arrays = {"x_train": _X, "y_train": _Y, "x_test": _X, "y_test": _Y} | changed
    np.savez(folder / "set.npz", **arrays)


def _unterminated(folder):
    _save(folder)
    _replace(folder / "set.npz", "x_train.npy", lambda content: content.replace(b"}", b" ", 1))


def _absurd(folder):
    _save(folder)
    _replace(folder / "set.npz", "x_train.npy", lambda content: content.replace(b"(30, 6, 6)", b"(3e9,6, 6)"))


def _far_too_many(folder):
    _save(folder)
    _replace(folder / "set.npz", "x_train.npy", lambda content: content.replace(b"(30, 6, 6),", b"(99999,99),"))


def _replace(path, member, change):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name == member else content)


def _encrypted(folder):
    _save(folder)
    content = bytearray((folder / "set.npz").read_bytes())
    at = 0
    while (at := content.find(b"PK\x01\x02", at + 1)) > 0:
        content[at + 8] |= 1
    (folder / "set.npz").write_bytes(content)


def _unknown_compression(folder):
    _save(folder)
    content = bytearray((folder / "set.npz").read_bytes())
    at = 0
    while (at := content.find(b"PK\x01\x02", at + 1)) > 0:
        content[at + 10 : at + 12] = struct.pack("<H", 93)
    (folder / "set.npz").write_bytes(content)


def _idx_with_negative_size(folder):
    for name in ("train", "t10k"):
        write_idx(folder / f"{name}-images-idx3-ubyte", _X)
        write_idx(folder / f"{name}-labels-idx1-ubyte", _Y.astype(np.uint8))
    path = folder / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:4] + struct.pack(">i", -30) + content[8:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unterminated, "the header of x_train is invalid"),
        (_absurd, "gives an impossible shape"),
        (_far_too_many, "bytes of data and 1,080 are there"),
        (_encrypted, "is encrypted"),
        (_unknown_compression, "has an unknown compression (method 93)"),
        (_idx_with_negative_size, "its header announces"),
        (lambda folder: _save(folder, y_train=np.array([None] * 30)), "holds Python objects"),
        (lambda folder: _save(folder, x_train=np.where(_X > 9, np.nan, 0.5), x_test=_X / 255), "not finite numbers"),
        (lambda folder: _save(folder, y_test=_Y - 1), "the label -1"),
        (lambda folder: _save(folder, x_test=_X / 255), "Store both the same way"),
        (lambda folder: _save(folder, x_train=_X / 255, x_test=_X / 1.0), "Store both in the same units"),
        (lambda folder: _save(folder, x_train=_X[:0], y_train=_Y[:0]), "it holds no images"),
        (lambda folder: _save(folder, y_train=_Y * 0, y_test=_Y * 0), "needs at least two classes"),
    ],
)
def test_one_line_code_2_and_no_run(tmp_path, runs_folder, damage, message):
    damage(tmp_path / "my set")
    outcome = plastic("train", "backprop", "--quiet", "--dataset", tmp_path / "my set", "--hidden", 4, "--epochs", 1)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert "allow_pickle" not in line
    assert not runs_folder.exists() or not list(runs_folder.glob("2*"))


def test_labels_of_every_form_give_the_same_run(tmp_path, runs_folder):
    results = []
    for number, change in enumerate((lambda y: y, lambda y: np.eye(3)[y], lambda y: y.astype(str), lambda y: y / 1.0)):
        _save(tmp_path / f"set {number}", y_train=change(_Y), y_test=change(_Y))
        options = ["--dataset", tmp_path / f"set {number}", "--hidden", 4, "--epochs", 1, "--json"]
        outcome = plastic("train", "backprop", *options)
        assert outcome.code == 0, outcome.err
        results.append(outcome.out.partition("test/loss")[2][:12])
    assert len(set(results)) == 1
    assert results[0]


@pytest.mark.parametrize("name", ["emnist-letters", "EMNIST-Digits"])
def test_splits_of_emnist_train_by_their_names(tmp_path, runs_folder, name):
    split = name.lower().removeprefix("emnist-")
    for part in ("train", "test"):
        prefix = tmp_path / "EMNIST" / "raw" / f"emnist-{split}-{part}"
        x = np.random.default_rng(0).integers(0, 256, (52, 28, 28), dtype=np.uint8)
        write_idx(prefix.with_name(f"{prefix.name}-images-idx3-ubyte"), x)
        y = np.arange(52) % 26 + 1 if split == "letters" else np.arange(52) % 10
        write_idx(prefix.with_name(f"{prefix.name}-labels-idx1-ubyte"), y.astype(np.uint8))
    outcome = plastic(
        "train", "backprop", "--json", "--data", tmp_path, "--dataset", name, "--hidden", 4, "--epochs", 1
    )
    assert outcome.code == 0, outcome.err
    (row,) = RunStore(runs_folder).runs().to_dict("records")
    assert row["dataset"] == name.lower()
