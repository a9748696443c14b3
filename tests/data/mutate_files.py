"""Damages small data sets at random and reads them, within bounded memory; prints the results.

Every read must return valid data or raise UserError in one line. Bytes are changed at random, also inside archives.
Their checksums are then corrected so that the readers of their content are reached.

    PYTHONPATH=tests python tests/data/mutate_files.py 400 --seed 0 --megabytes 256
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data.tiny_sets import idx_bytes, write_cifar
from plastic_cli.data.catalog import DATASETS
from plastic_cli.data.sources import read_known_set, read_own_set
from plastic_cli.errors import UserError

_HOSTILE_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1]
_HOSTILE_TEXTS = [
    b"(999999999,)", b"(-1, 8, 8)", b"(60, 8, 8, 8, 8)", b"|O", b"<U9", b">f8", b"<M8[s]", b"'V8'", b"True", b"(((((((",
    b"1e999", b"nan", b"(0,)", b"<f4,<f4", b"\0\0\0\0", b"cposix\nsystem\n", b"\x8c\x05posix\x8c\x06system\x93",
]  # fmt: skip


class _Harmful:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def _write_sets(folder: Path, mark: Path) -> None:
    """Write one small data set of every supported kind, each in its own folder."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    y = np.arange(24) % 3
    floats, wide = (x / 255).astype(np.float32), rng.random((24, 8, 8, 3))

    def made(name):
        (folder / name).mkdir()
        return folder / name

    for name, images, labels, save in (
        ("npz", x, y, np.savez),
        ("npz-packed", floats, np.eye(3)[y], np.savez_compressed),
        ("npz-text", wide.astype(">f8"), np.array(["cat", "dog", "fox"])[y], np.savez_compressed),
        ("npz-fortran", np.asfortranarray(floats), y.astype(np.float64), np.savez),
    ):
        place = made(name)
        for split in ("train", "test"):
            save(place / f"{split}.npz", x=images, y=labels)
    np.savez(made("one-npz") / "all.npz", x_train=x, y_train=y, x_test=x, y_test=y, note="not an image")
    place = made("npz-pickled")
    for split in ("train", "test"):
        np.savez(place / f"{split}.npz", x=x, y=np.array([_Harmful(mark)] * 24, object), allow_pickle=True)
    place = made("npy")
    for split in ("train", "test"):
        np.save(place / f"x_{split}.npy", x)
        np.save(place / f"y_{split}.npy", y.astype(np.int16))
    for name, prefix, pack in (
        ("idx", "{}", bytes),
        ("idx-packed", "{}", gzip.compress),
        ("letters", "emnist-letters-{}", bytes),
    ):
        place = made(name)
        size, first = (28, 1) if name == "letters" else (8, 0)
        for split in ("train", "test"):
            images = rng.integers(0, 256, (24, size, size), dtype=np.uint8)
            (place / f"{prefix.format(split)}-images-idx3-ubyte").write_bytes(pack(idx_bytes(images)))
            labels = (y + first).astype(np.uint8)
            (place / f"{prefix.format(split)}-labels-idx1-ubyte").write_bytes(pack(idx_bytes(labels)))
    write_cifar(folder / "cifar" / "cifar-10-batches-py", per_batch=2)
    place = made("cifar-pickled") / "cifar-10-batches-py"
    write_cifar(place, per_batch=2)
    for batch in place.iterdir():
        batch.write_bytes(pickle.dumps({"data": _Harmful(mark), "labels": [0, 1]}, protocol=4))
    for name, mode, suffix in (
        ("png", "L", "png"), ("png-color", "RGBA", "png"), ("png-palette", "P", "png"), ("png-16-bits", "I;16", "png"),
        ("jpeg", "RGB", "jpg"), ("gif", "P", "gif"), ("tiff", "RGB", "tif"), ("bmp", "RGB", "bmp"),
        ("webp", "RGB", "webp"), ("pgm", "L", "pgm"),
    ):  # fmt: skip
        for number, label in enumerate(y[:9]):
            for split in ("train", "test"):
                place = folder / name / split / f"class {label}"
                place.mkdir(parents=True, exist_ok=True)
                if mode == "I;16":
                    picture = Image.fromarray(x[number].astype(np.uint16) * 257)
                else:
                    picture = Image.fromarray(x[number]).convert(mode)
                picture.save(place / f"{number}.{suffix}")


def _mutated(content: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Return the bytes of a file with one to three random damages."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        # Damage matters most in headers.
        end = max(1, len(data) if rng.random() < 0.5 else min(len(data), 160))
        at = int(rng.integers(0, end))
        match int(rng.integers(0, 10)):
            case 0 | 1:
                data[at : at + 1] = bytes([int(rng.integers(0, 256))])
            case 2:
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ (1 << int(rng.integers(0, 8)))])
            case 3:
                del data[at:]
            case 4:
                del data[at : at + int(rng.integers(1, 64))]
            case 5:
                data[at:at] = rng.bytes(int(rng.integers(1, 64)))
            case 6:
                number = _HOSTILE_NUMBERS[rng.integers(0, len(_HOSTILE_NUMBERS))]
                width = int(rng.choice([1, 2, 4, 8]))
                order = "little" if rng.random() < 0.5 else "big"
                data[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
            case 7:
                text = _HOSTILE_TEXTS[rng.integers(0, len(_HOSTILE_TEXTS))]
                data[at : at + len(text)] = text
            case 8:
                other = others[rng.integers(0, len(others))]
                start = int(rng.integers(0, max(1, len(other))))
                data[at : at + 40] = other[start : start + 40]
            case _:
                data[at:at] = data[at // 2 : at // 2 + int(rng.integers(1, 200))]
    return bytes(data)


def _mutated_inside(path: Path, content: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Return a file with damage and correct checksums: in an archive, in packed data, in a chunk of a PNG."""
    if path.suffix == ".npz":
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
            chosen = rng.integers(0, len(old.infolist()))
            for number, info in enumerate(old.infolist()):
                member = old.read(info)
                mutated = _mutated(member, rng, others) if number == chosen else member
                new.writestr(info.filename, mutated, info.compress_type)
        return packed.getvalue()
    if content.startswith(b"\x1f\x8b"):
        return gzip.compress(_mutated(gzip.decompress(content), rng, others))
    if path.suffix == ".png":
        chunks, at = [], 8
        while at + 12 <= len(content):
            (length,) = struct.unpack(">I", content[at : at + 4])
            chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
            at += 12 + length
        chosen = int(rng.integers(0, len(chunks)))
        whole = content[:8]
        for number, (kind, body) in enumerate(chunks):
            mutated = _mutated(body or b"\0", rng, others) if number == chosen else body
            whole += struct.pack(">I", len(mutated)) + kind + mutated + struct.pack(">I", zlib.crc32(kind + mutated))
        return whole
    return _mutated(content, rng, others)


def _read(place: Path):
    if (place / "cifar-10-batches-py").is_dir():
        return read_known_set(DATASETS["cifar10"], place)
    return read_own_set(place)


def _check(stored) -> None:
    for split in (stored.train, stored.test):
        assert split.x.dtype in (np.uint8, np.float32), split.x.dtype
        assert split.x.ndim == 4, split.x.shape
        assert len(split.x) == len(split.y) > 0
        assert split.y.dtype == np.int64
        assert 0 <= split.y.min() <= split.y.max() < len(stored.class_names)
        assert np.isfinite(split.x).all()
    assert "\n" not in stored.note


def _check_message(text: str, place: Path) -> None:
    assert text.isprintable(), text
    assert str(place) in text, text
    assert len(text.replace(str(place), "")) < 700, text
    for word in ("allow_pickle", "max_header_size", "Traceback", "object at 0x"):
        assert word not in text, text


def _peak_megabytes() -> float:
    # getrusage may report the peak of the parent process.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def mutate(mutations: int, seed: int, megabytes: int) -> dict[str, object]:
    """Damage and read `mutations` times, with at most `megabytes` of additional memory."""
    warnings.simplefilter("ignore")
    outcome: dict[str, object] = {"mutations": 0, "read": 0, "refused": 0, "faults": [], "ran": False}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        mark = root / "it ran"
        (root / "sound").mkdir()
        _write_sets(root / "sound", mark)
        sets = sorted((root / "sound").iterdir())
        others = [path.read_bytes() for path in sorted((root / "sound").rglob("*")) if path.is_file()]
        for place in sets:
            # The undamaged files can be read; otherwise this tests nothing.
            with contextlib.suppress(UserError) if "pickled" in place.name else contextlib.nullcontext():
                _check(_read(place))
        if "torch" in sys.modules:
            raise AssertionError("reading imports torch, which takes more memory than the data")
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = _peak_megabytes()
        resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20, resource.RLIM_INFINITY))
        for number in range(mutations):
            rng = np.random.default_rng([seed, number])
            sound = sets[number % len(sets)]
            files = sorted(path for path in sound.rglob("*") if path.is_file())
            path = files[rng.integers(0, len(files))]
            content = path.read_bytes()
            change = _mutated_inside if rng.random() < 0.6 else lambda _, *rest: _mutated(*rest)
            path.write_bytes(change(path, content, rng, others))
            outcome["mutations"] += 1
            try:
                _check(_read(sound))
                outcome["read"] += 1
            except UserError as error:
                try:
                    _check_message(str(error), root)
                    outcome["refused"] += 1
                except AssertionError as wrong:
                    faults.append(f"{sound.name} {number}: message {wrong}")
            except BaseException:  # noqa: BLE001  # whatever it is, it is a fault
                faults.append(f"{sound.name} {number}: {traceback.format_exc()[-1500:]}")
            path.write_bytes(content)
        outcome["ran"] = mark.exists()
    outcome["faults"] = faults
    outcome["peak_megabytes"] = _peak_megabytes() - before
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mutations", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=512)
    arguments = parser.parse_args()
    print(json.dumps(mutate(arguments.mutations, arguments.seed, arguments.megabytes)))
