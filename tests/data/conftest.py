"""Tiny data sets written to disk, the real ones where this machine has them, and no network."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from data.tiny_sets import write_mnist

_BESIDE = Path(__file__).parents[3] / "shared" / "data"
# Read before any test takes the variable away.
_REAL_DATA = Path(os.environ["PLASTIC_DATA"]) if os.environ.get("PLASTIC_DATA") else _BESIDE


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """No data folder of the person who runs the tests, and no network."""

    def refuse(*_args, **_keywords):
        raise AssertionError("a test reached for the network")

    monkeypatch.delenv("PLASTIC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def real_data():
    """The folder with real data sets, in torchvision's layout."""
    if not (_REAL_DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data: {_REAL_DATA} has no MNIST/raw; name a folder that has with PLASTIC_DATA")
    return _REAL_DATA


@pytest.fixture
def mnist_folder(tmp_path):
    """A data folder with a tiny set in the place of MNIST."""
    write_mnist(tmp_path / "MNIST" / "raw")
    return tmp_path
