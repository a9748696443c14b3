"""Downloads a data set from torchvision's addresses. The result is complete, or nothing is stored.

Why not torchvision's own downloader: it has no timeout, it falls back from https to plain http, and it extracts whole
archives, of which only some files are needed. Why not pooch: it takes one address per file, and the mirrors, the choice
of files and the complete-or-nothing rule would remain here.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from plastic_cli.data.catalog import DatasetInfo, missing_files, where_to_put
from plastic_cli.errors import UserError

if TYPE_CHECKING:
    from _typeshed import SupportsRead
    from rich.progress import Progress

_FAILURES = (OSError, http.client.HTTPException, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error)
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 16


@dataclass(frozen=True)
class _Archive:
    """A file to download, from the first address that works. md5: checksum of the content, in hexadecimal."""

    addresses: tuple[str, ...]
    md5: str

    @property
    def file(self) -> str:
        return self.addresses[0].rpartition("/")[2]


def download_dataset(info: DatasetInfo, folder: Path) -> None:
    """Download the missing files of a data set into the data folder, with a progress bar on stderr.

    The files are downloaded, checked (MD5) and unpacked in a temporary folder, by one process at a time. Raises
    UserError, which says which files to put where, if the download fails.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{info.name}.lock"):
            missing = missing_files(info, folder)
            if missing:
                _fetch_missing(info, missing, folder)
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{info.name} could not be downloaded ({reason}). {where_to_put(info, folder)}") from error


def _fetch_missing(info: DatasetInfo, missing: tuple[str, ...], folder: Path) -> None:
    temporary = folder / f".downloading-{info.name}"
    # A killed process may have left this folder.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _say(f"downloading {info.name} ({info.download_bytes / 1e6:,.1f} MB) into {folder / info.folder}")
        if info.download_note:
            _say(f"{info.name}: {info.download_note}")
        with _progress() as progress:
            for archive in _archives(info, missing):
                packed = temporary / archive.file
                _fetch(archive, packed, progress)
                _unpack(packed, missing, temporary)
                packed.unlink()
        place = folder / info.folder
        place.mkdir(parents=True, exist_ok=True)
        for name in missing:
            (temporary / name).replace(place / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _archives(info: DatasetInfo, missing: tuple[str, ...]) -> list[_Archive]:
    """Return the archives to download. Addresses and checksums are torchvision's."""
    from torchvision import datasets

    if info.name == "cifar10":
        return [_Archive((datasets.CIFAR10.url,), datasets.CIFAR10.tgz_md5)]
    if info.name.startswith("emnist"):
        return [_Archive((datasets.EMNIST.url,), datasets.EMNIST.md5)]
    like_mnist = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[info.name]
    return [
        _Archive(tuple(f"{mirror}{name}" for mirror in like_mnist.mirrors), md5)
        for name, md5 in like_mnist.resources
        if name.removesuffix(".gz") in missing
    ]


def _fetch(archive: _Archive, target: Path, progress: Progress) -> None:
    """Download from the first address that sends the right content; raises the error of the last address."""
    task = progress.add_task(archive.file, total=None)
    for address in archive.addresses:
        try:
            request = urllib.request.Request(address, headers={"User-Agent": "plastic"})
            with (
                urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response,
                target.open("wb") as stream,
            ):
                announced = response.headers.get("Content-Length")
                progress.update(task, total=int(announced) if announced else None, completed=0)
                digest = hashlib.md5(usedforsecurity=False)
                while block := response.read(_BLOCK):
                    stream.write(block)
                    digest.update(block)
                    progress.advance(task, len(block))
            if digest.hexdigest() != archive.md5:
                raise OSError(f"{address} sent wrong or incomplete data")
        except (OSError, http.client.HTTPException) as error:
            failure: Exception = error
        else:
            return
    raise failure


def _unpack(packed: Path, wanted: tuple[str, ...], folder: Path) -> None:
    """Extract the wanted files of an archive into `folder`, by name only: no path in the archive is followed."""
    if packed.suffix == ".zip":
        with zipfile.ZipFile(packed) as archive:
            for member in archive.namelist():
                name = PurePosixPath(member).name.removesuffix(".gz")
                if name in wanted:
                    with archive.open(member) as compressed, gzip.open(compressed) as stream:
                        _write(stream, folder / name)
    elif packed.name.endswith(".tar.gz"):
        with tarfile.open(packed) as tar:
            for entry in tar:
                name = PurePosixPath(entry.name).name
                content = tar.extractfile(entry) if name in wanted else None
                if content is not None:
                    _write(content, folder / name)
    else:
        with gzip.open(packed) as stream:
            _write(stream, folder / packed.name.removesuffix(".gz"))


def _write(stream: SupportsRead[bytes], target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # No control characters in a log file.
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield progress
